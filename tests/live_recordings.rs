//! Recorded output of a real LiveKit server and egress, read by the product's own readers: playlists, segments, the
//! clock of an epoch, webhooks, and the answers of the Egress service through the real client.
//!
//! The recordings and how they were made: `fixtures/livekit/README.md`. Webhook tokens live five minutes, so their
//! signatures are checked here by hand (HMAC, hash, times); what the receiver makes of the bodies is seen by signing
//! the very same bytes anew with the same key.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use axum::{
    Router,
    http::{HeaderName, StatusCode},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac};
use livekit_api::access_token::AccessToken;
use livekit_replay::{
    config,
    domain::{
        id::{EgressId, RoomName, TrackId},
        names::IdentityRule,
        playlist::{Entry, read_playlist},
        share::TrackSource,
        time::Timestamp,
        timeline::{ClockBasis, EpochClock, PTS_BASE, PTS_PER_SECOND},
    },
    error::Code,
    livekit::{
        EgressFact, EgressOrder, EgressState, LiveKit, Stopped,
        client::Client,
        webhook::{Event, Fact, Receiver},
    },
    media::ts::inspect,
};
use secrecy::SecretString;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The key pair of the recording; made for it, used for nothing else.
const KEY: &str = "devkey";
const SECRET: &str = "throwaway-recording-secret-0123456789-abcdef";
const EGRESS: &str = "EG_xj3qG3psyF5x";
/// Two seconds in PTS units.
const SEGMENT: i64 = 2 * PTS_PER_SECOND;
/// One frame at 30 per second.
const FRAME: i64 = 3000;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/livekit").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(name: &str) -> String {
    String::from_utf8(bytes(name)).expect("text")
}

fn json(name: &str) -> Value {
    serde_json::from_str(&text(name)).expect("JSON")
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.number).collect()
}

// ---- playlists ----

#[test]
fn the_finished_playlists_list_every_segment_and_their_end() {
    let event = read_playlist(&bytes("index.m3u8"));
    assert!(event.ended);
    assert_eq!(numbers(&event.entries), (0..38).collect::<Vec<_>>());
    let lengths: Vec<i64> = event.entries.iter().map(|entry| entry.duration_us).collect();
    assert_eq!(lengths[..37], [2_000_000; 37]);
    assert_eq!(lengths[37], 1_833_000);
    let first = event.entries[0].label;
    for entry in &event.entries {
        let media = i64::try_from(entry.number).expect("small") * 2_000_000;
        assert_eq!(entry.label.micros_since(first), media, "{}", entry.file_name);
    }
    let live = read_playlist(&bytes("live.m3u8"));
    assert!(live.ended);
    assert_eq!(live.entries, event.entries[33..]);
}

#[test]
fn every_state_a_reader_met_holds_only_segments_that_were_there() {
    let last = read_playlist(&bytes("index.m3u8")).entries;
    // when each name was closed under its final length, by the system's own events
    let events = text("file_events.tsv");
    let mut closed = BTreeMap::new();
    for line in events.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[2] == "CLOSE_WRITE" {
            closed.entry(fields[3]).or_insert(fields[0].parse::<i64>().expect("nanoseconds"));
        }
    }
    let (mut states, mut ended) = (0, 0);
    for line in text("playlists/all.jsonl").lines() {
        let state: Value = serde_json::from_str(line).expect("JSON");
        let read = read_playlist(state["text"].as_str().expect("text").as_bytes());
        let taken = state["unix_ns"].as_i64().expect("nanoseconds");
        assert!(!read.entries.is_empty(), "{line}");
        for entry in &read.entries {
            assert!(last.contains(entry), "{entry:?}");
            assert!(closed[entry.file_name.as_str()] <= taken + 500_000_000, "{entry:?}");
        }
        if state["name"] == "live.m3u8" {
            assert!(read.entries.len() <= 5, "{line}");
        }
        states += 1;
        ended += usize::from(read.ended);
    }
    assert!(states > 60 && ended == 2, "{states} states, {ended} with their end");
}

#[test]
fn a_playlist_caught_while_it_is_written_again_never_says_more_than_the_whole() {
    let whole = bytes("index.m3u8");
    let entries = read_playlist(&whole).entries;
    for cut in 0..whole.len() {
        let read = read_playlist(&whole[..cut]);
        for entry in &read.entries {
            assert!(entries.contains(entry), "cut at {cut}: {entry:?}");
        }
        assert!(!read.ended || cut >= whole.len() - 1, "cut at {cut}");
    }
}

// ---- segments and their time ----

/// PTS and screen clock (unix ms) of each frame of a segment, as read from its pictures.
fn clocks(table: &str, segment: &str) -> Vec<(i64, Option<i64>)> {
    let table = text(table);
    let rows = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[0] == segment)
        .map(|row| {
            let seconds: f64 = row[1].parse().expect("seconds");
            ((seconds * 90_000.0).round() as i64, row[2].parse().ok())
        })
        .collect()
}

#[test]
fn segments_are_what_the_index_expects_of_egress() {
    let mut sets = Vec::new();
    for n in 0..3 {
        let name = format!("segments/seg_0000{n}.ts");
        let facts = inspect(&bytes(&name)).unwrap_or_else(|damage| panic!("{name}: {damage:?}"));
        assert_eq!(facts.pts_first, PTS_BASE + n * SEGMENT, "{name}");
        assert_eq!(facts.pts_end, PTS_BASE + (n + 1) * SEGMENT, "{name}");
        assert_eq!((facts.frames, facts.frame_duration), (60, FRAME), "{name}");
        assert_eq!(facts.key_frames.len(), 1, "{name}");
        assert_eq!(facts.key_frames[0].pts, facts.pts_first, "{name}");
        assert_eq!((facts.width, facts.height), (1280, 720), "{name}");
        assert_eq!(facts.audio, None, "{name}");
        sets.push(facts.parameter_sets);
    }
    assert!(sets.iter().all(|set| *set == sets[0]), "joined without encoding");
}

#[test]
fn screen_time_is_the_clock_in_the_pictures() {
    let started = first_packet(&json("list_active.json")["decoded"]["items"][0]);
    let label = read_playlist(&bytes("index.m3u8")).entries[0].label;
    let facts = inspect(&bytes("segments/seg_00000.ts")).expect("whole");
    let clock = EpochClock::fix(Some(started), label, facts.pts_first, 0, None);
    assert_eq!(clock.basis, ClockBasis::StartedAt);
    assert_eq!(clock.delay_ms, Some(581));
    let mut frames = 0;
    for n in 0..3 {
        let name = format!("seg_0000{n}.ts");
        for (pts, shown) in clocks("segments/clocks.tsv", &name) {
            let shown = Timestamp::from_micros(shown.expect("readable") * 1000);
            let late = clock.screen_time(pts).micros_since(shown);
            // one frame each way, and the way through encoder and network
            assert!((-33_334..70_000).contains(&late), "{name} {pts}: {late} µs");
            frames += 1;
        }
    }
    assert_eq!(frames, 180);
}

fn first_packet(info: &Value) -> Timestamp {
    let text = info["segment_results"][0]["started_at"].as_str().expect("a time");
    Timestamp::from_nanos(text.parse().expect("nanoseconds"))
}

#[test]
fn black_ends_with_two_seconds_without_pictures_and_a_segment_listed_as_that_much_longer() {
    for (recording, n, listed) in [("mute", 5, 2_626_000), ("publisher_lost", 12, 3_152_000)] {
        let facts = |n: u64| inspect(&bytes(&format!("{recording}/seg_{n:05}.ts"))).expect("whole");
        let (before, long, next) = (facts(n - 1), facts(n), facts(n + 1));
        assert!((long.pts_first - before.pts_end).abs() <= FRAME, "{recording}: no hole before");
        let hole = next.pts_first - long.pts_end;
        assert!((SEGMENT - 3 * FRAME..=SEGMENT + FRAME).contains(&hole), "{recording}: {hole}");
        let playlist = read_playlist(&bytes(&format!("{recording}/index.m3u8")));
        let entry = playlist.entries.iter().find(|entry| entry.number == n).expect("listed");
        // the hole counts as length; TARGETDURATION stays 2
        assert_eq!(entry.duration_us, listed, "{recording}");
        let to_the_next = (next.pts_first - long.pts_first) * 100 / 9;
        assert!((to_the_next - listed).abs() <= 1000, "{recording}: {to_the_next} µs");
        let label =
            |n| playlist.entries.iter().find(|entry| entry.number == n).expect("listed").label;
        let labelled = label(n + 1).micros_since(label(n));
        assert!((labelled - listed).abs() <= 1000, "{recording}: {labelled} µs");
    }
}

#[test]
fn a_recording_with_sound_has_it_from_the_first_segment_on() {
    for n in 0..2 {
        let facts = inspect(&bytes(&format!("with_audio/seg_0000{n}.ts"))).expect("whole");
        let audio = facts.audio.clone().expect("sound");
        assert_eq!((audio.rate, audio.channels), (44_100, 2));
        // begins with the pictures; the last frame of sound may reach past them
        assert!((audio.pts_first - facts.pts_first).abs() <= 9000, "{n}: {audio:?} {facts:?}");
        assert!((audio.pts_end - facts.pts_end).abs() <= 9000, "{n}: {audio:?}");
    }
}

#[test]
fn pictures_that_went_while_the_sound_stayed_leave_a_segment_of_more_sound_than_pictures() {
    let facts = inspect(&bytes("video_unpublished_audio_stays/seg_00003.ts")).expect("whole");
    let audio = facts.audio.clone().expect("sound");
    let pictures = facts.pts_end - facts.pts_first;
    assert!((pictures - 8 * PTS_PER_SECOND / 10).abs() <= FRAME, "{pictures}");
    assert!(audio.pts_end - facts.pts_end > 7 * PTS_PER_SECOND, "{audio:?}");
    let playlist = read_playlist(&bytes("video_unpublished_audio_stays/index.m3u8"));
    assert_eq!(playlist.entries.last().expect("listed").duration_us, 800_000);
}

// ---- webhooks ----

struct Hook {
    name: String,
    received: Timestamp,
    token: String,
    body: Vec<u8>,
}

fn hooks(directory: &str) -> Vec<Hook> {
    let mut files: Vec<_> = std::fs::read_dir(path(directory))
        .expect("recorded webhooks")
        .map(|file| file.expect("a file").file_name().into_string().expect("plain name"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|name| {
            let hook = json(&format!("{directory}/{name}"));
            let header = |wanted: &str| {
                let headers = hook["headers"].as_array().expect("headers");
                let found = headers.iter().find(|header| header[0] == wanted);
                found.expect("sent")[1].as_str().expect("text").to_owned()
            };
            assert_eq!(header("Content-Type"), "application/webhook+json", "{name}");
            Hook {
                received: Timestamp::from_nanos(hook["receivedAt"].as_i64().expect("nanoseconds")),
                token: header("Authorization"),
                body: STANDARD.decode(hook["body_base64"].as_str().expect("text")).expect("bytes"),
                name,
            }
        })
        .collect()
}

/// What the product makes of the very bytes, signed anew.
fn received(receiver: &Receiver, hook: &Hook) -> Event {
    let hash = STANDARD.encode(Sha256::digest(&hook.body));
    let token = AccessToken::with_api_key(KEY, SECRET).with_sha256(&hash).to_jwt();
    receiver
        .receive(Some(&token.expect("a token")), &hook.body)
        .unwrap_or_else(|error| panic!("{}: {error:?}", hook.name))
}

#[test]
fn every_recorded_signature_fits_its_body_and_its_time_and_is_refused_today() {
    let receiver = Receiver::new(&settings("http://127.0.0.1:1"));
    let all = hooks("webhooks").into_iter().chain(hooks("webhooks_other")).collect::<Vec<_>>();
    assert_eq!(all.len(), 44);
    for hook in all {
        let (signed, signature) = hook.token.rsplit_once('.').expect("a JWT");
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        assert!(mac.verify_slice(&signature).is_ok(), "{}", hook.name);
        let (_, claims) = signed.split_once('.').expect("a payload");
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON");
        assert_eq!(claims["iss"], KEY);
        assert_eq!(claims["sha256"], STANDARD.encode(Sha256::digest(&hook.body)), "{}", hook.name);
        let seconds = |claim: &str| claims[claim].as_i64().expect("seconds") * 1_000_000;
        let at = hook.received.as_micros();
        assert!(seconds("nbf") <= at && at < seconds("exp"), "{}", hook.name);
        assert_eq!(seconds("exp") - seconds("nbf"), 300_000_000);
        // an old webhook sent again is no news
        let late = receiver.receive(Some(&hook.token), &hook.body).expect_err("expired");
        assert_eq!(late.code(), Code::Unauthenticated);
    }
}

#[test]
fn the_webhooks_of_a_recordings_life_are_understood() {
    let receiver = Receiver::new(&settings("http://127.0.0.1:1"));
    let events: Vec<Event> =
        hooks("webhooks").iter().map(|hook| received(&receiver, hook)).collect();
    let mut ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert!(ids.iter().all(|id| id.starts_with("EV_")));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 12, "each event has an id of its own");

    let facts: Vec<&Fact> = events.iter().map(|event| &event.fact).collect();
    let room = RoomName::new("replay-room");
    assert!(matches!(facts[2], Fact::TrackPublished { room: at, source, .. }
        if *at == room && *source == TrackSource::ScreenShare));
    assert!(matches!(facts[9], Fact::TrackUnpublished { source: TrackSource::ScreenShare, .. }));
    assert!(matches!(facts[10], Fact::ParticipantLeft { room: at, .. } if *at == room));
    assert_eq!(*facts[11], Fact::RoomFinished { room: room.clone() });
    // opening, people coming, and the recorder's own coming and going
    for n in [0, 1, 4, 7] {
        assert_eq!(*facts[n], Fact::Other, "{n}");
    }
    let egress = |n: usize| match facts[n] {
        Fact::Egress(fact) => fact.clone(),
        other => panic!("{n}: {other:?}"),
    };
    let states = [3, 5, 6, 8].map(|n| egress(n).state);
    use EgressState::*;
    assert_eq!(states, [Starting, Active, Ending, Complete]);
    for n in [3, 5, 6, 8] {
        assert_eq!(egress(n).id.as_str(), EGRESS);
        assert_eq!(egress(n).room, room);
        assert!(egress(n).directory.expect("echoed").ends_with("/1"));
    }
    assert_eq!(egress(3).media_started_at, None);
    let first = first_packet(&json("list_active.json")["decoded"]["items"][0]);
    assert_eq!(egress(5).media_started_at, Some(first));
    assert_eq!(egress(8).details, "End reason: StopEgress API");
}

#[test]
fn the_webhooks_of_recordings_that_ended_otherwise_say_how() {
    let receiver = Receiver::new(&settings("http://127.0.0.1:1"));
    let all = hooks("webhooks_other");
    let last = |name: &str| -> EgressFact {
        let hook = all.iter().rfind(|hook| hook.name.starts_with(name)).expect("recorded");
        match received(&receiver, hook).fact {
            Fact::Egress(fact) => fact,
            other => panic!("{name}: {other:?}"),
        }
    };
    for (name, state, code, words) in [
        ("av1", EgressState::Failed, 400, "video/av1 is not yet supported"),
        ("killhandler", EgressState::Failed, 500, "signal: killed"),
        ("no_aac_encoder", EgressState::Failed, 500, "could not create element: faac"),
        ("sigint", EgressState::Failed, 403, "server is shutting down"),
        ("stopped_before_media", EgressState::Aborted, 412, "Stop called before pipeline"),
        ("unknown_track", EgressState::Failed, 404, "not found"),
        ("unwritable_path", EgressState::Failed, 400, "Local upload failed"),
        ("unpublish", EgressState::Complete, 0, ""),
        ("delroom", EgressState::Complete, 0, ""),
        ("lkrestart", EgressState::Complete, 0, ""),
        // a dead host says nothing more
        ("killhost", EgressState::Active, 0, ""),
    ] {
        let fact = last(name);
        assert_eq!((fact.state, fact.error_code), (state, code), "{name}");
        assert!(fact.error.contains(words), "{name}: {}", fact.error);
    }
    assert_eq!(last("unpublish").details, "End reason: Source closed");
}

// ---- the Egress service's answers, through the real client ----

fn settings(url: &str) -> config::Livekit {
    config::Livekit {
        url: url.to_owned(),
        api_key: KEY.to_owned(),
        api_secret: SecretString::from(SECRET),
        webhook_keys: vec![],
        egress_output_path: "/out".into(),
        start_timeout: Duration::from_secs(60),
        pipeline_delay: None,
        identity_pattern: IdentityRule::new("^(?<user>.+)$").expect("pattern"),
    }
}

/// A client whose every call is answered with the recorded status, content type and bytes.
async fn answered(exchange: &Value) -> Client {
    let status = u16::try_from(exchange["status"].as_u64().expect("a status")).expect("a status");
    let status = StatusCode::from_u16(status).expect("a status");
    let headers = exchange["headers"].as_array().expect("headers");
    let kind = headers.iter().find(|header| header[0] == "Content-Type").expect("a type");
    let kind = kind[1].as_str().expect("text").to_owned();
    let body = STANDARD.decode(exchange["body_base64"].as_str().expect("text")).expect("bytes");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let answer = move || {
        let reply = (status, [(HeaderName::from_static("content-type"), kind)], body);
        std::future::ready(reply)
    };
    // ends with the test's run time
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Client::new(&settings(&url))
}

fn order() -> EgressOrder {
    EgressOrder {
        room: RoomName::new("replay-room"),
        video: TrackId::new("TR_VSUfXMyaobD8c2"),
        audio: None,
        directory: "/out/1".to_owned(),
        width: 1280,
        height: 720,
        frame_rate: 30,
        video_kbps: 600,
        audio_kbps: 128,
        segment_seconds: 2,
    }
}

#[tokio::test]
async fn the_answer_to_a_start_becomes_a_fact_whose_time_lies_between_sending_and_receiving() {
    let exchange = json("start_egress.json");
    let fact = answered(&exchange).await.start_egress(&order()).await.expect("accepted");
    assert_eq!((fact.id.as_str(), fact.state), (EGRESS, EgressState::Starting));
    let directory = fact.directory.expect("echoed");
    assert!(directory.ends_with("/1") && directory.starts_with('/'), "{directory}");
    let time = |name: &str| Timestamp::from_nanos(exchange[name].as_i64().expect("nanoseconds"));
    let host = fact.requested_at.expect("given");
    assert!(time("sentAt") < host && host < time("receivedAt"));
    assert_eq!(fact.media_started_at, None);
}

#[tokio::test]
async fn listed_recordings_tell_their_state_and_their_first_packet() {
    let id = EgressId::new(EGRESS);
    let mut found = Vec::new();
    for name in ["list_starting.json", "list_active.json", "list_ended.json"] {
        let fact = answered(&json(name)).await.find_egress(&id).await.expect("answered");
        found.push(fact.unwrap_or_else(|| panic!("{name}: not found")));
    }
    let states: Vec<_> = found.iter().map(|fact| fact.state).collect();
    assert_eq!(states, [EgressState::Starting, EgressState::Active, EgressState::Complete]);
    assert_eq!(found[0].media_started_at, None);
    assert!(found[1].media_started_at.is_some());
    assert_eq!(found[1].media_started_at, found[2].media_started_at, "it does not move");
    // the service's time in the answer, the recording process's own from ACTIVE on
    assert!(found[0].requested_at < found[1].requested_at);
    assert_eq!(found[2].details, "End reason: StopEgress API");

    let errors = json("errors.json");
    let room = RoomName::new("any");
    let running = answered(&errors["list_room_active"]).await.list_active_egress(Some(&room)).await;
    let running = running.expect("answered").into_iter();
    let active = running.filter(|fact| fact.state == EgressState::Active).count();
    assert!(active >= 2, "two recordings of one track are allowed");
    let none = answered(&errors["list_unknown_room"]).await.list_active_egress(Some(&room)).await;
    assert_eq!(none.expect("answered"), []);
    let unknown = answered(&errors["list_unknown_id"]).await.find_egress(&id).await;
    assert_eq!(unknown.expect("answered"), None);
}

#[tokio::test]
async fn refusals_mean_what_livekit_meant() {
    let errors = json("errors.json");
    let id = EgressId::new(EGRESS);
    for (name, meaning) in [
        ("stop_first", Stopped::Ending),
        ("stop_first_again", Stopped::Ending),
        ("stop_unknown_id", Stopped::AlreadyOver),
        ("stop_ended_id", Stopped::AlreadyOver),
        ("stop_after_complete", Stopped::AlreadyOver),
    ] {
        let stopped = answered(&errors[name]).await.stop_egress(&id).await;
        assert_eq!(stopped.unwrap_or_else(|error| panic!("{name}: {error:?}")), meaning, "{name}");
    }
    // nothing is known of an egress that still waits for its tracks
    let waiting = answered(&errors["stop_while_waiting_for_track"]).await.stop_egress(&id).await;
    assert_eq!(waiting.expect_err("no answer").code(), Code::LivekitUnreachable);
    let grant = answered(&errors["stop_without_grant"]).await.stop_egress(&id).await;
    assert_eq!(grant.expect_err("refused").code(), Code::LivekitRejectedCredentials);
    for name in ["list_bad_token", "list_unknown_key", "list_no_token"] {
        let refused = answered(&errors[name]).await.find_egress(&id).await;
        let code = refused.expect_err("refused").code();
        assert_eq!(code, Code::LivekitRejectedCredentials, "{name}");
    }
    for (name, code) in [
        ("start_unknown_room", Code::ScreenShareNotFound),
        ("unknown_method", Code::EgressUnavailable),
        ("start_odd_width", Code::EgressUnavailable),
        ("list_bad_token", Code::LivekitRejectedCredentials),
    ] {
        let refused = answered(&errors[name]).await.start_egress(&order()).await;
        assert_eq!(refused.expect_err("refused").code(), code, "{name}");
    }
}

#[tokio::test]
async fn recordings_that_failed_keep_livekits_words_and_code() {
    let errors = json("errors.json");
    for (name, state, code, words) in [
        ("list_unknown_track_final", EgressState::Failed, 404, "not found"),
        ("list_unwritable_final", EgressState::Failed, 400, "Local upload failed"),
        ("list_after_stop_soon", EgressState::Aborted, 412, "Stop called before"),
    ] {
        let exchange = &errors[name];
        let id = exchange["decoded"]["items"][0]["egress_id"].as_str().expect("an id");
        let fact = answered(exchange).await.find_egress(&EgressId::new(id)).await;
        let fact = fact.expect("answered").expect("known");
        assert_eq!((fact.state, fact.error_code), (state, code), "{name}");
        assert!(fact.error.contains(words), "{name}: {}", fact.error);
    }
}
