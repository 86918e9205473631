//! Keeps the index of segments: reads what egress wrote, checks it, turns it into rows in screen time.
//!
//! The playlists are the truth about which files are complete, the directory about which are there. Nothing is told
//! to us by events, so this loop finds everything again after any pause. Several replicas may index the same epoch at
//! once: a row is written by whoever is first, and both would write the same.

mod clock;
mod look;
mod recheck;
mod rows;

use std::{path::Path, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

pub use self::clock::clock_of;
pub(in crate::flow) use self::recheck::{Place, recheck, take_back};
use self::{look::Seen, rows::Written};
use crate::{
    domain::{
        catalogue::{Candidate, Known, candidates, has_hole},
        id::SessionId,
        lifecycle::{SessionStatus, media_end},
        playlist::EgressPlaylist,
        time::Timestamp,
    },
    error::{Error, Result},
    flow::{
        Deps, outbox,
        stores::{self, Which},
    },
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        segment::{self, Brief, SegmentState},
        session,
    },
};

/// How long after its end an epoch is still looked at: its last files may be on the way.
const AFTER_END: Duration = Duration::from_secs(60);
/// How long a file that is named but not there is looked for again (attribute caches of network file systems).
const MISSING_PATIENCE: Duration = Duration::from_secs(30);
/// Sessions indexed at once.
const SESSIONS_AT_ONCE: usize = 8;
/// Segments of one epoch read at once.
const FILES_AT_ONCE: usize = 4;

/// What a look at a session brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Indexed {
    /// Segments that were not indexed before, or have become usable.
    pub new: u64,
    /// Those of them that are not usable.
    pub bad: u64,
    /// Segments now indexed, of the epochs looked at.
    pub total: u64,
    /// Epochs whose segments wait until their clock can be fixed.
    pub waiting_for_clock: u64,
}

impl Indexed {
    fn add(&mut self, other: Indexed) {
        self.new += other.new;
        self.bad += other.bad;
        self.total += other.total;
        self.waiting_for_clock += other.waiting_for_clock;
    }
}

/// Indexes what the session's epochs brought: those that may still record, or did until a minute ago.
///
/// # Errors
/// `storage_unavailable` when the buffer store hangs or cannot be read, `not_found` for an unknown session; what was
/// indexed until then stays indexed.
pub async fn index_session(deps: &Deps, id: &SessionId) -> Result<Indexed> {
    index(deps, id, Some(deps.clock.now().minus(AFTER_END))).await
}

/// Indexes all epochs of a session, also those that ended long ago (after a pause of ours).
///
/// # Errors
/// As [`index_session`].
pub async fn index_whole_session(deps: &Deps, id: &SessionId) -> Result<Indexed> {
    index(deps, id, None).await
}

async fn index(deps: &Deps, id: &SessionId, ended_after: Option<Timestamp>) -> Result<Indexed> {
    let session = session::load(deps.db.conn(), id).await?;
    let mut all = Indexed::default();
    let past = session.capturable_until.is_some_and(|until| until <= deps.clock.now());
    let given_up = session.status.is_final() && (past || session.discard);
    if session.buffer_gone_at.is_some() || given_up {
        // cleanup takes everything there: nothing that is gone is missed
        return Ok(all);
    }
    for epoch in epoch::list(deps.db.conn(), id).await? {
        let over = epoch.ended_at.filter(|_| epoch.status == EpochStatus::Ended);
        let due = over.is_none_or(|at| ended_after.is_none_or(|after| at > after));
        if due {
            all.add(index_epoch(deps, &session, &epoch).await?);
        }
    }
    if all.new > 0 {
        // whoever waits now, and whoever is about to
        deps.wake.jobs.notify_waiters();
        deps.wake.jobs.notify_one();
    }
    Ok(all)
}

/// Indexes everything that records about twice per segment, until told to stop.
pub async fn run(deps: Deps) {
    let period = (deps.config.buffer.segment / 2).max(Duration::from_millis(250));
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // what ended while nobody looked is found at the first pass
    let mut first = true;
    while deps.stop.run_until_cancelled(tick.tick()).await.is_some() {
        let pass = pass(&deps, first);
        match deps.stop.run_until_cancelled(pass).await {
            None => break,
            Some(Ok(())) => first = false,
            Some(Err(error)) => tracing::warn!(error = %error.chain(), "indexing.failed"),
        }
    }
}

/// One look at every session that may have brought something.
async fn pass(deps: &Deps, everything: bool) -> Result<()> {
    let conn = deps.db.conn();
    let sessions = if everything {
        session::list_with_buffer(conn).await?.into_iter().map(|session| session.id).collect()
    } else {
        epoch::list_sessions_recording(conn, deps.clock.now().minus(AFTER_END)).await?
    };
    stream::iter(sessions)
        .for_each_concurrent(SESSIONS_AT_ONCE, async |id| {
            let ended_after = (!everything).then(|| deps.clock.now().minus(AFTER_END));
            if let Err(error) = index(deps, &id, ended_after).await {
                tracing::warn!(session = %id, error = %error.chain(), "indexing.session_failed");
            }
        })
        .await;
    Ok(())
}

async fn index_epoch(
    deps: &Deps,
    session: &session::Model,
    epoch: &epoch::Model,
) -> Result<Indexed> {
    let directory = stores::in_buffer(&deps.config, &epoch.path)?;
    let rows = segment::list_brief(deps.db.conn(), &epoch.session_id, epoch.number).await?;
    let horizon = horizon(deps, session);
    let total = rows.len() as u64;
    let known = known(deps, &rows);
    let (wanted, ended) = wanted(deps, epoch, &directory, &known, horizon).await?;
    if wanted.is_empty() {
        if ended && !epoch.playlist_ended {
            rows::note_end(deps, epoch).await?;
        }
        return Ok(Indexed { total, ..Indexed::default() });
    }
    let seen = look(deps, &directory, wanted).await?;
    if seen.is_empty() {
        return Ok(Indexed { total, ..Indexed::default() });
    }
    let Some(clock) = clock::fix(deps, epoch, &seen).await? else {
        return Ok(Indexed { total, waiting_for_clock: 1, ..Indexed::default() });
    };
    let rows = rows::rows_of(deps, epoch, &clock, &rows, &seen, horizon);
    let Written { new, bad } = rows::write(deps, session, epoch, rows, ended).await?;
    Ok(Indexed { new, bad, total: total + new, waiting_for_clock: 0 })
}

/// What the playlists and the directory say is to be looked at, and whether egress said it will add nothing. The
/// event playlist and the directory are read only when the live playlist leaves something open.
async fn wanted(
    deps: &Deps,
    epoch: &epoch::Model,
    directory: &Path,
    known: &[Known],
    horizon: Timestamp,
) -> Result<(Vec<Candidate>, bool)> {
    let at = directory.to_owned();
    let live = stores::work(&deps.stores, Which::Buffer, move || look::live(&at)).await?;
    let ending = live.ended && !epoch.playlist_ended;
    if !live.entries.is_empty() && !ending && !has_hole(known, &live, horizon) {
        let none = EgressPlaylist::default();
        return Ok((candidates(known, [&live, &none], &[].into()), live.ended));
    }
    let at = directory.to_owned();
    let listing = stores::work(&deps.stores, Which::Buffer, move || look::listing(&at)).await?;
    let Some(look::Listing { event, numbers }) = listing else { return Ok((Vec::new(), false)) };
    Ok((candidates(known, [&live, &event], &numbers), live.ended || event.ended))
}

/// Reads and inspects files, a few at once, in order of their numbers. Files whose whole directory has vanished are
/// left out: nothing is known of them.
async fn look(
    deps: &Deps,
    directory: &Path,
    wanted: Vec<Candidate>,
) -> Result<Vec<(Candidate, Seen)>> {
    stream::iter(wanted)
        .map(|candidate| {
            let (at, number) = (directory.to_owned(), candidate.number);
            async move {
                let work = move || look::segment(&at, number);
                let seen = stores::work(&deps.stores, Which::Buffer, work).await?;
                Ok::<_, Error>((candidate, seen))
            }
        })
        .buffered(FILES_AT_ONCE)
        .try_filter(|(_, seen)| std::future::ready(!matches!(seen, Seen::NoDirectory)))
        .try_collect()
        .await
}

/// What is indexed, and what of it may still turn out better.
fn known(deps: &Deps, rows: &[Brief]) -> Vec<Known> {
    let now = deps.clock.now();
    let young = |row: &Brief| match row.state {
        SegmentState::Usable => false,
        SegmentState::Missing => now < row.indexed_at.plus(MISSING_PATIENCE),
        _ => now < row.indexed_at.plus(deps.config.buffer.segment * 2),
    };
    rows.iter()
        .map(|row| Known {
            number: row.number.unsigned_abs(),
            recheck: row.condemned_at.is_none() && young(row),
            starts_at: row.starts_at,
        })
        .collect()
}

/// What ended before this is beyond the promised minutes: cleanup may have taken it, so it is not missed.
fn horizon(deps: &Deps, session: &session::Model) -> Timestamp {
    let now = deps.clock.now();
    let end = match media_end(session.media_ends_at, session.ended_at) {
        Some(end) if session.status.is_final() => end.min(now),
        _ => now,
    };
    end.minus(deps.config.buffer.length)
}

/// Media came: a session that was starting is active, and the first is told. `before` is its row, locked, as it was.
async fn media_came(tx: &store::Tx, deps: &Deps, before: &session::Model) -> Result<()> {
    let change = session::ActiveModel {
        status: Set(SessionStatus::Active),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    session::update_if(tx, &before.id, &[SessionStatus::Starting], change).await?;
    match before.media_starts_at {
        None => outbox::first_media(tx, &before.id, deps.clock.now()).await,
        Some(_) => Ok(()),
    }
}
