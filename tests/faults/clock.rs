//! Clocks that are set forward or back, ours and the egress host's.

use livekit_replay::{
    clock::Clock,
    domain::{id::SessionId, time::Timestamp},
    flow::upkeep::{self, Job},
    store::segment,
};
use serde_json::{Value, json};

use crate::{
    house::{House, until},
    on_both_engines,
    support::On,
};

const HOUR: i64 = 3600;

on_both_engines!(
    our_clock_steps_forward,
    our_clock_steps_back,
    the_egress_hosts_clock_steps,
    a_tick_is_run_again_when_its_moment_comes_again,
);

/// The end of a clip lies at the present moment of our clock.
fn is_of_now(house: &House, clip: &Value) {
    let end = clip["endsAt"].as_str().and_then(Timestamp::parse_rfc3339).expect("an end");
    let ago = house.app.clock.now().micros_since(end) / 1_000_000;
    assert!((-2..60).contains(&ago), "ended {ago} s ago: {clip:#}");
    assert_eq!(clip["gaps"], json!([]), "{clip:#}");
}

/// What runs goes on; a recording whose times are off by the step is replaced by one with right times; what was
/// accepted before is made.
async fn our_clock_steps(on: On, seconds: i64) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let deps = &house.app.running.deps;
    // every place is taken: the clip waits in the queue while the clock is set
    let places = deps.places.get(&deps.config);
    let all = u32::try_from(deps.config.capture.workers).expect("few");
    let all = places.acquire_many_owned(all).await.expect("places");
    let body = json!({ "sessionId": ann, "durationSeconds": 2 });
    let accepted = house.post("ann", "/capture", body).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    house.app.clock.advance_micros(seconds * 1_000_000);
    drop(all);

    house.ready("ann", accepted.body["id"].as_str().expect("an id")).await;
    house.until_session("ann", &ann, "active", 2).await;
    until("the new recording holds some seconds", async || held_by_newest(&house, &ann).await >= 4)
        .await;
    is_of_now(&house, &house.clip("ann", &ann, 2).await);
    assert_eq!(house.session("ann", &ann).await["epoch"], 2, "once is enough");
    assert!(!house.told("ann").await.contains(&"replay_buffer_stopped"));
    until("all is well", async || house.health().await["status"] == "ok").await;
    assert_eq!(house.post("ann", &format!("/stop/{ann}"), json!({})).await.status, 200);
    house.until_session("ann", &ann, "stopped", 2).await;
    until("no egress is left", async || house.running_egresses().is_empty()).await;
    house.close().await;
}

/// Segments of the second epoch.
async fn held_by_newest(house: &House, id: &str) -> usize {
    let conn = house.app.running.deps.db.conn();
    segment::list_of_epoch(conn, &SessionId::new(id), 2).await.expect("rows").len()
}

async fn our_clock_steps_forward(on: On) {
    our_clock_steps(on, HOUR).await;
}

async fn our_clock_steps_back(on: On) {
    our_clock_steps(on, -HOUR).await;
}

/// Times come from the media once an epoch has begun, and the offset of the host's clock is measured anew for each.
async fn the_egress_hosts_clock_steps(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    for (epoch, ms) in [(2, HOUR * 1000), (3, -2 * HOUR * 1000)] {
        house.app.sim.step_host_clock(ms);
        let held = house.session("ann", &ann).await["buffer"]["durationSeconds"].as_f64();
        house.holds("ann", &ann, held.expect("a length") + 4.0).await;
        is_of_now(&house, &house.clip("ann", &ann, 2).await);
        assert_eq!(house.session("ann", &ann).await["epoch"].as_u64(), Some(epoch - 1));
        // the next recording begins under the new clock
        let egress = house.egress("ann", &ann).await;
        house.app.sim.fail_egress(&egress, "pipeline frozen", 500).expect("failed");
        house.until_session("ann", &ann, "active", epoch).await;
        let held = house.session("ann", &ann).await["buffer"]["durationSeconds"].as_f64();
        house.holds("ann", &ann, held.expect("a length") + 4.0).await;
        is_of_now(&house, &house.clip("ann", &ann, 2).await);
    }
    until("all is well", async || house.health().await["status"] == "ok").await;
    house.close().await;
}

/// A schedule that was set back must not wait until its clock is where it was: every pass runs at its moments, once.
async fn a_tick_is_run_again_when_its_moment_comes_again(on: On) {
    let house = House::open(on).await;
    let deps = &house.app.running.deps;
    // at three in the morning, so that the schedule itself does not come between
    let tick = async || upkeep::run_tick(deps, Job::QuotaAudit).await.expect("asked").is_some();
    assert!(tick().await && !tick().await, "once");
    house.app.clock.advance_micros(24 * HOUR * 1_000_000);
    assert!(tick().await && !tick().await, "the next day, once");
    house.app.clock.advance_micros(-24 * HOUR * 1_000_000);
    assert!(tick().await, "the clock was set back: the day is not over");
    assert!(!tick().await, "once");
    house.close().await;
}
