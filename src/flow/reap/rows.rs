//! Rows whose time has passed.

use super::{Counts, pass_over};
use crate::{
    domain::{event::EventKind, lifecycle::ClipStatus},
    error::{Code, Result},
    flow::{Deps, clip_files::ClipFiles, kept, outbox, stores::Which},
    media::publish,
    store::{
        self, clip, idempotency, job, maintenance, pin, preview, quota, rate, share, webhook, wish,
    },
};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
/// Failed clips deleted in one pass.
const BATCH: u64 = 500;

/// Pins that no longer hold, and what is remembered for a while only.
pub(super) async fn expire(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    counts.stale_pins += pin::delete_stale(&tx, now).await?;
    counts.expired_rows += idempotency::delete_expired(&tx, now).await?
        + preview::delete_stale(&tx).await?
        + share::delete_expired(&tx, now).await?
        + rate::delete_before(&tx, now.plus_seconds(-10 * MINUTE)).await?
        + webhook::delete_before(&tx, now.plus_seconds(-2 * DAY)).await?
        + job::delete_ended_before(&tx, now.plus_seconds(-7 * DAY)).await?
        + maintenance::delete_before(&tx, now.plus_seconds(-30 * DAY)).await?;
    // a dry run counts by doing it and taking it back
    if dry_run { store::rollback(tx).await } else { store::commit(tx).await }
}

/// Failed clips are listed for a week, then row and files go.
pub(super) async fn delete_failed_clips(
    deps: &Deps,
    dry_run: bool,
    counts: &mut Counts,
) -> Result<()> {
    let before = deps.clock.now().plus_seconds(-7 * DAY);
    for failed in clip::list_failed_before(deps.db.conn(), before, BATCH).await? {
        let done = if dry_run { Ok(true) } else { delete_failed(deps, &failed).await };
        let gone = pass_over(deps, Which::Clips, failed.id.as_str(), done, counts).await?;
        counts.failed_clips += u64::from(gone == Some(true));
    }
    Ok(())
}

async fn delete_failed(deps: &Deps, failed: &clip::Model) -> Result<bool> {
    let files = ClipFiles::of(deps, &failed.user_id, &failed.id)?;
    if kept::bring_back(deps, failed, None).await? {
        return Ok(false);
    }
    let lost = failed.error_code.as_deref() == Some(Code::FileMissing.as_str());
    if lost && publish::size(&deps.stores.clips.gate, &files.video).await?.is_some() {
        // the file came back: `clips verify --repair` makes it a clip again
        return Ok(false);
    }
    let tx = deps.db.begin().await?;
    if !clip::delete_if(&tx, &failed.id, &[ClipStatus::Failed]).await? {
        store::rollback(tx).await?;
        return Ok(false);
    }
    quota::settle(&tx, &failed.user_id, failed.reserved_bytes, -failed.size_bytes).await?;
    pin::delete_of_clip(&tx, &failed.id).await?;
    share::delete_of_clip(&tx, &failed.id).await?;
    wish::delete(&tx, &failed.id).await?;
    outbox::clip(&tx, EventKind::ClipDeleted, failed, deps.clock.now()).await?;
    let done = async {
        // under the row's lock and before the commit, so that no record brings the clip back
        files.entomb().await?;
        outbox::commit(deps, tx).await?;
        files.remove_all().await
    };
    // what a tombstone means that stays, the row decides when the store is walked through
    done.await.inspect_err(|_| deps.walks.want())?;
    Ok(true)
}
