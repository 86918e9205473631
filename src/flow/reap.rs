//! Reaps what nobody owns any more: buffers of sessions that are over, directories without a session, pins and rows
//! whose time has passed, files in the clip store that no row knows.
//!
//! Only paths of our own pattern under our own instance id are ever removed. A directory's row is written before the
//! directory is made, and directories are listed before rows are asked; so one without a row has no owner.

mod clip_store;
mod rows;
mod walks;

pub use walks::Walks;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Deps, events, shares,
    stores::{self, Which},
};
use crate::{
    domain::{id::SessionId, keys, time::Timestamp},
    error::{Code, Result},
    media::files::{Entry, list_entries, remove_if_empty, remove_tree},
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        pin, segment, session,
    },
};

/// How long an epoch that was told to stop may take to flush its tail.
const FLUSH_SECONDS: i64 = 120;
/// A fresh directory is left alone for that long, whatever the rows say.
const YOUNGEST_SECONDS: i64 = 5;

/// What a pass did (or, dry, would have done).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Sessions whose buffer went because their time was over.
    pub buffers_removed: u64,
    /// Directories that no session owned.
    pub orphan_directories: u64,
    /// Pins that held nothing any more.
    pub stale_pins: u64,
    /// Failed clips older than a week.
    pub failed_clips: u64,
    /// Rows of things that are remembered for a while only.
    pub expired_rows: u64,
    /// Clips that got their row back from their record.
    pub clips_restored: u64,
    /// Deletions of clips finished that were interrupted.
    pub deletions_finished: u64,
    /// Sources held for trims that were never accepted, let go.
    pub sources_released: u64,
    /// Unknown files moved to `quarantine/`.
    pub quarantined: u64,
    /// Files removed from `quarantine/` after their week.
    pub quarantine_emptied: u64,
    /// Things the store would not let go of; the next pass tries again.
    pub failed: u64,
}

/// One pass; `thorough` also walks through the clip store. Each step is taken whatever became of the one before, or what
/// cannot be reaped in one place would keep everything everywhere.
///
/// # Errors
/// The first of its steps' once all were taken: `storage_unavailable` when a store is not there; nothing in it is
/// touched then.
pub async fn run(deps: &Deps, thorough: bool, dry_run: bool) -> Result<Counts> {
    let mut counts = Counts::default();
    let steps = [
        rows::expire(deps, dry_run, &mut counts).await,
        sweep_events(deps, dry_run, &mut counts).await,
        reap_buffer(deps, dry_run, &mut counts).await,
        reap_clips(deps, thorough, dry_run, &mut counts).await,
        // last, because it waits for somebody else
        if dry_run { Ok(()) } else { shares::catch_up(deps).await },
    ];
    for error in steps.iter().filter_map(|step| step.as_ref().err()) {
        tracing::warn!(error = %error.chain(), "a step of the reaper was not finished");
    }
    steps.into_iter().collect::<Result<()>>()?;
    Ok(counts)
}

async fn sweep_events(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    counts.expired_rows += events::sweep(deps, dry_run).await?;
    Ok(())
}

async fn reap_buffer(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    stores::demand_ours(deps, Which::Buffer).await?;
    remove_expired_buffers(deps, dry_run, counts).await?;
    remove_orphan_directories(deps, dry_run, counts).await
}

async fn reap_clips(deps: &Deps, thorough: bool, dry_run: bool, counts: &mut Counts) -> Result<()> {
    stores::demand_ours(deps, Which::Clips).await?;
    rows::delete_failed_clips(deps, dry_run, counts).await?;
    if thorough { clip_store::examine(deps, dry_run, counts).await } else { Ok(()) }
}

/// What the store would not do to one thing is for the next pass, and keeps nothing else from being done; unless the
/// whole store is away.
///
/// # Errors
/// Any but the store's own about that one thing.
async fn pass_over<T>(
    deps: &Deps,
    which: Which,
    what: &str,
    done: Result<T>,
    counts: &mut Counts,
) -> Result<Option<T>> {
    let error = match done {
        Ok(value) => return Ok(Some(value)),
        Err(error) if error.code() == Code::StorageUnavailable => error,
        Err(error) => return Err(error),
    };
    stores::demand_ours(deps, which).await?;
    counts.failed += 1;
    tracing::warn!(store = which.as_str(), what, error = %error.chain(), "could not be reaped");
    Ok(None)
}

/// Files in the clip store that no row knows.
///
/// # Errors
/// As [`run`].
pub async fn clip_store(deps: &Deps, dry_run: bool) -> Result<Counts> {
    let mut counts = Counts::default();
    clip_store::examine(deps, dry_run, &mut counts).await?;
    Ok(counts)
}

/// Sessions that are over, whose time to capture has passed, and which no pin holds.
async fn remove_expired_buffers(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    let now = deps.clock.now();
    for session in session::list_with_buffer(deps.db.conn()).await? {
        let past = session.capturable_until.is_none_or(|until| until <= now) || session.discard;
        if !session.status.is_final() || !past || may_flush(deps, &session.id, now).await? {
            continue;
        }
        if dry_run {
            let pins = pin::list_holding(deps.db.conn(), &session.id, now).await?;
            counts.buffers_removed += u64::from(pins.is_empty());
        } else if give_up_buffer(deps, &session, now).await? {
            let path = keys::session_path(
                &deps.instance,
                &session.room_name,
                &session.user_id,
                &session.id,
            )?;
            let done = remove_session_directory(deps, stores::in_buffer(&deps.config, &path)?);
            let done = done.await;
            let gone = pass_over(deps, Which::Buffer, &path, done, counts).await?;
            counts.buffers_removed += u64::from(gone.is_some());
        }
    }
    Ok(())
}

/// Whether files of the session may still be on their way: an egress writes its last ones after it was told to stop,
/// and would make the directory again.
async fn may_flush(deps: &Deps, session: &SessionId, now: Timestamp) -> Result<bool> {
    let epochs = epoch::list(deps.db.conn(), session).await?;
    Ok(epochs.iter().any(|epoch| {
        let told = epoch.stop_sent_at.unwrap_or(epoch.deadline_at.max(epoch.sent_at));
        epoch.status != EpochStatus::Ended && now < told.plus_seconds(FLUSH_SECONDS)
    }))
}

/// Says in the rows that the buffer is gone, unless a pin holds; from then on nobody can pin it, and whatever is left
/// of the directory has no owner.
async fn give_up_buffer(deps: &Deps, session: &session::Model, now: Timestamp) -> Result<bool> {
    let tx = deps.db.begin().await?;
    let locked = session::lock_for_pins(&tx, &session.id).await?;
    if !locked || !pin::list_holding(&tx, &session.id, now).await?.is_empty() {
        store::rollback(tx).await?;
        return Ok(false);
    }
    let change = session::ActiveModel {
        buffer_gone_at: Set(Some(now)),
        updated_at: Set(now),
        ..Default::default()
    };
    let gone = session::update_if(&tx, &session.id, &[session.status], change).await?;
    segment::delete_of(&tx, &session.id).await?;
    epoch::delete_of(&tx, &session.id).await?;
    if gone {
        store::commit(tx).await?
    } else {
        store::rollback(tx).await?
    }
    Ok(gone)
}

/// `<instance>/<room>/<user>/<session>` on disk whose session is unknown or has given up its buffer.
async fn remove_orphan_directories(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    let top = stores::in_buffer(&deps.config, deps.instance.as_str())?;
    let old_enough = deps.clock.now().plus_seconds(-YOUNGEST_SECONDS).as_micros();
    let work = move || {
        let found = walk(&top)?;
        if !dry_run {
            found.empty.iter().filter(|left| left.changed_us <= old_enough).for_each(|left| {
                remove_if_empty(&top.join(&left.relative));
            });
        }
        Ok(found)
    };
    let found = stores::work(&deps.stores, Which::Buffer, work).await?;
    counts.failed += found.unreadable;
    for found in found.sessions {
        let id = SessionId::new(&found.session);
        if found.changed_us > old_enough || is_owned(deps, &id, &found.relative).await? {
            continue;
        }
        let done = if dry_run {
            Ok(())
        } else {
            let instance = deps.config.storage.buffer.join(deps.instance.as_str());
            remove_session_directory(deps, instance.join(&found.relative)).await
        };
        let what = found.relative.to_string_lossy();
        let gone = pass_over(deps, Which::Buffer, &what, done, counts).await?;
        counts.orphan_directories += u64::from(gone.is_some());
    }
    Ok(())
}

async fn is_owned(deps: &Deps, id: &SessionId, relative: &Path) -> Result<bool> {
    let Some(session) = session::find(deps.db.conn(), id).await? else { return Ok(false) };
    let own =
        keys::session_path(&deps.instance, &session.room_name, &session.user_id, &session.id)?;
    // the right name in a place we did not give it is nothing we understand: hands off
    let in_place = Path::new(deps.instance.as_str()).join(relative) == Path::new(&own);
    Ok(session.buffer_gone_at.is_none() || !in_place)
}

#[derive(Default)]
struct Found {
    sessions: Vec<FoundDirectory>,
    /// Rooms and users without anything: what a process that died between two removals leaves.
    empty: Vec<Left>,
    /// Directories that could not be looked into.
    unreadable: u64,
}

struct FoundDirectory {
    session: String,
    relative: PathBuf,
    changed_us: i64,
}

struct Left {
    relative: PathBuf,
    changed_us: i64,
}

/// Directories that look like sessions of ours, and the empty ones above them. Blocking.
fn walk(top: &Path) -> std::io::Result<Found> {
    let mut found = Found::default();
    for room in directories_in(top)? {
        let Some(users) = found.look_into(&top.join(&room.name)) else { continue };
        if users.is_empty() {
            found.empty.push(Left { relative: (&room.name).into(), changed_us: room.changed_us });
        }
        for user in users {
            let relative = Path::new(&room.name).join(&user.name);
            let Some(sessions) = found.look_into(&top.join(&relative)) else { continue };
            if sessions.is_empty() {
                let relative = relative.clone();
                found.empty.push(Left { relative, changed_us: user.changed_us });
            }
            let sessions = sessions.into_iter().filter(|s| uuid::Uuid::try_parse(&s.name).is_ok());
            found.sessions.extend(sessions.map(|session| FoundDirectory {
                relative: relative.join(&session.name),
                session: session.name,
                changed_us: session.changed_us,
            }));
        }
    }
    Ok(found)
}

impl Found {
    /// One that cannot be looked into hides none of the others.
    fn look_into(&mut self, path: &Path) -> Option<Vec<Entry>> {
        let entries = directories_in(path);
        if let Err(error) = &entries {
            self.unreadable += 1;
            tracing::warn!(path = %path.display(), %error, "a directory of the buffer cannot be read");
        }
        entries.ok()
    }
}

fn directories_in(path: &Path) -> std::io::Result<Vec<Entry>> {
    let mut entries = list_entries(path)?;
    entries.retain(|entry| entry.is_directory);
    Ok(entries)
}

/// Removes a session's directory, and those of its user and room if they are empty then.
async fn remove_session_directory(deps: &Deps, path: PathBuf) -> Result<()> {
    stores::work(&deps.stores, Which::Buffer, move || {
        remove_tree(&path)?;
        let parents = path.ancestors().skip(1).take(2);
        // a start that makes its directory at this moment keeps them from being empty, or makes them again (`epoch`)
        let _emptied = parents.take_while(|parent| remove_if_empty(parent)).count();
        Ok(())
    })
    .await
}
