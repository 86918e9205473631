//! The LiveKit stand-in, driven from outside with LiveKit's own clients: what it records, tells and gets wrong.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use livekit_api::{
    access_token::TokenVerifier,
    services::{
        ServiceError,
        egress::{
            EgressClient, EgressListFilter, EgressListOptions, EgressOutput, TrackCompositeOptions,
            encoding::EncodingOptions,
        },
        room::RoomClient,
    },
    webhooks::WebhookReceiver,
};
use livekit_protocol as proto;
use livekit_replay::simulator::{
    CallAction, CallFault, Corruption, EgressConfig, HookAction, HookFault, Media, Share,
    SimConfig, Simulator, decode,
};
use proto::EgressStatus;

/// A simulator with a directory of its own for the recordings.
struct Stage {
    sim: Simulator,
    root: PathBuf,
}

impl Stage {
    async fn new(adjust: impl FnOnce(&mut SimConfig)) -> Stage {
        let root = std::env::temp_dir().join(format!("simulator-test-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&root).unwrap();
        let mut config = SimConfig { root: root.clone(), ..SimConfig::default() };
        config.egress = EgressConfig {
            start_delay: Duration::from_millis(20),
            inner_delay: Duration::from_millis(500),
            ..EgressConfig::default()
        };
        adjust(&mut config);
        Stage { sim: Simulator::start(config).await.unwrap(), root }
    }

    fn egress(&self) -> EgressClient {
        EgressClient::with_api_key(&self.sim.url(), self.sim.api_key(), self.sim.api_secret())
    }

    fn rooms(&self) -> RoomClient {
        RoomClient::with_api_key(&self.sim.url(), self.sim.api_key(), self.sim.api_secret())
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.join("out").join(name)
    }

    async fn info(&self, egress_id: &str) -> proto::EgressInfo {
        let filter = EgressListFilter::Egress(egress_id.to_owned());
        let options = EgressListOptions { filter, ..EgressListOptions::default() };
        self.egress().list_egress(options).await.unwrap().remove(0)
    }

    async fn until_status(&self, egress_id: &str, status: EgressStatus) -> proto::EgressInfo {
        eventually(async || Some(self.info(egress_id).await).filter(|info| info.status() == status))
            .await
    }

    async fn until_segments(&self, egress_id: &str, count: u32) {
        let enough = async || {
            let views = self.sim.egresses();
            views.into_iter().find(|view| view.egress_id == egress_id && view.segments >= count)
        };
        eventually(enough).await;
    }

    async fn end(self) {
        self.sim.shutdown().await;
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

/// Asks again until there is an answer; the limit only turns a hang into a failure.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(50), asking).await.expect("it never came true")
}

fn output(name: &str, seconds: u32) -> Vec<EgressOutput> {
    vec![EgressOutput::Segments(proto::SegmentedFileOutput {
        filename_prefix: format!("/out/{name}/seg"),
        playlist_name: "index.m3u8".to_owned(),
        live_playlist_name: "live.m3u8".to_owned(),
        segment_duration: seconds,
        disable_manifest: true,
        ..proto::SegmentedFileOutput::default()
    })]
}

fn options(
    share: &livekit_replay::simulator::ShareHandle,
    width: i32,
    height: i32,
) -> TrackCompositeOptions {
    TrackCompositeOptions {
        encoding: EncodingOptions {
            width,
            height,
            framerate: 30,
            video_bitrate: 1500,
            audio_codec: proto::AudioCodec::Aac,
            ..EncodingOptions::default()
        },
        video_track_id: share.video.clone(),
        audio_track_id: share.audio.clone().unwrap_or_default(),
    }
}

fn twirp(error: ServiceError) -> (String, String) {
    match error {
        ServiceError::Twirp(livekit_api::services::ServerError::Twirp(error)) => {
            (error.code, error.msg)
        }
        other => panic!("not a Twirp error: {other}"),
    }
}

/// Name, start label (milliseconds) and seconds of each entry.
fn playlist(path: &Path) -> (Vec<(String, f64, f64)>, bool) {
    let bytes = std::fs::read(path).unwrap();
    let Ok((_, m3u8_rs::Playlist::MediaPlaylist(list))) = m3u8_rs::parse_playlist(&bytes) else {
        panic!("not a media playlist: {}", String::from_utf8_lossy(&bytes));
    };
    let entry = |segment: &m3u8_rs::MediaSegment| {
        let label = segment.program_date_time.unwrap().timestamp_micros() as f64 / 1000.0;
        (segment.uri.clone(), label, f64::from(segment.duration))
    };
    (list.segments.iter().map(entry).collect(), list.end_list)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twenty_second_recording_decodes_frame_by_frame_and_beep_by_beep() {
    let stage = Stage::new(|config| config.egress.host_clock_skew_ms = 7_000).await;
    let share = stage
        .sim
        .publish_share("my/room", "ann", Share { width: 1919, height: 1079, ..Share::default() })
        .unwrap();
    let info = stage
        .egress()
        .start_track_composite_egress("my/room", output("a", 4), options(&share, 640, 360))
        .await
        .unwrap();
    assert_eq!(info.status(), EgressStatus::EgressStarting);
    assert!(info.egress_id.starts_with("EG_") && info.segment_results[0].started_at == 0);
    let Some(proto::egress_info::Request::TrackComposite(echo)) = &info.request else {
        panic!("no echo")
    };
    assert_eq!(echo.segment_outputs[0].filename_prefix, "/out/a/seg");

    stage.until_segments(&info.egress_id, 4).await;
    let active = stage.info(&info.egress_id).await;
    assert_eq!(active.status(), EgressStatus::EgressActive);
    assert_eq!(stage.sim.running_encoders(), 1);
    let stopping = stage.egress().stop_egress(&info.egress_id).await.unwrap();
    assert_eq!(stopping.status(), EgressStatus::EgressEnding);
    let over = stage.until_status(&info.egress_id, EgressStatus::EgressComplete).await;
    assert_eq!(over.details, "End reason: StopEgress API");
    let (code, msg) = twirp(stage.egress().stop_egress(&info.egress_id).await.unwrap_err());
    assert_eq!(
        (code.as_str(), msg.as_str()),
        ("failed_precondition", "egress with status EGRESS_COMPLETE cannot be stopped")
    );

    let (entries, ended) = playlist(&stage.dir("a").join("index.m3u8"));
    assert!(ended && entries.len() >= 5, "{entries:?}");
    assert_eq!(over.segment_results[0].segment_count as usize, entries.len());
    let (live, live_ended) = playlist(&stage.dir("a").join("live.m3u8"));
    assert!(live_ended && live == entries[entries.len() - 5..]);

    let first_packet_ms = active.segment_results[0].started_at as f64 / 1e6;
    let mut markers = Vec::new();
    let mut beeps = Vec::new();
    let mut frames = 0;
    for (index, (name, label, seconds)) in entries.iter().enumerate() {
        assert_eq!(name, &format!("seg_{index:05}.ts"));
        let path = stage.dir("a").join(name);
        looks_like_egress(&std::fs::read(&path).unwrap());
        if index < 4 {
            // these came out on their own: not before the key frame after next, by two segments and a bit
            let appeared = std::fs::metadata(&path).unwrap().modified().unwrap();
            let appeared =
                appeared.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as f64;
            let sink_start = first_packet_ms - 7_000.0 + 500.0;
            let due = sink_start + (index as f64 + 2.0) * 4000.0 + 600.0;
            // the time of a file is that of the kernel's last tick, some milliseconds old
            assert!(appeared >= due - 10.0, "segment {index}: {} ms early", due - appeared);
        }
        let decoded = decode::decode_sources(&path, &[(1919, 1079)]).await.unwrap();
        let start = 3600.0 + index as f64 * 4.0;
        assert!(
            (decoded.frames[0].pts - start).abs() < 1e-4,
            "segment {index}: {}",
            decoded.frames[0].pts
        );
        let whole = index + 1 < entries.len();
        assert!(
            !whole || (*seconds == 4.0 && decoded.frames.len() == 120),
            "{seconds} {}",
            decoded.frames.len()
        );
        // label = first packet + inner delay + time since the start, all by the egress host's clock
        assert!((label - first_packet_ms - 500.0 - index as f64 * 4000.0).abs() < 1.5, "{label}");
        frames += decoded.frames.len();
        markers.extend(decoded.markers().collect::<Vec<_>>());
        beeps.extend(decoded.audio.unwrap().beeps);
    }
    assert_eq!(markers.len(), frames, "every frame has its marker");
    for (index, (pts, marker)) in markers.iter().enumerate() {
        assert_eq!(marker.counter as usize, index);
        let by_pts = first_packet_ms - 7_000.0 + (pts - 3600.0) * 1000.0;
        assert!((marker.screen_ms as f64 - by_pts).abs() <= 1.0, "{marker:?} at {pts}");
    }
    assert!(frames >= 20 * 30, "{frames}");
    assert!(beeps.len() >= 19, "{beeps:?}");
    // one that sounded already when the recording began was not heard from its beginning
    for beep in beeps.iter().filter(|beep| **beep > 3600.001) {
        let into_second = (first_packet_ms + (beep - 3600.0) * 1000.0).rem_euclid(1000.0);
        let error = into_second.min(1000.0 - into_second);
        assert!(error < 15.0, "{error} ms at {beep}");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_screen_leaves_a_little_black_at_the_end() {
    let stage = Stage::new(|_| ()).await;
    let share = Share { width: 320, height: 180, audio: false, ..Share::default() };
    let share = stage.sim.publish_share("r", "ann", share).unwrap();
    let calls = stage.egress();
    let info = calls
        .start_track_composite_egress("r", output("black", 2), options(&share, 320, 180))
        .await
        .unwrap();
    stage.until_segments(&info.egress_id, 1).await;
    stage.sim.unpublish_share(&share).unwrap();
    let over = stage.until_status(&info.egress_id, EgressStatus::EgressComplete).await;
    assert_eq!(over.details, "End reason: Source closed");
    let (entries, ended) = playlist(&stage.dir("black").join("index.m3u8"));
    assert!(ended);
    let mut seen = Vec::new();
    for (name, ..) in &entries {
        let decoded = decode::decode_file(&stage.dir("black").join(name)).await.unwrap();
        seen.extend(decoded.frames.iter().map(|frame| frame.marker.is_some()));
    }
    let black = seen.iter().rev().take_while(|marked| !**marked).count();
    assert!((3..=30).contains(&black), "{black} of {}", seen.len());
    assert!(seen[..seen.len() - black].iter().all(|marked| *marked));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_that_goes_while_its_sound_stays_freezes_the_recording_until_it_is_stopped() {
    let stage = Stage::new(|_| ()).await;
    let share = |audio| Share { width: 320, height: 180, audio, ..Share::default() };
    let anns = stage.sim.publish_share("r", "ann", share(true)).unwrap();
    let bobs = stage.sim.publish_share("r", "bob", share(false)).unwrap();
    let calls = stage.egress();
    let start = async |name: &str, share| {
        let options = options(share, 320, 180);
        calls.start_track_composite_egress("r", output(name, 2), options).await.unwrap().egress_id
    };
    let (ann, bob) = (start("frozen", &anns).await, start("clock", &bobs).await);
    stage.until_segments(&ann, 1).await;
    stage.sim.unpublish(&anns.video).unwrap();
    let count = |egress: &str| {
        let views = stage.sim.egresses();
        views.iter().find(|view| view.egress_id == egress).unwrap().segments
    };
    // what was closed already comes out; then nothing more, however long others go on
    let closed = count(&ann) + 3;
    stage.until_segments(&bob, count(&bob) + 6).await;
    assert!(count(&ann) <= closed, "{} of {closed}", count(&ann));
    assert_eq!(stage.info(&ann).await.status(), EgressStatus::EgressActive);
    let before = count(&ann);
    calls.stop_egress(&ann).await.unwrap();
    stage.until_status(&ann, EgressStatus::EgressComplete).await;
    assert_eq!(count(&ann), before + 1, "the rest comes with the stop");
    let (entries, ended) = playlist(&stage.dir("frozen").join("index.m3u8"));
    assert!(ended);
    let last = stage.dir("frozen").join(&entries.last().unwrap().0);
    let decoded = decode::decode_file(&last).await.unwrap();
    assert!(decoded.frames.iter().all(|frame| frame.marker.is_some()), "no black");
    stage.end().await;
}

/// Whole packets, PAT and PMT in front, egress's PIDs and stream types.
fn looks_like_egress(bytes: &[u8]) {
    assert!(bytes.len().is_multiple_of(188) && bytes.chunks(188).all(|packet| packet[0] == 0x47));
    let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
    let pids: Vec<u16> = bytes.chunks(188).map(pid).collect();
    assert_eq!(pids[..2], [0, 0x20]);
    let program = &bytes[188 + 5..376];
    let section = u16::from_be_bytes([program[1] & 0x0f, program[2]]) as usize;
    let skip = u16::from_be_bytes([program[10] & 0x0f, program[11]]) as usize;
    let mut streams = Vec::new();
    let mut at = 12 + skip;
    while at + 5 < section {
        streams.push((program[at], u16::from_be_bytes([program[at + 1] & 0x1f, program[at + 2]])));
        at += 5 + (u16::from_be_bytes([program[at + 3] & 0x0f, program[at + 4]]) as usize);
    }
    assert_eq!(streams, [(0x1b, 0x41), (0x0f, 0x42)]);
    assert_eq!(pids.into_iter().collect::<HashSet<_>>(), HashSet::from([0, 0x20, 0x41, 0x42]));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_as_the_server_does() {
    let stage = Stage::new(|config| config.egress.workers = Some(1)).await;
    let share = stage
        .sim
        .publish_share("r", "ann", Share { media: Media::None, ..Share::default() })
        .unwrap();
    let egress = stage.egress();
    let start = async |room: &str, options| {
        twirp(egress.start_track_composite_egress(room, output("x", 2), options).await.unwrap_err())
    };

    assert_eq!(
        start("elsewhere", options(&share, 640, 360)).await,
        ("not_found".to_owned(), "twirp error unknown: requested room does not exist".to_owned())
    );
    assert_eq!(start("r", options(&share, 641, 360)).await.0, "invalid_argument");
    assert_eq!(start("r", options(&share, 8, 360)).await.0, "invalid_argument");
    let opus =
        TrackCompositeOptions { encoding: EncodingOptions::default(), ..options(&share, 2, 2) };
    assert_eq!(
        start("r", opus).await,
        (
            "invalid_argument".to_owned(),
            "twirp error unknown: format application/x-mpegurl incompatible with codec audio/opus"
                .to_owned()
        )
    );
    assert_eq!(twirp(egress.stop_egress("EG_unknown").await.unwrap_err()).0, "not_found");
    let unknown = EgressListOptions {
        filter: EgressListFilter::Egress("EG_unknown".to_owned()),
        ..EgressListOptions::default()
    };
    assert_eq!(twirp(egress.list_egress(unknown).await.unwrap_err()).0, "not_found");
    assert_eq!(twirp(egress.update_layout("EG_x", "grid").await.unwrap_err()).0, "bad_route");
    assert_eq!(
        twirp(stage.rooms().get_participant("r", "nobody").await.unwrap_err()).0,
        "not_found"
    );

    // a key of another server is refused at the door, in plain text; a token without the grant in Twirp
    let foreign = EgressClient::with_api_key(&stage.sim.url(), "other", "secret");
    let refused = foreign.stop_egress("EG_x").await.unwrap_err();
    assert!(
        matches!(refused, ServiceError::Twirp(livekit_api::services::ServerError::Request(_))),
        "{refused}"
    );
    let token = livekit_api::access_token::AccessToken::with_api_key(
        stage.sim.api_key(),
        stage.sim.api_secret(),
    )
    .to_jwt()
    .unwrap();
    let powerless = EgressClient::with_token(&stage.sim.url(), &token);
    assert_eq!(
        twirp(powerless.stop_egress("EG_x").await.unwrap_err()),
        ("unauthenticated".to_owned(), "permissions denied".to_owned())
    );

    egress
        .start_track_composite_egress("r", output("one", 2), options(&share, 640, 360))
        .await
        .unwrap();
    assert_eq!(start("r", options(&share, 640, 360)).await.0, "unavailable");
    stage.end().await;
}

#[tokio::test]
async fn rooms_list_people_and_their_shares() {
    let stage = Stage::new(|_| ()).await;
    let share = stage
        .sim
        .publish_share("r", "ann", Share { width: 801, height: 603, ..Share::default() })
        .unwrap();
    stage.sim.publish_track("r", "bob", proto::TrackSource::Microphone, (0, 0)).unwrap();
    stage.sim.set_room_metadata("r", "{\"community\":\"c1\"}");
    let rooms = stage.rooms();
    assert_eq!(rooms.list_rooms(vec![]).await.unwrap()[0].metadata, "{\"community\":\"c1\"}");
    assert_eq!(rooms.list_participants("r").await.unwrap().len(), 2);
    let ann = rooms.get_participant("r", "ann").await.unwrap();
    assert_eq!(ann.tracks[0].sid, share.video);
    assert_eq!((ann.tracks[0].width, ann.tracks[0].height), (801, 603));
    assert_eq!(ann.tracks[1].source(), proto::TrackSource::ScreenShareAudio);
    assert!(rooms.mute_published_track("r", "ann", &share.video, true).await.unwrap().muted);
    rooms.delete_room("r").await.unwrap();
    assert!(rooms.list_rooms(vec![]).await.unwrap().is_empty());
    assert_eq!(twirp(rooms.delete_room("r").await.unwrap_err()).0, "not_found");
    stage.end().await;
}

/// Collects and verifies webhooks as LiveKit's own library does.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<(proto::WebhookEvent, String)>>>);

impl Inbox {
    async fn open(&self, stage: &Stage) -> tokio::task::JoinHandle<()> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let verifier = TokenVerifier::with_api_key(stage.sim.api_key(), stage.sim.api_secret());
        let receiver = WebhookReceiver::new(verifier);
        let take = move |State(inbox): State<Inbox>, headers: HeaderMap, body: Bytes| async move {
            assert_eq!(headers["content-type"], "application/webhook+json");
            let body = String::from_utf8(body.to_vec()).unwrap();
            let event =
                receiver.receive(&body, headers["authorization"].to_str().unwrap()).unwrap();
            inbox.0.lock().unwrap().push((event, body));
        };
        let router = Router::new().route("/hook", post(take)).with_state(self.clone());
        stage.sim.set_webhook_urls(vec![url]);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(event, _)| event.event.clone()).collect()
    }

    async fn until(&self, name: &str, count: usize) {
        eventually(async || {
            (self.names().iter().filter(|one| *one == name).count() >= count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn webhooks_are_signed_encoded_and_ordered_as_livekits() {
    let stage = Stage::new(|_| ()).await;
    let inbox = Inbox::default();
    let server = inbox.open(&stage).await;
    let share = stage
        .sim
        .publish_share("r", "ann", Share { media: Media::None, ..Share::default() })
        .unwrap();
    let started = stage
        .egress()
        .start_track_composite_egress("r", output("w", 2), options(&share, 640, 360))
        .await
        .unwrap();
    stage.until_status(&started.egress_id, EgressStatus::EgressActive).await;
    stage.sim.unpublish_share(&share).unwrap();
    let over = stage.until_status(&started.egress_id, EgressStatus::EgressComplete).await;
    assert_eq!(over.details, "End reason: Source closed");
    inbox.until("egress_ended", 1).await;
    stage.sim.close_room("r").unwrap();
    inbox.until("room_finished", 1).await;

    let of = |kind: &str| -> Vec<String> {
        inbox
            .names()
            .into_iter()
            .filter(|name| name.starts_with("egress_") == (kind == "egress"))
            .collect()
    };
    assert_eq!(
        of("egress"),
        ["egress_started", "egress_updated", "egress_updated", "egress_ended"]
    );
    let room = of("room");
    assert_eq!(
        room[..4],
        ["room_started", "participant_joined", "track_published", "track_published"]
    );
    assert_eq!(room[room.len() - 1], "room_finished");
    let events = inbox.0.lock().unwrap().clone();
    let recorder = events.iter().filter_map(|(event, _)| event.participant.as_ref());
    assert!(recorder.into_iter().any(|one| one.identity == started.egress_id
        && one.kind() == proto::participant_info::Kind::Egress));
    let (first, body) = events.iter().find(|(event, _)| event.event == "egress_started").unwrap();
    assert!(!body.contains("EGRESS_STARTING"), "defaults are omitted: {body}");
    assert!(body.contains(&format!(
        "\"startedAt\":\"{}\"",
        first.egress_info.as_ref().unwrap().started_at
    )));
    let (_, sound) =
        events.iter().find(|(_, body)| body.contains("\"SCREEN_SHARE_AUDIO\"")).unwrap();
    assert!(!sound.contains("\"type\""), "audio is the default type: {sound}");
    let ids: HashSet<&String> = events.iter().map(|(event, _)| &event.id).collect();
    assert_eq!(ids.len(), events.len());
    server.abort();
    stage.end().await;
}

#[tokio::test]
async fn webhooks_get_lost_doubled_and_swapped_on_command() {
    let stage = Stage::new(|_| ()).await;
    let inbox = Inbox::default();
    let server = inbox.open(&stage).await;
    let fault = |event: &str, action| HookFault { event: event.to_owned(), action, times: Some(1) };
    stage.sim.add_webhook_fault(fault("room_started", HookAction::Lose));
    stage.sim.add_webhook_fault(fault("participant_joined", HookAction::Double));
    stage.sim.add_webhook_fault(fault("track_published", HookAction::SwapWithNext));
    let share =
        stage.sim.publish_share("r", "ann", Share { audio: false, ..Share::default() }).unwrap();
    stage.sim.unpublish(&share.video).unwrap();
    inbox.until("track_published", 1).await;
    assert_eq!(
        inbox.names(),
        ["participant_joined", "participant_joined", "track_unpublished", "track_published"]
    );
    let events = inbox.0.lock().unwrap().clone();
    assert_eq!(events[0].0.id, events[1].0.id, "a doubled event has one id");
    server.abort();
    stage.end().await;
}

#[tokio::test]
async fn a_webhook_is_tried_again_after_a_server_error_with_the_same_token() {
    let stage = Stage::new(|_| ()).await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.sim.set_webhook_urls(vec![format!("http://{}/", listener.local_addr().unwrap())]);
    let take = |State(seen): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap| async move {
        let mut seen = seen.lock().unwrap();
        seen.push(headers["authorization"].to_str().unwrap().to_owned());
        if seen.len() == 1 {
            axum::http::StatusCode::BAD_GATEWAY
        } else {
            axum::http::StatusCode::OK
        }
    };
    let router = Router::new().route("/", post(take)).with_state(seen.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    stage.sim.room("r");
    let delivery = eventually(async || stage.sim.deliveries().pop()).await;
    assert_eq!((delivery.attempts, delivery.status), (2, Some(200)));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0], seen[1]);
    server.abort();
    stage.end().await;
}

#[tokio::test]
async fn an_egress_can_die_fail_or_reach_its_limit() {
    let stage = Stage::new(|config| config.egress.dead_answer = Duration::from_millis(10)).await;
    let egress = stage.egress();
    let mut ids = Vec::new();
    for name in ["dead", "failed", "limited"] {
        let share = stage
            .sim
            .publish_share("r", name, Share { media: Media::None, ..Share::default() })
            .unwrap();
        let info = egress
            .start_track_composite_egress("r", output(name, 2), options(&share, 640, 360))
            .await
            .unwrap();
        stage.until_status(&info.egress_id, EgressStatus::EgressActive).await;
        ids.push((info.egress_id, share));
    }
    stage.sim.kill_egress(&ids[0].0).unwrap();
    stage.sim.fail_egress(&ids[1].0, "pipeline frozen", 500).unwrap();
    stage.sim.limit_egress(&ids[2].0).unwrap();
    let failed = stage.until_status(&ids[1].0, EgressStatus::EgressFailed).await;
    assert_eq!((failed.error.as_str(), failed.error_code), ("pipeline frozen", 500));
    let limited = stage.until_status(&ids[2].0, EgressStatus::EgressLimitReached).await;
    assert_eq!(
        (limited.error_code, limited.details.as_str()),
        (413, "End reason: Session limit reached")
    );
    assert_eq!(twirp(egress.stop_egress(&ids[0].0).await.unwrap_err()).0, "deadline_exceeded");
    stage.sim.unpublish_share(&ids[0].1).unwrap();
    assert_eq!(
        stage.info(&ids[0].0).await.status(),
        EgressStatus::EgressActive,
        "nobody told the server"
    );
    let active = EgressListOptions { active: true, ..EgressListOptions::default() };
    assert_eq!(egress.list_egress(active).await.unwrap().len(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_missing_track_fails_late_and_an_early_stop_aborts() {
    let stage = Stage::new(|config| {
        config.egress.track_wait = Duration::from_millis(500);
        config.egress.stop_wait = Duration::from_millis(10);
    })
    .await;
    let share = stage
        .sim
        .publish_share("r", "ann", Share { audio: false, media: Media::None, ..Share::default() })
        .unwrap();
    let missing = TrackCompositeOptions {
        video_track_id: "TR_missing".to_owned(),
        ..options(&share, 640, 360)
    };
    let info = stage
        .egress()
        .start_track_composite_egress("r", output("m", 2), missing.clone())
        .await
        .unwrap();
    // in the room and without its track, it does not hear that it should stop
    let joined = async || {
        let people = stage.sim.participants("r");
        people.into_iter().find(|one| one.identity == info.egress_id)
    };
    eventually(joined).await;
    let refused = twirp(stage.egress().stop_egress(&info.egress_id).await.unwrap_err());
    assert_eq!(refused.0, "deadline_exceeded");
    let failed = stage.until_status(&info.egress_id, EgressStatus::EgressFailed).await;
    assert_eq!((failed.error.as_str(), failed.error_code), ("track TR_missing not found", 404));
    stage.end().await;

    let stage = Stage::new(|config| config.egress.start_delay = Duration::from_secs(600)).await;
    stage.sim.room("r");
    let info =
        stage.egress().start_track_composite_egress("r", output("m", 2), missing).await.unwrap();
    let stopped = stage.egress().stop_egress(&info.egress_id).await.unwrap();
    assert_eq!((stopped.status(), stopped.error_code), (EgressStatus::EgressAborted, 412));
    stage.end().await;
}

#[tokio::test]
async fn calls_are_refused_delayed_and_lost_on_command() {
    let stage = Stage::new(|_| ()).await;
    let share = stage
        .sim
        .publish_share("r", "ann", Share { media: Media::None, ..Share::default() })
        .unwrap();
    let egress = stage.egress().with_request_timeout(Duration::from_millis(300));
    let fault = |action| CallFault {
        method: "StartTrackCompositeEgress".to_owned(),
        action,
        times: Some(1),
        for_ms: None,
    };
    let start = async || {
        egress.start_track_composite_egress("r", output("f", 2), options(&share, 640, 360)).await
    };
    for code in ["unavailable", "unauthenticated", "bad_route", "internal"] {
        stage.sim.add_call_fault(fault(CallAction::Error {
            code: code.to_owned(),
            msg: "on command".to_owned(),
        }));
        assert_eq!(twirp(start().await.unwrap_err()).0, code);
    }
    stage.sim.add_call_fault(fault(CallAction::Hang));
    assert!(start().await.is_err());
    assert!(stage.sim.egresses().is_empty());
    stage.sim.add_call_fault(fault(CallAction::HangAfter));
    assert!(start().await.is_err());
    assert_eq!(stage.sim.egresses().len(), 1, "it did start");
    stage.sim.add_call_fault(fault(CallAction::Http { status: 500 }));
    assert!(start().await.is_err());
    stage.sim.stop_answering();
    assert!(egress.list_egress(EgressListOptions::default()).await.is_err());
    stage.sim.clear_call_faults();
    assert_eq!(egress.list_egress(EgressListOptions::default()).await.unwrap().len(), 1);
    assert_eq!(stage.sim.calls().iter().filter(|call| call.method == "ListEgress").count(), 2);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn muting_blackens_resizing_letterboxes_and_corruption_spoils_one_segment() {
    let stage = Stage::new(|config| config.egress.release_segments = 1).await;
    let share =
        stage.sim.publish_share("r", "ann", Share { audio: false, ..Share::default() }).unwrap();
    let info = stage
        .egress()
        .start_track_composite_egress("r", output("m", 1), options(&share, 320, 180))
        .await
        .unwrap();
    stage.until_segments(&info.egress_id, 1).await;
    stage.sim.set_muted(&share.video, true).unwrap();
    stage.until_segments(&info.egress_id, 4).await;
    stage.sim.resize(&share.video, 600, 601).unwrap();
    stage.sim.set_muted(&share.video, false).unwrap();
    stage.until_segments(&info.egress_id, 7).await;
    stage.sim.corrupt_next_segment(&info.egress_id, Corruption::Empty).unwrap();
    stage.sim.corrupt_next_segment(&info.egress_id, Corruption::Truncated).unwrap();
    stage.sim.corrupt_next_segment(&info.egress_id, Corruption::Garbage).unwrap();
    stage.until_segments(&info.egress_id, 10).await;
    stage.sim.close_room("r").unwrap();
    stage.until_status(&info.egress_id, EgressStatus::EgressComplete).await;

    let (entries, _) = playlist(&stage.dir("m").join("index.m3u8"));
    let mut damaged = 0;
    let mut seen = HashSet::new();
    for (name, ..) in &entries {
        let path = stage.dir("m").join(name);
        let bytes = std::fs::read(&path).unwrap();
        if bytes.is_empty()
            || bytes.len() % 188 != 0
            || bytes.chunks(188).any(|packet| packet[0] != 0x47)
        {
            damaged += 1;
            continue;
        }
        for (shape, source) in [("wide", (1280, 720)), ("square", (600, 601))] {
            let decoded = decode::decode_sources(&path, &[source]).await.unwrap();
            assert!(decoded.audio.is_none());
            for frame in decoded.frames {
                match frame.marker {
                    Some(_) => drop(seen.insert(shape)),
                    None if frame.brightness <= 17 => drop(seen.insert("black")),
                    None => {}
                }
            }
        }
    }
    assert_eq!(damaged, 3);
    assert_eq!(seen, HashSet::from(["wide", "square", "black"]));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_egress_closes_no_playlist_and_nothing_is_left_behind() {
    let stage = Stage::new(|config| config.egress.release_segments = 1).await;
    let share =
        stage.sim.publish_share("r", "ann", Share { audio: false, ..Share::default() }).unwrap();
    let info = stage
        .egress()
        .start_track_composite_egress("r", output("x", 1), options(&share, 160, 90))
        .await
        .unwrap();
    stage.until_segments(&info.egress_id, 1).await;
    // the directory turns into something that cannot hold files: the next upload fails
    std::fs::remove_dir_all(stage.dir("x")).unwrap();
    std::fs::write(stage.dir("x"), b"in the way").unwrap();
    let failed = stage.until_status(&info.egress_id, EgressStatus::EgressFailed).await;
    assert!(
        failed.error.starts_with("Local upload failed: ") && failed.error_code == 400,
        "{}",
        failed.error
    );
    assert_eq!(stage.sim.running_encoders(), 0);

    let share = stage.sim.publish_share("r", "bob", Share::default()).unwrap();
    let info = stage
        .egress()
        .start_track_composite_egress("r", output("y", 1), options(&share, 160, 90))
        .await
        .unwrap();
    stage.until_segments(&info.egress_id, 2).await;
    let scratch = stage.sim.scratch().to_owned();
    assert!(scratch.exists());
    stage.sim.pause_sink(&info.egress_id, Duration::from_secs(600)).unwrap();
    stage.sim.kill_egress(&info.egress_id).unwrap();
    eventually(async || (stage.sim.running_encoders() == 0).then_some(())).await;
    let (_, ended) = playlist(&stage.dir("y").join("index.m3u8"));
    assert!(!ended);
    stage.end().await;
    assert!(!scratch.exists());
}

#[tokio::test]
async fn the_json_interface_does_what_the_handle_does() {
    let stage = Stage::new(|_| ()).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = async |path: &str, body: serde_json::Value| {
        let answer =
            http.post(format!("{}{path}", stage.sim.url())).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let (status, share) = call(
        "/sim/publish",
        serde_json::json!({ "room": "a/b", "identity": "ann", "media": "none" }),
    )
    .await;
    assert_eq!(status, 200);
    let track = share["video"].as_str().unwrap();
    assert_eq!(
        call("/sim/mute", serde_json::json!({ "track": track, "muted": true })).await.0,
        200
    );
    assert!(stage.sim.participants("a/b")[0].tracks[0].muted);
    assert_eq!(call("/sim/unpublish", serde_json::json!({ "track": "TR_no" })).await.0, 404);
    let fault = serde_json::json!({ "method": "ListEgress", "action": { "kind": "error", "code": "internal", "msg": "x" }, "times": 1 });
    assert_eq!(call("/sim/faults/calls", fault).await.0, 200);
    assert_eq!(
        twirp(stage.egress().list_egress(EgressListOptions::default()).await.unwrap_err()).0,
        "internal"
    );
    let state: serde_json::Value = http
        .get(format!("{}/sim/state", stage.sim.url()))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(state["rooms"][0]["room"]["name"], "a/b");
    assert_eq!(state["calls"], 1);
    stage.end().await;
}

#[tokio::test]
async fn a_recording_of_a_participant_outlives_its_shares_and_tells_its_own_webhooks() {
    let stage = Stage::new(|_| ()).await;
    let inbox = Inbox::default();
    let server = inbox.open(&stage).await;
    let url = eventually(async || stage.sim.webhook_urls().pop()).await;
    stage.sim.set_webhook_urls(Vec::new());
    let share = stage
        .sim
        .publish_share("r", "ann", Share { media: Media::None, ..Share::default() })
        .unwrap();
    let EgressOutput::Segments(segments) = output("v2", 2).remove(0) else {
        panic!("not segments")
    };
    let request = proto::StartEgressRequest {
        room_name: "r".to_owned(),
        outputs: vec![proto::Output {
            config: Some(proto::output::Config::Segments(segments)),
            ..proto::Output::default()
        }],
        source: Some(proto::start_egress_request::Source::Media(proto::MediaSource {
            video: Some(proto::media_source::Video::ParticipantVideo(proto::ParticipantVideo {
                identity: "ann".to_owned(),
                prefer_screen_share: true,
            })),
            ..proto::MediaSource::default()
        })),
        webhooks: vec![proto::WebhookConfig { url, ..proto::WebhookConfig::default() }],
        ..proto::StartEgressRequest::default()
    };
    let info = stage.egress().start_egress(request).await.unwrap();
    stage.until_status(&info.egress_id, EgressStatus::EgressActive).await;
    stage.sim.unpublish_share(&share).unwrap();
    assert_eq!(stage.info(&info.egress_id).await.status(), EgressStatus::EgressActive);
    stage.sim.close_room("r").unwrap();
    stage.until_status(&info.egress_id, EgressStatus::EgressComplete).await;
    inbox.until("egress_ended", 1).await;
    assert!(inbox.names().iter().all(|name| name.starts_with("egress_")), "{:?}", inbox.names());
    server.abort();
    stage.end().await;
}

#[tokio::test]
async fn hundreds_of_light_recordings_start_and_end_without_an_encoder() {
    let stage = Stage::new(|_| ()).await;
    let light = Share { media: Media::None, ..Share::default() };
    let egress = stage.egress();
    for number in 0..300 {
        let room = format!("room-{}", number % 20);
        let share = stage.sim.publish_share(&room, &format!("user-{number}"), light).unwrap();
        let name = format!("light-{number}");
        let options = options(&share, 640, 360);
        egress.start_track_composite_egress(&room, output(&name, 2), options).await.unwrap();
    }
    let in_state =
        |status: &str| stage.sim.egresses().iter().filter(|one| one.status == status).count();
    eventually(async || (in_state("EGRESS_ACTIVE") == 300).then_some(())).await;
    assert_eq!(stage.sim.running_encoders(), 0);
    for number in 0..20 {
        stage.sim.close_room(&format!("room-{number}")).unwrap();
    }
    eventually(async || (in_state("EGRESS_COMPLETE") == 300).then_some(())).await;
    assert!(!stage.root.join("out").exists(), "light recordings write nothing");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_tells_when_its_encoder_could_not_keep_up() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new(|config| {
        let late = config.root.join("late-ffmpeg");
        std::fs::write(&late, "#!/bin/sh\nsleep 2\nexec ffmpeg \"$@\"\n").unwrap();
        std::fs::set_permissions(&late, std::fs::Permissions::from_mode(0o755)).unwrap();
        config.ffmpeg = late;
    })
    .await;
    let share = stage.sim.publish_share("slow", "ann", Share::default()).unwrap();
    let client = stage.egress();
    let started = client
        .start_track_composite_egress("slow", output("slow", 1), options(&share, 320, 180))
        .await
        .unwrap();
    stage.until_segments(&started.egress_id, 1).await;
    let behind_ms = stage.sim.egresses()[0].behind_ms;
    assert!((1_500..30_000).contains(&behind_ms), "{behind_ms} ms behind");
    stage.end().await;
}
