//! Limits are exact under any concurrency, on both engines and with two replicas, and a start that failed leaves
//! nothing behind.

mod harness;
#[path = "limits/lowered.rs"]
mod lowered;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use harness::{App, Engine, Loops, Setup, on_both_engines};
use livekit_replay::{
    domain::id::{CommunityId, SessionId, UserId},
    domain::keys,
    domain::lifecycle::SessionStatus,
    flow,
    simulator::{CallAction, CallFault, Media, Share},
    store::{self, community, epoch, quota, segment, session},
};
use serde_json::{Value, json};

on_both_engines!(
    five_places_for_two_hundred_who_start_at_once,
    one_buffer_for_a_user_who_presses_start_fifty_times,
    room_for_seven_captures_of_sixty,
    room_for_seven_reservations_of_sixty,
    a_start_that_failed_leaves_nothing,
);

mod two_replicas {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn five_places_for_two_hundred_who_start_at_once() {
        let Some(engine) = Engine::postgres() else { return };
        five_places(engine, 2).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_buffer_for_a_user_who_presses_start_fifty_times() {
        let Some(engine) = Engine::postgres() else { return };
        one_buffer(engine, 2).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn room_for_seven_captures_of_sixty() {
        let Some(engine) = Engine::postgres() else { return };
        seven_captures(engine, 2).await;
    }
}

const SILENT: Share = Share { width: 640, height: 360, audio: false, media: Media::None };

/// Egresses that write nothing are not to be replaced during a test.
fn patient(engine: Engine) -> Setup {
    Setup::on(engine).change(|config| config.buffer.no_segment = Duration::from_secs(3600))
}

async fn replicas_of(app: App, count: usize) -> Vec<Arc<App>> {
    let mut replicas = vec![Arc::new(app)];
    while replicas.len() < count {
        let next = replicas[0].replica().await;
        replicas.push(Arc::new(next));
    }
    replicas
}

async fn stop_all(replicas: Vec<Arc<App>>) {
    for replica in replicas.into_iter().rev() {
        Arc::into_inner(replica).expect("the last user of the replica").stop().await;
    }
}

/// How often each answer came: status and, of a refusal, its code.
fn count(answers: &[(u16, Value)]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (status, body) in answers {
        let code = body["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
        *counts.entry(format!("{status}{code}")).or_default() += 1;
    }
    counts
}

fn expect(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(answer, times)| ((*answer).to_owned(), *times)).collect()
}

// ---- places of a community ----

async fn five_places_for_two_hundred_who_start_at_once(engine: Engine) {
    five_places(engine, 1).await;
}

async fn five_places(engine: Engine, count_of_replicas: usize) {
    const USERS: usize = 200;
    let replicas = replicas_of(patient(engine).start("places").await, count_of_replicas).await;
    let first = &replicas[0];
    for user in 0..USERS {
        let room = format!("app-{}", user % 20);
        first.sim.publish_share(&room, &format!("user{user}"), SILENT).expect("a share");
    }
    let starts = (0..USERS).map(|user| {
        let app = replicas[user % replicas.len()].clone();
        tokio::spawn(async move {
            let body = json!({ "roomName": format!("app-{}", user % 20) });
            app.post(&format!("user{user}"), "/start", body).await
        })
    });
    let answers: Vec<(u16, Value)> =
        join_all(starts).await.into_iter().map(|answer| answer.expect("no panic")).collect();
    println!("{count_of_replicas} replicas, {USERS} starts: {:?}", count(&answers));
    assert_eq!(
        count(&answers),
        expect(&[("201", 5), ("429 community_limit_reached", USERS - 5)]),
        "{:#?}",
        answers.iter().find(|(status, _)| ![201, 429].contains(status))
    );
    for (_, refusal) in answers.iter().filter(|(status, _)| *status == 429) {
        assert_eq!(refusal["maxConcurrent"], 5, "{refusal:#}");
        assert_eq!(refusal["active"], 5, "{refusal:#}");
    }
    assert_eq!(first.calls("StartTrackCompositeEgress"), 5);
    assert_eq!(active(first).await, 5);

    for (index, (_, started)) in answers.iter().filter(|(status, _)| *status == 201).enumerate() {
        let (user, id) = (started["userId"].as_str().expect("a user"), &started["id"]);
        let path = format!("/stop/{}", id.as_str().expect("an id"));
        // at once, and twice: the place is given back once
        let (one, two) = (&replicas[index % replicas.len()], &replicas[0]);
        let (one, two) =
            tokio::join!(one.post(user, &path, json!({})), two.post(user, &path, json!({})));
        let mut statuses = [one.0, two.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{one:?} {two:?}");
    }
    assert_eq!(active(first).await, 0);
    let (status, again) = first.post("user7", "/start", json!({"roomName": "app-7"})).await;
    assert_eq!(status, 201, "{again:#}");
    assert_eq!(active(first).await, 1);
    stop_all(replicas).await;
}

async fn active(app: &App) -> i64 {
    let (status, config) = app.get_as(&app.admin(), "/admin/community/app/config").await;
    assert_eq!(status, 200, "{config:#}");
    let row = community::find(app.deps.db.conn(), &CommunityId::new("app")).await.expect("a row");
    let active = config["activeSessions"].as_i64().expect("a number");
    assert_eq!(active, i64::from(row.map_or(0, |row| row.active_sessions)));
    active
}

// ---- a user's one place ----

async fn one_buffer_for_a_user_who_presses_start_fifty_times(engine: Engine) {
    one_buffer(engine, 1).await;
}

async fn one_buffer(engine: Engine, count_of_replicas: usize) {
    let replicas = replicas_of(patient(engine).start("one").await, count_of_replicas).await;
    let first = &replicas[0];
    // two identities of the same user in two rooms: still one user
    for room in ["app-a", "app-b"] {
        first.sim.publish_share(room, &format!("alice:{room}"), SILENT).expect("a share");
    }
    let starts = (0..50).map(|index: usize| {
        let app = replicas[index % replicas.len()].clone();
        let room = if index % 4 < 2 { "app-a" } else { "app-b" };
        tokio::spawn(async move { app.post("alice", "/start", json!({ "roomName": room })).await })
    });
    let answers: Vec<(u16, Value)> =
        join_all(starts).await.into_iter().map(|answer| answer.expect("no panic")).collect();
    println!("{count_of_replicas} replicas, 50 starts of one user: {:?}", count(&answers));
    assert_eq!(count(&answers), expect(&[("201", 1), ("409 buffer_already_active", 49)]));
    let (_, active_one) = answers.iter().find(|(status, _)| *status == 201).expect("one");
    for (_, refusal) in answers.iter().filter(|(status, _)| *status == 409) {
        assert_eq!(refusal["sessionId"], active_one["id"], "{refusal:#}");
        assert_eq!(refusal["roomName"], active_one["roomName"], "{refusal:#}");
        assert_eq!(refusal["startedAt"], active_one["startedAt"], "{refusal:#}");
    }
    assert_eq!(first.calls("StartTrackCompositeEgress"), 1);
    assert_eq!(active(first).await, 1, "a refused start gives its place back");
    stop_all(replicas).await;
}

// ---- quota ----

async fn room_for_seven_captures_of_sixty(engine: Engine) {
    seven_captures(engine, 1).await;
}

async fn seven_captures(engine: Engine, count_of_replicas: usize) {
    const CAPTURES: usize = 60;
    let app = Setup::on(engine).loops(Loops::NoJobs).start("quota").await;
    let replicas = replicas_of(app, count_of_replicas).await;
    let first = &replicas[0];
    let share = Share { width: 320, height: 180, audio: false, ..Share::default() };
    first.sim.publish_share("app-q", "alice", share).expect("a share");
    let id = first.start_session("alice", "app-q").await;
    first.wait_for_buffer("alice", &id, 8.0).await;
    first.post("alice", &format!("/stop/{id}"), json!({})).await;
    // all that will ever come is there: every capture of the same window needs the same
    first
        .until("the session has stopped", async || {
            first.get("alice", &format!("/sessions/{id}")).await.1["status"] == "stopped"
        })
        .await;

    // captures of one session wait for each other: six sessions with the same media do not
    let mut ids = vec![id.clone()];
    while ids.len() < 6 {
        ids.push(twin(first, &id).await);
    }
    let needed = reservation_of_last(first, &id, 6).await;
    let quota = needed * 7;
    let path = "/admin/users/alice/quota";
    let (status, set) = first.patch_as(&first.admin(), path, json!({ "quotaBytes": quota })).await;
    assert_eq!((status, &set["quotaBytes"]), (200, &json!(quota)), "{set:#}");

    let presses = (0..CAPTURES).map(|index| {
        let (app, id) = (replicas[index % replicas.len()].clone(), &ids[index % ids.len()]);
        let body =
            json!({ "sessionId": id, "durationSeconds": 6, "title": format!("take {index}") });
        tokio::spawn(async move { app.post_async("alice", "/capture", body).await })
    });
    let answers: Vec<(u16, Value)> =
        join_all(presses).await.into_iter().map(|answer| answer.expect("no panic")).collect();
    let counted = count(&answers);
    println!(
        "{count_of_replicas} replicas: a capture reserves {needed} bytes, quota {quota}: {counted:?}"
    );
    assert_eq!(counted, expect(&[("202", 7), ("507 quota_exceeded", CAPTURES - 7)]));
    for (_, refusal) in answers.iter().filter(|(status, _)| *status == 507) {
        assert_eq!(refusal["neededBytes"], needed, "{refusal:#}");
        assert_eq!(refusal["quotaBytes"], quota, "{refusal:#}");
        assert_eq!(refusal["usedBytes"], 0, "{refusal:#}");
        assert_eq!(refusal["reservedBytes"], quota, "{refusal:#}");
    }
    let (_, account) = first.get_as(&first.admin(), path).await;
    assert_eq!(account["reservedBytes"], quota, "{account:#}");

    for replica in &replicas {
        replica.run_jobs();
    }
    first
        .until("seven clips are ready", async || {
            let (_, mine) = first.get("alice", "/my-clips?limit=100").await;
            let clips = mine["clips"].as_array().cloned().unwrap_or_default();
            clips.len() == 7 && clips.iter().all(|clip| clip["status"] == "ready")
        })
        .await;
    let on_disk = bytes_of_clips(&first.dir.join("clips"));
    let (_, account) = first.get_as(&first.admin(), path).await;
    println!("seven clips: {on_disk} bytes on disk, account {account}");
    assert_eq!(account["usedBytes"], on_disk, "{account:#}");
    assert_eq!(account["reservedBytes"], 0, "{account:#}");
    assert_eq!(account["clipsCount"], 7, "{account:#}");
    stop_all(replicas).await;
}

/// The account alone, with transactions that stay open over each other: requests are too far apart for that.
async fn room_for_seven_reservations_of_sixty(engine: Engine) {
    let app = Arc::new(Setup::on(engine).loops(Loops::None).start("account").await);
    let user = UserId::new("alice");
    let now = app.deps.clock.now();
    quota::set_quota(app.deps.db.conn(), &user, 7000, now).await.expect("set");
    let tasks = (0..60).map(|_| {
        let (app, user) = (app.clone(), user.clone());
        tokio::spawn(async move {
            let tx = app.deps.db.begin().await.expect("a transaction");
            let reserved = quota::reserve(&tx, &user, 1000, 1 << 30, now).await.expect("an answer");
            tokio::task::yield_now().await;
            match &reserved {
                Ok(()) => store::commit(tx).await.expect("committed"),
                Err(_) => store::rollback(tx).await.expect("rolled back"),
            }
            reserved.is_ok()
        })
    });
    let given = join_all(tasks).await.into_iter().filter(|task| *task.as_ref().expect("no panic"));
    assert_eq!(given.count(), 7);
    let account = quota::find(app.deps.db.conn(), &user).await.expect("rows").expect("an account");
    assert_eq!((account.reserved_bytes, account.used_bytes), (7000, 0));
    Arc::into_inner(app).expect("the last user").stop().await;
}

/// Another session of the same user with the same media in its own directory, as if he had recorded it twice.
async fn twin(app: &App, id: &str) -> String {
    let (deps, id, new) = (&app.deps, SessionId::new(id), SessionId::generate());
    let row = session::load(deps.db.conn(), &id).await.expect("the session");
    let epochs = epoch::list(deps.db.conn(), &id).await.expect("epochs");
    let segments = segment::list(deps.db.conn(), &id).await.expect("segments");
    let tx = deps.db.begin().await.expect("a transaction");
    let (room, user) = (row.room_name.clone(), row.user_id.clone());
    let inserted = session::insert(&tx, session::Model { id: new.clone(), ..row }).await;
    assert_eq!(inserted.expect("inserted"), session::Inserted::Yes);
    for old in epochs {
        let number = u32::try_from(old.number).expect("a number");
        let path = keys::buffer_path(&deps.instance, &room, &user, &new, number).expect("a path");
        let (from, to) =
            (app.dir.join("buffer").join(&old.path), app.dir.join("buffer").join(&path));
        std::fs::create_dir_all(&to).expect("a directory");
        for file in std::fs::read_dir(&from).expect("a directory").flatten() {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
        }
        let row = epoch::Model { session_id: new.clone(), path, egress_id: None, ..old };
        assert!(epoch::insert(&tx, row).await.expect("inserted"));
    }
    for old in segments {
        let row = segment::Model { session_id: new.clone(), ..old };
        assert!(segment::insert(&tx, row).await.expect("inserted"));
    }
    store::commit(tx).await.expect("committed");
    new.into_string()
}

/// The reservation of "the last N seconds" of a session that is over, from its rows: bytes of every segment the window
/// touches and 1 MiB; nothing is missing.
async fn reservation_of_last(app: &App, id: &str, seconds: i64) -> i64 {
    let rows = segment::list(app.deps.db.conn(), &SessionId::new(id)).await.expect("rows");
    let end = rows.iter().map(|row| row.ends_at).max().expect("segments");
    let from = end.plus_seconds(-seconds);
    // an edge within half a millisecond is the same edge
    let touched = rows.iter().filter(|row| row.ends_at.micros_since(from) > 500);
    let sizes: Vec<i64> = touched.map(|row| row.size_bytes).collect();
    println!("{} segments, the window touches {sizes:?}", rows.len());
    sizes.iter().sum::<i64>() + 1024 * 1024
}

fn bytes_of_clips(root: &Path) -> i64 {
    let mut bytes = 0;
    for user in std::fs::read_dir(root).expect("the store").flatten() {
        // work files and marker are none of it
        if user.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        for file in std::fs::read_dir(user.path()).expect("a directory").flatten() {
            if file.path().extension().is_some_and(|extension| extension == "mp4") {
                bytes += i64::try_from(file.metadata().expect("a file").len()).expect("small");
            }
        }
    }
    bytes
}

// ---- starts that fail ----

async fn a_start_that_failed_leaves_nothing(engine: Engine) {
    // without webhooks and loops nothing but the pass itself can find what was left
    let app = patient(engine)
        .change(|config| {
            config.livekit.start_timeout = Duration::from_secs(2);
            config.limits.community_max_concurrent = 1;
        })
        .loops(Loops::None)
        .without_webhooks()
        .start("failed")
        .await;
    app.sim.publish_share("app-f", "alice", SILENT).expect("a share");
    app.sim.publish_share("app-f", "bob", SILENT).expect("a share");
    let twirp = |code: &str| CallAction::Error { code: code.to_owned(), msg: "no".to_owned() };
    let cases = [
        ("unavailable", twirp("unavailable"), (503, "egress_unavailable"), 0),
        ("unauthenticated", twirp("unauthenticated"), (502, "livekit_rejected_credentials"), 0),
        ("started, and no answer came", CallAction::HangAfter, (504, "egress_start_timeout"), 1),
        (
            "started, and the answer came late",
            CallAction::DelayAnswer { ms: 2500 },
            (504, "egress_start_timeout"),
            1,
        ),
    ];
    for (what, action, (status, code), late) in cases {
        let fault = CallFault {
            method: "StartTrackCompositeEgress".to_owned(),
            action,
            times: Some(1),
            for_ms: None,
        };
        app.sim.add_call_fault(fault);
        let (got, problem) = app.post("alice", "/start", json!({"roomName": "app-f"})).await;
        println!("{what}: {got} {}", problem["code"]);
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{what}: {problem:#}");
        assert_failed(&app, late).await;
        // the only place of the community is free for somebody else, at once
        let other = app.start_session("bob", "app-f").await;
        let counts = flow::reconcile::run(&app.deps).await.expect("a pass");
        assert_eq!(counts.orphans_stopped, late, "{what}: {counts:?}");
        app.until("the late egress is over", async || running(&app).len() == 1).await;
        let (stopped, _) = app.post("bob", &format!("/stop/{other}"), json!({})).await;
        assert_eq!(stopped, 200);
        flow::supervise::pass(&app.deps).await.expect("a pass");
        app.until("no egress runs", async || running(&app).is_empty()).await;
        flow::reconcile::run(&app.deps).await.expect("a pass");
        flow::supervise::pass(&app.deps).await.expect("a pass");
    }
    // nothing of them stays on disk either
    app.clock.advance_micros(3_600_000_000);
    flow::reap::run(&app.deps, true, false).await.expect("a pass");
    let sessions = sessions_on_disk(&app.dir.join("buffer"));
    assert!(sessions.is_empty(), "{sessions:?}");
    app.stop().await;
}

/// The newest session of alice failed, holds no place, and LiveKit runs as many recordings as nobody knows of.
async fn assert_failed(app: &App, late: u64) {
    let conn = app.deps.db.conn();
    let user = UserId::new("alice");
    let row = session::find_newest_of_user(conn, &user).await.expect("rows").expect("a session");
    assert_eq!(row.status, SessionStatus::Failed);
    assert!(!row.holds_place);
    let epochs = epoch::list(conn, &row.id).await.expect("rows");
    assert!(epochs.iter().all(|epoch| epoch.status == epoch::EpochStatus::Ended), "{epochs:?}");
    assert_eq!(active(app).await, 0);
    assert_eq!(running(app).len() as u64, late);
    let (_, shown) = app.get("alice", &format!("/sessions/{}", row.id)).await;
    assert_eq!((&shown["status"], &shown["endReason"]), (&json!("failed"), &json!("start_failed")));
}

fn running(app: &App) -> Vec<String> {
    let over = ["EGRESS_COMPLETE", "EGRESS_FAILED", "EGRESS_ABORTED", "EGRESS_LIMIT_REACHED"];
    let all = app.sim.egresses();
    all.into_iter()
        .filter(|one| !over.contains(&one.status.as_str()))
        .map(|one| one.egress_id)
        .collect()
}

/// `<instance>/<room>/<user>/<session>` below a buffer.
fn sessions_on_disk(buffer: &Path) -> Vec<std::path::PathBuf> {
    let mut level = vec![buffer.join(harness::INSTANCE)];
    for _ in 0..3 {
        let below =
            |dir: &std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
        level = level.iter().flat_map(below).map(|entry| entry.path()).collect();
    }
    level
}
