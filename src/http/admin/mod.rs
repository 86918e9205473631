//! Administration. Every route says what it needs: an instance admin, or who holds MANAGE_REPLAY_LIMITS in the
//! community that the address or `communityId` names; the flow asks for it.

mod lists;
mod roles;
mod settings;
mod stops;

use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use crate::domain::id::CommunityId;

pub use lists::JobReportView;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(settings::routes())
        .merge(roles::routes())
        .merge(lists::routes())
        .merge(stops::routes())
}

/// As whose administrator one acts on a thing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InCommunity {
    /// Of this community: what is not its own is not found.
    community_id: Option<String>,
}

impl InCommunity {
    fn community(self) -> Option<CommunityId> {
        self.community_id.map(CommunityId::new)
    }
}
