//! Each named place where rows and files could come apart: the process aborts there, and the next one makes it good.

use livekit_replay::simulator::Share;
use rand::seq::SliceRandom;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    ledger::{self, Capture, Known, Ledger, judged},
    seeded,
    service::{Answer, Service},
    support::On,
    truth::{entries, settles},
};

const SMALL: Share =
    Share { width: 320, height: 180, audio: true, media: livekit_replay::simulator::Media::Live };

/// A service with one user who shares, records, and has some seconds.
async fn recording(user: &str) -> (Service, Ledger, String) {
    let service = Service::new(On::Sqlite).await;
    service.sim.publish_share("red-room", &format!("{user}:tab"), SMALL).unwrap();
    service.start(None).await;
    let mut ledger = Ledger::default();
    let session = begin(&service, &mut ledger, user).await;
    (service, ledger, session)
}

async fn begin(service: &Service, ledger: &mut Ledger, user: &str) -> String {
    let Answer::Said(201, started) = ledger::start(service, user, "red-room").await else {
        panic!("{user} cannot start\n{}", service.log());
    };
    ledger.note_started(user, &started["id"]);
    let id = started["id"].as_str().unwrap().to_owned();
    until(async || {
        let path = format!("/sessions/{id}");
        let shown = service.must(Method::GET, user, &path, None).await;
        shown["buffer"]["durationSeconds"].as_f64().is_some_and(|seconds| seconds >= 4.0)
    })
    .await;
    id
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await;
    assert!(waited.is_ok(), "not within a minute");
}

/// Asks for the last seconds and writes down what was told.
async fn capture(service: &Service, ledger: &mut Ledger, user: &str, body: Value) -> Answer {
    let answer = ledger::capture(service, user, &body).await;
    let (known, id) = judged(&answer);
    let title = body["title"].as_str().unwrap().to_owned();
    let told = Capture { user: user.to_owned(), known, id, body, deleted: Known::No };
    ledger.captures.insert(title, told);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_while_starting_leaves_no_buffer_that_nobody_was_told_of() {
    let (_, mut random) = seeded("starts");
    let mut points = ["after-row", "after-directory", "after-start-egress"];
    points.shuffle(&mut random);
    let (service, mut ledger, lasting) = recording("ann").await;
    for point in points {
        let user = format!("new-{point}");
        service.sim.publish_share("red-room", &format!("{user}:tab"), SMALL).unwrap();
        service.kill().await;
        service.start(Some(point)).await;
        let answer = ledger::start(&service, &user, "red-room").await;
        assert!(matches!(answer, Answer::Broken), "{point}: {answer:?}");
        service.dies_of(point).await;
        service.start(None).await;
        settles(&service, &ledger, &["ann"], point).await;
        let own = service.must(Method::GET, &user, "/sessions", None).await;
        assert_eq!(own["total"], 0, "{point}: nobody was told of {own:#}");
        // and his place is free
        begin(&service, &mut ledger, &user).await;
        settles(&service, &ledger, &["ann"], &format!("{point}, started again")).await;
        service.must(Method::POST, &user, "/stop", Some(json!({}))).await;
        ledger.sessions.values_mut().filter(|session| session.user == user).for_each(|session| {
            session.stopped = Known::Yes;
        });

        // the same when an egress is replaced: here somebody was told, and the session goes on
        service.kill().await;
        service.start(Some(point)).await;
        let path = format!("/sessions/{lasting}");
        let shown = service.must(Method::GET, "ann", &path, None).await;
        service.sim.fail_egress(shown["egressId"].as_str().unwrap(), "broken", 500).unwrap();
        service.dies_of(point).await;
        service.start(None).await;
        settles(&service, &ledger, &["ann"], &format!("{point} of a replacement")).await;
    }
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_after_a_start_was_accepted_tells_its_repeat_of_it() {
    let service = Service::new(On::Sqlite).await;
    service.sim.publish_share("red-room", "ann:tab", SMALL).unwrap();
    let point = "after-start-commit";
    service.start(Some(point)).await;
    let body = json!({ "roomName": "red-room" });
    let start = async || {
        let shape = |request: reqwest::RequestBuilder| {
            request.header("Idempotency-Key", "once").json(&body)
        };
        service.ask(Method::POST, "ann", "/start", shape).await
    };
    let answer = start().await;
    assert!(matches!(answer, Answer::Broken), "{answer:?}");
    service.dies_of(point).await;
    service.start(None).await;
    let mut ledger = Ledger::default();
    for _ in 0..2 {
        let Answer::Said(201, told) = start().await else { panic!("{}", service.log()) };
        assert_eq!(told["roomName"], "red-room", "{told:#}");
        ledger.note_started("ann", &told["id"]);
    }
    assert_eq!(ledger.sessions.len(), 1, "one session");
    settles(&service, &ledger, &["ann"], point).await;
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_while_making_a_clip_loses_none_and_makes_none_twice() {
    let (_, mut random) = seeded("captures");
    let mut points =
        ["after-accept-commit", "during-mux", "during-settle", "between-rename-and-commit"];
    points.shuffle(&mut random);
    let (service, mut ledger, session) = recording("ann").await;
    for point in points {
        service.kill().await;
        service.start(Some(point)).await;
        let body = json!({ "sessionId": session, "durationSeconds": 3, "title": point });
        let answer = capture(&service, &mut ledger, "ann", body.clone()).await;
        assert_eq!(matches!(answer, Answer::Broken), point == "after-accept-commit", "{answer:?}");
        service.dies_of(point).await;
        service.start(None).await;
        // the key knows its clip, whether or not the first answer arrived
        let before = ledger.captures[point].id.clone();
        let again = capture(&service, &mut ledger, "ann", body).await;
        assert!(matches!(again, Answer::Said(201 | 202, _)), "{point}: {again:?}");
        let after = ledger.captures[point].id.clone();
        assert!(before.is_none() || before == after, "{point}: {before:?}, then {after:?}");
        settles(&service, &ledger, &["ann"], point).await;
        let listed = service.must(Method::GET, "ann", "/my-clips", None).await;
        assert_eq!(listed["total"], ledger.captures.len());
    }
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_before_a_trim_is_accepted_leaves_nothing_of_it() {
    let (service, mut ledger, session) = recording("ann").await;
    let point = "after-hold";
    let answer = trim_until(&service, &mut ledger, &session, point).await;
    assert!(matches!(answer, Answer::Broken), "{answer:?}");
    service.dies_of(point).await;
    assert_eq!(held_sources(&service), 1);
    service.start(None).await;
    settles(&service, &ledger, &["ann"], point).await;
    service.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_when_a_trim_is_ready_holds_its_source_no_longer() {
    let (service, mut ledger, session) = recording("ann").await;
    let point = "before-release";
    let answer = trim_until(&service, &mut ledger, &session, point).await;
    let Answer::Said(202, trimmed) = answer else { panic!("{answer:?}") };
    service.dies_of(point).await;
    assert_eq!(held_sources(&service), 1);
    let told = Capture {
        user: "ann".to_owned(),
        known: Known::Yes,
        id: trimmed["id"].as_str().map(str::to_owned),
        body: json!({}),
        deleted: Known::No,
    };
    ledger.captures.insert("the trim".to_owned(), told);
    service.start(None).await;
    settles(&service, &ledger, &["ann"], point).await;
    service.close().await;
}

/// A clip under the point's name, and a trim of it asked of a process that dies at that point.
async fn trim_until(
    service: &Service,
    ledger: &mut Ledger,
    session: &str,
    point: &'static str,
) -> Answer {
    let body = json!({ "sessionId": session, "durationSeconds": 3, "title": point });
    capture(service, ledger, "ann", body).await;
    settles(service, ledger, &["ann"], "the clip").await;
    service.kill().await;
    service.start(Some(point)).await;
    let path = format!("/clips/{}/trim", ledger.captures[point].id.as_deref().unwrap());
    let part = json!({ "startSeconds": 0.5, "endSeconds": 1.5 });
    let shape = |request: RequestBuilder| request.header("Prefer", "respond-async").json(&part);
    service.ask(Method::POST, "ann", &path, shape).await
}

fn held_sources(service: &Service) -> usize {
    let users = entries(&service.config.storage.clips);
    let held = users.iter().flat_map(|user| entries(user));
    held.filter(|file| file.extension().is_some_and(|is| is == "source")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_while_deleting_has_deleted_all_or_nothing() {
    let (service, mut ledger, session) = recording("ann").await;
    for point in ["between-tombstone-and-commit", "between-condemn-and-unlink"] {
        let body = json!({ "sessionId": session, "durationSeconds": 3, "title": point });
        capture(&service, &mut ledger, "ann", body).await;
        settles(&service, &ledger, &["ann"], &format!("the clip for {point}")).await;
        service.kill().await;
        service.start(Some(point)).await;
        let path = format!("/clips/{}", ledger.captures[point].id.as_deref().unwrap());
        let answer = service.ask(Method::DELETE, "ann", &path, |request| request).await;
        assert!(matches!(answer, Answer::Broken), "{answer:?}");
        service.dies_of(point).await;
        // before the commit it is not deleted, after it it is
        let committed = point == "between-condemn-and-unlink";
        let told = ledger.captures.get_mut(point).unwrap();
        told.deleted = if committed { Known::Yes } else { Known::No };
        service.start(None).await;
        settles(&service, &ledger, &["ann"], point).await;
    }

    // a buffer that was thrown away: its segments are condemned, and the process dies before their bytes go
    let point = "between-condemn-and-unlink";
    service.kill().await;
    service.start(Some(point)).await;
    service.must(Method::DELETE, "ann", &format!("/sessions/{session}"), None).await;
    ledger.sessions.get_mut(&session).unwrap().stopped = Known::Yes;
    let path = "/admin/maintenance/segment-cleanup/run";
    let answer = service.ask(Method::POST, "root", path, |request| request).await;
    assert!(matches!(answer, Answer::Broken), "{answer:?}");
    service.dies_of(point).await;
    service.start(None).await;
    settles(&service, &ledger, &["ann"], "segments condemned").await;
    service.close().await;
}
