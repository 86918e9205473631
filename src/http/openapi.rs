//! The document's frame, and the page that shows it without a network.

use axum::Router;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::AppState;
use crate::access::token::Reason;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "livekit-replay",
        description = "Instant replay for apps on LiveKit. Failures are application/problem+json with a stable `code`."
    ),
    modifiers(&Bearer)
)]
struct Frame;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(format!(
                "Refused with 401 `unauthenticated`; its `reason` is one of {}, and `claim` names the claim it is about.",
                Reason::ALL.iter().map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(", ")
            )))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The document without paths.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// `/docs`.
pub(super) fn page() -> Router<AppState> {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into()
}
