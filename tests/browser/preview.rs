//! The service's previews in a real browser: a page of another origin, hls.js, signed addresses.

use std::net::SocketAddr;

use axum::{
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use livekit_replay::config::Config;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    assert_played, assert_shown,
    bench::{Bench, On},
    browser,
    chromium::watch_from,
    hls_item,
    material::{FPS, Kind, Recording, Scratch, TWO_SECONDS},
    screenshot, studio,
};

/// The middle of a picture's time.
fn middle(number: i64) -> f64 {
    (number as f64 + 0.5) / FPS as f64
}

/// A page to come, and its origin.
async fn page() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, origin)
}

async fn bench_for(origin: &str) -> Bench {
    let bench = Bench::on(On::Sqlite).await.unwrap();
    let origins = vec![origin.to_owned()];
    studio::with_config(bench, |config: &mut Config| config.server.cors_origins = origins)
}

/// A second recording, whose numbers are not those of the first.
fn later() -> Recording {
    Recording::make(Kind { first_number: 900, ..TWO_SECONDS })
}

async fn preview_url(bench: &Bench, server: SocketAddr, session: &str) -> String {
    let shown = bench.ask("ann", "GET", &format!("/sessions/{session}"), None).await.json();
    format!("http://{server}{}", shown["previewUrl"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_of_the_service_plays_across_a_restart() {
    let Some(browser) = browser() else { return };
    let (listener, origin) = page().await;
    let bench = bench_for(&origin).await;
    let session = bench.session("ann", 20).await;
    studio::write(&bench, &session, 1, 0..4).await;
    // a second without a picture, then another egress
    studio::next_epoch(&bench, &session, 2, 9).await;
    studio::write_of(&later(), &bench, &session, 2, 0..4).await;
    studio::end(&bench, &session, 2, 18).await;
    let server = studio::serve(&bench).await;
    let url = preview_url(&bench, server, session.id.as_str()).await;
    let due = [
        (middle(20), 20),
        (middle(225), 225),
        (middle(250), 910),
        (middle(470), 1130),
        (middle(100), 100),
        (middle(300), 960),
    ];
    let item = hls_item(&url, &due, 7.0, "preview");
    let dir = Scratch::new();
    let shot = screenshot("preview");
    let mut shown = watch_from(listener, &browser, &dir.0, vec![item], &shot).await;
    let shown = shown.pop().unwrap();
    assert_shown(&shown, &due);
    assert!((shown.duration - 16.0).abs() < 0.2, "{}", shown.duration);
    assert_played(&shown, &[200..240, 900..960]);
    assert!(shown.last.is_some_and(|last| (1137..1140).contains(&last)), "{:?}", shown.last);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_may_not_call_gets_no_preview() {
    let Some(browser) = browser() else { return };
    let (listener, _) = page().await;
    let bench = bench_for("https://app.example.org").await;
    let session = bench.session("ann", 20).await;
    studio::write(&bench, &session, 1, 0..4).await;
    let server = studio::serve(&bench).await;
    let url = preview_url(&bench, server, session.id.as_str()).await;
    // the address is good, asked for by anything but a page
    assert!(reqwest::get(&url).await.unwrap().status().is_success());
    let (dir, shot) = (Scratch::new(), screenshot("preview-refused"));
    let item = hls_item(&url, &[(1.0, 30)], 1.0, "preview, refused");
    let shown = watch_from(listener, &browser, &dir.0, vec![item], &shot).await;
    let error = shown[0].error.as_deref().unwrap_or_default();
    assert!(error.contains("manifestLoadError"), "{:?}", shown[0]);
    bench.close().await;
}

/// Tells which paths were asked for.
async fn tell(
    State(asked): State<watch::Sender<Vec<String>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    asked.send_modify(|all| all.push(path));
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clip_plays_while_it_is_made_and_grows() {
    let Some(browser) = browser() else { return };
    let (listener, origin) = page().await;
    let mut bench = bench_for(&origin).await;
    let asked = watch::Sender::new(Vec::new());
    bench.app = bench.app.clone().layer(middleware::from_fn_with_state(asked.clone(), tell));
    let session = bench.session("ann", 10).await;
    studio::write(&bench, &session, 1, 0..4).await;
    // nobody works here: it stays as it is
    let window = Some(session.window(3, 11));
    let prefer = [("prefer", "respond-async")];
    let clip = bench.ask_with("ann", "POST", "/capture", window, &prefer).await.json();
    assert_eq!(clip["status"], "processing", "{clip:#}");
    let server = studio::serve(&bench).await;
    let url = format!("http://{server}{}", clip["previewUrl"].as_str().unwrap());
    // from the segment that holds the third second on: the second second is its zero
    let due = [(middle(10), 70), (middle(170), 230), (middle(190), 250), (middle(280), 340)];
    let mut item = hls_item(&url, &due, 5.0, "clip in the making");
    item.grows_to = 10.0;
    let (dir, shot) = (Scratch::new(), screenshot("preview-clip"));
    let watching = watch_from(listener, &browser, &dir.0, vec![item], &shot);
    let growing = async {
        let mut asked = asked.subscribe();
        let last = |all: &Vec<String>| all.iter().any(|path| path.ends_with("/1-3.ts"));
        asked.wait_for(last).await.unwrap();
        studio::write(&bench, &session, 1, 4..8).await;
    };
    let (mut shown, ()) = tokio::join!(watching, growing);
    let shown = shown.pop().unwrap();
    assert_shown(&shown, &due);
    assert!((shown.duration_at_open - 6.0).abs() < 0.2, "{}", shown.duration_at_open);
    assert!((shown.duration - 10.0).abs() < 0.2, "{}", shown.duration);
    assert_played(&shown, std::slice::from_ref(&(200..300)));
    assert!(shown.last.is_some_and(|last| (357..360).contains(&last)), "{:?}", shown.last);
    let id = clip["id"].as_str().unwrap();
    let still = bench.ask("ann", "GET", &format!("/clips/{id}"), None).await.json();
    assert_eq!(still["status"], "processing");
    bench.close().await;
}
