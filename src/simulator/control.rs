//! `/sim/…`: the simulator's own JSON interface, for the demo and for tests of the real program.
//!
//! Names travel in bodies, never in paths. Every answer is JSON; a failure is `{"error": "…"}` with 404 or 422.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use livekit_protocol as proto;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{CallFault, Corruption, HookFault, Media, Share, Sim};
use crate::error::{Code, Error};

type Answer = Result<Json<Value>, Failure>;

pub(super) fn router(sim: Sim) -> Router {
    Router::new()
        .route("/sim/state", get(state))
        .route("/sim/egresses", get(egresses))
        .route("/sim/calls", get(calls))
        .route("/sim/webhooks", get(deliveries).put(set_urls))
        .route("/sim/rooms", post(open_room))
        .route("/sim/rooms/close", post(close_room))
        .route("/sim/join", post(join))
        .route("/sim/leave", post(leave))
        .route("/sim/publish", post(publish))
        .route("/sim/publish-audio", post(publish_audio))
        .route("/sim/publish-track", post(publish_track))
        .route("/sim/unpublish", post(unpublish))
        .route("/sim/mute", post(mute))
        .route("/sim/resize", post(resize))
        .route("/sim/egresses/{egress_id}/misbehave", post(misbehave))
        .route("/sim/faults/calls", post(add_call_fault).delete(clear_call_faults))
        .route("/sim/faults/webhooks", post(add_hook_fault).delete(clear_hook_faults))
        .with_state(sim)
}

struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, Json(json!({ "error": self.0.detail() }))).into_response()
    }
}

fn done() -> Answer {
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomBody {
    room: String,
    metadata: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    room: String,
    identity: String,
}

#[derive(Deserialize)]
struct Publication {
    room: String,
    identity: String,
    width: Option<u32>,
    height: Option<u32>,
    audio: Option<bool>,
    media: Option<Media>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherTrack {
    room: String,
    identity: String,
    /// `CAMERA`, `MICROPHONE`, `SCREEN_SHARE`, `SCREEN_SHARE_AUDIO`
    source: String,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
}

#[derive(Deserialize)]
struct TrackBody {
    track: String,
    #[serde(default)]
    muted: bool,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Misbehaviour {
    Die,
    Fail { error: String, code: i32 },
    Limit,
    Pause { ms: u64 },
    Corrupt { how: Corruption },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Urls {
    urls: Vec<String>,
}

async fn state(State(sim): State<Sim>) -> Answer {
    let rooms = sim.world.rooms().into_iter().map(|room| {
        let participants = sim.participants(&room.name);
        json!({ "room": room, "participants": participants })
    });
    Ok(Json(json!({
        "url": sim.url(),
        "rooms": rooms.collect::<Vec<_>>(),
        "egresses": sim.egresses(),
        "runningEncoders": sim.running_encoders(),
        "calls": sim.calls().len(),
    })))
}

async fn egresses(State(sim): State<Sim>) -> Answer {
    Ok(Json(json!({ "egresses": sim.egresses(), "runningEncoders": sim.running_encoders() })))
}

async fn calls(State(sim): State<Sim>) -> Answer {
    Ok(Json(json!({ "calls": sim.calls() })))
}

async fn deliveries(State(sim): State<Sim>) -> Answer {
    Ok(Json(json!({ "deliveries": sim.deliveries() })))
}

async fn set_urls(State(sim): State<Sim>, Json(body): Json<Urls>) -> Answer {
    sim.set_webhook_urls(body.urls);
    done()
}

async fn open_room(State(sim): State<Sim>, Json(body): Json<RoomBody>) -> Answer {
    match &body.metadata {
        Some(metadata) => sim.set_room_metadata(&body.room, metadata),
        None => drop(sim.room(&body.room)),
    }
    done()
}

async fn close_room(State(sim): State<Sim>, Json(body): Json<RoomBody>) -> Answer {
    sim.close_room(&body.room)?;
    done()
}

async fn join(State(sim): State<Sim>, Json(body): Json<Person>) -> Answer {
    sim.join(&body.room, &body.identity);
    done()
}

async fn leave(State(sim): State<Sim>, Json(body): Json<Person>) -> Answer {
    sim.leave(&body.room, &body.identity)?;
    done()
}

async fn publish(State(sim): State<Sim>, Json(body): Json<Publication>) -> Answer {
    let usual = Share::default();
    let share = Share {
        width: body.width.unwrap_or(usual.width),
        height: body.height.unwrap_or(usual.height),
        audio: body.audio.unwrap_or(usual.audio),
        media: body.media.unwrap_or(usual.media),
    };
    Ok(Json(json!(sim.publish_share(&body.room, &body.identity, share)?)))
}

async fn publish_audio(State(sim): State<Sim>, Json(body): Json<Person>) -> Answer {
    Ok(Json(json!({ "track": sim.publish_audio(&body.room, &body.identity)? })))
}

async fn publish_track(State(sim): State<Sim>, Json(body): Json<OtherTrack>) -> Answer {
    let source = proto::TrackSource::from_str_name(&body.source)
        .ok_or_else(|| Error::invalid_field("source", "not a kind of track"))?;
    let track = sim.publish_track(&body.room, &body.identity, source, (body.width, body.height))?;
    Ok(Json(json!({ "track": track })))
}

async fn unpublish(State(sim): State<Sim>, Json(body): Json<TrackBody>) -> Answer {
    sim.unpublish(&body.track)?;
    done()
}

async fn mute(State(sim): State<Sim>, Json(body): Json<TrackBody>) -> Answer {
    sim.set_muted(&body.track, body.muted)?;
    done()
}

async fn resize(State(sim): State<Sim>, Json(body): Json<TrackBody>) -> Answer {
    sim.resize(&body.track, body.width, body.height)?;
    done()
}

async fn misbehave(
    State(sim): State<Sim>,
    Path(egress_id): Path<String>,
    Json(body): Json<Misbehaviour>,
) -> Answer {
    match body {
        Misbehaviour::Die => sim.kill_egress(&egress_id),
        Misbehaviour::Fail { error, code } => sim.fail_egress(&egress_id, &error, code),
        Misbehaviour::Limit => sim.limit_egress(&egress_id),
        Misbehaviour::Pause { ms } => sim.pause_sink(&egress_id, Duration::from_millis(ms)),
        Misbehaviour::Corrupt { how } => sim.corrupt_next_segment(&egress_id, how),
    }?;
    done()
}

async fn add_call_fault(State(sim): State<Sim>, Json(body): Json<CallFault>) -> Answer {
    sim.add_call_fault(body);
    done()
}

async fn clear_call_faults(State(sim): State<Sim>) -> Answer {
    sim.clear_call_faults();
    done()
}

async fn add_hook_fault(State(sim): State<Sim>, Json(body): Json<HookFault>) -> Answer {
    sim.add_webhook_fault(body);
    done()
}

async fn clear_hook_faults(State(sim): State<Sim>) -> Answer {
    sim.clear_webhook_faults();
    done()
}
