//! Whether there is room for what was promised.

use super::{
    Deps,
    stores::{self, Which},
};
use crate::{
    domain::{lifecycle::SessionStatus, limits},
    error::Result,
    store::{segment, session},
};

/// Refuses a start when the running buffers and this one could fill the disk.
///
/// # Errors
/// `insufficient_disk`; `storage_unavailable` when the buffer store does not answer.
pub async fn refuse_if_it_would_not_fit(deps: &Deps) -> Result<()> {
    let space = stores::space(deps, Which::Buffer).await?;
    let held = segment::bytes_by_session(deps.db.conn()).await?;
    let running = session::list_in(deps.db.conn(), SessionStatus::HOLDING).await?;
    let growth: Vec<limits::BufferGrowth> = running
        .iter()
        .map(|session| limits::BufferGrowth {
            bytes_per_second: u64::try_from(session.highest_rate).ok().filter(|rate| *rate > 0),
            held_bytes: held.get(&session.id).copied().unwrap_or(0),
        })
        .collect();
    let needed = limits::bytes_needed_to_start(
        deps.config.storage.min_free_bytes,
        deps.config.buffer.cleanup,
        &growth,
    );
    limits::check_disk(space.free, needed)
}
