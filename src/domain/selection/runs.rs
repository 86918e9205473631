//! The time line of a session: stretches of usable media without a hole, epochs changed over where they overlap.

use super::{EpochInput, HALF_MILLISECOND_PTS, SegmentInput};
use crate::domain::{time::Timestamp, timeline::EpochClock};

/// Consecutive usable segments of one epoch. Begins with a key frame.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub epoch: u32,
    pub clock: EpochClock,
    /// Indices into the segments given, in order.
    pub segments: Vec<usize>,
    /// Frames with `from_pts <= PTS < to_pts` are the run's.
    pub from_pts: i64,
    pub to_pts: i64,
}

/// All runs of a session, in screen time's order, none overlapping another.
pub(super) fn runs(epochs: &[EpochInput], segments: &[SegmentInput]) -> Vec<Run> {
    let mut epochs: Vec<(&EpochInput, EpochClock)> =
        epochs.iter().filter_map(|epoch| Some((epoch, epoch.clock?))).collect();
    epochs.sort_by_key(|(epoch, _)| std::cmp::Reverse(epoch.number));
    epochs.dedup_by_key(|(epoch, _)| epoch.number);
    let mut all = Vec::new();
    // newest first: from its first key frame on, a newer epoch hides the older ones
    let mut hidden_from: Option<Timestamp> = None;
    for (epoch, clock) in epochs {
        let own = epoch_runs(epoch.number, clock, segments);
        let begins = own.first().map(|run| clock.screen_time(run.from_pts));
        let limit = hidden_from.map(|screen| clock.pts_at(screen) - HALF_MILLISECOND_PTS);
        all.extend(own.into_iter().filter_map(|run| until(run, limit, segments)));
        hidden_from = [hidden_from, begins].into_iter().flatten().min();
    }
    all.sort_by_key(|run| run.clock.screen_time(run.from_pts));
    all
}

fn epoch_runs(epoch: u32, clock: EpochClock, segments: &[SegmentInput]) -> Vec<Run> {
    let mut own: Vec<usize> = (0..segments.len())
        .filter(|index| segments[*index].epoch == epoch && segments[*index].usable())
        .collect();
    own.sort_by_key(|index| segments[*index].number);
    own.dedup_by_key(|index| segments[*index].number);
    let mut runs: Vec<Run> = Vec::new();
    for index in own {
        let segment = &segments[index];
        if let Some(run) = runs.last_mut() {
            let step = segment.pts_start - run.to_pts;
            if step < -segment.tolerance() {
                continue; // runs back in time: not of this time line
            }
            if step <= segment.tolerance() {
                run.to_pts = segment.pts_end;
                run.segments.push(index);
                continue;
            }
        }
        let from_pts = segment.key_frames[0].max(segment.pts_start);
        runs.push(Run { epoch, clock, segments: vec![index], from_pts, to_pts: segment.pts_end });
    }
    runs
}

/// The run up to `limit`; none if nothing is left.
fn until(mut run: Run, limit: Option<i64>, segments: &[SegmentInput]) -> Option<Run> {
    if let Some(limit) = limit {
        run.to_pts = run.to_pts.min(limit);
        run.segments.retain(|index| segments[*index].pts_start < limit);
    }
    (run.from_pts < run.to_pts).then_some(run)
}
