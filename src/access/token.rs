//! Bearer token -> [`Caller`], or why not. The algorithm is the key's and never the token's; time is the caller's
//! argument, so `exp` and `nbf` are judged here and not by the library's own clock.

use std::collections::BTreeMap;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::ErrorKind,
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{Caller, EVERYWHERE};
use crate::{
    config::Auth,
    domain::{
        id::{CommunityId, UserId},
        text_enum::text_enum,
        time::Timestamp,
    },
    error::{Code, Error, Result},
};

/// A longer token is not looked at.
pub const MAX_BYTES: usize = 8 * 1024;
/// A shorter secret is guessable.
pub const MIN_SECRET_BYTES: usize = 32;
/// The longest `sub`, community or role.
const MAX_NAME_BYTES: usize = 256;

text_enum!(
    /// Why credentials were refused: the `reason` of an `unauthenticated` problem.
    Reason {
        /// None were sent.
        Missing = "missing",
        /// Not one bearer token, or no token at all.
        Malformed = "malformed",
        /// Not signed by our key with our algorithm.
        BadSignature = "bad_signature",
        /// `exp` has passed.
        Expired = "expired",
        /// `nbf` lies ahead.
        NotYetValid = "not_yet_valid",
        /// `iss` is not the one configured.
        WrongIssuer = "wrong_issuer",
        /// `aud` is not the one configured.
        WrongAudience = "wrong_audience",
        /// `sub` or `exp` (or a demanded `iss`, `aud`) is absent.
        MissingClaim = "missing_claim",
    }
);

/// The failure of that reason.
pub fn refusal(reason: Reason) -> Error {
    let detail = match reason {
        Reason::Missing => "Send a bearer token.",
        Reason::Malformed => "The credentials are not one well-formed bearer token.",
        Reason::BadSignature => "The token is not signed by a key that is accepted here.",
        Reason::Expired => "The token has expired.",
        Reason::NotYetValid => "The token is not valid yet.",
        Reason::WrongIssuer => "The token is of another issuer.",
        Reason::WrongAudience => "The token is meant for another audience.",
        Reason::MissingClaim => "The token lacks a claim that is required.",
    };
    Error::new(Code::Unauthenticated, detail).with("reason", reason.as_str())
}

/// Checks tokens.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    auth: Auth,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("auth", &self.auth).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier of HS256 tokens.
    ///
    /// # Errors
    /// [`Code::ValidationFailed`] without a secret, or with one under [`MIN_SECRET_BYTES`].
    pub fn new(auth: &Auth) -> Result<Verifier> {
        let key = DecodingKey::from_secret(secret_of(auth)?);
        let mut validation = Validation::new(Algorithm::HS256);
        // the library would ask the system clock and take a `sub` of any kind: all of this is judged below
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Verifier { key, validation, auth: auth.clone() })
    }

    /// Who the token speaks of, at the moment `now`.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] with `reason`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Caller> {
        if token.is_empty() || token.len() > MAX_BYTES {
            return Err(refusal(Reason::Malformed));
        }
        let decoded = decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|error| refusal(reason_of(error.kind())).because(error))?;
        if decoded.header.crit.is_some() {
            // RFC 7515: an extension that must be understood, and we understand none
            return Err(refusal(Reason::Malformed));
        }
        self.judge(&decoded.claims, now).map_err(refusal)
    }

    fn judge(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Caller, Reason> {
        let expires = moment(claims, "exp")?.ok_or(Reason::MissingClaim)?;
        if now >= expires.plus(self.auth.leeway) {
            return Err(Reason::Expired);
        }
        if let Some(begins) = moment(claims, "nbf")?
            && now.plus(self.auth.leeway) < begins
        {
            return Err(Reason::NotYetValid);
        }
        demand(claims, "iss", self.auth.issuer.as_deref(), Reason::WrongIssuer)?;
        demand(claims, "aud", self.auth.audience.as_deref(), Reason::WrongAudience)?;
        let user = match claims.get("sub") {
            None | Some(Value::Null) => return Err(Reason::MissingClaim),
            Some(Value::String(text)) if text.is_empty() => return Err(Reason::MissingClaim),
            Some(Value::String(text)) if is_name(text) => UserId::new(text.as_str()),
            Some(_) => return Err(Reason::Malformed),
        };
        Ok(Caller {
            user_id: user,
            name: claims.get("name").and_then(Value::as_str).and_then(shown_name),
            issued_at: moment(claims, "iat")?,
            communities: if self.auth.claim_communities {
                communities(claims)
            } else {
                BTreeMap::new()
            },
            roles: if self.auth.claim_roles { roles(claims.get("roles")) } else { Vec::new() },
            origin: super::Origin::default(),
        })
    }
}

/// What a token made here says.
#[derive(Debug, Clone)]
pub struct Claims<'a> {
    /// `sub`.
    pub user_id: &'a UserId,
    /// `name`.
    pub name: Option<&'a str>,
    /// Roles by community.
    pub communities: &'a BTreeMap<CommunityId, Vec<String>>,
    /// Instance-wide roles.
    pub roles: &'a [String],
    /// How long it works.
    pub lifetime: std::time::Duration,
}

/// Makes a token with the configured secret, for development and tests; production tokens are the app's.
///
/// # Errors
/// [`Code::ValidationFailed`] without a usable secret.
pub fn mint(auth: &Auth, claims: &Claims<'_>, now: Timestamp) -> Result<String> {
    let seconds = |time: Timestamp| time.as_micros().div_euclid(1_000_000);
    let mut body = json!({
        "sub": claims.user_id,
        "iat": seconds(now),
        "exp": seconds(now.plus(claims.lifetime)),
        "communities": claims.communities,
        "roles": claims.roles,
    });
    for (name, value) in
        [("name", claims.name), ("iss", auth.issuer.as_deref()), ("aud", auth.audience.as_deref())]
    {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    let key = EncodingKey::from_secret(secret_of(auth)?);
    encode(&Header::new(Algorithm::HS256), &body, &key)
        .map_err(|error| Error::internal("signing a token", error))
}

fn secret_of(auth: &Auth) -> Result<&[u8]> {
    let secret = auth.jwt_secret.as_ref().map(|secret| secret.expose_secret().as_bytes());
    match secret {
        Some(secret) if secret.len() >= MIN_SECRET_BYTES => Ok(secret),
        Some(_) => Err(Error::invalid_field(
            "auth.jwt_secret",
            format!("must have at least {MIN_SECRET_BYTES} bytes"),
        )),
        None => Err(Error::invalid_field("auth.jwt_secret", "is not set")),
    }
}

fn reason_of(kind: &ErrorKind) -> Reason {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Reason::BadSignature,
        _ => Reason::Malformed,
    }
}

/// A NumericDate: seconds since the epoch, possibly with a fraction.
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Reason> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            if let Some(seconds) = value.as_i64() {
                return Ok(Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000))));
            }
            let seconds = value.as_f64().filter(|s| s.is_finite()).ok_or(Reason::Malformed)?;
            // `as` saturates: a date beyond our range is its end
            Ok(Some(Timestamp::from_micros((seconds * 1e6) as i64)))
        }
    }
}

/// `iss` and `aud` are text or a list of texts, one of which must be the one wanted.
fn demand(
    claims: &Map<String, Value>,
    name: &str,
    wanted: Option<&str>,
    otherwise: Reason,
) -> Result<(), Reason> {
    let Some(wanted) = wanted else { return Ok(()) };
    let fits = match claims.get(name) {
        None | Some(Value::Null) => return Err(Reason::MissingClaim),
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(texts)) => texts.iter().any(|text| text.as_str() == Some(wanted)),
        Some(_) => false,
    };
    if fits { Ok(()) } else { Err(otherwise) }
}

/// A malformed `communities` gives no rights rather than no entry: the app may use the claim for something else.
fn communities(claims: &Map<String, Value>) -> BTreeMap<CommunityId, Vec<String>> {
    let Some(Value::Object(by_id)) = claims.get("communities") else { return BTreeMap::new() };
    by_id
        .iter()
        // `*` is our word for everywhere and no community's name
        .filter(|(id, _)| is_name(id) && *id != EVERYWHERE)
        .map(|(id, names)| (CommunityId::new(id.as_str()), roles(Some(names))))
        .collect()
}

fn roles(value: Option<&Value>) -> Vec<String> {
    let Some(Value::Array(names)) = value else { return Vec::new() };
    names.iter().filter_map(Value::as_str).filter(|name| is_name(name)).map(str::to_owned).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control)
}

/// A name is only shown: what does not fit is cut or dropped, never a reason to refuse somebody.
fn shown_name(text: &str) -> Option<String> {
    let mut name: String = text.chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    (!name.trim().is_empty()).then_some(name)
}
