//! Administration. Every route says what it needs: an instance admin, or who holds MANAGE_REPLAY_LIMITS in the
//! community that the address or `communityId` names; the flow asks for it.

mod lists;
mod roles;
mod settings;
mod stops;

use utoipa_axum::router::OpenApiRouter;

use super::AppState;

pub use lists::JobReportView;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(settings::routes())
        .merge(roles::routes())
        .merge(lists::routes())
        .merge(stops::routes())
}
