//! Tokens that must not open the door, and why they do not.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::on_both_engines;
use crate::support::{House, SECRET, ask, send};

on_both_engines!(bad_tokens_are_refused_with_their_reason issuer_and_audience_are_demanded_when_set);

const PATH: &str = "/livekit-replay/me/quota";

fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

async fn refused(house: &House, token: &str, reason: &str) {
    let answer = house.get(PATH, token).await;
    let body = answer.problem(401, "unauthenticated");
    assert_eq!(body["reason"], reason, "{body}");
    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
}

async fn bad_tokens_are_refused_with_their_reason(house: &House) {
    let now = house.now_seconds();
    let hs256 = |claims: Value| sign(Algorithm::HS256, SECRET, &claims);
    house.get(PATH, &hs256(json!({"sub": "u1", "exp": now + 60}))).await.ok();
    // fractions are dates, too; clocks may differ by the leeway
    house.get(PATH, &hs256(json!({"sub": "u1", "exp": now as f64 - 9.5}))).await.ok();
    house.get(PATH, &hs256(json!({"sub": "u1", "exp": now + 60, "nbf": now + 10}))).await.ok();

    refused(house, "", "missing").await;
    refused(house, "no.token.atall", "malformed").await;
    refused(house, &hs256(json!({"sub": "u1", "exp": now - 10})), "expired").await;
    refused(house, &hs256(json!({"sub": "u1", "exp": now + 60, "nbf": now + 11})), "not_yet_valid")
        .await;
    refused(house, &hs256(json!({"sub": "u1"})), "missing_claim").await;
    refused(house, &hs256(json!({"exp": now + 60})), "missing_claim").await;
    refused(house, &hs256(json!({"sub": "", "exp": now + 60})), "missing_claim").await;
    refused(house, &hs256(json!({"sub": 7, "exp": now + 60})), "malformed").await;
    refused(house, &hs256(json!({"sub": "u\u{0}1", "exp": now + 60})), "malformed").await;
    refused(house, &hs256(json!({"sub": "u1", "exp": "soon"})), "malformed").await;
    let pad = "x".repeat(9000);
    refused(house, &hs256(json!({"sub": "u1", "exp": now + 60, "pad": pad})), "malformed").await;

    let good = json!({"sub": "u1", "exp": now + 60});
    refused(
        house,
        &sign(Algorithm::HS256, "the-secret-of-somebody-else-entirely", &good),
        "bad_signature",
    )
    .await;
    refused(house, &sign(Algorithm::HS512, SECRET, &good), "bad_signature").await;
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for algorithm in ["none", "None", "NONE"] {
        let unsigned = format!("{}.{}.", part(&json!({"alg": algorithm})), part(&good));
        refused(house, &unsigned, "malformed").await;
    }
    // signed well, but by the rules of another algorithm's header
    let token = hs256(good.clone());
    let (_, rest) = token.split_once('.').unwrap();
    let confused = format!("{}.{rest}", part(&json!({"alg": "RS256", "typ": "JWT"})));
    refused(house, &confused, "bad_signature").await;
    let tampered = format!(
        "{}.{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(&json!({"sub": "root", "exp": now + 60})),
        token.rsplit_once('.').unwrap().1
    );
    refused(house, &tampered, "bad_signature").await;

    let twice = Request::get(PATH)
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        send(&house.router, twice).await.problem(401, "unauthenticated")["reason"],
        "malformed"
    );
    for scheme in [format!("Basic {token}"), token.clone(), format!("Bearer{token}")] {
        let request =
            Request::get(PATH).header("authorization", scheme).body(Body::empty()).unwrap();
        send(&house.router, request).await.problem(401, "unauthenticated");
    }
    let lower = Request::get(PATH)
        .header("authorization", format!("bearer {token}"))
        .body(Body::empty())
        .unwrap();
    send(&house.router, lower).await.ok();
}

async fn issuer_and_audience_are_demanded_when_set(house: &House) {
    let strict = house.with(|config| {
        config.auth.issuer = Some("app".to_owned());
        config.auth.audience = Some("replay".to_owned());
    });
    let now = house.now_seconds();
    let try_with = async |claims: Value| {
        let mut all = json!({"sub": "u1", "exp": now + 60});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let token = sign(Algorithm::HS256, SECRET, &all);
        ask(&strict, axum::http::Method::GET, PATH, &token, None).await
    };
    try_with(json!({"iss": "app", "aud": "replay"})).await.ok();
    try_with(json!({"iss": "app", "aud": ["other", "replay"]})).await.ok();
    for (claims, reason) in [
        (json!({"aud": "replay"}), "missing_claim"),
        (json!({"iss": "app"}), "missing_claim"),
        (json!({"iss": "evil", "aud": "replay"}), "wrong_issuer"),
        (json!({"iss": "app", "aud": "other"}), "wrong_audience"),
        (json!({"iss": "app", "aud": ["replay2"]}), "wrong_audience"),
        (json!({"iss": 5, "aud": "replay"}), "wrong_issuer"),
    ] {
        let body = try_with(claims.clone()).await.problem(401, "unauthenticated");
        assert_eq!(body["reason"], reason, "{claims}");
    }
}

#[test]
fn a_secret_that_is_short_or_absent_makes_no_verifier() {
    let auth = |secret: Option<&str>| livekit_replay::config::Auth {
        jwt_secret: secret.map(Into::into),
        issuer: None,
        audience: None,
        leeway: std::time::Duration::from_secs(10),
        claim_communities: true,
        claim_roles: true,
    };
    use livekit_replay::access::token::Verifier;
    assert!(Verifier::new(&auth(None)).is_err());
    assert!(Verifier::new(&auth(Some("short"))).is_err());
    assert!(Verifier::new(&auth(Some(""))).is_err());
    assert!(Verifier::new(&auth(Some(SECRET))).is_ok());
}
