//! Looking at a session before capturing from it: what a window would take, and small pictures along its time.

use std::str::FromStr;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    bytes::{self, Held},
    error::{Answer, Problem},
    extract::{Arrived, Path, Query, Signed},
    sessions::GapBody,
    stream::WindowQuery,
};
use crate::{
    access::{Caller, token},
    domain::{id::SessionId, time::Timestamp},
    flow::{
        estimate,
        filmstrip::{self, Address, Strip},
        links::{self, SignedQuery},
    },
};

/// The routes without a limit.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(estimated)).routes(routes!(image))
}

/// The route that is limited as a filmstrip.
pub fn filmstrip_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(strip))
}

/// What a capture of a window would take.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EstimateBody {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Of the segments that a capture would read now.
    bytes: u64,
    /// What a capture would reserve of the quota, also for what is still to come.
    reservation_bytes: u64,
    /// How many are there now.
    segments: u64,
    /// Time inside without usable media.
    gaps: Vec<GapBody>,
    /// What a clip would last now, gaps cut out.
    duration_seconds: f64,
}

/// How large a clip of a window would get, before it is made. Nothing is reserved, nothing is counted.
#[utoipa::path(
    get, path = "/sessions/{id}/estimate", tag = "sessions", params(("id" = String, Path), WindowQuery),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The window as it stands", body = EstimateBody),
        (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`, `no_segments_in_range`"),
        (status = 422, description = "`window_invalid`, `no_usable_segments`"),
    )
)]
#[expect(clippy::cast_precision_loss, reason = "microseconds of a buffer are far below 2^53")]
async fn estimated(
    State(state): State<AppState>,
    caller: Caller,
    Arrived(arrived_at): Arrived,
    Path(id): Path<String>,
    Query(query): Query<WindowQuery>,
) -> Answer<Json<EstimateBody>> {
    let (id, request) = (SessionId::new(id), query.into_request());
    let found = estimate::estimate(&state.deps, &caller, &id, &request, arrived_at).await?;
    Ok(Json(EstimateBody {
        from: found.window.from,
        to: found.window.to,
        bytes: found.bytes,
        reservation_bytes: found.reservation_bytes,
        segments: found.segments,
        gaps: found.gaps.into_iter().map(GapBody::from).collect(),
        duration_seconds: found.duration_us as f64 / 1e6,
    }))
}

/// Which pictures.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StripQuery {
    /// Unless given: the beginning of what is kept.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Unless given: the end of what is there.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// 1 to 60, 20 unless given.
    count: Option<u32>,
}

/// Small pictures along a session's time: WebVTT whose cues, counted from `from`, name parts (`#xywh=`) of one image.
/// Where nothing was recorded there is no cue.
#[utoipa::path(
    get, path = "/sessions/{id}/filmstrip", tag = "sessions", params(("id" = String, Path), StripQuery),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Cues; the image's address is signed", content_type = "text/vtt"),
        (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`, `no_segments_in_range`"),
        (status = 422, description = "`window_invalid`, `validation_failed`"),
        (status = 429, description = "`rate_limited`"),
        (status = 503, description = "`overloaded`: every worker is busy; `storage_unavailable`"),
    )
)]
async fn strip(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<StripQuery>,
) -> Answer<Response> {
    let id = SessionId::new(id);
    let (from, to, count) = (query.from, query.to, query.count);
    let strip = filmstrip::filmstrip(&state.deps, &caller, &id, from, to, count).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/vtt; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    Ok((headers, written(&strip)).into_response())
}

/// The cues as WebVTT. Nothing in it was named by anybody: times, numbers and a signature.
fn written(strip: &Strip) -> String {
    let mut text = format!("WEBVTT\n\nNOTE 0 is {}\n", strip.span.window.from);
    for (from, to, [x, y, width, height]) in &strip.cues {
        let (from, to) = (cue_time(*from), cue_time(*to));
        let query = &strip.query;
        text.push_str(&format!(
            "\n{from} --> {to}\nfilmstrip.jpg?{query}#xywh={x},{y},{width},{height}\n"
        ));
    }
    text
}

fn cue_time(millis: i64) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What a filmstrip's image shows, as its signed address says; read as text, so that whatever does not fit is no link.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ImageQuery {
    /// What it shows; part of the signed address, as are `t`, `n`, `g` and `h`.
    f: Option<String>,
    /// See `f`.
    t: Option<String>,
    /// See `f`.
    n: Option<String>,
    /// See `f`.
    g: Option<String>,
    /// See `f`.
    h: Option<String>,
}

impl ImageQuery {
    fn into_address(self) -> Option<Address> {
        fn number<T: FromStr>(text: Option<String>) -> Option<T> {
            text?.parse().ok()
        }
        let (from, to, count) = (number(self.f)?, number(self.t)?, number(self.n)?);
        Some(Address { from, to, count, generation: number(self.g)?, shows: self.h? })
    }
}

/// The image of a filmstrip, by the signed address in its cues.
#[utoipa::path(
    get, path = "/sessions/{id}/filmstrip.jpg", tag = "sessions",
    params(("id" = String, Path), ImageQuery, Signed),
    responses(
        (status = 200, description = "All pictures in one image", content_type = "image/jpeg"),
        (status = 304, description = "Unchanged"),
        (status = 401, description = "`unauthenticated`: `missing`, `bad_link` (also once the recording was discarded), `link_expired`"),
        (status = 404, description = "`not_found`: the recording has moved on, or is not kept any more; `no_segments_in_range`"),
        (status = 503, description = "`overloaded`: every worker is busy; `storage_unavailable`"),
    )
)]
async fn image(
    State(state): State<AppState>,
    Path(id): Path<String>,
    signed: Result<Query<SignedQuery>, Problem>,
    address: Result<Query<ImageQuery>, Problem>,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    // all that is no link of ours gets the same answer, before anything is looked up
    let (Ok(Query(signed)), Ok(Query(address))) = (signed, address) else {
        return Err(links::bad_link().into());
    };
    if !signed.is_given() {
        return Err(token::refusal(token::Reason::Missing).into());
    }
    let address = address.into_address().ok_or_else(links::bad_link)?;
    let id = SessionId::new(id);
    let bytes = filmstrip::image(&state.deps, &signed, &id, &address).await?;
    let tag = blake3::hash(&bytes).to_hex().to_string();
    let held = Held { bytes, content_type: "image/jpeg", tag };
    Ok(bytes::send_held(&method, &headers, &held))
}
