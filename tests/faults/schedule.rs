//! A tick of the schedule that comes while the run before it still goes on.

use livekit_replay::simulator::CallAction;
use sea_orm::{ConnectionTrait, Statement};

use crate::{
    house::{House, until},
    on_both_engines,
    support::On,
};

on_both_engines!(a_tick_while_the_last_one_still_runs);

/// When runs of a job began and ended, in their order, our microseconds.
async fn runs(house: &House, job: &str) -> Vec<(i64, Option<i64>)> {
    let conn = house.app.running.deps.db.conn();
    let text = format!(
        "SELECT started_at, ended_at FROM maintenance_run WHERE job = '{job}' ORDER BY started_at"
    );
    let statement = Statement::from_string(conn.get_database_backend(), text);
    let rows = conn.query_all_raw(statement).await.expect("rows");
    let read = |row: &sea_orm::QueryResult| {
        (
            row.try_get("", "started_at").expect("a time"),
            row.try_get("", "ended_at").expect("or none"),
        )
    };
    rows.iter().map(read).collect()
}

async fn a_tick_while_the_last_one_still_runs(on: On) {
    let house = House::with_settings(on, &[("jobs.reconcile", "* * * * * *")]).await;
    let (ann, _share) = house.recording("ann").await;
    let before = runs(&house, "reconcile").await.len();
    // every run takes longer than two of its periods
    house.call_fault("ListEgress", CallAction::Delay { ms: 2500 }, None);
    until("some slow runs have ended", async || {
        let all = runs(&house, "reconcile").await;
        let slow = all
            .iter()
            .filter(|(began, ended)| ended.is_some_and(|ended| ended - began > 2_000_000));
        slow.count() >= 3
    })
    .await;
    let all = runs(&house, "reconcile").await;
    for pair in all[before.saturating_sub(1)..].windows(2) {
        let ended = pair[0].1.expect("one that was followed by another has ended");
        assert!(ended <= pair[1].0, "two runs at once: {pair:?}");
    }
    house.clip("ann", &ann, 2).await;
    assert_eq!(house.session("ann", &ann).await["epoch"], 1);
    house.app.sim.clear_call_faults();

    let slow = runs(&house, "reconcile").await.len();
    until("it runs at its pace again", async || runs(&house, "reconcile").await.len() >= slow + 4)
        .await;
    let health = house.health().await;
    let jobs = health["scheduler"].as_array().expect("jobs");
    let job = jobs.iter().find(|job| job["name"] == "reconcile").expect("listed");
    assert_eq!(job["overdue"], false, "{job}");
    until("all is well", async || house.health().await["status"] == "ok").await;
    house.close().await;
}
