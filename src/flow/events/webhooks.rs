//! Telling the app: each configured endpoint has a worker of its own in every process, so one that is down holds up
//! nobody else. A worker leases one delivery at a time, the oldest that is due, and writes down what came of it; what
//! waits, waits in the table. A process that dies in the middle leaves a lease that runs out: the endpoint may be told
//! twice, under the same `webhook-id`.

use std::time::Duration;

use super::shown;
use crate::{
    config::Webhook,
    domain::event::pause,
    error::Result,
    flow::Deps,
    outbound::{self, Told},
    store::{
        delivery::{self, DeliveryState, Model as Delivery, Outcome},
        event,
    },
};

/// How long a lease lasts; far longer than an attempt.
const LEASE: Duration = Duration::from_secs(60);
/// Between two looks when no bell rings: deliveries may be enqueued by other replicas, and repeats become due.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// 410: the endpoint is gone and wants nothing more.
const GONE: u16 = 410;

/// Delivers until told to stop; attempts that are under way end first.
pub async fn run(deps: Deps) {
    let workers = deps.config.webhooks.iter().map(|endpoint| serve(&deps, endpoint));
    futures::future::join_all(workers).await;
    // without endpoints there is nothing to do, but a door stays open
    deps.stop.cancelled().await;
}

async fn serve(deps: &Deps, endpoint: &Webhook) {
    while !deps.stop.is_cancelled() {
        let bell = deps.wake.events.deliveries.notified();
        tokio::pin!(bell);
        bell.as_mut().enable();
        match deliver_next(deps, endpoint).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = error.chain(), "deliveries of events wait"),
        }
        tokio::select! {
            () = bell => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = deps.stop.cancelled() => {}
        }
    }
}

/// One attempt at the oldest delivery that is due to an endpoint; false if there is none.
///
/// # Errors
/// Those of the database; the lease runs out by itself then.
pub async fn deliver_next(deps: &Deps, endpoint: &Webhook) -> Result<bool> {
    let now = deps.clock.now();
    let owner = format!("{}/{}", deps.replica, uuid::Uuid::now_v7().simple());
    let conn = deps.db.conn();
    let leased = delivery::lease(conn, &endpoint.name, &owner, now, now.plus(LEASE)).await?;
    let Some(row) = leased else { return Ok(false) };
    let event = event::find(conn, &row.event_id).await?;
    let body = event.as_ref().map(|event| shown::to_app(deps, event)).transpose();
    let (told, outcome) = match body {
        Ok(Some(body)) => {
            let (id, body) = (row.event_id.as_str(), body.to_string());
            let told = outbound::tell(endpoint, id, body, deps.clock.now()).await;
            let outcome = judge(deps, &row, &told);
            (told, outcome)
        }
        // its user was erased, or it went while it was made to begin anew; or it is nothing that can be sent
        nothing => {
            let why = nothing.err().map_or("the event is kept no more".to_owned(), |e| e.chain());
            let told = Told { status: None, retry_after: None, fault: Some(why.clone()) };
            let state = DeliveryState::Dead;
            (told, Outcome { state, run_after: now, status: None, error: Some(why) })
        }
    };
    let state = outcome.state;
    let written = delivery::finish(conn, &row, &owner, outcome, deps.clock.now()).await?;
    let word = match (state, told.is_taken()) {
        (_, true) => "delivered",
        (DeliveryState::Dead, _) => "dead",
        _ => "failed",
    };
    metrics::counter!("livekit_replay_event_deliveries_total", "outcome" => word).increment(1);
    if !told.is_taken() {
        tracing::warn!(
            endpoint = endpoint.name,
            attempts = row.attempts,
            status = told.status,
            error = told.fault,
            outcome = word,
            written,
            "an event was not delivered"
        );
    }
    Ok(true)
}

/// What an attempt means for its delivery.
fn judge(deps: &Deps, row: &Delivery, told: &Told) -> Outcome {
    let now = deps.clock.now();
    let status = told.status.map(i32::from);
    if told.is_taken() {
        return Outcome { state: DeliveryState::Delivered, run_after: now, status, error: None };
    }
    let why = match (&told.fault, told.status) {
        (Some(fault), _) => fault.clone(),
        (None, Some(status)) => format!("answered {status}"),
        (None, None) => "no answer".to_owned(),
    };
    let next = match told.status {
        Some(GONE) => None,
        _ => pause(row.attempts, rand::random(), told.retry_after),
    };
    let (state, run_after) = match next {
        Some(pause) => (DeliveryState::Pending, now.plus(pause)),
        None => (DeliveryState::Dead, now),
    };
    Outcome { state, run_after, status, error: Some(why) }
}
