//! What an operator does after a loss, with the real program: a copy put back, a database made anew from the store.

mod support;

use std::{os::unix::fs::PermissionsExt, path::Path, process::Output, time::Duration};

use livekit_replay::{
    simulator::Share,
    store::{Connect, Db, schema},
};
use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};
use support::{On, Place, TestApp};

on_both_engines!(
    a_copy_made_under_load_is_put_back_and_the_clips_agree,
    a_lost_database_is_made_anew_from_the_clips_records,
    a_copy_of_an_older_release_is_brought_up_and_a_strange_one_refused,
    a_file_copied_with_its_log_is_put_back_whole,
    what_owners_said_since_a_copy_is_kept,
    a_copy_that_was_cut_short_changes_nothing,
    a_clip_store_that_is_away_at_a_start_is_not_taken_for_an_empty_one,
    a_pass_that_failed_is_a_command_that_failed,
);

const USER: &str = "ann/7";

/// Waits until something is so; the limit only ends a test that has failed.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(90), waiting).await;
    in_time.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Runs the program in a place.
async fn program(place: &Place, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_livekit-replay"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("REPLAY__DATA_DIR", place.dir.join("data"))
        .env("DATABASE_URL", &place.database_url)
        .env("REPLAY_BUFFER_PATH", place.dir.join("buffer"))
        .env("REPLAY_STORAGE_PATH", place.dir.join("clips"))
        .env("JWT_SECRET", "a-secret-that-tests-alone-know-of")
        .current_dir(&place.dir)
        .kill_on_drop(true);
    command.output().await.expect("the program runs")
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

#[track_caller]
fn went_well(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

struct House {
    app: TestApp,
    session: String,
    token: String,
}

impl House {
    async fn open(on: On) -> House {
        let app = TestApp::start(on).await;
        let share = Share { width: 160, height: 90, ..Share::default() };
        app.sim.publish_share("r1", USER, share).expect("shared");
        let token = app.token_for(USER, &[("c1", "moderator")]);
        let start = json!({ "roomName": "r1", "communityId": "c1" });
        let (status, session) = app.ask(Method::POST, &token, "/start", Some(start)).await;
        assert_eq!(status, 201, "{session}");
        let session = session["id"].as_str().expect("an id").to_owned();
        let house = House { app, session, token };
        until("something is recorded", async || {
            let shown = house.get(&format!("/sessions/{}", house.session)).await;
            shown["buffer"]["durationSeconds"].as_f64() >= Some(5.0)
        })
        .await;
        house
    }

    async fn get(&self, path: &str) -> Value {
        self.app.ask(Method::GET, &self.token, path, None).await.1
    }

    async fn readiness(&self) -> Value {
        let url = format!("{}/health/ready", self.app.running.url());
        let answer = self.app.http.get(url).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    async fn capture(&self) -> String {
        let body = json!({ "sessionId": self.session, "durationSeconds": 2 });
        let (status, clip) = self.app.ask(Method::POST, &self.token, "/capture", Some(body)).await;
        assert!(status == 201 || status == 202, "{clip}");
        let id = clip["id"].as_str().expect("an id").to_owned();
        self.ready(&id).await;
        id
    }

    async fn ready(&self, id: &str) {
        until("the clip is there", async || {
            self.get(&format!("/clips/{id}")).await["status"] == "ready"
        })
        .await;
    }

    /// The clip's bytes, which must be those that its checksum names.
    async fn download(&self, id: &str) -> Vec<u8> {
        let clip = self.get(&format!("/clips/{id}")).await;
        let url = format!("{}/livekit-replay/clips/{id}/file", self.app.running.url());
        let answer = self.app.http.get(url).bearer_auth(&self.token).send().await.expect("asked");
        assert_eq!(answer.status(), 200, "{clip}");
        let bytes = answer.bytes().await.expect("bytes").to_vec();
        assert_eq!(clip["checksum"], format!("blake3:{}", blake3::hash(&bytes).to_hex()));
        bytes
    }

    async fn stop(self) -> (Closed, String) {
        let House { app, token, session } = self;
        let TestApp { running, sim, place, clock, http } = app;
        running.stop().await.expect("stops");
        (Closed { sim, place, clock, http, session }, token)
    }
}

/// What is left while no service runs.
struct Closed {
    sim: livekit_replay::simulator::Simulator,
    place: Place,
    clock: std::sync::Arc<livekit_replay::clock::ShiftedClock>,
    http: reqwest::Client,
    session: String,
}

impl Closed {
    async fn start(self, token: String) -> House {
        let Closed { sim, place, clock, http, session } = self;
        let config = place.config(&sim, &[]);
        let running = support::start(config, std::sync::Arc::clone(&clock)).await.expect("starts");
        House { app: TestApp { running, sim, clock, place, http }, session, token }
    }
}

fn wal_and_all(path: &Path) -> Vec<std::path::PathBuf> {
    let with = |ending: &str| std::path::PathBuf::from(format!("{}{ending}", path.display()));
    ["", "-wal", "-shm"].map(with).to_vec()
}

/// The database is gone: its file, or every table.
async fn lose_database(place: &Place) {
    match place.database_url.strip_prefix("sqlite://") {
        Some(path) => {
            for file in wal_and_all(Path::new(path)) {
                let _ = std::fs::remove_file(file);
            }
        }
        None => {
            let db = Database::connect(&place.database_url).await.expect("a connection");
            let all = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
            db.execute_unprepared(all).await.expect("dropped");
            db.close().await.expect("closed");
        }
    }
}

async fn a_copy_made_under_load_is_put_back_and_the_clips_agree(on: On) {
    let house = House::open(on).await;
    let (kept, deleted) = (house.capture().await, house.capture().await);
    let copy = house.app.place.dir.join("copy");
    let copy = copy.to_str().expect("text");
    // while clips are being made
    let backup = ["db", "backup", copy];
    let (one, two, three, made) = tokio::join!(
        house.capture(),
        house.capture(),
        house.capture(),
        program(&house.app.place, &backup)
    );
    went_well(&made);
    assert_eq!(std::fs::metadata(copy).expect("a copy").permissions().mode() & 0o077, 0);
    assert_eq!(program(&house.app.place, &backup).await.status.code(), Some(1));
    let running = program(&house.app.place, &["db", "restore", copy]).await;
    assert_eq!(running.status.code(), Some(1), "not while a service runs: {running:?}");

    // what the copy does not know
    let later = house.capture().await;
    let path = format!("/clips/{deleted}");
    let (status, _) = house.app.ask(Method::DELETE, &house.token, &path, None).await;
    assert_eq!(status, 200);
    let link = house.get(&format!("/clips/{kept}")).await["downloadUrl"].clone();
    let bytes = house.download(&kept).await;

    let (closed, token) = house.stop().await;
    let place = &closed.place;
    went_well(&program(place, &["db", "restore", copy, "--dry-run"]).await);
    went_well(&program(place, &["db", "restore", copy]).await);
    let no_copy = place.dir.join("clips/.livekit-replay.json");
    let odd = program(place, &["db", "restore", no_copy.to_str().expect("text")]).await;
    assert_eq!(odd.status.code(), Some(1), "{odd:?}");
    let house = closed.start(token).await;
    let place = &house.app.place;

    // captures that the copy knew as accepted are made again or were ready
    for id in [&one, &two, &three] {
        if house.get(&format!("/clips/{id}")).await["id"].is_string() {
            house.ready(id).await;
        }
    }
    let told = program(place, &["clips", "verify", "--repair", "--json"]).await;
    let findings = json_of(&told)["findings"].clone();
    let lost =
        json!({ "clipId": deleted, "fault": "file_missing", "repaired": true, "userId": USER });
    assert!(findings.as_array().expect("findings").contains(&lost), "{findings:#}");
    let clean = program(place, &["clips", "verify", "--json"]).await;
    went_well(&clean);
    let clean = json_of(&clean);
    assert_eq!(clean["findings"], json!([]));
    assert_eq!(clean["clips"], 6, "five with files and the one whose file is gone: {clean:#}");
    for id in [&kept, &one, &two, &three, &later] {
        house.download(id).await;
    }
    assert_eq!(house.download(&kept).await, bytes);
    assert_eq!(house.get(&format!("/clips/{deleted}")).await["error"]["code"], "file_missing");
    let quota = json_of(&program(place, &["quota", "verify", "--dry-run", "--json"]).await);
    assert_eq!(quota["counts"]["driftBytes"], 0, "{quota}");
    let link = format!("{}{}", house.app.running.url(), link.as_str().expect("a link"));
    let old_link = house.app.http.get(&link).send().await.expect("an answer");
    assert_eq!(old_link.status(), 401, "links from before the copy was put back are void");
    let log = json_of(&program(place, &["audit", "list", "--json"]).await);
    let actions: Vec<_> = log["entries"].as_array().expect("entries").iter().collect();
    assert!(actions.iter().any(|line| line["action"] == "database.restore"), "{log:#}");
    went_well(&program(place, &["db", "check", "--json"]).await);
    house.app.stop().await;
}

async fn a_lost_database_is_made_anew_from_the_clips_records(on: On) {
    let house = House::open(on).await;
    let ids = [house.capture().await, house.capture().await, house.capture().await];
    let mut all = Vec::new();
    for id in &ids {
        all.push(house.download(id).await);
    }
    let instance = house.app.running.deps.instance.clone();
    let (closed, token) = house.stop().await;
    let refused = program(&closed.place, &["db", "rebuild"]).await;
    assert_eq!(refused.status.code(), Some(1), "there is a database that knows clips: {refused:?}");
    lose_database(&closed.place).await;
    let dry = program(&closed.place, &["db", "rebuild", "--dry-run"]).await;
    assert_eq!(
        String::from_utf8_lossy(&dry.stdout),
        "3 clips would get their rows back\n",
        "{dry:?}"
    );
    let made = program(&closed.place, &["db", "rebuild"]).await;
    assert_eq!(String::from_utf8_lossy(&made.stdout), "3 clips got their rows back\n", "{made:?}");
    let house = closed.start(token).await;
    assert_eq!(house.app.running.deps.instance, instance, "the stores stay ours");
    let listed = house.get("/my-clips").await;
    assert_eq!(listed["total"], 3, "{listed:#}");
    for (id, bytes) in ids.iter().zip(&all) {
        assert_eq!(&house.download(id).await, bytes);
        assert_eq!(house.get(&format!("/clips/{id}")).await["visibility"], "private");
    }
    let used = house.get("/me/quota").await["usedBytes"].as_u64();
    assert_eq!(used, Some(all.iter().map(|bytes| bytes.len() as u64).sum()));
    went_well(&program(&house.app.place, &["clips", "verify"]).await);
    house.app.stop().await;
}

async fn what_owners_said_since_a_copy_is_kept(on: On) {
    let house = House::open(on).await;
    let (narrowed, open, unknown) =
        (house.capture().await, house.capture().await, house.capture().await);
    let say = async |id: &str, said: Value| {
        let path = format!("/clips/{id}");
        let (status, clip) = house.app.ask(Method::PATCH, &house.token, &path, Some(said)).await;
        assert_eq!(status, 200, "{clip}");
    };
    for id in [&narrowed, &open, &unknown] {
        say(id, json!({ "visibility": "public", "title": "before" })).await;
    }
    let copy = house.app.place.dir.join("copy");
    let copy = copy.to_str().expect("text");
    went_well(&program(&house.app.place, &["db", "backup", copy]).await);
    say(&narrowed, json!({ "visibility": "private", "title": "since" })).await;
    let instance = &house.app.running.deps;
    let record = livekit_replay::flow::clip_files::ClipFiles::of(
        instance,
        &livekit_replay::domain::id::UserId::new(USER),
        &livekit_replay::domain::id::ClipId::new(&unknown),
    );
    std::fs::remove_file(record.expect("its files").record).expect("removed");

    let (closed, token) = house.stop().await;
    let put_back = program(&closed.place, &["db", "restore", copy]).await;
    went_well(&put_back);
    let said = String::from_utf8_lossy(&put_back.stdout).into_owned();
    assert!(said.contains("2 clips were changed to what their records say"), "{said}");
    let house = closed.start(token).await;
    let shown = async |id: &str| {
        let clip = house.get(&format!("/clips/{id}")).await;
        (clip["visibility"].clone(), clip["title"].clone())
    };
    assert_eq!(shown(&narrowed).await, (json!("private"), json!("since")));
    assert_eq!(shown(&open).await, (json!("public"), json!("before")));
    assert_eq!(shown(&unknown).await, (json!("private"), json!("before")));
    house.app.stop().await;
}

async fn a_copy_that_was_cut_short_changes_nothing(on: On) {
    let house = House::open(on).await;
    let clip = house.capture().await;
    let copy = house.app.place.dir.join("copy");
    let path = copy.to_str().expect("text");
    went_well(&program(&house.app.place, &["db", "backup", path]).await);
    let whole = std::fs::metadata(&copy).expect("a copy").len();
    let file = std::fs::OpenOptions::new().write(true).open(&copy).expect("opened");
    file.set_len(whole - 64).expect("cut");
    let (closed, token) = house.stop().await;
    for how in [&["db", "restore", path, "--dry-run"][..], &["db", "restore", path]] {
        let refused = program(&closed.place, how).await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
    let house = closed.start(token).await;
    house.download(&clip).await;
    house.app.stop().await;
}

async fn a_clip_store_that_is_away_at_a_start_is_not_taken_for_an_empty_one(on: On) {
    let house = House::open(on).await;
    let clip = house.capture().await;
    let bytes = house.download(&clip).await;
    let (closed, token) = house.stop().await;
    let store = closed.place.dir.join("clips");
    let away = closed.place.dir.join("clips-away");
    std::fs::rename(&store, &away).expect("away");
    // what an unmounted file system leaves
    std::fs::create_dir(&store).expect("its place");

    let house = closed.start(token).await;
    let body = json!({ "sessionId": house.session, "durationSeconds": 2 });
    let asked = house.app.ask(Method::POST, &house.token, "/capture", Some(body)).await;
    assert_eq!(
        (asked.0, &asked.1["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("storage_unavailable")),
        "{}",
        asked.1
    );
    assert_eq!(house.readiness().await["checks"]["clipStore"], "fail");
    let verified = program(&house.app.place, &["clips", "verify", "--repair"]).await;
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert_eq!(house.get(&format!("/clips/{clip}")).await["status"], "ready");
    // an empty place for work does no harm
    std::fs::remove_dir(store.join(".work")).expect("nothing is being made there");
    std::fs::remove_dir(&store).expect("nothing was put there");

    std::fs::rename(&away, &store).expect("back");
    until("it is ready again", async || house.readiness().await["status"] == "ok").await;
    assert_eq!(house.download(&clip).await, bytes);
    house.capture().await;
    went_well(&program(&house.app.place, &["clips", "verify"]).await);
    house.app.stop().await;
}

/// The two newest changes of the schema are taken back, as an older release left it.
async fn make_older(place: &Place) {
    let how = Connect { url: &place.database_url, max_connections: 1, create: false };
    let db = Db::connect(how).await.expect("opened");
    schema::migrate_down(&db, Some(2)).await.expect("taken back");
    db.close().await.expect("closed");
}

/// A statement of the test's own.
async fn say(place: &Place, statement: &str) {
    let db = Database::connect(&place.database_url).await.expect("opened");
    db.execute_unprepared(statement).await.expect("done");
    db.close().await.expect("closed");
}

async fn a_copy_of_an_older_release_is_brought_up_and_a_strange_one_refused(on: On) {
    let house = House::open(on).await;
    let clip = house.capture().await;
    let (closed, token) = house.stop().await;
    let place = &closed.place;
    let at = |name: &str| place.dir.join(name).to_str().expect("text").to_owned();
    let (older, present, strange) = (at("older"), at("present"), at("strange"));
    let newer = at("newer");
    went_well(&program(place, &["db", "backup", &present]).await);
    say(place, "INSERT INTO schema_change (version, applied_at) VALUES ('m9999_of_tomorrow', 0)")
        .await;
    went_well(&program(place, &["db", "backup", &newer]).await);
    say(place, "DELETE FROM schema_change WHERE version = 'm9999_of_tomorrow'").await;
    make_older(place).await;
    went_well(&program(place, &["db", "backup", &older]).await);
    went_well(&program(place, &["db", "migrate"]).await);

    // a copy that is well formed, of another instance
    let marker = place.dir.join("clips/.livekit-replay.json");
    let own = std::fs::read_to_string(&marker).expect("a marker");
    std::fs::write(&marker, r#"{"instanceId":"0badcafe"}"#).expect("written");
    let other = program(place, &["db", "restore", &present, "--dry-run"]).await;
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    // nobody can say whose the store is: that is not the same as nobody's
    std::fs::remove_file(&marker).expect("removed");
    std::fs::create_dir(&marker).expect("in its place");
    let unreadable = program(place, &["db", "restore", &present, "--dry-run"]).await;
    assert_eq!(unreadable.status.code(), Some(1), "{unreadable:?}");
    std::fs::remove_dir(&marker).expect("removed");
    std::fs::write(&marker, own).expect("written");
    let newer = program(place, &["db", "restore", &newer, "--dry-run"]).await;
    assert_eq!(newer.status.code(), Some(1), "{newer:?}");
    assert!(String::from_utf8_lossy(&newer.stderr).contains("m9999_of_tomorrow"), "{newer:?}");
    // one that has nothing of ours in it
    std::fs::copy(&present, &strange).expect("copied");
    if on == On::Sqlite {
        let how = format!("sqlite://{strange}");
        let db = Database::connect(&how).await.expect("opened");
        db.execute_unprepared("DROP TABLE setting").await.expect("dropped");
        db.close().await.expect("closed");
        let refused = program(place, &["db", "restore", &strange]).await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }

    went_well(&program(place, &["db", "restore", &older, "--dry-run"]).await);
    went_well(&program(place, &["db", "restore", &older]).await);
    let entries = std::fs::read_dir(place.dir.join("data")).expect("the data directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let kept = names.filter(|name| name.as_ref().is_ok_and(|name| name.contains(".before-")));
    let beside = std::fs::read_dir(&place.dir).expect("the directory");
    let beside = beside.map(|entry| entry.expect("an entry").file_name().into_string());
    let beside = beside.filter(|name| name.as_ref().is_ok_and(|name| name.contains(".before-")));
    assert_eq!(kept.count() + beside.count(), 1, "what was there is kept");
    went_well(&program(place, &["db", "check"]).await);
    let house = closed.start(token).await;
    house.download(&clip).await;
    went_well(&program(&house.app.place, &["clips", "verify"]).await);
    house.app.stop().await;
}

/// Copied by hand, with the log beside it in which the newest changes are.
async fn a_file_copied_with_its_log_is_put_back_whole(on: On) {
    if on != On::Sqlite {
        return;
    }
    let house = House::open(on).await;
    let clip = house.capture().await;
    let place = &house.app.place;
    let copy = place.dir.join("by-hand");
    let file = Path::new(place.database_url.strip_prefix("sqlite://").expect("a file"));
    for (from, to) in wal_and_all(file).iter().zip(wal_and_all(&copy)).take(2) {
        assert!(std::fs::copy(from, to).expect("copied") > 0, "{}", from.display());
    }
    let (closed, token) = house.stop().await;
    lose_database(&closed.place).await;
    let restore = ["db", "restore", copy.to_str().expect("text")];
    went_well(&program(&closed.place, &restore).await);
    let house = closed.start(token).await;
    // no record in the clip store tells of a session
    let session = house.get(&format!("/sessions/{}", house.session)).await;
    assert_eq!(session["id"], house.session, "{session}");
    assert_eq!(house.get(&format!("/clips/{clip}")).await["status"], "ready");
    house.app.stop().await;
}

/// The answer is 200 and says how the pass ended; who only looks at the exit code is told as well.
async fn a_pass_that_failed_is_a_command_that_failed(on: On) {
    let house = House::open(on).await;
    let place = &house.app.place;
    let (there, away) = (place.dir.join("buffer"), place.dir.join("away"));
    let commands: [&[&str]; 2] =
        [&["sessions", "reap"], &["maintenance", "run", "segment-cleanup"]];
    std::fs::rename(&there, &away).expect("unmounted");
    for command in commands {
        let failed = program(place, command).await;
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let told = String::from_utf8_lossy(&failed.stdout);
        assert!(told.contains("storage_unavailable"), "{failed:?}");
    }
    std::fs::rename(&away, &there).expect("mounted");
    for command in commands {
        went_well(&program(place, command).await);
    }
    house.app.stop().await;
}
