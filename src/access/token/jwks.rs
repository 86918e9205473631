//! A JSON Web Key Set (RFC 7517) -> the keys in it that tokens may be signed with. Pure. Every key has exactly one
//! algorithm, by its own kind: RSA is RS256, P-256 is ES256, Ed25519 is EdDSA.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::Reason;

/// An RSA key has from 2048 bits on (NIST SP 800-131A) to the 8192 that the library takes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key.
pub(super) struct Key {
    pub kid: Option<String>,
    /// The only one it is used with.
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.kid.as_deref().unwrap_or("without id"), self.algorithm)
    }
}

/// The usable keys of a set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Keys that are not used, each with the reason.
    pub ignored: Vec<String>,
}

impl KeySet {
    /// Reads a set. Keys that are not for us are left out, as sets may hold such; a set without a usable key is none.
    pub fn read(bytes: &[u8]) -> Result<KeySet, String> {
        let body: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("is not JSON: {error}"))?;
        let Some(Value::Array(entries)) = body.get("keys") else {
            return Err("has no list of `keys`".to_owned());
        };
        let mut set = KeySet::default();
        for (index, entry) in entries.iter().enumerate() {
            let read = entry.as_object().ok_or("is no object").and_then(|entry| set.key(entry));
            match read {
                Ok(key) => set.keys.push(Arc::new(key)),
                // by its place: its id may be anything
                Err(why) => set.ignored.push(format!("key {}: {why}", index + 1)),
            }
        }
        match set.keys.is_empty() {
            true if set.ignored.is_empty() => Err("holds no key".to_owned()),
            true => Err(format!("holds no usable key ({})", set.ignored.join("; "))),
            false => Ok(set),
        }
    }

    fn key(&self, entry: &Map<String, Value>) -> Result<Key, &'static str> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (algorithm, key) = match (text("kty"), text("crv")) {
            (Some("oct"), _) => return Err("is symmetric, and whoever reads it could sign"),
            _ if entry.contains_key("d") => return Err("shows its private part"),
            (Some("RSA"), _) => (Algorithm::RS256, rsa(text("n"), text("e"))?),
            (Some("EC"), Some("P-256")) => (Algorithm::ES256, p256(text("x"), text("y"))?),
            (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDSA, ed25519(text("x"))?),
            _ => return Err("is of a kind that is not used here"),
        };
        if text("alg").unwrap_or(name_of(algorithm)) != name_of(algorithm) {
            return Err("is meant for an algorithm that is not used here");
        }
        if text("use").unwrap_or("sig") != "sig" {
            return Err("is not meant for signatures");
        }
        if let Some(Value::Array(uses)) = entry.get("key_ops")
            && !uses.iter().any(|usage| usage == "verify")
        {
            return Err("is not meant to verify");
        }
        let kid = text("kid").map(str::to_owned);
        if self.keys.iter().any(|other| other.kid == kid && other.algorithm == algorithm)
            && kid.is_some()
        {
            return Err("has the id of a key before it");
        }
        Ok(Key { kid, algorithm, key })
    }

    /// The key for a token. One that names no key is only taken where there is no choice.
    pub fn find(&self, algorithm: &str, kid: Option<&str>) -> Result<&Arc<Key>, Reason> {
        let mut named = self.keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        let of_kind: Vec<_> =
            named.clone().filter(|key| name_of(key.algorithm) == algorithm).collect();
        match (of_kind.as_slice(), kid) {
            ([key], _) => Ok(key),
            ([], Some(_)) if named.next().is_some() => Err(Reason::WrongAlgorithm),
            _ => Err(Reason::UnknownKey),
        }
    }

    /// Every key with its algorithm.
    pub fn names(&self) -> Vec<String> {
        self.keys.iter().map(|key| format!("{key:?}")).collect()
    }
}

/// Whether a published key can be of this algorithm.
pub(super) fn is_published(algorithm: &str) -> bool {
    ["RS256", "ES256", "EdDSA"].contains(&algorithm)
}

/// The name in `alg`.
pub(super) fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::HS256 => "HS256",
        _ => "none of ours",
    }
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("lacks a part")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "has a part that is no base64url")
}

fn rsa(modulus: Option<&str>, exponent: Option<&str>) -> Result<DecodingKey, &'static str> {
    let (modulus, exponent) = (bytes(modulus)?, bytes(exponent)?);
    let begin = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
    let modulus = &modulus[begin..];
    // a leading byte below 0x80 would be a key of fewer bits than whole bytes
    if !RSA_BYTES.contains(&modulus.len()) || (modulus.len() == 256 && modulus[0] < 0x80) {
        return Err("has not from 2048 to 8192 bits");
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn p256(x: Option<&str>, y: Option<&str>) -> Result<DecodingKey, &'static str> {
    let (x_bytes, y_bytes) = (bytes(x)?, bytes(y)?);
    if x_bytes.len() != 32 || y_bytes.len() != 32 {
        return Err("is no point of its curve");
    }
    // an uncompressed point (SEC 1, 2.3.3); whether it lies on the curve is looked at with each signature
    Ok(DecodingKey::from_ec_der(&[&[4], x_bytes.as_slice(), y_bytes.as_slice()].concat()))
}

fn ed25519(x: Option<&str>) -> Result<DecodingKey, &'static str> {
    let x = bytes(x)?;
    if x.len() != 32 {
        return Err("is no point of its curve");
    }
    Ok(DecodingKey::from_ed_der(&x))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed(more: Value) -> Value {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([7; 32])});
        let fields = key.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        key
    }

    fn read(keys: &[Value]) -> Result<KeySet, String> {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn why_not(key: Value) -> String {
        read(&[key]).expect_err("no usable key")
    }

    #[test]
    fn keys_that_are_not_for_us_are_left_out_with_the_reason() {
        let cases = [
            (json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "symmetric"),
            (ed(json!({"d": "AAAA"})), "private"),
            (ed(json!({"use": "enc"})), "not meant for signatures"),
            (ed(json!({"key_ops": ["sign"]})), "not meant to verify"),
            (ed(json!({"alg": "ES256"})), "an algorithm that is not used"),
            (ed(json!({"crv": "X25519"})), "of a kind that is not used"),
            (ed(json!({"x": "AAAA"})), "no point"),
            (ed(json!({"x": "*"})), "no base64url"),
            (json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB"}), "2048"),
            (json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([1; 256]), "e": "AQAB"}), "2048"),
            (json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}), "no point"),
            (json!({"kty": "EC", "crv": "P-384"}), "of a kind that is not used"),
            (json!(5), "no object"),
        ];
        for (key, why) in cases {
            let text = why_not(key.clone());
            assert!(text.contains(why), "{key}: {text}");
            // one good key beside it, and the set is good
            let set = read(&[key, ed(json!({"kid": "good"}))]).expect("a usable key");
            assert_eq!((set.keys.len(), set.ignored.len()), (1, 1));
        }
        assert!(KeySet::read(b"<html>").is_err() && KeySet::read(b"[]").is_err());
        assert_eq!(read(&[]).expect_err("empty"), "holds no key");
    }

    #[test]
    fn a_token_without_a_key_id_is_taken_where_there_is_no_choice() {
        let one = read(&[ed(json!({"kid": "a"}))]).expect("a set");
        assert!(one.find("EdDSA", None).is_ok());
        let two = read(&[ed(json!({"kid": "a"})), ed(json!({"kid": "b"}))]).expect("a set");
        assert_eq!(two.find("EdDSA", None).err(), Some(Reason::UnknownKey));
        assert_eq!(two.find("EdDSA", Some("b")).expect("found").kid.as_deref(), Some("b"));
        assert_eq!(two.find("RS256", Some("b")).err(), Some(Reason::WrongAlgorithm));
        assert_eq!(two.find("EdDSA", Some("c")).err(), Some(Reason::UnknownKey));
        assert_eq!(two.find("RS256", None).err(), Some(Reason::UnknownKey));
        let same = read(&[ed(json!({"kid": "a"})), ed(json!({"kid": "a"}))]).expect("a set");
        assert_eq!(same.ignored, ["key 2: has the id of a key before it"]);
    }
}
