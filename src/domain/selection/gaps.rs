//! Why there is nothing: the holes before and between the parts of a plan, piece by piece.

use super::{
    Gap, GapReason, LISTED_GAP_US, Part, SegmentInput, SegmentState, Selection, runs::Run,
};
use crate::domain::{
    time::{Timestamp, Window},
    timeline::{EpochClock, pts_to_micros},
};

/// Bad segments that `wanted` accepts, where they would have been, in order.
pub(super) fn bad_spans(
    selection: &Selection<'_>,
    wanted: impl Fn(&SegmentInput) -> bool,
) -> Vec<(Window, GapReason)> {
    let mut spans: Vec<(Window, GapReason)> = selection
        .segments
        .iter()
        .filter(|segment| wanted(segment))
        .filter_map(|segment| {
            let SegmentState::Bad(reason) = segment.state else { return None };
            let clock = clock(selection, segment.epoch)?;
            let from = clock.screen_time(segment.pts_start);
            Some((Window::new(from, clock.screen_time(segment.pts_end)), reason))
        })
        .collect();
    spans.sort_by_key(|(span, _)| span.from);
    spans
}

fn clock(selection: &Selection<'_>, epoch: u32) -> Option<EpochClock> {
    selection.epochs.iter().find(|known| known.number == epoch)?.clock
}

/// The hole between two parts that follow each other; empty if they join within a frame.
pub(super) fn between(selection: &Selection<'_>, before: &Part, after: &Part) -> Vec<Gap> {
    let hole = Window::new(before.screen_to, after.screen_from);
    let (Some(last), Some(first)) = (before.segments.last(), after.segments.first()) else {
        return Vec::new();
    };
    let (last, first) = (&selection.segments[*last], &selection.segments[*first]);
    if before.epoch != after.epoch {
        if hole.micros() <= pts_to_micros(first.frame()) {
            return Vec::new();
        }
        let bad = bad_spans(selection, |segment| {
            let key = (segment.epoch, segment.number);
            key > (last.epoch, last.number) && key < (first.epoch, first.number)
        });
        return pieces(hole, &bad, GapReason::Restart);
    }
    let inside = |segment: &SegmentInput| {
        segment.epoch == last.epoch && (last.number + 1..first.number).contains(&segment.number)
    };
    let bad = bad_spans(selection, inside);
    let all_bad = bad.len() as u64 >= first.number - last.number - 1;
    let rest = match bad.first() {
        Some((_, reason)) if all_bad => *reason,
        _ => GapReason::Missing,
    };
    pieces(hole, &bad, rest)
}

/// What is missing between the window's start and the first part; empty unless it is long enough to be listed.
pub(super) fn head(selection: &Selection<'_>, run: &Run, first: &Part) -> Vec<Gap> {
    let segment = &selection.segments[first.segments[0]];
    let hole = Window::new(selection.window.from, first.screen_from);
    // a window that starts inside a run merely waits for the next frame
    let inside = run.clock.pts_at(hole.from) >= run.from_pts;
    if inside || hole.micros() < LISTED_GAP_US {
        return Vec::new();
    }
    let mut gaps = Vec::new();
    let mut from = hole.from;
    let session =
        selection.epochs.iter().filter_map(|epoch| Some((epoch.number, epoch.clock?.zero)));
    let recorded_from = session.min().map_or(hole.to, |(_, zero)| zero);
    from = step(&mut gaps, from, recorded_from.min(hole.to), GapReason::NotRecorded);
    if let Some(kept_from) = selection.buffer_starts_at {
        from = step(&mut gaps, from, kept_from.min(hole.to), GapReason::BeforeBuffer);
    }
    let bad = bad_spans(selection, |bad| (bad.epoch, bad.number) < (segment.epoch, segment.number));
    let older = selection.epochs.iter().any(|epoch| epoch.number < segment.epoch);
    let rest = match segment.number {
        0 if older => GapReason::Restart,
        _ => GapReason::Missing,
    };
    append_rest(&mut gaps, pieces(Window::new(from, hole.to), &bad, rest));
    gaps
}

/// A gap `[from, to)` if it is long enough, and where to go on.
fn step(gaps: &mut Vec<Gap>, from: Timestamp, to: Timestamp, reason: GapReason) -> Timestamp {
    if to.micros_since(from) < LISTED_GAP_US {
        return from;
    }
    gaps.push(Gap { from, to, reason });
    to
}

/// Adds what is left of the head; a remainder too short to list belongs to what precedes it.
fn append_rest(gaps: &mut Vec<Gap>, rest: Vec<Gap>) {
    for gap in rest {
        match gaps.last_mut() {
            Some(last) if gap.to.micros_since(gap.from) < LISTED_GAP_US => last.to = gap.to,
            _ => gaps.push(gap),
        }
    }
}

/// Divides a hole among the bad segments in it; what none of them covers gets `rest`, slivers go to a neighbour.
fn pieces(hole: Window, bad: &[(Window, GapReason)], rest: GapReason) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut at = hole.from;
    let mut push = |from: Timestamp, to: Timestamp, reason: GapReason| match gaps.last_mut() {
        Some(last) if last.reason == reason => last.to = to,
        _ => gaps.push(Gap { from, to, reason }),
    };
    for (span, reason) in bad {
        let Some(span) = span.intersect(&Window::new(at, hole.to)) else { continue };
        if span.from.micros_since(at) >= LISTED_GAP_US {
            push(at, span.from, rest);
            at = span.from;
        }
        push(at, span.to, *reason);
        at = span.to;
    }
    if at < hole.to && (at == hole.from || hole.to.micros_since(at) >= LISTED_GAP_US) {
        push(at, hole.to, rest);
        at = hole.to;
    }
    if at < hole.to
        && let Some(last) = gaps.last_mut()
    {
        last.to = hole.to;
    }
    gaps
}
