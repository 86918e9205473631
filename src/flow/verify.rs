//! Whether clips are as their rows say: files looked at, their bytes compared with the checksums, and, when asked for,
//! put right what can be put right without losing anything. Bytes that are not what was kept are only told of.

use std::{fs, io, path::PathBuf, time::Duration};

use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Deps,
    audit_log::{self, Line},
    authorize,
    clip_files::{ClipFiles, Record, write_record},
    outbox, reap,
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
    media::{
        files::{Found, Opened, open_plain, read_plain},
        publish,
    },
    store::{self, clip, quota},
};

/// How long one call reads before it answers how far it came.
const AT_MOST: Duration = Duration::from_secs(20);
/// Read in one go: a slow mount delivers this much within the deadline of file work.
const PIECE: u64 = 16 << 20;
/// Records are small.
const MOST_RECORD: u64 = 1 << 20;

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
    let until = Instant::now() + AT_MOST;
    let rows = clip::list_kept(deps.db.conn(), how.after.as_ref(), how.limit).await?;
    let full = u64::try_from(rows.len()).is_ok_and(|count| count == how.limit);
    let mut checked = Checked::default();
    for (at, row) in rows.iter().enumerate() {
        let fault = examine(deps, row, how.bytes, &mut checked.bytes).await?;
        checked.clips += 1;
        if let Some(fault) = fault
            && let Some(finding) = settle(deps, row, fault, how.repair).await?
        {
            checked.findings.push(finding);
        }
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

async fn unknown(deps: &Deps, repair: bool) -> Result<Unknown> {
    let counts = reap::clip_store(deps, !repair).await?;
    Ok(Unknown {
        restored: counts.clips_restored,
        deletions_finished: counts.deletions_finished,
        quarantined: counts.quarantined,
    })
}

/// What is wrong with the files of a clip, if anything; adds what was read to `read`.
async fn examine(
    deps: &Deps,
    row: &clip::Model,
    bytes: bool,
    read: &mut u64,
) -> Result<Option<Fault>> {
    let files = ClipFiles::of(deps, &row.user_id, &row.id)?;
    let video = files.video.clone();
    let opened = stores::work(&deps.stores, Which::Clips, move || open_plain(&video)).await?;
    if row.status == ClipStatus::Failed {
        // lost once
        let back = match (opened, record(deps, files.record).await?) {
            (Opened::File(_, size), Some(record)) => i64::try_from(size) == Ok(record.size_bytes),
            _ => false,
        };
        return Ok(back.then_some(Fault::FileBack));
    }
    let (file, size) = match opened {
        Opened::Absent => return Ok(Some(Fault::FileMissing)),
        Opened::NotOurs => return Ok(Some(Fault::ChecksumDiffers)),
        Opened::File(file, size) => (file, size),
    };
    if i64::try_from(size) != Ok(row.size_bytes) {
        return Ok(Some(Fault::SizeDiffers));
    }
    let kept = row.checksum.as_deref().and_then(|sum| sum.strip_prefix("blake3:"));
    if let Some(kept) = kept.filter(|_| bytes) {
        let (sum, count) = hash(deps, file).await?;
        *read += count;
        if sum != kept {
            return Ok(Some(Fault::ChecksumDiffers));
        }
    }
    Ok(match record(deps, files.record).await? {
        None => Some(Fault::RecordMissing),
        // as they are written: moments in a record end at milliseconds
        Some(found) if json!(found) != json!(Record::of(deps, row)) => Some(Fault::RecordDiffers),
        Some(_) => None,
    })
}

/// A file's hash, read in pieces so that each has a deadline of its own.
async fn hash(deps: &Deps, file: fs::File) -> Result<(String, u64)> {
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
            return Ok((hasher.finalize().to_hex().to_string(), read));
        }
    }
}

/// The record beside a clip, if it is one that we understand.
async fn record(deps: &Deps, path: PathBuf) -> Result<Option<Record>> {
    let read = move || read_plain(&path, MOST_RECORD);
    Ok(match stores::work(&deps.stores, Which::Clips, read).await? {
        Found::Bytes(bytes) => Record::parse(&bytes, &deps.instance),
        Found::Absent | Found::NotOurs => None,
    })
}

/// Looks once more under the row's lock, because a deletion or a change may have been on its way; none if nothing is
/// wrong any more. Puts it right if that is wanted and can be.
async fn settle(
    deps: &Deps,
    row: &clip::Model,
    fault: Fault,
    repair: bool,
) -> Result<Option<Finding>> {
    let tx = deps.db.begin().await?;
    clip::lock(&tx, &row.id).await?;
    let now = clip::find(&tx, &row.id).await?;
    let Some(row) = now.filter(|now| now.status == row.status) else {
        store::rollback(tx).await?;
        return Ok(None);
    };
    if examine(deps, &row, false, &mut 0).await? != Some(fault) && fault != Fault::ChecksumDiffers {
        store::rollback(tx).await?;
        return Ok(None);
    }
    let repaired = repair && put_right(deps, &tx, &row, fault).await?;
    if repaired {
        outbox::commit(deps, tx).await?;
        tracing::warn!(clip.id = %row.id, fault = fault.as_str(), "a clip was put right");
    } else {
        store::rollback(tx).await?;
    }
    Ok(Some(Finding { clip_id: row.id, user_id: row.user_id, fault, repaired }))
}

async fn put_right(deps: &Deps, tx: &store::Tx, row: &clip::Model, fault: Fault) -> Result<bool> {
    let now = deps.clock.now();
    match fault {
        Fault::SizeDiffers | Fault::ChecksumDiffers => Ok(false),
        Fault::RecordMissing | Fault::RecordDiffers => {
            write_record(deps, row).await?;
            Ok(true)
        }
        Fault::FileMissing => {
            let code = Error::new(Code::FileMissing, "The file of this clip is gone.");
            let lost =
                clip::make_lost(tx, &row.id, code.code().as_str(), code.detail(), now).await?;
            if lost {
                quota::settle(tx, &row.user_id, 0, -row.size_bytes).await?;
                let lost = clip::load(tx, &row.id).await?;
                outbox::clip(tx, EventKind::ClipFailed, &lost, now).await?;
            }
            Ok(lost)
        }
        Fault::FileBack => {
            let files = ClipFiles::of(deps, &row.user_id, &row.id)?;
            let size = publish::size(&files.video).await?.and_then(|size| i64::try_from(size).ok());
            let Some(size) = size else { return Ok(false) };
            let found = clip::make_found(tx, &row.id, size, now).await?;
            if found {
                quota::settle(tx, &row.user_id, 0, size).await?;
                let found = clip::load(tx, &row.id).await?;
                outbox::clip(tx, EventKind::ClipReady, &found, now).await?;
                outbox::bytes_taken(tx, deps, &row.user_id, size, now).await?;
            }
            Ok(found)
        }
    }
}
