//! A real clip for every kind of name: somebody of that name, in a room of that name, under a title of that name.

use std::path::Path;

use futures::future::join_all;
use livekit_replay::{
    domain::{id::UserId, keys},
    simulator::{Media, Share, decode},
};
use serde_json::{Value, json};

use crate::{
    assert_disposition, epoch_path,
    harness::{App, Engine, on_both_engines},
    nested, plain, strays,
};

on_both_engines!(a_clip_is_made_under_every_kind_of_name);

const TINY: Share = Share { width: 160, height: 90, audio: false, media: Media::Live };

/// Kinds of hostile names, some of each. Control characters are refused everywhere; what looks like them is not.
fn kinds(beside: &Path) -> Vec<(&'static str, Vec<String>)> {
    let beside = beside.display();
    let long = |piece: &str, times: usize| piece.repeat(times);
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    vec![
        (
            "traversal",
            vec!["../../../owned".to_owned(), format!("{beside}/owned"), "..".to_owned()],
        ),
        ("shell", own(&["$(touch owned)`touch owned`; touch owned | x & y", "--help"])),
        ("playlist", own(&["#EXTM3U, concat:/etc/passwd|seg_00000.ts", "file '%05d.ts' {time}"])),
        ("SQL", own(&["'; DROP TABLE clip; DROP TABLE session; --", "a%b_c\" OR 1=1 \\"])),
        ("header", own(&["\"x\"; filename=y.exe%0d%0aSet-Cookie: a=b"])),
        ("Unicode", own(&["İe\u{301}\u{212b}ﬁ👩‍👩‍👧‍👦 日本語の部屋"])),
        ("length", vec![long("a", 256), long("😀", 64), long("../", 85)]),
        ("no control", own(&["\u{202e}4pm.a\u{200b}b\u{feff}", "a\u{2028}b\u{2029}\u{ad}"])),
    ]
}

async fn a_clip_is_made_under_every_kind_of_name(engine: Engine) {
    let (app, outer) = nested(plain(engine), "captures").await;
    let kinds = kinds(&outer);
    let all: Vec<(&str, &str)> = kinds
        .iter()
        .flat_map(|(kind, names)| names.iter().map(|name| (*kind, name.as_str())))
        .collect();
    for (_, name) in &all {
        app.sim.publish_share(name, name, TINY).expect("a share");
    }
    let clips = join_all(all.iter().map(|(kind, name)| captured(&app, kind, name))).await;
    for ((kind, name), clip) in all.iter().zip(&clips) {
        is_where_it_belongs(&app, name, clip).await;
        println!(
            "{kind} {:?}…: {} bytes, {} s",
            name.chars().take(24).collect::<String>(),
            clip["sizeBytes"],
            clip["durationSeconds"]
        );
    }
    // one file, one sidecar and one poster each, and nothing beside them
    let store = app.dir.join("clips");
    let below = |dir: &Path| std::fs::read_dir(dir).expect("a directory").flatten().collect();
    let users: Vec<std::fs::DirEntry> = below(&store);
    let users = users.iter().filter(|user| !user.file_name().to_string_lossy().starts_with('.'));
    let per_user: Vec<usize> = users
        .map(|user| {
            let files: Vec<std::fs::DirEntry> = below(&user.path());
            files.len()
        })
        .collect();
    assert_eq!(per_user, vec![3; all.len()]);
    assert_eq!(strays(&outer, &app), Vec::<String>::new());
    println!("{} clips of {} kinds of names, all ready", clips.len(), kinds.len());
    app.stop().await;
    std::fs::remove_dir_all(&outer).expect("ours");
}

fn token(app: &App, name: &str) -> String {
    app.token_of(name, &json!({ "c": ["moderator"] }), &[])
}

/// A title is at most 200 characters long.
fn title(name: &str) -> String {
    name.chars().take(200).collect()
}

/// Records for a moment, captures it, and answers the clip when it is ready.
async fn captured(app: &App, kind: &str, name: &str) -> Value {
    let token = token(app, name);
    let body = json!({ "roomName": name, "communityId": "c" });
    let (status, started) = app.post_as(&token, "/start", body).await;
    assert_eq!(status, 201, "{kind} {name:?}: {started:#}");
    let id = started["id"].as_str().expect("an id").to_owned();
    app.until("some buffer", async || {
        let (_, shown) = app.get_as(&token, &format!("/sessions/{id}")).await;
        shown["buffer"]["durationSeconds"].as_f64().is_some_and(|held| held >= 2.0)
    })
    .await;
    let (status, stopped) = app.post_as(&token, "/stop", json!({})).await;
    assert_eq!(status, 200, "{kind} {name:?}: {stopped:#}");
    let capture = json!({ "sessionId": id, "durationSeconds": 1, "title": title(name) });
    let (status, accepted) = app.post_as(&token, "/capture", capture).await;
    assert!(matches!(status, 201 | 202), "{kind} {name:?}: {status} {accepted:#}");
    let address = format!("/clips/{}", accepted["id"].as_str().expect("an id"));
    app.until("the clip is made", async || {
        app.get_as(&token, &address).await.1["status"] != "processing"
    })
    .await;
    let (_, clip) = app.get_as(&token, &address).await;
    assert_eq!(clip["status"], "ready", "{kind} {name:?}: {clip:#}");
    for (field, is) in [("roomName", name), ("userId", name), ("title", &title(name))] {
        assert_eq!(clip[field], is, "{kind}: {clip:#}");
    }
    assert!(app.dir.join("buffer").join(epoch_path(app, &id).await).is_dir(), "{kind} {name:?}");
    clip
}

/// Video and sidecar in the user's own directory of the store, a download under a harmless name that decodes.
async fn is_where_it_belongs(app: &App, name: &str, clip: &Value) {
    let store = std::fs::canonicalize(app.dir.join("clips")).expect("the store");
    let own = store.join(keys::user_key(&UserId::new(name)));
    let id = clip["id"].as_str().expect("an id");
    let file = |ending: &str| {
        let path = std::fs::canonicalize(own.join(format!("{id}.{ending}"))).expect(ending);
        assert_eq!(path.parent().and_then(Path::parent), Some(store.as_path()), "{path:?}");
        path
    };
    let (video, sidecar) = (file("mp4"), file("json"));
    let record: Value =
        serde_json::from_slice(&std::fs::read(sidecar).expect("a sidecar")).expect("JSON");
    let text = record.to_string();
    for told in [json!(name), json!(title(name))] {
        assert!(text.contains(&told.to_string()), "{told} is not in {text}");
    }
    let bytes = app.download(clip["downloadUrl"].as_str().expect("a link")).await;
    assert_eq!(std::fs::read(&video).expect("a video"), bytes);
    let decoded = decode::decode_file(&video).await.expect("it decodes");
    assert!(decoded.markers().next().is_some(), "no picture in {clip:#}");
    // it follows the clip: whoever asks waits for it
    let poster = app.download(clip["thumbnailUrl"].as_str().expect("a link")).await;
    assert_eq!(std::fs::read(file("jpg")).expect("a poster"), poster);
    let filename = clip["filename"].as_str().expect("a name");
    assert!(
        !filename.contains(['/', '\\', '\0', '"', '\n', '\r'])
            && !filename.starts_with('.')
            && filename.ends_with(".mp4"),
        "{filename:?}"
    );
    assert_disposition(app, &token(app, name), &format!("/clips/{id}"), filename).await;
}
