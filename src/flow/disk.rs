//! Whether there is room for what was promised.

use std::os::unix::fs::MetadataExt;

use super::{
    Deps,
    stores::{self, Which},
};
use crate::{
    domain::{
        id::SessionId,
        lifecycle::SessionStatus,
        limits::{self, BufferGrowth},
    },
    error::Result,
    store::{quota, segment, session},
};

/// Refuses a start when what is promised already and this one would not fit on the disk.
///
/// # Errors
/// `insufficient_disk`; `storage_unavailable` when the buffer store does not answer.
pub async fn refuse_if_it_would_not_fit(deps: &Deps) -> Result<()> {
    let mut growing: Vec<BufferGrowth> =
        growing(deps).await?.into_iter().map(|(_, one)| one).collect();
    growing.push(BufferGrowth::default());
    check(deps, &growing).await
}

/// Refuses a start whose row is written when it would not fit behind those that came before it: several that come at the
/// same moment do not see each other before.
///
/// # Errors
/// As [`refuse_if_it_would_not_fit`].
pub async fn refuse_if_it_does_not_fit(deps: &Deps, own: &SessionId) -> Result<()> {
    let mut growing = growing(deps).await?;
    // ids rise with time
    growing.retain(|(id, _)| id.as_str() <= own.as_str());
    let growing: Vec<BufferGrowth> = growing.into_iter().map(|(_, one)| one).collect();
    check(deps, &growing).await
}

async fn check(deps: &Deps, growing: &[BufferGrowth]) -> Result<()> {
    let space = stores::space(deps, Which::Buffer).await?;
    let reserved = match on_one_disk(deps).await? {
        true => quota::sum_reserved(deps.db.conn()).await?,
        false => 0,
    };
    let reserve = deps.config.storage.min_free_bytes.saturating_add(reserved);
    let needed = limits::bytes_promised(reserve, deps.config.buffer.cleanup, growing);
    limits::check_disk(space.free, needed)
}

/// Every buffer that holds a place, and what it can still grow by.
async fn growing(deps: &Deps) -> Result<Vec<(SessionId, BufferGrowth)>> {
    let held = segment::bytes_by_session(deps.db.conn()).await?;
    let running = session::list_in(deps.db.conn(), SessionStatus::HOLDING).await?;
    let growth = |session: session::Model| {
        let growth = BufferGrowth {
            bytes_per_second: u64::try_from(session.highest_rate).ok().filter(|rate| *rate > 0),
            held_bytes: held.get(&session.id).copied().unwrap_or(0),
        };
        (session.id, growth)
    };
    Ok(running.into_iter().map(growth).collect())
}

/// Whether clips that are being made take from the same disk as buffers.
async fn on_one_disk(deps: &Deps) -> Result<bool> {
    let device = async |which: Which| {
        let root = which.root(&deps.config);
        stores::work(&deps.stores, which, move || Ok(std::fs::metadata(root)?.dev())).await
    };
    let (buffer, clips) = futures::join!(device(Which::Buffer), device(Which::Clips));
    // a clip store that does not answer keeps nobody from recording
    Ok(clips.is_ok_and(|clips| buffer.is_ok_and(|buffer| buffer == clips)))
}
