//! A token in its compact form (RFC 7515): `header.payload.signature`, each base64url without padding.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};

use super::{MAX_BYTES, MAX_NAME_BYTES, Refusal};

/// A token taken apart; nothing of it is verified by that.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// `alg`, as the token says.
    pub algorithm: String,
    /// `kid`, as the token says.
    pub kid: Option<String>,
    /// What is signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Takes a token apart.
    pub fn read(token: &'a str) -> Result<Parts<'a>, Refusal> {
        if token.len() > MAX_BYTES {
            return Err(Refusal::malformed("it is longer than 8 KiB"));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(Refusal::malformed("it has not three parts"));
        };
        let message = &token[..header.len() + 1 + payload.len()];
        let header = object(header, "its header is no base64url of a JSON object")?;
        if header.contains_key("crit") {
            // an extension that must be understood, and we understand none (RFC 7515, 4.1.11)
            return Err(Refusal::malformed("its header demands extensions (crit)"));
        }
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err(Refusal::malformed("its header has no alg"));
        };
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_NAME_BYTES => Some(kid.clone()),
            Some(_) => return Err(Refusal::malformed("its kid is no text of up to 256 bytes")),
        };
        Ok(Parts { algorithm: algorithm.clone(), kid, message, payload, signature })
    }

    /// Whether the signature is this key's by this algorithm.
    pub fn is_signed_by(&self, key: &DecodingKey, algorithm: Algorithm) -> bool {
        // an error is a key of another family, or no base64: not signed either way
        crypto::verify(self.signature, self.message.as_bytes(), key, algorithm).unwrap_or(false)
    }

    /// What the payload says, signed or not.
    pub fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        object(self.payload, "its payload is no base64url of a JSON object")
    }
}

fn object(part: &str, note: &'static str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::malformed(note))?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::malformed(note))
}
