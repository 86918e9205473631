//! What the clip store holds of a clip, whatever its row says: the record, the bytes, and whether they agree. A clip
//! that is whole there is never thrown away for its row's sake: after a database was put back from a copy, rows know
//! less than the store.

use std::{fs, io};

use tokio::time::Instant;

use super::{
    Deps,
    capture::Clip,
    clip_files::{ClipFiles, MOST_RECORD, Record},
    outbox,
    stores::{self, Which},
    work::Leased,
};
use crate::{
    domain::event::EventKind,
    error::Result,
    media::files::{Found, Opened, open_plain, read_plain},
    store::{self, clip, job, pin, quota},
};

/// Read in one go: a slow mount delivers this much within the deadline of file work.
const PIECE: u64 = 16 << 20;

/// The clip's file, if there is anything of that name.
pub(super) async fn video(deps: &Deps, files: &ClipFiles) -> Result<Opened> {
    let path = files.video.clone();
    stores::work(&deps.stores, Which::Clips, move || open_plain(&path)).await
}

/// The record beside a clip, if it is one that we understand, of this clip.
pub(super) async fn record(deps: &Deps, clip: &Clip, files: &ClipFiles) -> Result<Option<Record>> {
    let path = files.record.clone();
    let read = move || read_plain(&path, MOST_RECORD);
    Ok(match stores::work(&deps.stores, Which::Clips, read).await? {
        Found::Bytes(bytes) => Record::parse(&bytes, &deps.instance)
            .filter(|record| record.clip_id == clip.id && record.user_id == clip.user_id),
        Found::Absent | Found::NotOurs => None,
    })
}

/// A file's checksum as rows have it, and its bytes; read in pieces so that each has a deadline of its own. None if it
/// takes until `until`.
pub(super) async fn checksum(
    deps: &Deps,
    file: fs::File,
    until: Option<Instant>,
) -> Result<Option<(String, u64)>> {
    let (mut file, mut hasher, mut read) = (file, blake3::Hasher::new(), 0);
    loop {
        let piece = move || {
            let count = io::copy(&mut io::Read::take(&mut file, PIECE), &mut hasher)?;
            Ok((file, hasher, count))
        };
        let count;
        (file, hasher, count) = stores::work(&deps.stores, Which::Clips, piece).await?;
        read += count;
        if count == 0 {
            return Ok(Some((format!("blake3:{}", hasher.finalize().to_hex()), read)));
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(None);
        }
    }
}

/// The record of a clip whose file is there with the size and the bytes that the record names.
async fn whole(deps: &Deps, clip: &Clip) -> Result<Option<Record>> {
    let files = ClipFiles::of(deps, &clip.user_id, &clip.id)?;
    let Some(record) = record(deps, clip, &files).await? else { return Ok(None) };
    match video(deps, &files).await? {
        Opened::File(file, size) if i64::try_from(size) == Ok(record.size_bytes) => {
            let sum = checksum(deps, file, None).await?.map(|(sum, _)| sum);
            Ok((sum.is_some() && sum == record.checksum).then_some(record))
        }
        _ => Ok(None),
    }
}

/// Makes a clip ready whose row is behind its files: it was finished once, and the row does not know. `leased` is the
/// job that was to make it (again). Its bytes were admitted when it was made, so they count whatever the account holds now.
///
/// # Errors
/// `storage_unavailable`, and those of the database.
pub(super) async fn bring_back(deps: &Deps, clip: &Clip, leased: Option<&Leased>) -> Result<bool> {
    let Some(record) = whole(deps, clip).await? else { return Ok(false) };
    let Some(done) = record.finished() else { return Ok(false) };
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let ours = match leased {
        Some(leased) => job::finish(&tx, &leased.job.id, &leased.owner, now).await?,
        None => true,
    };
    if !ours || !clip::make_ready_again(&tx, &clip.id, clip.status, &done, now).await? {
        store::rollback(tx).await?;
        return Ok(false);
    }
    quota::settle(&tx, &clip.user_id, clip.reserved_bytes, done.size_bytes).await?;
    pin::delete_of_clip(&tx, &clip.id).await?;
    outbox::clip(&tx, EventKind::ClipReady, &clip::load(&tx, &clip.id).await?, now).await?;
    outbox::bytes_taken(&tx, deps, &clip.user_id, done.size_bytes, now).await?;
    outbox::commit(deps, tx).await?;
    tracing::warn!(clip.id = %clip.id, "a clip that was finished before is ready again");
    deps.wake.clips.notify_waiters();
    Ok(true)
}
