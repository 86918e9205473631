//! One answer per `Idempotency-Key`: the first request holds the key while it runs, later ones wait for it and get
//! what it got. Only accepted answers are kept; a refusal frees the key.
//!
//! Whoever accepts keeps the answer in the accepting transaction ([`keep_in`]), so that a crash right after it cannot
//! make the repeat do the thing twice.

use std::time::Duration;

use crate::{
    domain::{id::UserId, time::Timestamp},
    error::{Code, Error, Result},
    flow::{Deps, work},
    store::{Conn, idempotency},
};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How often a waiting repeat looks again when no bell rings (the first may run on another replica).
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A key that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub user: UserId,
    /// On which route.
    pub route: &'static str,
    /// The caller's words: 1 to 255 visible ASCII characters.
    pub key: String,
}

/// A key held by the request that runs. One that took longer than its lease may find it held by another: it must not be
/// accepted then, and frees nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    claim: Claim,
    since: Timestamp,
}

impl Held {
    fn row(&self) -> idempotency::Held<'_> {
        let Claim { user, route, key } = &self.claim;
        idempotency::Held { user, route, key, since: self.since }
    }
}

/// An answer given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its HTTP status.
    pub status: u16,
    /// Its JSON.
    pub body: String,
    /// Its `Location`.
    pub location: Option<String>,
}

/// What a request with a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The first of its key: do the thing, then [`keep_in`] or [`release`].
    First(Held),
    /// A repeat: give this answer.
    Repeat(Kept),
}

/// Whether an `Idempotency-Key` header may be taken as a key.
pub fn is_valid_key(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Claims the key for a request whose body has the given hash. A repeat waits until the first has ended, at most
/// `lease`, which is also how long a first request may take before it counts as dead.
///
/// # Errors
/// `idempotency_mismatch` if the key was used with another body, `overloaded` if the first does not end.
pub async fn begin(
    deps: &Deps,
    claim: &Claim,
    request_hash: &str,
    lease: Duration,
) -> Result<Begun> {
    let give_up_at = tokio::time::Instant::now() + lease + LOOK_AGAIN;
    let mut seat = None;
    loop {
        let bell = deps.wake.clips.notified();
        let now = deps.clock.now();
        if idempotency::claim(deps.db.conn(), row(claim, request_hash, lease, now)).await? {
            return Ok(Begun::First(Held { claim: claim.clone(), since: now }));
        }
        let found = idempotency::find(deps.db.conn(), &claim.user, claim.route, &claim.key).await?;
        let Some(found) = found else { continue };
        if idempotency::release_dead(deps.db.conn(), &found, now).await? {
            continue;
        }
        if found.request_hash != request_hash {
            return Err(Error::new(
                Code::IdempotencyMismatch,
                "This Idempotency-Key was used with another request.",
            ));
        }
        if let Some(kept) = kept(found) {
            return Ok(Begun::Repeat(kept));
        }
        if tokio::time::Instant::now() >= give_up_at {
            return Err(Error::new(
                Code::Overloaded,
                "The first request with this Idempotency-Key is still running.",
            )
            .retry_after(Duration::from_secs(2)));
        }
        if seat.is_none() {
            seat = Some(work::seat(&deps.places.repeats(), "repeats")?);
        }
        tokio::select! {
            () = bell => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = deps.stop.cancelled() => {
                return Err(Error::new(Code::Draining, "The service is shutting down."));
            }
        }
    }
}

/// Keeps the answer of the request that holds the key. Pass the transaction that accepts.
///
/// # Errors
/// `overloaded` if this took so long that a repeat was let through: that one is accepted, and this must not be.
pub async fn keep_in<C: Conn>(db: &C, held: &Held, kept: Kept) -> Result<()> {
    let Kept { status, body, location } = kept;
    if idempotency::keep(db, held.row(), i32::from(status), body, location).await? {
        return Ok(());
    }
    let detail = "This took too long, and a repeat of it was let through.";
    Err(Error::new(Code::Overloaded, detail).retryable())
}

/// Keeps the answer of a request that has no transaction to keep it in.
pub async fn keep(deps: &Deps, held: &Held, kept: Kept) -> Result<()> {
    keep_in(deps.db.conn(), held, kept).await?;
    deps.wake.clips.notify_waiters();
    Ok(())
}

/// Frees the key of a request that was not accepted.
pub async fn release(deps: &Deps, held: &Held) -> Result<()> {
    idempotency::release(deps.db.conn(), held.row()).await?;
    deps.wake.clips.notify_waiters();
    Ok(())
}

fn row(claim: &Claim, request_hash: &str, lease: Duration, now: Timestamp) -> idempotency::Model {
    idempotency::Model {
        user_id: claim.user.clone(),
        route: claim.route.to_owned(),
        key: claim.key.clone(),
        request_hash: request_hash.to_owned(),
        status: None,
        body: None,
        location: None,
        lease_until: now.plus(lease),
        expires_at: now.plus(KEPT),
        created_at: now,
    }
}

fn kept(row: idempotency::Model) -> Option<Kept> {
    let status = u16::try_from(row.status?).ok()?;
    Some(Kept { status, body: row.body.unwrap_or_default(), location: row.location })
}

#[cfg(test)]
mod tests {
    use super::is_valid_key;

    #[test]
    fn keys_are_visible_ascii_of_bounded_length() {
        assert!(is_valid_key("a"));
        assert!(is_valid_key(&"~".repeat(255)));
        for bad in ["", "two words", "tab\t", "ключ", &"a".repeat(256)] {
            assert!(!is_valid_key(bad), "{bad:?}");
        }
    }
}
