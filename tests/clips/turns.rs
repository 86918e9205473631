//! Users take turns at the places where clips are made.

use std::{collections::BTreeSet, time::Duration};

use livekit_replay::{
    domain::id::{ClipId, JobId, UserId},
    flow::work::{self, Place},
    store::{self, Page, job, schema},
};
use sea_orm::ConnectionTrait;
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
    // as long as the others: a shorter one would go first
    asked.push(accepted(&bench, "bob", one.window(2, 8)).await.json()["id"].clone());
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

/// Says that a clip was asked for with so many seconds; how many there really are is of no account to turns.
async fn lengthen(bench: &Bench, clip: &Value, seconds: i64) {
    let id = clip["id"].as_str().unwrap();
    let change = format!(
        "UPDATE clip SET requested_from = requested_to - {} WHERE id = '{id}'",
        seconds * 1_000_000
    );
    bench.deps.db.conn().execute_unprepared(&change).await.unwrap();
}

/// Says that a clip's job was made so many seconds earlier.
async fn asked_earlier(bench: &Bench, clip: &Value, seconds: i64) {
    let id = clip["id"].as_str().unwrap();
    let change = format!(
        "UPDATE job SET created_at = created_at - {} WHERE clip_id = '{id}'",
        seconds * 1_000_000
    );
    bench.deps.db.conn().execute_unprepared(&change).await.unwrap();
}

async fn asked(bench: &Bench, user: &str, session: &Recorded<'_>, seconds: i64) -> Value {
    let clip = accepted(bench, user, session.window(2, 6)).await.json();
    lengthen(bench, &clip, seconds).await;
    clip
}

/// The clips in the order in which one worker makes them.
async fn one_after_the_other(bench: &Bench) -> Vec<String> {
    let mut order = Vec::new();
    while let Some(leased) = work::lease(&bench.deps, 1).await.unwrap().pop() {
        order.push(leased.job.clip_id.clone().unwrap().into_string());
        let db = bench.deps.db.conn();
        assert!(job::finish(db, &leased.job.id, &leased.owner, bench.now()).await.unwrap());
    }
    order
}

fn id(clip: &Value) -> &str {
    clip["id"].as_str().unwrap()
}

pub async fn a_short_clip_is_not_stuck_behind_ten_long_ones(bench: Bench) {
    let (ann, bob) = (recorded(&bench, "ann").await, recorded(&bench, "bob").await);
    let mut long = Vec::new();
    for _ in 0..10 {
        long.push(asked(&bench, "ann", &ann, 600).await);
    }
    let own = asked(&bench, "ann", &ann, 30).await;
    let other = asked(&bench, "bob", &bob, 30).await;
    let order = one_after_the_other(&bench).await;
    assert_eq!(order[..2], [id(&own), id(&other)]);
    let long: Vec<_> = long.iter().map(id).collect();
    assert_eq!(order[2..], long, "the oldest first");
    bench.close().await;
}

pub async fn a_long_clip_that_has_waited_lets_no_newer_one_pass(bench: Bench) {
    let ann = recorded(&bench, "ann").await;
    let (waited, fresh) =
        (asked(&bench, "ann", &ann, 600).await, asked(&bench, "ann", &ann, 600).await);
    asked_earlier(&bench, &waited, 580).await;
    let short = asked(&bench, "ann", &ann, 30).await;
    let order = one_after_the_other(&bench).await;
    assert_eq!(order, [id(&waited), id(&short), id(&fresh)]);
    bench.close().await;
}

pub async fn long_clips_leave_a_place_for_a_short_one(bench: Bench) {
    let (ann, bob) = (recorded(&bench, "ann").await, recorded(&bench, "bob").await);
    let places = bench.deps.places.get(&bench.deps.config);
    let workers = bench.deps.config.capture.workers;
    assert!(workers >= 2, "one place is everybody's");
    for _ in 0..workers + 2 {
        asked(&bench, "ann", &ann, 600).await;
    }
    let take = async || {
        let place = Place::take(&places).await.unwrap();
        work::lease_for(&bench.deps, place).await.unwrap()
    };
    let mut taken = Vec::new();
    for _ in 0..workers - 1 {
        taken.push(take().await.expect("a long one"));
    }
    assert!(take().await.is_none(), "the last place is kept");
    let short = asked(&bench, "bob", &bob, 30).await;
    let (leased, place) = take().await.expect("the short one");
    assert_eq!(leased.job.clip_id.as_ref().unwrap().as_str(), id(&short));
    drop(place);
    // who waits for his window lets both places go, and takes up both again
    let (_, waiting) = taken.last_mut().unwrap();
    waiting.let_go();
    let next = take().await.expect("another long one");
    assert!(!waiting.regain(), "no place among the long ones");
    drop(next);
    assert!(waiting.regain());
    assert!(take().await.is_none());
    bench.close().await;
}
