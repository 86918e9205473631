//! Whether there is room for what was promised.

use std::{collections::HashMap, os::unix::fs::MetadataExt, time::Duration};

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
    store::{Tx, quota, segment, session, setting},
};

/// What a start is held against, looked at before its transaction: reading directories and adding up segments takes too
/// long to keep every other start waiting.
#[derive(Debug)]
pub struct Room {
    free_bytes: u64,
    /// What nobody may record into: the configured reserve, and clips that are being made on the same disk.
    reserve: u64,
    kept: Duration,
    held: HashMap<SessionId, u64>,
}

/// Looks at the disk.
///
/// # Errors
/// `storage_unavailable` when the buffer store does not answer.
pub async fn measure(deps: &Deps) -> Result<Room> {
    let space = stores::space(deps, Which::Buffer).await?;
    let reserved = match on_one_disk(deps).await? {
        true => quota::sum_reserved(deps.db.conn()).await?,
        false => 0,
    };
    Ok(Room {
        free_bytes: space.free,
        reserve: deps.config.storage.min_free_bytes.saturating_add(reserved),
        kept: deps.config.buffer.cleanup,
        held: segment::bytes_by_session(deps.db.conn()).await?,
    })
}

impl Room {
    /// Refuses a start whose row is written in `tx` when it and all that hold a place would not fit. Starts pass here one
    /// after the other: two of one moment would not see each other otherwise, and both be taken where one fits. The lock
    /// is the last a start takes, and nobody who has it waits for another.
    ///
    /// # Errors
    /// `insufficient_disk`.
    pub async fn refuse_if_it_does_not_fit(&self, tx: &Tx) -> Result<()> {
        setting::lock(tx, setting::INSTANCE_ID).await?;
        let running = session::list_in(tx, SessionStatus::HOLDING).await?;
        let growing: Vec<BufferGrowth> = running.iter().map(|one| self.growth(one)).collect();
        let needed = limits::bytes_promised(self.reserve, self.kept, &growing);
        limits::check_disk(self.free_bytes, needed)
    }

    /// What a buffer that holds a place can still grow by.
    fn growth(&self, session: &session::Model) -> BufferGrowth {
        BufferGrowth {
            bytes_per_second: u64::try_from(session.highest_rate).ok().filter(|rate| *rate > 0),
            held_bytes: self.held.get(&session.id).copied().unwrap_or(0),
        }
    }
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
