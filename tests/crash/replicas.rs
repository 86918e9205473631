//! Two processes of the program on one PostgreSQL: every limit is exact between them.

use std::{collections::BTreeMap, path::Path};

use futures::future::join_all;
use livekit_replay::{
    domain::{
        id::{SessionId, UserId},
        keys,
        time::{Timestamp, Window},
    },
    simulator::{Media, Share},
    store::{Connect, Db, segment},
};
use reqwest::Method;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::{
    process::Process,
    service::{Answer, Service},
    support::{On, postgres_url::postgres_url},
};

const USERS: usize = 200;
const STARTS: usize = 50;
const CAPTURES: usize = 60;
const ROOM_FOR: i64 = 7;
/// Nobody looks at these screens.
const SILENT: Share = Share { width: 640, height: 360, audio: false, media: Media::None };

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_postgres_keep_every_limit() {
    if postgres_url().is_none() {
        return;
    }
    let two = Two::start().await;
    five_places_for_two_hundred(&two).await;
    one_buffer_for_fifty_starts(&two).await;
    room_for_seven_captures_of_sixty(&two).await;
    two.second.end().await;
    two.first.close().await;
}

struct Two {
    first: Service,
    second: Process,
}

impl Two {
    async fn start() -> Two {
        // egresses that write nothing are not to be replaced, nor given up where the machine is slow
        let settings = [
            ("REPLAY__BUFFER__NO_SEGMENT_SECONDS", "3600"),
            ("REPLAY__LIVEKIT__START_TIMEOUT_SECONDS", "60"),
        ];
        let first = Service::with(On::Postgres, &settings).await;
        first.start(None).await;
        let second = first.replica("second").await;
        Two { first, second }
    }

    /// A POST to the one or the other, in turns.
    async fn post(&self, turn: usize, user: &str, path: &str, body: Value) -> (u16, Value) {
        let process = if turn.is_multiple_of(2) { &self.first.process } else { &self.second };
        let answer = self.first.ask_of(process, Method::POST, user, path, |request| {
            request.header("Prefer", "respond-async").json(&body)
        });
        match answer.await {
            Answer::Said(status, body) => (status, body),
            other => {
                panic!("{user} {path}: {other:?}\n{}\n{}", self.first.log(), self.second.log())
            }
        }
    }

    async fn get(&self, user: &str, path: &str) -> Value {
        self.first.must(Method::GET, user, path, None).await
    }

    async fn active(&self) -> Value {
        self.get("root", "/admin/community/red/config").await["activeSessions"].clone()
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

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(answer, times)| ((*answer).to_owned(), *times)).collect()
}

async fn five_places_for_two_hundred(two: &Two) {
    let room = |user: usize| format!("red-{}", user % 20);
    for user in 0..USERS {
        two.first.sim.publish_share(&room(user), &format!("user{user}:tab"), SILENT).unwrap();
    }
    let starts = (0..USERS).map(async |user| {
        let body = json!({ "roomName": room(user) });
        two.post(user, &format!("user{user}"), "/start", body).await
    });
    let answers = join_all(starts).await;
    println!("two processes, {USERS} users start for 5 places: {:?}", count(&answers));
    assert_eq!(count(&answers), counts(&[("201", 5), ("429 community_limit_reached", USERS - 5)]));
    for (_, refusal) in answers.iter().filter(|(status, _)| *status == 429) {
        assert_eq!((&refusal["maxConcurrent"], &refusal["active"]), (&json!(5), &json!(5)));
    }
    assert_eq!(two.active().await, 5);
    let calls = two.first.sim.calls();
    let started = calls.iter().filter(|call| call.method == "StartTrackCompositeEgress");
    assert_eq!(started.count(), 5);
    for (turn, (_, session)) in answers.iter().filter(|(status, _)| *status == 201).enumerate() {
        let (user, id) = (session["userId"].as_str().unwrap(), session["id"].as_str().unwrap());
        // both are told at once: one of them gives the place back
        let path = format!("/stop/{id}");
        let (one, other) = tokio::join!(
            two.post(turn, user, &path, json!({})),
            two.post(turn + 1, user, &path, json!({}))
        );
        let mut statuses = [one.0, other.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{one:?} {other:?}");
    }
    assert_eq!(two.active().await, 0);
}

async fn one_buffer_for_fifty_starts(two: &Two) {
    for room in ["red-one", "red-two"] {
        two.first.sim.publish_share(room, &format!("solo:{room}"), SILENT).unwrap();
    }
    let starts = (0..STARTS).map(async |turn| {
        let room = if turn % 4 < 2 { "red-one" } else { "red-two" };
        two.post(turn, "solo", "/start", json!({ "roomName": room })).await
    });
    let answers = join_all(starts).await;
    println!("two processes, {STARTS} starts of one user: {:?}", count(&answers));
    assert_eq!(count(&answers), counts(&[("201", 1), ("409 buffer_already_active", STARTS - 1)]));
    let (_, started) = answers.iter().find(|(status, _)| *status == 201).unwrap();
    for (_, refusal) in answers.iter().filter(|(status, _)| *status == 409) {
        for (told, is) in
            [("sessionId", "id"), ("roomName", "roomName"), ("startedAt", "startedAt")]
        {
            assert_eq!(refusal[told], started[is], "{refusal:#}");
        }
    }
    assert_eq!(two.active().await, 1);
    let (status, stopped) = two.post(1, "solo", "/stop", json!({})).await;
    assert_eq!(status, 200, "{stopped:#}");
    assert_eq!(two.active().await, 0);
}

async fn room_for_seven_captures_of_sixty(two: &Two) {
    let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
    two.first.sim.publish_share("red-q", "cap:tab", share).unwrap();
    let (status, session) = two.post(1, "cap", "/start", json!({ "roomName": "red-q" })).await;
    assert_eq!(status, 201, "{session:#}");
    let id = session["id"].as_str().unwrap();
    let long_enough = |shown: &Value| {
        shown["buffer"]["durationSeconds"].as_f64().is_some_and(|held| held >= 12.0)
    };
    let shown = settled(two, "cap", &format!("/sessions/{id}"), long_enough).await;
    let begins = &shown["buffer"]["startsAt"];
    let from = Timestamp::parse_rfc3339(begins.as_str().unwrap()).unwrap().plus_seconds(3);
    let window = Window::new(from, from.plus_seconds(6));

    let place = &two.first.place;
    let connect = Connect { url: &place.database_url, max_connections: 1, create: false };
    let db = Db::connect(connect).await.unwrap();
    let needed = reservation(&db, id, window).await;
    let quota = needed * ROOM_FOR + needed / 2;
    let path = "/admin/users/cap/quota";
    let body = Some(json!({ "quotaBytes": quota }));
    two.first.must(Method::PATCH, "root", path, body).await;
    // a finished clip would give back what it did not need, and room for an eighth
    run(&db, HOLD_JOBS).await;
    let presses = (0..CAPTURES).map(async |turn| {
        let body = json!({
            "sessionId": id, "from": window.from, "to": window.to, "precision": "keyframe",
        });
        two.post(turn, "cap", "/capture", body).await
    });
    let answers = join_all(presses).await;
    println!(
        "two processes, {CAPTURES} captures of {needed} bytes each, quota {quota}: {:?}",
        count(&answers)
    );
    let fit = usize::try_from(ROOM_FOR).unwrap();
    assert_eq!(count(&answers), counts(&[("202", fit), ("507 quota_exceeded", CAPTURES - fit)]));
    for (_, refusal) in answers.iter().filter(|(status, _)| *status == 507) {
        assert_eq!(refusal["neededBytes"], needed, "{refusal:#}");
        let held = (&refusal["usedBytes"], &refusal["reservedBytes"]);
        assert_eq!(held, (&json!(0), &json!(needed * ROOM_FOR)), "{refusal:#}");
    }
    let account = two.get("root", path).await;
    assert_eq!(account["reservedBytes"], needed * ROOM_FOR, "{account:#}");

    run(&db, LET_JOBS_GO).await;
    let all_ready = |mine: &Value| {
        let clips = mine["clips"].as_array().unwrap();
        assert!(clips.iter().all(|clip| clip["status"] != "failed"), "{mine:#}");
        clips.len() == fit && clips.iter().all(|clip| clip["status"] == "ready")
    };
    settled(two, "cap", "/my-clips?limit=100", all_ready).await;
    let on_disk = bytes_of_videos(&two.first.config.storage.clips, "cap");
    let account = two.get("root", path).await;
    println!("two processes: {on_disk} bytes of videos on disk, account {account}");
    let told = (&account["usedBytes"], &account["reservedBytes"], &account["clipsCount"]);
    assert_eq!(told, (&json!(on_disk), &json!(0), &json!(ROOM_FOR)));
    db.close().await.unwrap();
    two.post(0, "cap", "/stop", json!({})).await;
}

/// While this is there no job can be leased by anybody.
const HOLD_JOBS: &str = "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';\
     CREATE TRIGGER held BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION held()";
const LET_JOBS_GO: &str = "DROP TRIGGER held ON job; DROP FUNCTION held()";

async fn run(db: &Db, statements: &str) {
    db.conn().execute_unprepared(statements).await.unwrap();
}

/// Contract: bytes of every segment the window touches and 1 MiB; nothing of this window is missing.
async fn reservation(db: &Db, session: &str, window: Window) -> i64 {
    let rows = segment::list(db.conn(), &SessionId::new(session)).await.unwrap();
    // an edge within half a millisecond is the same edge
    let touched = rows.iter().filter(|row| {
        row.ends_at.micros_since(window.from) > 500 && window.to.micros_since(row.starts_at) > 500
    });
    let sizes: Vec<i64> = touched.map(|row| row.size_bytes).collect();
    assert!(sizes.len() >= 6, "{sizes:?}");
    sizes.iter().sum::<i64>() + 1024 * 1024
}

/// Asks until it is so, and answers the last answer.
async fn settled(two: &Two, user: &str, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let shown = two.get(user, path).await;
            if is_so(&shown) {
                return shown;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let asked = tokio::time::timeout(std::time::Duration::from_secs(120), asking).await;
    asked.unwrap_or_else(|_| panic!("{path} does not become so\n{}", two.first.log()))
}

fn bytes_of_videos(store: &Path, user: &str) -> u64 {
    let own = store.join(keys::user_key(&UserId::new(user)));
    let files = std::fs::read_dir(own).unwrap().flatten();
    let videos = files.filter(|file| file.path().extension().is_some_and(|end| end == "mp4"));
    videos.map(|file| file.metadata().unwrap().len()).sum()
}
