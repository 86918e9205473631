//! Session endpoints: stop, look, status; the start in [`start`].

pub mod start;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState, address,
    error::Problem,
    extract::{Path, Query},
};
use crate::{
    access::Caller,
    domain::{
        id::{RoomName, SessionId},
        lifecycle::SessionStatus,
        selection::Gap,
        time::Timestamp,
    },
    error::Code,
    flow::{self, Deps, admin::Session, show::Shown},
};

/// The routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(stop))
        .routes(routes!(stop_own))
        .routes(routes!(list))
        .routes(routes!(newest))
        .routes(routes!(one, discard))
        .routes(routes!(status))
        .routes(routes!(status_by_query))
}

/// One user's replay buffer in one room.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionBody {
    id: String,
    /// LiveKit's name of the newest recording; empty until it answered.
    egress_id: String,
    /// The part of the session recorded by the newest egress, counted from 1.
    epoch: i32,
    user_id: String,
    /// Empty once that person was erased.
    started_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    community_id: Option<String>,
    room_name: String,
    quality: String,
    /// `starting`, `active`, `degraded`, `stopping`, `stopped` or `failed`.
    status: String,
    /// Of a `degraded` one: `insufficient_disk` or `storage_unavailable` where it is the buffer store that stands in the
    /// way, else `recording_interrupted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded_reason: Option<&'static str>,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<String>,
    /// Until then nothing of the promised minutes is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    capturable_until: Option<Timestamp>,
    /// HLS of the promised minutes; signed, for the owner alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buffer: Option<BufferBody>,
    /// Relative to the buffer store; admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    segment_path: Option<String>,
    /// Screen to label, milliseconds; admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<i64>,
    /// Added to the egress host's clock, milliseconds; admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_offset_ms: Option<i64>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// The media still kept, screen time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BufferBody {
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// Gaps not counted.
    duration_seconds: f64,
    segments: u64,
    bytes: u64,
    bytes_per_second: u64,
    gaps: Vec<GapBody>,
}

/// Time without usable media.
#[derive(Debug, Serialize, ToSchema)]
pub struct GapBody {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// `missing`, `corrupt`, `truncated`, `empty`, `foreign`, `restart`, `not_recorded` or `before_buffer`.
    reason: String,
}

impl From<Gap> for GapBody {
    fn from(gap: Gap) -> GapBody {
        GapBody { from: gap.from, to: gap.to, reason: gap.reason.to_string() }
    }
}

impl SessionBody {
    /// A session as `caller` sees it; the link in it is his.
    pub(super) fn of(deps: &Deps, caller: &Caller, shown: Shown) -> SessionBody {
        let Shown { session, epoch, buffer, for_admin } = shown;
        let preview = flow::preview::session_query(deps, caller, &session);
        let root = address(deps, &format!("/sessions/{}/preview.m3u8", session.id));
        let admin = epoch.as_ref().filter(|_| for_admin);
        let degraded = (session.status == SessionStatus::Degraded).then(|| {
            deps.stores.buffer.trouble_code().map_or("recording_interrupted", Code::as_str)
        });
        SessionBody {
            degraded_reason: degraded,
            preview_url: preview.map(|query| format!("{root}?{query}")),
            segment_path: admin.map(|epoch| epoch.path.clone()),
            delay_ms: admin.and_then(|epoch| epoch.delay_ms),
            clock_offset_ms: admin.and_then(|epoch| epoch.clock_offset_us).map(|us| us / 1000),
            egress_id: epoch
                .and_then(|epoch| epoch.egress_id)
                .map(|id| id.into_string())
                .unwrap_or_default(),
            id: session.id.into_string(),
            epoch: session.current_epoch,
            user_id: session.user_id.into_string(),
            started_by: session.started_by.into_string(),
            username: session.username,
            community_id: session.community_id.map(|id| id.into_string()),
            room_name: session.room_name.into_string(),
            quality: session.quality,
            status: session.status.to_string(),
            started_at: session.started_at,
            ended_at: session.ended_at,
            end_reason: session.end_reason.map(|reason| reason.to_string()),
            capturable_until: session.capturable_until,
            buffer: buffer.map(BufferBody::from),
            created_at: session.created_at,
            updated_at: session.updated_at,
        }
    }
}

impl From<flow::show::Buffer> for BufferBody {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a buffer are far below 2^53")]
    fn from(buffer: flow::show::Buffer) -> BufferBody {
        BufferBody {
            starts_at: buffer.starts_at,
            ends_at: buffer.ends_at,
            now: buffer.now,
            duration_seconds: buffer.duration_ms as f64 / 1000.0,
            segments: buffer.segments,
            bytes: buffer.bytes,
            bytes_per_second: buffer.bytes_per_second,
            gaps: buffer.gaps.into_iter().map(GapBody::from).collect(),
        }
    }
}

/// Several sessions.
#[derive(Debug, Serialize, ToSchema)]
struct SessionList {
    sessions: Vec<SessionBody>,
    total: usize,
}

/// A stop that was taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StopBody {
    message: String,
    session_id: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    capturable_until: Option<Timestamp>,
}

impl StopBody {
    pub(super) fn new(message: &str, session: Session) -> axum::Json<StopBody> {
        axum::Json(StopBody {
            message: message.to_owned(),
            session_id: session.id.into_string(),
            capturable_until: session.capturable_until,
        })
    }
}

/// Stop a session; its media stays capturable for a while.
#[utoipa::path(
    post, path = "/stop/{sessionId}", tag = "sessions", params(("sessionId" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = StopBody), (status = 409, description = "`session_not_active`"))
)]
async fn stop(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<StopBody>, Problem> {
    let session = flow::stop::stop(&state.deps, &caller, &SessionId::new(id)).await?;
    Ok(StopBody::new("The replay buffer was stopped.", session))
}

/// Stop the caller's session.
#[utoipa::path(
    post, path = "/stop", tag = "sessions",
    security(("bearer" = [])),
    responses((status = 200, body = StopBody), (status = 409, description = "`session_not_active`"))
)]
async fn stop_own(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<axum::Json<StopBody>, Problem> {
    let session = flow::stop::stop_own(&state.deps, &caller).await?;
    Ok(StopBody::new("The replay buffer was stopped.", session))
}

/// The caller's capturable sessions, newest first.
#[utoipa::path(get, path = "/sessions", tag = "sessions", security(("bearer" = [])),
    responses((status = 200, body = SessionList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<axum::Json<SessionList>, Problem> {
    let shown = flow::show::list_own(&state.deps, &caller).await?;
    let sessions: Vec<SessionBody> =
        shown.into_iter().map(|shown| SessionBody::of(&state.deps, &caller, shown)).collect();
    Ok(axum::Json(SessionList { total: sessions.len(), sessions }))
}

/// The caller's newest capturable session.
#[utoipa::path(
    get, path = "/session", tag = "sessions",
    security(("bearer" = [])),
    responses((status = 200, body = SessionBody), (status = 404, description = "`no_session`"))
)]
async fn newest(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<axum::Json<SessionBody>, Problem> {
    let shown = flow::show::newest_own(&state.deps, &caller).await?;
    Ok(axum::Json(SessionBody::of(&state.deps, &caller, shown)))
}

/// One session with its buffer.
#[utoipa::path(
    get, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = SessionBody), (status = 404, description = "`not_found`"))
)]
async fn one(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<SessionBody>, Problem> {
    let shown = flow::show::one(&state.deps, &caller, &SessionId::new(id)).await?;
    Ok(axum::Json(SessionBody::of(&state.deps, &caller, shown)))
}

/// Stop a session and let its buffer go as soon as accepted captures have their bytes.
#[utoipa::path(
    delete, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses(
        (status = 200, body = StopBody),
        (status = 404, description = "`not_found`"),
        (status = 429, description = "`rate_limited`"),
    )
)]
async fn discard(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<StopBody>, Problem> {
    let session = flow::stop::discard(&state.deps, &caller, &SessionId::new(id)).await?;
    Ok(StopBody::new("The replay buffer was discarded.", session))
}

/// What runs in a room.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StatusBody {
    active_sessions: Vec<RunningBody>,
}

/// A running session as others in the room see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunningBody {
    id: String,
    user_id: String,
    username: Option<String>,
    quality: String,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    duration_minutes: i64,
    status: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StatusQuery {
    /// The LiveKit room.
    room_name: String,
}

/// Who is being recorded in a room. For those it does not concern the answer is that of an unknown room: empty.
#[utoipa::path(
    get, path = "/status/{roomName}", tag = "sessions", params(("roomName" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = StatusBody))
)]
async fn status(
    State(state): State<AppState>,
    caller: Caller,
    Path(room): Path<String>,
) -> Result<axum::Json<StatusBody>, Problem> {
    room_status(&state, &caller, room).await
}

/// The same, for room names that do not fit into a path.
#[utoipa::path(
    get, path = "/status", tag = "sessions", params(StatusQuery),
    security(("bearer" = [])),
    responses((status = 200, body = StatusBody))
)]
async fn status_by_query(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<StatusQuery>,
) -> Result<axum::Json<StatusBody>, Problem> {
    room_status(&state, &caller, query.room_name).await
}

async fn room_status(
    state: &AppState,
    caller: &Caller,
    room: String,
) -> Result<axum::Json<StatusBody>, Problem> {
    let now = state.deps.clock.now();
    let running = flow::show::room_status(&state.deps, caller, &RoomName::new(room)).await?;
    let active_sessions = running
        .into_iter()
        .map(|session| RunningBody {
            duration_minutes: now.micros_since(session.started_at).max(0) / 60_000_000,
            id: session.id.into_string(),
            user_id: session.user_id.into_string(),
            username: session.username,
            quality: session.quality,
            started_at: session.started_at,
            status: session.status.to_string(),
        })
        .collect();
    Ok(axum::Json(StatusBody { active_sessions }))
}
