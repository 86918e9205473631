//! When the jobs run, and that one replica runs each tick.

use std::sync::Arc;

use livekit_replay::{
    error::Code,
    flow::{
        Deps,
        upkeep::{self, Job},
    },
    schedule,
};

use crate::bench::Bench;

pub async fn a_tick_runs_once_on_two_replicas(bench: Bench) {
    let other = bench.replica("two");
    let mut ran = 0;
    for _ in 0..10 {
        let (left, right) = futures::join!(
            upkeep::run_tick(&bench.deps, Job::WorkdirSweep),
            upkeep::run_tick(&other, Job::WorkdirSweep)
        );
        let (left, right) = (left.expect("asked"), right.expect("asked"));
        assert!(left.is_some() != right.is_some(), "one of the two");
        assert_eq!(left.or(right).and_then(|run| run.outcome).as_deref(), Some("ok"));
        ran += 1;
        bench.pass_seconds(60);
    }
    assert_eq!(ran, 10);
    // the stores are asked by every replica
    for deps in [&bench.deps, &other] {
        assert!(upkeep::run_tick(deps, Job::StorageProbe).await.expect("asked").is_some());
        assert!(deps.stores.clips.last().is_some());
    }
    bench.close().await;
}

pub async fn the_schedule_runs_reports_and_stops(bench: Bench) {
    let mut config = (*bench.deps.config).clone();
    config.jobs.quota_audit = "* * * * * *".to_owned();
    let clock = Arc::new(livekit_replay::clock::SystemClock);
    let deps = Deps { config: Arc::new(config), clock, ..bench.deps.clone() };
    let handle = schedule::start(&deps).await.expect("started");
    let audited = loop {
        tokio::task::yield_now().await;
        let jobs = upkeep::status(&deps).await.expect("listed");
        assert_eq!(jobs.len(), 6);
        let audit = jobs.into_iter().find(|job| job.name == "quota-audit").expect("listed");
        let ended = audit.last_run.as_ref().and_then(|run| run.ended_at);
        if ended.is_some() {
            break audit;
        }
    };
    let run = audited.last_run.expect("a run");
    assert_eq!(run.outcome.as_deref(), Some("ok"));
    assert_eq!(run.counts["accounts"], 0);
    assert!(!audited.overdue && audited.next_run_at.is_some());
    assert!(deps.stores.buffer.last().is_some_and(|probed| probed.trouble.is_none()));
    deps.stop.cancel();
    handle.stop().await;

    let run = upkeep::run_now(&bench.deps, "orphan-reaper", false).await;
    // the service is stopping: the run says so instead of half doing it
    assert_eq!(run.expect("recorded").outcome.as_deref(), Some(Code::Draining.as_str()));
    let unknown = upkeep::run_now(&bench.deps, "no-such-job", false).await;
    assert_eq!(unknown.expect_err("refused").code(), Code::NotFound);
    // nobody runs it any more
    bench.pass_seconds(86_400 * 2);
    let jobs = upkeep::status(&bench.deps).await.expect("listed");
    let audit = jobs.iter().find(|job| job.name == "quota-audit").expect("listed");
    assert!(audit.overdue);
    bench.close().await;
}

pub async fn a_job_that_never_ran_is_missed_too(bench: Bench) {
    let overdue = async || {
        let jobs = upkeep::status(&bench.deps).await.expect("listed");
        jobs.into_iter().filter(|job| job.overdue).map(|job| job.name).collect::<Vec<_>>()
    };
    assert!(overdue().await.is_empty());
    bench.pass_seconds(600);
    let missed = overdue().await;
    assert!(missed.contains(&"reconcile".to_owned()), "{missed:?}");
    bench.pass_seconds(86_400);
    assert_eq!(overdue().await.len(), upkeep::Job::ALL.len());
    bench.close().await;
}
