//! LiveKit's webhooks: raw body in, verified, answered at once; the work goes on behind the answer, because a slow
//! answer blocks the sender's queue and everything in it older than 30 s is dropped (livekit/protocol:webhook).

use axum::{body::Bytes, extract::State, http::HeaderMap};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AppState, error::Problem};
use crate::flow;

/// The routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// That it was taken.
#[derive(Debug, Serialize, ToSchema)]
struct Taken {
    /// Always true.
    received: bool,
}

/// Take an event from LiveKit.
#[utoipa::path(
    post,
    path = "/webhooks/livekit",
    tag = "webhooks",
    request_body(content = String, content_type = "application/webhook+json"),
    responses(
        (status = 200, description = "Taken, also when it does not concern us", body = Taken),
        (status = 401, description = "The signature does not fit", content_type = "application/problem+json"),
        (status = 503, description = "`overloaded`: too many are being applied; send it again", content_type = "application/problem+json"),
    )
)]
async fn receive(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<Taken>, Problem> {
    let authorization =
        headers.get(axum::http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let event = state.webhooks.receive(authorization, &body)?;
    let deps = state.deps.clone();
    // whoever signs may be taken at his word, but not for more than is kept up with
    let place = flow::work::seat(&deps.places.intake(), "webhooks")?;
    metrics::counter!("livekit_replay_webhooks_total").increment(1);
    state.deps.tasks.spawn(async move {
        let _place = place;
        if let Err(error) = flow::webhook::apply(&deps, &event).await {
            // not worth a retry by the sender: the reconcile pass makes up for it
            tracing::warn!(event.id = %event.id, error = ?error, "a webhook could not be applied");
        }
    });
    Ok(axum::Json(Taken { received: true }))
}
