//! A community's limits and a user's allowance.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::Caller,
    domain::{
        id::{CommunityId, UserId},
        time::Timestamp,
    },
    flow::admin::{self, Account, Community, CommunityChange},
    http::{
        AppState,
        error::Answer,
        extract::{Body, Path},
    },
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show_community, change_community))
        .routes(routes!(show_quota, set_quota))
}

/// A community's settings.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CommunityConfig {
    id: String,
    community_id: String,
    /// Places for running sessions.
    max_concurrent: i32,
    /// Whether new starts are taken.
    enabled: bool,
    /// Whether a published share starts a buffer by itself.
    auto_start: bool,
    /// Places taken.
    active_sessions: i32,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl CommunityConfig {
    fn of(row: Community, state: &AppState) -> CommunityConfig {
        let default = state.deps.config.limits.community_max_concurrent;
        let id = row.id.into_string();
        CommunityConfig {
            community_id: id.clone(),
            id,
            max_concurrent: row.max_concurrent.unwrap_or(default),
            enabled: row.enabled,
            auto_start: row.auto_start,
            active_sessions: row.active_sessions,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What of a community's settings changes; absent = as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CommunityPatch {
    /// At least 1; above the configured ceiling only by an instance admin.
    max_concurrent: Option<i32>,
    enabled: Option<bool>,
    auto_start: Option<bool>,
}

/// A community's settings. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(get, path = "/admin/community/{id}/config", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 200, body = CommunityConfig), (status = 403, description = "permission_denied")))]
async fn show_community(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<CommunityConfig>> {
    let row = admin::show_community(&state.deps, &caller, &CommunityId::new(id)).await?;
    Ok(Json(CommunityConfig::of(row, &state)))
}

/// Changes a community's settings. MANAGE_REPLAY_LIMITS there.
#[utoipa::path(patch, path = "/admin/community/{id}/config", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path)), request_body = CommunityPatch,
    responses((status = 200, body = CommunityConfig), (status = 403, description = "permission_denied"),
        (status = 422, description = "validation_failed")))]
async fn change_community(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(patch): Body<CommunityPatch>,
) -> Answer<Json<CommunityConfig>> {
    let change = CommunityChange {
        max_concurrent: patch.max_concurrent,
        enabled: patch.enabled,
        auto_start: patch.auto_start,
    };
    let id = CommunityId::new(id);
    let row = admin::change_community(&state.deps, &caller, &id, change).await?;
    Ok(Json(CommunityConfig::of(row, &state)))
}

/// A user's allowance and what takes it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UserQuota {
    user_id: String,
    quota_bytes: i64,
    used_bytes: i64,
    reserved_bytes: i64,
    /// Used part of the allowance.
    percent_used: f64,
    /// Ready clips.
    clips_count: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl UserQuota {
    fn of((account, clips_count): (Account, u64), state: &AppState) -> UserQuota {
        let quota_bytes = account.quota_bytes.unwrap_or(state.deps.config.limits.user_quota_bytes);
        UserQuota {
            user_id: account.user_id.into_string(),
            quota_bytes,
            used_bytes: account.used_bytes,
            reserved_bytes: account.reserved_bytes,
            percent_used: percent(account.used_bytes, quota_bytes),
            clips_count,
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }
}

/// With two decimals; an allowance of nothing is full as soon as anything is used.
#[expect(clippy::cast_precision_loss, reason = "a percentage of two decimals")]
fn percent(used: i64, quota: i64) -> f64 {
    match (used, quota) {
        (used, _) if used <= 0 => 0.0,
        (_, quota) if quota <= 0 => 100.0,
        (used, quota) => (used as f64 * 10_000.0 / quota as f64).round() / 100.0,
    }
}

/// A user's new allowance.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct QuotaPatch {
    /// Bytes of clips.
    quota_bytes: i64,
}

/// A user's allowance. Instance admin.
#[utoipa::path(get, path = "/admin/users/{id}/quota", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path)),
    responses((status = 200, body = UserQuota), (status = 403, description = "permission_denied")))]
async fn show_quota(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<UserQuota>> {
    let account = admin::show_account(&state.deps, &caller, &UserId::new(id)).await?;
    Ok(Json(UserQuota::of(account, &state)))
}

/// Sets a user's allowance. Instance admin.
#[utoipa::path(patch, path = "/admin/users/{id}/quota", tag = "admin",
    security(("bearer" = [])), params(("id" = String, Path)), request_body = QuotaPatch,
    responses((status = 200, body = UserQuota), (status = 403, description = "permission_denied"),
        (status = 422, description = "validation_failed")))]
async fn set_quota(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(patch): Body<QuotaPatch>,
) -> Answer<Json<UserQuota>> {
    let user = UserId::new(id);
    let account = admin::set_quota(&state.deps, &caller, &user, patch.quota_bytes).await?;
    Ok(Json(UserQuota::of(account, &state)))
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percentages_have_two_decimals_and_survive_an_allowance_of_nothing() {
        assert_eq!(percent(1, 3), 33.33);
        assert_eq!(percent(0, 0), 0.0);
        assert_eq!(percent(5, 0), 100.0);
        assert_eq!(percent(3, 2), 150.0);
    }
}
