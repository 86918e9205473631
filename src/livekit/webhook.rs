//! A webhook: raw body and header in, a verified fact in our words out.
//!
//! The signature is checked over the raw bytes before anything is parsed. The body is then read into structs of our
//! own, because livekit-protocol's refuse a whole event for one enum name they do not know, and LiveKit servers are
//! upgraded before their clients. Absent enums mean their zero value, 64-bit numbers come as strings (protojson).

use base64::{Engine, engine::general_purpose::STANDARD};
use livekit_api::access_token::TokenVerifier;
use livekit_protocol as proto;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{EgressFact, convert};
use crate::{
    config,
    domain::id::{EgressId, Identity, RoomName, TrackId},
    domain::share::TrackSource,
    error::{Code, Error, Result},
};

/// Verifies and reads webhooks; holds one verifier per accepted key.
#[derive(Debug, Clone)]
pub struct Receiver {
    verifiers: Vec<TokenVerifier>,
}

/// A verified event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `EV_…`: the same for retries and doubles. Empty if the server sent none.
    pub id: String,
    /// What happened.
    pub fact: Fact,
}

/// What concerns us in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An egress began, changed or ended; LiveKit's snapshot of it.
    Egress(EgressFact),
    /// A track is really there.
    TrackPublished {
        /// Where.
        room: RoomName,
        /// Whose.
        identity: Identity,
        /// Which.
        track: TrackId,
        /// What it shows.
        source: TrackSource,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Where.
        room: RoomName,
        /// Whose.
        identity: Identity,
        /// Which.
        track: TrackId,
        /// What it shows.
        source: TrackSource,
    },
    /// Somebody left.
    ParticipantLeft {
        /// Where.
        room: RoomName,
        /// Who.
        identity: Identity,
    },
    /// The room is closed.
    RoomFinished {
        /// Which.
        room: RoomName,
    },
    /// Nothing we act on.
    Other,
}

impl Receiver {
    /// Accepts the keys of `livekit.webhook_keys`, or the API's own pair.
    pub fn new(settings: &config::Livekit) -> Receiver {
        let own = [(settings.api_key.clone(), settings.api_secret.clone())];
        let keys = if settings.webhook_keys.is_empty() { &own[..] } else { &settings.webhook_keys };
        Receiver {
            verifiers: keys
                .iter()
                .map(|(key, secret)| TokenVerifier::with_api_key(key, secret.expose_secret()))
                .collect(),
        }
    }

    /// Verifies `authorization` (a bare JWT, LiveKit sends no `Bearer`) against the raw body and reads the event.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] for a missing, forged, altered or expired signature. A body that is signed but not
    /// understood is [`Fact::Other`], never an error: LiveKit takes any 4xx for delivered.
    pub fn receive(&self, authorization: Option<&str>, body: &[u8]) -> Result<Event> {
        let header = authorization.ok_or_else(|| refuse("missing"))?;
        let jwt = header.strip_prefix("Bearer ").unwrap_or(header).trim();
        let claims = self
            .verifiers
            .iter()
            .find_map(|verifier| verifier.verify(jwt).ok())
            .ok_or_else(|| refuse("bad_signature"))?;
        let signed = STANDARD.decode(&claims.sha256).map_err(|_| refuse("bad_checksum"))?;
        if signed.is_empty() || signed[..] != Sha256::digest(body)[..] {
            return Err(refuse("bad_checksum"));
        }
        Ok(read(body))
    }
}

fn refuse(reason: &str) -> Error {
    Error::new(Code::Unauthenticated, "The webhook's signature does not fit.")
        .with("reason", reason)
}

/// What a body says, whoever sent it: to be asked after the signature. Never fails; what cannot be read is
/// [`Fact::Other`] without an id.
pub fn read(body: &[u8]) -> Event {
    match serde_json::from_slice::<Body>(body) {
        Ok(event) => Event { id: event.id.clone(), fact: event.into_fact() },
        Err(error) => {
            tracing::warn!(error = %error, "a signed webhook could not be read");
            Event { id: String::new(), fact: Fact::Other }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Body {
    event: String,
    id: String,
    room: Option<Named>,
    participant: Option<ParticipantBody>,
    track: Option<TrackBody>,
    egress_info: Option<EgressBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ParticipantBody {
    identity: String,
    kind: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TrackBody {
    sid: String,
    source: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EgressBody {
    egress_id: String,
    room_name: String,
    status: Value,
    started_at: Value,
    error: String,
    error_code: Value,
    details: String,
    segment_results: Vec<SegmentsBody>,
    track_composite: Option<RequestBody>,
    room_composite: Option<RequestBody>,
    participant: Option<RequestBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SegmentsBody {
    started_at: Value,
    playlist_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RequestBody {
    segment_outputs: Vec<OutputBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OutputBody {
    filename_prefix: String,
}

impl Body {
    fn into_fact(self) -> Fact {
        let room = || RoomName::new(self.room.as_ref().map_or("", |room| room.name.as_str()));
        match self.event.as_str() {
            "egress_started" | "egress_updated" | "egress_ended" => {
                // An automatic egress that could not be launched is reported without an id.
                match self.egress_info {
                    Some(info) if !info.egress_id.is_empty() => Fact::Egress(info.into_fact()),
                    _ => Fact::Other,
                }
            }
            "room_finished" => Fact::RoomFinished { room: room() },
            "participant_left" | "participant_connection_aborted" => match &self.participant {
                Some(who) if !who.is_egress() => {
                    Fact::ParticipantLeft { room: room(), identity: who.identity() }
                }
                _ => Fact::Other,
            },
            "track_published" | "track_unpublished" => match (&self.participant, &self.track) {
                (Some(who), Some(track)) => {
                    let (room, identity) = (room(), who.identity());
                    let (track, source) = (TrackId::new(track.sid.clone()), track.source());
                    if self.event == "track_published" {
                        Fact::TrackPublished { room, identity, track, source }
                    } else {
                        Fact::TrackUnpublished { room, identity, track, source }
                    }
                }
                _ => Fact::Other,
            },
            _ => Fact::Other,
        }
    }
}

impl ParticipantBody {
    fn identity(&self) -> Identity {
        Identity::new(self.identity.clone())
    }
    /// The recorder joins as a hidden participant of kind EGRESS.
    fn is_egress(&self) -> bool {
        self.kind.as_str() == Some("EGRESS") || self.kind.as_i64() == Some(2)
    }
}

impl TrackBody {
    fn source(&self) -> TrackSource {
        convert::source(enumeration(&self.source, proto::TrackSource::from_str_name))
    }
}

impl EgressBody {
    fn into_fact(self) -> EgressFact {
        let status = enumeration(&self.status, proto::EgressStatus::from_str_name);
        let first = self.segment_results.first();
        let request = self
            .track_composite
            .as_ref()
            .or(self.room_composite.as_ref())
            .or(self.participant.as_ref());
        // The echoed request names the prefix; the results name the playlist in the same directory.
        let path = request
            .and_then(|request| request.segment_outputs.first())
            .map(|output| output.filename_prefix.as_str())
            .filter(|prefix| !prefix.is_empty())
            .or_else(|| first.map(|first| first.playlist_name.as_str()));
        EgressFact {
            state: convert::state(status),
            directory: path.and_then(convert::directory_of),
            requested_at: convert::nanos(number(&self.started_at)),
            media_started_at: first.and_then(|first| convert::nanos(number(&first.started_at))),
            error_code: i32::try_from(number(&self.error_code)).unwrap_or(0),
            id: EgressId::new(self.egress_id),
            room: RoomName::new(self.room_name),
            details: self.details,
            error: self.error,
        }
    }
}

/// A protojson 64-bit number: a string, or a number from lenient writers; absent = 0.
fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}

/// A protojson enum: its name, or its number; absent = the zero value; unknown = `None`.
fn enumeration<E: TryFrom<i32>>(value: &Value, by_name: fn(&str) -> Option<E>) -> Option<E> {
    match value {
        Value::Null => E::try_from(0).ok(),
        Value::String(name) => by_name(name),
        other => i32::try_from(other.as_i64()?).ok().and_then(|number| E::try_from(number).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[test]
    fn an_unknown_enum_name_does_not_lose_the_event() {
        let body = br#"{"event":"egress_updated","id":"EV_1","egressInfo":{"egressId":"EG_1","status":"EGRESS_DREAMING",
            "startedAt":"1739900130000000000","trackComposite":{"segmentOutputs":[{"filenamePrefix":"/out/a/1/seg"}]}}}"#;
        let Event { fact: Fact::Egress(fact), .. } = read(body) else { panic!("no egress fact") };
        assert_eq!(fact.state, super::super::EgressState::Unknown);
        assert_eq!(fact.directory.as_deref(), Some("/out/a/1"));
        assert_eq!(fact.requested_at, Some(Timestamp::from_micros(1_739_900_130_000_000)));
    }

    #[test]
    fn an_absent_enum_is_its_zero_value() {
        let body = br#"{"event":"egress_started","id":"EV_1","egressInfo":{"egressId":"EG_1"}}"#;
        let Event { fact: Fact::Egress(fact), .. } = read(body) else { panic!("no egress fact") };
        assert_eq!(fact.state, super::super::EgressState::Starting);
    }

    #[test]
    fn the_recorders_own_coming_and_going_is_nothing_to_us() {
        let body = br#"{"event":"participant_left","id":"EV_2","room":{"name":"r"},
            "participant":{"identity":"EG_1","kind":"EGRESS"}}"#;
        assert_eq!(read(body).fact, Fact::Other);
    }

    /// The bodies that the fuzz target begins with: real ones.
    fn real() -> Vec<Vec<u8>> {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/webhook");
        let files = std::fs::read_dir(place).expect("the bodies are there");
        files.map(|file| std::fs::read(file.expect("a file").path()).expect("read")).collect()
    }

    #[test]
    fn real_events_mean_the_same_with_more_in_them_and_nothing_when_cut_short() {
        let bodies = real();
        assert!(bodies.len() >= 8, "{}", bodies.len());
        for body in bodies {
            let event = read(&body);
            assert!(!event.id.is_empty() && event.fact != Fact::Other || is_the_recorders(&body));
            let mut value: Value = serde_json::from_slice(&body).expect("JSON");
            value["ofALaterVersion"] = serde_json::json!([{ "a": null }]);
            if let Some(info) = value.get_mut("egressInfo") {
                let started = info["startedAt"].as_str().expect("a string");
                info["startedAt"] = started.parse::<i64>().expect("a number").into();
                info["ofALaterVersion"] = true.into();
            }
            assert_eq!(read(&serde_json::to_vec(&value).expect("JSON")), event);
            for cut in 0..body.len() {
                assert_eq!(read(&body[..cut]), Event { id: String::new(), fact: Fact::Other });
            }
        }
    }

    fn is_the_recorders(body: &[u8]) -> bool {
        String::from_utf8_lossy(body).contains(r#""kind":"EGRESS""#)
    }
}
