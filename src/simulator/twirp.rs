//! Twirp as the server speaks it: routes, tokens, errors, and the calls that go wrong on command.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use livekit_api::access_token::{Claims, TokenVerifier, VideoGrants};
use prost::Message;
use serde::Serialize;

use super::{egress_calls, fault::CallAction, room_calls, world::World};

/// Why a call is refused: a Twirp error.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) msg: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) meta: BTreeMap<String, String>,
}

impl Refusal {
    pub(super) fn new(code: &str, msg: impl Into<String>) -> Refusal {
        Refusal { code: code.to_owned(), msg: msg.into(), meta: BTreeMap::new() }
    }

    /// A refusal that comes from behind the server's own door (egress workers, stores): measured servers of 2026 put
    /// these words in front of it.
    pub(super) fn relayed(code: &str, msg: impl std::fmt::Display) -> Refusal {
        Refusal::new(code, format!("twirp error unknown: {msg}"))
    }

    /// A request that an egress worker does not take.
    pub(super) fn invalid(msg: impl std::fmt::Display) -> Refusal {
        Refusal::relayed("invalid_argument", msg)
    }

    pub(super) fn not_found(msg: impl Into<String>) -> Refusal {
        Refusal::new("not_found", msg)
    }

    fn bad_route(path: &str) -> Refusal {
        let mut refusal = Refusal::new("bad_route", format!("no handler for path \"{path}\""));
        refusal.meta.insert("twirp_invalid_route".to_owned(), format!("POST {path}"));
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status_of(&self.code), axum::Json(self)).into_response()
    }
}

/// Twirp's table of codes and statuses.
fn status_of(code: &str) -> StatusCode {
    match code {
        "canceled" | "deadline_exceeded" => StatusCode::REQUEST_TIMEOUT,
        "invalid_argument" | "malformed" | "out_of_range" => StatusCode::BAD_REQUEST,
        "not_found" | "bad_route" => StatusCode::NOT_FOUND,
        "already_exists" | "aborted" => StatusCode::CONFLICT,
        "permission_denied" => StatusCode::FORBIDDEN,
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "resource_exhausted" => StatusCode::TOO_MANY_REQUESTS,
        "failed_precondition" => StatusCode::PRECONDITION_FAILED,
        "unimplemented" => StatusCode::NOT_IMPLEMENTED,
        "unavailable" | "dataloss" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A call that got in: whose grants, which bytes.
pub(super) struct Call {
    pub(super) method: String,
    pub(super) grants: VideoGrants,
    body: Bytes,
}

impl Call {
    pub(super) fn decode<M: Message + Default>(&self) -> Result<M, Refusal> {
        M::decode(self.body.clone())
            .map_err(|_| Refusal::new("malformed", "the protobuf request could not be decoded"))
    }

    /// Lets the call pass only if its token allows it.
    pub(super) fn require(&self, allowed: bool) -> Result<(), Refusal> {
        match allowed {
            true => Ok(()),
            false => Err(Refusal::new("unauthenticated", "permissions denied")),
        }
    }

    /// Administers this room.
    pub(super) fn require_admin(&self, room: &str) -> Result<(), Refusal> {
        self.require(self.grants.room_admin && self.grants.room == room)
    }

    pub(super) fn bad_route(&self, service: &str) -> Refusal {
        Refusal::bad_route(&format!("/twirp/{service}/{}", self.method))
    }
}

/// The answer of a call, as bytes.
pub(super) fn answer(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Every call to the server.
pub(super) async fn handle(
    State(world): State<Arc<World>>,
    Path((service, method)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = world.note_call(&service, &method);
    match &fault {
        Some(CallAction::Hang) => return never(&world).await,
        Some(CallAction::Error { code, msg }) => {
            return Refusal::new(code, msg.clone()).into_response();
        }
        Some(CallAction::Http { status }) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (status, "upstream connect error").into_response();
        }
        Some(CallAction::Delay { ms }) => world.pause(Duration::from_millis(*ms)).await,
        _ => {}
    }
    let response = match grants(&world, &headers) {
        Ok(grants) => dispatch(&world, &service, Call { method, grants, body }).await,
        // the server's authentication layer answers in plain text, not in Twirp
        Err(text) => (StatusCode::UNAUTHORIZED, text).into_response(),
    };
    match fault {
        Some(CallAction::HangAfter) => return never(&world).await,
        Some(CallAction::DelayAnswer { ms }) => world.pause(Duration::from_millis(ms)).await,
        _ => {}
    }
    response
}

/// Twirp's answer to a path outside its services.
pub(super) async fn no_route(uri: axum::http::Uri) -> Response {
    Refusal::bad_route(uri.path()).into_response()
}

async fn dispatch(world: &Arc<World>, service: &str, call: Call) -> Response {
    let done = match service {
        "livekit.Egress" => egress_calls::handle(world, &call).await,
        "livekit.RoomService" => room_calls::handle(world, &call),
        _ => Err(call.bad_route(service)),
    };
    match done {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/protobuf")], bytes).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// The caller's grants. No token at all means no grants; a bad one does not get past the door.
fn grants(world: &World, headers: &HeaderMap) -> Result<VideoGrants, String> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(VideoGrants::default()) };
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    let token = token.ok_or("invalid authorization header. Must start with Bearer ")?;
    let issuer = Claims::from_unverified(token).map_err(|_| "invalid authorization token")?.iss;
    let secret = world.config.keys.iter().find(|(key, _)| *key == issuer);
    let (key, secret) = secret.ok_or_else(|| format!("invalid API key: {issuer}"))?;
    let claims = TokenVerifier::with_api_key(key, secret).verify(token);
    claims
        .map(|claims| claims.video)
        .map_err(|error| format!("invalid token: {token}, error: {error}"))
}

/// No answer until the simulator itself ends.
async fn never(world: &World) -> Response {
    world.cancel.cancelled().await;
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}
