//! Bearer token -> [`Caller`], or why not. Which algorithm counts is the key's to say and never the token's; time is the
//! caller's argument, so `exp`, `nbf` and `iat` are judged here and not by a library's own clock.
//!
//! `parts` takes a token apart, `jwks` reads public keys, `source` fetches and keeps them, `claims` judges what a signed
//! token says; [`mint`] makes tokens, [`Inspection`] explains them.

mod claims;
mod inspect;
mod jwks;
mod mint;
mod parts;
mod refusal;
mod source;

use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::ExposeSecret;

pub use self::{
    inspect::{Grants, Inspection},
    mint::{Claims, mint},
    refusal::{Reason, refusal},
};
use self::{parts::Parts, refusal::Refusal, source::Source};
use super::Caller;
use crate::{
    clock::SharedClock,
    config::Auth,
    domain::time::Timestamp,
    error::{Error, Result},
};

/// A longer token is not looked at.
pub const MAX_BYTES: usize = 8 * 1024;
/// A shorter secret is guessable.
pub const MIN_SECRET_BYTES: usize = 32;
/// The longest `sub`, community, role or key id.
const MAX_NAME_BYTES: usize = 256;

/// Checks tokens.
pub struct Verifier {
    secrets: Vec<DecodingKey>,
    source: Option<Source>,
    auth: Auth,
}

/// Which configured key a token is signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Signer {
    /// The shared secret at this place of the list.
    Secret(usize),
    /// A key of the JWKS.
    Published { kid: Option<String>, algorithm: Algorithm },
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier by the settings. A JWKS file is read here, a JWKS address is first asked by [`keep_fresh`] or the first
    /// token that needs it.
    ///
    /// [`keep_fresh`]: Verifier::keep_fresh
    ///
    /// # Errors
    /// [`Code::ValidationFailed`](crate::error::Code::ValidationFailed) without secret and JWKS, with a secret under
    /// [`MIN_SECRET_BYTES`], with a file that holds no usable key.
    pub fn new(auth: &Auth) -> Result<Verifier> {
        if auth.jwt_secrets.is_empty() && auth.jwks.is_none() {
            return Err(Error::invalid_field("auth.jwt_secret", "is not set"));
        }
        let mut secrets = Vec::new();
        for secret in &auth.jwt_secrets {
            secrets.push(DecodingKey::from_secret(usable(secret.expose_secret())?));
        }
        let source = auth.jwks.as_ref().map(Source::new).transpose()?;
        Ok(Verifier { secrets, source, auth: auth.clone() })
    }

    /// Refuses every token: for a door that knows its callers by other means.
    pub fn without_keys() -> Verifier {
        let auth = Auth { jwt_secrets: Vec::new(), ..Auth::with_secret("") };
        Verifier { secrets: Vec::new(), source: None, auth }
    }

    /// Who the token speaks of, at the moment `now`.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`](crate::error::Code::Unauthenticated) with `reason`, one of [`Reason`].
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Caller> {
        Ok(self.judge(token, now).await?)
    }

    async fn judge(&self, token: &str, now: Timestamp) -> Result<Caller, Refusal> {
        let parts = Parts::read(token)?;
        self.find_signer(&parts, now).await?;
        claims::judge(&parts.claims()?, &self.auth, now)
    }

    /// The configured key that signed this. A header's `alg` and `kid` choose among keys; with which algorithm a key is
    /// used stands fixed with the key. What else a header says of keys (`jwk`, `jku`, `x5u`, `x5c`) is not looked at.
    async fn find_signer(&self, parts: &Parts<'_>, now: Timestamp) -> Result<Signer, Refusal> {
        if !self.secrets.is_empty() && parts.algorithm == "HS256" {
            let signed = |key: &DecodingKey| parts.is_signed_by(key, Algorithm::HS256);
            let place = self.secrets.iter().position(signed).ok_or(Reason::BadSignature)?;
            return Ok(Signer::Secret(place));
        }
        let Some(source) = &self.source else { return Err(Reason::WrongAlgorithm.into()) };
        let key = source.find(&parts.algorithm, parts.kid.as_deref(), now).await?;
        if !parts.is_signed_by(&key.key, key.algorithm) {
            return Err(Reason::BadSignature.into());
        }
        Ok(Signer::Published { kid: key.kid.clone(), algorithm: key.algorithm })
    }

    /// Asks for the public keys at once and every few minutes, so that a key that is published no more is refused soon
    /// and a new one is mostly known before its first token. Ends with `stop`, when no question is under way any more.
    pub async fn keep_fresh(&self, clock: SharedClock, stop: tokio_util::sync::CancellationToken) {
        match &self.source {
            Some(source) => source.keep_fresh(clock, stop).await,
            None => stop.cancelled().await,
        }
    }

    /// Asks for the public keys now, unless that was done within the shortest interval.
    pub async fn refresh(&self, now: Timestamp) {
        if let Some(source) = &self.source {
            source.refresh(now).await;
        }
    }
}

fn usable(secret: &str) -> Result<&[u8]> {
    if secret.len() < MIN_SECRET_BYTES {
        let message = format!("must have at least {MIN_SECRET_BYTES} bytes");
        return Err(Error::invalid_field("auth.jwt_secret", message));
    }
    Ok(secret.as_bytes())
}

/// What may be a user's, community's or role's id.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}
