//! Tickets: a browser's `EventSource` sends no `Authorization`, so a stream can be opened by an address that holds a
//! ticket. It works once, within a minute, and speaks for whoever asked for it with the rights his token had.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    access::{Caller, Origin},
    domain::{id::CommunityId, time::Timestamp},
    error::{Code, Error, Result},
    flow::Deps,
    store::ticket,
};

/// How long a ticket can be used.
const LIFE: Duration = Duration::from_secs(60);
/// Bytes of a ticket.
const BYTES: usize = 16;
/// Tickets of one user that can be used at once.
const MOST: u64 = 32;

/// A ticket, told once.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The ticket.
    pub ticket: String,
    /// From then on it opens nothing.
    pub expires_at: Timestamp,
}

/// What a token said besides who it was of.
#[derive(Debug, Serialize, Deserialize)]
struct Rights {
    issued_at: Option<Timestamp>,
    communities: BTreeMap<CommunityId, Vec<String>>,
    roles: Vec<String>,
    until: Option<Timestamp>,
}

/// A ticket for the caller.
///
/// # Errors
/// `rate_limited` for who has too many.
pub async fn make(deps: &Deps, caller: &Caller) -> Result<Ticket> {
    let now = deps.clock.now();
    if ticket::count_of(deps.db.conn(), &caller.user_id, now).await? >= MOST {
        let detail = "You have too many tickets that were not used.";
        return Err(Error::new(Code::RateLimited, detail).retry_after(LIFE));
    }
    let secret: [u8; BYTES] = rand::random();
    let rights = Rights {
        issued_at: caller.issued_at,
        communities: caller.communities.clone(),
        roles: caller.roles.clone(),
        until: caller.origin.expires_at,
    };
    let rights = serde_json::to_string(&rights)
        .map_err(|error| Error::internal("writing a ticket", error))?;
    let expires_at = now.plus(LIFE);
    let row = ticket::Model {
        token_hash: hash(&secret),
        user_id: caller.user_id.clone(),
        rights,
        expires_at,
    };
    ticket::insert(deps.db.conn(), row).await?;
    Ok(Ticket { ticket: URL_SAFE_NO_PAD.encode(secret), expires_at })
}

/// Whom a ticket speaks for; it is used up.
///
/// # Errors
/// `unauthenticated`, whatever the reason.
pub async fn redeem(deps: &Deps, text: &str) -> Result<Caller> {
    let refused = || {
        let detail = "The ticket is none, was used, or has expired; ask for another.";
        Error::new(Code::Unauthenticated, detail).with("reason", "bad_ticket")
    };
    let secret = URL_SAFE_NO_PAD.decode(text).ok().filter(|secret| secret.len() == BYTES);
    let hash = hash(&secret.ok_or_else(refused)?);
    let now = deps.clock.now();
    let row = ticket::take(deps.db.conn(), &hash, now).await?.ok_or_else(refused)?;
    let rights: Rights = serde_json::from_str(&row.rights)
        .map_err(|error| Error::internal("reading a ticket", error))?;
    Ok(Caller {
        user_id: row.user_id,
        name: None,
        issued_at: rights.issued_at,
        communities: rights.communities,
        roles: rights.roles,
        origin: Origin { expires_at: rights.until, ..Origin::default() },
    })
}

/// A ticket of 128 random bits needs no salt and no slow hash.
fn hash(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}
