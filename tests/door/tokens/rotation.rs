//! Published keys that change, and publishers that fail: what is known stays, what is new is found.

use std::path::PathBuf;

use axum::http::StatusCode;
use futures::future::join_all;
use livekit_replay::{access::token::Verifier, config::Jwks};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    AUDIENCE, ISSUER, forge,
    forge::{Key, with},
    published,
    publisher::{Answer, Publisher},
    table::Table,
    wire::Wire,
};
use crate::support::House;

const COLUMNS: [&str; 3] = ["published at", "what happens", "answers"];
const UNKNOWN: &str = "401 `unknown_key`";

/// A house, a publisher of `ec-1`, and a door that knows that key.
struct Stage {
    house: House,
    publisher: Publisher,
    wire: Wire,
    old: Key,
    new: Key,
}

impl Stage {
    async fn set() -> Stage {
        let house = House::on_sqlite().await;
        let (old, new) = (Key::named("ec-1"), Key::named("ed-2"));
        let publisher = Publisher::start(Answer::Keys(forge::set(&[&old]))).await;
        let wire = house.on_wire(published(publisher.jwks())).await;
        let stage = Stage { house, publisher, wire, old, new };
        assert_eq!(stage.of_old().await, "200");
        stage
    }

    fn claims(&self) -> Value {
        claims(&self.house)
    }

    async fn of_old(&self) -> String {
        self.wire.try_token(&self.old.token(&self.claims())).await
    }

    async fn of_new(&self) -> String {
        self.wire.try_token(&self.new.token(&self.claims())).await
    }

    /// The next question may be asked.
    fn later(&self) {
        self.house.clock.advance_micros(10_000_000);
    }
}

fn claims(house: &House) -> Value {
    json!({"sub": "u1", "exp": house.now_seconds() + 600, "iss": ISSUER, "aud": AUDIENCE})
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_that_change_and_fail() {
    let mut stage = Stage::set().await;
    let mut table = Table::new("rotation", COLUMNS);
    let both = forge::set(&[&stage.old, &stage.new]);
    let only_new = forge::set(&[&stage.new]);
    let failing: [(&str, Answer); 9] = [
        ("answers 500", Answer::Text(StatusCode::INTERNAL_SERVER_ERROR, both.to_string())),
        ("answers 404", Answer::Text(StatusCode::NOT_FOUND, both.to_string())),
        ("redirects to the new key", Answer::RedirectTo(String::new())),
        ("begins and does not end (3 s)", Answer::Endless),
        ("65 KiB around the new key", huge(&both, 65)),
        ("something that is no JSON", Answer::Text(StatusCode::OK, "<html>".to_owned())),
        ("JSON without `keys`", Answer::Text(StatusCode::OK, json!([both]).to_string())),
        ("no key at all", Answer::Keys(json!({"keys": []}))),
        ("a symmetric key alone", Answer::Keys(json!({"keys": [{"kty": "oct", "k": "AAAA"}]}))),
    ];
    let elsewhere = Publisher::start(Answer::Keys(both.clone())).await;
    for (case, answer) in failing {
        let answer = match answer {
            Answer::RedirectTo(_) => Answer::RedirectTo(elsewhere.url()),
            other => other,
        };
        stage.publisher.answer(answer);
        stage.later();
        let before = stage.publisher.asked().len();
        let seen =
            format!("new key: {}; known key: {}", stage.of_new().await, stage.of_old().await);
        assert_eq!(stage.publisher.asked().len(), before + 1, "{case}: it was asked");
        table.row("address", case, &format!("new key: {UNKNOWN}; known key: 200"), &seen);
    }
    assert_eq!(elsewhere.asked().len(), 0, "a redirect was followed");

    stage.publisher.down().await;
    stage.later();
    let seen = format!("new key: {}; known key: {}", stage.of_new().await, stage.of_old().await);
    let expected = format!("new key: {UNKNOWN}; known key: 200");
    table.row("address", "nobody listens there", &expected, &seen);
    stage.publisher.up().await;

    stage.publisher.answer(huge(&both, 60));
    let early = stage.of_new().await;
    stage.house.clock.advance_micros(5_000_000);
    let seen = format!("at once: {early}; 5 s later: {}", stage.of_new().await);
    let expected = format!("at once: {UNKNOWN}; 5 s later: 200");
    table.row("address", "is back, with the new key (60 KiB in all)", &expected, &seen);
    assert_eq!(stage.of_old().await, "200");

    stage.publisher.answer(Answer::Keys(only_new));
    stage.later();
    stage.wire.try_token(&Key::named("rsa-1").token(&stage.claims())).await;
    let seen = format!("old key: {}; new key: {}", stage.of_old().await, stage.of_new().await);
    let expected = format!("old key: {UNKNOWN}; new key: 200");
    table.row("address", "takes the old key out; asked since", &expected, &seen);

    flood(&mut table, &stage).await;
    cold(&mut table, &stage.house).await;
    file(&mut table, &stage.house).await;
    table.close();
    let Stage { house, wire, .. } = stage;
    drop(wire);
    house.tear_down().await;
}

fn huge(keys: &Value, kib: usize) -> Answer {
    let text = keys.to_string();
    let room = " ".repeat(kib * 1024 - text.len());
    Answer::Text(StatusCode::OK, format!("{room}{text}"))
}

/// Tokens that name keys nobody has must not become questions.
async fn flood(table: &mut Table, stage: &Stage) {
    stage.later();
    let before = stage.publisher.asked().len();
    let token = |n: usize| {
        let header = with(&stage.new.header(), json!({"kid": format!("no-{n}")}));
        stage.new.token_under(&header, &stage.claims())
    };
    let answers = join_all((0..200).map(|n| {
        let token = token(n);
        async move { stage.wire.try_token(&token).await }
    }))
    .await;
    assert!(answers.iter().all(|answer| answer == UNKNOWN), "{answers:?}");
    let asked = stage.publisher.asked().len() - before;
    let seen = format!("200 times {UNKNOWN}; questions: {asked}");
    let expected = format!("200 times {UNKNOWN}; questions: 1");
    table.row("address", "200 unknown kids at once", &expected, &seen);
    // just within the interval
    stage.house.clock.advance_micros(9_999_999);
    for n in 0..20 {
        assert_eq!(stage.wire.try_token(&token(n)).await, UNKNOWN);
    }
    let more = stage.publisher.asked().len() - before - asked;
    let seen = format!("20 times {UNKNOWN}; questions: {more}");
    let expected = format!("20 times {UNKNOWN}; questions: 0");
    table.row("address", "20 more within 10 s", &expected, &seen);
}

/// A door that has never seen a key cannot judge, and says so.
async fn cold(table: &mut Table, house: &House) {
    let key = Key::named("rsa-1");
    let mut publisher = Publisher::start(Answer::Keys(forge::set(&[&key]))).await;
    publisher.down().await;
    let wire = house.on_wire(published(publisher.jwks())).await;
    let said = wire.get(super::PATH, &key.token(&claims(house))).await;
    assert!(said.head.contains("retry-after: 5"), "{}", said.head);
    assert!(!said.head.contains("invalid_token"), "the token may be good: {}", said.head);
    let first = said.in_short();
    publisher.up().await;
    house.clock.advance_micros(5_000_000);
    let tokens = (0..50).map(|_| key.token(&claims(house)));
    let answers = join_all(tokens.map(|token| {
        let wire = &wire;
        async move { wire.try_token(&token).await }
    }))
    .await;
    assert!(answers.iter().all(|answer| answer == "200"), "{answers:?}");
    let asked = publisher.asked().len();
    let seen = format!("{first}; 5 s later 50 times 200; questions: {asked}");
    let expected = "401 `keys_unavailable`; 5 s later 50 times 200; questions: 1";
    table.row("address", "not there at the start, then there; 50 tokens at once", expected, &seen);
}

async fn file(table: &mut Table, house: &House) {
    let (old, new) = (Key::named("rsa-1"), Key::named("rsa-2"));
    let path = std::env::temp_dir().join(format!("lkr-keys-{}.json", uuid::Uuid::new_v4()));
    let put = |text: &str| std::fs::write(&path, text).unwrap();
    put(&forge::set(&[&old]).to_string());
    let wire = house.on_wire(published(Jwks::File(path.clone()))).await;
    let answers = async || {
        house.clock.advance_micros(1_000_000);
        let claims = claims(house);
        let (old, new) = (old.token(&claims), new.token(&claims));
        format!("old key: {}; new key: {}", wire.try_token(&old).await, wire.try_token(&new).await)
    };
    let mut row = |case: &str, expected: &str, seen: String| {
        table.row("file", case, expected, &seen);
    };
    let only_old = format!("old key: 200; new key: {UNKNOWN}");
    row("holds the old key", &only_old, answers().await);
    put("{\"keys\": [");
    row("is half written", &only_old, answers().await);
    put(&format!("{}{}", " ".repeat(65 * 1024), forge::set(&[&old, &new])));
    row("is larger than 64 KiB", &only_old, answers().await);
    std::fs::remove_file(&path).unwrap();
    row("is gone", &only_old, answers().await);
    put(&forge::set(&[&old, &new]).to_string());
    row("holds both", "old key: 200; new key: 200", answers().await);
    put(&forge::set(&[&new]).to_string());
    row("holds the new key", &format!("old key: {UNKNOWN}; new key: 200"), answers().await);
    std::fs::remove_file(&path).unwrap();
}

/// Else somebody who asks for nothing and leaves could keep a new key out for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_does_not_take_the_question_along() {
    let (old, new) = (Key::named("ec-1"), Key::named("ec-2"));
    let publisher = Publisher::start(Answer::Keys(forge::set(&[&old]))).await;
    let verifier = Verifier::new(&published(publisher.jwks())).unwrap();
    let now =
        |seconds: i64| livekit_replay::domain::time::Timestamp::from_micros(seconds * 1_000_000);
    let claims = json!({"sub": "u1", "exp": 2_000, "iss": ISSUER, "aud": AUDIENCE});
    verifier.verify(&old.token(&claims), now(1_000)).await.expect("a known key");

    let (open, gate) = watch::channel(false);
    publisher.answer(Answer::Gated(forge::set(&[&old, &new]), gate));
    let nobody = with(&new.header(), json!({"kid": "nobody's"}));
    let nobody = new.token_under(&nobody, &claims);
    tokio::select! {
        _ = verifier.verify(&nobody, now(1_010)) => panic!("the gate is shut"),
        () = publisher.asked_times(2) => {}
    }
    // meanwhile known keys wait for nothing
    verifier.verify(&old.token(&claims), now(1_010)).await.expect("a known key");
    open.send(true).unwrap();
    verifier.verify(&new.token(&claims), now(1_010)).await.expect("found by the same question");
    assert_eq!(publisher.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_asked_for_at_the_start_and_the_end_waits_for_the_question() {
    let key = Key::named("ed-1");
    let (open, gate) = watch::channel(false);
    let publisher = Publisher::start(Answer::Gated(forge::set(&[&key]), gate)).await;
    let verifier = std::sync::Arc::new(Verifier::new(&published(publisher.jwks())).unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let keeping = tokio::spawn({
        let (verifier, stop) = (std::sync::Arc::clone(&verifier), stop.clone());
        let clock = std::sync::Arc::new(livekit_replay::clock::SystemClock);
        async move { verifier.keep_fresh(clock, stop).await }
    });
    publisher.asked_times(1).await;
    stop.cancel();
    open.send(true).unwrap();
    keeping.await.unwrap();
    // known without another question
    let claims = json!({"sub": "u1", "exp": 4_000_000_000_u64, "iss": ISSUER, "aud": AUDIENCE});
    let now = livekit_replay::clock::Clock::now(&livekit_replay::clock::SystemClock);
    verifier.verify(&key.token(&claims), now).await.expect("a known key");
    assert_eq!(publisher.asked().len(), 1);
}

#[test]
fn a_file_has_to_be_usable_at_the_start() {
    let path: PathBuf = std::env::temp_dir().join(format!("lkr-keys-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, json!({"keys": [{"kty": "oct", "k": "AAAA"}]}).to_string()).unwrap();
    let error = Verifier::new(&published(Jwks::File(path.clone()))).unwrap_err();
    assert!(error.detail().contains("auth.jwks_file"), "{error}");
    assert!(error.detail().contains("holds no usable key (key 1: is symmetric"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(Verifier::new(&published(Jwks::File(path))).is_err());
}
