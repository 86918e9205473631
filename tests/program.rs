//! The program around the slices: one service per place, stores that know whose they are, commands through the socket
//! and without a service, and a stop that leaves nothing running.

mod support;

use std::{os::unix::fs::PermissionsExt, path::Path, process::Output, sync::Arc, time::Duration};

use livekit_replay::{
    clock::ShiftedClock,
    simulator::{Share, SimConfig, Simulator},
};
use reqwest::Method;
use serde_json::{Value, json};
use support::{On, Place, TestApp};

on_both_engines!(
    commands_ask_the_running_service_and_the_database_without_one,
    a_person_is_exported_from_a_running_service_and_erased_without_one,
    a_second_service_in_the_same_place_is_refused_with_the_first_ones_pid,
    a_store_of_another_instance_is_refused_with_exit_code_two,
    a_stopped_service_lets_go_of_everything_and_starts_again_as_the_same_instance,
    a_start_with_a_key_is_made_once_and_a_pause_of_the_service_ends_no_recording,
);

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

fn segments_on_disk(place: &Place) -> usize {
    fn count(directory: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .map(|path| {
                if path.is_dir() {
                    count(&path)
                } else {
                    usize::from(path.extension().is_some_and(|extension| extension == "ts"))
                }
            })
            .sum()
    }
    count(&place.dir.join("buffer"))
}

async fn a_start_with_a_key_is_made_once_and_a_pause_of_the_service_ends_no_recording(on: On) {
    let app = TestApp::start(on).await;
    let share = Share { width: 320, height: 180, ..Share::default() };
    let _share = app.sim.publish_share("r1", "ann", share).expect("shared");
    let ann = app.token_for("ann", &[("c1", "moderator")]);
    let start = async |body: Value| {
        let url = format!("{}/livekit-replay/start", app.running.url());
        let request = app.http.post(url).bearer_auth(&ann).header("idempotency-key", "once");
        let answer = request.json(&body).send().await.expect("an answer");
        let repeated = answer.headers().contains_key("idempotency-replayed");
        (answer.status().as_u16(), repeated, answer.json::<Value>().await.expect("JSON"))
    };
    let body = json!({ "roomName": "r1", "communityId": "c1" });
    let (first, second) = tokio::join!(start(body.clone()), start(body));
    assert_eq!((first.0, second.0), (201, 201), "{first:?} {second:?}");
    assert_eq!(first.2, second.2, "both have the one answer");
    assert!(first.1 != second.1, "one of them is the repeat");
    let (status, _, mismatch) = start(json!({ "roomName": "r2" })).await;
    assert_eq!((status, &mismatch["code"]), (422, &json!("idempotency_mismatch")));
    let session = format!("/sessions/{}", first.2["id"].as_str().expect("an id"));
    until("segments are indexed", async || {
        let (_, shown) = app.ask(Method::GET, &ann, &session, None).await;
        shown["buffer"]["segments"].as_u64() >= Some(2)
    })
    .await;

    let TestApp { running, sim, place, clock, http } = app;
    running.stop().await.expect("stops");
    let before = segments_on_disk(&place);
    until("the egress goes on alone", async || segments_on_disk(&place) > before).await;
    // as if the service had been away for longer than an egress may be silent; so little that the clock was not set
    clock.advance_micros(30_000_000);
    let running =
        support::start(place.config(&sim, &[]), Arc::clone(&clock)).await.expect("starts");
    let app = TestApp { running, sim, place, clock, http };
    let ann = app.token_for("ann", &[("c1", "moderator")]);
    until("what came meanwhile is indexed", async || {
        let (_, shown) = app.ask(Method::GET, &ann, &session, None).await;
        shown["buffer"]["segments"].as_u64() > u64::try_from(before).ok()
    })
    .await;
    let (_, shown) = app.ask(Method::GET, &ann, &session, None).await;
    assert_eq!((&shown["epoch"], &shown["status"]), (&json!(1), &json!("active")), "{shown}");
    assert_eq!(app.sim.egresses().len(), 1, "nobody replaced an egress that works");
    app.stop().await;
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
        .env("JWT_SECRET", "a-secret-that-tests-alone-know-of")
        .current_dir(&place.dir)
        .kill_on_drop(true);
    command.output().await.expect("the program runs")
}

fn json_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn commands_ask_the_running_service_and_the_database_without_one(on: On) {
    let app = TestApp::start(on).await;
    let set = ["community", "set", "a/b c", "--max-concurrent", "3", "--json"];
    assert_eq!(json_of(&program(&app.place, &set).await)["maxConcurrent"], 3);
    let granted = program(&app.place, &["permissions", "grant", "ann", "a/b c", "moderator"]).await;
    assert!(granted.status.success(), "{granted:?}");
    let socket = app.place.dir.join("data/control.sock");
    assert_eq!(std::fs::metadata(&socket).expect("a socket").permissions().mode() & 0o077, 0);
    // the running service decides by the new role at once
    let ann = app.token_for("ann", &[]);
    let path = "/me/permissions?communityId=a%2Fb%20c";
    let (_, seen) = app.ask(Method::GET, &ann, path, None).await;
    assert!(allowed(&seen).contains(&"ENABLE_REPLAY_BUFFER".to_owned()), "{seen}");

    let TestApp { running, sim, place, .. } = app;
    running.stop().await.expect("stops");
    sim.shutdown().await;
    assert!(!socket.exists());
    let shown = json_of(&program(&place, &["community", "get", "a/b c", "--json"]).await);
    assert_eq!(shown["maxConcurrent"], 3);
    let check = ["permissions", "check", "ann", "a/b c", "--json"];
    assert_eq!(allowed(&json_of(&program(&place, &check).await)), allowed(&seen));
    let one = ["permissions", "check", "ann", "a/b c", "MANAGE_REPLAY_LIMITS", "--json"];
    let one = json_of(&program(&place, &one).await);
    assert_eq!((&one["name"], &one["allowed"]), (&json!("MANAGE_REPLAY_LIMITS"), &json!(false)));
    let because = one["because"].as_str().expect("a reason");
    assert!(because.ends_with("It would take one of these: admin."), "{because}");
    let none = program(&place, &["permissions", "check", "ann", "a/b c", "FLY"]).await;
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    let unknown = program(&place, &["clips", "show", "nobody's"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("not_found"), "{unknown:?}");
    place.remove().await;
}

async fn a_person_is_exported_from_a_running_service_and_erased_without_one(on: On) {
    let app = TestApp::start(on).await;
    let share = Share { width: 160, height: 90, ..Share::default() };
    let _share = app.sim.publish_share("r1", "ann/7", share).expect("shared");
    let ann = app.token_for("ann/7", &[("c1", "moderator")]);
    let start = json!({ "roomName": "r1", "communityId": "c1" });
    let (status, session) = app.ask(Method::POST, &ann, "/start", Some(start)).await;
    assert_eq!(status, 201, "{session}");
    let id = session["id"].as_str().expect("an id").to_owned();
    until("something is recorded", async || {
        let (_, shown) = app.ask(Method::GET, &ann, &format!("/sessions/{id}"), None).await;
        shown["buffer"]["durationSeconds"].as_f64() >= Some(3.0)
    })
    .await;
    let body = json!({ "sessionId": id, "durationSeconds": 2 });
    let (_, clip) = app.ask(Method::POST, &ann, "/capture", Some(body)).await;
    let path = format!("/clips/{}", clip["id"].as_str().expect("an id"));
    until("the clip is there", async || {
        app.ask(Method::GET, &ann, &path, None).await.1["status"] == "ready"
    })
    .await;
    // who asks for the poster waits for it
    let poster = app.ask(Method::GET, &ann, &format!("{path}/thumbnail.jpg"), None).await;
    assert_eq!(poster.0, 200);

    let out = app.place.dir.join("export");
    let export = ["users", "export", "ann/7", "--out", out.to_str().expect("text"), "--json"];
    let exported = json_of(&program(&app.place, &export).await);
    assert_eq!((&exported["files"], &exported["missingFiles"]), (&json!(3), &json!([])));
    let data = std::fs::read(out.join("data.json")).expect("the rows");
    let data: Value = serde_json::from_slice(&data).expect("JSON");
    assert_eq!(data["rows"]["session"][0]["id"], json!(id));
    let video = format!("{}.mp4", clip["id"].as_str().expect("an id"));
    let bytes = std::fs::metadata(out.join("clips").join(&video)).expect("the clip").len();
    assert_eq!(data["rows"]["clip"][0]["size_bytes"], json!(bytes));
    assert_eq!(program(&app.place, &export).await.status.code(), Some(1), "over what is there");
    assert_eq!(std::fs::metadata(&out).expect("there").permissions().mode() & 0o077, 0);
    program(&app.place, &["quota", "set", "ann/7", "1000000"]).await;
    let log = json_of(&program(&app.place, &["audit", "list", "--json"]).await);
    let newest = &log["entries"][0];
    assert_eq!(
        (&newest["action"], &newest["subject"]["userId"]),
        (&json!("quota.set"), &json!("ann/7"))
    );
    let own = rustix::process::getuid().as_raw();
    assert_eq!(newest["actor"], json!({ "kind": "control_socket", "uid": own }));
    let usage = json_of(&program(&app.place, &["usage", "--json"]).await);
    assert_eq!(
        (&usage["users"][0]["userId"], &usage["users"][0]["clips"]),
        (&json!("ann/7"), &json!(1))
    );
    let table = program(&app.place, &["audit", "list", "--action", "user.export"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("user.export"), "{table:?}");

    // the recording goes on without a service, and is ended by who erases
    let TestApp { running, sim, place, .. } = app;
    running.stop().await.expect("stops");
    let active = || sim.egresses().iter().filter(|one| one.status == "EGRESS_ACTIVE").count();
    assert_eq!(active(), 1);
    let livekit = [
        format!("storage.buffer={}", place.dir.join("buffer").display()),
        format!("storage.clips={}", place.dir.join("clips").display()),
        format!("livekit.url={}", sim.url()),
        format!("livekit.api_key={}", sim.api_key()),
        format!("livekit.api_secret={}", sim.api_secret()),
    ];
    let erase = async |more: &[&str]| {
        let mut args = vec!["users", "erase", "ann/7", "--json"];
        args.extend(livekit.iter().flat_map(|setting| ["--set", setting.as_str()]));
        args.extend(more);
        json_of(&program(&place, &args).await)
    };
    let dry = erase(&["--dry-run"]).await;
    assert_eq!(
        (&dry["dryRun"], &dry["clips"], &dry["stopped"]),
        (&json!(true), &json!(1), &json!(1))
    );
    assert_eq!(active(), 1);
    let erased = erase(&[]).await;
    assert_eq!((&erased["verified"], &erased["clips"]), (&json!(true), &json!(1)), "{erased}");
    assert_eq!(active(), 0);
    assert_eq!(segments_on_disk(&place), 0);
    let log = json_of(&program(&place, &["audit", "list", "--json"]).await);
    let newest = &log["entries"][0];
    assert_eq!(newest["action"], "user.erased");
    assert_eq!(newest["actor"], json!({ "kind": "command_line", "uid": own }));
    assert!(!log.to_string().contains("ann/7"), "{log:#}");
    sim.shutdown().await;
    place.remove().await;
}

fn allowed(answer: &Value) -> Vec<String> {
    let list = answer["permissions"].as_array().expect("permissions");
    let names = list.iter().filter(|one| one["allowed"] == json!(true));
    names.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

async fn a_second_service_in_the_same_place_is_refused_with_the_first_ones_pid(on: On) {
    let app = TestApp::start(on).await;
    let config = app.place.config(&app.sim, &[]);
    let second = support::start(config, Arc::new(ShiftedClock::default())).await;
    let failure = second.expect_err("refused");
    assert!(failure.to_string().contains(&format!("pid {}", std::process::id())), "{failure}");
    assert_eq!(failure.exit_code(), 1);
    // the same when the port is what the second one meets first
    let port = app.running.addr.port().to_string();
    let flags = ["livekit.url=http://127.0.0.1:1", "livekit.api_key=k", "livekit.api_secret=s"];
    let mut args = vec!["serve", "--port", &port];
    args.extend(flags.iter().flat_map(|flag| ["--set", flag]));
    let second = program(&app.place, &args).await;
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    app.stop().await;
}

async fn a_store_of_another_instance_is_refused_with_exit_code_two(on: On) {
    let place = Place::new(on).await;
    let sim = Simulator::start(SimConfig::default()).await.expect("the simulator starts");
    let clips = place.dir.join("clips");
    std::fs::create_dir(&clips).expect("made");
    std::fs::write(clips.join(".livekit-replay.json"), r#"{"instanceId":"00000000"}"#)
        .expect("written");
    let config = place.config(&sim, &[]);
    let failure = support::start(config, Arc::default()).await.expect_err("refused");
    assert_eq!(failure.exit_code(), 2);
    assert!(failure.to_string().contains("instance 00000000"), "{failure}");
    sim.shutdown().await;
    place.remove().await;
}

async fn a_stopped_service_lets_go_of_everything_and_starts_again_as_the_same_instance(on: On) {
    let app = TestApp::start(on).await;
    let first = app.running.deps.instance.clone();
    let TestApp { running, sim, place, clock, .. } = app;
    let address = running.addr;
    running.stop().await.expect("stops");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    let again = support::start(place.config(&sim, &[]), clock).await.expect("starts again");
    assert_eq!(again.deps.instance, first);
    again.stop().await.expect("stops");
    sim.shutdown().await;
    place.remove().await;
}

#[tokio::test]
async fn a_command_makes_no_database_and_names_the_place_it_looked_at() {
    let place = Place::new(On::Sqlite).await;
    let output = program(&place, &["sessions", "list"]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&place.dir.join("replay.db").display().to_string()), "{text}");
    assert!(!place.dir.join("replay.db").exists());
    assert!(program(&place, &["db", "migrate"]).await.status.success());
    let list = json_of(&program(&place, &["sessions", "list", "--json"]).await);
    assert_eq!(list["total"], 0);
    place.remove().await;
}

#[tokio::test]
async fn usage_and_settings_end_with_two_and_help_with_zero() {
    let place = Place::new(On::Sqlite).await;
    assert_eq!(program(&place, &["no-such-command"]).await.status.code(), Some(2));
    assert_eq!(program(&place, &["--version"]).await.status.code(), Some(0));
    let output = program(&place, &["config", "validate"]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 3, "LiveKit's three settings are missing: {text}");
    let document = json_of(&program(&place, &["openapi"]).await);
    assert!(document["paths"]["/livekit-replay/start"]["post"].is_object(), "{document}");
    let token = json_of(&program(&place, &["token", "mint", "ann", "--json"]).await);
    assert_eq!(token["token"].as_str().expect("a token").split('.').count(), 3);
    place.remove().await;
}
