//! The queue of clips to be made is the table of jobs, and it is bounded: in all, and for each user. Whoever comes when
//! it is full is told to come again; nothing that was accepted is dropped.

use std::time::Duration;

use super::Deps;
use crate::{
    domain::id::UserId,
    error::{Code, Error, Result},
    store::{Tx, job},
};

/// When somebody who found the queue full may try again.
const FULL_FOR: Duration = Duration::from_secs(10);

/// Refuses a clip while the queue has no room for it. Called under the lock of the user's account, so that his part of it
/// is exact; the whole may be exceeded by those who are accepted at the very same moment.
///
/// # Errors
/// [`Code::Overloaded`], with `waiting` and `limit`.
pub(super) async fn demand_room(tx: &Tx, deps: &Deps, user: &UserId) -> Result<()> {
    let settings = &deps.config.capture;
    let own = job::count_open_of(tx, Some(user)).await?;
    if own >= settings.queue_per_user {
        return Err(full(
            "Too many of your clips are being made; try again.",
            own,
            settings.queue_per_user,
        ));
    }
    let all = job::count_open_of(tx, None).await?;
    if all >= settings.queue {
        return Err(full("Too many clips are being made; try again.", all, settings.queue));
    }
    Ok(())
}

fn full(detail: &'static str, waiting: u64, limit: u64) -> Error {
    metrics::counter!("livekit_replay_refused_total", "queue" => "clips").increment(1);
    Error::new(Code::Overloaded, detail)
        .with("waiting", waiting)
        .with("limit", limit)
        .retry_after(FULL_FOR)
}
