//! Users take turns at the places where clips are made.

use std::{collections::BTreeSet, time::Duration};

use livekit_replay::{
    domain::id::{ClipId, JobId, UserId},
    flow::work::{self, Place},
    store::{self, Page, job, schema},
};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::{
    bench::{Bench, RECORDED, Recorded},
    stories::{accepted, settled},
};

async fn recorded<'a>(bench: &'a Bench, user: &str) -> Recorded<'a> {
    let session = bench.session(user, 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    session
}

async fn jobs(bench: &Bench) -> Vec<job::Model> {
    let page = Page { limit: 500, offset: 0 };
    job::list(bench.deps.db.conn(), None, page).await.unwrap().0
}

async fn job_of(bench: &Bench, clip: &Value) -> job::Model {
    let id = ClipId::new(clip["id"].as_str().unwrap());
    job::find_newest_of_clip(bench.deps.db.conn(), &id).await.unwrap().unwrap()
}

/// Waits until the clip's job is as it should be.
async fn until(bench: &Bench, clip: &Value, what: &str, is_so: impl Fn(&job::Model) -> bool) {
    let waiting = async {
        while !is_so(&job_of(bench, clip).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect(what);
}

/// The bench with one place.
async fn one_place(bench: &Bench) -> Place {
    let places = bench.deps.places.get(&bench.deps.config);
    places.acquire().await.unwrap().forget();
    assert_eq!(places.available_permits(), 1);
    Place::take(&places).await.unwrap()
}

pub async fn a_single_clip_does_not_wait_behind_eight_of_somebody_else(mut bench: Bench) {
    let place = one_place(&bench).await;
    bench.run_jobs();
    let (many, one) = (recorded(&bench, "ann").await, recorded(&bench, "bob").await);
    let mut asked = Vec::new();
    for number in 0..8 {
        let reply = accepted(&bench, "ann", many.window(number, number + 6)).await;
        asked.push(reply.json()["id"].clone());
    }
    asked.push(accepted(&bench, "bob", one.window(2, 6)).await.json()["id"].clone());
    // nothing is taken up before there is a place for it
    assert!(jobs(&bench).await.iter().all(|job| job.leased_at.is_none()));
    drop(place);
    for id in &asked {
        assert_eq!(settled(&bench, id).await["status"], "ready");
    }
    let mut done = jobs(&bench).await;
    done.sort_by_key(|job| job.leased_at);
    let users: Vec<_> = done.iter().map(|job| job.user_id.as_ref().unwrap().as_str()).collect();
    assert_eq!(users[..3], ["ann", "bob", "ann"], "{users:?}");
    let of_ann = done.iter().filter(|job| job.user_id == Some(UserId::new("ann")));
    let ages: Vec<_> = of_ann.map(|job| job.created_at).collect();
    assert!(ages.is_sorted(), "the oldest of a user comes first");
    bench.close().await;
}

pub async fn who_has_least_running_is_next_and_then_who_waited_longest(bench: Bench) {
    let db = &bench.deps.db;
    let users = ["ann", "ann", "ann", "bob", "bob", "cat"].map(UserId::new);
    enqueue(&bench, &users).await;
    let mut leased = Vec::new();
    for _ in 0..4 {
        leased.push(work::lease(&bench.deps, 1).await.unwrap().pop().unwrap());
    }
    let names = |leased: &[work::Leased]| -> Vec<String> {
        leased.iter().map(|one| one.job.user_id.clone().unwrap().into_string()).collect()
    };
    assert_eq!(names(&leased), ["ann", "bob", "cat", "ann"]);
    // ann has two at work, bob none: he comes first, although she asked before him
    let of_bob = &leased[1];
    assert!(job::finish(db.conn(), &of_bob.job.id, &of_bob.owner, bench.now()).await.unwrap());
    leased.push(work::lease(&bench.deps, 1).await.unwrap().pop().unwrap());
    leased.push(work::lease(&bench.deps, 1).await.unwrap().pop().unwrap());
    assert_eq!(names(&leased[4..]), ["bob", "ann"]);
    assert!(work::lease(&bench.deps, 1).await.unwrap().is_empty());
    bench.close().await;
}

/// Jobs without a clip: leasing does not look at it.
async fn enqueue(bench: &Bench, users: &[UserId]) {
    for user in users {
        let tx = bench.deps.db.begin().await.unwrap();
        let now = bench.now();
        job::enqueue_render(&tx, &ClipId::generate(), user, 3, None, now).await.unwrap();
        store::commit(tx).await.unwrap();
    }
}

pub async fn every_job_is_leased_once_however_many_lease(bench: Bench) {
    let users: Vec<_> = (0..60).map(|number| UserId::new(format!("user-{}", number % 4))).collect();
    enqueue(&bench, &users).await;
    let leasing = (0..6).map(|_| {
        let deps = bench.deps.clone();
        tokio::spawn(async move {
            let mut own: Vec<JobId> = Vec::new();
            while work::any_due(&deps).await.unwrap() {
                own.extend(work::lease(&deps, 1).await.unwrap().into_iter().map(|one| one.job.id));
            }
            own
        })
    });
    let taken = futures::future::join_all(leasing.collect::<Vec<_>>()).await;
    let taken: Vec<_> = taken.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(taken.len(), 60);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 60);
    bench.close().await;
}

pub async fn who_waits_for_his_window_holds_no_place_and_gets_no_turn_before_others(
    mut bench: Bench,
) {
    drop(one_place(&bench).await);
    bench.run_jobs();
    let late = bench.session("ann", 9).await;
    late.write(0..4);
    let clip = accepted(&bench, "ann", late.window(3, 9)).await.json();
    until(&bench, &clip, "it is taken up", |job| job.state == job::JobState::Running).await;
    // somebody else has the place meanwhile
    let other = recorded(&bench, "bob").await;
    let made = accepted(&bench, "bob", other.window(2, 6)).await.json();
    assert_eq!(settled(&bench, &made["id"]).await["status"], "ready");
    assert_eq!(job_of(&bench, &clip).await.state, job::JobState::Running);
    // and when the window is complete, the place is taken: it queues again
    let place = Place::take(&bench.deps.places.get(&bench.deps.config)).await.unwrap();
    late.write(4..5);
    bench.deps.wake.jobs.notify_waiters();
    until(&bench, &clip, "it is given back", |job| job.state == job::JobState::Queued).await;
    assert_eq!(job_of(&bench, &clip).await.attempts, 0);
    drop(place);
    assert_eq!(settled(&bench, &clip["id"]).await["status"], "ready");
    assert_eq!(job_of(&bench, &clip).await.attempts, 1);
    bench.close().await;
}

pub async fn jobs_of_a_release_without_turns_get_their_users(mut bench: Bench) {
    let session = recorded(&bench, "ann").await;
    let clip = accepted(&bench, "ann", session.window(2, 6)).await.json();
    schema::migrate_down(&bench.deps.db, Some(1)).await.unwrap();
    let url = bench.deps.config.database.url.expose_secret();
    schema::migrate_up(url, &bench.deps.db).await.unwrap();
    assert_eq!(job_of(&bench, &clip).await.user_id, Some(UserId::new("ann")));
    bench.run_jobs();
    assert_eq!(settled(&bench, &clip["id"]).await["status"], "ready");
    bench.close().await;
}
