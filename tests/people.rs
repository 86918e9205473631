//! A person as a whole: what administrators do to others is written down, what is kept of somebody can be taken along,
//! and after an erasure a search of every table and of every file finds nothing of him, and all of everybody else.

mod harness;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{App, Engine, Loops, Setup, dump, now_ms, on_both_engines};
use livekit_replay::{
    domain::{
        id::{ClipId, UserId},
        keys,
    },
    flow,
    simulator::{CallAction, CallFault, Media, Share},
    store,
};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

on_both_engines!(
    what_managers_do_to_others_is_written_down,
    an_erased_person_is_found_nowhere_and_others_are_untouched,
    an_erasure_waits_for_no_recording_that_never_ends,
    what_is_kept_of_a_person_holds_nothing_of_others,
    a_person_with_a_common_name_can_be_erased,
    use_is_added_up_by_user_and_community,
);

const ANN: &str = "ann-7c1d\"erase";
const ANN_PLAIN: &str = "ann-7c1d";
const BOB: &str = "bob";
const TINY: Share = Share { width: 160, height: 90, audio: false, media: Media::Live };
const SILENT: Share = Share { width: 160, height: 90, audio: false, media: Media::None };

fn boss(app: &App) -> String {
    app.token_of("boss", &json!({ "red": ["admin"] }), &[])
}

async fn delete_as(app: &App, token: &str, path: &str) -> (u16, Value) {
    let sent = app.http.delete(format!("{}{path}", app.base)).bearer_auth(token);
    let answer = sent.timeout(Duration::from_secs(120)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// The newest line of that kind of act.
async fn line(app: &App, action: &str) -> Value {
    let path = format!("/admin/audit?action={action}");
    let (status, log) = app.get_as(&app.admin(), &path).await;
    assert_eq!(status, 200, "{log}");
    log["entries"][0].clone()
}

async fn lines(app: &App) -> u64 {
    let (_, log) = app.get_as(&app.admin(), "/admin/audit").await;
    log["total"].as_u64().expect("a number")
}

async fn what_managers_do_to_others_is_written_down(engine: Engine) {
    let setup = Setup::on(engine).loops(Loops::NoJobs);
    let app = setup.change(|config| config.buffer.no_segment = Duration::from_secs(3600));
    let app = app.start("written").await;
    app.sim.publish_share("red-room", "ann", TINY).expect("a share");
    app.sim.publish_share("red-hall", "dave", SILENT).expect("a share");
    let boss = boss(&app);
    let about = |line: &Value, actor: &str, subject: &str| {
        assert_eq!(line["outcome"], "done", "{line:#}");
        assert_eq!(line["actor"]["userId"], actor, "{line:#}");
        assert_eq!(line["subject"]["userId"], subject, "{line:#}");
        assert_eq!(line["communityId"], "red", "{line:#}");
        assert!(line["requestId"].is_string(), "{line:#}");
    };

    let body = json!({ "roomName": "red-room", "participantIdentity": "ann" });
    let (status, session) = app.post_as(&boss, "/start", body).await;
    assert_eq!(status, 201, "{session:#}");
    let session = session["id"].as_str().expect("an id").to_owned();
    let started = line(&app, "session.start").await;
    about(&started, "boss", "ann");
    assert_eq!(started["sessionId"], json!(session));

    app.wait_for_buffer("ann", &session, 2.0).await;
    let capture = json!({ "sessionId": session, "durationSeconds": 2 });
    let (status, clip) = app.post_async("ann", "/capture", capture).await;
    assert_eq!(status, 202, "{clip:#}");
    let clip = clip["id"].as_str().expect("an id").to_owned();
    // a job that was given up while its clip was left
    let give_up = format!("UPDATE job SET state = 'failed' WHERE clip_id = '{clip}'");
    app.deps.db.conn().execute_unprepared(&give_up).await.expect("changed");
    let id = ClipId::new(clip.as_str());
    let job = store::job::find_newest_of_clip(app.deps.db.conn(), &id).await.expect("a query");
    let job = job.expect("a job").id;
    let (status, answer) = app.post_as(&boss, &format!("/admin/jobs/{job}/retry"), json!({})).await;
    assert_eq!(status, 200, "{answer:#}");
    let retried = line(&app, "job.retry").await;
    about(&retried, "boss", "ann");
    assert_eq!((&retried["clipId"], &retried["jobId"]), (&json!(clip), &json!(job.as_str())));
    assert_eq!(retried["before"], json!({ "clipStatus": "processing", "attempts": 0 }));

    // what somebody may not, and what he does to his own things
    let before = lines(&app).await;
    let refused = async |path: &str| delete_as(&app, &app.token("mallory"), path).await.0;
    assert_eq!(refused(&format!("/clips/{clip}")).await, 404);
    assert_eq!(refused(&format!("/sessions/{session}")).await, 404);
    let stop = app.post("mallory", &format!("/stop/{session}"), json!({})).await;
    assert_eq!(stop.0, 404);
    let body = json!({ "roomName": "red-room", "participantIdentity": "ann" });
    let (status, answer) = app.post("mallory", "/start", body).await;
    assert_eq!((status, &answer["code"]), (403, &json!("permission_denied")));
    assert_eq!(refused(&format!("/clips/{}", ClipId::generate())).await, 404);
    assert_eq!(lines(&app).await, before + 4, "one for each but what is not there");
    for action in ["clip.delete", "session.discard", "session.stop"] {
        let line = line(&app, action).await;
        assert_eq!(line["outcome"], "refused", "{line:#}");
        assert_eq!(line["actor"]["userId"], "mallory");
        assert_eq!(
            (&line["subject"]["userId"], &line["communityId"]),
            (&json!("ann"), &json!("red"))
        );
    }

    let (status, _) = delete_as(&app, &boss, &format!("/clips/{clip}")).await;
    assert_eq!(status, 200);
    let deleted = line(&app, "clip.delete").await;
    about(&deleted, "boss", "ann");
    let was = json!({ "status": "processing", "visibility": "private", "sizeBytes": 0 });
    assert_eq!((&deleted["clipId"], &deleted["before"]), (&json!(clip), &was));
    let path = format!("/admin/sessions/{session}/stop");
    assert_eq!(app.post_as(&boss, &path, json!({})).await.0, 200);
    let stopped = line(&app, "session.stop").await;
    about(&stopped, "boss", "ann");
    assert_eq!(stopped["after"], json!({ "endReason": "stopped_by_manager" }));
    for again in [false, true] {
        let before = lines(&app).await;
        assert_eq!(delete_as(&app, &boss, &format!("/sessions/{session}")).await.0, 200);
        about(&line(&app, "session.discard").await, "boss", "ann");
        assert_eq!(lines(&app).await, before + u64::from(!again), "what was gone already");
    }

    let dave = app.start_session("dave", "red-hall").await;
    assert_eq!(app.post_as(&app.admin(), "/admin/sessions/stop-all", json!({})).await.0, 200);
    about(&line(&app, "session.stop").await, "root", "dave");
    assert_eq!(line(&app, "session.stop_all").await["after"], json!({ "running": 1 }));
    let before = lines(&app).await;
    assert_eq!(delete_as(&app, &app.token("dave"), &format!("/sessions/{dave}")).await.0, 200);
    assert_eq!(lines(&app).await, before, "his own");
    app.stop().await;
}

/// Every file below `root` with its bytes.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                // an empty directory has a name, too
                found.insert(path.join("."), Vec::new());
                open.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Rows and files in which one of these words stands, and the words of `but` do not.
async fn traces(app: &App, words: &[String], hashes: &[blake3::Hash]) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in dump(&app.deps.db, &[]).await {
        for row in rows {
            found.extend(
                words
                    .iter()
                    .filter(|word| row.contains(*word))
                    .map(|word| format!("{table}: {word} in {row}")),
            );
        }
    }
    for store in ["buffer", "clips"] {
        for (path, bytes) in files(&app.dir.join(store)) {
            let name = path.display().to_string();
            let named = words.iter().any(|word| name.contains(word) || holds(&bytes, word));
            let same = !bytes.is_empty() && hashes.contains(&blake3::hash(&bytes));
            if named || same {
                found.push(name);
            }
        }
    }
    found
}

/// What is Bob's: rows that name him or something of his, and files under his key.
async fn of_bob(app: &App, words: &[String]) -> (Vec<String>, BTreeMap<PathBuf, Vec<u8>>) {
    let tables = dump(&app.deps.db, &["rate_window"]).await;
    let mut rows: Vec<String> = Vec::new();
    for (table, lines) in tables {
        let named = lines.into_iter().filter(|row| words.iter().any(|word| row.contains(word)));
        rows.extend(named.map(|row| format!("{table}: {row}")));
    }
    let key = keys::user_key(&UserId::new(BOB));
    let mut own = files(&app.dir.join("clips"));
    own.extend(files(&app.dir.join("buffer")));
    own.retain(|path, _| path.display().to_string().contains(&key));
    (rows, own)
}

async fn capture(app: &App, user: &str, body: Value) -> Value {
    let (status, clip) = app.post_waiting(user, "/capture", body).await;
    assert_eq!(status, 201, "{clip:#}");
    // the poster follows by itself; who asks waits for it
    let poster = clip["thumbnailUrl"].as_str().expect("a link");
    assert!(!app.download(poster).await.is_empty());
    clip
}

fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

async fn an_erased_person_is_found_nowhere_and_others_are_untouched(engine: Engine) {
    let app = Setup::on(engine).start("erase").await;
    for (room, user) in [("red-room", ANN), ("red-hall", BOB), ("red-attic", "dave")] {
        app.sim.publish_share(room, user, TINY).expect("a share");
    }
    // Bob has a clip and comes to rest; Ann, who manages, starts Dave's
    let bobs = app.start_session(BOB, "red-hall").await;
    app.wait_for_buffer(BOB, &bobs, 3.0).await;
    let body = json!({ "sessionId": bobs, "durationSeconds": 2, "title": "of Bob" });
    let bobs_clip = id(&capture(&app, BOB, body).await);
    app.post(BOB, "/stop", json!({})).await;
    app.until("Bob's session is over", async || {
        app.get(BOB, &format!("/sessions/{bobs}")).await.1["status"] == "stopped"
    })
    .await;
    let ann_manages = app.token_of(ANN, &json!({ "red": ["admin"] }), &[]);
    let body = json!({ "roomName": "red-attic", "participantIdentity": "dave" });
    let (status, daves) = app.post_as(&ann_manages, "/start", body).await;
    assert_eq!(status, 201, "{daves:#}");
    assert_eq!(daves["startedBy"], ANN);

    // the manager's start of Ann's is kept with what it answered, under the manager's key
    let start = json!({ "roomName": "red-room", "participantIdentity": ANN });
    let sent = app.http.post(format!("{}/start", app.base)).bearer_auth(boss(&app)).json(&start);
    let anns = sent.header("Idempotency-Key", "once").send().await.expect("an answer");
    assert_eq!(anns.status().as_u16(), 201);
    let anns = id(&anns.json().await.expect("JSON"));
    app.wait_for_buffer(ANN, &anns, 4.0).await;
    let body = json!({ "sessionId": anns, "durationSeconds": 3, "title": "hers" });
    let clip = capture(&app, ANN, body).await;
    let trim = json!({ "startSeconds": 0.5, "endSeconds": 1.5 });
    let (status, trimmed) =
        app.post_waiting(ANN, &format!("/clips/{}/trim", id(&clip)), trim).await;
    assert_eq!(status, 201, "{trimmed:#}");
    let (_, shown) = app.get(ANN, &format!("/sessions/{anns}")).await;
    let preview = shown["previewUrl"].as_str().expect("a link").to_owned();
    assert!(!app.download(&preview).await.is_empty());
    let (status, _) = app
        .patch_as(&app.admin(), "/admin/users/bob/quota", json!({ "quotaBytes": 1_000_000_000 }))
        .await;
    assert_eq!(status, 200);
    let role = format!("{}/admin/community/red/members/{}/roles/moderator", app.base, percent(ANN));
    let granted = app.http.put(role).bearer_auth(app.admin()).send().await.expect("an answer");
    assert_eq!(granted.status().as_u16(), 204);
    // one that is being made while she goes: its window ends in half a minute
    let ends = now_ms() + 30_000;
    let moment =
        |ms: i64| livekit_replay::domain::time::Timestamp::from_micros(ms * 1000).to_rfc3339();
    let window = json!({ "sessionId": anns, "from": moment(ends - 31_000), "to": moment(ends) });
    let (status, waiting) = app.post_async(ANN, "/capture", window).await;
    assert_eq!(status, 202, "{waiting:#}");
    // what a wrong turn left in the store
    let key = keys::user_key(&UserId::new(ANN));
    let clips = app.dir.join("clips");
    std::fs::create_dir_all(clips.join("quarantine")).expect("made");
    std::fs::write(clips.join(format!("quarantine/17~{key}~x.mp4")), b"odd").expect("written");
    std::fs::write(clips.join(&key).join("stray.bin"), b"odd").expect("written");

    let named = |name: &str| files(&clips).into_iter().find(|(path, _)| path.ends_with(name));
    let hers: Vec<blake3::Hash> = [id(&clip), id(&trimmed)]
        .iter()
        .map(|clip| blake3::hash(&named(&format!("{clip}.mp4")).expect("her file").1))
        .collect();
    // the part of her name that no engine and no JSON writes in another way; her key begins with it, too
    let mut words = vec![ANN_PLAIN.to_owned(), key];
    words.extend(hers.iter().map(|hash| hash.to_hex().to_string()));
    assert!(traces(&app, &words, &hers).await.len() > 15, "there is something to erase");
    let bobs_words = [format!("{BOB}\""), format!("'{BOB}'"), bobs, bobs_clip];
    let before = of_bob(&app, &bobs_words).await;
    assert!(before.0.len() >= 3 && before.1.len() >= 4, "{before:?}");

    let path = format!("/admin/users/{}", percent(ANN));
    let (status, dry) = delete_as(&app, &app.admin(), &format!("{path}?dryRun=true")).await;
    assert_eq!((status, &dry["dryRun"]), (200, &json!(true)), "{dry:#}");
    assert_eq!(
        (&dry["sessions"], &dry["stopped"], &dry["clips"]),
        (&json!(1), &json!(1), &json!(3))
    );
    assert_eq!(app.get(ANN, &format!("/sessions/{anns}")).await.1["status"], "active");
    let (status, refusal) = delete_as(&app, &boss(&app), &path).await;
    assert_eq!((status, &refusal["code"]), (403, &json!("permission_denied")));

    let (status, erased) = delete_as(&app, &app.admin(), &path).await;
    assert_eq!((status, &erased["verified"]), (200, &json!(true)), "{erased:#}");
    println!("erased: {erased}");
    assert_eq!(
        (&erased["sessions"], &erased["stopped"], &erased["clips"]),
        (&json!(1), &json!(1), &json!(3))
    );
    assert_eq!(traces(&app, &words, &hers).await, Vec::<String>::new());
    assert_eq!(of_bob(&app, &bobs_words).await, before);
    let running = app.sim.egresses().into_iter().filter(|egress| egress.status == "EGRESS_ACTIVE");
    assert_eq!(running.count(), 1, "Dave's alone");
    // Dave's goes on, and says no more who started it
    let (_, shown) = app.get("dave", &format!("/sessions/{}", id(&daves))).await;
    assert_eq!((&shown["startedBy"], &shown["holds_place"]), (&json!(""), &Value::Null));
    let (_, config) = app.get_as(&app.admin(), "/admin/community/red/config").await;
    assert_eq!(config["activeSessions"], 1, "her place is free");

    // nor is she to be read in the database's own files
    if app.deps.db.engine() == store::Engine::Sqlite {
        app.until("the files are clean", async || {
            // a reader may have been in the way
            app.deps.db.shed_deleted().await.expect("written back");
            let own = files(&app.dir)
                .into_iter()
                .filter(|(path, _)| path.display().to_string().contains("db.sqlite"));
            own.into_iter().all(|(_, bytes)| !words.iter().any(|word| holds(&bytes, word)))
        })
        .await;
    }

    // that it happened, on whom not
    let begun = line(&app, "user.erase").await;
    let (_, log) = app.get_as(&app.admin(), "/admin/audit?limit=200").await;
    assert_eq!((&begun["outcome"], &begun["subject"]["userId"]), (&json!("done"), &Value::Null));
    let refused = line(&app, "user.erase&outcome=refused").await;
    assert_eq!(refused["actor"]["userId"], "boss", "{log:#}");
    let ended = line(&app, "user.erased").await;
    assert_eq!(
        (&ended["actor"]["userId"], &ended["subject"]["userId"]),
        (&json!("root"), &Value::Null)
    );
    assert_eq!(ended["after"]["clips"], 3, "{ended:#}");
    let hers = &ended["subject"]["pseudonym"];
    let about = log["entries"].as_array().expect("lines").iter();
    let about = about.filter(|line| {
        line["subject"]["pseudonym"] == *hers || line["actor"]["pseudonym"] == *hers
    });
    assert!(about.count() >= 4, "her lines still belong together: {log:#}");

    // again finds nothing; she may come back and is somebody new
    let (status, again) = delete_as(&app, &app.admin(), &path).await;
    assert_eq!((status, &again["clips"], &again["sessions"]), (200, &json!(0), &json!(0)));
    assert_eq!(traces(&app, &words, &[]).await, Vec::<String>::new());
    app.start_session(ANN, "red-room").await;
    app.stop().await;
}

fn percent(text: &str) -> String {
    text.replace('"', "%22")
}

/// LiveKit does not answer, and a recording is said to run for ever: she goes all the same.
async fn an_erasure_waits_for_no_recording_that_never_ends(engine: Engine) {
    let app = Setup::on(engine).start("deaf").await;
    app.sim.publish_share("red-room", "ann", TINY).expect("a share");
    let session = app.start_session("ann", "red-room").await;
    app.wait_for_buffer("ann", &session, 2.0).await;
    app.sim.add_call_fault(CallFault {
        method: "StopEgress".to_owned(),
        action: CallAction::Error { code: "unavailable".to_owned(), msg: "deaf".to_owned() },
        times: None,
        for_ms: None,
    });
    let (status, answer) = delete_as(&app, &app.admin(), "/admin/users/ann").await;
    println!("deaf: {status} {answer}");
    // either nothing came any more, or the answer says where something still does
    let told = answer["left"].as_array().is_some_and(|left| !left.is_empty());
    assert!((status == 200 && answer["verified"] == true) || (status == 503 && told), "{answer:#}");
    assert_eq!(app.get("ann", &format!("/sessions/{session}")).await.0, 404);
    app.sim.clear_call_faults();
    app.until("LiveKit was told at last", async || {
        flow::reconcile::run(&app.deps).await.is_ok_and(|counts| counts.orphans_stopped == 0)
            && app.sim.egresses().iter().all(|egress| egress.status == "EGRESS_COMPLETE")
    })
    .await;
    let (status, answer) = delete_as(&app, &app.admin(), "/admin/users/ann").await;
    assert_eq!((status, &answer["verified"]), (200, &json!(true)), "{answer:#}");
    let words = [keys::user_key(&UserId::new("ann")), "'ann'".to_owned(), "(ann,".to_owned()];
    assert_eq!(traces(&app, &words, &[]).await, Vec::<String>::new());
    app.stop().await;
}

async fn what_is_kept_of_a_person_holds_nothing_of_others(engine: Engine) {
    let app = Setup::on(engine).start("export").await;
    app.sim.publish_share("red-room", ANN, TINY).expect("a share");
    let start = json!({ "roomName": "red-room", "participantIdentity": ANN });
    let (status, session) = app.post_as(&boss(&app), "/start", start).await;
    assert_eq!(status, 201, "{session:#}");
    app.wait_for_buffer(ANN, &id(&session), 3.0).await;
    let body = json!({ "sessionId": id(&session), "durationSeconds": 2, "title": "hers" });
    let clip = capture(&app, ANN, body).await;
    let path = format!("/admin/users/{}/export", percent(ANN));
    let (status, kept) = app.get_as(&app.admin(), &path).await;
    assert_eq!((status, &kept["userId"]), (200, &json!(ANN)));
    let rows = |table: &str| kept["rows"][table].as_array().cloned().unwrap_or_default();
    assert_eq!(rows("clip").len(), 1);
    assert_eq!(
        (&rows("clip")[0]["title"], &rows("clip")[0]["user_id"]),
        (&json!("hers"), &json!(ANN))
    );
    assert_eq!(rows("session").len(), 1);
    assert_eq!(rows("session")[0]["started_by"], Value::Null, "that was somebody else");
    assert!(!rows("segment").is_empty() && rows("epoch").len() == 1 && !rows("job").is_empty());
    assert_eq!(rows("user_account").len(), 1);
    let text = kept.to_string();
    assert!(!text.contains("boss") && !text.contains("root"), "{kept:#}");
    let actions: Vec<_> = kept["audit"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["action"].clone())
        .collect();
    assert_eq!(actions, ["user.export", "session.start"]);
    let names: Vec<_> = kept["files"].as_array().expect("files").iter().collect();
    assert_eq!(names.len(), 3, "{kept:#}");
    for file in names {
        let path = app.dir.join("clips").join(file["path"].as_str().expect("a path"));
        assert!(path.is_file(), "{file}");
        assert!(file["name"].as_str().expect("a name").starts_with(&id(&clip)));
    }
    assert_eq!(line(&app, "user.export").await["subject"]["userId"], ANN);
    app.stop().await;
}

/// Somebody may be called like a word of ours, or like a room.
async fn a_person_with_a_common_name_can_be_erased(engine: Engine) {
    let app = Setup::on(engine).start("names").await;
    app.sim.publish_share("red-room", "bob", TINY).expect("a share");
    let session = app.start_session("bob", "red-room").await;
    app.wait_for_buffer("bob", &session, 2.0).await;
    let body = json!({ "sessionId": session, "durationSeconds": 1, "title": "status" });
    let clip = id(&capture(&app, "bob", body).await);
    // his kept answer holds all of these words
    let sent = app.http.post(format!("{}/start", app.base)).bearer_auth(app.token("dave"));
    app.sim.publish_share("red-hall", "dave", TINY).expect("a share");
    let sent = sent.header("Idempotency-Key", "once").json(&json!({ "roomName": "red-hall" }));
    assert_eq!(sent.send().await.expect("an answer").status().as_u16(), 201);
    for name in ["active", "ready", "status", "red-room", "moderator", "1080p", &session, &clip] {
        let path = format!("/admin/users/{name}");
        let (status, erased) = delete_as(&app, &app.admin(), &path).await;
        assert_eq!((status, &erased["verified"]), (200, &json!(true)), "{name}: {erased:#}");
        assert_eq!((&erased["sessions"], &erased["rows"]), (&json!(0), &json!(0)), "{name}");
    }
    assert_eq!(app.get("bob", &format!("/clips/{clip}")).await.1["status"], "ready");
    assert_eq!(app.get("bob", &format!("/sessions/{session}")).await.1["status"], "active");
    app.stop().await;
}

async fn use_is_added_up_by_user_and_community(engine: Engine) {
    let app = Setup::on(engine).start("usage").await;
    for (room, user) in [("red-room", "ann"), ("app-hall", "bob")] {
        app.sim.publish_share(room, user, TINY).expect("a share");
    }
    let anns = app.start_session("ann", "red-room").await;
    let bobs = app.start_session("bob", "app-hall").await;
    app.wait_for_buffer("ann", &anns, 3.0).await;
    app.wait_for_buffer("bob", &bobs, 3.0).await;
    let body = |session: &str| json!({ "sessionId": session, "durationSeconds": 2 });
    let one = capture(&app, "ann", body(&anns)).await["sizeBytes"].as_i64().expect("bytes");
    let two = capture(&app, "ann", body(&anns)).await["sizeBytes"].as_i64().expect("bytes");
    let three = capture(&app, "bob", body(&bobs)).await["sizeBytes"].as_i64().expect("bytes");
    for user in ["ann", "bob"] {
        app.post(user, "/stop", json!({})).await;
    }
    let admin = app.admin();
    let (status, usage) = app.get_as(&admin, "/admin/usage").await;
    assert_eq!(status, 200, "{usage}");
    assert_eq!((&usage["total"], &usage["communitiesTotal"]), (&json!(2), &json!(2)));
    let all = &usage["all"];
    assert_eq!((&all["clipBytes"], &all["clips"]), (&json!(one + two + three), &json!(3)));
    assert_eq!((&all["sessions"], &all["activeSessions"]), (&json!(2), &json!(0)));
    assert!(all["bufferBytes"].as_i64() > Some(0), "{usage:#}");
    let ann = usage["users"].as_array().expect("users").iter().find(|user| user["userId"] == "ann");
    let ann = ann.expect("Ann");
    assert_eq!((&ann["clipBytes"], &ann["clips"]), (&json!(one + two), &json!(2)));
    // accounts and sums are the same bytes
    let (_, quota) = app.get_as(&admin, "/admin/users/ann/quota").await;
    assert_eq!(quota["usedBytes"], ann["clipBytes"]);
    let (_, top) = app.get_as(&admin, "/admin/usage?limit=1").await;
    assert_eq!((top["users"].as_array().map(Vec::len), &top["total"]), (Some(1), &json!(2)));
    let (_, red) = app.get_as(&boss(&app), "/admin/usage?communityId=red").await;
    assert_eq!((&red["all"]["clips"], &red["total"]), (&json!(2), &json!(1)), "{red:#}");
    assert_eq!(red["communities"][0]["communityId"], "red");
    for other in ["/admin/usage", "/admin/usage?communityId=app"] {
        assert_eq!(app.get_as(&boss(&app), other).await.0, 403, "{other}");
    }
    app.stop().await;
}
