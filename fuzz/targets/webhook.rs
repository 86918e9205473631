//! Any body as a webhook of LiveKit: it means the same with a field more, with 64-bit numbers written the other way and
//! with anything else spelt anew, and the recorder's own coming and going never means anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livekit_replay::{
    domain::time::Timestamp,
    livekit::webhook::{Event, Fact, read},
};
use serde_json::{Value, json};

fn said(value: &Value) -> Event {
    read(&serde_json::to_vec(value).expect("a value can be written"))
}

fn check(event: &Event) {
    if let Fact::Egress(fact) = &event.fact {
        // never the root, never nothing
        assert!(fact.directory.as_ref().is_none_or(|directory| !directory.is_empty()));
        for moment in [fact.requested_at, fact.media_started_at].into_iter().flatten() {
            assert!(moment >= Timestamp::from_micros(0) && moment.as_micros() <= i64::MAX / 1000);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let event = read(data);
    check(&event);
    // what is skipped unread may be no text and no number; with such a body there is nothing to compare
    let Ok(mut value) = serde_json::from_slice::<Value>(data) else { return };
    let plain = said(&value);
    check(&plain);
    let Some(body) = value.as_object_mut() else { return };
    body.insert("ofALaterVersion".to_owned(), json!({ "a": [1, null] }));
    assert_eq!(said(&value), plain);
    if let Some(started) = value.pointer_mut("/egressInfo/startedAt") {
        if let Some(number) = started.as_str().and_then(|text| text.parse::<i64>().ok()) {
            *started = json!(number);
            assert_eq!(said(&value), plain);
        } else if let Some(number) = started.as_i64() {
            *started = json!(number.to_string());
            assert_eq!(said(&value), plain);
        }
    }
    if let Some(status) = value.pointer_mut("/egressInfo/status") {
        let known = status.clone();
        *status = json!("EGRESS_OF_A_LATER_VERSION");
        let later = said(&value);
        // an unknown word may cost its own meaning alone
        if known.is_string() {
            assert_eq!(later.id, plain.id);
            assert_eq!(std::mem::discriminant(&later.fact), std::mem::discriminant(&plain.fact));
        }
        if let Some(status) = value.pointer_mut("/egressInfo/status") {
            *status = known;
        }
    }
    if let Some(Value::Object(who)) = value.get_mut("participant") {
        // the first bit of the body's length, to have both spellings
        let kind = if data.len() % 2 == 0 { json!("EGRESS") } else { json!(2) };
        who.insert("kind".to_owned(), kind);
        let fact = said(&value).fact;
        assert!(!matches!(fact, Fact::ParticipantLeft { .. }), "{fact:?}");
    }
});
