//! What a caller may know of himself.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    clips::QuotaBody,
    error::Answer,
    extract::{Body, Query},
};
use crate::{
    access::{Caller, Permission},
    domain::{id::CommunityId, limits::Rate},
    flow::{authorize, own, rate_limit::Limited},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(permissions))
        .routes(routes!(limits))
        .routes(routes!(preferences, change_preferences))
}

/// Where it is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Where {
    /// The community. Without one, instance-wide roles decide, and limits are the usual ones.
    community_id: Option<String>,
}

/// Every right with the decision on it.
#[derive(Debug, Serialize, ToSchema)]
struct Permissions {
    permissions: Vec<Decided>,
}

/// A right and the decision on it.
#[derive(Debug, Serialize, ToSchema)]
struct Decided {
    name: &'static str,
    allowed: bool,
    /// Why, a sentence.
    because: String,
}

/// The caller's rights in a community, each with its reason.
#[utoipa::path(get, path = "/me/permissions", tag = "me", security(("bearer" = [])), params(Where),
    responses((status = 200, body = Permissions)))]
async fn permissions(
    State(state): State<AppState>,
    caller: Caller,
    Query(place): Query<Where>,
) -> Answer<Json<Permissions>> {
    let community = place.community_id.map(CommunityId::new);
    let mut permissions = Vec::new();
    for permission in Permission::ALL {
        let decision =
            authorize::explain(&state.deps, &caller, *permission, community.as_ref()).await?;
        permissions.push(Decided {
            name: permission.as_str(),
            allowed: decision.allowed,
            because: decision.because,
        });
    }
    Ok(Json(Permissions { permissions }))
}

/// What limits the caller.
#[derive(Debug, Serialize, ToSchema)]
struct Limits {
    quota: QuotaBody,
    community: CommunityLimits,
    rate: Rates,
}

/// Places for running buffers; those of a community are told to its members, others see what is usual.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CommunityLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
    max_concurrent: i32,
    /// Places taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<i32>,
    /// Whether new starts are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
}

/// How the rate limits stand; `null` where there is none.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Rates {
    start: Option<RateBody>,
    capture: Option<RateBody>,
    delete: Option<RateBody>,
    filmstrip: Option<RateBody>,
}

/// Requests of the caller in this minute.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RateBody {
    /// Requests a minute.
    limit: u32,
    remaining: u32,
    /// Until the minute ends.
    reset_seconds: u64,
}

impl From<Rate> for RateBody {
    fn from(rate: Rate) -> RateBody {
        let remaining = rate.remaining();
        RateBody { limit: rate.limit, remaining, reset_seconds: rate.reset_seconds }
    }
}

/// What limits the caller: bytes, a community's places, requests a minute.
#[utoipa::path(get, path = "/me/limits", tag = "me", security(("bearer" = [])), params(Where),
    responses((status = 200, body = Limits)))]
async fn limits(
    State(state): State<AppState>,
    caller: Caller,
    Query(place): Query<Where>,
) -> Answer<Json<Limits>> {
    let community = place.community_id.map(CommunityId::new);
    let found = own::limits(&state.deps, &caller, community.as_ref()).await?;
    let mut rate = Rates::default();
    for (what, stands) in found.rates {
        let stands = stands.map(RateBody::from);
        match what {
            Limited::Start => rate.start = stands,
            Limited::Capture => rate.capture = stands,
            Limited::Delete => rate.delete = stands,
            Limited::Filmstrip => rate.filmstrip = stands,
        }
    }
    let taken = found.places.community;
    let community = CommunityLimits {
        max_concurrent: found.places.max_concurrent,
        active: taken.as_ref().map(|taken| taken.active),
        enabled: taken.as_ref().map(|taken| taken.enabled),
        community_id: taken.map(|taken| taken.id.into_string()),
    };
    Ok(Json(Limits { quota: found.quota.into(), community, rate }))
}

/// What the caller wants for himself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Preferences {
    /// Whether a share of his may start a buffer by itself where the community wants that; yes until he says no.
    auto_start: bool,
}

/// What changes of it; absent = as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreferencesPatch {
    auto_start: Option<bool>,
}

/// What the caller wants for himself.
#[utoipa::path(get, path = "/me/preferences", tag = "me", security(("bearer" = [])),
    responses((status = 200, body = Preferences)))]
async fn preferences(State(state): State<AppState>, caller: Caller) -> Answer<Json<Preferences>> {
    let auto_start = own::wants_auto_start(&state.deps, &caller.user_id).await?;
    Ok(Json(Preferences { auto_start }))
}

/// Changes what the caller wants for himself. What runs already goes on.
#[utoipa::path(patch, path = "/me/preferences", tag = "me", security(("bearer" = [])),
    request_body = PreferencesPatch,
    responses((status = 200, body = Preferences), (status = 422, description = "validation_failed")))]
async fn change_preferences(
    State(state): State<AppState>,
    caller: Caller,
    Body(patch): Body<PreferencesPatch>,
) -> Answer<Json<Preferences>> {
    if let Some(wanted) = patch.auto_start {
        own::set_auto_start(&state.deps, &caller, wanted).await?;
    }
    let auto_start = own::wants_auto_start(&state.deps, &caller.user_id).await?;
    Ok(Json(Preferences { auto_start }))
}
