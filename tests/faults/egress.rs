//! The egress that records: its host dies without a word, it fails, aborts, or hits its limit. The session goes on with
//! another one, and what was recorded before is still there.

use std::time::Duration;

use livekit_api::services::egress::EgressClient;
use livekit_replay::{domain::id::SessionId, simulator::SimConfig, store::epoch};

use crate::{
    house::{House, until},
    on_both_engines,
    support::{On, Place},
};

on_both_engines!(
    egress_host_dies_without_a_word,
    egress_fails,
    egress_hits_its_limit,
    egress_aborts,
);

/// After `end` of the egress the session records again by itself, with what it had.
async fn goes_on(house: &House, user: &str, id: &str, outcome: &str) {
    house.until_session(user, id, "active", 2).await;
    house.until_told(user, "replay_buffer_degraded").await;
    house.until_told(user, "replay_buffer_restarted").await;
    let shown = house.session(user, id).await;
    let held = shown["buffer"]["durationSeconds"].as_f64().expect("a length");
    house.holds(user, id, held + 3.0).await;
    house.clip(user, id, 2).await;
    assert_eq!(first_outcome(house, id).await.as_deref(), Some(outcome));
    until("all is well", async || house.health().await["status"] == "ok").await;
    until("one egress records", async || house.running_egresses().len() == 1).await;
}

/// How the session's first recording ended.
async fn first_outcome(house: &House, id: &str) -> Option<String> {
    let conn = house.app.running.deps.db.conn();
    let first = epoch::find(conn, &SessionId::new(id), 1).await.expect("rows");
    first.expect("a first epoch").outcome
}

async fn egress_host_dies_without_a_word(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let egress = house.egress("ann", &ann).await;
    house.app.sim.kill_egress(&egress).expect("killed");
    goes_on(&house, "ann", &ann, "dead").await;
    house.close().await;
}

async fn egress_fails(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let egress = house.egress("ann", &ann).await;
    house.app.sim.fail_egress(&egress, "pipeline frozen", 500).expect("failed");
    goes_on(&house, "ann", &ann, "failed").await;
    house.close().await;
}

async fn egress_hits_its_limit(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let egress = house.egress("ann", &ann).await;
    house.app.sim.limit_egress(&egress).expect("limited");
    goes_on(&house, "ann", &ann, "limit_reached").await;
    house.close().await;
}

/// Somebody else with LiveKit's key stops it before it has begun.
async fn egress_aborts(on: On) {
    let mut sim = SimConfig::default();
    sim.egress.start_delay = Duration::from_secs(2);
    let house = House::with(Place::new(on).await, sim, &[]).await;
    house.shares("ann");
    let started = house.start("ann").await;
    assert_eq!(started.status, 201, "{started:?}");
    let id = started.body["id"].as_str().expect("an id");
    let egress = house.egress("ann", id).await;
    let sim = &house.app.sim;
    let stranger = EgressClient::with_api_key(&sim.url(), sim.api_key(), sim.api_secret());
    stranger.stop_egress(&egress).await.expect("stopped");
    until("it is aborted", async || {
        house.app.sim.egresses().iter().any(|one| one.status == "EGRESS_ABORTED")
    })
    .await;
    house.until_session("ann", id, "active", 2).await;
    house.holds("ann", id, 3.0).await;
    house.clip("ann", id, 2).await;
    house.until_session("ann", id, "active", 2).await;
    assert_eq!(first_outcome(&house, id).await.as_deref(), Some("aborted"));
    house.close().await;
}
