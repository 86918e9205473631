//! From a window and the segment index to what a clip is made of: parts to cut, gaps with their reasons.
//!
//! Everything is decided in media time of the epoch concerned and told in screen time. A frame belongs to `[t0, t1)`
//! if `t0 - 0.5 ms <= frame < t1 - 0.5 ms`: times outside have milliseconds, frames do not, and two adjoining windows
//! must neither share nor lose a frame.

mod coverage;
mod gaps;
mod runs;
#[cfg(test)]
mod tests;

pub use coverage::{Coverage, coverage, reservation_bytes};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::text_enum::text_enum;
use crate::{
    domain::{
        time::{Timestamp, Window},
        timeline::{EpochClock, pts_to_micros},
        window::Precision,
    },
    error::{Code, Error, Result},
};
use runs::Run;

/// Half a millisecond, the tolerance of a window's ends, in PTS units.
pub const HALF_MILLISECOND_PTS: i64 = 45;
/// Holes this long are always listed.
pub const LISTED_GAP_US: i64 = 100_000;
const LISTED_GAP_PTS: i64 = 9_000;

text_enum!(
    /// Why a piece of a window has no usable media.
    GapReason {
        /// Never arrived, or gone.
        Missing = "missing",
        /// Damaged inside.
        Corrupt = "corrupt",
        /// Cut short.
        Truncated = "truncated",
        /// Zero bytes.
        Empty = "empty",
        /// Not what our egress writes.
        Foreign = "foreign",
        /// Between two egresses.
        Restart = "restart",
        /// Before the session's first media.
        NotRecorded = "not_recorded",
        /// Was there and has expired.
        BeforeBuffer = "before_buffer",
    }
);

/// A piece of a window without usable media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Where it begins.
    pub from: Timestamp,
    /// Where it ends.
    pub to: Timestamp,
    /// Why.
    pub reason: GapReason,
}

/// One egress's part of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochInput {
    /// 1, 2, …
    pub number: u32,
    /// Fixed when its first segment was seen; none before.
    pub clock: Option<EpochClock>,
    /// When we asked for it.
    pub started_at: Timestamp,
    /// When its egress ended.
    pub ended_at: Option<Timestamp>,
    /// Nothing more will come: the egress is over and all it left is indexed.
    pub complete: bool,
}

/// Whether a segment may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// Passed the structural check.
    Usable,
    /// Did not, and why.
    Bad(GapReason),
}

/// A segment as indexed. Times in unwrapped PTS of its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInput {
    /// The epoch's number.
    pub epoch: u32,
    /// The segment's number within it.
    pub number: u64,
    /// First picture. For a bad one what its playlist label says; equal to `pts_end` if nothing is known.
    pub pts_start: i64,
    /// End of the last picture.
    pub pts_end: i64,
    /// Usable or not.
    pub state: SegmentState,
    /// Key frames, rising.
    pub key_frames: Vec<i64>,
    /// File size.
    pub size_bytes: u64,
    /// Nominal length of a picture in PTS units, 0 if unknown.
    pub frame_pts: i64,
    /// Whether there is an audio stream.
    pub has_audio: bool,
    /// Picture width.
    pub width: u32,
    /// Picture height.
    pub height: u32,
}

impl SegmentInput {
    fn usable(&self) -> bool {
        self.state == SegmentState::Usable
            && self.pts_end > self.pts_start
            && !self.key_frames.is_empty()
    }

    /// Length of a picture in PTS units, 30 per second where nobody knows.
    fn frame(&self) -> i64 {
        if self.frame_pts > 0 { self.frame_pts } else { 3000 }
    }

    /// The longest break in time stamps that is no hole: one frame, or anything too short to be listed.
    fn tolerance(&self) -> i64 {
        self.frame().max(LISTED_GAP_PTS - 1)
    }

    /// PTS of the first frame at or after `pts`, `pts_end` if there is none. Egress's frame rate is constant, so
    /// frames divide the segment evenly; dividing (not adding frame lengths up) keeps 59.94 fps exact.
    fn frame_at_or_after(&self, pts: i64) -> i64 {
        let span = self.pts_end - self.pts_start;
        let count = ((span + self.frame() / 2) / self.frame()).max(1);
        let place = |k: i64| self.pts_start + (k * span + count / 2) / count;
        let mut k = ((pts - self.pts_start) * count / span - 1).clamp(0, count);
        while k < count && place(k) < pts {
            k += 1;
        }
        place(k)
    }
}

/// A stretch of one epoch without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The epoch's number.
    pub epoch: u32,
    /// Indices into the segments given, in order; the first holds `decode_from_pts`.
    pub segments: Vec<usize>,
    /// The key frame decoding begins at, at or before the first frame taken.
    pub decode_from_pts: i64,
    /// Frames with `from_pts <= PTS < to_pts` are taken (the half millisecond is already in).
    pub from_pts: i64,
    /// See `from_pts`.
    pub to_pts: i64,
    /// When the first frame taken was on the screen.
    pub screen_from: Timestamp,
    /// When the last frame taken ended.
    pub screen_to: Timestamp,
}

/// What a clip is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In screen time's order; never empty.
    pub parts: Vec<Part>,
    /// In order; one at the head lies before `starts_at`, all others between the two.
    pub gaps: Vec<Gap>,
    /// The first frame.
    pub starts_at: Timestamp,
    /// The end of the last frame.
    pub ends_at: Timestamp,
    /// `ends_at - starts_at` less the gaps between.
    pub duration_us: i64,
    /// What lies before the window (key frame precision).
    pub preroll_us: i64,
    /// What is missing at the window's end, 0 within a frame.
    pub shortfall_us: i64,
}

/// All that selection looks at.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// What was asked for, screen time.
    pub window: Window,
    /// How exact the ends must be.
    pub precision: Precision,
    /// The session's epochs, any order.
    pub epochs: &'a [EpochInput],
    /// The session's indexed segments, any order; condemned ones left out.
    pub segments: &'a [SegmentInput],
    /// If media has expired: up to when. What lies before was there and is gone.
    pub buffer_starts_at: Option<Timestamp>,
}

/// Decides what a clip of the window is made of at this moment.
///
/// Fails with `no_segments_in_range` (with `available`) if nothing lies in the window, and `no_usable_segments` if
/// what lies there is all bad. For a live session more may still come: see [`coverage`].
pub fn plan(selection: &Selection<'_>) -> Result<Plan> {
    let runs = runs::runs(selection.epochs, selection.segments);
    let cuts: Vec<(&Run, Part)> =
        runs.iter().filter_map(|run| Some((run, cut(selection, run)?))).collect();
    let (Some((first_run, first)), Some((_, last))) = (cuts.first(), cuts.last()) else {
        return Err(nothing(selection, &runs));
    };
    let (starts_at, ends_at) = (first.screen_from, last.screen_to);
    let mut gaps = gaps::head(selection, first_run, first);
    let mut gap_us = 0;
    for pair in cuts.windows(2) {
        let between = gaps::between(selection, &pair[0].1, &pair[1].1);
        gap_us += between.iter().map(|gap| gap.to.micros_since(gap.from)).sum::<i64>();
        gaps.extend(between);
    }
    let shortfall_us = shortfall(selection.window, ends_at, last, selection.segments);
    Ok(Plan {
        starts_at,
        ends_at,
        duration_us: ends_at.micros_since(starts_at) - gap_us,
        preroll_us: selection.window.from.micros_since(starts_at).max(0),
        shortfall_us,
        gaps,
        parts: cuts.into_iter().map(|(_, part)| part).collect(),
    })
}

/// What is missing, microseconds, where a clip of the window ends at `ends_at` with its part `last`: 0 within a frame.
pub fn shortfall(
    window: Window,
    ends_at: Timestamp,
    last: &Part,
    segments: &[SegmentInput],
) -> i64 {
    let frame = last.segments.last().map_or(0, |index| segments[*index].frame());
    let short = window.to.micros_since(ends_at);
    if short <= pts_to_micros(frame + HALF_MILLISECOND_PTS) { 0 } else { short }
}

/// What of a run lies in the window; none if no frame does.
fn cut(selection: &Selection<'_>, run: &Run) -> Option<Part> {
    let segments = selection.segments;
    let low = run.clock.pts_at(selection.window.from) - HALF_MILLISECOND_PTS;
    let high = run.clock.pts_at(selection.window.to) - HALF_MILLISECOND_PTS;
    let (from, to) = (run.from_pts.max(low), run.to_pts.min(high));
    if from >= to {
        return None;
    }
    let last = run.segments.iter().rposition(|index| segments[*index].pts_start < to)?;
    let end_pts = segments[run.segments[last]].frame_at_or_after(to);
    let first_frame = run.segments[..=last].iter().find_map(|index| {
        let frame = segments[*index].frame_at_or_after(from.max(segments[*index].pts_start));
        (frame < segments[*index].pts_end).then_some(frame)
    })?;
    if first_frame >= end_pts {
        return None;
    }
    let key_by = match selection.precision {
        // at or before the window's start itself, where the run reaches that far back
        Precision::Keyframe => {
            run.from_pts.max(low + 2 * HALF_MILLISECOND_PTS).min(first_frame.max(run.from_pts))
        }
        Precision::Exact => first_frame,
    };
    let (key_segment, key) =
        run.segments[..=last].iter().enumerate().rev().find_map(|(n, index)| {
            let keys = &segments[*index].key_frames;
            keys.iter().rfind(|key| **key <= key_by).map(|key| (n, *key))
        })?;
    let (from_pts, first_pts) = match selection.precision {
        Precision::Keyframe => (key, key),
        Precision::Exact => (from, first_frame),
    };
    Some(Part {
        epoch: run.epoch,
        segments: run.segments[key_segment..=last].to_vec(),
        decode_from_pts: key,
        from_pts,
        to_pts: to,
        screen_from: run.clock.screen_time(first_pts),
        screen_to: run.clock.screen_time(end_pts),
    })
}

fn nothing(selection: &Selection<'_>, runs: &[Run]) -> Error {
    let spoilt = gaps::bad_spans(selection, |_| true)
        .iter()
        .any(|(span, _)| span.overlaps(&selection.window));
    if spoilt {
        return Error::new(
            Code::NoUsableSegments,
            "Nothing that was recorded in this window is usable.",
        );
    }
    let available = match (runs.first(), runs.last()) {
        (Some(first), Some(last)) => {
            let to = last.clock.screen_time(last.to_pts);
            json!({ "from": first.clock.screen_time(first.from_pts).to_rfc3339(), "to": to.to_rfc3339() })
        }
        _ => json!(null),
    };
    Error::new(Code::NoSegmentsInRange, "Nothing was recorded in this window.")
        .with("available", available)
}
