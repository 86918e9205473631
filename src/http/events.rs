//! GET /events: what happens, as it happens (server-sent events), and the tickets that browsers open it with.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    error::{Answer, Problem},
    extract::Query,
};
use crate::{
    access::{Caller, token},
    domain::{id::CommunityId, time::Timestamp},
    error::{Code, Error},
    flow::events::{
        stream::{self, Piece},
        ticket,
    },
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// When a reader whose connection broke comes again, milliseconds.
const COME_AGAIN: u32 = 2000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(listen)).routes(routes!(make_ticket))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// What happens in this community, for who holds MANAGE_REPLAY_LIMITS there, instead of the caller's own.
    community_id: Option<String>,
    /// A ticket of POST /events/ticket, instead of a token.
    ticket: Option<String>,
    /// The `id` of the last event that was received, where the header `Last-Event-ID` cannot be sent; the header
    /// counts if both are there.
    last_event_id: Option<String>,
}

/// Events of the caller's sessions, clips and quota as server-sent events: `id`, `event` (the type) and `data`, JSON
/// `{id, type, createdAt, data}`. With `Last-Event-ID` everything since that event comes first, for an hour without
/// loss; where that cannot be promised an event `reset` says so. An `id` without data moves the place to resume from.
/// The stream ends when the token expires or the right is gone, and when nobody reads it.
#[utoipa::path(get, path = "/events", tag = "events", security(("bearer" = [])),
    params(Which, ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was received.")),
    responses(
        (status = 200, description = "The stream.", content_type = "text/event-stream", body = String),
        (status = 403, description = "`permission_denied`"),
        (status = 429, description = "`rate_limited`: too many streams of the caller are open"),
    ))]
async fn listen(
    State(state): State<AppState>,
    caller: Option<Caller>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    method: Method,
) -> Answer<Response> {
    if method == Method::HEAD {
        let text = "What a stream is, only its events can tell.";
        return Err(Problem(Error::new(Code::MethodNotAllowed, text)));
    }
    let deps = &state.deps;
    let last = match headers.get(LAST_EVENT_ID) {
        Some(value) => {
            let text = value
                .to_str()
                .map_err(|_| Error::invalid_field("lastEventId", "is no id of an event"))?;
            Some(text.to_owned()).filter(|text| !text.is_empty())
        }
        None => which.last_event_id,
    };
    let caller = match (caller, which.ticket) {
        (Some(caller), _) => caller,
        (None, Some(ticket)) => ticket::redeem(deps, &ticket).await?,
        (None, None) => return Err(Problem(token::refusal(token::Reason::Missing))),
    };
    let community = which.community_id.map(CommunityId::new);
    let pieces = stream::open(deps, caller, community, last.as_deref()).await?;
    let pieces = futures::stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(written(&piece)), pieces))
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // a proxy that gathers answers would keep events back
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// A piece as it goes over the wire. JSON has no line feed outside its texts, and none unescaped inside.
fn written(piece: &Piece) -> Bytes {
    let text = match piece {
        Piece::Position(id) => format!("retry: {COME_AGAIN}\nid: {id}\n\n"),
        Piece::Event { id, kind, body } => format!("id: {id}\nevent: {kind}\ndata: {body}\n\n"),
        Piece::Reset(body) => format!("event: reset\ndata: {body}\n\n"),
        Piece::Beat => ": alive\n\n".to_owned(),
        Piece::Bye => "retry: 500\n\n".to_owned(),
    };
    Bytes::from(text)
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TicketBody {
    /// For `?ticket=`; works once.
    ticket: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// A ticket that opens one stream of the caller's events within a minute: `EventSource` cannot send a token.
#[utoipa::path(post, path = "/events/ticket", tag = "events", security(("bearer" = [])),
    responses((status = 201, body = TicketBody),
        (status = 429, description = "`rate_limited`: too many tickets were not used")))]
async fn make_ticket(
    State(state): State<AppState>,
    caller: Caller,
) -> Answer<(StatusCode, HeaderMap, Json<TicketBody>)> {
    let made = ticket::make(&state.deps, &caller).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = TicketBody { ticket: made.ticket, expires_at: made.expires_at };
    Ok((StatusCode::CREATED, headers, Json(body)))
}
