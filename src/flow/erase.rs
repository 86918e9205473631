//! Erases a user: his recordings, clips and rows, until a search of every table and of both stores finds nothing of
//! him. Each step may be repeated, so whoever finds an erasure broken off runs it again; what a crash leaves is in
//! `docs/invariants.md`. The audit log keeps that it happened, under a name that nobody can resolve any more.

mod files;

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;
use serde_json::json;

use super::{
    Deps,
    audit_log::{self, Line},
    crash, epoch as epoch_flow, library, place,
    stores::{self, Which},
};
use crate::{
    access::Caller,
    domain::{
        audit::Action,
        id::{ClipId, SessionId, UserId},
        lifecycle::EndReason,
    },
    error::{Code, Error, Result},
    livekit::Stopped,
    store::{
        self, audit, clip,
        epoch::{self, EpochStatus},
        session,
        trace::{self, Whose},
    },
};

/// How long his recordings may take to end; one whose egress never answers is given up then.
const QUIET: Duration = Duration::from_secs(25);
/// How often something that has to end is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long it is tried until nothing is found, after his recordings have ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was erased (or, dry, would be).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Erased {
    /// Whether it was only looked.
    pub dry_run: bool,
    /// Sessions.
    pub sessions: u64,
    /// Of these, buffers that were running.
    pub stopped: u64,
    /// Clips, of whatever state.
    pub clips: u64,
    /// Bytes of ready clips.
    pub clip_bytes: i64,
    /// Rows of other kinds; counted only when it is done.
    pub rows: u64,
    /// Directories and files in the stores beside those of clips that have a row.
    pub files: u64,
    /// Whether the search at the end found nothing.
    pub verified: bool,
}

/// Erases a user, or counts what there is of him.
///
/// # Errors
/// [`Code::PermissionDenied`] for whoever is no instance admin; [`Code::StorageUnavailable`] when a store is not there;
/// [`Code::Overloaded`] naming where something of him still is: run it again.
pub async fn erase(deps: &Deps, caller: &Caller, user: &UserId, dry_run: bool) -> Result<Erased> {
    audit_log::require_admin(deps, caller, user).await?;
    stores::demand_ours(deps, Which::Buffer).await?;
    stores::demand_ours(deps, Which::Clips).await?;
    let mut work = Work::of(user);
    if dry_run {
        return work.count(deps).await;
    }
    // before the first effect: an erasure that breaks off has its line
    audit_log::announce(deps, caller, Line::new(Action::UserErase).user(user)).await?;
    work.silence(deps).await?;
    let give_up_at = tokio::time::Instant::now() + PATIENCE;
    let left = loop {
        work.pass(deps).await?;
        let left = work.search(deps, false).await?;
        if left.is_empty() || tokio::time::Instant::now() >= give_up_at {
            break left;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    if !left.is_empty() {
        return Err(unfinished(&left));
    }
    crash::point("erase-before-forgetting");
    work.close(deps, caller).await?;
    let left = work.search(deps, true).await?;
    if !left.is_empty() {
        return Err(unfinished(&left));
    }
    deps.db.shed_deleted().await?;
    tracing::info!(
        sessions = work.done.sessions,
        clips = work.done.clips,
        rows = work.done.rows,
        "a user was erased"
    );
    Ok(Erased { verified: true, ..work.done })
}

fn unfinished(left: &[String]) -> Error {
    let detail =
        "Something of this user is still there, or came back while he was erased; run it again.";
    Error::new(Code::Overloaded, detail).with("left", left).retry_after(Duration::from_secs(5))
}

/// One erasure under way.
struct Work {
    user: UserId,
    /// Every session and clip of his that was seen, also those that are gone by now.
    sessions: BTreeSet<SessionId>,
    clips: BTreeSet<ClipId>,
    checksums: BTreeSet<String>,
    done: Erased,
}

impl Work {
    fn of(user: &UserId) -> Work {
        Work {
            user: user.clone(),
            sessions: BTreeSet::new(),
            clips: BTreeSet::new(),
            checksums: BTreeSet::new(),
            done: Erased::default(),
        }
    }

    fn whose(&self) -> Whose {
        Whose {
            user: self.user.clone(),
            sessions: self.sessions.iter().cloned().collect(),
            clips: self.clips.iter().cloned().collect(),
            checksums: self.checksums.iter().cloned().collect(),
        }
    }

    async fn count(mut self, deps: &Deps) -> Result<Erased> {
        let sessions = self.see_sessions(deps).await?;
        let clips = self.see_clips(deps).await?;
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Erased {
            dry_run: true,
            sessions: number(sessions.len()),
            stopped: number(sessions.iter().filter(|row| row.holds_place).count()),
            clips: number(clips.len()),
            clip_bytes: clips.iter().map(|row| row.size_bytes).sum(),
            rows: 0,
            files: number(files::search(deps, &self.user, &self.clips).await?.len()),
            verified: false,
        })
    }

    async fn see_sessions(&mut self, deps: &Deps) -> Result<Vec<session::Model>> {
        let rows = session::list_of_user(deps.db.conn(), &self.user).await?;
        self.sessions.extend(rows.iter().map(|row| row.id.clone()));
        Ok(rows)
    }

    async fn see_clips(&mut self, deps: &Deps) -> Result<Vec<clip::Model>> {
        let rows = clip::list_of_user(deps.db.conn(), &self.user).await?;
        self.clips.extend(rows.iter().map(|row| row.id.clone()));
        self.checksums.extend(rows.iter().filter_map(|row| row.checksum.clone()));
        Ok(rows)
    }

    /// Cancels what is being made of him, ends his recordings, and waits until nothing more comes from them.
    async fn silence(&mut self, deps: &Deps) -> Result<()> {
        self.delete_clips(deps).await?;
        let give_up_at = tokio::time::Instant::now() + QUIET;
        loop {
            let mut open = Vec::new();
            for row in self.see_sessions(deps).await? {
                self.done.stopped += u64::from(self.end_session(deps, &row).await?);
                let epochs = epoch::list(deps.db.conn(), &row.id).await?;
                open.extend(epochs.into_iter().filter(|row| row.status != EpochStatus::Ended));
            }
            if open.is_empty() {
                return Ok(());
            }
            for row in &open {
                end_recording(deps, row).await?;
            }
            if tokio::time::Instant::now() >= give_up_at {
                tracing::warn!(
                    recordings = open.len(),
                    "erasing beside recordings that do not end"
                );
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn end_session(&self, deps: &Deps, row: &session::Model) -> Result<bool> {
        if !row.holds_place {
            return Ok(false);
        }
        deps.filmstrips.forget(&row.id);
        place::end(deps, row, EndReason::Discarded, deps.clock.now()).await
    }

    async fn delete_clips(&mut self, deps: &Deps) -> Result<()> {
        for row in self.see_clips(deps).await? {
            match library::delete_with_files(deps, &row, None).await {
                Ok(gone) => {
                    self.done.clips += 1;
                    self.done.clip_bytes += gone.size_bytes;
                }
                // somebody else was faster
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        crash::point("erase-after-clips");
        Ok(())
    }

    /// Clips with their files, sessions with their directories, then all other rows and files.
    async fn pass(&mut self, deps: &Deps) -> Result<()> {
        self.delete_clips(deps).await?;
        for row in self.see_sessions(deps).await? {
            self.done.stopped += u64::from(self.end_session(deps, &row).await?);
            deps.filmstrips.forget(&row.id);
            let tx = deps.db.begin().await?;
            // after whoever pins or lists it
            session::lock_for_pins(&tx, &row.id).await?;
            let rows = trace::delete_session(&tx, &row.id).await?;
            store::commit(tx).await?;
            self.done.sessions += 1;
            self.done.rows += rows.saturating_sub(1);
        }
        crash::point("erase-after-sessions");
        let tx = deps.db.begin().await?;
        self.done.rows += trace::erase(&tx, &self.whose()).await?;
        store::commit(tx).await?;
        crash::point("erase-after-rows");
        self.done.files += files::remove(deps, &self.user, &self.clips).await?;
        Ok(())
    }

    /// Where something of him still is.
    async fn search(&self, deps: &Deps, with_persons: bool) -> Result<Vec<String>> {
        let mut left = trace::search(deps.db.conn(), &self.whose(), with_persons).await?;
        left.extend(files::search(deps, &self.user, &self.clips).await?);
        Ok(left)
    }

    /// Says in the audit log that it is done, and forgets in the same transaction who is meant.
    async fn close(&self, deps: &Deps, caller: &Caller) -> Result<()> {
        let done = &self.done;
        let line = Line::new(Action::UserErased).user(&self.user).after(json!({
            "sessions": done.sessions, "clips": done.clips, "clipBytes": done.clip_bytes,
            "rows": done.rows, "files": done.files,
        }));
        let tx = deps.db.begin().await?;
        audit_log::done(&tx, caller, line, deps.clock.now()).await?;
        audit::forget(&tx, &self.user).await?;
        store::commit(tx).await
    }
}

/// Tells an epoch's egress to end; the row ends when it is over.
async fn end_recording(deps: &Deps, row: &epoch::Model) -> Result<()> {
    let Some(egress) = &row.egress_id else {
        // whoever waits for the answer stops what comes of it, as the session is over
        let over = row.deadline_at <= deps.clock.now();
        return if over {
            epoch_flow::end(deps, row, "erased", None).await.map(drop)
        } else {
            Ok(())
        };
    };
    match deps.livekit.stop_egress(egress).await {
        Ok(Stopped::AlreadyOver) => epoch_flow::end(deps, row, "erased", None).await.map(drop),
        Ok(Stopped::Ending) => Ok(()),
        Err(error) => {
            tracing::debug!(egress.id = %egress, error = ?error, "a stop was not answered");
            Ok(())
        }
    }
}
