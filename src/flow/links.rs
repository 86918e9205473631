//! Signed links: who holds one acts as the user it was made for, on one object, for a while. The link proves only
//! that we made it; row and rights are looked up at every use, and raising the object's link generation voids all
//! links made before.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;

use super::Deps;
use crate::{
    domain::{id::UserId, text_enum::text_enum, time::Timestamp},
    error::{Code, Error, Result},
};

/// Where the API begins; health, figures and documents are at the root.
pub const BASE: &str = "/livekit-replay";

/// The address of something under [`BASE`], absolute where `server.public_url` is set.
pub fn address(deps: &Deps, path: &str) -> String {
    let root = deps.config.server.public_url.as_deref().unwrap_or_default();
    format!("{}{BASE}{path}", root.trim_end_matches('/'))
}

text_enum!(
    /// What a link opens.
    Scope {
        /// A clip's MP4.
        ClipFile = "clip_file",
        /// A clip's poster.
        ClipThumbnail = "clip_thumbnail",
        /// The playlist of a session's promised minutes.
        SessionPreview = "session_preview",
        /// The playlist of a clip that is being made.
        ClipPreview = "clip_preview",
        /// One segment of a session's preview.
        Segment = "segment",
        /// One segment of a clip's preview.
        ClipSegment = "clip_segment",
        /// The image of a filmstrip.
        Filmstrip = "filmstrip",
    }
);

/// Whom a link speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The user.
    pub user: UserId,
    /// `iat` of the token by which he was a member of the object's community, if it was the token that said so: a
    /// removal after that moment ends the membership, and with it the link.
    pub member_since: Option<Timestamp>,
}

/// The query of a signed link as it came.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct SignedQuery {
    /// Expiry, Unix seconds.
    pub e: Option<i64>,
    /// The user, base64.
    pub u: Option<String>,
    /// `iat` of the token that made the user a member, Unix microseconds.
    pub m: Option<i64>,
    /// The signature, base64.
    pub s: Option<String>,
}

impl SignedQuery {
    /// Whether this is a signed link at all (true or not).
    pub fn is_given(&self) -> bool {
        self.s.is_some()
    }
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// What it opens.
    pub scope: Scope,
    /// The object.
    pub id: &'a str,
    /// The object's link generation.
    pub generation: i32,
}

/// The query that opens `link` for `viewer` until `expires` (whole seconds), without the `?`.
pub fn sign(key: &[u8], link: Link<'_>, viewer: &Viewer, expires: Timestamp) -> String {
    let e = expires.as_micros().div_euclid(1_000_000);
    let m = viewer.member_since.map(Timestamp::as_micros);
    let signature = mac(key, link, viewer.user.as_str(), e, m).finalize().into_bytes();
    let u = URL_SAFE_NO_PAD.encode(viewer.user.as_str());
    let member = m.map(|m| format!("&m={m}")).unwrap_or_default();
    format!("e={e}&u={u}{member}&s={}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whom a signed query speaks for.
///
/// # Errors
/// `unauthenticated` with `reason` `bad_link` or `link_expired`.
pub fn verify(key: &[u8], link: Link<'_>, query: &SignedQuery, now: Timestamp) -> Result<Viewer> {
    let given = || {
        let user = URL_SAFE_NO_PAD.decode(query.u.as_deref()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(query.s.as_deref()?).ok()?;
        Some((query.e?, String::from_utf8(user).ok()?, signature))
    };
    let Some((e, user, signature)) = given() else {
        return Err(bad_link());
    };
    // compares in constant time
    mac(key, link, &user, e, query.m).verify_slice(&signature).map_err(|_| bad_link())?;
    if now.as_micros().div_euclid(1_000_000) >= e {
        return Err(refused("link_expired", "This link has expired."));
    }
    Ok(Viewer { user: UserId::new(user), member_since: query.m.map(Timestamp::from_micros) })
}

/// A moment `ttl` from now, rounded up to the minute, so that a link asked for twice is the same address twice and a
/// browser's cache works.
pub fn expiry(now: Timestamp, ttl: std::time::Duration) -> Timestamp {
    const MINUTE: i64 = 60_000_000;
    let end = now.plus(ttl).as_micros();
    Timestamp::from_micros((end + MINUTE - 1).div_euclid(MINUTE) * MINUTE)
}

/// A link that does not work, whatever the reason.
pub fn bad_link() -> Error {
    refused("bad_link", "This link does not work, or does not work any more.")
}

fn refused(reason: &str, detail: &str) -> Error {
    Error::new(Code::Unauthenticated, detail).with("reason", reason)
}

fn mac(key: &[u8], link: Link<'_>, user: &str, e: i64, m: Option<i64>) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    let (e, m) = (e.to_string(), m.map(|m| m.to_string()).unwrap_or_default());
    let generation = link.generation.to_string();
    // each part with its length in front: no two different lists of parts give the same bytes
    for part in [link.scope.as_str(), link.id, user, &e, &m, &generation] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key of the test";
    const LINK: Link<'_> = Link { scope: Scope::ClipFile, id: "c1", generation: 3 };
    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn viewer() -> Viewer {
        Viewer { user: UserId::new("zoë & co"), member_since: None }
    }

    fn parse(query: &str) -> SignedQuery {
        let mut parsed = SignedQuery::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').expect("a pair");
            match name {
                "e" => parsed.e = value.parse().ok(),
                "m" => parsed.m = value.parse().ok(),
                "u" => parsed.u = Some(value.to_owned()),
                "s" => parsed.s = Some(value.to_owned()),
                other => panic!("unexpected {other}"),
            }
        }
        parsed
    }

    #[test]
    fn a_link_opens_its_object_until_it_expires() {
        let query = parse(&sign(KEY, LINK, &viewer(), NOW.plus_seconds(60)));
        assert_eq!(verify(KEY, LINK, &query, NOW).expect("good"), viewer());
        let error = verify(KEY, LINK, &query, NOW.plus_seconds(60)).expect_err("expired");
        assert_eq!(error.fields()["reason"], "link_expired");
    }

    #[test]
    fn nothing_in_a_link_can_be_changed() {
        let query = parse(&sign(KEY, LINK, &viewer(), NOW.plus_seconds(60)));
        let refused = |link: Link<'_>, query: &SignedQuery, key: &[u8]| {
            verify(key, link, query, NOW).expect_err("changed").fields()["reason"] == "bad_link"
        };
        assert!(refused(Link { generation: 4, ..LINK }, &query, KEY));
        assert!(refused(Link { id: "c2", ..LINK }, &query, KEY));
        assert!(refused(Link { scope: Scope::ClipThumbnail, ..LINK }, &query, KEY));
        assert!(refused(LINK, &query, b"another key"));
        let later = query.e.map(|e| e + 1);
        assert!(refused(LINK, &SignedQuery { e: later, ..query.clone() }, KEY));
        let other = Some(URL_SAFE_NO_PAD.encode("eve"));
        assert!(refused(LINK, &SignedQuery { u: other, ..query.clone() }, KEY));
        assert!(refused(LINK, &SignedQuery { m: Some(1), ..query.clone() }, KEY));
        assert!(refused(LINK, &SignedQuery { s: None, ..query }, KEY));
    }

    #[test]
    fn the_same_link_is_given_out_for_a_while() {
        let ttl = std::time::Duration::from_secs(3600);
        assert_eq!(expiry(NOW.plus_seconds(1), ttl), expiry(NOW.plus_seconds(30), ttl));
        assert!(expiry(NOW, ttl) >= NOW.plus(ttl));
    }
}
