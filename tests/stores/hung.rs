//! A store whose every call hangs: the service goes on with everything else, says what is wrong, and takes up where it
//! was when the store answers again.

use std::time::{Duration, Instant};

use livekit_replay::{media::files::PLACES, simulator::Share};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    faulty_store::Mode,
    ground::{Ground, ROOM, USER, Which, threads},
    harness::{Engine, on_both_engines},
    reader::Reader,
};

/// Whoever asks waits no longer for anything.
const CLIENT: Duration = Duration::from_secs(30);
/// Of each kind of request.
const ROUNDS: usize = 40;

on_both_engines!(
    a_hung_buffer_store_hangs_nothing_else_and_everything_resumes,
    a_hung_clip_store_hangs_nothing_else_and_everything_resumes,
    what_is_stopped_while_the_buffer_store_hangs_is_not_recorded_on,
);

async fn a_hung_buffer_store_hangs_nothing_else_and_everything_resumes(engine: Engine) {
    hung(Which::Buffer, engine).await;
}

async fn a_hung_clip_store_hangs_nothing_else_and_everything_resumes(engine: Engine) {
    hung(Which::Clips, engine).await;
}

/// Egress may reach the store where we do not: a stop is told to LiveKit, whatever we see of the recording.
async fn what_is_stopped_while_the_buffer_store_hangs_is_not_recorded_on(engine: Engine) {
    let Some(ground) = Ground::new("hung-stop", engine).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 4.0).await;
    ground.store(Which::Buffer).set(Mode::Block);
    app.until("a call is held", async || ground.store(Which::Buffer).held() > 0).await;
    // so long that every egress looks dead
    app.clock.advance_micros(60 * 1_000_000);
    let (status, stopped) = app.post(USER, &format!("/stop/{session}"), json!({})).await;
    assert_eq!(status, 200, "{stopped:#}");
    app.until("LiveKit is told", async || app.calls("StopEgress") > 0).await;
    ground.store(Which::Buffer).set(Mode::Pass);
    ground.until_store_is(Which::Buffer, "ok").await;
    app.until("it is over", async || {
        let (_, shown) = app.get(USER, &format!("/sessions/{session}")).await;
        shown["status"] == "stopped"
    })
    .await;
    ground.close().await;
}

async fn hung(which: Which, engine: Engine) {
    let Some(ground) = Ground::new("hung", engine).await else { return };
    let app = &ground.app;
    let session = app.start_session(USER, ROOM).await;
    app.wait_for_buffer(USER, &session, 6.0).await;
    let clip = ground.ready_clip(&session).await;
    let segment = segment_link(&ground, &session).await;
    let mut events = Reader::of(app, USER, None).await;
    events.placed().await;
    let threads_before = threads();

    // accepted at the last moment: the job meets the store as it hangs
    let caught = ground.accepted_clip(&session).await;
    ground.store(which).set(Mode::Block);
    app.until("a call is held", async || ground.store(which).held() > 0).await;

    // everything that does not need the store answers, and what needs it says so
    let mut times = Vec::new();
    let still_served = match which {
        Which::Buffer => clip["downloadUrl"].as_str().unwrap().to_owned(),
        Which::Clips => segment.clone(),
    };
    let root = app.base.trim_end_matches("/livekit-replay").to_owned();
    for round in 0..ROUNDS {
        for (method, url, expected) in [
            (Method::GET, format!("{root}/health"), 200),
            (Method::GET, format!("{}/me/quota", app.base), 200),
            (Method::GET, format!("{}/my-clips", app.base), 200),
            (Method::GET, format!("{root}{still_served}"), 200),
            (Method::GET, format!("{}/sessions/{session}", app.base), 200),
            (Method::GET, format!("{}/status/{ROOM}", app.base), 200),
        ] {
            let began = Instant::now();
            let asked = app.http.request(method, &url).bearer_auth(app.token(USER)).timeout(CLIENT);
            let answer =
                asked.send().await.unwrap_or_else(|error| panic!("round {round}: {url}: {error}"));
            assert_eq!(answer.status(), expected, "{url}");
            answer.bytes().await.unwrap();
            times.push(began.elapsed());
        }
    }
    print_times(&format!("{} store hung", which.name()), &mut times);

    let mut more = Reader::of(app, USER, None).await;
    more.placed().await;

    // the health names the store, and nothing else
    let health = ground.health().await;
    assert_eq!(health["storage"][which.name()]["status"], "fail", "{health:#}");
    assert_eq!(health["storage"][which.other().name()]["status"], "ok", "{health:#}");
    assert_eq!(health["database"]["status"], "ok", "{health:#}");
    assert_eq!(health["status"], "fail");

    // starting and stopping answer; what needs the store is refused with a moment to come back
    let share = Share { width: 320, height: 180, audio: false, ..Share::default() };
    app.sim.publish_share(ROOM, "bob:tab", share).unwrap();
    let (status, started) = app.post("bob", "/start", json!({ "roomName": ROOM })).await;
    match which {
        Which::Buffer => {
            refused(&ground, "bob", "/start", json!({ "roomName": ROOM })).await;
            assert_eq!(
                (status, &started["code"]),
                (503, &json!("storage_unavailable")),
                "{started:#}"
            );
        }
        Which::Clips => {
            assert_eq!(status, 201, "{started:#}");
            let capture = json!({ "sessionId": session, "durationSeconds": 3 });
            refused(&ground, USER, "/capture", capture).await;
            let bobs = started["id"].as_str().unwrap();
            let (status, stopped) = app.post("bob", &format!("/stop/{bobs}"), json!({})).await;
            assert_eq!(status, 200, "{stopped:#}");
        }
    }
    // one after the other asks for what hangs: no thread more for it
    let hanging = match which {
        Which::Buffer => segment,
        Which::Clips => clip["downloadUrl"].as_str().unwrap().to_owned(),
    };
    for _ in 0..PLACES * 3 {
        let answer = app.http.get(format!("{root}{hanging}")).timeout(CLIENT).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
    }
    let used = PLACES - ground.gate(which).free();
    println!(
        "{} store hung: {used} of {PLACES} places hang, {} threads, {threads_before} before",
        which.name(),
        threads()
    );
    assert!(used < PLACES, "calls pile up");

    ground.store(which).set(Mode::Pass);
    ground.until_store_is(which, "ok").await;
    let made = ground.until_ready(&caught).await;
    ground.assert_whole(&made).await;
    let kinds = until_told(&mut events, "clip_ready", &caught).await;
    assert!(!kinds.iter().any(|kind| kind.contains("failed")), "{kinds:?}");
    // the session went on through it all
    let (_, shown) = app.get(USER, &format!("/sessions/{session}")).await;
    assert_eq!(shown["status"], "active", "{shown:#}");
    let again = ground.ready_clip(&session).await;
    ground.assert_whole(&again).await;
    app.until("no call is left", async || ground.gate(which).free() == PLACES).await;
    ground.assert_settled().await;
    ground.close().await;
}

/// A signed address of a recorded segment.
async fn segment_link(ground: &Ground, session: &str) -> String {
    let url = format!("{}/sessions/{session}/preview.m3u8", ground.app.base);
    let asked = ground.app.http.get(url).bearer_auth(ground.app.token(USER));
    let playlist = asked.send().await.unwrap().text().await.unwrap();
    let line = playlist.lines().find(|line| line.starts_with("segments/")).expect("a segment");
    format!("/livekit-replay/sessions/{session}/{line}")
}

/// Asks for what needs the store: 503, and when to come again.
async fn refused(ground: &Ground, user: &str, path: &str, body: Value) {
    let app = &ground.app;
    let asked = app.http.post(format!("{}{path}", app.base)).bearer_auth(app.token(user));
    let answer = asked.json(&body).timeout(CLIENT).send().await.unwrap();
    assert_eq!(answer.status(), 503, "{path}");
    assert!(answer.headers().contains_key("retry-after"), "{path}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "storage_unavailable", "{problem:#}");
}

/// The kinds told until this one of this clip.
async fn until_told(events: &mut Reader, kind: &str, clip: &str) -> Vec<String> {
    let mut kinds = Vec::new();
    loop {
        let event = events.next().await.expect("the stream goes on");
        kinds.push(event.kind.clone());
        if event.kind == kind && event.body.to_string().contains(clip) {
            return kinds;
        }
    }
}

fn print_times(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} requests, p50 {:?}, p99 {:?}, longest {:?}",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
