//! Why credentials are refused: stable words for programs, a sentence for people. Neither shows anything of our keys.

use std::time::Duration;

use crate::{
    domain::text_enum::text_enum,
    error::{Code, Error},
};

text_enum!(
    /// Why credentials were refused: the `reason` of an `unauthenticated` problem. `docs/tokens.md` lists them.
    Reason {
        /// None were sent.
        Missing = "missing",
        /// Not one bearer token, or no token at all.
        Malformed = "malformed",
        /// Its algorithm is none of a configured key's.
        WrongAlgorithm = "wrong_algorithm",
        /// It names a key that is not published, or none where it has to.
        UnknownKey = "unknown_key",
        /// The published keys could not be had so far.
        KeysUnavailable = "keys_unavailable",
        /// Not signed by the key it has to be signed by.
        BadSignature = "bad_signature",
        /// `exp` has passed.
        Expired = "expired",
        /// `nbf` or `iat` lies ahead.
        NotYetValid = "not_yet_valid",
        /// `iss` is not the one configured.
        WrongIssuer = "wrong_issuer",
        /// `aud` is not the one configured.
        WrongAudience = "wrong_audience",
        /// `sub` or `exp` (or a demanded `iss`, `aud`) is absent.
        MissingClaim = "missing_claim",
        /// A claim is not of the kind or size it has to be.
        BadClaim = "bad_claim",
    }
);

/// When it makes sense to ask again where keys could not be had.
const KEYS_RETRY: Duration = Duration::from_secs(5);

/// A reason, and the claim it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: Reason,
    pub claim: Option<&'static str>,
    /// More, for operators.
    pub note: Option<&'static str>,
}

impl Refusal {
    /// Refused for a claim.
    pub fn of(reason: Reason, claim: &'static str) -> Refusal {
        Refusal { reason, claim: Some(claim), note: None }
    }

    /// No token at all.
    pub fn malformed(note: &'static str) -> Refusal {
        Refusal { reason: Reason::Malformed, claim: None, note: Some(note) }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { reason, claim: None, note: None }
    }
}

impl From<Refusal> for Error {
    fn from(refused: Refusal) -> Error {
        let error = refusal(refused.reason);
        match refused.claim {
            Some(claim) => error.with("claim", claim),
            None => error,
        }
    }
}

/// The failure of that reason.
pub fn refusal(reason: Reason) -> Error {
    let detail = match reason {
        Reason::Missing => "Send a bearer token.",
        Reason::Malformed => "The credentials are not one well-formed bearer token.",
        Reason::WrongAlgorithm => "The token is signed by an algorithm that is not used here.",
        Reason::UnknownKey => "The token names no key that is known here.",
        Reason::KeysUnavailable => "The keys of tokens cannot be had at the moment.",
        Reason::BadSignature => "The token is not signed by a key that is accepted here.",
        Reason::Expired => "The token has expired.",
        Reason::NotYetValid => "The token is not valid yet.",
        Reason::WrongIssuer => "The token is of another issuer.",
        Reason::WrongAudience => "The token is meant for another audience.",
        Reason::MissingClaim => "The token lacks a claim that is required.",
        Reason::BadClaim => "A claim of the token is not what it has to be.",
    };
    let error = Error::new(Code::Unauthenticated, detail).with("reason", reason.as_str());
    match reason {
        Reason::KeysUnavailable => error.retry_after(KEYS_RETRY),
        _ => error,
    }
}
