//! Layers, derived defaults, and what operators read when something is wrong.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::ExposeSecret;

use super::*;

const JWT: &str = "0123456789abcdef0123456789abcdef";

/// A directory of the test's own, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let dir = std::env::temp_dir().join(format!("config-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).expect("a scratch directory");
        Scratch(dir)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a scratch file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sources(env: &[(&str, &str)]) -> Sources {
    let required = [
        ("JWT_SECRET", JWT),
        ("LIVEKIT_URL", "http://127.0.0.1:7880"),
        ("LIVEKIT_API_KEY", "key"),
        ("LIVEKIT_API_SECRET", "secret"),
    ];
    let env: BTreeMap<String, String> = required
        .iter()
        .chain(env)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Sources { env, cwd: PathBuf::from("/srv/app"), ..Sources::default() }
}

fn loaded(env: &[(&str, &str)]) -> Config {
    load(&sources(env), Demand::Service).expect("valid settings")
}

fn secrets_of(config: &Config) -> Vec<&str> {
    config.auth.jwt_secrets.iter().map(|secret| secret.expose_secret()).collect()
}

fn faults(sources: &Sources) -> String {
    load(sources, Demand::Service).expect_err("faulty settings").to_string()
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = loaded(&[]);
    assert_eq!((config.server.host.to_string().as_str(), config.server.port), ("127.0.0.1", 3001));
    assert_eq!(config.buffer.length, Duration::from_secs(600));
    assert_eq!(config.buffer.cleanup, Duration::from_secs(720));
    assert_eq!(config.buffer.segment, Duration::from_secs(2));
    assert_eq!(config.limits.user_quota_bytes, 5 << 30);
    assert_eq!((config.limits.community_max_concurrent, config.limits.community_ceiling), (5, 25));
    assert_eq!(config.storage.buffer_dir_mode, 0o2770);
    assert_eq!(config.storage.min_free_bytes, 256 << 20);
    assert_eq!(config.livekit.pipeline_delay, None);
    assert!(config.auth.claim_communities && config.auth.claim_roles);
}

#[test]
fn what_is_not_set_follows_from_what_is() {
    let config = loaded(&[
        ("REPLAY_BUFFER_DURATION_MINUTES", "20"),
        ("REPLAY_SEGMENT_DURATION_SECONDS", "10"),
        ("REPLAY_BUFFER_PATH", "buffer"),
        ("DEFAULT_COMMUNITY_MAX_CONCURRENT", "40"),
    ]);
    assert_eq!(config.buffer.grace, Duration::from_secs(1200));
    assert_eq!(config.limits.clip_max, Duration::from_secs(1200));
    assert_eq!(config.buffer.cleanup, Duration::from_secs(22 * 60));
    assert_eq!(config.buffer.no_segment, Duration::from_secs(45));
    assert_eq!(config.capture.tail_wait, Duration::from_secs(40));
    assert_eq!(config.limits.community_ceiling, 40);
    assert_eq!(config.storage.buffer, PathBuf::from("/srv/app/buffer"));
    assert_eq!(config.livekit.egress_output_path, config.storage.buffer);
}

#[test]
fn a_flag_beats_the_long_variable_beats_the_short_one_beats_the_file() {
    let scratch = Scratch::new();
    let mut sources = sources(&[]);
    let port = |sources: &Sources| load(sources, Demand::Service).expect("valid").server.port;
    sources.file = Some(scratch.file("replay.toml", "[server]\nport = 1\n"));
    assert_eq!(port(&sources), 1);
    sources.env.insert("PORT".into(), "2".into());
    assert_eq!(port(&sources), 2);
    sources.env.insert("REPLAY__SERVER__PORT".into(), "3".into());
    assert_eq!(port(&sources), 3);
    sources.flags.push(("server.port".into(), "4".into(), "--port".into()));
    assert_eq!(port(&sources), 4);
}

#[test]
fn texts_from_the_environment_stay_texts_lists_are_split_and_the_old_quota_counts_in_gib() {
    let digits = "12345678901234567890123456789012";
    let config = loaded(&[
        ("JWT_SECRET", digits),
        ("REPLAY__SERVER__TRUSTED_PROXIES", "10.0.0.1, fd00::/8"),
        ("REPLAY__LIVEKIT__WEBHOOK_KEYS", "a:1,b:2:3"),
        ("DEFAULT_USER_REPLAY_QUOTA_GB", "0.5"),
        ("REPLAY__SERVER__PUBLIC_URL", ""),
    ]);
    assert_eq!(secrets_of(&config), [digits]);
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert_eq!(config.livekit.webhook_keys[1].0, "b");
    assert_eq!(config.livekit.webhook_keys[1].1.expose_secret(), "2:3");
    assert_eq!(config.limits.user_quota_bytes, 1 << 29);
    assert_eq!(config.server.public_url, None);
}

#[test]
fn secrets_come_from_files_and_never_show() {
    let scratch = Scratch::new();
    let path = scratch.file("jwt", "fedcba9876543210fedcba9876543210\n");
    let mut sources = sources(&[("JWT_SECRET_FILE", path.to_str().expect("UTF-8"))]);
    assert!(faults(&sources).contains("JWT_SECRET is set too; expected one of the two"));
    sources.env.remove("JWT_SECRET");
    let config = load(&sources, Demand::Service).expect("valid");
    let secret = "fedcba9876543210fedcba9876543210".to_owned();
    assert_eq!(secrets_of(&config), [secret.as_str()]);
    assert!(!format!("{config:?}").contains(&secret));

    sources.env.insert("REPLAY__AUTH__JWT_SECRET".into(), "short-and-private".into());
    let text = faults(&sources);
    assert!(text.contains("at least 32 bytes"), "{text}");
    assert!(!text.contains("short-and-private"), "{text}");
}

#[test]
fn secrets_are_exchanged_by_giving_several_a_line_or_an_item_each() {
    let new = "a, new secret; of more than 32 bytes";
    let config = loaded(&[("JWT_SECRET", &format!("{new}\r\n{JWT}\n"))]);
    assert_eq!(secrets_of(&config), [new, JWT]);

    let scratch = Scratch::new();
    let mut sources = sources(&[]);
    sources.env.remove("JWT_SECRET");
    let list = format!("[auth]\njwt_secret = [\"{new}\", \"{JWT}\"]\n");
    sources.file = Some(scratch.file("replay.toml", &list));
    let config = load(&sources, Demand::Service).expect("valid");
    assert_eq!(secrets_of(&config), [new, JWT]);
    assert!(config.auth.claim_communities && config.auth.claim_roles);

    // each by the rules of one
    sources.env.insert("LIVEKIT_API_SECRET".into(), JWT.into());
    sources.env.insert("JWT_SECRET".into(), format!("{new}\nshort\n{JWT}\n{new}"));
    let text = faults(&sources);
    for fault in
        ["item 2 does not fit", "item 3 is the same as a LiveKit", "item 4 stands there twice"]
    {
        assert!(text.contains(fault), "{text}");
    }
    assert!(!text.contains("short") && !text.contains("new secret"), "{text}");
    let many: Vec<String> = (0..9).map(|n| format!("{n}{JWT}")).collect();
    sources.env.insert("JWT_SECRET".into(), many.join("\n"));
    assert!(faults(&sources).contains("at most 8"));
}

#[test]
fn published_keys_need_issuer_and_audience_and_believe_no_claims_unless_told() {
    let url = ("REPLAY__AUTH__JWKS_URL", "https://login.example.org/keys?p=1");
    let mut sources = sources(&[url]);
    sources.env.remove("JWT_SECRET");
    let expected = [
        "auth.issuer: is not set (REPLAY__AUTH__ISSUER); expected the `iss` of tokens signed by a key of the JWKS",
        "auth.audience: is not set (REPLAY__AUTH__AUDIENCE); expected the `aud` of tokens signed by a key of the JWKS",
    ];
    assert_eq!(faults(&sources), expected.join("\n"));
    sources.env.insert("REPLAY__AUTH__ISSUER".into(), "app".into());
    sources.env.insert("REPLAY__AUTH__AUDIENCE".into(), "replay".into());
    let config = load(&sources, Demand::Service).expect("no secret is needed");
    assert_eq!(config.auth.jwks, Some(Jwks::Url(url.1.to_owned())));
    assert!(!config.auth.claim_communities && !config.auth.claim_roles);
    sources.env.insert("REPLAY__AUTH__CLAIMS".into(), "communities".into());
    let config = load(&sources, Demand::Service).expect("valid");
    assert!(config.auth.claim_communities && !config.auth.claim_roles);

    sources.env.insert("REPLAY__AUTH__JWKS_FILE".into(), "/nowhere/keys.json".into());
    assert!(faults(&sources).contains("auth.jwks_url is set too; expected one of the two"));
    sources.env.remove("REPLAY__AUTH__JWKS_URL");
    assert!(faults(&sources).contains("/nowhere/keys.json cannot be read"));
}

#[test]
fn keys_come_encrypted_or_from_this_machine() {
    let fits = |url: &str| {
        let mut sources = sources(&[("REPLAY__AUTH__JWKS_URL", url)]);
        sources.env.insert("REPLAY__AUTH__ISSUER".into(), "app".into());
        sources.env.insert("REPLAY__AUTH__AUDIENCE".into(), "replay".into());
        load(&sources, Demand::Service).is_ok()
    };
    for good in
        ["https://a.b/c", "http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:1/x"]
    {
        assert!(fits(good), "{good}");
    }
    for bad in [
        "http://login.example.org/keys",
        "http://10.0.0.1/keys",
        "http://localhost.example.org/keys",
        "http://127.0.0.1@example.org/keys",
        "https://user:pass@example.org/keys",
        "https://example.org/keys#part",
        "file:///etc/passwd",
        "/keys.json",
        "https://",
    ] {
        assert!(!fits(bad), "{bad}");
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_what_was_expected() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "replay.toml",
        "[server]\nport = 70000\nhots = \"::1\"\n\n[bufer]\nminutes = 5\n\n[buffer]\ncleanup_minutes = 10\n\
         segment_seconds = 2.5\n\n[jobs]\nreconcile = \"*/5 * * * *\"\n\n[livekit]\nidentity_pattern = \"^(.+)$\"\n",
    );
    let name = file.display().to_string();
    let sources = Sources {
        file: Some(file),
        env: BTreeMap::from([
            ("JWT_SECRET".to_owned(), JWT.to_owned()),
            ("LIVEKIT_API_SECRET".to_owned(), JWT.to_owned()),
            ("REPLAY__BUFFER__MINUTE".to_owned(), "5".to_owned()),
            ("REPLAY_BUFFER_PATH".to_owned(), "/srv/x".to_owned()),
            ("REPLAY_STORAGE_PATH".to_owned(), "/srv/x/clips".to_owned()),
        ]),
        flags: vec![("server.max_wait_seconds".into(), "soon".into(), "--set".into())],
        cwd: PathBuf::from("/srv/app"),
    };
    let expected = [
        "FILE:5: bufer: there is no such setting; did you mean buffer.minutes?",
        "FILE:3: server.hots: there is no such setting; did you mean server.host?",
        "environment REPLAY__BUFFER__MINUTE: buffer.minute: there is no such setting; did you mean REPLAY__BUFFER__MINUTES?",
        "FILE:10: buffer.segment_seconds: 2.5 does not fit; expected a whole number from 1 to 60",
        "FILE:2: server.port: 70000 does not fit; expected a whole number from 0 to 65535",
        "flag --set: server.max_wait_seconds: \"soon\" does not fit; expected a whole number from 0 to 600",
        "FILE:16: livekit.identity_pattern: the pattern needs a group named `user`, as in ^(?<user>.+)$; expected a regular expression with a group named user, as in ^(?<user>.+)$",
        "FILE:13: jobs.reconcile: \"*/5 * * * *\" does not fit; expected cron with seconds in front, such as \"0 */5 * * * *\"",
        "livekit.url: is not set (LIVEKIT_URL or REPLAY__LIVEKIT__URL); expected http(s):// or ws(s)://host",
        "livekit.api_key: is not set (LIVEKIT_API_KEY or REPLAY__LIVEKIT__API_KEY); expected the name of an API key",
        "environment JWT_SECRET: auth.jwt_secret: is the same as a LiveKit secret; expected a secret of its own: whoever has LiveKit's could sign in as anybody",
        "FILE:9: buffer.cleanup_minutes: is too short for the promised minutes; expected at least 11: buffer.minutes and one more",
        "environment REPLAY_STORAGE_PATH: storage.clips: /srv/x/clips and storage.buffer /srv/x overlap; expected two directories, neither inside the other",
    ]
    .join("\n");
    assert_eq!(faults(&sources).replace(&name, "FILE"), expected);
}

#[test]
fn broken_toml_is_a_fault_with_its_line_and_the_rest_is_still_read() {
    let scratch = Scratch::new();
    let mut sources = sources(&[]);
    sources.file =
        Some(scratch.file("replay.toml", "[server]\nport = \n\n[capture]\nworkers = 0\n"));
    let text = faults(&sources);
    assert!(text.contains("replay.toml:2: "), "{text}");
    assert!(text.contains("replay.toml:5: capture.workers: 0 does not fit"), "{text}");
}

#[test]
fn work_on_the_database_alone_needs_no_livekit_but_what_is_given_must_be_right() {
    let mut sources = Sources { cwd: PathBuf::from("/srv/app"), ..Sources::default() };
    assert!(load(&sources, Demand::Database).is_ok());
    sources.env.insert("DATABASE_URL".into(), "mysql://x".into());
    let text = load(&sources, Demand::Database).expect_err("no such engine").to_string();
    assert!(text.starts_with("environment DATABASE_URL: database.url: does not fit;"), "{text}");
}

#[test]
fn what_belongs_to_later_features_does_not_exist() {
    assert_eq!(keys::find("storage.s3.bucket"), None);
}

#[test]
fn shares_go_to_an_address_with_a_secret_or_nowhere() {
    const URL: (&str, &str) = ("REPLAY__SHARE__URL", "https://app.example/shares?of=replay");
    const SECRET: &str = "REPLAY__SHARE__SECRET";
    assert!(loaded(&[]).share.is_none());
    let encoded = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let share = loaded(&[URL, (SECRET, encoded)]).share.expect("both are set");
    assert_eq!((share.url.as_str(), share.signing_key().len()), (URL.1, 24));
    let plain = "a text of more than 24 bytes";
    let share = loaded(&[URL, (SECRET, plain)]).share.expect("both are set");
    assert_eq!(share.signing_key(), plain.as_bytes());
    for (given, key) in [
        (vec![URL], "share.secret"),
        (vec![(SECRET, encoded)], "share.url"),
        (vec![URL, (SECRET, "too short")], "share.secret"),
        (vec![URL, (SECRET, "whsec_not base64, though long enough")], "share.secret"),
        (vec![("REPLAY__SHARE__URL", "ftp://app.example"), (SECRET, encoded)], "share.url"),
    ] {
        let text = faults(&sources(&given));
        assert!(text.contains(&format!("{key}:")), "{text}");
        assert!(!text.contains("not base64") && !text.contains("too short;"), "{text}");
    }
}

#[test]
fn endpoints_of_events_are_tables_in_toml_and_json_elsewhere() {
    let scratch = Scratch::new();
    let key = scratch.file("key", "a secret of at least 24 bytes\n");
    let text = format!(
        "[[webhooks.endpoints]]\nurl = \"https://app.example.org/a?k=1\"\nsecret_file = \"{}\"\n\n\
         [[webhooks.endpoints]]\nurl = \"http://127.0.0.1:9/b\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n\
         events = [\"clip_ready\", \"quota_warning\"]\n",
        key.display()
    );
    let file = Sources { file: Some(scratch.file("c.toml", &text)), ..sources(&[]) };
    let config = load(&file, Demand::Service).expect("valid settings");
    let [one, two] = &config.webhooks[..] else { panic!("two: {:?}", config.webhooks) };
    assert_eq!(one.signing_key(), b"a secret of at least 24 bytes");
    assert!(one.events.is_empty() && one.wants(EventKind::ClipDeleted));
    assert_eq!(two.signing_key().len(), 24);
    assert!(two.wants(EventKind::QuotaWarning) && !two.wants(EventKind::ClipDeleted));
    assert_ne!(one.name, two.name);
    assert!(!format!("{config:?}").contains("whsec_"), "secrets do not print");

    let json = r#"[{"url": "https://app.example.org/", "secret": "a secret of at least 24 bytes", "events": []}]"#;
    let config = loaded(&[("REPLAY__WEBHOOKS__ENDPOINTS", json)]);
    assert_eq!(config.webhooks.len(), 1);
    let path = scratch.file("endpoints.json", json);
    let named = path.to_str().expect("text");
    assert_eq!(loaded(&[("REPLAY__WEBHOOKS__ENDPOINTS_FILE", named)]).webhooks.len(), 1);
}

#[test]
fn everything_that_is_wrong_with_endpoints_is_told_and_nothing_that_is_secret() {
    let json = r#"[
        {"url": "http://app.example.org/hidden", "secret": "a secret of at least 24 bytes"},
        {"url": "https://a/", "secret": "hidden and short"},
        {"url": "https://b/", "secret": "a secret of at least 24 bytes", "events": ["clip_redy"]},
        {"url": "https://b/", "secret": "a secret of at least 24 bytes", "event": []},
        {"url": "https://c/"}
    ]"#;
    let told = faults(&sources(&[("REPLAY__WEBHOOKS__ENDPOINTS", json)]));
    for part in [
        "item 1: url",
        "item 2: secret does not fit",
        "item 3: there is no event \"clip_redy\"",
        "item 4 has a member \"event\"",
        "item 4 has the url of another",
        "item 5: secret is not set",
    ] {
        assert!(told.contains(part), "{part} in:\n{told}");
    }
    assert_eq!(told.lines().count(), 6, "{told}");
    assert!(!told.contains("hidden"), "{told}");
    for odd in ["{}", "https://a/", "[1]"] {
        let told = faults(&sources(&[("REPLAY__WEBHOOKS__ENDPOINTS", odd)]));
        assert!(told.contains("webhooks.endpoints: does not fit"), "{told}");
    }
}
