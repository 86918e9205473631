//! Stores without room: a clip store that fills up at every point of a clip's making, and a buffer store that egress
//! cannot write to any more.

use livekit_replay::domain::lifecycle::SessionStatus;
use serde_json::json;

use crate::{
    faulty_store::Mode,
    ground::{Ground, ROOM, USER, Which},
    harness::{Engine, on_both_engines},
    reader::Reader,
};

on_both_engines!(
    a_full_clip_store_refuses_new_captures_and_serves_what_is_there,
    a_full_buffer_store_degrades_its_sessions_until_there_is_room,
);

/// Bytes and names that may still be written when room ends.
fn points(size: u64) -> Vec<Mode> {
    let bytes = |bytes: u64| Mode::Quota { bytes, names: u64::MAX };
    let names = |names: u64| Mode::Quota { bytes: u64::MAX, names };
    // none; the beginning, block borders and places all along the video; its last byte; the record behind it
    let mut points: Vec<Mode> = [0, 1, 4095, 4096, 4097].map(bytes).into();
    points.extend((1..10).map(|tenth| bytes(size * tenth / 10)));
    points.extend([size - 1, size, size + 1, size + 200].map(bytes));
    // the work directory, the video in it, the record's draft, the two renames, the poster's draft and rename
    points.extend((0..8).map(names));
    points
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clip_store_that_is_full_at_any_byte_shows_nothing_partial_and_the_clip_is_made_when_there_is_room()
 {
    let Some(ground) = Ground::new("full", Engine::Sqlite).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 6.0).await;
    let (_, shown) = app.get(USER, &format!("/sessions/{session}")).await;
    // always the same seconds, so that every point is where it is meant to be
    let buffer = &shown["buffer"];
    let window =
        json!({ "sessionId": session, "from": buffer["startsAt"], "to": buffer["endsAt"] });
    let (status, first) = app.post_waiting(USER, "/capture", window.clone()).await;
    assert_eq!(status, 201, "{first:#}");
    let size = first["sizeBytes"].as_u64().unwrap();
    let (mut waited, mut met) = (0, 0);
    let points = points(size);
    for point in &points {
        let hurt = ground.clips.hurt();
        ground.clips.set(*point);
        let (status, clip) = app.post_async(USER, "/capture", window.clone()).await;
        assert_eq!(status, 202, "{clip:#}");
        let clip = clip["clipId"].as_str().unwrap().to_owned();
        let shown = async || {
            let shown = ground.clip(&clip).await;
            assert_ne!(shown["status"], "failed", "{point:?}: {shown:#}");
            shown
        };
        app.until("the clip waits for room, or was made", async || {
            let shown = shown().await;
            shown["error"]["code"] == "insufficient_disk" || shown["status"] == "ready"
        })
        .await;
        let now = shown().await;
        met += u32::from(ground.clips.hurt() > hurt);
        let (_, quota) = app.get(USER, "/me/quota").await;
        if now["status"] == "processing" {
            waited += 1;
            // promised and not taken; nothing of it can be had
            assert!(quota["reservedBytes"].as_u64().unwrap() > 0, "{point:?}: {quota:#}");
            let (status, _) = app.get(USER, &format!("/clips/{clip}/file")).await;
            assert_eq!(status, 409, "{point:?}");
        } else {
            assert_eq!(quota["reservedBytes"], 0, "{point:?}: {quota:#}");
            ground.assert_whole(&now).await;
        }
        ground.clips.set(Mode::Pass);
        let made = ground.until_ready(&clip).await;
        ground.until_store_is(Which::Clips, "ok").await;
        assert!(made["error"].is_null(), "{made:#}");
        ground.assert_whole(&made).await;
        assert_eq!(made["sizeBytes"].as_u64(), Some(size), "the same seconds");
        println!("{point:?}: {}", now["status"]);
    }
    println!("{} points, room ended in {met}, the clip waited in {waited}", points.len());
    assert!(waited >= 20, "too few points where a clip meets the end of the room");
    ground.assert_settled().await;
    ground.close().await;
}

async fn a_full_clip_store_refuses_new_captures_and_serves_what_is_there(engine: Engine) {
    let Some(ground) = Ground::new("full-clips", engine).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 5.0).await;
    let clip = ground.ready_clip(&session).await;
    ground.clips.set(Mode::FULL);
    let (status, refused) =
        app.post(USER, "/capture", json!({ "sessionId": session, "durationSeconds": 3 })).await;
    assert_eq!((status, &refused["code"]), (507, &json!("insufficient_disk")), "{refused:#}");
    ground.until_store_is(Which::Clips, "degraded").await;
    let health = ground.health().await;
    assert_eq!(health["storage"]["clips"]["writable"], false);
    assert_eq!(health["storage"]["clips"]["freeBytes"], 0);
    ground.assert_whole(&clip).await;
    ground.clips.set(Mode::Pass);
    ground.until_store_is(Which::Clips, "ok").await;
    let made = ground.ready_clip(&session).await;
    ground.assert_whole(&made).await;
    ground.assert_settled().await;
    ground.close().await;
}

async fn a_full_buffer_store_degrades_its_sessions_until_there_is_room(engine: Engine) {
    // here egress writes through the mount
    let through = |config: &mut livekit_replay::config::Config| {
        config.livekit.egress_output_path.clone_from(&config.storage.buffer);
        config.buffer.no_segment = std::time::Duration::from_secs(10);
    };
    let Some(ground) = Ground::with("full-buffer", engine, through).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 5.0).await;
    let mut events = Reader::of(app, USER, None).await;
    events.placed().await;
    ground.buffer.set(Mode::FULL);
    let path = format!("/sessions/{session}");
    let is = async |status: SessionStatus| {
        app.until(status.as_str(), async || {
            let (_, shown) = app.get(USER, &path).await;
            assert_ne!(shown["status"], "failed", "{shown:#}");
            shown["status"] == status.as_str()
        })
        .await;
    };
    ground.until_store_is(Which::Buffer, "degraded").await;
    is(SessionStatus::Degraded).await;
    let (_, shown) = app.get(USER, &path).await;
    assert_eq!(shown["degradedReason"], "insufficient_disk", "{shown:#}");
    // what was recorded before can be captured all the same
    let window = json!({
        "sessionId": session, "from": shown["buffer"]["startsAt"], "to": shown["buffer"]["endsAt"],
    });
    let (status, made) = app.post_waiting(USER, "/capture", window).await;
    assert_eq!(status, 201, "{made:#}");
    ground.assert_whole(&made).await;
    ground.buffer.set(Mode::Pass);
    ground.until_store_is(Which::Buffer, "ok").await;
    is(SessionStatus::Active).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|kind| kind != "replay_buffer_restarted") {
        told.push(events.next().await.expect("the stream goes on").kind);
    }
    assert!(told.iter().any(|kind| kind == "replay_buffer_degraded"), "{told:?}");
    app.until("there are three seconds again", async || {
        let body = json!({ "sessionId": session, "durationSeconds": 3 });
        let (status, clip) = app.post_waiting(USER, "/capture", body).await;
        assert!(status == 201 || clip["code"] == "no_segments_in_range", "{status} {clip:#}");
        status == 201
    })
    .await;
    ground.close().await;
}
