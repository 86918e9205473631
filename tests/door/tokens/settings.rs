//! Settings of tokens that a start refuses (exit code 2), and what it says.

use std::{collections::BTreeMap, path::PathBuf};

use livekit_replay::config::{Demand, Sources, load};

use super::table::Table;
use crate::support::SECRET;

const LIVEKIT: &str = "livekit's-own-secret-of-32-bytes-and";

/// Settings, what is special about them, their variables, and what the start says.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, String);

/// The faults of these settings; `fine` without any.
fn started_with(settings: &[(&str, &str)]) -> String {
    let needed = [
        ("LIVEKIT_URL", "http://127.0.0.1:7880"),
        ("LIVEKIT_API_KEY", "key"),
        ("LIVEKIT_API_SECRET", LIVEKIT),
    ];
    let env: BTreeMap<String, String> = needed
        .iter()
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let sources = Sources { env, cwd: PathBuf::from("/srv/app"), ..Sources::default() };
    match load(&sources, Demand::Service) {
        Ok(_) => "fine".to_owned(),
        Err(faults) => faults.to_string().replace('\n', "<br>"),
    }
}

#[test]
fn settings_that_a_start_refuses() {
    let mut table = Table::new("settings", ["settings", "with", "the start says"]);
    let (issuer, audience) =
        (("REPLAY__AUTH__ISSUER", "app"), ("REPLAY__AUTH__AUDIENCE", "replay"));
    let url = |url| ("REPLAY__AUTH__JWKS_URL", url);
    let two = format!("{SECRET}\nshort");
    let same = format!("{SECRET}\n{LIVEKIT}");
    let missing = "auth.jwt_secret: is not set (JWT_SECRET or REPLAY__AUTH__JWT_SECRET); expected at least 32 bytes; or auth.jwks_url or auth.jwks_file";
    let short = "environment JWT_SECRET: auth.jwt_secret: does not fit; expected at least 32 bytes";
    let own = "expected a secret of its own: whoever has LiveKit's could sign in as anybody";
    let place = "expected https://host/path, or http:// on this machine, without user and fragment";
    let cases: Vec<Case<'_>> = vec![
        ("secret", "none", vec![], missing.into()),
        ("secret", "an empty one", vec![("JWT_SECRET", "")], missing.into()),
        ("secret", "31 bytes", vec![("JWT_SECRET", &SECRET[..31])], short.into()),
        ("secret", "LiveKit's", vec![("JWT_SECRET", LIVEKIT)],
            format!("environment JWT_SECRET: auth.jwt_secret: is the same as a LiveKit secret; {own}")),
        ("secret", "one of LiveKit's webhook keys",
            vec![("JWT_SECRET", SECRET), ("REPLAY__LIVEKIT__WEBHOOK_KEYS", &HOOK)],
            format!("environment JWT_SECRET: auth.jwt_secret: is the same as a LiveKit secret; {own}")),
        ("secret", "the example's", vec![("JWT_SECRET", "at least 32 bytes that only your app knows")],
            "environment JWT_SECRET: auth.jwt_secret: is a placeholder; expected a random secret, such as from `openssl rand -hex 32`".into()),
        ("two secrets", "the second short", vec![("JWT_SECRET", &two)],
            "environment JWT_SECRET: auth.jwt_secret: item 2 does not fit; expected at least 32 bytes".into()),
        ("two secrets", "the second LiveKit's", vec![("JWT_SECRET", &same)],
            format!("environment JWT_SECRET: auth.jwt_secret: item 2 is the same as a LiveKit secret; {own}")),
        ("JWKS", "neither issuer nor audience", vec![url("https://a.example/keys")],
            "auth.issuer: is not set (REPLAY__AUTH__ISSUER); expected the `iss` of tokens signed by a key of the JWKS<br>auth.audience: is not set (REPLAY__AUTH__AUDIENCE); expected the `aud` of tokens signed by a key of the JWKS".into()),
        ("JWKS", "an address in clear", vec![url("http://a.example/keys"), issuer, audience],
            format!("environment REPLAY__AUTH__JWKS_URL: auth.jwks_url: \"http://a.example/keys\" does not fit; {place}")),
        ("JWKS", "an address that is a file", vec![url("file:///etc/passwd"), issuer, audience],
            format!("environment REPLAY__AUTH__JWKS_URL: auth.jwks_url: \"file:///etc/passwd\" does not fit; {place}")),
        ("JWKS", "a file that is not there",
            vec![("REPLAY__AUTH__JWKS_FILE", "/nowhere/keys.json"), issuer, audience],
            "environment REPLAY__AUTH__JWKS_FILE: auth.jwks_file: /nowhere/keys.json cannot be read: No such file or directory (os error 2); expected a file that holds a JSON Web Key Set".into()),
        ("JWKS", "address and file",
            vec![url("https://a.example/keys"), ("REPLAY__AUTH__JWKS_FILE", "/dev/null"), issuer, audience],
            "environment REPLAY__AUTH__JWKS_FILE: auth.jwks_file: auth.jwks_url is set too; expected one of the two".into()),
        ("JWKS", "all it needs", vec![url("https://a.example/keys"), issuer, audience], "fine".into()),
        ("secret and JWKS", "all it needs",
            vec![("JWT_SECRET", SECRET), url("https://a.example/keys"), issuer, audience], "fine".into()),
    ];
    for (settings, with, given, expected) in cases {
        table.row(settings, with, &expected, &started_with(&given));
    }
    table.close();
}

static HOOK: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| format!("hook:{SECRET}"));
