//! Whether there is room for what was promised.

use std::{path::Path, time::Duration};

use super::Deps;
use crate::{
    domain::limits,
    error::{Code, Error, Result},
    store::session,
};

/// Free and total bytes of the file system that holds a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Usable by us.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// Asks the file system, with a deadline: a mount that hangs answers `storage_unavailable`.
pub async fn space(path: &Path) -> Result<Space> {
    let path = path.to_owned();
    let work = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path));
    match tokio::time::timeout(Duration::from_secs(5), work).await {
        Ok(Ok(Ok(found))) => Ok(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        }),
        Ok(Ok(Err(error))) => Err(unavailable().because(error)),
        Ok(Err(panic)) => Err(Error::internal("asking for free space", panic)),
        Err(_) => Err(unavailable()),
    }
}

fn unavailable() -> Error {
    Error::new(Code::StorageUnavailable, "A store does not answer.")
        .retry_after(Duration::from_secs(10))
        .retryable()
}

/// Refuses a start when the running buffers and this one could fill the disk.
pub async fn refuse_if_it_would_not_fit(deps: &Deps) -> Result<()> {
    let space = space(&deps.config.storage.buffer).await?;
    let filter = session::Filter { community_id: None, active_only: true };
    let page = crate::store::Page { limit: 10_000, offset: 0 };
    let (running, _) = session::list_all(deps.db.conn(), &filter, page).await?;
    let growth: Vec<limits::BufferGrowth> = running
        .iter()
        .map(|session| limits::BufferGrowth {
            bytes_per_second: u64::try_from(session.highest_rate).ok().filter(|rate| *rate > 0),
            held_bytes: 0,
        })
        .collect();
    let needed = limits::bytes_needed_to_start(
        deps.config.storage.min_free_bytes,
        deps.config.buffer.cleanup,
        &growth,
    );
    limits::check_disk(space.free_bytes, needed)
}
