//! From the layers to a checked [`Config`].

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use secrecy::SecretString;

use super::{
    Auth, Buffer, Capture, Clips, Config, Database, Jobs, Jwks, Limits, Livekit, Muxer, RateLimits,
    Server, Sessions, Share, Storage, check, fault::Faults, layers, read::Reader, webhooks,
};
use crate::domain::names::{CommunityRule, CommunitySource, IdentityRule};

/// Where settings are looked for.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Key, value, and what the flag was called.
    pub flags: Vec<(String, String, String)>,
    /// What relative paths start from.
    pub cwd: PathBuf,
}

/// What has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Everything that the service needs.
    Service,
    /// What is given must be right, but LiveKit and the tokens' secret may be missing: work on the database alone.
    Database,
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Reads, types and checks the settings. Reads the files that are named, nothing else.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(sources: &Sources, demand: Demand) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let values = layers::gather(sources, &mut faults);
    let mut reader = Reader::new(values, faults, &sources.cwd);
    let config = read(&mut reader, &sources.cwd);
    check::check(&config, &mut reader, demand);
    if reader.faults.is_empty() { Ok(config) } else { Err(Faults(reader.faults)) }
}

fn read(reader: &mut Reader<'_>, cwd: &Path) -> Config {
    let data_dir = reader.path("data_dir").unwrap_or_else(|| default_data_dir(cwd));
    let storage = read_storage(reader, &data_dir);
    let buffer = read_buffer(reader);
    let server = read_server(reader);
    Config {
        database: read_database(reader, &data_dir),
        auth: read_auth(reader),
        livekit: read_livekit(reader, &storage),
        rooms: read_rooms(reader),
        sessions: read_sessions(reader),
        capture: read_capture(reader, &buffer, &server),
        clips: Clips {
            link_ttl: reader
                .duration("clips.link_ttl_seconds", SECOND, 1..=604_800)
                .unwrap_or_default(),
        },
        limits: read_limits(reader, &buffer),
        rate_limits: RateLimits {
            start_per_minute: reader.number("rate_limits.start_per_minute", 0..=1_000_000),
            capture_per_minute: reader.number("rate_limits.capture_per_minute", 0..=1_000_000),
            delete_per_minute: reader.number("rate_limits.delete_per_minute", 0..=1_000_000),
            filmstrip_per_minute: reader.number("rate_limits.filmstrip_per_minute", 0..=1_000_000),
        },
        share: read_share(reader),
        webhooks: webhooks::read(reader, cwd),
        jobs: read_jobs(reader),
        log: reader
            .text_that("log", "a level or a tracing filter such as \"info\"", |text| {
                tracing_subscriber::EnvFilter::try_new(text).is_ok()
            })
            .unwrap_or_default(),
        data_dir,
        storage,
        buffer,
        server,
    }
}

/// Where data goes when nobody says: the packaged place if it exists.
fn default_data_dir(cwd: &Path) -> PathBuf {
    let packaged = Path::new("/var/lib/livekit-replay");
    if packaged.is_dir() { packaged.to_owned() } else { cwd.join("data") }
}

fn read_database(reader: &mut Reader<'_>, data_dir: &Path) -> Database {
    let expected = "sqlite:///path/to/file.db or postgres://user:password@host/name";
    let url = reader.secret("database.url", expected, |url| {
        let file = url.strip_prefix("sqlite:").map(|rest| rest.trim_start_matches("//"));
        match file {
            // a database in memory is another one for every connection
            Some(file) => !file.is_empty() && !file.contains(":memory:") && !file.contains("mode="),
            None => ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)),
        }
    });
    Database {
        url: url.unwrap_or_else(|| {
            let file = data_dir.join("livekit-replay.db");
            SecretString::from(format!("sqlite://{}", file.display()))
        }),
        max_connections: reader.number("database.max_connections", 1..=1000),
    }
}

/// An address counts as the network of it alone.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

fn read_server(reader: &mut Reader<'_>) -> Server {
    let host = reader.text_that("server.host", "an IP address such as 127.0.0.1", |text| {
        text == "localhost" || text.parse::<IpAddr>().is_ok()
    });
    let public_url = reader.text_that(
        "server.public_url",
        "http(s)://host, without query or fragment",
        is_plain_http_url,
    );
    let origin = |text: &str| (text == "*" || is_origin(text)).then(|| text.to_owned());
    Server {
        host: host
            .and_then(|text| text.parse().ok())
            .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into()),
        port: reader.number("server.port", 0..=65_535),
        public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
        trusted_proxies: reader.list_of(
            "server.trusted_proxies",
            "IP addresses or networks such as 10.0.0.0/8",
            network,
        ),
        cors_origins: reader.list_of(
            "server.cors_origins",
            "origins such as https://app.example.org, or *",
            origin,
        ),
        shutdown: reader.duration("server.shutdown_seconds", SECOND, 1..=3600).unwrap_or_default(),
        max_wait: reader.duration("server.max_wait_seconds", SECOND, 0..=600).unwrap_or_default(),
        link_secret: reader
            .secret("server.link_secret", "at least 32 bytes", |text| text.len() >= 32),
    }
}

pub(super) fn is_plain_http_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            && !text.contains('#')
    })
}

fn is_origin(text: &str) -> bool {
    is_plain_http_url(text) && text.matches('/').count() == 2
}

fn read_auth(reader: &mut Reader<'_>) -> Auth {
    let claims =
        reader.list_of("auth.claims", "a list of \"communities\", \"roles\"", |text| match text {
            "communities" | "roles" => Some(text.to_owned()),
            _ => None,
        });
    let jwt_secrets =
        reader.secrets("auth.jwt_secret", "at least 32 bytes", |text| text.len() >= 32);
    let jwks = read_jwks(reader);
    // whoever publishes keys signs for many services and need not know what our roles mean
    let believed = |name: &str| match reader.is_given("auth.claims") {
        true => claims.iter().any(|claim| claim == name),
        false => jwks.is_none(),
    };
    Auth {
        claim_communities: believed("communities"),
        claim_roles: believed("roles"),
        issuer: reader.text("auth.issuer", "a text"),
        audience: reader.text("auth.audience", "a text"),
        leeway: reader.duration("auth.leeway_seconds", SECOND, 0..=300).unwrap_or_default(),
        jwt_secrets,
        jwks,
    }
}

fn read_jwks(reader: &mut Reader<'_>) -> Option<Jwks> {
    let url = reader.text_that(
        "auth.jwks_url",
        "https://host/path, or http:// on this machine, without user and fragment",
        is_key_url,
    );
    let file = reader.path("auth.jwks_file");
    if reader.is_given("auth.jwks_url") && reader.is_given("auth.jwks_file") {
        reader.fault("auth.jwks_file", "auth.jwks_url is set too", "one of the two");
    }
    url.map(Jwks::Url).or(file.map(Jwks::File))
}

/// Keys that come in clear over a network are anybody's on the way.
fn is_key_url(text: &str) -> bool {
    let Ok(url) = text.parse::<http::Uri>() else { return false };
    let Some(authority) = url.authority() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_safe = match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_here,
        _ => false,
    };
    is_safe && !authority.as_str().contains('@') && !text.contains('#')
}

fn read_livekit(reader: &mut Reader<'_>, storage: &Storage) -> Livekit {
    let url = reader.text_that("livekit.url", "http(s):// or ws(s)://host", |text| {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        matches!(scheme, "http" | "https" | "ws" | "wss")
            && is_plain_http_url(&format!("http://{rest}"))
    });
    let egress_output_path = reader.text_that(
        "livekit.egress_output_path",
        "an absolute path, as the egress service sees the buffer store",
        |text| text.starts_with('/'),
    );
    Livekit {
        url: url.unwrap_or_default(),
        api_key: reader.text("livekit.api_key", "the name of an API key").unwrap_or_default(),
        api_secret: reader
            .secret("livekit.api_secret", "the key's secret", |text| !text.is_empty())
            .unwrap_or_default(),
        webhook_keys: reader.list_of("livekit.webhook_keys", "\"key:secret\" each", |text| {
            let (key, secret) = text.split_once(':')?;
            let given = !key.is_empty() && !secret.is_empty();
            given.then(|| (key.to_owned(), SecretString::from(secret.to_owned())))
        }),
        egress_output_path: egress_output_path
            .map_or_else(|| storage.buffer.clone(), PathBuf::from),
        start_timeout: reader
            .duration("livekit.start_timeout_seconds", SECOND, 1..=600)
            .unwrap_or_default(),
        pipeline_delay: reader.duration("livekit.pipeline_delay_ms", 1, 0..=10_000),
        identity_pattern: reader
            .rule(
                "livekit.identity_pattern",
                "a regular expression with a group named user, as in ^(?<user>.+)$",
                IdentityRule::new,
            )
            .unwrap_or_else(any_user),
    }
}

/// Stands in for a pattern that is faulty.
fn any_user() -> IdentityRule {
    IdentityRule::new("^(?<user>.+)$").expect("a constant pattern")
}

fn read_rooms(reader: &mut Reader<'_>) -> CommunityRule {
    let sources =
        reader.list_of("rooms.community_sources", "a list of \"pattern\", \"metadata\"", |text| {
            match text {
                "pattern" => Some(CommunitySource::Pattern),
                "metadata" => Some(CommunitySource::Metadata),
                _ => None,
            }
        });
    reader
        .rule(
            "rooms.community_pattern",
            "a regular expression with a group, as in ^(?<community>[^:]+):",
            |text| CommunityRule::new(Some(text), sources.clone()),
        )
        .unwrap_or_else(|| CommunityRule::new(None, sources).expect("no pattern to be wrong"))
}

fn read_buffer(reader: &mut Reader<'_>) -> Buffer {
    let length = reader.duration("buffer.minutes", MINUTE, 1..=1440).unwrap_or_default();
    let segment = reader.duration("buffer.segment_seconds", SECOND, 1..=60).unwrap_or_default();
    Buffer {
        cleanup: reader
            .duration("buffer.cleanup_minutes", MINUTE, 1..=2880)
            .unwrap_or(length + Duration::from_millis(2 * MINUTE)),
        grace: reader.duration("buffer.grace_seconds", SECOND, 0..=172_800).unwrap_or(length),
        no_segment: reader
            .duration("buffer.no_segment_seconds", SECOND, 1..=3600)
            .unwrap_or(3 * segment + Duration::from_secs(15)),
        max_epoch: reader.duration("buffer.max_epoch_hours", HOUR, 1..=720).unwrap_or_default(),
        length,
        segment,
    }
}

fn read_sessions(reader: &mut Reader<'_>) -> Sessions {
    Sessions {
        rejoin: reader.duration("sessions.rejoin_seconds", SECOND, 0..=3600).unwrap_or_default(),
        audio_wait: reader.duration("sessions.audio_wait_ms", 1, 0..=60_000).unwrap_or_default(),
        orphan_max: reader.duration("sessions.orphan_max_hours", HOUR, 1..=720).unwrap_or_default(),
    }
}

fn read_capture(reader: &mut Reader<'_>, buffer: &Buffer, server: &Server) -> Capture {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = reader.integer("capture.workers", 1..=1024);
    let named = |name: &str| Muxer::NAMES.iter().find(|(known, _)| *known == name);
    let muxer =
        reader.text_that("capture.muxer", "auto, ffmpeg or native", |name| named(name).is_some());
    Capture {
        muxer: muxer.and_then(|name| named(&name)).map(|(_, muxer)| *muxer).unwrap_or_default(),
        wait: reader
            .duration("capture.wait_seconds", SECOND, 0..=600)
            .unwrap_or_default()
            .min(server.max_wait),
        tail_wait: reader
            .duration("capture.tail_wait_seconds", SECOND, 0..=600)
            .unwrap_or(3 * buffer.segment + Duration::from_secs(10)),
        workers: workers.and_then(|count| usize::try_from(count).ok()).unwrap_or(cores),
        queue: reader.number("capture.queue", 1..=1_000_000),
        queue_per_user: reader.number("capture.queue_per_user", 1..=1_000_000),
        deadline_factor: reader.float("capture.deadline_factor", 0.1..=100.0).unwrap_or(2.0),
        stall: reader.duration("capture.stall_seconds", SECOND, 1..=3600).unwrap_or_default(),
        failed_keep: reader
            .duration("capture.failed_keep_minutes", MINUTE, 0..=10_080)
            .unwrap_or_default(),
    }
}

fn read_limits(reader: &mut Reader<'_>, buffer: &Buffer) -> Limits {
    let community_max_concurrent = reader.number("limits.community_max_concurrent", 0..=1_000_000);
    let ceiling = reader.integer("limits.community_ceiling", 0..=1_000_000);
    Limits {
        user_quota_bytes: reader.bytes("limits.user_quota_bytes").unwrap_or_default(),
        community_max_concurrent,
        community_ceiling: ceiling
            .and_then(|count| i32::try_from(count).ok())
            .unwrap_or(community_max_concurrent.max(25)),
        clip_max: reader
            .duration("limits.clip_max_seconds", SECOND, 1..=86_400)
            .unwrap_or(buffer.length),
    }
}

fn read_storage(reader: &mut Reader<'_>, data_dir: &Path) -> Storage {
    let gid = reader.integer("storage.buffer_gid", 0..=i64::from(u32::MAX - 1));
    let free = reader.bytes("storage.min_free_bytes");
    Storage {
        buffer: reader.path("storage.buffer").unwrap_or_else(|| data_dir.join("buffer")),
        clips: reader.path("storage.clips").unwrap_or_else(|| data_dir.join("clips")),
        buffer_dir_mode: reader.mode("storage.buffer_dir_mode").unwrap_or(0o2770),
        buffer_gid: gid.and_then(|gid| u32::try_from(gid).ok()),
        min_free_bytes: free.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
        high_percent: reader.number("storage.high_percent", 1..=100),
        critical_percent: reader.number("storage.critical_percent", 1..=100),
    }
}

fn read_share(reader: &mut Reader<'_>) -> Option<Share> {
    let url = reader.text_that("share.url", "http(s)://host", |text| {
        // a query is the operator's business
        is_plain_http_url(text.split('?').next().unwrap_or_default()) && !text.contains('#')
    });
    let expected = "whsec_ and base64 of at least 24 bytes, or a text of at least 24 bytes";
    let secret = reader.secret("share.secret", expected, |text| super::key_of(text).is_some());
    for (one, other) in [("share.url", "share.secret"), ("share.secret", "share.url")] {
        if reader.is_given(one) && !reader.is_given(other) {
            reader.missing(other, "what belongs to it");
        }
    }
    Some(Share { url: url?, secret: secret? })
}

fn read_jobs(reader: &mut Reader<'_>) -> Jobs {
    let mut cron = |key| {
        reader
            .text_that(key, "cron with seconds in front, such as \"0 */5 * * * *\"", check::is_cron)
            .unwrap_or_default()
    };
    Jobs {
        segment_cleanup: cron("jobs.segment_cleanup"),
        orphan_reaper: cron("jobs.orphan_reaper"),
        reconcile: cron("jobs.reconcile"),
        workdir_sweep: cron("jobs.workdir_sweep"),
        quota_audit: cron("jobs.quota_audit"),
        storage_probe: cron("jobs.storage_probe"),
    }
}
