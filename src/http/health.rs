//! At the root: alive, ready, the details for an instance admin, and the figures.

use std::time::Duration;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    admin::JobReportView,
    error::{Answer, Problem},
};
use crate::{
    access::Caller,
    error::{Code, Error},
    flow::{
        Deps, authorize, figures,
        health::{self, Found, FoundStore, Status},
        stores::Which,
    },
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(detailed))
        .routes(routes!(render_figures))
}

/// The process is there.
#[utoipa::path(get, path = "/health", tag = "operation",
    responses((status = 200, description = "Alive.", body = Alive)))]
async fn live() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Alive, or ready.
#[derive(Debug, Serialize, ToSchema)]
struct Alive {
    /// `ok`
    status: &'static str,
}

/// Database, schema and clip store are there: requests may be sent here.
#[utoipa::path(get, path = "/health/ready", tag = "operation", responses(
    (status = 200, description = "Ready.", body = Alive),
    (status = 503, description = "`draining` or `storage_unavailable`, with `checks`.",
        content_type = "application/problem+json")))]
async fn ready(State(state): State<AppState>) -> Answer<Json<Alive>> {
    if state.deps.stop.is_cancelled() {
        return Err(Error::new(Code::Draining, "The service is shutting down.").into());
    }
    let checks = health::readiness(&state.deps).await;
    if checks.iter().all(|(_, found)| found.status != Status::Fail) {
        return Ok(Json(Alive { status: "ok" }));
    }
    let checks: serde_json::Map<String, Value> = checks
        .into_iter()
        .map(|(name, found)| (name.to_owned(), found.status.as_str().into()))
        .collect();
    let detail = "The service is not ready: a part it cannot do without does not answer.";
    Err(Problem(Error::new(Code::StorageUnavailable, detail).with("checks", checks)))
}

/// Every part with its latency. Instance admin.
#[utoipa::path(get, path = "/health/detailed", tag = "operation", security(("bearer" = [])),
    responses((status = 200, description = "How every part is.", body = Detailed),
        (status = 403, description = "`permission_denied`")))]
async fn detailed(State(state): State<AppState>, caller: Caller) -> Answer<Json<Detailed>> {
    authorize::require_instance_admin(&state.deps, &caller).await?;
    let deps = &state.deps;
    let (database, schema, buffer, clips, livekit, ffmpeg, jobs, scheduler) = tokio::join!(
        health::database(deps),
        health::schema(deps),
        health::store(deps, Which::Buffer),
        health::store(deps, Which::Clips),
        health::livekit(deps),
        health::ffmpeg(deps),
        health::open_jobs(deps),
        state.maintenance.list(deps),
    );
    let statuses = [&database, &schema, &buffer.found, &clips.found, &livekit, &ffmpeg.0];
    let status = worst(statuses.iter().map(|found| found.status));
    let (engine, open, idle) = health::pool(deps);
    Ok(Json(Detailed {
        status: status.as_str(),
        version: env!("CARGO_PKG_VERSION"),
        instance_id: deps.instance.as_str().to_owned(),
        database: part(&database, json!({ "engine": engine, "poolOpen": open, "poolIdle": idle })),
        schema: part(&schema, json!({})),
        storage: Storage {
            buffer: store_part(deps, Which::Buffer, &buffer),
            clips: store_part(deps, Which::Clips, &clips),
        },
        livekit: part(&livekit, json!({})),
        ffmpeg: part(&ffmpeg.0, json!({ "version": ffmpeg.1 })),
        jobs: json!({ "open": jobs.ok(), "workers": deps.config.capture.workers }),
        scheduler: scheduler.unwrap_or_default().into_iter().map(JobReportView::from).collect(),
    }))
}

fn worst(statuses: impl Iterator<Item = Status>) -> Status {
    statuses.fold(Status::Ok, |worst, next| match (worst, next) {
        (Status::Fail, _) | (_, Status::Fail) => Status::Fail,
        (Status::Degraded, _) | (_, Status::Degraded) => Status::Degraded,
        _ => Status::Ok,
    })
}

/// The state of every part.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Detailed {
    /// `ok`, `degraded` or `fail`: the worst of the parts.
    status: &'static str,
    version: &'static str,
    instance_id: String,
    #[schema(value_type = Object)]
    database: Value,
    #[schema(value_type = Object)]
    schema: Value,
    storage: Storage,
    #[schema(value_type = Object)]
    livekit: Value,
    #[schema(value_type = Object)]
    ffmpeg: Value,
    #[schema(value_type = Object)]
    jobs: Value,
    scheduler: Vec<JobReportView>,
}

/// Both stores: `status`, `writable`, `latencyMs`, `freeBytes`, `totalBytes`, `usedPercent`, `watermark` (`fine`, `high`,
/// `critical`), and by what was measured in the last half hour `writtenBytesPerSecond` (less what was deleted) and
/// `hoursLeft` until the reserve is reached, null if that is not in sight.
#[derive(Debug, Serialize, ToSchema)]
struct Storage {
    #[schema(value_type = Object)]
    buffer: Value,
    #[schema(value_type = Object)]
    clips: Value,
}

fn part(found: &Found, more: Value) -> Value {
    let mut part = json!({
        "status": found.status,
        "latencyMs": millis(found.latency),
        "trouble": found.trouble,
    });
    if let (Some(part), Value::Object(more)) = (part.as_object_mut(), more) {
        part.extend(more);
    }
    part
}

fn store_part(deps: &Deps, which: Which, store: &FoundStore) -> Value {
    let forecast = deps.stores.get(which).forecast(deps.config.storage.min_free_bytes);
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    part(
        &store.found,
        json!({
            "writable": store.found.status == Status::Ok,
            "freeBytes": store.space.map(|space| space.free),
            "totalBytes": store.space.map(|space| space.total),
            "usedPercent": store.space.map(|space| space.used_percent()),
            "watermark": store.space.map(|space| space.watermark(&deps.config).as_str()),
            "writtenBytesPerSecond": forecast.map(|forecast| forecast.bytes_per_second.round()),
            "hoursLeft": forecast.and_then(|forecast| forecast.hours_left).map(tenths),
        }),
    )
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The figures, in Prometheus' text form. No names, no ids.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "The figures.", body = String, content_type = "text/plain")))]
async fn render_figures(State(state): State<AppState>) -> Answer<impl IntoResponse> {
    let Some(handle) = &state.figures else {
        return Err(Problem(Error::not_found("address")));
    };
    figures::refresh(&state.deps).await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()))
}
