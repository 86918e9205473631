//! Whether more media is still to come for a window, and how many bytes a clip of it may need.

use super::{EpochInput, SegmentInput};
use crate::domain::time::{Timestamp, Window};

/// A hole this close to the newest segment may still be filled: copies can land out of order.
const LATE_SEGMENTS: u64 = 2;

/// How complete the index is for a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Nothing more will come for it.
    Covered,
    /// Media from here to the window's end may still arrive.
    Waiting {
        /// The end of what is known, within the window.
        from: Timestamp,
    },
}

/// Whether all that can come for `window` is indexed: segments reach its end, or all epochs are over.
///
/// `session_over`: no further epoch will start. What is bad counts as arrived: it will not get better.
pub fn coverage(
    window: Window,
    epochs: &[EpochInput],
    segments: &[SegmentInput],
    now: Timestamp,
    session_over: bool,
) -> Coverage {
    let mut pending: Option<Timestamp> = None;
    let mut known_to = window.from;
    let mut newer_from: Option<Timestamp> = None;
    let mut ordered: Vec<&EpochInput> = epochs.iter().collect();
    ordered.sort_by_key(|epoch| std::cmp::Reverse(epoch.number));
    for epoch in ordered {
        let (begins, ends) = known(epoch, segments);
        known_to = known_to.max(ends);
        // an older epoch matters only up to where a newer one takes over
        let needed_to = newer_from.map_or(window.to, |from| from.min(window.to));
        if !epoch.complete && begins < needed_to && ends < needed_to {
            let from = late_hole(epoch, segments).unwrap_or(ends).min(ends);
            pending = Some(pending.map_or(from, |known| known.min(from)));
        } else if !epoch.complete
            && let Some(from) = late_hole(epoch, segments)
            && from < needed_to
        {
            pending = Some(pending.map_or(from, |known| known.min(from)));
        }
        if has_segments(epoch, segments) {
            newer_from = Some(newer_from.map_or(begins, |known| known.min(begins)));
        }
    }
    // between two egresses, or before the first: one that starts yet may see the window's end
    if pending.is_none() && !session_over && window.to > now && known_to < window.to {
        pending = Some(known_to);
    }
    match pending {
        Some(from) => Coverage::Waiting { from: from.max(window.from).min(window.to) },
        None => Coverage::Covered,
    }
}

fn has_segments(epoch: &EpochInput, segments: &[SegmentInput]) -> bool {
    epoch.clock.is_some() && segments.iter().any(|segment| segment.epoch == epoch.number)
}

/// From when to when (screen time, to within a frame) media of the epoch is indexed.
fn known(epoch: &EpochInput, segments: &[SegmentInput]) -> (Timestamp, Timestamp) {
    let own = || segments.iter().filter(|segment| segment.epoch == epoch.number);
    let Some(clock) = epoch.clock else { return (epoch.started_at, epoch.started_at) };
    let begins = own().map(|segment| segment.pts_start).min().map(|pts| clock.screen_time(pts));
    let ends = own().max_by_key(|segment| segment.pts_end).map(|segment| {
        // the window's last frame is there if the next one would begin after the window
        clock.screen_time(segment.pts_end + segment.frame())
    });
    let begins = begins.unwrap_or(clock.zero);
    (begins, ends.unwrap_or(begins))
}

/// Where the newest segments of an epoch have a number left out.
fn late_hole(epoch: &EpochInput, segments: &[SegmentInput]) -> Option<Timestamp> {
    let clock = epoch.clock?;
    let mut own: Vec<&SegmentInput> =
        segments.iter().filter(|segment| segment.epoch == epoch.number).collect();
    own.sort_by_key(|segment| segment.number);
    let newest = own.last()?.number;
    own.windows(2)
        .find(|pair| pair[1].number > pair[0].number + 1 && pair[1].number + LATE_SEGMENTS > newest)
        .map(|pair| clock.screen_time(pair[0].pts_end))
}

/// What a clip of the window may need at most: the bytes of every segment the window touches, what is still to come
/// at 1.5 times the session's highest byte rate, and 1 MiB.
pub fn reservation_bytes(
    window: Window,
    epochs: &[EpochInput],
    segments: &[SegmentInput],
    coverage: Coverage,
    highest_bytes_per_second: u64,
) -> u64 {
    // an end within half a millisecond of a segment's edge means that edge, as in selection
    let touching = Window::new(window.from.plus_micros(500), window.to.plus_micros(-500));
    let touched: u64 = segments
        .iter()
        .filter(|segment| {
            let clock = epochs.iter().find(|epoch| epoch.number == segment.epoch);
            let Some(clock) = clock.and_then(|epoch| epoch.clock) else { return false };
            let (from, to) =
                (clock.screen_time(segment.pts_start), clock.screen_time(segment.pts_end));
            Window::new(from, to).overlaps(&touching)
        })
        .map(|segment| segment.size_bytes)
        .fold(0, u64::saturating_add);
    let missing_us = match coverage {
        Coverage::Covered => 0,
        Coverage::Waiting { from } => u128::try_from(window.to.micros_since(from)).unwrap_or(0),
    };
    let to_come = (missing_us * u128::from(highest_bytes_per_second) * 3).div_ceil(2_000_000);
    touched.saturating_add(u64::try_from(to_come).unwrap_or(u64::MAX)).saturating_add(1024 * 1024)
}
