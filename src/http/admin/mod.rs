//! Administration. Every route says what it needs: an instance admin, or who holds MANAGE_REPLAY_LIMITS in the
//! community that the address or `communityId` names; the flow asks for it.

mod audit;
mod events;
mod lists;
mod roles;
mod settings;
mod stops;
mod users;
mod verify;

use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use crate::{
    domain::id::CommunityId,
    error::{Error, Result},
    flow::admin::Page,
};

pub use lists::JobReportView;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(settings::routes())
        .merge(roles::routes())
        .merge(lists::routes())
        .merge(stops::routes())
        .merge(audit::routes())
        .merge(users::routes())
        .merge(events::routes())
        .merge(verify::routes())
}

const MOST_PER_PAGE: u64 = 200;

/// Which page of a list: 50 unless told.
fn page(limit: Option<u64>, offset: Option<u64>) -> Result<Page> {
    let limit = limit.unwrap_or(50);
    if !(1..=MOST_PER_PAGE).contains(&limit) {
        return Err(Error::invalid_field("limit", format!("is 1 to {MOST_PER_PAGE}")));
    }
    let offset = offset.unwrap_or(0);
    if i64::try_from(offset).is_err() {
        return Err(Error::invalid_field("offset", "is too large"));
    }
    Ok(Page { limit, offset })
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
