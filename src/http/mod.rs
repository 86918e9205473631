//! The HTTP door: speaks HTTP, decides nothing. Each file has its routes with their request and answer types and
//! calls a flow; refusals are [`error`]'s, what a handler takes is [`extract`]'s.

use std::sync::Arc;

use axum::{Json, Router, extract::DefaultBodyLimit, http::Method};
use metrics_exporter_prometheus::PrometheusHandle;
use utoipa_axum::router::OpenApiRouter;

use limits::Limited;

use crate::{
    access::token::Verifier,
    error::Error,
    flow::{Deps, audit_log::Refusals, maintenance::Maintenance},
    livekit::webhook::Receiver,
};

mod admin;
pub mod bytes;
mod client;
pub mod clips;
pub mod error;
mod events;
pub mod extract;
mod failures;
mod health;
pub mod idempotency;
mod layers;
pub mod limits;
mod look;
mod me;
mod openapi;
mod preview;
mod refused;
pub mod sessions;
mod shared;
mod stream;
pub mod webhooks;

pub use crate::flow::links::BASE;
use crate::flow::links::address;

/// The largest body we take.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// What handlers reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// What flows may reach.
    pub deps: Deps,
    /// Checks LiveKit's webhooks.
    pub webhooks: Arc<Receiver>,
    /// Checks tokens.
    pub verifier: Arc<Verifier>,
    /// The scheduled work.
    pub maintenance: Arc<dyn Maintenance>,
    /// Renders the figures, where a recorder is installed.
    pub figures: Option<PrometheusHandle>,
}

/// The whole door.
pub fn router(state: AppState) -> Router {
    let (router, mut document) = described(Some(&state)).split_for_parts();
    failures::complete(&mut document);
    let served = Arc::new(document);
    let router = router
        .route("/openapi.json", axum::routing::get(move || async move { Json((*served).clone()) }))
        .merge(openapi::page())
        .fallback(|| async { error::Problem(Error::not_found("address")) })
        .with_state(state.clone());
    layers::wrap(router, &state)
}

/// The document, as `/openapi.json` answers it; no running service is needed for it.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = described(None).into_openapi();
    failures::complete(&mut document);
    document
}

/// Every route with its description: the document and the router cannot disagree.
fn described(state: Option<&AppState>) -> OpenApiRouter<AppState> {
    let frame = OpenApiRouter::with_openapi(openapi::frame());
    // counted together, wherever they happen
    let refusals = Arc::new(Refusals::default());
    let audited = |routes| match state {
        Some(state) => refused::audited(routes, state, &refusals),
        None => routes,
    };
    frame.merge(audited(health::routes())).nest(BASE, audited(api(state)))
}

/// The routes under [`BASE`]: one line per file, and one per limit. Limits need a service to count in; the document
/// does without them.
fn api(state: Option<&AppState>) -> OpenApiRouter<AppState> {
    let limited = |routes, kind, method| match state {
        Some(state) => limits::limited(routes, state, kind, method),
        None => routes,
    };
    OpenApiRouter::new()
        .merge(limited(sessions::routes(), Limited::Delete, Method::DELETE))
        .merge(limited(sessions::start::routes(), Limited::Start, Method::POST))
        .merge(preview::routes())
        .merge(look::routes())
        .merge(limited(look::filmstrip_routes(), Limited::Filmstrip, Method::GET))
        .merge(webhooks::routes())
        .merge(limited(clips::routes(), Limited::Delete, Method::DELETE))
        .merge(clips::share_routes())
        .merge(shared::routes())
        .merge(limited(clips::capture_routes(), Limited::Capture, Method::POST))
        .merge(limited(stream::routes(), Limited::Capture, Method::GET))
        .merge(admin::routes())
        .merge(me::routes())
        .merge(events::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}
