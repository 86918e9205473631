//! Whether clips are as their rows say: files looked at, their bytes compared with the checksums, and, when asked for,
//! put right what can be put right without losing anything. Bytes that are not what was kept are only told of.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Deps,
    audit_log::{self, Line},
    authorize,
    clip_files::{ClipFiles, Record, write_record},
    kept, outbox, reap,
    stores::{self, Which},
};
use crate::{
    access::Caller,
    domain::{
        audit::Action,
        event::EventKind,
        id::{ClipId, UserId},
        lifecycle::ClipStatus,
        text_enum::text_enum,
    },
    error::{Code, Error, Result},
    media::{files::Opened, publish},
    store::{self, clip, quota},
};

/// How long one call reads before it answers how far it came.
const AT_MOST: Duration = Duration::from_secs(20);
/// How long one call may be at a single clip: answers are given up after `server.max_wait_seconds` + 30 s.
const COMPARE: Duration = Duration::from_secs(28);

/// How it is done.
#[derive(Debug, Clone)]
pub struct How {
    /// Put right what can be.
    pub repair: bool,
    /// Read every byte; else only sizes are compared.
    pub bytes: bool,
    /// Go on behind this clip.
    pub after: Option<ClipId>,
    /// Clips looked at in one call.
    pub limit: u64,
}

text_enum!(
    /// What is wrong with a clip.
    Fault {
        /// Its file is not there. Put right: the clip is `failed` with `file_missing`, its owner gets the room back.
        FileMissing = "file_missing",
        /// The file that was missing is there again. Put right: the clip is ready again.
        FileBack = "file_back",
        /// Its file has another size. Only told.
        SizeDiffers = "size_differs",
        /// Its file holds other bytes than were kept. Only told.
        ChecksumDiffers = "checksum_differs",
        /// The store would not show or take its files, or not in time. Only told.
        NotCompared = "not_compared",
        /// No record lies beside it, so it would be lost with the database. Put right: written again.
        RecordMissing = "record_missing",
        /// The record beside it says something else. Put right: written again.
        RecordDiffers = "record_differs",
    }
);

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of this clip.
    pub clip_id: ClipId,
    /// Whose it is.
    pub user_id: UserId,
    /// What is wrong.
    pub fault: Fault,
    /// Whether it was put right.
    pub repaired: bool,
}

/// What a call found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Clips looked at.
    pub clips: u64,
    /// Bytes compared with their checksum.
    pub bytes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Where to go on; none when all were looked at.
    pub next: Option<ClipId>,
    /// Files that no row knows, looked at by the last call: what was done about them, or would be.
    pub store: Option<Unknown>,
}

/// What is in the clip store besides clips with rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// Clips that got their row back from their record.
    pub restored: u64,
    /// Deletions that were interrupted.
    pub deletions_finished: u64,
    /// Moved to `quarantine/`.
    pub quarantined: u64,
    /// Things that the store would not show or let go of; the log says which.
    pub failed: u64,
}

/// Looks at some clips, in order of their ids. Instance admin.
///
/// # Errors
/// `permission_denied`; `storage_unavailable` when the clip store is not there: no clip is called lost then.
pub async fn verify(deps: &Deps, caller: &Caller, how: &How) -> Result<Checked> {
    authorize::require_instance_admin(deps, caller).await?;
    stores::demand_ours(deps, Which::Clips).await?;
    if how.repair && how.after.is_none() {
        audit_log::announce(deps, caller, Line::new(Action::ClipVerify)).await?;
    }
    let began = Instant::now();
    let (until, compare_until) = (began + AT_MOST, how.bytes.then_some(began + COMPARE));
    let rows = clip::list_kept(deps.db.conn(), how.after.as_ref(), how.limit).await?;
    let full = u64::try_from(rows.len()).is_ok_and(|count| count == how.limit);
    let mut checked = Checked::default();
    for (at, row) in rows.iter().enumerate() {
        checked.clips += 1;
        let (found, read) = look(deps, caller, row, compare_until, how.repair).await?;
        checked.findings.extend(found);
        checked.bytes += read;
        let last = at + 1 == rows.len();
        if (last && full) || (!last && Instant::now() >= until) {
            checked.next = Some(row.id.clone());
            break;
        }
    }
    if checked.next.is_none() {
        checked.store = Some(unknown(deps, how.repair).await?);
    }
    Ok(checked)
}

/// One clip, and the bytes that were compared. What the store does not do for one clip keeps no other from being looked at,
/// unless the whole store is away.
async fn look(
    deps: &Deps,
    caller: &Caller,
    row: &clip::Model,
    until: Option<Instant>,
    repair: bool,
) -> Result<(Option<Finding>, u64)> {
    let mut read = 0;
    let done = match examine(deps, row, until, &mut read).await {
        Ok(Some(fault)) => settle(deps, caller, row, fault, repair).await,
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    let found = match done {
        Err(error) if error.code() == Code::StorageUnavailable => {
            stores::demand_ours(deps, Which::Clips).await?;
            tracing::warn!(clip.id = %row.id, error = error.chain(), "cannot be compared");
            settle(deps, caller, row, Fault::NotCompared, false).await?
        }
        done => done?,
    };
    Ok((found, read))
}

async fn unknown(deps: &Deps, repair: bool) -> Result<Unknown> {
    let counts = reap::clip_store(deps, !repair).await?;
    Ok(Unknown {
        restored: counts.clips_restored,
        deletions_finished: counts.deletions_finished,
        quarantined: counts.quarantined,
        failed: counts.failed,
    })
}

/// What is wrong with the files of a clip, if anything; adds what was read to `read`. Bytes are compared until `until`;
/// without it only sizes are.
async fn examine(
    deps: &Deps,
    row: &clip::Model,
    until: Option<Instant>,
    read: &mut u64,
) -> Result<Option<Fault>> {
    let files = ClipFiles::of(deps, &row.user_id, &row.id)?;
    let lost = row.status == ClipStatus::Failed;
    let (file, size) = match kept::video(deps, &files).await? {
        Opened::Absent | Opened::NotOurs if lost => return Ok(None),
        Opened::Absent => return Ok(Some(Fault::FileMissing)),
        Opened::NotOurs => return Ok(Some(Fault::ChecksumDiffers)),
        Opened::File(file, size) => (file, size),
    };
    if !lost && i64::try_from(size) != Ok(row.size_bytes) {
        return Ok(Some(Fault::SizeDiffers));
    }
    let Some(until) = until else {
        // one that was lost comes back by its bytes alone
        return if lost { Ok(None) } else { record_fault(deps, row, &files).await };
    };
    let Some((sum, count)) = kept::checksum(deps, file, Some(until)).await? else {
        return Ok(Some(Fault::NotCompared));
    };
    *read += count;
    match (row.checksum.as_ref() == Some(&sum), lost) {
        (false, _) => Ok(Some(Fault::ChecksumDiffers)),
        (true, true) => Ok(Some(Fault::FileBack)),
        (true, false) => record_fault(deps, row, &files).await,
    }
}

async fn record_fault(deps: &Deps, row: &clip::Model, files: &ClipFiles) -> Result<Option<Fault>> {
    Ok(match kept::record(deps, row, files).await? {
        None => Some(Fault::RecordMissing),
        // as they are written: moments in a record end at milliseconds
        Some(found) if json!(found) != json!(Record::of(deps, row)) => Some(Fault::RecordDiffers),
        Some(_) => None,
    })
}

/// What is told of a fault: nothing if the row has changed since it was looked at, because a deletion or a change was on
/// its way. Puts it right if that is wanted and can be.
async fn settle(
    deps: &Deps,
    caller: &Caller,
    row: &clip::Model,
    fault: Fault,
    repair: bool,
) -> Result<Option<Finding>> {
    let same = |now: Option<clip::Model>| {
        now.is_some_and(|now| now.status == row.status && now.updated_at == row.updated_at)
    };
    let (clip_id, user_id) = (row.id.clone(), row.user_id.clone());
    if !repair {
        let now = clip::find(deps.db.conn(), &row.id).await?;
        return Ok(same(now).then_some(Finding { clip_id, user_id, fault, repaired: false }));
    }
    let tx = deps.db.begin().await?;
    clip::lock(&tx, &row.id).await?;
    if !same(clip::find(&tx, &row.id).await?) {
        store::rollback(tx).await?;
        return Ok(None);
    }
    let repaired = put_right(deps, &tx, row, fault).await?;
    if repaired {
        let line =
            Line::new(Action::ClipVerify).clip(row).after(json!({ "fault": fault.as_str() }));
        audit_log::done(&tx, caller, line, deps.clock.now()).await?;
        outbox::commit(deps, tx).await?;
        tracing::warn!(clip.id = %row.id, fault = fault.as_str(), "a clip was put right");
    } else {
        store::rollback(tx).await?;
    }
    Ok(Some(Finding { clip_id, user_id, fault, repaired }))
}

async fn put_right(deps: &Deps, tx: &store::Tx, row: &clip::Model, fault: Fault) -> Result<bool> {
    match fault {
        Fault::SizeDiffers | Fault::ChecksumDiffers | Fault::NotCompared => Ok(false),
        Fault::RecordMissing | Fault::RecordDiffers => {
            write_record(deps, row).await?;
            Ok(true)
        }
        Fault::FileMissing => lose(deps, tx, row).await,
        Fault::FileBack => find_again(deps, tx, row).await,
    }
}

async fn lose(deps: &Deps, tx: &store::Tx, row: &clip::Model) -> Result<bool> {
    let now = deps.clock.now();
    let files = ClipFiles::of(deps, &row.user_id, &row.id)?;
    if !kept::video(deps, &files).await?.is_absent() {
        return Ok(false);
    }
    // the last look before it is believed: what is not there because nothing is mounted is not lost
    stores::demand_ours(deps, Which::Clips).await?;
    let why = Error::new(Code::FileMissing, "The file of this clip is gone.");
    if !clip::make_lost(tx, &row.id, why.code().as_str(), why.detail(), now).await? {
        return Ok(false);
    }
    quota::settle(tx, &row.user_id, 0, -row.size_bytes).await?;
    outbox::clip(tx, EventKind::ClipFailed, &clip::load(tx, &row.id).await?, now).await?;
    Ok(true)
}

/// Its bytes count again, if the account has room for them.
async fn find_again(deps: &Deps, tx: &store::Tx, row: &clip::Model) -> Result<bool> {
    let now = deps.clock.now();
    let files = ClipFiles::of(deps, &row.user_id, &row.id)?;
    let size = publish::size(&deps.stores.clips.gate, &files.video)
        .await?
        .and_then(|size| i64::try_from(size).ok());
    let Some(size) = size else { return Ok(false) };
    let default = deps.config.limits.user_quota_bytes;
    if quota::reserve(tx, &row.user_id, size, default, now).await?.is_err()
        || !clip::make_found(tx, &row.id, size, now).await?
    {
        return Ok(false);
    }
    quota::settle(tx, &row.user_id, size, size).await?;
    let found = clip::load(tx, &row.id).await?;
    write_record(deps, &found).await?;
    outbox::clip(tx, EventKind::ClipReady, &found, now).await?;
    outbox::bytes_taken(tx, deps, &row.user_id, size, now).await?;
    Ok(true)
}
