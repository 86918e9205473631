//! Fixing an epoch's clock, once, when its first segment is seen.

use std::time::Duration;

use super::look::Seen;
use crate::{
    domain::{
        catalogue::{Candidate, LabelClock},
        time::Timestamp,
        timeline::{ClockBasis, EpochClock, PTS_BASE, clock_offset, unwrap_pts},
    },
    error::Result,
    flow::Deps,
    store::{
        Set,
        epoch::{self, Basis},
    },
};

/// How long LiveKit may take to say when the first packet came; then the label counts.
const STARTED_AT_BOUND: Duration = Duration::from_secs(2);

/// The epoch's clock if it is fixed.
pub fn clock_of(epoch: &epoch::Model) -> Option<LabelClock> {
    let basis = match epoch.basis? {
        Basis::StartedAt => ClockBasis::StartedAt,
        Basis::Label => ClockBasis::Label,
    };
    let clock = EpochClock { zero: epoch.zero_at?, delay_ms: epoch.delay_ms, basis };
    Some(LabelClock { clock, offset_us: epoch.clock_offset_us.unwrap_or(0) })
}

/// What the offset is, before it is kept with the clock. An answer that nobody heard came at some time until now.
fn offset_of(epoch: &epoch::Model, now: Timestamp) -> i64 {
    epoch.clock_offset_us.unwrap_or_else(|| match epoch.host_started_at {
        Some(host) => clock_offset(epoch.sent_at, epoch.answered_at.unwrap_or(now), host),
        None => 0,
    })
}

/// Fixes the epoch's clock by the segments seen, if it can be done yet; answers the clock as it then stands.
pub(super) async fn fix(
    deps: &Deps,
    epoch: &epoch::Model,
    seen: &[(Candidate, Seen)],
) -> Result<Option<LabelClock>> {
    if let Some(fixed) = clock_of(epoch) {
        return Ok(Some(fixed));
    }
    let now = deps.clock.now();
    let first_seen = epoch.first_seen_at.unwrap_or(now);
    let bound = first_seen.plus(STARTED_AT_BOUND);
    // a first file that is bad may be one that grows: the start of the time line has a little patience
    let Some((label, pts)) = anchor(seen, now > bound) else { return Ok(None) };
    if epoch.first_seen_at.is_none() {
        let change = epoch::ActiveModel { first_seen_at: Set(Some(now)), ..Default::default() };
        epoch::fix_clock(deps.db.conn(), &epoch.session_id, epoch.number, change).await?;
    }
    let started = match epoch.media_started_at {
        Some(started) => Some(started),
        None => ask(deps, epoch).await,
    };
    if started.is_none() && now < bound {
        return Ok(None);
    }
    let offset = offset_of(epoch, now);
    let delay = deps.config.livekit.pipeline_delay;
    let delay_ms = delay.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(0));
    let clock = EpochClock::fix(started, label, pts, offset, delay_ms);
    let change = epoch::ActiveModel {
        zero_at: Set(Some(clock.zero)),
        basis: Set(Some(match clock.basis {
            ClockBasis::StartedAt => Basis::StartedAt,
            ClockBasis::Label => Basis::Label,
        })),
        delay_ms: Set(clock.delay_ms),
        clock_offset_us: Set(Some(offset)),
        media_started_at: Set(started),
        ..Default::default()
    };
    let kept = epoch::fix_clock(deps.db.conn(), &epoch.session_id, epoch.number, change).await?;
    Ok(kept.as_ref().and_then(clock_of))
}

/// A label and the PTS of the same frame: of the first whole segment that is named; if there is none, egress's
/// first picture always has the base PTS.
fn anchor(seen: &[(Candidate, Seen)], patience_over: bool) -> Option<(Timestamp, i64)> {
    let good = seen.iter().find_map(|(candidate, seen)| match (seen, &candidate.entry) {
        (Seen::Good(facts), Some(entry)) => {
            Some((entry.label, unwrap_pts(raw_bits(facts.pts_first), PTS_BASE)))
        }
        _ => None,
    });
    good.or_else(|| {
        let (first, _) = seen.first()?;
        let entry = first.entry.as_ref().filter(|_| first.number == 0 && patience_over)?;
        Some((entry.label, PTS_BASE))
    })
}

/// The low 33 bits of a time stamp.
pub(super) fn raw_bits(pts: i64) -> u64 {
    pts.rem_euclid(1 << 33).unsigned_abs()
}

/// Asks LiveKit when the first packet came; no answer in time is no answer.
async fn ask(deps: &Deps, epoch: &epoch::Model) -> Option<Timestamp> {
    let egress = epoch.egress_id.as_ref()?;
    match tokio::time::timeout(STARTED_AT_BOUND, deps.livekit.find_egress(egress)).await {
        Ok(Ok(fact)) => fact?.media_started_at,
        Ok(Err(error)) => {
            tracing::debug!(session = %epoch.session_id, error = %error.chain(), "egress not told");
            None
        }
        Err(_) => None,
    }
}
