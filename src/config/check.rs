//! How settings fit together, and what has to be there.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{Config, load::Demand, read::Reader};

/// Whether the scheduler understands this cadence.
pub(super) fn is_cron(text: &str) -> bool {
    tokio_cron_scheduler::Job::new(text, |_, _| {}).is_ok()
}

/// Adds a fault for everything that does not fit.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>, demand: Demand) {
    if demand == Demand::Service {
        check_presence(config, reader);
    }
    check_secrets(config, reader);
    check_buffer(config, reader);
    check_limits(config, reader);
    check_stores(config, reader);
}

fn check_presence(config: &Config, reader: &mut Reader<'_>) {
    let livekit = &config.livekit;
    let missing = [
        ("auth.jwt_secret", config.auth.jwt_secret.is_none(), "at least 32 bytes"),
        ("livekit.url", livekit.url.is_empty(), "http(s):// or ws(s)://host"),
        ("livekit.api_key", livekit.api_key.is_empty(), "the name of an API key"),
        ("livekit.api_secret", livekit.api_secret.expose_secret().is_empty(), "the key's secret"),
    ];
    for (key, is_missing, expected) in missing {
        // one that is there and wrong has been told already
        if is_missing && !reader.is_given(key) {
            reader.missing(key, expected);
        }
    }
}

fn check_secrets(config: &Config, reader: &mut Reader<'_>) {
    let own = [
        ("auth.jwt_secret", &config.auth.jwt_secret),
        ("server.link_secret", &config.server.link_secret),
    ];
    for (key, secret) in own {
        let Some(secret) = secret else { continue };
        if livekit_secrets(config).any(|other| other == secret.expose_secret()) {
            let expected = "a secret of its own: whoever has LiveKit's could sign in as anybody";
            reader.fault(key, "is the same as a LiveKit secret", expected);
        }
        if is_placeholder(secret) {
            reader.fault(
                key,
                "is a placeholder",
                "a random secret, such as from `openssl rand -hex 32`",
            );
        }
    }
}

fn livekit_secrets(config: &Config) -> impl Iterator<Item = &str> {
    let webhook = config.livekit.webhook_keys.iter().map(|(_, secret)| secret);
    webhook.chain([&config.livekit.api_secret]).map(ExposeSecret::expose_secret)
}

/// Texts of examples, ours and others', that everybody knows.
fn is_placeholder(secret: &SecretString) -> bool {
    let letters: String = secret
        .expose_secret()
        .chars()
        .filter(|c| c.is_alphanumeric())
        .collect::<String>()
        .to_lowercase();
    ["changeme", "atleast32bytes", "yoursecret", "replaceme"]
        .iter()
        .any(|text| letters.contains(text))
}

fn check_buffer(config: &Config, reader: &mut Reader<'_>) {
    let buffer = &config.buffer;
    let minutes = buffer.length.as_secs() / 60;
    if buffer.cleanup.as_secs() / 60 < minutes + 1 {
        let expected = format!("at least {}: buffer.minutes and one more", minutes + 1);
        reader.fault("buffer.cleanup_minutes", "is too short for the promised minutes", expected);
    }
    if buffer.no_segment < 2 * buffer.segment {
        let expected = format!("at least {}: two segments", 2 * buffer.segment.as_secs());
        reader.fault("buffer.no_segment_seconds", "is too short for the segments", expected);
    }
}

fn check_limits(config: &Config, reader: &mut Reader<'_>) {
    let limits = &config.limits;
    if limits.community_ceiling < limits.community_max_concurrent {
        let expected = format!(
            "at least limits.community_max_concurrent ({})",
            limits.community_max_concurrent
        );
        reader.fault("limits.community_ceiling", "is below what every community has", expected);
    }
    if config.storage.critical_percent <= config.storage.high_percent {
        let expected = format!("more than storage.high_percent ({})", config.storage.high_percent);
        reader.fault("storage.critical_percent", "is not above the warning", expected);
    }
}

/// Cleaning one store must never meet the other's files.
fn check_stores(config: &Config, reader: &mut Reader<'_>) {
    let (buffer, clips) = (&config.storage.buffer, &config.storage.clips);
    if buffer.starts_with(clips) || clips.starts_with(buffer) {
        let problem =
            format!("{} and storage.buffer {} overlap", clips.display(), buffer.display());
        reader.fault("storage.clips", problem, "two directories, neither inside the other");
    }
    for (key, path) in [("storage.buffer", buffer), ("storage.clips", clips)] {
        if path == Path::new("/") || config.data_dir.starts_with(path) {
            let problem = format!("{} holds the data directory", path.display());
            reader.fault(key, problem, "a directory of its own");
        }
    }
}
