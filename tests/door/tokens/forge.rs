//! Tokens as anybody could write them, byte by byte: nothing here refuses a strange one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};

/// A key with the name it is published under.
pub struct Key {
    pub kid: &'static str,
    pub algorithm: Algorithm,
    private: EncodingKey,
}

impl Key {
    /// A key of `tests/fixtures/keys`.
    pub fn named(kid: &'static str) -> Key {
        let path = format!("{}/tests/fixtures/keys/{kid}.pem", env!("CARGO_MANIFEST_DIR"));
        let pem = std::fs::read(path).unwrap();
        let (algorithm, private) = match kid.split('-').next().unwrap() {
            "rsa" => (Algorithm::RS256, EncodingKey::from_rsa_pem(&pem).unwrap()),
            "ec" => (Algorithm::ES256, EncodingKey::from_ec_pem(&pem).unwrap()),
            _ => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem).unwrap()),
        };
        Key { kid, algorithm, private }
    }

    /// Its public part, as it is published.
    pub fn public(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": format!("{:?}", self.algorithm), "kid": self.kid})
    }

    /// A token as the sign-in service would make it.
    pub fn token(&self, claims: &Value) -> String {
        self.token_under(&self.header(), claims)
    }

    /// The same key under another header.
    pub fn token_under(&self, header: &Value, claims: &Value) -> String {
        self.token_by(self.algorithm, header, claims)
    }

    /// The same key by another algorithm.
    pub fn token_by(&self, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = crypto::sign(message.as_bytes(), &self.private, algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// A set of keys.
pub fn set(keys: &[&Key]) -> Value {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()})
}

pub fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

pub fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", part(header.to_string()), part(claims.to_string()))
}

/// HMAC by any secret under any header.
pub fn hmac(algorithm: Algorithm, secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let key = EncodingKey::from_secret(secret);
    format!("{message}.{}", crypto::sign(message.as_bytes(), &key, algorithm).unwrap())
}

pub fn hs256(secret: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "HS256"});
    hmac(Algorithm::HS256, secret.as_bytes(), &header, claims)
}

/// The token with the bytes of its signature changed.
pub fn resigned(token: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    format!("{message}.{}", part(change(URL_SAFE_NO_PAD.decode(signature).unwrap())))
}

/// `base` with some claims added, replaced, or (null) taken away.
pub fn with(base: &Value, changes: Value) -> Value {
    let mut claims = base.as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
    claims.into()
}
