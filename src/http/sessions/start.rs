//! `POST /start`, once for each `Idempotency-Key`.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::SessionBody;
use crate::{
    access::Caller,
    domain::{
        id::{CommunityId, Identity, RoomName, TrackId},
        names,
        sizes::Quality,
        time::Timestamp,
    },
    error::{Error, Result},
    flow::{
        self, Deps,
        idempotency::{self, Begun, Kept},
        start::{Accepted, StartRequest, Starter},
    },
    http::{
        AppState,
        error::Problem,
        extract::{Arrived, HashedBody},
        idempotency::{Key, finish, replayed},
        limits::Allowance,
    },
};

/// The route of a start in the scope of an `Idempotency-Key`.
const START: &str = "POST /start";
/// What a start takes besides LiveKit's answer: looking at room and participants, rows, the directory.
const START_LEASE_SLACK: Duration = Duration::from_secs(30);

/// The route that is limited as a start.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(start))
}

/// What to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StartBody {
    /// The LiveKit room.
    room_name: String,
    /// Must equal the room's community; counts for this session only where the room has none.
    community_id: Option<String>,
    /// `720p`, `1080p` (default), `1440p` or `source`; never larger than the source.
    #[schema(value_type = Option<String>)]
    quality: Option<Quality>,
    /// A certain screen share instead of the newest.
    video_track_id: Option<String>,
    /// A certain audio track instead of the share's own.
    audio_track_id: Option<String>,
    /// Somebody else's share (managers), or a certain one of one's own participants.
    participant_identity: Option<String>,
}

impl StartBody {
    fn into_request(self) -> Result<StartRequest, Problem> {
        for (field, value) in [
            ("videoTrackId", &self.video_track_id),
            ("audioTrackId", &self.audio_track_id),
            ("participantIdentity", &self.participant_identity),
        ] {
            if let Some(value) = value {
                names::check_name(field, value)?;
            }
        }
        Ok(StartRequest {
            room: RoomName::new(self.room_name),
            community: self.community_id.map(CommunityId::new),
            quality: self.quality.unwrap_or_default(),
            video: self.video_track_id.map(TrackId::new),
            audio: self.audio_track_id.map(TrackId::new),
            identity: self.participant_identity.map(Identity::new),
            held: None,
        })
    }
}

/// Start a replay buffer of the caller's screen share. 201 once LiveKit accepted; any error answer means that this
/// call records nothing, now or later.
#[utoipa::path(
    post, path = "/start", tag = "sessions", request_body = StartBody, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses(
        (status = 201, description = "Recording was accepted by LiveKit", body = SessionBody),
        (status = 403, description = "`permission_denied`, `community_disabled`, `track_not_yours`"),
        (status = 409, description = "`buffer_already_active`, `screen_share_not_found`, `community_mismatch`"),
        (status = 429, description = "`community_limit_reached`, `rate_limited`"),
        (status = 502, description = "`livekit_rejected_credentials`"),
        (status = 503, description = "`livekit_unreachable`, `egress_unavailable`, `storage_unavailable`, `overloaded`, `draining`"),
        (status = 504, description = "`egress_start_timeout`"),
    )
)]
async fn start(
    State(state): State<AppState>,
    caller: Caller,
    Arrived(arrived_at): Arrived,
    key: Key,
    allowance: Allowance,
    HashedBody(body, hash): HashedBody<StartBody>,
) -> Result<Response, Problem> {
    let mut request = body.into_request()?;
    // longer than LiveKit may take: a first request that has not ended by then is dead
    let lease = state.deps.config.livekit.start_timeout + START_LEASE_SLACK;
    let deps = state.deps.clone();
    if let Some(claim) = key.claim(&caller.user_id, START) {
        match idempotency::begin(&deps, &claim, &hash, lease).await? {
            Begun::First(held) => request.held = Some(held),
            Begun::Repeat(kept) => {
                let body = told_again(&deps, &caller, &kept).await?;
                return Ok(replayed((StatusCode::CREATED, Json(body)).into_response()));
            }
        }
    }
    // a caller who hangs up must not leave half a start behind
    let work = async move {
        let held = request.held.clone();
        let told = begin(&deps, caller, allowance, request, arrived_at).await;
        match (&told, &held) {
            (Ok(body), Some(held)) => {
                let kept = Kept { status: 201, body: body.to_string(), location: None };
                // repeats are told of the session in any case
                if let Err(error) = idempotency::keep(&deps, held, kept).await {
                    tracing::warn!(error = error.chain(), "a start's answer is not kept");
                }
            }
            (Err(_), Some(held)) => idempotency::release(&deps, held).await?,
            (_, None) => {}
        }
        told
    };
    let body = finish(&state.deps, work).await?;
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// The first of its key, and now it counts.
async fn begin(
    deps: &Deps,
    caller: Caller,
    allowance: Allowance,
    request: StartRequest,
    arrived_at: Timestamp,
) -> Result<Value> {
    allowance.spend().await?;
    let own = deps.clone();
    let work = async move {
        let starter = Starter::Caller(&caller);
        let session = flow::start::start(&own, starter, &request, arrived_at).await?;
        let shown = flow::show::started(&own, session).await;
        written(SessionBody::of(&own, &caller, shown))
    };
    deps.to_the_end(work).await
}

fn written(body: SessionBody) -> Result<Value> {
    serde_json::to_value(body).map_err(|error| Error::internal("writing a session", error))
}

/// The answer to the first, or where that was not written down any more, the session as it is now.
async fn told_again(deps: &Deps, caller: &Caller, kept: &Kept) -> Result<Value> {
    if let Ok(Accepted { session_id }) = serde_json::from_str(&kept.body) {
        let shown = flow::show::started_before(deps, &session_id).await?;
        return written(SessionBody::of(deps, caller, shown));
    }
    serde_json::from_str(&kept.body).map_err(|error| Error::internal("repeating an answer", error))
}
