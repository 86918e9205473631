//! Everything that is refused is a problem of ours, whoever refused it.

use axum::{
    body::Body,
    http::{Method, Request},
};

use crate::on_both_engines;
use crate::support::{House, send};

on_both_engines!(every_refusal_is_a_problem what_is_public_answers_without_a_token);

async fn every_refusal_is_a_problem(house: &House) {
    let user = house.token("u1");
    let admin = house.admin();
    house.get("/livekit-replay/nowhere", "").await.problem(404, "not_found");
    house.get("/nowhere", &user).await.problem(404, "not_found");
    house
        .ask(Method::DELETE, "/livekit-replay/admin/sessions", &admin, None)
        .await
        .problem(405, "method_not_allowed");
    let put = house.ask(Method::PUT, "/livekit-replay/start", &user, Some("{}")).await;
    put.problem(405, "method_not_allowed");
    assert_eq!(put.headers["allow"], "POST");
    house.get("/livekit-replay/admin/sessions", "").await.problem(401, "unauthenticated");

    let quota = "/livekit-replay/admin/users/u1/quota";
    let patch = |body: &'static str| house.ask(Method::PATCH, quota, &admin, Some(body));
    let unknown = patch(r#"{"quotaBytes":1,"zap":2}"#).await.problem(422, "validation_failed");
    assert_eq!(unknown["errors"][0]["field"], "zap");
    let missing = patch("{}").await.problem(422, "validation_failed");
    assert_eq!(missing["errors"][0]["field"], "quotaBytes");
    patch("{").await.problem(422, "validation_failed");
    patch("").await.problem(422, "validation_failed");
    patch(r#"{"quotaBytes":"much"}"#).await.problem(422, "validation_failed");
    patch(r#"{"quotaBytes":9223372036854775808}"#).await.problem(422, "validation_failed");
    patch(r#"{"quotaBytes":-1}"#).await.problem(422, "validation_failed");

    let plain = Request::patch(quota)
        .header("authorization", format!("Bearer {admin}"))
        .header("content-type", "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    send(&house.router, plain).await.problem(415, "unsupported_media_type");

    let large = format!(r#"{{"quotaBytes":1,"pad":"{}"}}"#, "x".repeat(70_000));
    house.ask(Method::PATCH, quota, &admin, Some(&large)).await.problem(413, "too_large");

    for path in ["admin/sessions?limit=0", "admin/sessions?limit=many", "admin/jobs?state=odd"] {
        let answer = house.get(&format!("/livekit-replay/{path}"), &admin).await;
        answer.problem(422, "validation_failed");
    }
    for path in ["admin/users/a%00b/quota", "admin/users/%ff/quota", "clips/a%0d%0ab"] {
        let answer = house.get(&format!("/livekit-replay/{path}"), &admin).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
        answer.problem(
            answer.status.as_u16(),
            if answer.status == 404 { "not_found" } else { "validation_failed" },
        );
    }
    let long = format!("/livekit-replay/admin/users/{}/quota", "x".repeat(257));
    house.get(&long, &admin).await.problem(422, "validation_failed");
    let endless = format!("/livekit-replay/me/quota?x={}", "x".repeat(9000));
    let refused = house.get(&endless, &admin).await.problem(422, "validation_failed");
    assert_eq!(refused["errors"][0]["field"], "address");
}

async fn what_is_public_answers_without_a_token(house: &House) {
    assert_eq!(house.get("/health", "").await.ok()["status"], "ok");
    house.get("/health/ready", "").await.ok();
    house.get("/health/detailed", "").await.problem(401, "unauthenticated");
    house.get("/health/detailed", &house.token("u1")).await.problem(403, "permission_denied");
    let detailed = house.get("/health/detailed", &house.admin()).await.ok();
    assert_eq!(detailed["database"]["status"], "ok", "{detailed}");
    assert_eq!(detailed["storage"]["clips"]["writable"], true);
    assert!(detailed["storage"]["buffer"]["freeBytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(detailed["livekit"]["status"], "ok");
    assert_eq!(detailed["scheduler"][0]["name"], "reconcile");
    // a mount that vanished leaves an empty directory, which could be written all the same
    let marker = house.state.deps.config.storage.clips.join(".livekit-replay.json");
    let hidden = marker.with_extension("hidden");
    std::fs::rename(&marker, &hidden).expect("hidden");
    house.clock.advance_micros(10_000_000);
    house.get("/health/ready", "").await.problem(503, "storage_unavailable");
    std::fs::rename(&hidden, &marker).expect("back");
    house.clock.advance_micros(10_000_000);
    house.get("/health/ready", "").await.ok();

    let figures = house.get("/metrics", "").await;
    assert!(
        figures.text.contains("livekit_replay_sessions{status=\"active\"} 0"),
        "{}",
        figures.text
    );
    assert!(figures.text.contains("livekit_replay_process_resident_bytes"));
    assert!(figures.text.contains("livekit_replay_http_requests_total"));

    let document = house.get("/openapi.json", "").await.ok();
    assert!(document["paths"]["/livekit-replay/admin/sessions"]["get"].is_object());
    assert!(document["paths"]["/health/ready"]["get"].is_object());
    assert!(house.get("/docs/", "").await.text.contains("swagger"));

    let own = Request::get("/health").header("x-request-id", "mine-1").body(Body::empty()).unwrap();
    let answer = send(&house.router, own).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    for odd in ["x".repeat(65), "two words".to_owned()] {
        let request =
            Request::get("/nowhere").header("x-request-id", &odd).body(Body::empty()).unwrap();
        let answer = send(&house.router, request).await;
        answer.problem(404, "not_found");
        assert_ne!(answer.headers["x-request-id"].to_str().unwrap(), odd);
    }
    for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
        let request = Request::get("/health").header("origin", origin).body(Body::empty()).unwrap();
        let answer = send(&house.router, request).await;
        assert_eq!(answer.headers.contains_key("access-control-allow-origin"), allowed, "{origin}");
    }

    // a store that cannot be written makes unready, and says so as a problem
    house.clock.advance_micros(10_000_000);
    let broken = house.with(|config| config.storage.clips = "/proc/nothing".into());
    let answer = crate::support::ask(&broken, Method::GET, "/health/ready", "", None).await;
    let problem = answer.problem(503, "storage_unavailable");
    assert_eq!(problem["checks"]["clipStore"], "fail");
    assert_eq!(problem["checks"]["database"], "ok");
    assert!(answer.headers.contains_key("retry-after"));
}

/// `REPLAY_BLESS=1` writes the file anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_the_one_committed() {
    let house = House::on_sqlite().await;
    let document = house.get("/openapi.json", "").await.ok();
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
    if std::env::var_os("REPLAY_BLESS").is_some() {
        std::fs::write(path, &text).expect("the golden file can be written");
    }
    let committed = std::fs::read_to_string(path).expect("the golden file is there");
    assert!(
        committed == text,
        "the document changed: run the test with REPLAY_BLESS=1 and read the diff"
    );
    house.tear_down().await;
}
