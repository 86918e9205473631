//! The main job on real media, proved by decoding: what was on the screen when the button was pressed is in the clip.
//!
//! Every frame of the simulated screen carries a counter and the clock of the screen, so a clip says by itself which
//! moments it holds. Times printed are measured, not asserted: the machine that runs this may be busy.

mod harness;

use std::{sync::Arc, time::Duration};

use harness::{App, now_ms};
use livekit_replay::simulator::{Share, decode};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// One frame at 30 per second, rounded up.
const FRAME_MS: f64 = 33.4;
const PRESSES: usize = 30;

/// What decoding says of a clip.
struct Seen {
    first_ms: f64,
    end_ms: f64,
    /// Frames missing between the first and the last.
    holes: u64,
}

async fn decoded(app: &App, clip: &Value) -> Seen {
    let url = clip["downloadUrl"].as_str().expect("a link");
    let bytes = app.download(url).await;
    let file = app.dir.join(format!("{}.mp4", clip["id"].as_str().expect("an id")));
    std::fs::write(&file, &bytes).expect("written");
    let decoded = decode::decode_file(&file).await.expect("the clip decodes");
    let markers: Vec<_> = decoded.markers().map(|(_, marker)| marker).collect();
    let (first, last) = (markers.first().expect("frames"), markers.last().expect("frames"));
    let span = u64::from(last.counter) - u64::from(first.counter) + 1;
    Seen {
        first_ms: first.screen_ms as f64,
        end_ms: last.screen_ms as f64 + FRAME_MS,
        holes: span - markers.len() as u64,
    }
}

fn ms(clip: &Value, field: &str) -> f64 {
    let text = clip[field].as_str().unwrap_or_else(|| panic!("{field} in {clip:#}"));
    livekit_replay::domain::time::Timestamp::parse_rfc3339(text).expect("a time").as_micros() as f64
        / 1000.0
}

async fn press(app: Arc<App>, session: String, body: Value) -> (Value, i64) {
    let pressed = now_ms();
    let mut request = body;
    request["sessionId"] = json!(session);
    let (status, clip) = app.post_waiting("alice", "/capture", request).await;
    assert_eq!(status, 201, "{clip:#}");
    (clip, now_ms() - pressed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pressed_moment_is_in_the_clip() {
    let app = Arc::new(App::start("pressed").await);
    let share = Share { width: 640, height: 360, ..Share::default() };
    app.sim.publish_share("red-room", "alice:tab-1", share).expect("a share");
    let quiet = Share { width: 320, height: 180, audio: false, ..Share::default() };
    let bobs = app.sim.publish_share("red-room", "bob:tab-1", quiet).expect("a share");
    let alice = app.start_session("alice", "red-room").await;
    let bob = app.start_session("bob", "red-room").await;
    app.wait_for_buffer("alice", &alice, 21.0).await;

    let seed = std::env::var("REPLAY_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut presses = Vec::new();
    for _ in 0..PRESSES {
        tokio::time::sleep(Duration::from_millis(random.random_range(400..1800))).await;
        let body = json!({"durationSeconds": 20});
        presses.push(tokio::spawn(press(app.clone(), alice.clone(), body)));
    }
    let (mut shortfalls, mut ready) = (Vec::new(), Vec::new());
    for pressed in presses {
        let (clip, took_ms) = pressed.await.expect("no panic");
        let seen = decoded(&app, &clip).await;
        let missing_ms = ms(&clip, "requestedTo") - seen.end_ms;
        assert!(missing_ms <= 67.0, "{missing_ms} ms of the pressed moment are missing: {clip:#}");
        assert!(clip["shortfallMs"].as_i64().expect("a number") <= 67, "{clip:#}");
        assert!(seen.first_ms <= ms(&clip, "requestedFrom") + 1.0, "starts late: {clip:#}");
        assert!((seen.first_ms - ms(&clip, "startsAt")).abs() <= FRAME_MS, "{clip:#}");
        assert!((seen.end_ms - ms(&clip, "endsAt")).abs() <= FRAME_MS, "{clip:#}");
        assert_eq!(seen.holes, 0, "{clip:#}");
        shortfalls.push(missing_ms);
        ready.push(took_ms as f64);
    }
    table("missing at the press, ms", &mut shortfalls);
    table("press to ready, ms", &mut ready);

    // the 31st: the egress dies before the tail is out
    let (_, shown) = app.get("alice", &format!("/sessions/{alice}")).await;
    let egress = shown["egressId"].as_str().expect("an egress").to_owned();
    let dying = tokio::spawn(press(app.clone(), alice.clone(), json!({"durationSeconds": 20})));
    app.until("the capture is accepted", async || {
        app.get("alice", "/my-clips").await.1["total"].as_u64() == Some(PRESSES as u64 + 1)
    })
    .await;
    app.sim.kill_egress(&egress).expect("killed");
    let (clip, took_ms) = dying.await.expect("no panic");
    let seen = decoded(&app, &clip).await;
    let missing_ms = ms(&clip, "requestedTo") - seen.end_ms;
    let said = clip["shortfallMs"].as_f64().expect("a number");
    println!(
        "31st: decoding says {missing_ms:.0} ms are missing, shortfallMs {said}, ready after {took_ms} ms"
    );
    assert!(missing_ms > 100.0, "the egress died too late to prove anything");
    assert!((missing_ms - said).abs() <= FRAME_MS, "decoded {missing_ms}, said {said}");

    // six minutes after a share ended, the last two minutes are its last two minutes
    app.wait_for_buffer("bob", &bob, 122.0).await;
    app.sim.unpublish_share(&bobs).expect("unpublished");
    app.until("bob's session is over", async || {
        app.get("bob", &format!("/sessions/{bob}")).await.1["status"] == "stopped"
    })
    .await;
    let (_, over) = app.get("bob", &format!("/sessions/{bob}")).await;
    app.clock.advance_micros(360 * 1_000_000);
    let (status, clip) =
        app.post_waiting("bob", "/capture", json!({"sessionId": bob, "durationMinutes": 2})).await;
    assert_eq!(status, 201, "{clip:#}");
    let seen = decoded(&app, &clip).await;
    let media_end = ms(&over["buffer"], "endsAt");
    println!(
        "after six minutes: clip of {} s, ends {:.0} ms before the media",
        clip["durationSeconds"],
        media_end - seen.end_ms
    );
    assert!((media_end - ms(&clip, "endsAt")).abs() <= FRAME_MS, "{clip:#}\n{over:#}");
    // egress ends an unpublished share with a quarter of a second of black, which carries no clock
    let black_ms = media_end - seen.end_ms;
    assert!((-FRAME_MS..=300.0 + FRAME_MS).contains(&black_ms), "{black_ms}: {clip:#}");
    assert!(media_end - seen.first_ms >= 120_000.0 - FRAME_MS, "{clip:#}");
    assert_eq!(seen.holes, 0, "{clip:#}");
    Arc::into_inner(app).expect("nobody else").stop().await;
}

/// As soon as the picture is gone egress holds on to the last seconds, because the sound goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_pressed_moment_survives_a_picture_that_goes_while_the_sound_stays() {
    let app = Arc::new(App::start("half-gone").await);
    let share = Share { width: 320, height: 180, ..Share::default() };
    let share = app.sim.publish_share("red-room", "alice:tab-1", share).expect("a share");
    let session = app.start_session("alice", "red-room").await;
    app.wait_for_buffer("alice", &session, 8.0).await;
    let pressed = tokio::spawn(press(app.clone(), session.clone(), json!({"durationSeconds": 5})));
    app.until("the capture is accepted", async || {
        app.get("alice", "/my-clips").await.1["total"].as_u64() == Some(1)
    })
    .await;
    app.sim.unpublish(&share.video).expect("unpublished");
    let (clip, _) = pressed.await.expect("no panic");
    let seen = decoded(&app, &clip).await;
    let missing_ms = ms(&clip, "requestedTo") - seen.end_ms;
    assert!(missing_ms <= 67.0, "{missing_ms} ms of the pressed moment are missing: {clip:#}");
    assert_eq!(clip["gaps"], json!([]), "{clip:#}");
    Arc::into_inner(app).expect("nobody else").stop().await;
}

fn table(name: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    let (median, max) = (values[values.len() / 2], values[values.len() - 1]);
    println!("{name}: n {}, median {median:.0}, max {max:.0}", values.len());
}
