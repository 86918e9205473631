//! Makes tokens, for development and tests; production tokens are the app's.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret;
use serde_json::json;

use super::usable;
use crate::{
    config::Auth,
    domain::{
        id::{CommunityId, UserId},
        time::Timestamp,
    },
    error::{Error, Result},
};

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

/// Makes a token with the first of the configured secrets.
///
/// # Errors
/// [`Code::ValidationFailed`](crate::error::Code::ValidationFailed) without a usable secret (keys of a JWKS are public:
/// nothing can be signed with them).
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
    let Some(secret) = auth.jwt_secrets.first() else {
        return Err(Error::invalid_field(
            "auth.jwt_secret",
            "is not set; the public keys of a JWKS sign nothing",
        ));
    };
    let key = EncodingKey::from_secret(usable(secret.expose_secret())?);
    encode(&Header::new(Algorithm::HS256), &body, &key)
        .map_err(|error| Error::internal("signing a token", error))
}
