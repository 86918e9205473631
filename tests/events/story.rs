//! A whole story, and what is told of it: every kind exactly once for its cause, with what the routes answer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    harness::{App, Engine, Setup, on_both_engines},
    reader::{Reader, Received},
};
use livekit_replay::{
    domain::{id::UserId, keys},
    simulator::{CallAction, CallFault, Media, Share},
};

on_both_engines!(
    every_kind_is_told_once_for_its_cause,
    a_start_that_fails_is_told_as_failed,
    a_clip_that_could_not_be_published_was_never_told_to_be_ready,
);

const SMALL: Share = Share { width: 320, height: 180, audio: false, media: Media::Live };

fn names(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

/// Members of what an event shows and of what the route answers, but for what only one of the two has.
fn same_shape(event: &Value, route: &Value, without: &[&str]) {
    let drop = |value: &Value| {
        let mut names = names(value);
        without.iter().for_each(|name| {
            names.remove(*name);
        });
        names
    };
    assert_eq!(drop(event), drop(route));
}

async fn every_kind_is_told_once_for_its_cause(engine: Engine) {
    let setup = Setup::on(engine).change(|config| {
        config.sessions.rejoin = std::time::Duration::from_secs(120);
    });
    let app = setup.start("story").await;
    let mut stream = Reader::of(&app, "ann", None).await;
    let beginning = stream.placed().await;
    let mut others = Reader::of(&app, "bob", None).await;
    others.placed().await;

    let share = app.sim.publish_share("red-room", "ann", SMALL).expect("a share");
    let session = app.start_session("ann", "red-room").await;
    let started = stream.next().await.expect("an event");
    assert_eq!(started.kind, "replay_buffer_started");
    assert_eq!(started.body["data"]["status"], "starting");
    assert_ne!(started.body["data"]["egressId"], "", "LiveKit had accepted");
    let ready = stream.next().await.expect("an event");
    assert_eq!(ready.kind, "segments_ready");
    let (_, shown) = app.get("ann", &format!("/sessions/{session}")).await;
    same_shape(&ready.body["data"], &shown, &["buffer", "segmentPath", "delayMs", "clockOffsetMs"]);

    // a clip, made, shared, deleted
    app.wait_for_buffer("ann", &session, 4.0).await;
    let body =
        json!({ "sessionId": session, "durationSeconds": 3, "title": "a \"title\"\u{2028}" });
    let (status, clip) = app.post_waiting("ann", "/capture", body).await;
    assert_eq!(status, 201, "{clip:#}");
    let id = clip["clipId"].as_str().expect("an id").to_owned();
    let processing = stream.next().await.expect("an event");
    assert_eq!(processing.kind, "clip_processing");
    assert_eq!(processing.body["data"]["clipId"], id.as_str());
    let ready = stream.next().await.expect("an event");
    assert_eq!(ready.kind, "clip_ready");
    same_shape(&ready.body["data"], &clip, &[]);
    assert_eq!(ready.body["data"]["title"], "a \"title\"\u{2028}");
    for member in ["sizeBytes", "checksum", "startsAt", "endsAt", "filename", "status"] {
        assert_eq!(ready.body["data"][member], clip[member], "{member}");
    }
    let link = ready.body["data"]["downloadUrl"].as_str().expect("a link");
    assert_eq!(app.download(link).await.len() as u64, clip["sizeBytes"].as_u64().expect("bytes"));

    let (status, _) =
        app.post("ann", &format!("/clips/{id}/share"), json!({ "shareOption": "link" })).await;
    assert_eq!(status, 200);
    let shared = stream.next().await.expect("an event");
    assert_eq!(shared.kind, "clip_shared");
    assert_eq!(shared.body["data"]["share"]["destination"], "link");
    assert!(!shared.body.to_string().contains("/s/"), "the link's secret is nobody's: {shared:?}");

    // the allowance shrinks until the clip takes more than nine tenths of it
    let bytes = clip["sizeBytes"].as_i64().expect("bytes") * 100 / 95;
    let quota = json!({ "quotaBytes": bytes });
    let (status, _) = app.patch_as(&app.admin(), "/admin/users/ann/quota", quota).await;
    assert_eq!(status, 200);
    let warning = stream.next().await.expect("an event");
    assert_eq!(warning.kind, "quota_warning");
    assert_eq!(warning.body["data"]["thresholdPercent"], 90);
    assert_eq!(warning.body["data"]["usedBytes"], clip["sizeBytes"]);

    // somebody else deletes it: its owner is told
    let answer = app.http.delete(format!("{}/clips/{id}", app.base)).bearer_auth(app.admin());
    assert_eq!(answer.send().await.expect("an answer").status().as_u16(), 200);
    let deleted = stream.next().await.expect("an event");
    assert_eq!(deleted.kind, "clip_deleted");
    assert_eq!(deleted.body["data"]["clipId"], id.as_str());

    // the share goes and comes back
    app.sim.unpublish_share(&share).expect("gone");
    assert_eq!(stream.next().await.expect("an event").kind, "replay_buffer_degraded");
    app.sim.publish_share("red-room", "ann", SMALL).expect("a share");
    let restarted = stream.next().await.expect("an event");
    assert_eq!(restarted.kind, "replay_buffer_restarted");
    assert_eq!(restarted.body["data"]["epoch"], 2);

    let (status, _) = app.post("ann", &format!("/stop/{session}"), json!({})).await;
    assert_eq!(status, 200);
    let stopped = stream.next().await.expect("an event");
    assert_eq!(stopped.kind, "replay_buffer_stopped");
    assert_eq!(stopped.body["data"]["endReason"], "stopped_by_user");
    app.until("the session has come to rest", async || {
        app.get("ann", &format!("/sessions/{session}")).await.1["status"] == "stopped"
    })
    .await;

    // told again from the beginning: nothing more, nothing twice, in the same order
    let mut again = Reader::of(&app, "ann", Some(&beginning)).await;
    let mut told: Vec<Received> = Vec::new();
    while told.last().is_none_or(|event| event.kind != "replay_buffer_stopped") {
        told.push(again.next().await.expect("an event"));
    }
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    let expected = [
        "replay_buffer_started",
        "segments_ready",
        "clip_processing",
        "clip_ready",
        "clip_shared",
        "quota_warning",
        "clip_deleted",
        "replay_buffer_degraded",
        "replay_buffer_restarted",
        "replay_buffer_stopped",
    ];
    assert_eq!(kinds, expected);
    // a clip that cannot be made fails, and is the next thing both streams hear of
    fail_a_clip(&app, &session).await;
    for reader in [&mut stream, &mut again] {
        assert_eq!(reader.next().await.expect("an event").kind, "clip_processing");
        let failed = reader.next().await.expect("an event");
        assert_eq!(failed.kind, "clip_failed");
        assert!(failed.body["data"]["error"]["code"].is_string(), "{failed:?}");
    }
    // nothing of it was bob's: the first thing that he hears of is his own
    app.sim.publish_share("red-other", "bob", SMALL).expect("a share");
    let his = app.start_session("bob", "red-other").await;
    let first = others.next().await.expect("an event");
    assert_eq!(first.body["data"]["id"], his.as_str());
    // when the service ends, streams end, and say when to come again
    let base = app.deps.clone();
    base.stop.cancel();
    while stream.next().await.is_some() {}
    assert_eq!(stream.retry, Some(500));
    app.stop().await;
}

/// A capture of a session whose segments were spoilt after they were indexed.
async fn fail_a_clip(app: &App, session: &str) {
    let quota = json!({ "quotaBytes": 5_i64 << 30 });
    app.patch_as(&app.admin(), "/admin/users/ann/quota", quota).await;
    spoil(&app.dir.join("buffer"));
    let body = json!({ "sessionId": session, "durationSeconds": 3, "precision": "keyframe" });
    let (status, answer) = app.post_async("ann", "/capture", body).await;
    assert_eq!(status, 202, "{answer:#}");
}

/// Makes every segment empty.
fn spoil(directory: &std::path::Path) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            spoil(&path);
        } else if path.extension().is_some_and(|ending| ending == "ts") {
            std::fs::write(&path, b"").expect("spoilt");
        }
    }
}

async fn a_start_that_fails_is_told_as_failed(engine: Engine) {
    let app = Setup::on(engine).start("failing").await;
    let mut stream = Reader::of(&app, "ann", None).await;
    stream.placed().await;
    app.sim.publish_share("red-room", "ann", SMALL).expect("a share");
    app.sim.add_call_fault(CallFault {
        method: "StartTrackCompositeEgress".to_owned(),
        action: CallAction::Error { code: "unavailable".to_owned(), msg: "no worker".to_owned() },
        times: None,
        for_ms: None,
    });
    let (status, _) = app.post("ann", "/start", json!({ "roomName": "red-room" })).await;
    assert_eq!(status, 503);
    let failed = stream.next().await.expect("an event");
    assert_eq!(failed.kind, "replay_buffer_failed");
    assert_eq!(failed.body["data"]["endReason"], "start_failed");
    app.sim.clear_call_faults();
    // and then one that works: nothing was told of the failed one in between
    app.start_session("ann", "red-room").await;
    assert_eq!(stream.next().await.expect("an event").kind, "replay_buffer_started");
    app.stop().await;
}

/// `clip_ready` is written before the files get their names; where that fails, the whole transaction is taken back.
async fn a_clip_that_could_not_be_published_was_never_told_to_be_ready(engine: Engine) {
    let app = Setup::on(engine).start("unpublished").await;
    let mut stream = Reader::of(&app, "ann", None).await;
    stream.placed().await;
    app.sim.publish_share("red-room", "ann", SMALL).expect("a share");
    let session = app.start_session("ann", "red-room").await;
    app.wait_for_buffer("ann", &session, 4.0).await;
    // a file where her directory would be
    let directory = app.dir.join("clips").join(keys::user_key(&UserId::new("ann")));
    std::fs::write(&directory, b"in the way").expect("a file");
    let body = json!({ "sessionId": session, "durationSeconds": 3, "precision": "keyframe" });
    let (status, answer) = app.post_async("ann", "/capture", body).await;
    assert_eq!(status, 202, "{answer:#}");
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "clip_failed") {
        kinds.push(stream.next().await.expect("an event").kind);
    }
    assert_eq!(
        kinds,
        ["replay_buffer_started", "segments_ready", "clip_processing", "clip_failed"]
    );
    let (_, clip) =
        app.get("ann", &format!("/clips/{}", answer["clipId"].as_str().expect("an id"))).await;
    assert_eq!(clip["status"], "failed");
    app.stop().await;
}
