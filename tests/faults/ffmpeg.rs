//! FFmpeg that hangs, crashes, answers rubbish or is not there: the program finds another one of that name on its search
//! path, which does so at command.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use livekit_replay::simulator::Share;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    service::{Answer, Service},
    support::On,
};

const USER: &str = "alice";
const ROOM: &str = "red-room";

/// The program that is found as `ffmpeg`: does what the file `mode` beside it says.
const INSTEAD: &str = r#"#!/bin/sh
read -r mode < "HERE/mode"
case "$mode" in
hang) exec "HERE/hanging" 86400 ;;
crash) kill -SEGV $$ ;;
once) echo well > "HERE/mode"; kill -SEGV $$ ;;
rubbish)
    for last; do :; done
    case "$last" in /*) echo rubbish > "$last" ;; esac
    echo rubbish
    exit 0 ;;
*) exec "REAL" "$@" ;;
esac
"#;

/// A search path of its own.
struct Programs {
    dir: PathBuf,
}

impl Programs {
    fn new() -> Programs {
        let dir = std::env::temp_dir().join(format!("lkr-bin-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&dir).unwrap();
        let programs = Programs { dir };
        programs.set("well");
        let script = INSTEAD
            .replace("HERE", programs.dir.to_str().unwrap())
            .replace("REAL", real("ffmpeg").to_str().unwrap());
        std::fs::write(programs.dir.join("ffmpeg"), script).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(programs.dir.join("ffmpeg"), mode).unwrap();
        for (name, program) in [("ffprobe", "ffprobe"), ("hanging", "sleep")] {
            std::os::unix::fs::symlink(real(program), programs.dir.join(name)).unwrap();
        }
        programs
    }

    fn set(&self, mode: &str) {
        let draft = self.dir.join("mode.new");
        std::fs::write(&draft, format!("{mode}\n")).unwrap();
        std::fs::rename(draft, self.dir.join("mode")).unwrap();
    }

    /// Takes the program away, or puts it back.
    fn hide(&self, hidden: bool) {
        let (shown, away) = (self.dir.join("ffmpeg"), self.dir.join("ffmpeg.away"));
        let (from, to) = if hidden { (shown, away) } else { (away, shown) };
        std::fs::rename(from, to).unwrap();
    }

    /// Processes that hang.
    fn left(&self) -> usize {
        let hanging = self.dir.join("hanging");
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let of = |path: PathBuf| std::fs::read(path.join("cmdline")).unwrap_or_default();
        let name = hanging.to_str().unwrap().as_bytes().to_vec();
        all.filter(|entry| of(entry.path()).starts_with(&name)).count()
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn real(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    places.find(|place| Path::new(place).is_file()).expect("installed")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_hangs_leaves_no_process_and_fails_no_clip() {
    unwell("hang").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_crashes_fails_no_clip() {
    unwell("crash").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_answers_rubbish_fails_no_clip() {
    unwell("rubbish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_is_missing_fails_no_clip() {
    unwell("missing").await;
}

/// The service with a session that has something to capture.
async fn begun(programs: &Programs) -> (Service, String) {
    let path: &'static str = Box::leak(programs.dir.to_str().unwrap().to_owned().into_boxed_str());
    let more = [("PATH", path), ("REPLAY__CAPTURE__STALL_SECONDS", "5")];
    let service = Service::with(On::Sqlite, &more).await;
    service.start(None).await;
    let share = Share { width: 320, height: 180, ..Share::default() };
    service.sim.publish_share(ROOM, &format!("{USER}:tab"), share).unwrap();
    let started =
        service.must(Method::POST, USER, "/start", Some(json!({ "roomName": ROOM }))).await;
    let session = started["id"].as_str().unwrap().to_owned();
    until("the buffer is long enough", async || {
        let shown = service.must(Method::GET, USER, &format!("/sessions/{session}"), None).await;
        shown["buffer"]["durationSeconds"].as_f64().is_some_and(|held| held >= 6.0)
    })
    .await;
    (service, session)
}

async fn capture(service: &Service, session: &str, precision: &str) -> String {
    let body = json!({ "sessionId": session, "durationSeconds": 3, "precision": precision });
    let asked = service.ask(Method::POST, USER, "/capture", |request| {
        request.header("prefer", "respond-async").json(&body)
    });
    match asked.await {
        Answer::Said(202, clip) => clip["clipId"].as_str().unwrap().to_owned(),
        other => panic!("{other:?}\n{}", service.log()),
    }
}

async fn clip(service: &Service, id: &str) -> Value {
    let clip = service.must(Method::GET, USER, &format!("/clips/{id}"), None).await;
    assert_ne!(clip["status"], "failed", "{clip:#}\n{}", service.log());
    clip
}

async fn assert_whole(service: &Service, clip: &Value) {
    let path = format!("/clips/{}/file", clip["clipId"].as_str().unwrap());
    let sent = service.send(&service.process, Method::GET, USER, &path, |request| request).await;
    let bytes = sent.unwrap().bytes().await.unwrap();
    assert_eq!(clip["checksum"], format!("blake3:{}", blake3::hash(&bytes).to_hex()));
}

async fn health(service: &Service) -> Value {
    service.must(Method::GET, "root", "/../health/detailed", None).await
}

async fn unwell(mode: &str) {
    let programs = Programs::new();
    let (service, session) = begun(&programs).await;
    assert_eq!(health(&service).await["ffmpeg"]["status"], "ok");
    match mode {
        "missing" => programs.hide(true),
        mode => programs.set(mode),
    }
    let clips =
        [capture(&service, &session, "keyframe").await, capture(&service, &session, "exact").await];
    for id in &clips {
        until("the clip waits for FFmpeg", async || {
            let shown = clip(&service, id).await;
            assert_eq!(shown["status"], "processing", "{shown:#}");
            shown["error"]["code"] == "ffmpeg_failed"
        })
        .await;
    }
    let said = health(&service).await;
    assert_eq!(said["ffmpeg"]["status"], "fail", "{said:#}");
    assert_eq!(said["storage"]["clips"]["status"], "ok", "{said:#}");
    assert!(said["ffmpeg"]["version"].is_string(), "what it was is still told: {said:#}");
    // no segment was called damaged for it
    let shown = service.must(Method::GET, USER, &format!("/sessions/{session}"), None).await;
    assert_eq!(shown["buffer"]["gaps"], json!([]), "{shown:#}");

    match mode {
        "missing" => programs.hide(false),
        _ => programs.set("well"),
    }
    for id in &clips {
        until("the clip is made", async || clip(&service, id).await["status"] == "ready").await;
        let made = clip(&service, id).await;
        assert!(made["error"].is_null(), "{made:#}");
        assert_whole(&service, &made).await;
    }
    assert_eq!(health(&service).await["ffmpeg"]["status"], "ok");
    until("no process is left", async || programs.left() == 0).await;
    let work = service.config.storage.clips.join(".work");
    until("no work file is left", async || {
        std::fs::read_dir(&work).is_ok_and(|entries| entries.count() == 0)
    })
    .await;
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_crashes_once_costs_nothing_but_an_attempt() {
    let programs = Programs::new();
    let (service, session) = begun(&programs).await;
    for precision in ["keyframe", "exact"] {
        programs.set("once");
        let id = capture(&service, &session, precision).await;
        until("the clip is made", async || clip(&service, &id).await["status"] == "ready").await;
        let mode = std::fs::read_to_string(programs.dir.join("mode")).unwrap();
        assert_eq!(mode.trim(), "well", "it did not crash");
        assert_whole(&service, &clip(&service, &id).await).await;
    }
    service.close().await;
}

/// Waits until something is so; fails after three minutes.
#[track_caller]
fn until(what: &str, is_so: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let waiting = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(180), waiting).await;
        assert!(waited.is_ok(), "still not: {what} ({place})");
    }
}
