//! What a signed token says, judged. Pure: time is an argument.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{MAX_NAME_BYTES, Reason, Refusal, is_name};
use crate::{
    access::{Caller, EVERYWHERE, Origin},
    config::Auth,
    domain::{
        id::{CommunityId, UserId},
        time::Timestamp,
    },
};

/// Who the claims speak of, or why they do not count (now, or here).
pub(super) fn judge(
    claims: &Map<String, Value>,
    auth: &Auth,
    now: Timestamp,
) -> Result<Caller, Refusal> {
    let expires = moment(claims, "exp")?.ok_or_else(|| Refusal::of(Reason::MissingClaim, "exp"))?;
    if now >= expires.plus(auth.leeway) {
        return Err(Refusal::of(Reason::Expired, "exp"));
    }
    // a token issued in the future would outlive its user's removal, which is compared with `iat`
    for name in ["nbf", "iat"] {
        if moment(claims, name)?.is_some_and(|begins| now.plus(auth.leeway) < begins) {
            return Err(Refusal::of(Reason::NotYetValid, name));
        }
    }
    demand(claims, "iss", auth.issuer.as_deref(), Reason::WrongIssuer)?;
    demand(claims, "aud", auth.audience.as_deref(), Reason::WrongAudience)?;
    Ok(Caller {
        user_id: user(claims)?,
        name: claims.get("name").and_then(Value::as_str).and_then(shown_name),
        issued_at: moment(claims, "iat")?,
        communities: match auth.claim_communities {
            true => communities(claims),
            false => BTreeMap::new(),
        },
        roles: if auth.claim_roles { roles(claims.get("roles")) } else { Vec::new() },
        origin: Origin { expires_at: Some(expires.plus(auth.leeway)), ..Origin::default() },
    })
}

fn user(claims: &Map<String, Value>) -> Result<UserId, Refusal> {
    match claims.get("sub") {
        None | Some(Value::Null) => Err(Refusal::of(Reason::MissingClaim, "sub")),
        Some(Value::String(text)) if is_name(text) => Ok(UserId::new(text.as_str())),
        Some(_) => Err(Refusal::of(Reason::BadClaim, "sub")),
    }
}

/// A NumericDate: seconds since the epoch, possibly with a fraction.
pub(super) fn moment(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Timestamp>, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            if let Some(seconds) = value.as_i64() {
                return Ok(Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000))));
            }
            let bad = || Refusal::of(Reason::BadClaim, name);
            let seconds = value.as_f64().filter(|s| s.is_finite()).ok_or_else(bad)?;
            // `as` saturates: a date beyond our range is its end
            Ok(Some(Timestamp::from_micros((seconds * 1e6) as i64)))
        }
    }
}

/// `iss` and `aud` are text or a list of texts, one of which must be the one wanted.
fn demand(
    claims: &Map<String, Value>,
    name: &'static str,
    wanted: Option<&str>,
    otherwise: Reason,
) -> Result<(), Refusal> {
    let Some(wanted) = wanted else { return Ok(()) };
    let fits = match claims.get(name) {
        None | Some(Value::Null) => return Err(Refusal::of(Reason::MissingClaim, name)),
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(texts)) => texts.iter().any(|text| text.as_str() == Some(wanted)),
        Some(_) => false,
    };
    if fits { Ok(()) } else { Err(Refusal::of(otherwise, name)) }
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

/// A name is only shown: what does not fit is cut or dropped, never a reason to refuse somebody.
fn shown_name(text: &str) -> Option<String> {
    let mut name: String = text.chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    (!name.trim().is_empty()).then_some(name)
}
