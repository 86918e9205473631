//! Rate limits: exact, per user, told in headers.

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode},
    response::{IntoResponse, Response},
};
use livekit_replay::http::{
    AppState,
    error::Answer,
    idempotency::REPLAYED,
    limits::{Allowance, Limited, limited},
};
use utoipa_axum::router::OpenApiRouter;

use crate::on_both_engines;
use crate::support::{Answered, House, ask, send};

on_both_engines!(
    starts_are_limited_per_user_and_minute
    parallel_requests_do_not_overshoot
    a_repeat_is_not_counted_and_a_key_is_no_way_around
);

const START: &str = "/livekit-replay/start";
const BODY: &str = r#"{"roomName":"r1"}"#;

#[track_caller]
fn remaining(answer: &Answered) -> u64 {
    let header = |name: &str| answer.headers[name].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=60).contains(&header("ratelimit-reset")));
    assert!(header("ratelimit-limit") > 0);
    header("ratelimit-remaining")
}

async fn starts_are_limited_per_user_and_minute(house: &House) {
    let (u1, u2) = (house.token("u1"), house.token("u2"));
    let start =
        async |token: &str, body: &str| house.ask(Method::POST, START, token, Some(body)).await;
    assert_eq!(remaining(&start(&u1, BODY).await), 2);
    // what is refused counts as well, also before the handler
    let refused = start(&u1, "{").await;
    refused.problem(422, "validation_failed");
    assert_eq!(remaining(&refused), 1);
    assert_eq!(remaining(&start(&u1, BODY).await), 0);
    let over = start(&u1, BODY).await;
    over.problem(429, "rate_limited");
    assert_eq!(remaining(&over), 0);
    let wait: u64 = over.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(remaining(&start(&u2, BODY).await), 2);
    house.ask(Method::POST, START, "", Some(BODY)).await.problem(401, "unauthenticated");
    // another method is not this limit's, and the next minute is a new one
    house.get(START, &u1).await.problem(405, "method_not_allowed");
    house.clock.advance_micros(60_000_000);
    assert_eq!(remaining(&start(&u1, BODY).await), 2);

    let off = house.with(|config| config.rate_limits.start_per_minute = 0);
    for _ in 0..5 {
        let answer = ask(&off, Method::POST, START, &u1, Some(BODY)).await;
        assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(!answer.headers.contains_key("ratelimit-limit"));
    }
    // deletions have their own
    let delete =
        async || house.ask(Method::DELETE, "/livekit-replay/sessions/none", &u1, None).await;
    assert_eq!(remaining(&delete().await), 1);
    delete().await.problem(404, "not_found");
    delete().await.problem(429, "rate_limited");
    // deletions know no keys, so one is no way around
    let keyed = Request::delete("/livekit-replay/sessions/none")
        .header("authorization", format!("Bearer {u1}"))
        .header("idempotency-key", "k");
    let keyed = send(&house.router, keyed.body(Body::empty()).unwrap()).await;
    keyed.problem(429, "rate_limited");
}

async fn parallel_requests_do_not_overshoot(house: &House) {
    let token = house.token("u1");
    let asks = (0..12).map(|_| ask(&house.router, Method::POST, START, &token, Some(BODY)));
    let answers = futures::future::join_all(asks).await;
    let refused = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.count(), 12 - 3);
}

/// Stands for a route with idempotency: the header `repeat` says what the key turned out to be.
async fn keyed(allowance: Allowance, headers: axum::http::HeaderMap) -> Answer<Response> {
    let mut response = StatusCode::CREATED.into_response();
    if headers.contains_key("repeat") {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    } else {
        allowance.spend().await?;
    }
    Ok(response)
}

async fn a_repeat_is_not_counted_and_a_key_is_no_way_around(house: &House) {
    let route = axum::routing::post(keyed);
    let routes: OpenApiRouter<AppState> = OpenApiRouter::new().route("/keyed", route);
    let (router, _) =
        limited(routes, &house.state, Limited::Start, axum::http::Method::POST).split_for_parts();
    let router = router.with_state(house.state.clone());
    let token = house.token("u1");
    let go = async |repeat: bool| {
        let mut request = Request::post("/keyed")
            .header("authorization", format!("Bearer {token}"))
            .header("idempotency-key", "k");
        if repeat {
            request = request.header("repeat", "yes");
        }
        send(&router, request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(remaining(&go(false).await), 2);
    for _ in 0..5 {
        let repeat = go(true).await;
        assert_eq!(repeat.status, StatusCode::CREATED);
        assert_eq!(remaining(&repeat), 2);
    }
    go(false).await;
    assert_eq!(remaining(&go(false).await), 0);
    assert_eq!(go(false).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(go(true).await.status, StatusCode::CREATED);
}
