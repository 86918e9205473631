//! One token after another, and the answer to each.

use jsonwebtoken::Algorithm;
use livekit_replay::config::Auth;
use serde_json::{Value, json};

use super::{
    AUDIENCE, ISSUER, PATH, forge,
    forge::{Key, hmac, hs256, message, part, resigned, with},
    published,
    publisher::{Answer, Publisher},
    table::Table,
    wire::Wire,
};
use crate::support::{House, SECRET};

const OLD: &str = "the-secret-before-this-one-32-bytes!";
const COLUMNS: [&str; 3] = ["settings", "token", "answer"];

/// Cases against one door.
struct Cases<'a> {
    table: &'a mut Table,
    wire: &'a Wire,
    settings: &'static str,
}

impl Cases<'_> {
    async fn case(&mut self, case: &str, token: &str, expected: &str) {
        let seen = self.wire.try_token(token).await;
        self.table.row(self.settings, case, expected, &seen);
    }

    async fn lines(&mut self, case: &str, lines: &[String], expected: &str) {
        let seen = self.wire.get_with(PATH, lines).await.in_short();
        self.table.row(self.settings, case, expected, &seen);
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { "empty".to_owned() } else { format!("`{text}`") }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_against_a_shared_secret() {
    let house = House::on_sqlite().await;
    let mut auth = Auth::with_secret(SECRET);
    auth.jwt_secrets.push(OLD.into());
    let wire = house.on_wire(auth).await;
    let mut table = Table::new("shared secret", COLUMNS);
    let mut cases = Cases { table: &mut table, wire: &wire, settings: "secret" };
    let good = json!({"sub": "u1", "exp": house.now_seconds() + 60, "iat": house.now_seconds()});
    signatures_by_secrets(&mut cases, &good).await;
    claims(&mut cases, &good, house.now_seconds(), |claims| hs256(SECRET, claims)).await;
    subjects(&mut cases, &good).await;
    headers(&mut cases, &hs256(SECRET, &good)).await;

    let mut auth = Auth::with_secret(SECRET);
    auth.jwt_secrets[0] = SECRET.into();
    let wire = house.on_wire(auth).await;
    let mut cases =
        Cases { table: &mut table, wire: &wire, settings: "secret, the older one gone" };
    cases.case("of the secret that was taken out", &hs256(OLD, &good), "401 `bad_signature`").await;
    cases.case("of the secret that stays", &hs256(SECRET, &good), "200").await;

    let mut auth = Auth::with_secret(SECRET);
    (auth.issuer, auth.audience) = (Some(ISSUER.to_owned()), Some(AUDIENCE.to_owned()));
    let wire = house.on_wire(auth).await;
    let mut cases = Cases { table: &mut table, wire: &wire, settings: "secret, issuer, audience" };
    let good = with(&good, json!({"iss": ISSUER, "aud": AUDIENCE}));
    issuers_and_audiences(&mut cases, &good, |claims| hs256(SECRET, claims)).await;
    drop(wire);
    table.close();
    house.tear_down().await;
}

async fn signatures_by_secrets(cases: &mut Cases<'_>, good: &Value) {
    cases.case("of the first secret", &hs256(SECRET, good), "200").await;
    cases.case("of the second, older one", &hs256(OLD, good), "200").await;
    let other = hs256("the-secret-of-somebody-else-entirely", good);
    cases.case("of a secret that is none of ours", &other, "401 `bad_signature`").await;
    cases.case("of the empty secret", &hs256("", good), "401 `bad_signature`").await;
    let both = hs256(&format!("{SECRET}\n{OLD}"), good);
    cases.case("of both secrets as one text", &both, "401 `bad_signature`").await;
    for name in ["HS384", "HS512"] {
        let algorithm: Algorithm = name.parse().unwrap();
        let token = hmac(algorithm, SECRET.as_bytes(), &json!({"alg": name}), good);
        cases.case(&format!("{name} by the right secret"), &token, "401 `wrong_algorithm`").await;
    }
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({ "alg": name });
        let token = format!("{}.", message(&header, good));
        let case = format!("alg {}, no signature", quoted(name));
        cases.case(&case, &token, "401 `wrong_algorithm`").await;
    }
    let signed = hs256(SECRET, good);
    let signature = signed.rsplit_once('.').unwrap().1;
    let none = format!("{}.{signature}", message(&json!({"alg": "none"}), good));
    cases
        .case("alg `none` with a signature of another token", &none, "401 `wrong_algorithm`")
        .await;
    let stripped = format!("{}.", signed.rsplit_once('.').unwrap().0);
    cases.case("alg `HS256`, signature taken off", &stripped, "401 `bad_signature`").await;
    let confused = format!("{}.{signature}", message(&json!({"alg": "RS256"}), good));
    cases.case("alg changed to `RS256`", &confused, "401 `wrong_algorithm`").await;
    for alg in [json!(["HS256"]), json!(null), json!(256)] {
        let token = hmac(Algorithm::HS256, SECRET.as_bytes(), &json!({ "alg": alg }), good);
        cases.case(&format!("alg `{alg}`, signed right"), &token, "401 `malformed`").await;
    }
    let lower = hmac(Algorithm::HS256, SECRET.as_bytes(), &json!({"alg": "hs256"}), good);
    cases.case("alg `hs256`, signed right", &lower, "401 `wrong_algorithm`").await;
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let root = with(good, json!({"sub": "root"}));
    let tampered = format!("{}.{signature}", message(&header, &root));
    cases.case("payload changed after signing", &tampered, "401 `bad_signature`").await;
    let flipped = resigned(&signed, |mut bytes| {
        bytes[7] ^= 1;
        bytes
    });
    cases.case("one bit of the signature flipped", &flipped, "401 `bad_signature`").await;
    let short = resigned(&signed, |bytes| bytes[..16].to_vec());
    cases.case("half of the signature", &short, "401 `bad_signature`").await;
    let kid = json!({"alg": "HS256", "kid": "../../dev/null"});
    let token = hmac(Algorithm::HS256, b"", &kid, good);
    cases
        .case("kid leads to an empty file, signed by nothing", &token, "401 `bad_signature`")
        .await;
    let kid =
        hmac(Algorithm::HS256, SECRET.as_bytes(), &json!({"alg": "HS256", "kid": "k1"}), good);
    cases.case("any kid, signed right (a secret has no id)", &kid, "200").await;
    for crit in [json!(["exp"]), json!([]), json!(null)] {
        let header = json!({"alg": "HS256", "crit": crit});
        let token = hmac(Algorithm::HS256, SECRET.as_bytes(), &header, good);
        cases.case(&format!("crit `{crit}`, signed right"), &token, "401 `malformed`").await;
    }
    let secret = part(SECRET);
    for (name, value) in [
        ("jwk", json!({"kty": "oct", "k": part("known-to-everybody-as-it-stands-here")})),
        ("jku", json!("http://127.0.0.1:9/keys")),
        ("x5u", json!("http://127.0.0.1:9/chain")),
    ] {
        let header = json!({"alg": "HS256", name: value});
        let token = hmac(Algorithm::HS256, b"known-to-everybody-as-it-stands-here", &header, good);
        let case = format!("brings its own key (`{name}`)");
        cases.case(&case, &token, "401 `bad_signature`").await;
    }
    let coded = hmac(Algorithm::HS256, secret.as_bytes(), &json!({"alg": "HS256"}), good);
    cases.case("of the secret's base64 text", &coded, "401 `bad_signature`").await;
}

async fn claims(cases: &mut Cases<'_>, good: &Value, now: i64, sign: impl Fn(&Value) -> String) {
    let expired = "401 `expired` (exp)";
    let early = |claim: &str| format!("401 `not_yet_valid` ({claim})");
    for (case, change, expected) in [
        ("expired 10 s ago", json!({"exp": now - 10}), expired),
        ("expired 9.5 s ago (leeway 10 s)", json!({"exp": now as f64 - 9.5}), "200"),
        ("exp 0", json!({"exp": 0}), expired),
        ("exp negative", json!({"exp": -1}), expired),
        ("exp 1e300", json!({"exp": 1e300}), "200"),
        ("exp in milliseconds of an hour ago", json!({"exp": (now - 3600) * 1000}), "200"),
        ("exp missing", json!({"exp": null}), "401 `missing_claim` (exp)"),
        ("exp is text", json!({"exp": "2030"}), "401 `bad_claim` (exp)"),
        ("exp is a list", json!({"exp": [now + 60]}), "401 `bad_claim` (exp)"),
        ("nbf in 11 s", json!({"nbf": now + 11}), early("nbf").as_str()),
        ("nbf in 10 s (leeway 10 s)", json!({"nbf": now + 10}), "200"),
        ("nbf is text", json!({"nbf": "now"}), "401 `bad_claim` (nbf)"),
        ("iat in 11 s", json!({"iat": now + 11}), early("iat").as_str()),
        ("iat in 10 s (leeway 10 s)", json!({"iat": now + 10}), "200"),
        ("iat missing", json!({"iat": null}), "200"),
        ("iat is true", json!({"iat": true}), "401 `bad_claim` (iat)"),
    ] {
        cases.case(case, &sign(&with(good, change)), expected).await;
    }
}

async fn subjects(cases: &mut Cases<'_>, good: &Value) {
    let bad = "401 `bad_claim` (sub)";
    for (case, sub, expected) in [
        ("sub missing", json!(null), "401 `missing_claim` (sub)"),
        ("sub is a number", json!(7), bad),
        ("sub is a list", json!(["u1"]), bad),
        ("sub empty", json!(""), bad),
        ("sub of 256 bytes", json!("x".repeat(256)), "200"),
        ("sub of 300 bytes", json!("x".repeat(300)), bad),
        ("sub with NUL", json!("u\u{0}1"), bad),
        ("sub with a line feed", json!("u1\nSet-Cookie: a"), bad),
        ("sub with U+0085", json!("u\u{85}1"), bad),
        ("sub `'; DROP TABLE session; --`", json!("'; DROP TABLE session; --"), "200"),
        ("sub `../../etc/passwd`", json!("../../etc/passwd"), "200"),
    ] {
        cases.case(case, &hs256(SECRET, &with(good, json!({ "sub": sub }))), expected).await;
    }
    let twice = format!(r#"{{"sub":"u1","sub":7,"exp":{}}}"#, good["exp"]);
    let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(twice));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    cases.case("sub twice, the last a number", &format!("{message}.{signature}"), bad).await;
}

async fn headers(cases: &mut Cases<'_>, token: &str) {
    let malformed = "401 `malformed`";
    let line = |text: String| vec![format!("Authorization: {text}")];
    cases.lines("no header", &[], "401 `missing`").await;
    cases.lines("`Bearer` alone", &line("Bearer".into()), malformed).await;
    cases.lines("`Bearer` and blanks", &line("Bearer   ".into()), malformed).await;
    cases.lines("`bearer` in lower case", &line(format!("bearer {token}")), "200").await;
    cases.lines("`BEARER`", &line(format!("BEARER {token}")), "200").await;
    cases
        .lines("header name in lower case", &[format!("authorization: Bearer {token}")], "200")
        .await;
    cases.lines("no scheme", &line(token.to_owned()), malformed).await;
    cases.lines("`Bearer` without a blank", &line(format!("Bearer{token}")), malformed).await;
    cases.lines("`Basic` with the token", &line(format!("Basic {token}")), malformed).await;
    cases.lines("`Basic dTpw`", &line("Basic dTpw".into()), malformed).await;
    let twice = [line(format!("Bearer {token}")), line(format!("Bearer {token}"))].concat();
    cases.lines("two headers, the same", &twice, malformed).await;
    let two = [line(format!("Bearer {token}")), line("Basic dTpw".into())].concat();
    cases.lines("two headers, one of them `Basic`", &two, malformed).await;
    let list = line(format!("Bearer {token}, Bearer {token}"));
    cases.lines("two tokens in one header", &list, malformed).await;
    cases.lines("bytes above ASCII", &line(format!("Bearer {token}é")), malformed).await;
    for (case, token) in [
        ("`no.token.atall`", "no.token.atall".to_owned()),
        ("two parts", token.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", format!("{token}.{}", part("x"))),
        ("five parts (encrypted)", "a.b.c.d.e".to_owned()),
        ("base64 with padding", token.replacen('.', "=.", 1)),
        ("only dots", "..".to_owned()),
    ] {
        cases.case(case, &token, malformed).await;
    }
    let pad = "x".repeat(9000);
    cases.case("9 KiB", &pad, malformed).await;
    cases.case("9 KiB, right in all else", &format!("{token}{pad}"), malformed).await;
    // who reads headers ends this before any of us sees it
    cases.case("1 MiB", &"x".repeat(1 << 20), "431").await;
}

async fn issuers_and_audiences(
    cases: &mut Cases<'_>,
    good: &Value,
    sign: impl Fn(&Value) -> String,
) {
    for (case, change, expected) in [
        ("right issuer and audience", json!({}), "200"),
        ("audience in a list", json!({"aud": ["other", AUDIENCE]}), "200"),
        ("wrong issuer", json!({"iss": "https://evil.example"}), "401 `wrong_issuer` (iss)"),
        (
            "issuer with a slash behind",
            json!({"iss": format!("{ISSUER}/")}),
            "401 `wrong_issuer` (iss)",
        ),
        ("issuer is a number", json!({"iss": 5}), "401 `wrong_issuer` (iss)"),
        ("no issuer", json!({"iss": null}), "401 `missing_claim` (iss)"),
        ("wrong audience", json!({"aud": "billing"}), "401 `wrong_audience` (aud)"),
        (
            "audience begins with ours",
            json!({"aud": [format!("{AUDIENCE}2")]}),
            "401 `wrong_audience` (aud)",
        ),
        ("empty list of audiences", json!({"aud": []}), "401 `wrong_audience` (aud)"),
        ("no audience", json!({"aud": null}), "401 `missing_claim` (aud)"),
    ] {
        cases.case(case, &sign(&with(good, change)), expected).await;
    }
}

/// What a forger publishes, and where he would like it to be looked for.
struct Forger {
    key: Key,
    trap: Publisher,
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_against_published_keys() {
    let house = House::on_sqlite().await;
    let keys = [Key::named("rsa-1"), Key::named("ec-1"), Key::named("ed-1")];
    let mut set = forge::set(&[&keys[0], &keys[1], &keys[2]]);
    let weak = json!({"kty": "RSA", "kid": "weak", "n": part([0xab; 128]), "e": "AQAB"});
    let symmetric = json!({"kty": "oct", "alg": "HS256", "kid": "oct-1", "k": part(SECRET)});
    set["keys"].as_array_mut().unwrap().extend([symmetric, weak]);
    let publisher = Publisher::start(Answer::Keys(set)).await;
    let wire = house.on_wire(published(publisher.jwks())).await;
    let mut table = Table::new("published keys", COLUMNS);
    let mut cases = Cases { table: &mut table, wire: &wire, settings: "JWKS" };
    let now = house.now_seconds();
    let good = json!({"sub": "u1", "exp": now + 60, "iat": now, "iss": ISSUER, "aud": AUDIENCE});
    let key = Key::named("ed-2");
    let trap = Publisher::start(Answer::Keys(forge::set(&[&key]))).await;
    let forger = Forger { key, trap };

    for key in &keys {
        let case = format!("{:?} by its key", key.algorithm);
        cases.case(&case, &key.token(&good), "200").await;
    }
    which_key(&mut cases, &keys, &good).await;
    confusion(&mut cases, &keys, &good).await;
    let token = keys[0].token_under(&json!({"alg": "RS256", "kid": "weak"}), &good);
    cases.case("RS256 by a published key of 1024 bits", &token, "401 `unknown_key`").await;
    own_keys(&mut cases, &keys, &good, &forger).await;
    ecdsa_signatures(&mut cases, &keys[1], &good).await;
    issuers_and_audiences(&mut cases, &good, |claims| keys[2].token(claims)).await;
    claims(&mut cases, &good, now, |claims| keys[1].token(claims)).await;
    assert_eq!(forger.trap.asked(), Vec::<String>::new(), "a token told us whom to ask");
    // an unknown key was asked for, once, and nothing but the configured address
    assert!(publisher.asked().iter().all(|asked| asked == "/keys.json?of=us"));
    assert_eq!(publisher.asked().len(), 1);

    rights(&mut table, &house, &publisher, &keys[2], &good).await;
    both_kinds(&mut table, &house, &publisher, &keys, &good).await;
    drop(wire);
    table.close();
    house.tear_down().await;
}

async fn which_key(cases: &mut Cases<'_>, keys: &[Key; 3], good: &Value) {
    let [rsa, ec, ed] = keys;
    let unknown = "401 `unknown_key`";
    let under = |kid: Value| ed.token_under(&with(&ed.header(), json!({ "kid": kid })), good);
    cases.case("no kid, one published key of this kind", &under(json!(null)), "200").await;
    cases
        .case("kid of a key of another kind", &under(json!("rsa-1")), "401 `wrong_algorithm`")
        .await;
    let other = Key::named("ec-2");
    let header = with(&other.header(), json!({"kid": "ec-1"}));
    let token = other.token_under(&header, good);
    cases.case("kid of a key that did not sign it", &token, "401 `bad_signature`").await;
    cases.case("unknown kid", &other.token(good), unknown).await;
    for kid in [
        "../../../../dev/null",
        "/etc/livekit-replay/keys.json",
        "file:///dev/null",
        "http://127.0.0.1:9/keys",
        "' OR 1=1 --",
        "ed-1' UNION SELECT 'x",
        "ed-1\u{0}",
        "ED-1",
        "",
    ] {
        let case = format!("kid {}, signed right", quoted(&kid.replace('\u{0}', "\\0")));
        cases.case(&case, &under(json!(kid)), unknown).await;
    }
    for (case, kid) in [
        ("kid is a number", json!(1)),
        ("kid is an object", json!({"$ne": ""})),
        ("kid of 300 bytes", json!("k".repeat(300))),
    ] {
        cases.case(case, &under(kid), "401 `malformed`").await;
    }
    let header = with(&rsa.header(), json!({"crit": ["kid"]}));
    let token = rsa.token_under(&header, good);
    cases.case("crit, signed right", &token, "401 `malformed`").await;
    let root = with(good, json!({"sub": "root"}));
    for key in [rsa, ec, ed] {
        let signed = key.token(good);
        let signature = signed.rsplit_once('.').unwrap().1;
        let token = format!("{}.{signature}", message(&key.header(), &root));
        let case = format!("{:?}, payload changed after signing", key.algorithm);
        cases.case(&case, &token, "401 `bad_signature`").await;
    }
}

async fn confusion(cases: &mut Cases<'_>, keys: &[Key; 3], good: &Value) {
    let wrong = "401 `wrong_algorithm`";
    let [rsa, _, ed] = keys;
    let pem =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/rsa-1.pub.pem"))
            .unwrap();
    let jwk = rsa.public();
    let modulus = jwk["n"].as_str().unwrap();
    let text = jwk.to_string();
    let header = json!({"alg": "HS256", "kid": "rsa-1"});
    for (case, secret) in [
        ("the public key's PEM", pem.as_slice()),
        ("the public key's modulus", modulus.as_bytes()),
        ("the public key's JWK", text.as_bytes()),
    ] {
        let token = hmac(Algorithm::HS256, secret, &header, good);
        cases.case(&format!("HS256 with {case} as secret"), &token, wrong).await;
    }
    let token = hmac(Algorithm::HS256, &pem, &rsa.header(), good);
    cases.case("the same under alg `RS256`", &token, "401 `bad_signature`").await;
    let oct = json!({"alg": "HS256", "kid": "oct-1"});
    let token = hmac(Algorithm::HS256, SECRET.as_bytes(), &oct, good);
    cases.case("HS256 with a published symmetric key", &token, wrong).await;
    cases.case("HS256 with any secret", &hs256(SECRET, good), wrong).await;
    for name in ["RS384", "RS512", "PS256"] {
        let header = json!({"alg": name, "kid": "rsa-1"});
        let token = rsa.token_by(name.parse().unwrap(), &header, good);
        cases.case(&format!("{name} by the key of RS256"), &token, wrong).await;
    }
    let header = with(&ed.header(), json!({"alg": "ES256"}));
    cases.case("EdDSA's signature under alg `ES256`", &ed.token_under(&header, good), wrong).await;
    for name in ["none", "NONE", "ES256K", "Ed25519", "RSA1_5"] {
        let token = format!("{}.", message(&json!({"alg": name, "kid": "ed-1"}), good));
        cases.case(&format!("alg `{name}`, no signature"), &token, wrong).await;
    }
    let token = format!("{}.", message(&ed.header(), good));
    cases.case("alg `EdDSA`, no signature", &token, "401 `bad_signature`").await;
}

async fn own_keys(cases: &mut Cases<'_>, keys: &[Key; 3], good: &Value, forger: &Forger) {
    let jwk = forger.key.public();
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!(forger.trap.url())),
        ("x5u", json!(forger.trap.url())),
        ("x5c", json!(["MIIB"])),
    ] {
        let header = with(&forger.key.header(), json!({ name: value }));
        let token = forger.key.token_under(&header, good);
        let case = format!("brings its own key (`{name}`)");
        cases.case(&case, &token, "401 `unknown_key`").await;
        let header = with(&header, json!({"kid": "ed-1"}));
        let token = forger.key.token_under(&header, good);
        let case = format!("brings its own key (`{name}`) under a published kid");
        cases.case(&case, &token, "401 `bad_signature`").await;
        let header = with(&keys[2].header(), json!({ name: value }));
        let token = keys[2].token_under(&header, good);
        let case = format!("by its key, with a needless `{name}` of somebody else");
        cases.case(&case, &token, "200").await;
    }
}

async fn ecdsa_signatures(cases: &mut Cases<'_>, key: &Key, good: &Value) {
    let signed = key.token(good);
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let changes: [(&str, Change); 7] = [
        ("a byte short", |bytes| bytes[..63].to_vec()),
        ("a byte long", |bytes| [bytes, vec![0]].concat()),
        ("empty", |_| Vec::new()),
        ("64 zeros (r = s = 0)", |_| vec![0; 64]),
        ("64 times 255", |_| vec![255; 64]),
        ("as DER", |bytes| {
            // two integers that a zero keeps positive
            let integer = |half: &[u8]| [&[2, 33, 0], half].concat();
            let (r, s) = bytes.split_at(32);
            [vec![0x30, 70], integer(r), integer(s)].concat()
        }),
        ("r and s exchanged", |bytes| [&bytes[32..], &bytes[..32]].concat()),
    ];
    for (case, change) in changes {
        let token = resigned(&signed, change);
        cases.case(&format!("ES256, signature {case}"), &token, "401 `bad_signature`").await;
    }
}

/// Roles in tokens of a JWKS give nothing unless the settings say so.
async fn rights(table: &mut Table, house: &House, publisher: &Publisher, key: &Key, good: &Value) {
    let admin = key.token(&with(good, json!({"roles": ["instance_admin"]})));
    let path = "/livekit-replay/admin/sessions";
    let mut auth = published(publisher.jwks());
    for (claims, expected) in [(false, "403 `permission_denied`"), (true, "200")] {
        auth.claim_roles = claims;
        let wire = house.on_wire(auth.clone()).await;
        let seen = wire.get(path, &admin).await.in_short();
        let settings = if claims { "JWKS, claims = [\"roles\"]" } else { "JWKS" };
        table.row(
            settings,
            "says `instance_admin` of itself, asks for all sessions",
            expected,
            &seen,
        );
    }
}

/// A change from secrets to published keys: both are taken for a while.
async fn both_kinds(
    table: &mut Table,
    house: &House,
    publisher: &Publisher,
    keys: &[Key; 3],
    good: &Value,
) {
    let mut auth = published(publisher.jwks());
    auth.jwt_secrets = vec![SECRET.into()];
    let wire = house.on_wire(auth).await;
    let mut cases = Cases { table, wire: &wire, settings: "secret and JWKS" };
    cases.case("HS256 by the secret", &hs256(SECRET, good), "200").await;
    cases.case("RS256 by its key", &keys[0].token(good), "200").await;
    let bare = with(good, json!({"iss": null, "aud": null}));
    cases
        .case("HS256 by the secret, no issuer", &hs256(SECRET, &bare), "401 `missing_claim` (iss)")
        .await;
    let public = keys[0].public()["n"].as_str().unwrap().to_owned();
    let header = json!({"alg": "HS256", "kid": "rsa-1"});
    let token = hmac(Algorithm::HS256, public.as_bytes(), &header, good);
    cases.case("HS256 with the public key as secret", &token, "401 `bad_signature`").await;
    let header = json!({"alg": "RS256", "kid": "rsa-1"});
    let token = hmac(Algorithm::HS256, SECRET.as_bytes(), &header, good);
    cases.case("signed by the secret under alg `RS256`", &token, "401 `bad_signature`").await;
}
