//! `token mint` and `token inspect`, as programs.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::{
    AUDIENCE, ISSUER, forge,
    forge::{Key, hs256, with},
    publisher::{Answer, Publisher},
};
use crate::support::SECRET;

const FAR: u64 = 4_000_000_000;

async fn program(env: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_livekit-replay"));
    let mut running = command
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // one that does not read its input may be gone already
    let _ = running.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = running.wait_with_output().await.unwrap();
    for stream in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(stream).contains(SECRET), "a secret was printed");
    }
    output
}

async fn inspect(env: &[(&str, &str)], token: &str) -> (Option<i32>, Value) {
    let output = program(env, &["token", "inspect", "--json"], token).await;
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), value)
}

#[tokio::test]
async fn a_minted_token_is_explained_and_gives_what_it_says() {
    let secrets = format!("{SECRET}\nthe-secret-before-this-one-32-bytes!");
    let env = [("JWT_SECRET", secrets.as_str())];
    let mint = ["token", "mint", "ann", "--name", "Ann", "--community", "c1:moderator", "--admin"];
    let minted = program(&env, &mint, "").await;
    let token = String::from_utf8(minted.stdout).unwrap();
    for text in [token.clone(), format!("Authorization: Bearer {token}")] {
        let (code, found) = inspect(&env, &text).await;
        assert_eq!((code, &found["accepted"]), (Some(0), &json!(true)), "{found}");
        assert_eq!(found["verifiedBy"], "auth.jwt_secret, 1 of 2 (HS256)");
        assert_eq!(found["grants"]["userId"], "ann");
        assert_eq!(found["grants"]["communities"], json!({"c1": ["moderator"]}));
        assert_eq!(found["grants"]["roles"], json!(["instance_admin"]));
    }
    // for people, and as an argument
    let shown = program(&env, &["token", "inspect", token.trim()], "").await;
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("instance_admin"), "{text}");
    let signature = token.trim().rsplit_once('.').unwrap().1;
    assert!(!text.contains(signature), "the signature makes a token of it: {text}");
    let old = hs256("the-secret-before-this-one-32-bytes!", &json!({"sub": "ann", "exp": FAR}));
    assert_eq!(inspect(&env, &old).await.1["verifiedBy"], "auth.jwt_secret, 2 of 2 (HS256)");
}

#[tokio::test]
async fn a_refused_token_is_explained_with_what_would_have_been_right() {
    let env = [("JWT_SECRET", SECRET), ("REPLAY__AUTH__ISSUER", ISSUER)];
    let good = json!({"sub": "ann", "exp": FAR, "iss": ISSUER});
    for (token, reason, why) in [
        (hs256(SECRET, &with(&good, json!({"exp": 1}))), "expired", "exp is 1970-01-01T00:00:01"),
        (
            hs256(SECRET, &with(&good, json!({"iss": "b"}))),
            "wrong_issuer",
            "iss is \"b\", demanded is \"https://login.example.org\"",
        ),
        (hs256(SECRET, &with(&good, json!({"iss": null}))), "missing_claim", "iss is missing"),
        (hs256(SECRET, &with(&good, json!({"sub": 5}))), "bad_claim", "sub is 5"),
        (
            hs256("of-somebody-else-and-32-bytes-long", &good),
            "bad_signature",
            "a shared secret (HS256)",
        ),
        (
            Key::named("ed-1").token(&good),
            "wrong_algorithm",
            "accepted here: a shared secret (HS256)",
        ),
        ("a.b.c".to_owned(), "malformed", "its header is no base64url"),
        ("abc".to_owned(), "malformed", "it has not three parts"),
    ] {
        let (code, found) = inspect(&env, &token).await;
        assert_eq!((code, &found["reason"]), (Some(1), &json!(reason)), "{found}");
        assert!(found["why"].as_str().unwrap().contains(why), "{found}");
        assert_eq!((&found["accepted"], &found["grants"]), (&json!(false), &Value::Null));
    }
    let (_, found) = inspect(&env, &hs256("of-somebody-else-and-32-bytes-long", &good)).await;
    assert_eq!((&found["verifiedBy"], &found["claims"]["sub"]), (&Value::Null, &json!("ann")));
    // what it says must not speak to the terminal
    let odd = with(&good, json!({"exp": 1, "note": "\u{1b}[2J\u{9b}2J"}));
    let shown = program(&env, &["token", "inspect"], &hs256(SECRET, &odd)).await;
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("expired") && text.contains("note"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
}

#[tokio::test]
async fn tokens_of_published_keys_are_explained_too() {
    let key = Key::named("rsa-1");
    let mut publisher = Publisher::start(Answer::Keys(forge::set(&[&key]))).await;
    let url = publisher.url();
    let env = [
        ("REPLAY__AUTH__JWKS_URL", url.as_str()),
        ("REPLAY__AUTH__ISSUER", ISSUER),
        ("REPLAY__AUTH__AUDIENCE", AUDIENCE),
    ];
    let claims = json!({"sub": "ann", "exp": FAR, "iss": ISSUER, "aud": AUDIENCE, "roles": ["x"]});
    let (code, found) = inspect(&env, &key.token(&claims)).await;
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(found["verifiedBy"], "auth.jwks_url, key \"rsa-1\" (RS256)");
    assert_eq!(found["grants"]["roles"], json!([]));
    assert_eq!(found["grants"]["notBelieved"], json!(["roles"]));
    let (code, found) = inspect(&env, &Key::named("ed-1").token(&claims)).await;
    assert_eq!((code, &found["reason"]), (Some(1), &json!("unknown_key")));
    assert!(found["why"].as_str().unwrap().contains("known keys: rsa-1 (RS256)"), "{found}");
    publisher.down().await;
    let (code, found) = inspect(&env, &key.token(&claims)).await;
    assert_eq!((code, &found["reason"]), (Some(1), &json!("keys_unavailable")));
    assert!(found["why"].as_str().unwrap().contains("auth.jwks_url"), "{found}");
    // nothing can be signed with public keys
    let minted = program(&env, &["token", "mint", "ann"], "").await;
    assert_eq!(minted.status.code(), Some(2), "{minted:?}");
}

#[tokio::test]
async fn usage_and_settings_end_with_two() {
    let good = [("JWT_SECRET", SECRET)];
    for (env, args) in [
        (&good[..], &["token", "inspect"][..]),
        (&good[..], &["token", "inspect", "a", "b"][..]),
        (&[][..], &["token", "inspect", "a.b.c"][..]),
        (&[("JWT_SECRET", "short")][..], &["token", "inspect", "a.b.c"][..]),
        (&[][..], &["token", "mint", "ann"][..]),
    ] {
        let output = program(env, args, "").await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn commands_on_the_database_need_no_settings_of_tokens() {
    let directory = std::env::temp_dir().join(format!("lkr-keyless-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let place = directory.join("data").display().to_string();
    let env = [("REPLAY__DATA_DIR", place.as_str())];
    assert!(program(&env, &["db", "migrate"], "").await.status.success());
    let listed = program(&env, &["clips", "list", "--json"], "").await;
    assert!(listed.status.success(), "{listed:?}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_service_without_a_secret_takes_tokens_of_published_keys() {
    let key = Key::named("ec-1");
    let publisher = Publisher::start(Answer::Keys(forge::set(&[&key]))).await;
    let directory = std::env::temp_dir().join(format!("lkr-serve-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let mut service = tokio::process::Command::new(env!("CARGO_BIN_EXE_livekit-replay"))
        .arg("serve")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("REPLAY__DATA_DIR", directory.join("data"))
        .env("PORT", "0")
        .env("LIVEKIT_URL", "http://127.0.0.1:9")
        .env("LIVEKIT_API_KEY", "key")
        .env("LIVEKIT_API_SECRET", "livekit's-own")
        .env("REPLAY__AUTH__JWKS_URL", publisher.url())
        .env("REPLAY__AUTH__ISSUER", ISSUER)
        .env("REPLAY__AUTH__AUDIENCE", AUDIENCE)
        .current_dir(&directory)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("it starts");
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if line["message"] == "ready" {
            break line["address"].as_str().unwrap().to_owned();
        }
    };
    // asked without a token's help
    publisher.asked_times(1).await;
    let url = format!("http://{address}/livekit-replay/me/quota");
    let ask = async |token: String| {
        reqwest::Client::new().get(&url).bearer_auth(token).send().await.unwrap().status()
    };
    let claims = json!({"sub": "ann", "exp": FAR, "iss": ISSUER, "aud": AUDIENCE});
    assert_eq!(ask(key.token(&claims)).await, 200);
    assert_eq!(ask(Key::named("ec-2").token(&claims)).await, 401);
    assert_eq!(ask(hs256(SECRET, &claims)).await, 401);
    let pid = i32::try_from(service.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    while lines.next_line().await.unwrap().is_some() {}
    assert!(service.wait().await.unwrap().success());
    std::fs::remove_dir_all(directory).unwrap();
}
