//! Storms against two processes on one PostgreSQL while an administrator changes the limits at random: never over, no
//! deadlock, no change lost. Judged twice: by what clients saw ([`allowed`]), and by every version of the rows
//! ([`history`]).

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use livekit_replay::simulator::{Media, Share};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    allowed::{self, Dial, Held, Limit, Span},
    history,
    replicas::SILENT,
    seeded,
    support::postgres_url::postgres_url,
    two::{Two, bytes_of_videos, count},
};

const STARTS: usize = 300;
const PEOPLE: usize = 40;
const SOLO_ROUNDS: usize = 20;
const CAPTURES: usize = 150;
const CONFIG: &str = "/admin/community/red/config";
const QUOTA: &str = "/admin/users/cap/quota";
/// What is configured where nobody set anything.
const PLACES: i64 = 5;
const GIB5: i64 = 5 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_while_an_administrator_changes_them_at_random() {
    if postgres_url().is_none() {
        return;
    }
    let (seed, _) = seeded("limits changed at random");
    let two = Two::start().await;
    let db = two.database().await;
    history::begin(&db).await;
    many_start(&two, seed).await;
    one_starts_and_stops(&two, seed).await;
    let places = history::judge_places(&db, PLACES).await;
    println!("the database saw {places:?} of places");
    captures_near_the_quota(&two, seed).await;
    let bytes = history::judge_bytes(&db, GIB5).await;
    println!("the database saw {bytes:?} of bytes");
    assert!(places.set > 20 && bytes.set > 5, "too little was changed to prove anything");
    history::audit_tells_of_them(&db).await;
    history::rows_agree(&db).await;
    two.close(db).await;
}

/// One who sets a thing again and again until it is over.
async fn turn_dial<T: Copy>(
    two: &Two,
    over: &CancellationToken,
    path: &str,
    mut next: impl FnMut() -> (usize, T, Value),
) -> Vec<(Span, T)> {
    let mut changes = Vec::new();
    while !over.is_cancelled() {
        let (turn, value, body) = next();
        let asked = Instant::now();
        two.change(turn, path, body).await;
        changes.push((Span { asked, answered: Instant::now() }, value));
    }
    changes
}

/// Runs `people` while an administrator turns both dials of the community.
async fn under_changing_limits(two: &Two, seed: u64, people: impl Future<Output = ()>) -> Limit {
    let now = two.get("root", CONFIG).await;
    let first = usize::try_from(now["maxConcurrent"].as_u64().unwrap()).unwrap();
    let over = CancellationToken::new();
    let mut random = StdRng::seed_from_u64(seed);
    let most = turn_dial(two, &over, CONFIG, move || {
        let most = random.random_range(1..=12_usize);
        (random.random_range(0..2), most, json!({ "maxConcurrent": most }))
    });
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1));
    let on = turn_dial(two, &over, CONFIG, move || {
        let on = random.random_bool(0.8);
        (random.random_range(0..2), on, json!({ "enabled": on }))
    });
    let people = async {
        people.await;
        over.cancel();
    };
    let (most, on, ()) = tokio::join!(most, on, people);
    let last = (most.last().unwrap().1, on.last().unwrap().1);
    let now = two.get("root", CONFIG).await;
    assert_eq!((&now["maxConcurrent"], &now["enabled"]), (&json!(last.0), &json!(last.1)));
    two.change(0, CONFIG, json!({ "enabled": true })).await;
    // every storm begins with the community switched on
    Limit { most: Dial { first, changes: most }, on: Dial { first: true, changes: on } }
}

/// A start; what came of it is noted, and a refusal must be one that its own figures bear out.
async fn start(two: &Two, turn: usize, user: &str, room: &str) -> (Span, u16, Value) {
    let asked = Instant::now();
    let (status, body) = two.post(turn, user, "/start", json!({ "roomName": room })).await;
    match (status, body["code"].as_str().unwrap_or_default()) {
        (201, _) | (409, "buffer_already_active") | (403, "community_disabled") => {}
        // stopped before it was told of
        (409, "session_not_active") => {}
        (429, "community_limit_reached") => {
            let figure = |name: &str| body[name].as_i64().unwrap();
            assert!(figure("active") >= figure("maxConcurrent"), "no reason: {body:#}");
        }
        _ => panic!("{status} {body:#}"),
    }
    (Span { asked, answered: Instant::now() }, status, body)
}

// ---- places of a community ----

async fn many_start(two: &Two, seed: u64) {
    let room = |user: usize| format!("red-{}", user % 10);
    for user in 0..PEOPLE {
        two.first.sim.publish_share(&room(user), &format!("user{user}:tab"), SILENT).unwrap();
    }
    let left = AtomicUsize::new(STARTS);
    let (held, answers) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let one = async |user: usize| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(100 + user as u64));
        let name = format!("user{user}");
        while left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            let turn = random.random_range(0..2);
            let (given, status, body) = start(two, turn, &name, &room(user)).await;
            answers.lock().unwrap().push((status, body.clone()));
            if status != 201 {
                continue;
            }
            // some stay to the end
            let until = random.random_bool(0.9).then(Instant::now);
            held.lock().unwrap().push(Held { given, left: until });
            if until.is_none() {
                return;
            }
            let path = format!("/stop/{}", body["id"].as_str().unwrap());
            let (status, body) = two.post(turn + 1, &name, &path, json!({})).await;
            assert_eq!(status, 200, "{body:#}");
        }
    };
    let people = async { drop(join_all((0..PEOPLE).map(one)).await) };
    let limit = under_changing_limits(two, seed, people).await;
    let (held, answers) = (held.into_inner().unwrap(), answers.into_inner().unwrap());
    let changed = (limit.most.changes.len(), limit.on.changes.len());
    println!("{PEOPLE} people under limits changed {changed:?} times: {:?}", count(&answers));
    let staying = held.iter().filter(|one| one.left.is_none()).count();
    assert_eq!(allowed::over(&held, &limit), None);
    assert_eq!(two.active().await, staying);
    let running = two.post(1, "root", "/admin/sessions/stop-all", json!({})).await;
    assert_eq!(running.0, 200, "{running:?}");
    assert_eq!(two.active().await, 0);
}

// ---- a user's one place ----

/// One user starts in two rooms and stops, all at once and through both processes: whoever starts waits for whoever
/// stops, in one order.
async fn one_starts_and_stops(two: &Two, seed: u64) {
    for room in ["red-one", "red-two"] {
        two.first.sim.publish_share(room, &format!("solo:{room}"), SILENT).unwrap();
    }
    let (given, ended) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let press = async |finger: usize| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(1000 + finger as u64));
        for _ in 0..SOLO_ROUNDS {
            let turn = random.random_range(0..2);
            if finger.is_multiple_of(2) {
                let asked = Instant::now();
                let (status, body) = two.post(turn, "solo", "/stop", json!({})).await;
                assert!([200, 409].contains(&status), "{status} {body:#}");
                if status == 200 {
                    ended.lock().unwrap().push((body["sessionId"].clone(), asked));
                }
            } else {
                let room = if random.random_bool(0.5) { "red-one" } else { "red-two" };
                let (span, status, body) = start(two, turn, "solo", room).await;
                if status == 201 {
                    given.lock().unwrap().push((body["id"].clone(), span));
                }
            }
        }
    };
    let people = async { drop(join_all((0..12).map(press)).await) };
    under_changing_limits(two, seed.wrapping_add(7), people).await;
    let (given, ended) = (given.into_inner().unwrap(), ended.into_inner().unwrap());
    println!("one user: {} starts and {} stops of his went through", given.len(), ended.len());
    let left = |id: &Value| ended.iter().find(|(other, _)| other == id).map(|(_, asked)| *asked);
    let held: Vec<Held> =
        given.iter().map(|(id, given)| Held { given: *given, left: left(id) }).collect();
    assert_eq!(allowed::over(&held, &Limit::fixed(1)), None);
    let staying = held.iter().filter(|one| one.left.is_none()).count();
    assert_eq!(two.active().await, staying, "one at most, and none that nobody was told of");
    two.post(0, "solo", "/stop", json!({})).await;
}

// ---- quota ----

async fn captures_near_the_quota(two: &Two, seed: u64) {
    let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
    two.first.sim.publish_share("red-q", "cap:tab", share).unwrap();
    let (status, session) = two.post(1, "cap", "/start", json!({ "roomName": "red-q" })).await;
    assert_eq!(status, 201, "{session:#}");
    let id = session["id"].as_str().unwrap();
    let enough = |shown: &Value| shown["buffer"]["durationSeconds"].as_f64() >= Some(8.0);
    two.settled("cap", &format!("/sessions/{id}"), enough).await;
    // some 1.1 MB each while they are made, and a tenth of that afterwards
    let body = |seconds: u64| json!({ "sessionId": id, "durationSeconds": seconds });
    let over = CancellationToken::new();
    let mut random = StdRng::seed_from_u64(seed);
    let changes = turn_dial(two, &over, QUOTA, move || {
        let quota = random.random_range(0..8_000_000_i64);
        (random.random_range(0..2), quota, json!({ "quotaBytes": quota }))
    });
    let (left, answers) = (AtomicUsize::new(CAPTURES), Mutex::new(Vec::new()));
    let accepted: Mutex<Vec<String>> = Mutex::default();
    let press = async |finger: usize| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(2000 + finger as u64));
        while left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            let turn = random.random_range(0..2);
            let seconds = random.random_range(1..6);
            let (status, answer) = two.post(turn, "cap", "/capture", body(seconds)).await;
            match (status, answer["code"].as_str().unwrap_or_default()) {
                (202, _) => {
                    accepted.lock().unwrap().push(answer["clipId"].as_str().unwrap().to_owned());
                }
                (507, "quota_exceeded") => refused_with_reason(&answer),
                _ => panic!("{status} {answer:#}"),
            }
            answers.lock().unwrap().push((status, answer));
            let clip = accepted.lock().unwrap().choose(&mut random).cloned();
            if let Some(clip) = clip.filter(|_| random.random_bool(0.3)) {
                let path = format!("/clips/{clip}");
                let gone = two.ask(turn + 1, Method::DELETE, "cap", &path, |request| request);
                assert!([200, 404].contains(&gone.await.0), "{path}");
            }
        }
    };
    let people = async {
        join_all((0..8).map(press)).await;
        over.cancel();
    };
    let (changes, ()) = tokio::join!(changes, people);
    println!(
        "captures under {} quotas: {:?}",
        changes.len(),
        count(&answers.into_inner().unwrap())
    );
    let made = |mine: &Value| {
        let clips = mine["clips"].as_array().unwrap();
        assert!(clips.iter().all(|clip| clip["status"] != "failed"), "{mine:#}");
        clips.iter().all(|clip| clip["status"] == "ready")
    };
    two.settled("cap", "/my-clips?limit=100", made).await;
    let account = two.get("root", QUOTA).await;
    let on_disk = bytes_of_videos(&two.first.config.storage.clips, "cap");
    println!("{on_disk} bytes of videos on disk, account {account}");
    let told = (&account["usedBytes"], &account["reservedBytes"], &account["quotaBytes"]);
    assert_eq!(told, (&json!(on_disk), &json!(0), &json!(changes.last().unwrap().1)));
    two.post(0, "cap", "/stop", json!({})).await;
}

/// A refusal's own figures leave no room.
fn refused_with_reason(refusal: &Value) {
    let figure = |name: &str| refusal[name].as_i64().unwrap();
    let wanted = figure("usedBytes") + figure("reservedBytes") + figure("neededBytes");
    assert!(wanted > figure("quotaBytes"), "no reason: {refusal:#}");
}
