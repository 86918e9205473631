//! Filmstrips and estimates.

use std::{path::Path, process::Command};

use axum::http::StatusCode;
use serde_json::json;

use crate::{
    bench::{Bench, Reply},
    material::{self, Scratch},
    studio,
};

fn code(reply: &Reply) -> (u16, String) {
    let code = reply.json()["code"].as_str().unwrap_or_default().to_owned();
    (reply.status.as_u16(), code)
}

/// Begin, end, address and place of every cue.
fn cues(reply: &Reply) -> Vec<(String, String, [u32; 4])> {
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "text/vtt; charset=utf-8");
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    assert!(text.starts_with("WEBVTT\n\n"), "{text}");
    let cues = text.split("\n\n").filter(|block| block.contains("-->"));
    let cue = |block: &str| {
        let (times, target) = block.trim().split_once('\n').unwrap();
        let (address, place) = target.split_once("#xywh=").unwrap();
        let place: Vec<u32> = place.split(',').map(|side| side.parse().unwrap()).collect();
        (times.to_owned(), address.to_owned(), place.try_into().unwrap())
    };
    cues.map(cue).collect()
}

fn size_of(file: &Path) -> String {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// The number of the picture in a part of an image.
fn number_in(image: &Path, [x, y, width, height]: [u32; 4]) -> i64 {
    let tile = image.with_extension(format!("{x}-{y}.png"));
    let crop = format!("crop={width}:{height}:{x}:{y}");
    let cut = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-i"])
        .arg(image)
        .args(["-vf", &crop])
        .arg(&tile)
        .output()
        .unwrap();
    assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    material::watch(&tile, &[]).numbers()[0]
}

pub async fn a_filmstrip_shows_the_key_frames_where_they_were(bench: Bench) {
    let bench = studio::with_config(bench, |config| config.rate_limits.filmstrip_per_minute = 5);
    studio::begin_minute(&bench);
    let session = bench.session("ann", 40).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::next_epoch(&bench, &session, 2, 17).await;
    studio::write(&bench, &session, 2, 0..8).await;
    let (from, to) = (session.began, session.began.plus_seconds(34));
    let base = format!("/livekit-replay/sessions/{}/", session.id);
    let path = format!("{base}filmstrip?from={from}&to={to}&count=17");
    let reply = bench.ask("ann", "GET", &path, None).await;
    let cues = cues(&reply);
    // nothing was recorded in the middle of the last two seconds
    assert_eq!(cues.len(), 16);
    assert_eq!(cues[0].0, "00:00:00.000 --> 00:00:02.000");
    assert_eq!(cues[15].0, "00:00:30.000 --> 00:00:32.000");
    assert_eq!(cues[0].2, [0, 0, 160, 90]);
    assert_eq!(cues[11].2, [160, 90, 160, 90]);
    let address = format!("{base}{}", cues[0].1);
    assert!(cues.iter().all(|cue| cue.1 == cues[0].1));
    let image = bench.raw("GET", &address, None, &[]).await;
    assert_eq!((image.status, image.header("content-type")), (StatusCode::OK, "image/jpeg"));
    let scratch = Scratch::new();
    let file = scratch.0.join("strip.jpg");
    std::fs::write(&file, &image.bytes).unwrap();
    assert_eq!(size_of(&file), "mjpeg,1600,180");
    let shown: Vec<_> = cues.iter().map(|cue| number_in(&file, cue.2)).collect();
    let expected: Vec<_> = (0..8).chain(0..8).map(|second| second * 60).collect();
    assert_eq!(shown, expected);
    // made again, it is the same
    bench.deps.filmstrips.forget(&session.id);
    assert_eq!(bench.raw("GET", &address, None, &[]).await.bytes, image.bytes);
    assert_eq!(bench.work_files(), 0);
    assert_eq!(bench.deps.places.get(&bench.deps.config).available_permits(), 2);

    // nothing in the address can be changed
    let told = |reply: Reply| {
        let body = reply.json();
        (
            reply.status.as_u16(),
            body["code"].clone(),
            body["reason"].clone(),
            body["detail"].clone(),
        )
    };
    let runs = bench.deps.filmstrips.runs();
    bench.deps.filmstrips.forget(&session.id);
    let mut answers = Vec::new();
    for (a, b) in [
        ("n=17", "n=16"),
        ("&s=", "&s=A"),
        ("f=1", "f=2"),
        ("n=17", "n=4000000000"),
        ("n=17", "n=99999999999"),
        ("n=17", "n=0"),
        ("n=17&", ""),
        ("&t=", "&t=x"),
        ("&e=", "&e=x"),
        ("&g=0", "&g=1"),
        ("&h=", "&h=a"),
        (session.id.as_str(), "nobody"),
    ] {
        let other = address.replacen(a, b, 1);
        assert_ne!(other, address);
        answers.push(told(bench.raw("GET", &other, None, &[]).await));
    }
    // whoever has no link cannot tell what was recorded, nor make us work
    assert_eq!((answers[0].0, &answers[0].2), (401, &json!("bad_link")));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(bench.deps.filmstrips.runs(), runs);
    let bare = format!("{base}filmstrip.jpg?f=1&t=2&n=3");
    assert_eq!(bench.ask("ann", "GET", &bare, None).await.status, StatusCode::UNAUTHORIZED);
    let ask = async |user: &str, query: &str| {
        bench.ask(user, "GET", &format!("{base}filmstrip{query}"), None).await
    };
    assert_eq!(code(&ask("eve", "").await), (404, "not_found".into()));
    for (query, expected) in [
        ("?count=61", "validation_failed"),
        ("?count=0", "validation_failed"),
        (format!("?from={to}&to={from}").as_str(), "window_invalid"),
        ("?size=3", "validation_failed"),
    ] {
        assert_eq!(code(&ask("ann", query).await), (422, expected.into()), "{query}");
    }
    let sixth = ask("ann", "").await;
    assert_eq!(code(&sixth), (429, "rate_limited".into()));
    assert_eq!(sixth.header("ratelimit-limit"), "5");
    // discarded: what is kept in memory is not shown any more
    let path = format!("/sessions/{}", session.id);
    assert_eq!(bench.ask("ann", "DELETE", &path, None).await.status, StatusCode::OK);
    let gone = told(bench.raw("GET", &address, None, &[]).await);
    assert_eq!((gone.0, gone.2), (401, json!("bad_link")));
    bench.close().await;
}

pub async fn an_image_is_made_once_however_many_ask(bench: Bench) {
    let session = bench.session("cleo", 40).await;
    studio::write(&bench, &session, 1, 0..8).await;
    let (from, to) = (session.began, session.began.plus_seconds(16));
    let base = format!("/livekit-replay/sessions/{}/", session.id);
    let path = format!("{base}filmstrip?from={from}&to={to}&count=8");
    let cues = cues(&bench.ask("cleo", "GET", &path, None).await);
    let address = format!("{base}{}", cues[0].1);
    let runs = bench.deps.filmstrips.runs();
    assert_eq!(runs, 1);
    bench.deps.filmstrips.forget(&session.id);
    let asked = (0..8).map(|_| bench.raw("GET", &address, None, &[]));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(answers.iter().all(|answer| answer.bytes == answers[0].bytes));
    assert_eq!(bench.deps.filmstrips.runs(), runs + 1);
    // a later recording of the same time: what is kept is what the link was made for, and made again it would not be
    studio::next_epoch(&bench, &session, 2, 4).await;
    studio::write(&bench, &session, 2, 0..4).await;
    assert_eq!(bench.raw("GET", &address, None, &[]).await.bytes, answers[0].bytes);
    bench.deps.filmstrips.forget(&session.id);
    let moved = bench.raw("GET", &address, None, &[]).await;
    assert_eq!(code(&moved), (404, "not_found".into()));
    assert_eq!(bench.deps.filmstrips.runs(), runs + 1);
    bench.close().await;
}

pub async fn an_estimate_says_what_a_capture_would_take(bench: Bench) {
    let session = bench.session("bob", 40).await;
    studio::write(&bench, &session, 1, 0..4).await;
    studio::next_epoch(&bench, &session, 2, 9).await;
    studio::write(&bench, &session, 2, 0..4).await;
    studio::end(&bench, &session, 2, 18).await;
    let path = format!("/sessions/{}/estimate?startSeconds=5&endSeconds=12", session.id);
    let found = bench.ask("bob", "GET", &path, None).await.json();
    let recording = studio::recording();
    let size = |n: usize| std::fs::metadata(&recording.segments[n].0).unwrap().len();
    let bytes = size(2) + size(3) + size(0) + size(1);
    assert_eq!(found["bytes"], bytes, "{found:#}");
    assert_eq!(found["reservationBytes"], bytes + (1 << 20));
    assert_eq!(found["segments"], 4);
    assert_eq!(found["from"], json!(session.began.plus_seconds(5)));
    assert_eq!(found["to"], json!(session.began.plus_seconds(12)));
    assert_eq!(found["durationSeconds"], 6.0);
    assert_eq!(found["gaps"].as_array().unwrap().len(), 1);
    assert_eq!(found["gaps"][0]["from"], json!(session.began.plus_seconds(8)));
    assert_eq!(found["gaps"][0]["reason"], "restart");
    // nothing was taken by asking, and a capture takes just that
    assert_eq!(bench.account("bob").await.reserved_bytes, 0);
    let asked = [("prefer", "respond-async")];
    bench.ask_with("bob", "POST", "/capture", Some(session.window(5, 12)), &asked).await;
    let reserved = bench.account("bob").await.reserved_bytes;
    assert_eq!(found["reservationBytes"], reserved);

    let base = format!("/sessions/{}/estimate", session.id);
    assert_eq!(code(&bench.ask("eve", "GET", &path, None).await), (404, "not_found".into()));
    assert_eq!(code(&bench.ask("bob", "GET", &base, None).await), (422, "window_invalid".into()));
    let (from, to) = (session.began.plus_seconds(30), session.began.plus_seconds(34));
    let late = bench.ask("bob", "GET", &format!("{base}?from={from}&to={to}"), None).await;
    assert_eq!(code(&late), (404, "no_segments_in_range".into()));
    bench.close().await;
}
