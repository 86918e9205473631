//! Deliveries of events to the endpoints of the app.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{lists::is_dry, page};
use crate::{
    access::Caller,
    domain::{id::EventId, time::Timestamp},
    error::{Error, Result},
    flow::events::operate::{self, Again, DeliveryState, Listed},
    http::{
        AppState,
        error::Answer,
        extract::{Path, Query},
    },
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(redeliver_dead))
        .routes(routes!(redeliver))
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// `pending`, `delivered` or `dead`.
    state: Option<String>,
    /// To the endpoint of this name.
    endpoint: Option<String>,
    /// 1 to 200, 50 unless told.
    limit: Option<u64>,
    /// How many to pass over.
    offset: Option<u64>,
}

/// An event on its way to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeliveryView {
    event_id: String,
    /// Of the event; absent if it is kept no more.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    user_id: String,
    /// The endpoint's name.
    endpoint: String,
    /// Its address without credentials and query; absent if it is in the settings no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// `pending`, `delivered` or `dead`.
    state: &'static str,
    attempts: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Of what is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When something last became of it.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Listed> for DeliveryView {
    fn from(listed: Listed) -> DeliveryView {
        let Listed { delivery, kind, created_at, url } = listed;
        let waits = delivery.state == DeliveryState::Pending;
        DeliveryView {
            event_id: delivery.event_id.into_string(),
            kind: kind.map(|kind| kind.as_str()),
            user_id: delivery.user_id.into_string(),
            endpoint: delivery.endpoint,
            url,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            last_status: delivery.last_status,
            last_error: delivery.last_error,
            next_attempt_at: waits.then_some(delivery.run_after),
            created_at: created_at.unwrap_or(delivery.created_at),
            updated_at: delivery.updated_at,
        }
    }
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
struct Deliveries {
    deliveries: Vec<DeliveryView>,
    total: u64,
}

/// Deliveries of events to the configured endpoints, newest first. Instance admin.
#[utoipa::path(get, path = "/admin/events", operation_id = "list_event_deliveries", tag = "admin",
    security(("bearer" = [])), params(Which),
    responses((status = 200, body = Deliveries), (status = 403, description = "permission_denied")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Answer<Json<Deliveries>> {
    let page = page(which.limit, which.offset)?;
    let wanted = which.state.as_deref().map(|name| {
        DeliveryState::from_name(name)
            .ok_or_else(|| Error::invalid_field("state", "is pending, delivered or dead"))
    });
    let (rows, total) =
        operate::list(&state.deps, &caller, wanted.transpose()?, which.endpoint, page).await?;
    Ok(Json(Deliveries { deliveries: rows.into_iter().map(DeliveryView::from).collect(), total }))
}

/// What of it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// To the endpoint of this name alone.
    endpoint: Option<String>,
    /// Only say how many it would be: `true` (also without a value) or `false`.
    dry_run: Option<String>,
}

/// What of everything that was given up.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeadPart {
    /// To the endpoint of this name alone.
    endpoint: Option<String>,
    /// Only say how many it would be: `true` (also without a value) or `false`.
    dry_run: Option<String>,
    /// Not older than this, RFC 3339.
    since: Option<String>,
}

/// How many begin anew.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Redelivered {
    /// Deliveries that begin anew (or, dry, would).
    deliveries: u64,
    dry_run: bool,
}

/// Delivers an event again, to every endpoint that wants it or to one. Instance admin.
#[utoipa::path(post, path = "/admin/events/{id}/redeliver", tag = "admin", security(("bearer" = [])),
    params(("id" = String, Path), Part),
    responses((status = 200, body = Redelivered), (status = 403, description = "permission_denied"),
        (status = 404, description = "not_found: there is no such event, or it is kept no more")))]
async fn redeliver(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Answer<Json<Redelivered>> {
    let again = Again::Event(EventId::new(id));
    Ok(Json(answer(&state, &caller, again, part.endpoint, part.dry_run).await?))
}

/// Delivers again what was given up. Instance admin.
#[utoipa::path(post, path = "/admin/events/redeliver", tag = "admin", security(("bearer" = [])),
    params(DeadPart),
    responses((status = 200, body = Redelivered), (status = 403, description = "permission_denied")))]
async fn redeliver_dead(
    State(state): State<AppState>,
    caller: Caller,
    Query(part): Query<DeadPart>,
) -> Answer<Json<Redelivered>> {
    let since = part.since.as_deref().map(|text| {
        Timestamp::parse_rfc3339(text)
            .ok_or_else(|| Error::invalid_field("since", "is no RFC 3339 time"))
    });
    let again = Again::Dead(since.transpose()?);
    Ok(Json(answer(&state, &caller, again, part.endpoint, part.dry_run).await?))
}

async fn answer(
    state: &AppState,
    caller: &Caller,
    again: Again,
    endpoint: Option<String>,
    dry_run: Option<String>,
) -> Result<Redelivered> {
    let dry_run = is_dry(dry_run.as_deref())?;
    let deliveries = operate::redeliver(&state.deps, caller, again, endpoint, dry_run).await?;
    Ok(Redelivered { deliveries, dry_run })
}
