//! The settings, typed. Defaults < file < environment < flags; all faults are reported at once; secrets do not print.
//!
//! `config/default.toml` explains every key and is compiled in as the lowest layer. [`keys`] lists what exists,
//! `layers` finds values and remembers where each came from, `read` gives them types, `check` looks at how they fit
//! together, and [`Faults`] tells everything that is wrong in one go.

mod check;
mod fault;
pub mod keys;
mod layers;
mod load;
mod read;
mod webhooks;

pub use fault::{Fault, Faults};
pub use load::{Demand, Sources, load};

use std::{net::IpAddr, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use sha2::{Digest, Sha256};

use crate::domain::{
    event::EventKind,
    names::{CommunityRule, IdentityRule},
};

/// Everything an operator can set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database, the lock and the control socket live.
    pub data_dir: PathBuf,
    /// The database.
    pub database: Database,
    /// The HTTP door.
    pub server: Server,
    /// Callers' tokens.
    pub auth: Auth,
    /// LiveKit.
    pub livekit: Livekit,
    /// What a room's community is (`rooms.*`).
    pub rooms: CommunityRule,
    /// The rolling buffer.
    pub buffer: Buffer,
    /// Sessions.
    pub sessions: Sessions,
    /// Making clips.
    pub capture: Capture,
    /// Clips.
    pub clips: Clips,
    /// Limits.
    pub limits: Limits,
    /// Requests a minute by one user; 0 = no limit.
    pub rate_limits: RateLimits,
    /// Where bytes live.
    pub storage: Storage,
    /// Where shares are delivered to, if anywhere.
    pub share: Option<Share>,
    /// Where events are delivered to.
    pub webhooks: Vec<Webhook>,
    /// Cadence of the scheduled jobs: cron, six fields, UTC.
    pub jobs: Jobs,
    /// What the log prints, `tracing-subscriber`'s filter syntax.
    pub log: String,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite://…` or `postgres://…`; may hold a password.
    pub url: SecretString,
    /// Size of the pool.
    pub max_connections: u32,
}

/// The HTTP door.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 lets the system choose.
    pub port: u16,
    /// Makes links absolute.
    pub public_url: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed, by network.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins a browser may call from.
    pub cors_origins: Vec<String>,
    /// How long a shutdown waits for work to end.
    pub shutdown: Duration,
    /// The longest a caller may wait for a capture (`Prefer: wait`).
    pub max_wait: Duration,
    /// Key of signed links; made once and kept in the database when unset.
    pub link_secret: Option<SecretString>,
}

/// Where the public keys of tokens are published, as a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    /// `https://…`, or `http://` on this machine.
    Url(String),
    /// A file.
    File(PathBuf),
}

/// Callers' tokens.
#[derive(Debug, Clone)]
pub struct Auth {
    /// HS256 secrets, at least 32 bytes each: the first signs what we sign ourselves, all of them are accepted.
    pub jwt_secrets: Vec<SecretString>,
    /// Public keys of RS256, ES256 and EdDSA.
    pub jwks: Option<Jwks>,
    /// `iss` that is demanded.
    pub issuer: Option<String>,
    /// `aud` that is demanded.
    pub audience: Option<String>,
    /// Tolerance for clocks.
    pub leeway: Duration,
    /// Whether `communities` in a token is believed.
    pub claim_communities: bool,
    /// Whether `roles` in a token is believed.
    pub claim_roles: bool,
}

impl Auth {
    /// One shared secret, and the defaults besides.
    pub fn with_secret(secret: impl Into<SecretString>) -> Auth {
        Auth {
            jwt_secrets: vec![secret.into()],
            jwks: None,
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(10),
            claim_communities: true,
            claim_roles: true,
        }
    }
}

/// LiveKit.
#[derive(Debug, Clone)]
pub struct Livekit {
    /// `http(s)://` or `ws(s)://`.
    pub url: String,
    /// API key.
    pub api_key: String,
    /// API secret.
    pub api_secret: SecretString,
    /// Key and secret pairs that may sign webhooks; the API's own pair when empty.
    pub webhook_keys: Vec<(String, SecretString)>,
    /// Where egress sees the buffer store.
    pub egress_output_path: PathBuf,
    /// Deadline of StartEgress.
    pub start_timeout: Duration,
    /// Screen to label, used when an epoch cannot be anchored at its first packet.
    pub pipeline_delay: Option<Duration>,
    /// Its group `user` is the user id of a LiveKit identity.
    pub identity_pattern: IdentityRule,
}

/// The rolling buffer.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Promised length.
    pub length: Duration,
    /// Nothing younger than this is deleted.
    pub cleanup: Duration,
    /// Nominal segment length.
    pub segment: Duration,
    /// How long an ended session stays capturable.
    pub grace: Duration,
    /// An egress without a new segment for this long is dead.
    pub no_segment: Duration,
    /// A longer epoch is rolled over to a fresh egress.
    pub max_epoch: Duration,
}

/// Sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// How long a vanished share may take to come back.
    pub rejoin: Duration,
    /// How long an automatic start waits for the share's audio.
    pub audio_wait: Duration,
    /// Older sessions are examined.
    pub orphan_max: Duration,
}

/// Who writes clips that are copied. Clips that are encoded are always FFmpeg's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Muxer {
    /// Our own muxer, and FFmpeg for what that will not take.
    #[default]
    Auto,
    /// FFmpeg.
    Ffmpeg,
    /// Our own muxer; what it will not take fails.
    Native,
}

impl Muxer {
    /// Names of the setting's values.
    pub const NAMES: [(&'static str, Muxer); 3] =
        [("auto", Muxer::Auto), ("ffmpeg", Muxer::Ffmpeg), ("native", Muxer::Native)];
}

/// Making clips.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Who writes copies.
    pub muxer: Muxer,
    /// How long POST /capture waits for the clip by default.
    pub wait: Duration,
    /// How long a capture waits for late segments.
    pub tail_wait: Duration,
    /// Clips being cut at once.
    pub workers: usize,
    /// Clips being made or waiting for it, of all users and replicas.
    pub queue: u64,
    /// The same of one user.
    pub queue_per_user: u64,
    /// Deadline of cutting as a multiple of the window (at least 60 s).
    pub deadline_factor: f64,
    /// Cutting without progress for this long is ended.
    pub stall: Duration,
    /// How long a failed clip's segments are kept for a retry.
    pub failed_keep: Duration,
}

/// Clips.
#[derive(Debug, Clone)]
pub struct Clips {
    /// How long a signed link works.
    pub link_ttl: Duration,
}

/// Limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of clips per user.
    pub user_quota_bytes: i64,
    /// Places per community.
    pub community_max_concurrent: i32,
    /// The most a community's own managers may set.
    pub community_ceiling: i32,
    /// Longest clip.
    pub clip_max: Duration,
}

/// Requests a minute by one user; 0 = no limit.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// POST /start.
    pub start_per_minute: u32,
    /// POST /capture, trims, streams.
    pub capture_per_minute: u32,
    /// DELETE of sessions and clips.
    pub delete_per_minute: u32,
    /// GET /sessions/{id}/filmstrip.
    pub filmstrip_per_minute: u32,
}

/// Where bytes live.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Segments, as this service sees them.
    pub buffer: PathBuf,
    /// Clips.
    pub clips: PathBuf,
    /// Mode of directories in the buffer.
    pub buffer_dir_mode: u32,
    /// Group of directories in the buffer; the root's own when unset.
    pub buffer_gid: Option<u32>,
    /// Never less than this is left free.
    pub min_free_bytes: u64,
    /// Use in percent that warns.
    pub high_percent: u8,
    /// Use in percent that evicts what is beyond the promised window.
    pub critical_percent: u8,
}

/// Where shares are delivered to.
#[derive(Debug, Clone)]
pub struct Share {
    /// `http(s)://`.
    pub url: String,
    /// Signs what is sent: `whsec_` and base64, or any text.
    pub secret: SecretString,
}

impl Share {
    /// The bytes that sign.
    pub fn signing_key(&self) -> Vec<u8> {
        key_of(self.secret.expose_secret()).unwrap_or_default()
    }
}

/// An endpoint of the app that is told of events.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Names it in rows and lists: made from the address, which may hold a secret.
    pub name: String,
    /// `https://`, or `http://` on this machine.
    pub url: String,
    /// Signs what is sent: `whsec_` and base64, or any text.
    pub secret: SecretString,
    /// What it is told; everything when empty.
    pub events: Vec<EventKind>,
}

impl Webhook {
    /// The endpoint at `url`, named.
    pub fn new(url: String, secret: SecretString, events: Vec<EventKind>) -> Webhook {
        let name = hex::encode(&Sha256::digest(url.as_bytes())[..6]);
        Webhook { name, url, secret, events }
    }

    /// Whether it is told of such an event.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.is_empty() || self.events.contains(&kind)
    }

    /// The bytes that sign.
    pub fn signing_key(&self) -> Vec<u8> {
        key_of(self.secret.expose_secret()).unwrap_or_default()
    }

    /// The address without what may be secret in it: credentials and query.
    pub fn shown_url(&self) -> String {
        let plain = self.url.split(['?', '#']).next().unwrap_or_default();
        match plain.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = host.rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}/{path}")
            }
            None => String::new(),
        }
    }
}

/// The bytes of a Standard Webhooks secret, at least 24; a text without its prefix is taken as it is.
fn key_of(secret: &str) -> Option<Vec<u8>> {
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => secret.as_bytes().to_vec(),
    };
    (key.len() >= 24).then_some(key)
}

/// Cadence of the scheduled jobs.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// Condemns and deletes expired segments.
    pub segment_cleanup: String,
    /// Reaps what nobody owns.
    pub orphan_reaper: String,
    /// Compares sessions with LiveKit.
    pub reconcile: String,
    /// Empties the work directory of what no job owns.
    pub workdir_sweep: String,
    /// Compares accounts with clips.
    pub quota_audit: String,
    /// Asks the stores whether they are there.
    pub storage_probe: String,
}

#[cfg(test)]
mod tests;
