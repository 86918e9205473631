//! The values that go in and out of the simulator's own interface: settings, what to publish, what to look at.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How the simulated server is set up.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// API keys and their secrets; the first signs the webhooks.
    pub keys: Vec<(String, String)>,
    /// Addresses of webhooks.
    pub webhook_urls: Vec<String>,
    /// What stands for `/` of the egress host: paths of requests lie below it.
    pub root: PathBuf,
    /// The encoder's program.
    pub ffmpeg: PathBuf,
    /// x264's preset.
    pub preset: String,
    /// The egress workers.
    pub egress: EgressConfig,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            keys: vec![("devkey".to_owned(), "a-secret-for-simulated-servers-only".to_owned())],
            webhook_urls: Vec::new(),
            root: PathBuf::from("/"),
            ffmpeg: PathBuf::from("ffmpeg"),
            preset: "ultrafast".to_owned(),
            egress: EgressConfig::default(),
        }
    }
}

/// How the simulated egress workers behave.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// From the accepted request to the joined room.
    pub start_delay: Duration,
    /// How long an egress waits for a missing track before it fails.
    pub track_wait: Duration,
    /// From a picture on the screen to the muxer: what labels in playlists are late by.
    pub inner_delay: Duration,
    /// Segment n comes out this many segments (and n more) after the sink's start …
    pub release_segments: u32,
    /// … and this much later.
    pub release_lag: Duration,
    /// What the egress host's clock shows more than ours, in milliseconds.
    pub host_clock_skew_ms: i64,
    /// The server's limit for segment outputs.
    pub session_limit: Option<Duration>,
    /// How many egresses run at once before StartEgress is answered `unavailable`.
    pub workers: Option<usize>,
    /// How long StopEgress of a dead egress takes to give up.
    pub dead_answer: Duration,
    /// How long StopEgress waits for an egress that itself waits for its tracks.
    pub stop_wait: Duration,
}

impl EgressConfig {
    /// The delays of a real egress with software of 2026 on one machine, 640x360 video without audio, two-second
    /// segments: labels 0.56 s behind the screen, segment n out 2.66 s after its last frame was on the screen.
    pub fn measured() -> EgressConfig {
        EgressConfig {
            start_delay: Duration::from_millis(250),
            inner_delay: Duration::from_millis(560),
            release_lag: Duration::from_millis(100),
            ..EgressConfig::default()
        }
    }
}

impl Default for EgressConfig {
    fn default() -> EgressConfig {
        EgressConfig {
            start_delay: Duration::from_millis(300),
            track_wait: Duration::from_secs(30),
            inner_delay: Duration::from_secs(2),
            release_segments: 2,
            release_lag: Duration::from_millis(600),
            host_clock_skew_ms: 0,
            session_limit: None,
            workers: None,
            dead_answer: Duration::from_secs(1),
            stop_wait: Duration::from_secs(15),
        }
    }
}

/// A screen share to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Share {
    /// Width of the shared window.
    pub width: u32,
    /// Height of the shared window.
    pub height: u32,
    /// Whether the screen's sound is shared too.
    pub audio: bool,
    /// What an egress of it records.
    pub media: Media,
}

impl Default for Share {
    fn default() -> Share {
        Share { width: 1280, height: 720, audio: true, media: Media::Live }
    }
}

/// What an egress of a track records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Media {
    /// Real pictures and sound, by FFmpeg.
    Live,
    /// Nothing: the egress becomes active and writes no file, for tests of many.
    None,
}

/// A published screen share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareHandle {
    /// The room.
    pub room: String,
    /// Who shares.
    pub identity: String,
    /// `TR_…` of the picture.
    pub video: String,
    /// `TR_…` of the sound, if shared.
    pub audio: Option<String>,
}

/// How to spoil a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corruption {
    /// No bytes at all.
    Empty,
    /// Half of it, cut inside a packet.
    Truncated,
    /// Random bytes.
    Garbage,
}

/// An egress as a test looks at it.
#[derive(Debug, Clone, Serialize)]
pub struct EgressView {
    /// `EG_…`.
    pub egress_id: String,
    /// Room recorded.
    pub room: String,
    /// `EGRESS_ACTIVE` ….
    pub status: String,
    /// Directory of its playlists on the egress host (below [`SimConfig::root`]).
    pub directory: String,
    /// Whether its encoder runs.
    pub encoding: bool,
    /// Whether its host is gone.
    pub dead: bool,
    /// Segments that came out and stand in the live playlist.
    pub segments: u32,
    /// How far its encoder was behind its screen at worst (milliseconds). What was not drawn when the recording ended is
    /// missing at its end, so this is a measure of whether this machine could keep up.
    pub behind_ms: u64,
    /// When the request came, by the egress host's clock (nanoseconds).
    pub started_at_ns: i64,
    /// When the first packet came, by the egress host's clock (nanoseconds); 0: not yet.
    pub first_packet_ns: i64,
    /// Error text of a bad end.
    pub error: String,
    /// Its code.
    pub error_code: i32,
    /// `End reason: …`.
    pub details: String,
}

/// A call that came in.
#[derive(Debug, Clone, Serialize)]
pub struct CalledMethod {
    /// `livekit.Egress` ….
    pub service: String,
    /// `StopEgress` ….
    pub method: String,
    /// When (milliseconds since the Unix epoch).
    pub at_ms: u64,
}
