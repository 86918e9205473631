//! Deletes what the promise no longer covers. Rows first: a segment is condemned in the transaction in which the
//! session's pins are read, its bytes go after the commit, its row last. A crash between leaves condemned rows, whose
//! bytes the next pass removes.

use std::time::Duration;

use serde::Serialize;

use super::{
    Deps, crash,
    stores::{self, Which},
};
use crate::{
    domain::{
        lifecycle::media_end,
        playlist::segment_file_name,
        retention::{
            KeptSegment, Pressure, RetentionPlan, RetentionRules, SessionAge, plan_retention,
        },
        time::Timestamp,
    },
    error::Result,
    media::files::remove_plain,
    store::{self, epoch, pin, segment, session},
};

/// Condemned rows whose bytes are removed in one go.
const BATCH: u64 = 128;
/// Segments condemned in one transaction: it holds the session's row, and on SQLite everybody who writes.
const AT_ONCE: usize = 256;
/// Between two goes of a large sweep: disk and database are others', too. Nobody waits while the disk is critically full.
const PAUSE: Duration = Duration::from_millis(50);

/// What a pass did (or, dry, would have done).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Segments marked to go.
    pub condemned: u64,
    /// Old enough to go, kept by a pin.
    pub refused_pinned: u64,
    /// Files removed.
    pub deleted_files: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Files that could not be removed now; their rows stay condemned.
    pub failed_files: u64,
    /// Whether the disk was critically full.
    pub critical: bool,
    /// Of those condemned: younger than cleanup's age, taken because it was.
    pub evicted: u64,
}

/// One pass over every session with a buffer. `period` is the time between two passes.
///
/// # Errors
/// `storage_unavailable` when the buffer store is not there: then nothing is condemned and nothing deleted.
pub async fn run(deps: &Deps, period: Duration, dry_run: bool) -> Result<Counts> {
    stores::demand_ours(deps, Which::Buffer).await?;
    let mut pressure = pressure(deps).await?;
    let mut counts = Counts { critical: pressure == Pressure::Critical, ..Counts::default() };
    let mut sessions = session::list_with_buffer(deps.db.conn()).await?;
    if counts.critical {
        let now = deps.clock.now();
        sessions.sort_by_key(|session| age(session, now).eviction_rank(session.created_at));
    }
    for session in &sessions {
        let evicted = counts.evicted;
        condemn_of(deps, session, period, pressure, dry_run, &mut counts).await?;
        if counts.evicted > evicted && !dry_run {
            // no more is taken than is needed
            unlink_condemned(deps, pressure, &mut counts).await?;
            tell_eviction(session, counts.evicted - evicted);
            pressure = self::pressure(deps).await?;
        }
    }
    if !dry_run {
        crash::point("between-condemn-and-unlink");
        unlink_condemned(deps, pressure, &mut counts).await?;
        metrics::counter!("livekit_replay_segments_deleted_total").increment(counts.deleted_files);
        metrics::counter!("livekit_replay_segment_bytes_deleted_total")
            .increment(counts.deleted_bytes);
    }
    Ok(counts)
}

/// How full the disk is, asked now.
async fn pressure(deps: &Deps) -> Result<Pressure> {
    let space = stores::space(deps, Which::Buffer).await?;
    let critical = space.used_percent() >= deps.config.storage.critical_percent;
    Ok(if critical { Pressure::Critical } else { Pressure::Normal })
}

/// Condemns one session's expired segments, under the lock on which pins and condemnations meet.
async fn condemn_of(
    deps: &Deps,
    session: &session::Model,
    period: Duration,
    pressure: Pressure,
    dry_run: bool,
    counts: &mut Counts,
) -> Result<()> {
    // a look without a lock first: most sessions have nothing to give most of the time
    let now = deps.clock.now();
    let first = plan(deps, deps.db.conn(), session, now, period, pressure).await?;
    if first.condemn.is_empty() || dry_run {
        counts.condemned += first.condemn.len() as u64;
        counts.refused_pinned += first.kept_pinned as u64;
        return Ok(());
    }
    let ordinary = match pressure {
        Pressure::Normal => first.condemn.len(),
        Pressure::Critical => {
            let db = deps.db.conn();
            plan(deps, db, session, now, period, Pressure::Normal).await?.condemn.len()
        }
    };
    counts.evicted += (first.condemn.len() - ordinary.min(first.condemn.len())) as u64;
    loop {
        let tx = deps.db.begin().await?;
        if !session::lock_for_pins(&tx, &session.id).await? {
            return store::rollback(tx).await;
        }
        // as it is now: a session that ended since the pass began is owed its minutes from the end of its media
        let Some(current) = session::find(&tx, &session.id).await? else {
            return store::rollback(tx).await;
        };
        let plan = plan(deps, &tx, &current, now, period, pressure).await?;
        let mut condemned = 0;
        for (epoch, number) in plan.condemn.iter().take(AT_ONCE) {
            let one = segment::condemn_one(&tx, &session.id, *epoch, *number, now).await?;
            condemned += u64::from(one);
        }
        store::commit(tx).await?;
        counts.condemned += condemned;
        if plan.condemn.len() <= AT_ONCE || condemned == 0 {
            counts.refused_pinned += plan.kept_pinned as u64;
            return Ok(());
        }
        breathe(pressure).await;
    }
}

async fn breathe(pressure: Pressure) {
    match pressure {
        Pressure::Normal => tokio::time::sleep(PAUSE).await,
        Pressure::Critical => tokio::task::yield_now().await,
    }
}

fn tell_eviction(session: &session::Model, segments: u64) {
    metrics::counter!("livekit_replay_evictions_total").increment(segments);
    tracing::warn!(
        session.id = %session.id, segments,
        "the buffer's disk is critically full: what lies beyond the promised minutes went"
    );
}

async fn plan<C: store::Conn>(
    deps: &Deps,
    db: &C,
    session: &session::Model,
    now: Timestamp,
    period: Duration,
    pressure: Pressure,
) -> Result<RetentionPlan<(i32, i64)>> {
    let pins = pin::list_holding(db, &session.id, now).await?;
    let pinned: Vec<_> = pins.iter().map(pin::Model::window).collect();
    let spans = segment::list_spans(db, &session.id).await?;
    let segments: Vec<_> = spans
        .iter()
        .map(|row| KeptSegment { key: (row.epoch, row.number), span: row.window() })
        .collect();
    let longest = segments.iter().map(|segment| segment.span.micros()).max().unwrap_or(0);
    let longest = Duration::from_micros(longest.unsigned_abs());
    let rules = RetentionRules {
        promised: deps.config.buffer.length,
        cleanup: deps.config.buffer.cleanup,
        longest_segment: longest.max(deps.config.buffer.segment),
        cleanup_period: period,
    };
    Ok(plan_retention(now, age(session, now), &rules, pressure, &segments, &pinned))
}

/// From where the session's ages count back.
fn age(session: &session::Model, now: Timestamp) -> SessionAge {
    if session.discard {
        return SessionAge::Discarded;
    }
    let media_end = media_end(session.media_ends_at, session.ended_at);
    match (session.capturable_until, media_end.or(session.ended_at)) {
        (Some(capturable_until), Some(media_end)) if !session.status.holds_place() => {
            SessionAge::Ended { media_end, capturable_until }
        }
        // from the newest media that is known: after a pause of ours the session may be over, and nobody has looked yet
        _ => SessionAge::Live { until: session.media_ends_at.unwrap_or(now) },
    }
}

/// Removes the bytes of everything condemned, also of earlier passes that died. What will not go keeps its row for the
/// next pass, and keeps nothing behind it from going.
async fn unlink_condemned(deps: &Deps, pressure: Pressure, counts: &mut Counts) -> Result<()> {
    let mut stayed = 0;
    loop {
        let condemned = segment::list_condemned(deps.db.conn(), stayed, BATCH).await?;
        let mut gone = 0;
        for row in &condemned {
            if unlink(deps, row, counts).await? {
                segment::delete(deps.db.conn(), row).await?;
                gone += 1;
            }
        }
        let looked_at = condemned.len() as u64;
        stayed += looked_at - gone;
        if looked_at < BATCH {
            return Ok(());
        }
        if gone == 0 {
            // these files alone, or all of the store?
            stores::demand_ours(deps, Which::Buffer).await?;
        }
        breathe(pressure).await;
    }
}

/// Removes one file; true when it is gone for certain.
async fn unlink(deps: &Deps, row: &segment::Model, counts: &mut Counts) -> Result<bool> {
    let Some(epoch) = epoch::find(deps.db.conn(), &row.session_id, row.epoch).await? else {
        // its epoch went with its whole directory
        return Ok(true);
    };
    // spelt from the number, never from a row's text
    let name = segment_file_name(row.number.unsigned_abs());
    let path = stores::in_buffer(&deps.config, &epoch.path)?.join(name);
    match stores::work(&deps.stores, Which::Buffer, move || remove_plain(&path)).await {
        Ok(Some(bytes)) => {
            counts.deleted_files += 1;
            counts.deleted_bytes += bytes;
            Ok(true)
        }
        Ok(None) => {
            // gone already, or the mount is: only a store that is there may say so
            stores::demand_ours(deps, Which::Buffer).await?;
            Ok(true)
        }
        Err(error) => {
            counts.failed_files += 1;
            tracing::warn!(
                session.id = %row.session_id, number = row.number, error = %error.chain(),
                "an expired segment could not be removed"
            );
            Ok(false)
        }
    }
}
