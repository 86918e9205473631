//! Two processes of the program on one PostgreSQL: every limit is exact between them.

use futures::future::join_all;
use livekit_replay::{
    domain::{
        id::SessionId,
        time::{Timestamp, Window},
    },
    simulator::{Media, Share},
    store::{Db, segment},
};
use reqwest::Method;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::{
    support::postgres_url::postgres_url,
    two::{Two, bytes_of_videos, count, counts},
};

const USERS: usize = 200;
const STARTS: usize = 50;
const CAPTURES: usize = 60;
const ROOM_FOR: i64 = 7;
/// Nobody looks at these screens.
pub const SILENT: Share = Share { width: 640, height: 360, audio: false, media: Media::None };

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_postgres_keep_every_limit() {
    if postgres_url().is_none() {
        return;
    }
    let two = Two::start().await;
    five_places_for_two_hundred(&two).await;
    one_buffer_for_fifty_starts(&two).await;
    room_for_seven_captures_of_sixty(&two).await;
    let db = two.database().await;
    two.close(db).await;
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
    let shown = two.settled("cap", &format!("/sessions/{id}"), long_enough).await;
    let begins = &shown["buffer"]["startsAt"];
    let from = Timestamp::parse_rfc3339(begins.as_str().unwrap()).unwrap().plus_seconds(3);
    let window = Window::new(from, from.plus_seconds(6));

    let db = two.database().await;
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
    two.settled("cap", "/my-clips?limit=100", all_ready).await;
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

pub async fn run(db: &Db, statements: &str) {
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
