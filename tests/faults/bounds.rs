//! Every queue has an end: who comes when it is full is told to come again, and is served when it is not.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use livekit_replay::{
    clock::{Clock, SystemClock},
    simulator::CallAction,
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    house::{Answer, House, until},
    on_both_engines,
    support::On,
};

on_both_engines!(
    clips_waiting_for_their_making,
    webhooks_being_applied,
    repeats_waiting_for_the_first_answer,
    looks_waiting_for_a_place,
);

async fn all_of(places: std::sync::Arc<tokio::sync::Semaphore>) -> OwnedSemaphorePermit {
    let count = u32::try_from(places.available_permits()).expect("bounded");
    places.acquire_many_owned(count).await.expect("open")
}

async fn clips_waiting_for_their_making(on: On) {
    let bounds = [("capture.queue_per_user", "2"), ("capture.queue", "3")];
    let house = House::with_settings(on, &bounds).await;
    let mut sessions = Vec::new();
    for user in ["ann", "bob", "cid"] {
        sessions.push(house.recording(user).await.0);
    }
    let deps = &house.app.running.deps;
    let held = all_of(deps.places.get(&deps.config)).await;
    let capture = async |user: &str, session: &str| {
        let body = json!({ "sessionId": session, "durationSeconds": 2 });
        house.post(user, "/capture", body).await
    };
    let mut accepted = Vec::new();
    for (user, session) in [("ann", 0), ("ann", 0), ("bob", 1)] {
        let answer = capture(user, &sessions[session]).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        accepted.push((user, answer.body["id"].as_str().expect("an id").to_owned()));
        if accepted.len() == 2 {
            let refused = capture("ann", &sessions[0]).await;
            refused.is_for_later("overloaded");
            assert_eq!((&refused.body["waiting"], &refused.body["limit"]), (&json!(2), &json!(2)));
        }
    }
    let refused = capture("cid", &sessions[2]).await;
    refused.is_for_later("overloaded");
    assert_eq!(refused.body["limit"], 3);
    let quota = house.get("cid", "/me/quota").await.body;
    assert_eq!(quota["reservedBytes"], 0, "a refusal reserves nothing: {quota}");
    drop(held);
    for (user, clip) in &accepted {
        house.ready(user, clip).await;
    }
    house.clip("cid", &sessions[2], 2).await;
    house.clip("ann", &sessions[0], 2).await;
    assert_eq!(house.get("ann", "/my-clips").await.body["total"], 3);
    house.close().await;
}

/// LiveKit sends again what was answered with 5xx.
async fn webhooks_being_applied(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let body = json!({ "event": "room_finished", "id": "EV_1", "createdAt": "1",
                       "room": { "name": "r-nobody" } })
    .to_string();
    let send = async |signed: bool| {
        let url = format!("{}/livekit-replay/webhooks/livekit", house.app.running.url());
        let mut request = house.app.http.post(url).body(body.clone());
        if signed {
            request = request.header("authorization", signature(&house, body.as_bytes()));
        }
        let answer = request.send().await.expect("an answer");
        let waits = answer.headers().contains_key("retry-after");
        let status = answer.status().as_u16();
        (status, waits, answer.json::<Value>().await.expect("JSON")["code"].clone())
    };
    let held = all_of(house.app.running.deps.places.intake()).await;
    assert_eq!(send(true).await, (503, true, json!("overloaded")));
    // what nobody signed is refused before, and takes no place
    assert_eq!(send(false).await, (401, false, json!("unauthenticated")));
    drop(held);
    assert_eq!(send(true).await, (200, false, Value::Null));
    house.clip("ann", &ann, 2).await;
    house.close().await;
}

/// The token LiveKit sends with a body.
fn signature(house: &House, body: &[u8]) -> String {
    let now = SystemClock.now().as_millis() / 1000;
    let sha256 = STANDARD.encode(Sha256::digest(body));
    let claims = json!({
        "iss": house.app.sim.api_key(), "exp": now + 300, "nbf": now, "iat": now, "sha256": sha256,
    });
    let key = EncodingKey::from_secret(house.app.sim.api_secret().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

async fn repeats_waiting_for_the_first_answer(on: On) {
    let house = House::open(on).await;
    house.shares("ann");
    house.call_fault("StartTrackCompositeEgress", CallAction::DelayAnswer { ms: 3000 }, Some(1));
    let start = async || -> (u16, Value) {
        let url = format!("{}/livekit-replay/start", house.app.running.url());
        let body = json!({ "roomName": "r-ann", "communityId": "c1" });
        let token = house.app.token_for("ann", &[("c1", "moderator")]);
        let request = house.app.http.post(url).bearer_auth(token).header("idempotency-key", "k");
        let answer = request.json(&body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        assert!(status != 503 || answer.headers().contains_key("retry-after"));
        (status, answer.json().await.expect("JSON"))
    };
    let held = all_of(house.app.running.deps.places.repeats()).await;
    let second = async {
        until("the first one runs", async || !house.app.sim.egresses().is_empty()).await;
        let refused = start().await;
        drop(held);
        (refused, start().await)
    };
    let (first, (refused, third)) = tokio::join!(start(), second);
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("overloaded")));
    assert_eq!((first.0, third.0), (201, 201));
    assert_eq!(first.1["id"], third.1["id"]);
    house.close().await;
}

async fn looks_waiting_for_a_place(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let look = async |what: &str| -> Answer {
        house.ask(Method::GET, "ann", &format!("/sessions/{ann}/{what}"), None).await
    };
    let held = all_of(house.app.running.deps.places.waiting()).await;
    look("stream?durationSeconds=2").await.is_for_later("overloaded");
    drop(held);
    until("it is sent", async || look("stream?durationSeconds=2").await.status == 200).await;
    house.close().await;
}
