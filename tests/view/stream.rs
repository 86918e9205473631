//! A window as a video, sent while it is made.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::{Request, StatusCode},
    response::Response,
};
use futures::StreamExt;
use livekit_replay::{domain::id::ClipId, flow::capture, jobs, store::pin};
use serde_json::json;
use tower::ServiceExt;

use crate::{
    bench::{Bench, Recorded, Reply},
    material::{self, Scratch},
    studio,
};

async fn recorded<'a>(bench: &'a Bench, user: &str) -> Recorded<'a> {
    let session = bench.session(user, 20).await;
    studio::write(bench, &session, 1, 0..8).await;
    studio::end(bench, &session, 1, 16).await;
    session
}

fn window(session: &Recorded<'_>, from: f64, to: f64) -> String {
    format!("/sessions/{}/stream?startSeconds={from}&endSeconds={to}", session.id)
}

/// The answer with its body unread.
async fn open(bench: &Bench, user: &str, path: &str) -> Response {
    let bearer = format!("Bearer {}", bench.token_as(user, Some("moderator")));
    let request = Request::get(format!("/livekit-replay{path}")).header("authorization", bearer);
    bench.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// Pins of the session.
async fn pins(bench: &Bench, session: &Recorded<'_>) -> Vec<pin::Model> {
    pin::list_holding(bench.deps.db.conn(), &session.id, bench.now()).await.unwrap()
}

/// Waits until the stream's work has let go of everything.
async fn let_go(bench: &Bench, session: &Recorded<'_>) {
    let over = async {
        while !pins(bench, session).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), over).await.expect("the pin goes");
    let workers = bench.deps.config.capture.workers;
    let places = bench.deps.places.get(&bench.deps.config);
    // a clip's poster may still hold one
    until("all places are free", || places.available_permits() == workers).await;
}

/// Waits until something is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect(what);
}

async fn rest_of(mut body: BodyDataStream, mut bytes: Vec<u8>) -> Result<Vec<u8>, axum::Error> {
    while let Some(piece) = body.next().await {
        bytes.extend(piece?);
    }
    Ok(bytes)
}

pub async fn a_stream_begins_before_it_ends_and_shows_its_window(bench: Bench) {
    let session = recorded(&bench, "ann").await;
    let answer = open(&bench, "ann", &window(&session, 3.0, 15.0)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "video/mp4");
    assert!(!answer.headers().contains_key("content-length"));
    let disposition = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(disposition.starts_with("attachment; filename=\"Replay 2"), "{disposition}");
    let mut body = answer.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert_eq!(&first[4..8], b"ftyp");
    // more than all that can wait between FFmpeg and us is still to come: it is being made
    let held = pins(&bench, &session).await;
    assert_eq!(held.len(), 1);
    assert!(held[0].expires_at.unwrap() <= bench.now().plus_seconds(60));
    // but nobody reads: its place is for others meanwhile
    let places = bench.deps.places.get(&bench.deps.config);
    until("the place is let go", || places.available_permits() == 2).await;
    assert_eq!(pins(&bench, &session).await.len(), 1);
    let bytes = rest_of(body, first.to_vec()).await.unwrap();
    assert!(bytes.windows(4).any(|four| four == b"moof"));
    let scratch = Scratch::new();
    let file = scratch.0.join("stream.mp4");
    std::fs::write(&file, &bytes).unwrap();
    let seen = material::watch(&file, &[]);
    let numbers = seen.numbers();
    // from the key frame at the second second to the fifteenth, and a picture or two that others needed
    assert_eq!(numbers[..390], (60..450).collect::<Vec<_>>());
    assert!(numbers.len() <= 394, "{}", numbers.len());
    assert!(seen.worst_sync().abs() < 0.04, "{}", seen.worst_sync());
    assert!(seen.longest_gap() < 0.04);
    let_go(&bench, &session).await;
    assert_eq!(bench.work_files(), 0);
    assert_eq!(bench.account("ann").await.reserved_bytes, 0);

    // across an epoch change, and what is not there yet is waited for
    let session = bench.session("amy", 20).await;
    studio::write(&bench, &session, 1, 0..4).await;
    studio::next_epoch(&bench, &session, 2, 9).await;
    studio::write(&bench, &session, 2, 0..2).await;
    let path = window(&session, 4.0, 15.0);
    let (answer, ()) =
        tokio::join!(open(&bench, "amy", &path), studio::write(&bench, &session, 2, 2..4));
    let bytes = rest_of(answer.into_body().into_data_stream(), Vec::new()).await.unwrap();
    std::fs::write(&file, &bytes).unwrap();
    let numbers = material::watch(&file, &[]).numbers();
    let expected: Vec<_> = (120..240).chain(0..180).collect();
    assert_eq!(numbers[..300], expected);
    let_go(&bench, &session).await;
    bench.close().await;
}

pub async fn a_reader_who_leaves_ends_the_work_and_lets_the_segments_go(bench: Bench) {
    let session = recorded(&bench, "bob").await;
    let answer = open(&bench, "bob", &window(&session, 0.0, 16.0)).await;
    let mut body = answer.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!(pins(&bench, &session).await.len(), 1);
    drop(body);
    let_go(&bench, &session).await;
    // also one who leaves before anything came
    let live = bench.session("bea", 20).await;
    studio::write(&bench, &live, 1, 0..2).await;
    let path = window(&live, 0.0, 19.0);
    {
        let asked = open(&bench, "bea", &path);
        tokio::pin!(asked);
        let pinned = async {
            while pins(&bench, &live).await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut asked => panic!("answered before its segments came"),
            () = pinned => {}
        }
    }
    let_go(&bench, &live).await;
    bench.close().await;
}

pub async fn half_a_video_never_looks_whole(bench: Bench) {
    let session = recorded(&bench, "cat").await;
    // known as usable, and spoilt since
    std::fs::write(session.directory.join("seg_00006.ts"), vec![7; 188 * 40]).unwrap();
    let answer = open(&bench, "cat", &window(&session, 0.0, 16.0)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let broken = rest_of(answer.into_body().into_data_stream(), Vec::new()).await;
    assert!(broken.is_err());
    let_go(&bench, &session).await;
    // and on the wire: no end of the last piece
    let server = studio::serve(&bench).await;
    let url = format!("http://{server}/livekit-replay{}", window(&session, 0.0, 16.0));
    let answer =
        reqwest::Client::new().get(url).bearer_auth(bench.token_as("cat", Some("moderator")));
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    let_go(&bench, &session).await;
    // spoilt where it begins: a problem, not a video
    std::fs::write(session.directory.join("seg_00000.ts"), vec![7; 188 * 40]).unwrap();
    let answer = bench.ask("cat", "GET", &window(&session, 0.0, 4.0), None).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["code"].clone()),
        (422, json!("no_usable_segments"))
    );
    let_go(&bench, &session).await;
    bench.close().await;
}

pub async fn a_stream_is_a_capture_to_rights_and_limits(bench: Bench) {
    let bench = studio::with_config(bench, |config| {
        config.capture.wait = Duration::from_millis(50);
        config.rate_limits.capture_per_minute = 9;
    });
    studio::begin_minute(&bench);
    let session = recorded(&bench, "dan").await;
    let path = window(&session, 2.0, 4.0);
    let code =
        |reply: &Reply| (reply.status.as_u16(), reply.json()["code"].as_str().unwrap().to_owned());
    let ask = async |user: &str, role: Option<&str>, path: &str| {
        let bearer = format!("Bearer {}", bench.token_as(user, role));
        bench.raw("GET", path, None, &[("authorization", &bearer)]).await
    };
    assert_eq!(bench.raw("GET", &path, None, &[]).await.status.as_u16(), 401);
    assert_eq!(code(&ask("dan", Some("member"), &path).await), (403, "permission_denied".into()));
    assert_eq!(code(&ask("eve", Some("moderator"), &path).await), (404, "not_found".into()));
    assert_eq!(code(&ask("eve", Some("admin"), &path).await), (403, "not_owner".into()));
    let head = bench.ask("dan", "HEAD", &path, None).await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(head.header("ratelimit-remaining"), "7");
    let base = format!("/sessions/{}/stream", session.id);
    let (from, to) = (session.began.plus_seconds(-90), session.began.plus_seconds(-80));
    let long_ago = format!("?from={from}&to={to}");
    for (query, expected) in [
        ("", (422, "window_invalid")),
        ("?durationSeconds=4&startSeconds=1&endSeconds=2", (422, "window_invalid")),
        ("?startSeconds=1&endSeconds=40", (422, "window_invalid")),
        ("?startSeconds=1&endSeconds=2&postSeconds=1", (422, "validation_failed")),
        (long_ago.as_str(), (404, "no_segments_in_range")),
    ] {
        let reply = bench.ask("dan", "GET", &format!("{base}{query}"), None).await;
        assert_eq!(code(&reply), (expected.0, expected.1.to_owned()), "{query}");
    }
    // every place taken
    let places = bench.deps.places.get(&bench.deps.config);
    let taken = places.acquire_many(2).await.unwrap();
    let reply = bench.ask("dan", "GET", &path, None).await;
    assert_eq!(code(&reply), (503, "overloaded".into()));
    assert_eq!(reply.header("retry-after"), "5");
    drop(taken);
    let_go(&bench, &session).await;
    // an idempotency key is no way around the limit
    let keyed = [("idempotency-key", "k")];
    let last = bench.ask_with("dan", "GET", &path, None, &keyed).await;
    assert_eq!(last.status, StatusCode::OK);
    assert_eq!(last.header("ratelimit-remaining"), "0");
    let reply = bench.ask_with("dan", "GET", &path, None, &keyed).await;
    assert_eq!(code(&reply), (429, "rate_limited".into()));
    let capture = bench.ask("dan", "POST", "/capture", Some(session.window(2, 4))).await;
    assert_eq!(code(&capture), (429, "rate_limited".into()));
    let_go(&bench, &session).await;
    bench.close().await;
}

pub async fn who_does_not_read_keeps_nobody_from_capturing(bench: Bench) {
    let bench = studio::with_config(bench, |config| {
        config.capture.workers = 1;
        config.capture.wait = Duration::from_secs(2);
    });
    let (session, other) = (recorded(&bench, "gus").await, recorded(&bench, "hal").await);
    let answer = open(&bench, "gus", &window(&session, 0.0, 16.0)).await;
    let mut body = answer.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    let (places, seats) = {
        let (places, config) = (&bench.deps.places, &bench.deps.config);
        (places.get(config), places.seats(config))
    };
    until("the place is let go", || places.available_permits() == 1).await;
    // the only seat is taken, by one stream of one user
    assert_eq!(seats.available_permits(), 0);
    for (user, whose) in [("gus", &session), ("hal", &other)] {
        let reply = bench.ask(user, "GET", &window(whose, 0.0, 16.0), None).await;
        let code = reply.json()["code"].clone();
        assert_eq!((reply.status.as_u16(), code), (503, json!("overloaded")), "{user}");
        assert_eq!(reply.header("retry-after"), "5");
    }
    let asked = [("prefer", "respond-async")];
    let clip = other.window(2, 6);
    let clip = bench.ask_with("hal", "POST", "/capture", Some(clip), &asked).await.json();
    let door = tokio::spawn(jobs::run(bench.deps.clone()));
    let id = ClipId::new(clip["id"].as_str().unwrap());
    let done = capture::settled(&bench.deps, &id, Duration::from_secs(60)).await;
    assert_eq!(done.unwrap().unwrap().status.as_str(), "ready");
    // the stream waited all the while, and is whole
    assert_eq!(pins(&bench, &session).await.len(), 1);
    assert!(rest_of(body, first.to_vec()).await.is_ok());
    let_go(&bench, &session).await;
    until("the seat is free", || seats.available_permits() == 1).await;
    bench.deps.stop.cancel();
    door.await.unwrap();
    bench.close().await;
}

pub async fn who_never_reads_again_is_broken_off(bench: Bench) {
    let bench =
        studio::with_config(bench, |config| config.capture.stall = Duration::from_millis(500));
    let session = recorded(&bench, "ida").await;
    let answer = open(&bench, "ida", &window(&session, 0.0, 16.0)).await;
    let mut body = answer.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    let_go(&bench, &session).await;
    // nothing of it is left running, though the reader is still there
    let tasks = bench.deps.tasks.clone();
    until("the work ends", || tasks.is_empty()).await;
    assert!(rest_of(body, first.to_vec()).await.is_err());
    bench.close().await;
}
