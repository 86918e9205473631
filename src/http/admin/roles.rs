//! Roles: what one permits in a community, who has it, and removing a member. `*` as community means everywhere and is
//! an instance admin's alone.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{Caller, Permission},
    domain::id::{CommunityId, UserId},
    error::{Error, Result},
    flow::admin::{self, RoleReport},
    http::{
        AppState,
        error::Answer,
        extract::{Body, Path},
    },
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show_role, define_role, drop_role))
        .routes(routes!(grant_role, revoke_role))
        .routes(routes!(remove_member))
}

/// A role in a community.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Role {
    role: String,
    community_id: String,
    permissions: Vec<&'static str>,
    /// Whether the community defines it itself, in place of what holds everywhere.
    defined_here: bool,
}

impl From<RoleReport> for Role {
    fn from(report: RoleReport) -> Role {
        Role {
            role: report.role,
            community_id: report.community.into_string(),
            permissions: report.permissions.into_iter().map(Permission::as_str).collect(),
            defined_here: report.defined_here,
        }
    }
}

/// What a role shall permit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleDefinition {
    /// `ENABLE_REPLAY_BUFFER`, `CAPTURE_REPLAY`, `MANAGE_REPLAY_LIMITS`; none of them is a definition, too.
    permissions: Vec<String>,
}

impl RoleDefinition {
    fn parse(&self) -> Result<Vec<Permission>> {
        let known = |name: &String| {
            Permission::from_name(name).ok_or_else(|| {
                let names: Vec<_> = Permission::ALL.iter().map(|known| known.as_str()).collect();
                Error::invalid_field("permissions", format!("each is one of {}", names.join(", ")))
            })
        };
        self.permissions.iter().map(known).collect()
    }
}

/// What a role permits in a community. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(get, path = "/admin/community/{id}/roles/{role}", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path), ("role" = String, Path)),
    responses((status = 200, body = Role), (status = 403, description = "permission_denied"),
        (status = 404, description = "not_found")))]
async fn show_role(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, role)): Path<(String, String)>,
) -> Answer<Json<Role>> {
    let report = admin::show_role(&state.deps, &caller, &CommunityId::new(id), &role).await?;
    Ok(Json(report.into()))
}

/// Defines what a role permits in a community. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(put, path = "/admin/community/{id}/roles/{role}", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path), ("role" = String, Path)),
    request_body = RoleDefinition,
    responses((status = 200, body = Role), (status = 403, description = "permission_denied"),
        (status = 422, description = "validation_failed")))]
async fn define_role(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, role)): Path<(String, String)>,
    Body(definition): Body<RoleDefinition>,
) -> Answer<Json<Role>> {
    let permissions = definition.parse()?;
    let id = CommunityId::new(id);
    let report = admin::define_role(&state.deps, &caller, &id, &role, &permissions).await?;
    Ok(Json(report.into()))
}

/// Drops a community's own definition of a role; one that is defined nowhere else is taken from its holders. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(delete, path = "/admin/community/{id}/roles/{role}", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path), ("role" = String, Path)),
    responses((status = 204, description = "Dropped."), (status = 403, description = "permission_denied"),
        (status = 404, description = "not_found")))]
async fn drop_role(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, role)): Path<(String, String)>,
) -> Answer<StatusCode> {
    admin::drop_role(&state.deps, &caller, &CommunityId::new(id), &role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a user a role in a community. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(put, path = "/admin/community/{id}/members/{userId}/roles/{role}", tag = "admin",
    security(("bearer" = [])),
    params(("id" = String, Path), ("userId" = String, Path), ("role" = String, Path)),
    responses((status = 204, description = "Granted."), (status = 403, description = "permission_denied"),
        (status = 422, description = "validation_failed")))]
async fn grant_role(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, user, role)): Path<(String, String, String)>,
) -> Answer<StatusCode> {
    let (id, user) = (CommunityId::new(id), UserId::new(user));
    admin::grant_role(&state.deps, &caller, &id, &user, &role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a role from a user; not having had it is fine. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(delete, path = "/admin/community/{id}/members/{userId}/roles/{role}", tag = "admin",
    security(("bearer" = [])),
    params(("id" = String, Path), ("userId" = String, Path), ("role" = String, Path)),
    responses((status = 204, description = "Revoked."), (status = 403, description = "permission_denied")))]
async fn revoke_role(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, user, role)): Path<(String, String, String)>,
) -> Answer<StatusCode> {
    let (id, user) = (CommunityId::new(id), UserId::new(user));
    admin::revoke_role(&state.deps, &caller, &id, &user, &role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member: roles go, and roles in tokens issued until now count no more. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(delete, path = "/admin/community/{id}/members/{userId}", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path), ("userId" = String, Path)),
    responses((status = 204, description = "Removed."), (status = 403, description = "permission_denied")))]
async fn remove_member(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, user)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let (id, user) = (CommunityId::new(id), UserId::new(user));
    admin::remove_member(&state.deps, &caller, &id, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}
