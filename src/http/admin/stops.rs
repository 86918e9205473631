//! Stopping other people's buffers: one, or all of them.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::Caller,
    domain::id::SessionId,
    flow,
    http::{
        AppState,
        error::Answer,
        extract::{Path, Query},
        sessions::StopBody,
    },
};

use super::InCommunity;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stop)).routes(routes!(stop_all))
}

/// How many were stopped.
#[derive(Debug, Serialize, ToSchema)]
struct StoppedAll {
    stopped: u64,
}

/// Stops a session. Instance admin, or MANAGE_REPLAY_LIMITS in the community that is named, else in the session's.
#[utoipa::path(post, path = "/admin/sessions/{id}/stop", tag = "admin", security(("bearer" = [])),
    params(("id" = String, Path), InCommunity),
    responses((status = 200, body = StopBody), (status = 403, description = "permission_denied"),
        (status = 404, description = "not_found"),
        (status = 409, description = "session_not_active")))]
async fn stop(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(place): Query<InCommunity>,
) -> Answer<Json<StopBody>> {
    let (id, community) = (SessionId::new(id), place.community());
    let session = flow::admin::stop_session(&state.deps, &caller, &id, community).await?;
    Ok(StopBody::new("The replay buffer was stopped.", session))
}

/// Stops every session that holds a place. Instance admin; with `communityId` also its MANAGE_REPLAY_LIMITS.
#[utoipa::path(post, path = "/admin/sessions/stop-all", tag = "admin", security(("bearer" = [])),
    params(InCommunity),
    responses((status = 200, body = StoppedAll), (status = 403, description = "permission_denied")))]
async fn stop_all(
    State(state): State<AppState>,
    caller: Caller,
    Query(place): Query<InCommunity>,
) -> Answer<Json<StoppedAll>> {
    let stopped = flow::admin::stop_all(&state.deps, &caller, place.community()).await?;
    Ok(Json(StoppedAll { stopped }))
}
