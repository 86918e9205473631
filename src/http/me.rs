//! What a caller may know of himself.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AppState, error::Answer, extract::Query};
use crate::{
    access::{Caller, Permission},
    domain::id::CommunityId,
    flow::authorize,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(permissions))
}

/// Where the rights are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Where {
    /// The community; without one, instance-wide roles decide.
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
