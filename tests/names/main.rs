//! Names are hostile: whatever rooms, users, communities and titles are called, they come back as they were, no two
//! of them meet in a directory, and nothing is written outside the stores or touched that belongs to another.

mod captures;
#[path = "../harness/mod.rs"]
mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{App, Engine, INSTANCE, Setup, mark, on_both_engines, temp_dir};
use livekit_replay::{
    domain::{
        id::{SessionId, UserId},
        names::IdentityRule,
    },
    flow,
    simulator::{Media, Share, decode},
    store::{epoch, session},
};
use serde_json::{Value, json};

on_both_engines!(
    every_name_comes_back_and_no_two_meet,
    what_is_no_name_is_refused_and_leaves_nothing,
    every_identity_of_a_user_is_his_own,
    a_captures_title_is_harmless_in_every_header,
    two_instances_on_one_livekit_and_one_buffer_leave_each_other_alone,
);

const SILENT: Share = Share { width: 640, height: 360, audio: false, media: Media::None };

/// Names of at most 256 bytes without control characters: all of them work. Some aim at files beside the stores.
fn hostile(beside: &Path) -> Vec<String> {
    let beside = beside.display();
    let mut names: Vec<String> = [
        "..",
        ".",
        "...",
        "../..",
        "../../../../etc/passwd",
        "..\\..\\windows",
        "a/../../b",
        "/",
        "//",
        "/etc/passwd",
        "./.hidden",
        "~root",
        "-rf",
        "--help",
        "C:\\x",
        "\\\\server\\share",
        "nul",
        "CON",
        "aux.txt",
        "a:b",
        "a.",
        "a ",
        " a",
        " ",
        "a b",
        "%2e%2e%2f",
        "%00",
        "%0d%0aSet-Cookie: a=b",
        "a?b#c&d=e",
        "a+b",
        "a;b|c&d",
        "$(touch owned)",
        "`touch owned`",
        "${HOME}",
        "\"quoted\"",
        "it's",
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "{room_name}",
        "{time}",
        "#EXTM3U",
        "#EXTINF:2,",
        "seg_00000.ts",
        "index.m3u8",
        "a,b",
        "file:///etc/passwd",
        "concat:a|b",
        "'; DROP TABLE session; --",
        "\" OR 1=1 --",
        "%",
        "_",
        "a%b_c",
        "\\",
        "$1",
        "?1",
        "NULL",
        "0",
        "-1",
        "null",
        "<script>alert(1)</script>",
        "&amp;",
        "{\"a\":1}",
        "[]",
        "alice",
        "Alice",
        "ALICE",
        "aLICE",
        "straße",
        "STRASSE",
        "ı",
        "i",
        "I",
        "İ",
        "\u{e9}",
        "e\u{301}",
        "\u{c5}",
        "\u{212b}",
        "\u{e5}",
        "\u{fb01}",
        "fi",
        "\u{d55c}",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{3a9}",
        "\u{2126}",
        "שלום",
        "مرحبا",
        "\u{202e}gpj.exe",
        "a\u{200b}b",
        "ab",
        "a\u{200d}b",
        "\u{feff}a",
        "\u{2028}",
        "\u{2029}",
        "😀",
        "👩‍👩‍👧‍👦",
        "👩",
        "🏳️‍🌈",
        "日本語の部屋",
        "ｆｕｌｌ",
        "full",
        "\u{1d4d0}",
        "\u{fffd}",
        "\u{10ffff}",
        "z\u{351}\u{36b}\u{343}\u{36a}\u{302}",
        "*",
        "r:admin",
        "__proto__",
        "constructor",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(format!("{beside}/owned"));
    names.push(format!("{beside}/owned/x"));
    names.extend((1..12).map(|depth| format!("{}owned", "../".repeat(depth))));
    names.push("a".repeat(255));
    names.push("a".repeat(256));
    names.push(format!("{}b", "a".repeat(255)));
    names.push("ä".repeat(128));
    names.push("😀".repeat(64));
    names.push("../".repeat(85));
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Identities are users; every place there is; nothing is replaced.
fn plain(engine: Engine) -> Setup {
    Setup::on(engine).change(|config| {
        config.livekit.identity_pattern = IdentityRule::new("^(?<user>.+)$").expect("a pattern");
        config.limits.community_max_concurrent = 10_000;
        config.buffer.no_segment = Duration::from_secs(3600);
        // many sessions at once are refused where the disk could not hold what they may grow to
        config.buffer.length = Duration::from_secs(60);
        config.buffer.cleanup = Duration::from_secs(120);
    })
}

/// A service in a directory inside a directory: what climbs out of the inner one is seen in the outer one.
async fn nested(setup: Setup, name: &str) -> (App, PathBuf) {
    let outer = temp_dir(name);
    let inner = outer.join("a/b/c/d/e/f");
    std::fs::create_dir_all(&inner).expect("directories");
    (setup.start_in(inner).await, outer)
}

/// Every path below a directory, relative.
fn walk(top: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            found.insert(path.strip_prefix(top).expect("below").to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            }
        }
    }
    found
}

/// Everything below `outer` that is not one of our own plain names inside our two stores, or the database.
fn strays(outer: &Path, app: &App) -> Vec<String> {
    let inner = app.dir.strip_prefix(outer).expect("below").to_string_lossy().into_owned();
    let ours = regex::Regex::new(&format!(
        "^(a|a/b|a/b/c|a/b/c/d|a/b/c/d/e|{inner}|{inner}/db\\.sqlite(-wal|-shm)?|{inner}/(buffer|clips)(/\\.livekit-replay\\.json)?|\
         {inner}/buffer/{INSTANCE}(/[a-z0-9-]{{1,64}}){{0,3}}|\
         {inner}/buffer/{INSTANCE}(/[a-z0-9-]{{1,64}}){{3}}/[0-9]+(/(seg_[0-9]{{5}}\\.ts|index\\.m3u8|live\\.m3u8))?|\
         {inner}/clips/\\.work(/.*)?|{inner}/clips/[a-z0-9-]{{1,64}}(/[a-z0-9-]{{36}}\\.(mp4|json|jpg))?)$"
    ))
    .expect("a pattern");
    walk(outer).into_iter().filter(|path| !ours.is_match(path)).collect()
}

fn query(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn every_name_comes_back_and_no_two_meet(engine: Engine) {
    let (app, outer) = nested(plain(engine), "names").await;
    let names = hostile(&outer);
    let rooms_before = names.len();
    let mut directories: BTreeMap<String, String> = BTreeMap::new();
    for (index, name) in names.iter().enumerate() {
        // the name is room, user and community at once; the community counts where the room has none
        app.sim.publish_share(name, name, SILENT).expect("a share");
        let token = app.token_of(name, &json!({ (name): ["moderator"] }), &[]);
        let body = json!({ "roomName": name, "communityId": name, "quality": "720p" });
        let (status, started) = app.post_as(&token, "/start", body).await;
        if name == "*" {
            // the name of everywhere is nobody's community
            assert_eq!(
                (status, started["code"].as_str()),
                (422, Some("validation_failed")),
                "{started:#}"
            );
            continue;
        }
        assert_eq!(status, 201, "{index} {name:?}: {started:#}");
        let id = started["id"].as_str().expect("an id").to_owned();
        let (_, shown) = app.get_as(&token, &format!("/sessions/{id}")).await;
        for answer in [&started, &shown] {
            for field in ["roomName", "userId", "startedBy", "username", "communityId"] {
                // a display name that shows nothing is none
                let blank = field == "username" && name.trim().is_empty();
                let expected = if blank { Value::Null } else { json!(name) };
                assert_eq!(answer[field], expected, "{field} of {name:?}: {answer:#}");
            }
        }
        let (status, found) =
            app.get_as(&token, &format!("/status?roomName={}", query(name))).await;
        assert_eq!(status, 200, "{name:?}: {found:#}");
        assert_eq!(
            found["activeSessions"].as_array().map(Vec::len),
            Some(1),
            "{name:?}: {found:#}"
        );
        assert_eq!(found["activeSessions"][0]["id"], id, "{name:?}: {found:#}");
        let path = epoch_path(&app, &id).await;
        assert!(app.dir.join("buffer").join(&path).is_dir(), "{path}");
        let keys: Vec<&str> = path.split('/').collect();
        assert_eq!(keys[0], INSTANCE);
        for key in &keys[1..3] {
            let taken = directories.insert((*key).to_owned(), name.clone());
            assert!(taken.is_none_or(|by| by == *name), "{name:?} shares {key} with another");
        }
    }
    // where case is ignored too
    let folded: BTreeSet<String> = directories.keys().map(|key| key.to_lowercase()).collect();
    assert_eq!(folded.len(), rooms_before - 1, "one directory for every name but `*`");
    assert_eq!(strays(&outer, &app), Vec::<String>::new());
    println!("{rooms_before} names as room, user and community: {} directories", folded.len());

    // a person listed in another room by a name that looks like his is somebody else
    let (status, _) =
        app.post_as(&app.token_of("alice", &json!({}), &[]), "/stop", json!({})).await;
    assert_eq!(status, 200);
    for other in ["Alice", "ALICE", "aLICE"] {
        let row =
            session::find_holding(app.deps.db.conn(), &UserId::new(other)).await.expect("rows");
        assert!(row.is_some(), "{other} was stopped with alice");
    }
    app.stop().await;
    assert_eq!(walk(&outer).len(), 5, "{:?}", walk(&outer));
    std::fs::remove_dir_all(&outer).expect("ours");
}

async fn epoch_path(app: &App, session: &str) -> String {
    let epochs = epoch::list(app.deps.db.conn(), &SessionId::new(session)).await.expect("epochs");
    epochs.last().expect("an epoch").path.clone()
}

async fn what_is_no_name_is_refused_and_leaves_nothing(engine: Engine) {
    let (app, outer) = nested(plain(engine), "no-names").await;
    app.sim.publish_share("app-n", "alice", SILENT).expect("a share");
    let too_long = "a".repeat(257);
    let no_names = [
        "",
        "a\nb",
        "a\r\nb",
        "\0",
        "a\0b",
        "\t",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{80}",
        "\u{85}",
        "\u{9f}",
        too_long.as_str(),
        &"ä".repeat(129),
        &"\0".repeat(300),
    ];
    let before = harness::dump(&app.deps.db, &["webhook_seen"]).await;
    for name in no_names {
        for field in
            ["roomName", "communityId", "videoTrackId", "audioTrackId", "participantIdentity"]
        {
            let mut body = json!({ "roomName": "app-n" });
            body[field] = json!(name);
            let (status, problem) = app.post("alice", "/start", body).await;
            assert_eq!(
                (status, problem["code"].as_str()),
                (422, Some("validation_failed")),
                "{field} {name:?}: {problem:#}"
            );
            assert!(problem.to_string().contains(field), "{field} is not named: {problem:#}");
        }
        let (status, problem) =
            app.get("alice", &format!("/status?roomName={}", query(name))).await;
        assert_eq!(status, 422, "{name:?}: {problem:#}");
        let token = app.token_of(name, &json!({}), &["instance_admin"]);
        let (status, problem) = app.post_as(&token, "/start", json!({ "roomName": "app-n" })).await;
        assert_eq!(status, 401, "a token for {name:?}: {problem:#}");
        for path in ["/sessions", "/clips", "/admin/users", "/admin/community"] {
            let rest = match path {
                "/admin/users" => "/quota",
                "/admin/community" => "/config",
                _ => "",
            };
            let address = format!("{path}/{}{rest}", query(name));
            let (status, problem) = app.get_as(&app.admin(), &address).await;
            assert!((400..500).contains(&status), "{address}: {status} {problem:#}");
        }
    }
    // no name is needed to be hostile: the wrong types, in the same places
    for value in [json!(null), json!(7), json!({ "a": 1 }), json!(["a"]), json!(true)] {
        let (status, problem) = app.post("alice", "/start", json!({ "roomName": value })).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (422, Some("validation_failed")),
            "{problem:#}"
        );
    }
    assert_eq!(
        harness::dump(&app.deps.db, &["webhook_seen"]).await,
        before,
        "a refusal left a row"
    );
    assert_eq!(app.calls("StartTrackCompositeEgress"), 0);
    assert_eq!(strays(&outer, &app), Vec::<String>::new());
    app.stop().await;
    std::fs::remove_dir_all(&outer).expect("ours");
}

async fn every_identity_of_a_user_is_his_own(engine: Engine) {
    // the harness takes everything before the first colon for the user
    let app = Setup::on(engine).start("identities").await;
    let first = app.sim.publish_share("app-i", "alice:tab-1", SILENT).expect("a share");
    let second = app.sim.publish_share("app-i", "alice:../tab 2\u{202e}", SILENT).expect("a share");
    app.sim.publish_share("app-i", ":nobody", SILENT).expect("a share");
    app.sim.publish_share("app-i", "alicia:tab-1", SILENT).expect("a share");
    let video = |share: &livekit_replay::simulator::ShareHandle| share.video.clone();
    for (body, expected) in [
        (json!({ "roomName": "app-i" }), &second),
        (json!({ "roomName": "app-i", "participantIdentity": "alice:tab-1" }), &first),
        (json!({ "roomName": "app-i", "videoTrackId": video(&first) }), &first),
        (json!({ "roomName": "app-i", "videoTrackId": video(&second) }), &second),
    ] {
        let (status, started) = app.post("alice", "/start", body.clone()).await;
        assert_eq!((status, &started["userId"]), (201, &json!("alice")), "{started:#}");
        let id = SessionId::new(started["id"].as_str().expect("an id"));
        let epochs = epoch::list(app.deps.db.conn(), &id).await.expect("epochs");
        assert_eq!(epochs[0].video_track_id.as_str(), video(expected), "{body}");
        let row = session::load(app.deps.db.conn(), &id).await.expect("the session");
        assert_eq!(row.identity.as_str(), expected.identity);
        // it stays with that one, also where another is newer
        flow::supervise::look_at(&app.deps, &id).await.expect("a look");
        let epochs = epoch::list(app.deps.db.conn(), &id).await.expect("epochs");
        let recorded: Vec<_> = epochs.iter().map(|row| row.video_track_id.as_str()).collect();
        assert_eq!(recorded, [video(expected)], "{body}");
        assert_eq!(app.post("alice", "/stop", json!({})).await.0, 200);
    }
    for (user, body) in [
        ("alicia", json!({ "roomName": "app-i", "participantIdentity": "alice:tab-1" })),
        ("alicia", json!({ "roomName": "app-i", "videoTrackId": video(&first) })),
        ("alice:tab-1", json!({ "roomName": "app-i" })),
        ("ali", json!({ "roomName": "app-i" })),
        ("nobody", json!({ "roomName": "app-i" })),
        ("Alice", json!({ "roomName": "app-i" })),
    ] {
        let (status, problem) = app.post(user, "/start", body.clone()).await;
        let code = problem["code"].as_str().unwrap_or_default();
        let refused = matches!(
            (status, code),
            (403, "track_not_yours" | "permission_denied") | (409, "screen_share_not_found")
        );
        assert!(refused, "{user} {body}: {status} {problem:#}");
    }
    app.stop().await;
}

async fn a_captures_title_is_harmless_in_every_header(engine: Engine) {
    let (app, outer) = nested(plain(engine), "titles").await;
    let (room, user) = ("../../owned \"$(id)\" \u{202e}部屋", "'; DROP TABLE clip; -- 😀/../x");
    let share = Share { width: 160, height: 120, audio: false, ..Share::default() };
    app.sim.publish_share(room, user, share).expect("a share");
    let token = app.token_of(user, &json!({ "c": ["moderator"] }), &[]);
    let body = json!({ "roomName": room, "communityId": "c" });
    let (status, started) = app.post_as(&token, "/start", body).await;
    assert_eq!(status, 201, "{started:#}");
    let id = started["id"].as_str().expect("an id").to_owned();
    app.until("some buffer", async || {
        let (_, shown) = app.get_as(&token, &format!("/sessions/{id}")).await;
        shown["buffer"]["durationSeconds"].as_f64().is_some_and(|held| held >= 4.0)
    })
    .await;
    let (status, _) = app.post_as(&token, "/stop", json!({})).await;
    assert_eq!(status, 200);

    let mut titles = hostile(&outer);
    titles.retain(|title| title.chars().count() <= 200 && !title.trim().is_empty());
    titles.push("😀".repeat(200));
    let capture = json!({ "sessionId": id, "durationSeconds": 2, "title": titles[0], "precision": "keyframe" });
    let (status, accepted) = app.post_as(&token, "/capture", capture).await;
    assert!(matches!(status, 201 | 202), "{accepted:#}");
    let clip = accepted["id"].as_str().expect("an id").to_owned();
    let address = format!("/clips/{clip}");
    app.until("the clip is ready", async || {
        let (_, shown) = app.get_as(&token, &address).await;
        assert_ne!(shown["status"], "failed", "{shown:#}");
        shown["status"] == "ready"
    })
    .await;
    for title in &titles {
        let (status, changed) = app.patch_as(&token, &address, json!({ "title": title })).await;
        assert_eq!((status, &changed["title"]), (200, &json!(title)), "{changed:#}");
        let (_, mine) = app.get_as(&token, "/my-clips").await;
        let listed = &mine["clips"][0];
        assert_eq!(
            (&listed["title"], &listed["roomName"], &listed["userId"]),
            (&json!(title), &json!(room), &json!(user))
        );
        let name = listed["filename"].as_str().expect("a name");
        assert!(
            !name.contains(['/', '\\', '\0']) && !name.starts_with('.') && name.ends_with(".mp4"),
            "{name:?}"
        );
        assert_disposition(&app, &token, &address, name).await;
    }
    for bad in ["a\nb", "\0", "a\tb", &"a".repeat(201)] {
        let (status, problem) = app.patch_as(&token, &address, json!({ "title": bad })).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("validation_failed")), "{bad:?}");
        let capture = json!({ "sessionId": id, "durationSeconds": 2, "title": bad });
        let (status, problem) = app.post_as(&token, "/capture", capture).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("validation_failed")), "{bad:?}");
    }
    let (_, shown) = app.get_as(&token, &address).await;
    let bytes = app.download(shown["downloadUrl"].as_str().expect("a link")).await;
    let file = temp_dir("title-clip").join("clip.mp4");
    std::fs::write(&file, &bytes).expect("written");
    assert!(decode::decode_file(&file).await.expect("it decodes").markers().next().is_some());
    std::fs::remove_dir_all(file.parent().expect("its directory")).expect("ours");
    assert_eq!(strays(&outer, &app), Vec::<String>::new());
    println!("{} titles", titles.len());
    app.stop().await;
    std::fs::remove_dir_all(&outer).expect("ours");
}

/// `attachment`, one quoted plain name, and the whole name encoded; nothing else.
async fn assert_disposition(app: &App, token: &str, address: &str, name: &str) {
    let head = app.http.head(format!("{}{address}/file", app.base)).bearer_auth(token);
    let answer = head.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let value = answer.headers()["content-disposition"].to_str().expect("ASCII").to_owned();
    let shape = regex::Regex::new(
        r#"^attachment; filename="([A-Za-z0-9 ._()-]+)"; filename\*=UTF-8''([A-Za-z0-9._~%-]+)$"#,
    )
    .expect("a pattern");
    let parts = shape.captures(&value).unwrap_or_else(|| panic!("{value:?}"));
    let mut decoded = Vec::new();
    let mut rest = parts[2].bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let pair = [rest.next().expect("hex"), rest.next().expect("hex")];
            let pair = std::str::from_utf8(&pair).expect("hex");
            decoded.push(u8::from_str_radix(pair, 16).expect("hex"));
        } else {
            decoded.push(byte);
        }
    }
    assert_eq!(String::from_utf8(decoded).expect("UTF-8"), name);
}

async fn two_instances_on_one_livekit_and_one_buffer_leave_each_other_alone(engine: Engine) {
    const OTHER: &str = "0badcafe";
    let one = Setup::on(engine.clone()).start("instances").await;
    let (buffer, url) = (one.dir.join("buffer"), one.sim.url());
    let shared = buffer.clone();
    let mut setup = Setup::on(engine).change(move |config| {
        config.livekit.url.clone_from(&url);
        config.livekit.egress_output_path.clone_from(&shared);
        config.storage.buffer.clone_from(&shared);
    });
    setup.instance = OTHER;
    let two = setup.without_webhooks().start("instances-two").await;
    // LiveKit tells everything to both
    let hooks = [&one, &two].map(|app| format!("{}/webhooks/livekit", app.base));
    one.sim.set_webhook_urls(hooks.to_vec());
    let foreign = [
        "readme.txt",
        "deadbeef/room/user/0198b3a0-0000-7000-8000-000000000000/1/seg_00000.ts",
        "0a1b2c3/room/user/0198b3a0-0000-7000-8000-000000000000/1/seg_00000.ts",
        "0a1b2c3d-old/room/user/0198b3a0-0000-7000-8000-000000000000/1/index.m3u8",
        "0a1b2c3d/notes.txt",
        "0a1b2c3d/room/user/not-a-session/1/seg_00000.ts",
    ];
    for name in foreign {
        let path = buffer.join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, "theirs").expect("written");
    }
    let share = Share { width: 160, height: 120, audio: false, ..Share::default() };
    one.sim.publish_share("app-x", "alice", share).expect("a share");
    one.sim.publish_share("app-x", "bob", share).expect("a share");
    // the same person has a buffer with both, which is nobody's business but his
    let of_one = one.start_session("alice", "app-x").await;
    let of_two = two.start_session("bob", "app-x").await;
    one.wait_for_buffer("alice", &of_one, 2.0).await;
    two.wait_for_buffer("bob", &of_two, 2.0).await;
    let stops = one.calls("StopEgress");

    for round in 0..2 {
        for app in [&one, &two] {
            let counts = flow::reconcile::run(&app.deps).await.expect("a pass");
            assert_eq!((counts.egresses_seen, counts.orphans_stopped), (2, 0), "{counts:?}");
        }
        // a store has one owner by its marker; the other one's passes are refused, and touch nothing either
        for (owner, guest) in [(&one, &two), (&two, &one)] {
            mark(&buffer, owner.deps.instance.as_str());
            for app in [owner, guest] {
                match flow::reap::run(&app.deps, true, false).await {
                    Ok(counts) => {
                        assert_eq!(
                            (counts.buffers_removed, counts.orphan_directories),
                            (0, 0),
                            "round {round}: {counts:?}"
                        );
                    }
                    Err(error) => {
                        assert_eq!(error.code().as_str(), "storage_unavailable", "{error:?}")
                    }
                }
                let cleaned = flow::cleanup::run(&app.deps, Duration::from_secs(300), false).await;
                let refused = cleaned.as_ref().err().map(|error| error.code().as_str());
                assert!(matches!(refused, None | Some("storage_unavailable")), "{cleaned:?}");
            }
        }
    }
    assert_eq!(one.calls("StopEgress"), stops, "somebody stopped what was not his");
    for egress in one.sim.egresses() {
        assert_eq!(egress.status, "EGRESS_ACTIVE", "{egress:?}");
    }

    // one ends and gives up its buffer; all of the other stays
    assert_eq!(one.post("alice", "/stop", json!({})).await.0, 200);
    one.until("it has stopped", async || {
        one.get("alice", &format!("/sessions/{of_one}")).await.1["status"] == "stopped"
    })
    .await;
    let theirs = buffer.join(epoch_path(&two, &of_two).await);
    let ours = buffer.join(epoch_path(&one, &of_one).await);
    assert!(ours.is_dir() && theirs.is_dir());
    mark(&buffer, INSTANCE);
    one.clock.advance_micros(3 * 3_600_000_000);
    let counts = flow::reap::run(&one.deps, true, false).await.expect("a pass");
    assert_eq!(counts.buffers_removed, 1, "{counts:?}");
    assert!(!ours.exists());
    for name in foreign {
        assert_eq!(std::fs::read(buffer.join(name)).expect(name), b"theirs", "{name}");
    }
    let kept: Vec<Value> =
        two.get("bob", "/sessions").await.1["sessions"].as_array().cloned().unwrap_or_default();
    assert_eq!(kept.len(), 1);
    assert!(theirs.join("seg_00000.ts").is_file(), "{:?}", walk(&theirs));
    let running = one.sim.egresses();
    let running: Vec<&str> = running.iter().map(|egress| egress.status.as_str()).collect();
    assert!(running.contains(&"EGRESS_ACTIVE"), "{running:?}");
    two.stop().await;
    one.stop().await;
}
