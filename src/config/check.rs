//! How settings fit together, and what has to be there.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{Config, Jwks, load::Demand, read::Reader};

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
    check_jwks(config, reader);
    check_buffer(config, reader);
    check_limits(config, reader);
    check_stores(config, reader);
}

fn check_presence(config: &Config, reader: &mut Reader<'_>) {
    let livekit = &config.livekit;
    let missing = [
        (
            "auth.jwt_secret",
            config.auth.jwt_secrets.is_empty() && !expects_jwks(reader),
            "at least 32 bytes; or auth.jwks_url or auth.jwks_file",
        ),
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
    let auth = &config.auth.jwt_secrets;
    let own = auth.iter().map(|secret| ("auth.jwt_secret", secret));
    let own = own.chain(config.server.link_secret.iter().map(|own| ("server.link_secret", own)));
    for (index, (key, secret)) in own.enumerate() {
        let nth = match key {
            "auth.jwt_secret" if auth.len() > 1 => format!("item {} ", index + 1),
            _ => String::new(),
        };
        if livekit_secrets(config).any(|other| other == secret.expose_secret()) {
            let expected = "a secret of its own: whoever has LiveKit's could sign in as anybody";
            reader.fault(key, format!("{nth}is the same as a LiveKit secret"), expected);
        }
        if is_placeholder(secret) {
            reader.fault(
                key,
                format!("{nth}is a placeholder"),
                "a random secret, such as from `openssl rand -hex 32`",
            );
        }
    }
    if auth.len() > MAX_JWT_SECRETS {
        let expected = format!("at most {MAX_JWT_SECRETS}: every one is tried with every token");
        reader.fault("auth.jwt_secret", "has too many secrets", expected);
    }
}

/// Secrets accepted at once: more than one only while they are exchanged.
const MAX_JWT_SECRETS: usize = 8;

fn expects_jwks(reader: &Reader<'_>) -> bool {
    reader.is_given("auth.jwks_url") || reader.is_given("auth.jwks_file")
}

/// The keys of an issuer sign for all its audiences: a token of another service must not work here.
fn check_jwks(config: &Config, reader: &mut Reader<'_>) {
    if expects_jwks(reader) {
        for (key, claim, value) in [
            ("auth.issuer", "iss", &config.auth.issuer),
            ("auth.audience", "aud", &config.auth.audience),
        ] {
            if value.is_none() && !reader.is_given(key) {
                let expected = format!("the `{claim}` of tokens signed by a key of the JWKS");
                reader.missing(key, &expected);
            }
        }
    }
    if let Some(Jwks::File(path)) = &config.auth.jwks
        && let Err(error) = std::fs::File::open(path)
    {
        let problem = format!("{} cannot be read: {error}", path.display());
        reader.fault("auth.jwks_file", problem, "a file that holds a JSON Web Key Set");
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
