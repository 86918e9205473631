//! The main job on real media: start, buffer, capture, decode.

mod harness;

use std::time::Duration;

use harness::App;
use livekit_replay::simulator::{Share, decode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_pressed_moment_is_in_the_clip() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_default())
        .try_init();
    let app = App::start("pressed").await;
    app.sim
        .publish_share(
            "red-room",
            "alice:tab-1",
            Share { width: 640, height: 360, ..Share::default() },
        )
        .expect("share");
    let (status, session) = app.post("alice", "/start", json!({"roomName": "red-room"})).await;
    assert_eq!(status, 201, "{session}");
    let id = session["id"].as_str().expect("id").to_owned();
    tokio::time::sleep(Duration::from_secs(25)).await;
    let (_, shown) = app.get("alice", "/session").await;
    println!("{shown:#}");
    let pressed = chrono_now_ms();
    let (status, clip) =
        app.post("alice", "/capture", json!({"sessionId": id, "durationSeconds": 10})).await;
    println!("{status} {clip:#} after {} ms", chrono_now_ms() - pressed);
    assert_eq!(status, 201);
    let url = format!(
        "{}{}",
        app.base.trim_end_matches("/livekit-replay"),
        clip["downloadUrl"].as_str().expect("url")
    );
    let bytes = app.http.get(url).send().await.expect("file").bytes().await.expect("bytes");
    let file = app.dir.join("out.mp4");
    std::fs::write(&file, &bytes).expect("written");
    let decoded = decode::decode_file(&file).await.expect("decodes");
    let markers: Vec<_> = decoded.markers().collect();
    println!(
        "{} frames, first {:?} last {:?} pressed {pressed} to {}",
        markers.len(),
        markers.first(),
        markers.last(),
        clip["requestedTo"]
    );
    app.stop().await;
}

fn chrono_now_ms() -> i64 {
    use livekit_replay::clock::Clock;
    livekit_replay::clock::SystemClock.now().as_millis()
}
