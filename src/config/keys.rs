//! Every setting there is: its key, the short name operators know, whether it is secret. A key of a later feature
//! does not stand here, and is therefore an unknown key.

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `section.key`, as in TOML.
    pub path: &'static str,
    /// The short name in the environment, if it has one.
    pub short: Option<&'static str>,
    /// Never printed; can be read from a file named by `<variable>_FILE`.
    pub secret: bool,
}

impl Key {
    /// `REPLAY__SECTION__KEY`.
    pub fn variable(&self) -> String {
        format!("REPLAY__{}", self.path.replace('.', "__").to_uppercase())
    }
}

const fn key(path: &'static str) -> Key {
    Key { path, short: None, secret: false }
}

const fn short(path: &'static str, short: &'static str) -> Key {
    Key { path, short: Some(short), secret: false }
}

const fn secret(path: &'static str, short: Option<&'static str>) -> Key {
    Key { path, short, secret: true }
}

/// The short name that counts in GiB where its key counts in bytes.
pub(super) const QUOTA_IN_GIB: &str = "DEFAULT_USER_REPLAY_QUOTA_GB";

/// All of them, in the order of `config/default.toml`.
pub const KEYS: &[Key] = &[
    short("log", "RUST_LOG"),
    key("data_dir"),
    secret("database.url", Some("DATABASE_URL")),
    key("database.max_connections"),
    short("server.host", "HOST"),
    short("server.port", "PORT"),
    short("server.public_url", "REPLAY_PUBLIC_URL"),
    key("server.trusted_proxies"),
    key("server.cors_origins"),
    key("server.shutdown_seconds"),
    key("server.max_wait_seconds"),
    secret("server.link_secret", None),
    secret("auth.jwt_secret", Some("JWT_SECRET")),
    key("auth.jwks_url"),
    key("auth.jwks_file"),
    key("auth.issuer"),
    key("auth.audience"),
    key("auth.leeway_seconds"),
    key("auth.claims"),
    short("livekit.url", "LIVEKIT_URL"),
    short("livekit.api_key", "LIVEKIT_API_KEY"),
    secret("livekit.api_secret", Some("LIVEKIT_API_SECRET")),
    secret("livekit.webhook_keys", None),
    short("livekit.egress_output_path", "REPLAY_EGRESS_OUTPUT_PATH"),
    key("livekit.start_timeout_seconds"),
    key("livekit.pipeline_delay_ms"),
    key("livekit.identity_pattern"),
    key("rooms.community_pattern"),
    key("rooms.community_sources"),
    short("buffer.minutes", "REPLAY_BUFFER_DURATION_MINUTES"),
    short("buffer.cleanup_minutes", "REPLAY_CLEANUP_BUFFER_MINUTES"),
    short("buffer.segment_seconds", "REPLAY_SEGMENT_DURATION_SECONDS"),
    key("buffer.grace_seconds"),
    key("buffer.no_segment_seconds"),
    key("buffer.max_epoch_hours"),
    key("sessions.rejoin_seconds"),
    key("sessions.audio_wait_ms"),
    short("sessions.orphan_max_hours", "REPLAY_ORPHAN_MAX_HOURS"),
    key("capture.muxer"),
    key("capture.wait_seconds"),
    key("capture.tail_wait_seconds"),
    key("capture.workers"),
    key("capture.queue"),
    key("capture.queue_per_user"),
    key("capture.deadline_factor"),
    key("capture.stall_seconds"),
    key("capture.failed_keep_minutes"),
    key("clips.link_ttl_seconds"),
    short("limits.user_quota_bytes", QUOTA_IN_GIB),
    short("limits.community_max_concurrent", "DEFAULT_COMMUNITY_MAX_CONCURRENT"),
    key("limits.community_ceiling"),
    key("limits.clip_max_seconds"),
    key("rate_limits.start_per_minute"),
    key("rate_limits.capture_per_minute"),
    key("rate_limits.delete_per_minute"),
    key("rate_limits.filmstrip_per_minute"),
    short("storage.buffer", "REPLAY_BUFFER_PATH"),
    short("storage.clips", "REPLAY_STORAGE_PATH"),
    key("storage.buffer_dir_mode"),
    key("storage.buffer_gid"),
    key("storage.min_free_bytes"),
    key("storage.high_percent"),
    key("storage.critical_percent"),
    key("share.url"),
    secret("share.secret", None),
    secret("webhooks.endpoints", None),
    key("jobs.segment_cleanup"),
    key("jobs.orphan_reaper"),
    key("jobs.reconcile"),
    key("jobs.workdir_sweep"),
    key("jobs.quota_audit"),
    key("jobs.storage_probe"),
];

/// The setting at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The setting whose key is closest to a mistyped one, if any is close.
pub fn nearest(path: &str) -> Option<&'static Key> {
    KEYS.iter()
        .map(|key| (strsim::jaro_winkler(path, key.path), key))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::DEFAULTS;

    /// Keys of the default file, commented ones included, each with whether a comment explains it.
    fn keys_of_the_default_file() -> Vec<(String, bool)> {
        let (mut section, mut explained, mut found) = (String::new(), false, Vec::new());
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = format!("{}.", name.trim_end_matches(']'));
            }
            match line.trim_start_matches('#').split_once(" = ") {
                Some((name, _)) if !name.contains(' ') => {
                    found.push((format!("{section}{name}"), explained));
                    explained = false;
                }
                _ => explained = line.starts_with("# ") || (explained && line.starts_with('#')),
            }
        }
        found
    }

    #[test]
    fn the_default_file_explains_every_key_and_no_other() {
        let in_file = keys_of_the_default_file();
        let names: Vec<&str> = in_file.iter().map(|(name, _)| name.as_str()).collect();
        let known: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(names, known, "config/default.toml and KEYS differ");
        for (name, explained) in &in_file {
            assert!(explained, "config/default.toml does not explain {name}");
        }
    }

    #[test]
    fn the_default_file_names_every_short_name() {
        for name in KEYS.iter().filter_map(|key| key.short) {
            assert!(DEFAULTS.contains(name), "config/default.toml does not name {name}");
        }
    }

    #[test]
    fn a_mistyped_key_is_answered_with_the_nearest() {
        assert_eq!(nearest("bufer.minutes").map(|key| key.path), Some("buffer.minutes"));
        assert_eq!(nearest("server.prot").map(|key| key.path), Some("server.port"));
        assert_eq!(nearest("zzz"), None);
    }
}
