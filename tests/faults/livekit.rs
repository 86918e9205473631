//! LiveKit itself: away, slow, broken, of another mind about our key, or silent about what it did.

use livekit_replay::{
    domain::id::SessionId,
    simulator::{CallAction, SimConfig, Simulator},
    store::epoch,
};
use serde_json::json;

use crate::{
    cuttable::Cuttable,
    house::{House, until},
    on_both_engines,
    support::{On, Place},
};

on_both_engines!(
    livekit_unreachable,
    livekit_slow_and_silent,
    livekit_answers_500,
    livekit_rejects_our_key_for_a_while,
    start_egress_times_out_but_did_start,
    a_replacement_that_did_start_is_kept,
    a_planned_change_that_did_start_is_kept,
    a_replacement_that_nobody_can_ask_about_goes_on,
    a_share_that_came_back_while_livekit_refused,
);

async fn livekit_unreachable(on: On) {
    let sim = Simulator::start(SimConfig::default()).await.expect("the simulator starts");
    let way = Cuttable::to(&sim.url()).await;
    let place = Place::new(on).await;
    let house = House::around(place, sim, &[("livekit.url", &way.url())]).await;
    let (ann, _share) = house.recording("ann").await;
    let (bob, _share) = house.recording("bob").await;
    house.shares("cid");
    way.cut().await;

    house.start("cid").await.is_for_later("livekit_unreachable");
    let health = house.until_health("livekit", "degraded").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(house.get("cid", "/health/ready").await.status, 200, "clips are served without it");
    // what records goes on, and gives clips
    house.clip("ann", &ann, 2).await;
    let shown = house.session("ann", &ann).await;
    assert_eq!((&shown["status"], &shown["epoch"]), (&json!("active"), &json!(1)));
    // a stop is taken at once, and carried out when LiveKit is back
    assert_eq!(house.post("bob", &format!("/stop/{bob}"), json!({})).await.status, 200);
    house.until_told("bob", "replay_buffer_stopped").await;
    assert_eq!(house.running_egresses().len(), 2, "nobody can tell LiveKit");

    way.mend().await;
    assert_eq!(house.until_health("livekit", "ok").await["status"], "ok");
    house.until_session("bob", &bob, "stopped", 1).await;
    until("the stopped one's egress is over", async || house.running_egresses().len() == 1).await;
    house.recording("cid").await;
    assert_eq!(house.session("ann", &ann).await["epoch"], 1, "nobody replaced what works");
    assert!(!house.told("ann").await.contains(&"replay_buffer_degraded"));
    house.close().await;
    way.cut().await;
}

async fn livekit_slow_and_silent(on: On) {
    let house = House::open(on).await;
    house.call_fault("*", CallAction::Delay { ms: 700 }, None);
    let (ann, _share) = house.recording("ann").await;
    assert_eq!(house.health().await["livekit"]["status"], "ok", "slow is not away");
    house.app.sim.clear_call_faults();

    // every question hangs: each ends at its own deadline, none for ever
    house.call_fault("*", CallAction::Hang, None);
    house.shares("bob");
    house.start("bob").await.is_for_later("livekit_unreachable");
    house.until_health("livekit", "degraded").await;
    house.clip("ann", &ann, 2).await;
    assert_eq!(house.session("ann", &ann).await["status"], "active");

    house.app.sim.clear_call_faults();
    house.until_health("livekit", "ok").await;
    house.recording("bob").await;
    house.close().await;
}

async fn livekit_answers_500(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    house.shares("bob");
    house.call_fault("*", CallAction::Http { status: 500 }, None);
    house.start("bob").await.is_for_later("livekit_unreachable");
    house.until_health("livekit", "degraded").await;
    house.clip("ann", &ann, 2).await;
    house.app.sim.clear_call_faults();

    // of the start alone nobody knows what an unreadable answer means
    house.call_fault("StartTrackCompositeEgress", CallAction::Http { status: 500 }, Some(1));
    assert_eq!(house.start("bob").await.told(), (504, "egress_start_timeout"));
    house.until_told("bob", "replay_buffer_failed").await;

    house.recording("bob").await;
    assert_eq!(house.until_health("livekit", "ok").await["status"], "ok");
    assert_eq!(house.session("ann", &ann).await["epoch"], 1);
    house.close().await;
}

async fn livekit_rejects_our_key_for_a_while(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    house.shares("bob");
    // as a server answers a key that it does not know
    house.call_fault("*", CallAction::Http { status: 401 }, None);
    assert_eq!(house.start("bob").await.told(), (502, "livekit_rejected_credentials"));
    let health = house.until_health("livekit", "degraded").await;
    assert!(health["livekit"]["trouble"].is_string(), "{health}");
    house.clip("ann", &ann, 2).await;
    let shown = house.session("ann", &ann).await;
    assert_eq!((&shown["status"], &shown["epoch"]), (&json!("active"), &json!(1)));

    house.app.sim.clear_call_faults();
    house.until_health("livekit", "ok").await;
    house.recording("bob").await;
    assert_eq!(house.running_egresses().len(), 2);
    house.close().await;
}

async fn start_egress_times_out_but_did_start(on: On) {
    let house = House::open(on).await;
    house.shares("ann");
    house.call_fault("StartTrackCompositeEgress", CallAction::HangAfter, Some(1));
    assert_eq!(house.start("ann").await.told(), (504, "egress_start_timeout"));
    assert_eq!(house.get("ann", "/sessions").await.body["total"], 0, "nothing runs for its user");
    house.until_told("ann", "replay_buffer_failed").await;
    assert_eq!(house.health().await["livekit"]["status"], "ok");
    // what was started all the same is found by its path and ended
    until("the unwanted egress is over", async || {
        house.app.sim.egresses().len() == 1 && house.running_egresses().is_empty()
    })
    .await;
    let again = house.start("ann").await;
    assert_eq!(again.status, 201, "the place is free: {again:?}");
    let id = again.body["id"].as_str().expect("an id");
    house.holds("ann", id, 3.0).await;
    house.clip("ann", id, 2).await;
    house.close().await;
}

/// Here somebody was told long ago that he is recorded: what LiveKit started goes on.
async fn a_replacement_that_did_start_is_kept(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    house.call_fault("StartTrackCompositeEgress", CallAction::HangAfter, Some(1));
    let egress = house.egress("ann", &ann).await;
    house.app.sim.fail_egress(&egress, "broken", 500).expect("failed");
    the_second_goes_on(&house, &ann).await;
    house.close().await;
}

/// The session was never degraded, and others saw before who had asked that it is recorded.
async fn a_planned_change_that_did_start_is_kept(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    house.call_fault("StartTrackCompositeEgress", CallAction::HangAfter, Some(1));
    house.app.sim.publish_audio("r-ann", "ann").expect("a sound");
    the_second_goes_on(&house, &ann).await;
    assert!(!house.told("ann").await.contains(&"replay_buffer_degraded"));
    house.close().await;
}

/// LiveKit is away when the answer is due: the egress records on and is the session's once it can be asked for.
async fn a_replacement_that_nobody_can_ask_about_goes_on(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    house.call_fault("StartTrackCompositeEgress", CallAction::HangAfter, Some(1));
    house.call_fault("ListEgress", CallAction::Hang, None);
    house.app.sim.set_webhook_urls(Vec::new());
    let egress = house.egress("ann", &ann).await;
    house.app.sim.fail_egress(&egress, "broken", 500).expect("failed");
    until("another is asked for", async || second(&house, &ann).await.is_some()).await;
    let deadline = async || second(&house, &ann).await.expect("a row").deadline_at;
    let first = deadline().await;
    until("nobody answers, and it is given time", async || deadline().await != first).await;
    let held = house.session("ann", &ann).await["buffer"]["durationSeconds"].as_f64();
    house.holds("ann", &ann, held.expect("a length") + 2.0).await;
    house.app.sim.clear_call_faults();
    house.until_session("ann", &ann, "active", 2).await;
    house.clip("ann", &ann, 2).await;
    assert_eq!(house.app.sim.egresses().len(), 2, "the first and this");
    house.close().await;
}

/// The old track's egress still has young segments when the new track's is refused: that is no recording.
async fn a_share_that_came_back_while_livekit_refused(on: On) {
    let house = House::open(on).await;
    let (ann, share) = house.recording("ann").await;
    let refused = CallAction::Error { code: "unavailable".to_owned(), msg: "no worker".to_owned() };
    house.call_fault("StartTrackCompositeEgress", refused, Some(3));
    house.app.sim.unpublish_share(&share).expect("gone");
    house.shares("ann");
    // three were refused, with a pause after each
    house.until_session("ann", &ann, "active", 5).await;
    house.clip("ann", &ann, 2).await;
    let told = house.told("ann").await;
    let count = |wanted: &str| told.iter().filter(|kind| **kind == wanted).count();
    assert_eq!(count("replay_buffer_restarted"), 1, "{told:?}");
    assert_eq!(count("replay_buffer_degraded"), 1, "{told:?}");
    house.close().await;
}

async fn second(house: &House, id: &str) -> Option<epoch::Model> {
    let conn = house.app.running.deps.db.conn();
    epoch::find(conn, &SessionId::new(id), 2).await.expect("rows")
}

/// LiveKit does not answer for the second recording, and it is the session's, told once.
async fn the_second_goes_on(house: &House, id: &str) {
    until("a second recording is asked for", async || second(house, id).await.is_some()).await;
    let asked = second(house, id).await.expect("a row").sent_at;
    // who asked for it gave up waiting for the answer, found it in the list, and wrote down when he had really asked
    let is_found = async || second(house, id).await.is_some_and(|row| row.sent_at != asked);
    until("it is found", is_found).await;
    house.until_session("ann", id, "active", 2).await;
    let held = house.session("ann", id).await["buffer"]["durationSeconds"].as_f64();
    house.holds("ann", id, held.expect("a length") + 3.0).await;
    house.clip("ann", id, 2).await;
    until("one egress records", async || house.running_egresses().len() == 1).await;
    assert_eq!(house.app.sim.egresses().len(), 2, "the first and this");
    assert_eq!(second(house, id).await.expect("a row").outcome, None);
    let told = house.told("ann").await;
    let restarted = told.iter().filter(|kind| **kind == "replay_buffer_restarted");
    assert_eq!(restarted.count(), 1, "{told:?}");
}
