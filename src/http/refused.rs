//! The layer that has refused privileged acts written into the audit log: whatever an administrators' address answers
//! with 403 or 404, and what only a manager may do elsewhere. What is written, and how a flood is bounded, is
//! `flow::audit_log`'s.

use std::{collections::HashMap, sync::Arc};

use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    AppState, BASE,
    error::{self, status_of},
};
use crate::{
    access::{Caller, Permission},
    domain::{
        audit::Action,
        id::{ClipId, CommunityId, JobId, SessionId, UserId},
    },
    error::{Code, Error},
    flow::audit_log::{Refusals, Target},
};

/// Puts the layer on the routes of `router`.
pub(super) fn audited(
    router: OpenApiRouter<AppState>,
    state: &AppState,
    refusals: &Arc<Refusals>,
) -> OpenApiRouter<AppState> {
    let state = (state.clone(), Arc::clone(refusals));
    router.layer(axum::middleware::from_fn_with_state(state, layer))
}

async fn layer(
    State((state, refusals)): State<(AppState, Arc<Refusals>)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(path) = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned())
    else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let path = path.strip_prefix(BASE).unwrap_or(&path);
    let Some(action) = action_of(&parts.method, path) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let caller = <Caller as FromRequestParts<AppState>>::from_request_parts(&mut parts, &state);
    let caller = match caller.await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let target = target_of(path, &mut parts).await;
    let response = next.run(Request::from_parts(parts, body)).await;
    if let Some(error) = error::of(&response)
        && is_refusal(action, error)
    {
        let code = error.code();
        let deps = state.deps.clone();
        let note = async move {
            let noted = refusals.note(&deps, &caller, action, target, code.as_str()).await;
            if let Err(error) = noted {
                tracing::error!(error = error.chain(), "a refusal is missing in the audit log");
            }
        };
        // a caller who hangs up does not get around his line; if the task dies its panic is in the log
        let _ = state.deps.tasks.spawn(note).await;
    }
    response
}

/// Whether this answer refuses a privilege. Starting one's own takes a right of another kind than somebody else's.
fn is_refusal(action: Action, error: &Error) -> bool {
    let refused = matches!(status_of(error.code()).as_u16(), 403 | 404);
    let manager = Permission::ManageReplayLimits.as_str();
    let privileged = || {
        error.code() == Code::TrackNotYours
            || error.fields().get("permission").is_some_and(|asked| asked == manager)
    };
    refused && (action != Action::SessionStart || privileged())
}

/// The privileged act behind an address, if it is one.
fn action_of(method: &Method, path: &str) -> Option<Action> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    Some(match (method, path) {
        ("PATCH", "/admin/community/{id}/config") => Action::CommunityChange,
        ("GET", "/admin/community/{id}/config") => Action::CommunityShow,
        ("PATCH", "/admin/users/{id}/quota") => Action::QuotaSet,
        ("GET", "/admin/users/{id}/quota") => Action::QuotaShow,
        ("GET", "/admin/users/{id}/export") => Action::UserExport,
        ("DELETE", "/admin/users/{id}") => Action::UserErase,
        ("PUT", "/admin/community/{id}/roles/{role}") => Action::RoleDefine,
        ("DELETE", "/admin/community/{id}/roles/{role}") => Action::RoleDrop,
        ("GET", "/admin/community/{id}/roles/{role}") => Action::RoleShow,
        ("PUT", "/admin/community/{id}/members/{userId}/roles/{role}") => Action::RoleGrant,
        ("DELETE", "/admin/community/{id}/members/{userId}/roles/{role}") => Action::RoleRevoke,
        ("DELETE", "/admin/community/{id}/members/{userId}") => Action::MemberRemove,
        ("GET", "/admin/sessions") => Action::SessionList,
        ("GET", "/admin/clips") => Action::ClipList,
        ("POST", "/admin/clips/verify") => Action::ClipVerify,
        ("GET", "/admin/jobs") => Action::JobList,
        ("GET", "/admin/maintenance") => Action::MaintenanceList,
        ("GET", "/admin/usage") => Action::UsageShow,
        ("GET", "/admin/audit") => Action::AuditList,
        ("GET", "/admin/events") => Action::EventList,
        ("POST", "/admin/events/redeliver" | "/admin/events/{id}/redeliver") => {
            Action::EventRedeliver
        }
        ("GET", "/health/detailed") => Action::HealthShow,
        ("POST", "/admin/sessions/{id}/stop" | "/stop/{sessionId}") => Action::SessionStop,
        ("POST", "/admin/sessions/stop-all") => Action::SessionStopAll,
        ("POST", "/admin/jobs/{id}/retry") => Action::JobRetry,
        ("POST", "/admin/maintenance/{job}/run") => Action::MaintenanceRun,
        ("DELETE", "/sessions/{id}") => Action::SessionDiscard,
        ("DELETE", "/clips/{id}") => Action::ClipDelete,
        ("POST", "/start") => Action::SessionStart,
        (_, path) if path.starts_with("/admin/") => Action::AdminOther,
        _ => return None,
    })
}

async fn target_of(path: &str, parts: &mut Parts) -> Target {
    let mut target = Target { in_any_case: path.starts_with("/admin/"), ..Target::default() };
    let named = parts.extract::<RawPathParams>().await;
    let named: Vec<(String, String)> = named
        .map(|named| named.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
        .unwrap_or_default();
    for (name, value) in named {
        let place = path.split("/{").next().unwrap_or_default();
        match (name.as_str(), place) {
            ("userId", _) | ("id", "/admin/users") => target.user = Some(UserId::new(value)),
            ("id", "/admin/community") => target.community = Some(CommunityId::new(value)),
            ("sessionId", _) | ("id", "/admin/sessions" | "/sessions") => {
                target.session = Some(SessionId::new(value));
            }
            ("id", "/clips") => target.clip = Some(ClipId::new(value)),
            ("id", "/admin/jobs") => target.job = Some(JobId::new(value)),
            _ => {}
        }
    }
    let query = axum::extract::Query::<HashMap<String, String>>::try_from_uri(&parts.uri);
    if let Ok(axum::extract::Query(query)) = query
        && let Some(community) = query.get("communityId")
        && target.in_any_case
    {
        target.community = Some(CommunityId::new(community));
    }
    target
}
