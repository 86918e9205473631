//! Stores that are read-only, broken or not there: what is answered meanwhile, and that everything goes on afterwards.

use serde_json::{Value, json};

use crate::{
    faulty_store::Mode,
    ground::{Ground, ROOM, USER, Which},
    harness::{Engine, on_both_engines},
};

on_both_engines!(
    a_read_only_clip_store_serves_and_makes_no_clip,
    a_clip_store_with_errors_fails_no_clip,
    a_clip_store_that_vanished_loses_nothing,
    a_clip_store_that_vanishes_while_late_segments_are_awaited_gets_no_clip,
    a_read_only_buffer_store_can_be_captured_from,
    a_buffer_store_with_errors_ends_no_session,
    a_buffer_store_that_vanished_ends_no_session_and_is_not_filled,
);

/// How a store is unwell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    ReadOnly,
    Broken,
    Gone,
}

impl Ill {
    fn begin(self, ground: &Ground, which: Which) {
        match self {
            Ill::ReadOnly => ground.store(which).set(Mode::ReadOnly),
            Ill::Broken => ground.store(which).set(Mode::Broken),
            Ill::Gone => ground.store(which).vanish(),
        }
    }

    fn end(self, ground: &Ground, which: Which) {
        match self {
            Ill::ReadOnly | Ill::Broken => {
                ground.store(which).set(Mode::Pass);
            }
            Ill::Gone => ground.store(which).come_back(),
        }
    }

    fn status(self) -> &'static str {
        match self {
            Ill::ReadOnly => "degraded",
            Ill::Broken | Ill::Gone => "fail",
        }
    }
}

async fn a_read_only_clip_store_serves_and_makes_no_clip(engine: Engine) {
    clip_store(Ill::ReadOnly, engine).await;
}

async fn a_clip_store_with_errors_fails_no_clip(engine: Engine) {
    clip_store(Ill::Broken, engine).await;
}

async fn a_clip_store_that_vanished_loses_nothing(engine: Engine) {
    clip_store(Ill::Gone, engine).await;
}

async fn clip_store(ill: Ill, engine: Engine) {
    let Some(ground) = Ground::new("clips", engine).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 5.0).await;
    let clip = ground.ready_clip(&session).await;
    let caught = ground.accepted_clip(&session).await;
    ill.begin(&ground, Which::Clips);

    app.until("the clip waits for its store", async || {
        let shown = ground.clip(&caught).await;
        assert_eq!(shown["status"], "processing", "{shown:#}");
        shown["error"]["code"] == "storage_unavailable"
    })
    .await;
    ground.until_store_is(Which::Clips, ill.status()).await;
    let health = ground.health().await;
    assert_eq!(health["storage"]["clips"]["writable"], false, "{health:#}");
    assert_eq!(health["storage"]["buffer"]["status"], "ok", "{health:#}");
    let root = app.base.trim_end_matches("/livekit-replay");
    let ready = app.http.get(format!("{root}/health/ready")).send().await.unwrap().status();
    let file = format!("{root}{}", clip["downloadUrl"].as_str().unwrap());
    let file = app.http.get(file).send().await.unwrap();
    if ill == Ill::ReadOnly {
        assert_eq!((ready.as_u16(), file.status().as_u16()), (200, 200));
    } else {
        assert_eq!((ready.as_u16(), file.status().as_u16()), (503, 503));
        assert_eq!(file.json::<Value>().await.unwrap()["code"], "storage_unavailable");
    }
    let (status, refused) =
        app.post(USER, "/capture", json!({ "sessionId": session, "durationSeconds": 3 })).await;
    assert_eq!((status, &refused["code"]), (503, &json!("storage_unavailable")), "{refused:#}");
    let trim = json!({ "startSeconds": 0, "endSeconds": 1 });
    let path = format!("/clips/{}/trim", clip["clipId"].as_str().unwrap());
    let (status, refused) = app.post(USER, &path, trim).await;
    assert_eq!((status, &refused["code"]), (503, &json!("storage_unavailable")), "{refused:#}");
    // what tidies up touches nothing and calls nothing lost
    let _ = livekit_replay::flow::reap::run(&app.deps, true, false).await;
    assert_eq!(ground.clip(clip["clipId"].as_str().unwrap()).await["status"], "ready");

    ill.end(&ground, Which::Clips);
    let made = ground.until_ready(&caught).await;
    assert!(made["error"].is_null(), "{made:#}");
    ground.until_store_is(Which::Clips, "ok").await;
    ground.assert_whole(&made).await;
    ground.assert_whole(&clip).await;
    let again = ground.ready_clip(&session).await;
    ground.assert_whole(&again).await;
    ground.assert_settled().await;
    ground.close().await;
}

/// The attempt has found its store and waits for the last segment: what is made after that would lie in the directory
/// below the mount, and be gone when the store comes back.
async fn a_clip_store_that_vanishes_while_late_segments_are_awaited_gets_no_clip(engine: Engine) {
    let Some(ground) = Ground::new("late", engine).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 5.0).await;
    let pressed = app.deps.clock.now();
    let (from, to) = (pressed.plus_seconds(-3).to_rfc3339(), pressed.plus_seconds(4).to_rfc3339());
    let window = json!({ "sessionId": session, "from": from, "to": to });
    let (status, clip) = app.post_async(USER, "/capture", window).await;
    assert_eq!(status, 202, "{clip:#}");
    let caught = clip["clipId"].as_str().expect("an id");
    let at_it = pressed.plus_seconds(2);
    app.until("the attempt waits", async || app.deps.clock.now() > at_it).await;
    ground.clips.vanish();

    app.until("the clip waits for its store", async || {
        let shown = ground.clip(caught).await;
        assert_eq!(shown["status"], "processing", "{shown:#}");
        shown["error"]["code"] == "storage_unavailable"
    })
    .await;
    let left = std::fs::read_dir(ground.clips.path()).expect("a directory").count();
    assert_eq!(left, 0, "something was made where nothing is mounted");

    ground.clips.come_back();
    let made = ground.until_ready(caught).await;
    ground.assert_whole(&made).await;
    ground.assert_settled().await;
    ground.close().await;
}

async fn a_read_only_buffer_store_can_be_captured_from(engine: Engine) {
    buffer_store(Ill::ReadOnly, engine).await;
}

async fn a_buffer_store_with_errors_ends_no_session(engine: Engine) {
    buffer_store(Ill::Broken, engine).await;
}

async fn a_buffer_store_that_vanished_ends_no_session_and_is_not_filled(engine: Engine) {
    buffer_store(Ill::Gone, engine).await;
}

async fn buffer_store(ill: Ill, engine: Engine) {
    let Some(ground) = Ground::new("buffer", engine).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 5.0).await;
    let caught = ground.accepted_clip(&session).await;
    ill.begin(&ground, Which::Buffer);
    ground.until_store_is(Which::Buffer, ill.status()).await;
    let health = ground.health().await;
    assert_eq!(health["storage"]["buffer"]["writable"], false, "{health:#}");
    assert_eq!(health["storage"]["clips"]["status"], "ok", "{health:#}");

    let share = livekit_replay::simulator::Share { width: 320, height: 180, ..Default::default() };
    app.sim.publish_share(ROOM, "bob:tab", share).unwrap();
    let (status, refused) = app.post("bob", "/start", json!({ "roomName": ROOM })).await;
    assert_eq!((status, &refused["code"]), (503, &json!("storage_unavailable")), "{refused:#}");
    let capture = json!({ "sessionId": session, "durationSeconds": 3 });
    if ill == Ill::ReadOnly {
        let made = ground.ready_clip(&session).await;
        ground.assert_whole(&made).await;
    } else {
        let (status, refused) = app.post(USER, "/capture", capture).await;
        assert_eq!((status, &refused["code"]), (503, &json!("storage_unavailable")), "{refused:#}");
    }
    if ill == Ill::Gone {
        let left = std::fs::read_dir(ground.buffer.path()).unwrap().count();
        assert_eq!(left, 0, "something was made where nothing is mounted");
    }

    ill.end(&ground, Which::Buffer);
    ground.until_store_is(Which::Buffer, "ok").await;
    let made = ground.until_ready(&caught).await;
    ground.assert_whole(&made).await;
    let (_, shown) = app.get(USER, &format!("/sessions/{session}")).await;
    assert_eq!(shown["status"], "active", "{shown:#}");
    let (status, started) = app.post("bob", "/start", json!({ "roomName": ROOM })).await;
    assert_eq!(status, 201, "{started:#}");
    let again = ground.ready_clip(&session).await;
    ground.assert_whole(&again).await;
    ground.assert_settled().await;
    ground.close().await;
}
