//! What changes a clip: its title and visibility, its end, another attempt at it.

use super::{load_own, may_manage, may_see, quota_of, refusal};
use crate::{
    access::Caller,
    domain::{
        audit::Action,
        event::EventKind,
        id::{ClipId, UserId},
        lifecycle::ClipStatus,
        names,
        time::Window,
        window::ResolvedWindow,
    },
    error::{Code, Error, Result},
    flow::{
        Deps,
        audit_log::{Line, Signed},
        capture,
        capture::{Clip, Visibility},
        clip_files::{ClipFiles, write_record},
        crash, index,
        material::Material,
        outbox, probe,
        stores::{self, Which},
        trim,
    },
    store::{self, clip, job, pin, quota, session, share, wish},
};

/// What an owner changes; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The new title.
    pub title: Option<String>,
    /// The new visibility.
    pub visibility: Option<Visibility>,
}

/// Changes a clip's title or visibility. The record beside the file is rewritten before the row's change commits;
/// narrowing the visibility voids all links made so far, shares too.
///
/// # Errors
/// `not_found`, `not_owner`, `validation_failed`, `storage_unavailable`.
pub async fn change(deps: &Deps, caller: &Caller, id: &ClipId, change: Change) -> Result<Clip> {
    let clip = load_own(deps, caller, id).await?;
    if let Some(title) = &change.title {
        if title.trim().is_empty() {
            return Err(Error::invalid_field("title", "must not be empty"));
        }
        names::check_title("title", title)?;
    }
    if let Some(visibility) = change.visibility {
        capture::check_visibility(visibility, clip.community_id.is_some())?;
    }
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    // the first write takes the row's lock; what was read before may be old
    if !clip::amend(&tx, id, change.title, None, false, now).await? {
        return Err(Error::not_found("clip"));
    }
    let before = clip::load(&tx, id).await?;
    if let Some(visibility) = change.visibility {
        let narrower = visibility.openness() < before.visibility.openness();
        clip::amend(&tx, id, None, Some(visibility), narrower, now).await?;
        if narrower {
            share::delete_of_clip(&tx, id).await?;
            wish::delete(&tx, id).await?;
        }
    }
    let changed = clip::load(&tx, id).await?;
    if changed.status == ClipStatus::Ready {
        // a record where nothing is mounted would be none
        stores::demand_ours(deps, Which::Clips).await?;
        write_record(deps, &changed).await?;
    }
    store::commit(tx).await?;
    tracing::info!(clip.id = %id, "clip changed");
    Ok(changed)
}

/// What a deletion gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Whether the clip was still being made.
    pub cancelled: bool,
    /// Bytes of the video, 0 if there was none yet.
    pub freed_bytes: i64,
    /// What the owner may still use.
    pub remaining_quota_bytes: i64,
}

/// Deletes a clip with its files, or cancels the making of it. By its owner, a manager of its community, or an
/// instance admin.
///
/// # Errors
/// `not_found`, `not_owner`, `storage_unavailable`.
pub async fn delete(deps: &Deps, caller: &Caller, id: &ClipId) -> Result<Deleted> {
    let clip = clip::load(deps.db.conn(), id).await?;
    let own = clip.user_id == caller.user_id;
    if !own && !may_manage(deps, caller, &clip).await? {
        return Err(refusal(may_see(deps, caller, &clip).await?));
    }
    let line = Line::new(Action::ClipDelete).clip(&clip).before(serde_json::json!({
        "status": clip.status, "visibility": clip.visibility, "sizeBytes": clip.size_bytes,
    }));
    let told = (!own).then(|| Signed::new(caller, line));
    let gone = delete_with_files(deps, &clip, told).await?;
    tracing::info!(
        clip.id = %id, owner = %gone.user_id, by = %caller.user_id, by_owner = own,
        size_bytes = gone.size_bytes, "clip deleted"
    );
    metrics::counter!("livekit_replay_clips_deleted_total").increment(1);
    let quota = quota_of(deps, &gone.user_id).await?;
    let remaining = quota.quota_bytes - quota.used_bytes - quota.reserved_bytes;
    Ok(Deleted {
        cancelled: gone.status == ClipStatus::Processing,
        freed_bytes: gone.size_bytes,
        remaining_quota_bytes: remaining.max(0),
    })
}

/// The row goes, then the files; answers the row as it was. `told` is the line of the audit log that goes with it.
///
/// # Errors
/// `not_found`, `storage_unavailable`.
pub(in crate::flow) async fn delete_with_files(
    deps: &Deps,
    clip: &Clip,
    told: Option<Signed>,
) -> Result<Clip> {
    let id = &clip.id;
    let files = ClipFiles::of(deps, &clip.user_id, id)?;
    // a store that is not there has no record to entomb: the clip would come back with the store
    stores::demand_ours(deps, Which::Clips).await?;
    let gone = match delete_row(deps, id, &files, told).await {
        Ok(gone) => gone,
        Err(error) => {
            // a commit whose answer got lost may have happened: the row decides what the tombstone means
            if let Err(error) = finish_deletion(deps, &clip.user_id, id).await {
                tracing::warn!(clip.id = %id, error = error.chain(), "a tombstone stays for now");
                deps.walks.want();
            }
            return Err(error);
        }
    };
    deps.wake.clips.notify_waiters();
    deps.wake.jobs.notify_waiters();
    // the row is gone: from here on the answer is yes, and what cannot be removed now the reaper removes
    if let Err(error) = files.remove_all().await {
        tracing::warn!(clip.id = %id, error = error.chain(), "files of a deleted clip stay for now");
        deps.walks.want();
    }
    Ok(gone)
}

/// Row, bytes, pin and job go together. Answers the row as it was.
async fn delete_row(
    deps: &Deps,
    id: &ClipId,
    files: &ClipFiles,
    told: Option<Signed>,
) -> Result<Clip> {
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    // in the order in which a finishing job takes its locks: job, clip, account
    job::cancel_of_clip(&tx, id, now).await?;
    if !clip::amend(&tx, id, None, None, false, now).await? {
        return Err(Error::not_found("clip"));
    }
    let clip = clip::load(&tx, id).await?;
    // under the row's lock, so that no publication comes after it; before the commit, so that nothing brings the
    // clip back once its row is gone
    files.entomb().await?;
    // nor has one that went meanwhile
    stores::demand_ours(deps, Which::Clips).await?;
    crash::point("between-tombstone-and-commit");
    if !clip::delete_if(&tx, id, &[clip.status]).await? {
        return Err(Error::not_found("clip"));
    }
    quota::settle(&tx, &clip.user_id, clip.reserved_bytes, -clip.size_bytes).await?;
    pin::delete_of_clip(&tx, id).await?;
    share::delete_of_clip(&tx, id).await?;
    wish::delete(&tx, id).await?;
    if let Some(told) = told {
        told.write(&tx, now).await?;
    }
    outbox::clip(&tx, EventKind::ClipDeleted, &clip, now).await?;
    outbox::commit(deps, tx).await?;
    crash::point("between-condemn-and-unlink");
    Ok(clip)
}

/// Finishes or undoes a deletion that a crash or a lost database interrupted: without a row the clip's files go,
/// with one its record comes back. Harmless where there is no tombstone and the row exists.
///
/// # Errors
/// `storage_unavailable`; call it again.
pub async fn finish_deletion(deps: &Deps, user: &UserId, id: &ClipId) -> Result<()> {
    let files = ClipFiles::of(deps, user, id)?;
    let tx = deps.db.begin().await?;
    // under the row's lock: a deletion that is on its way is waited for
    if clip::amend(&tx, id, None, None, false, deps.clock.now()).await? {
        files.exhume().await?;
        return store::commit(tx).await;
    }
    store::rollback(tx).await?;
    files.remove_all().await.map(drop)
}

/// Another attempt at a failed clip, as long as its pin holds. Reserves anew.
///
/// # Errors
/// `clip_not_ready` if it has not failed, `no_segments_in_range` if its segments are no longer kept, and what
/// [`capture::capture`] may fail with for want of room.
pub async fn retry(deps: &Deps, caller: &Caller, id: &ClipId) -> Result<Clip> {
    let failed = load_own(deps, caller, id).await?;
    retry_failed(deps, &failed, None).await
}

/// [`retry`], for whoever was found to have the right; `told` is the line of the audit log that goes with it.
///
/// # Errors
/// Those of [`retry`].
pub(in crate::flow) async fn retry_failed(
    deps: &Deps,
    failed: &Clip,
    told: Option<Signed>,
) -> Result<Clip> {
    let id = &failed.id;
    probe::demand(deps, Which::Clips).await?;
    if failed.status != ClipStatus::Failed {
        return Err(not_failed(failed));
    }
    if failed.trim_of.is_some() {
        return trim::retry(deps, failed, told).await;
    }
    probe::demand_readable(deps, Which::Buffer).await?;
    index::index_session(deps, &failed.session_id).await.map_err(session_gone)?;
    let free_bytes = stores::space(deps, Which::Clips).await?.free;
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    if !session::lock_for_pins(&tx, &failed.session_id).await? {
        return Err(too_late());
    }
    let clip = clip::load(&tx, id).await?;
    if clip.status != ClipStatus::Failed {
        return Err(not_failed(&clip));
    }
    let pin = pin::find_of_clip(&tx, id).await?;
    let Some(pin) = pin.filter(|pin| pin.expires_at.is_none_or(|at| at > now)) else {
        return Err(too_late());
    };
    let material = Material::load(&tx, &clip.session_id).await?;
    let resolved = ResolvedWindow {
        window: Window::new(clip.requested_from, clip.requested_to),
        precision: capture::precision_of(&clip),
    };
    let found = capture::judge(&material, &resolved, capture::gap_policy_of(&clip), now)?;
    let needed = found.needed_bytes(&material, resolved.window);
    let reserved = i64::try_from(needed).unwrap_or(i64::MAX);
    let promised = quota::sum_reserved(&tx).await?.saturating_add(needed);
    capture::check_disk(free_bytes, promised.saturating_add(deps.config.storage.min_free_bytes))?;
    // in the order of locks: clip, account
    if !clip::make_processing_again(&tx, id, reserved, now).await? {
        return Err(Error::new(Code::ClipNotReady, "This clip is being tried again already."));
    }
    capture::reserve(&tx, deps, &material.session.user_id, reserved, now).await?;
    if !pin::hold_again(&tx, &pin, now).await? {
        return Err(too_late());
    }
    let request_id = clip.request_id.clone();
    job::enqueue_render(&tx, id, &clip.user_id, capture::MAX_ATTEMPTS, request_id, now).await?;
    let again = clip::load(&tx, id).await?;
    outbox::clip(&tx, EventKind::ClipProcessing, &again, now).await?;
    if let Some(told) = told {
        told.write(&tx, now).await?;
    }
    outbox::commit(deps, tx).await?;
    tracing::info!(clip.id = %id, "clip tried again");
    deps.wake.jobs.notify_waiters();
    Ok(again)
}

fn session_gone(error: Error) -> Error {
    if error.code() == Code::NotFound { too_late() } else { error }
}

fn not_failed(clip: &Clip) -> Error {
    Error::new(Code::ClipNotReady, "Only a failed clip can be tried again.")
        .with("status", clip.status.as_str())
}

fn too_late() -> Error {
    Error::new(Code::NoSegmentsInRange, "The segments of this clip are no longer kept.")
        .with("available", serde_json::Value::Null)
}
