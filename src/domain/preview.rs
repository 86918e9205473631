//! HLS of what is recorded: which segments a player is told of, in which order, under which numbers, and the
//! playlist's text.
//!
//! A player must never see a list change but at its ends. So what has been listed is remembered as [`Stretch`]es, and
//! [`advance`] only ever adds behind them: a segment that turns up late, after later ones were listed, stays out of
//! the preview (captures find it all the same). Numbers count what was listed, whether it is still there or not.

use std::{collections::HashMap, fmt::Write};

use super::{
    selection::{EpochInput, SegmentInput},
    time::{Timestamp, Window},
    timeline::{EpochClock, pts_to_micros},
};

/// A number left out may still arrive until this many later ones have: files can land out of order.
const LATE_SEGMENTS: u64 = 2;

/// Consecutive segments of one epoch without a hole between them, as players were told of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Stretches before it.
    pub run: u64,
    /// The epoch's number.
    pub epoch: u32,
    /// Its first segment's number.
    pub first_number: u64,
    /// Its last segment's number so far.
    pub last_number: u64,
    /// Segments listed before its first.
    pub first_sequence: u64,
    /// The longest segment of it.
    pub longest_us: i64,
}

impl Stretch {
    fn next_sequence(&self) -> u64 {
        self.first_sequence + (self.last_number - self.first_number) + 1
    }
}

/// What can be listed.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// The session's epochs, any order.
    pub epochs: &'a [EpochInput],
    /// Its segments that are not condemned, any order.
    pub segments: &'a [SegmentInput],
    /// Only what touches this window; all without one.
    pub within: Option<Window>,
    /// Nothing more comes for it: no hole is waited for.
    pub settled: bool,
}

impl Recorded<'_> {
    fn clock(&self, epoch: u32) -> Option<EpochClock> {
        self.epochs.iter().find(|known| known.number == epoch)?.clock
    }

    /// Usable segments of an epoch behind `after`, in order.
    fn usable(&self, epoch: u32, after: Option<u64>) -> Vec<&SegmentInput> {
        let mut own: Vec<_> = self
            .segments
            .iter()
            .filter(|segment| segment.epoch == epoch && segment.usable())
            .filter(|segment| after.is_none_or(|after| segment.number > after))
            .filter(|segment| self.is_within(segment))
            .collect();
        own.sort_by_key(|segment| segment.number);
        own
    }

    fn is_within(&self, segment: &SegmentInput) -> bool {
        let span = self.span(segment);
        self.within.is_none_or(|within| span.is_some_and(|span| span.overlaps(&within)))
    }

    fn span(&self, segment: &SegmentInput) -> Option<Window> {
        let clock = self.clock(segment.epoch)?;
        Some(Window::new(clock.screen_time(segment.pts_start), clock.screen_time(segment.pts_end)))
    }

    /// When a newer epoch takes over from this one.
    fn taken_over_at(&self, epoch: u32) -> Option<Timestamp> {
        let newer = self.epochs.iter().filter(|other| other.number > epoch);
        let begins = newer.filter_map(|other| {
            let own = self.segments.iter().filter(|segment| segment.epoch == other.number);
            let first = own.filter(|segment| segment.usable()).min_by_key(|one| one.number)?;
            Some(other.clock?.screen_time(*first.key_frames.first()?))
        });
        begins.min()
    }

    /// Whether nothing more of the epoch will be listed before the next one's.
    fn is_done(&self, epoch: u32) -> bool {
        let Some(known) = self.epochs.iter().find(|known| known.number == epoch) else {
            return true;
        };
        if self.settled || known.complete {
            return true;
        }
        let (Some(clock), Some(taken_over)) = (known.clock, self.taken_over_at(epoch)) else {
            return false;
        };
        let own = self.segments.iter().filter(|segment| segment.epoch == epoch);
        let reached = own
            .max_by_key(|segment| segment.pts_end)
            .is_some_and(|last| clock.screen_time(last.pts_end + last.tolerance()) >= taken_over);
        // or the newer one goes on and on: what is not here by now is very late
        let newer = self.segments.iter().filter(|segment| segment.epoch > epoch).count();
        reached || u64::try_from(newer).unwrap_or(u64::MAX) > LATE_SEGMENTS
    }

    /// Whether a number left out before `number` may be passed over.
    fn may_pass(&self, epoch: u32, number: u64) -> bool {
        let own = self.segments.iter().filter(|segment| segment.epoch == epoch);
        let newest = own.map(|segment| segment.number).max().unwrap_or(0);
        newest >= number.saturating_add(LATE_SEGMENTS) || self.is_done(epoch)
    }

    /// The first epoch behind `after` that has anything to list or to wait for.
    fn next_epoch(&self, after: Option<u32>) -> Option<u32> {
        let behind = |epoch: &&EpochInput| after.is_none_or(|after| epoch.number > after);
        let with_media = |epoch: &u32| self.segments.iter().any(|one| one.epoch == *epoch);
        self.epochs.iter().filter(behind).map(|epoch| epoch.number).filter(with_media).min()
    }
}

/// What was listed, and behind it what can be listed now.
pub fn advance(listed: &[Stretch], recorded: &Recorded<'_>) -> Vec<Stretch> {
    let mut all = listed.to_vec();
    let mut epoch = match all.last() {
        Some(last) => Some(last.epoch),
        None => recorded.next_epoch(None),
    };
    while let Some(current) = epoch {
        extend(&mut all, recorded, current);
        if !recorded.is_done(current) {
            break;
        }
        epoch = recorded.next_epoch(Some(current));
    }
    all
}

/// Lists what one epoch has.
fn extend(all: &mut Vec<Stretch>, recorded: &Recorded<'_>, epoch: u32) {
    let Some(clock) = recorded.clock(epoch) else { return };
    let limit = recorded.taken_over_at(epoch);
    let last_of = |all: &[Stretch]| all.last().filter(|last| last.epoch == epoch).cloned();
    let mut last_pts = last_of(all).and_then(|last| {
        let find = |one: &&SegmentInput| one.epoch == epoch && one.number == last.last_number;
        recorded.segments.iter().find(find).map(|segment| segment.pts_end)
    });
    let after = last_of(all).map(|last| last.last_number);
    for segment in recorded.usable(epoch, after) {
        let first_shown = clock.screen_time(segment.pts_start + segment.frame_pts.max(0));
        if limit.is_some_and(|limit| first_shown > limit) {
            return;
        }
        // runs back in time: not of this time line
        let step = last_pts.map(|last| segment.pts_start - last);
        if step.is_some_and(|step| step < -segment.tolerance()) {
            continue;
        }
        let last = last_of(all);
        let expected = last.as_ref().map_or(0, |last| last.last_number + 1);
        if segment.number > expected && !recorded.may_pass(epoch, segment.number) {
            return;
        }
        let joins = segment.number == expected
            && step.is_some_and(|step| step <= segment.tolerance())
            && last.is_some();
        put(all, segment, joins);
        last_pts = Some(segment.pts_end);
    }
}

fn put(all: &mut Vec<Stretch>, segment: &SegmentInput, joins: bool) {
    let length = pts_to_micros(segment.pts_end - segment.pts_start);
    if let (Some(last), true) = (all.last_mut(), joins) {
        last.last_number = segment.number;
        last.longest_us = last.longest_us.max(length);
        return;
    }
    all.push(Stretch {
        run: all.last().map_or(0, |last| last.run + 1),
        epoch: segment.epoch,
        first_number: segment.number,
        last_number: segment.number,
        first_sequence: all.last().map_or(0, Stretch::next_sequence),
        longest_us: length,
    });
}

/// A segment of a playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its number in the playlist's own count.
    pub sequence: u64,
    /// Segments of one run follow each other without a break in time stamps.
    pub run: u64,
    /// The epoch's number.
    pub epoch: u32,
    /// The segment's number in it.
    pub number: u64,
    /// First picture, screen time; none if it is gone.
    pub starts_at: Option<Timestamp>,
    /// True length; zero if it is gone.
    pub duration_us: i64,
}

/// The segments of a playlist: of what was listed that which is still there, from the first that reaches into the
/// last `length_us` of it. One that vanished between others keeps its place.
pub fn items(listed: &[Stretch], recorded: &Recorded<'_>, length_us: Option<i64>) -> Vec<Item> {
    let usable = recorded.segments.iter().filter(|segment| segment.usable());
    let there: HashMap<_, _> = usable.map(|one| ((one.epoch, one.number), one)).collect();
    let mut items = Vec::new();
    for stretch in listed {
        // hours of what is long gone are not walked through
        let own = there.keys().filter(|(epoch, _)| *epoch == stretch.epoch);
        let oldest = own.map(|(_, number)| *number).min().unwrap_or(u64::MAX);
        for number in stretch.first_number.max(oldest)..=stretch.last_number {
            let span = there.get(&(stretch.epoch, number)).and_then(|one| recorded.span(one));
            items.push(Item {
                sequence: stretch.first_sequence + (number - stretch.first_number),
                run: stretch.run,
                epoch: stretch.epoch,
                number,
                starts_at: span.map(|span| span.from),
                duration_us: span.map_or(0, |span| span.micros()),
            });
        }
    }
    let ends = |item: &Item| Some(item.starts_at?.plus_micros(item.duration_us));
    // of what was listed, not of the clock: this moves on only, also when the session ends
    let newest = items.iter().filter_map(ends).max();
    let horizon = newest.zip(length_us).map(|(newest, length)| newest.plus_micros(-length));
    let first = items
        .iter()
        .position(|item| ends(item).is_some_and(|end| horizon.is_none_or(|horizon| end > horizon)));
    items.split_off(first.unwrap_or(items.len()))
}

/// How a playlist is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The usual length of a segment.
    pub segment_us: i64,
    /// Nothing is ever taken away at its front.
    pub grows_only: bool,
    /// Nothing more comes.
    pub ended: bool,
}

/// The playlist's text. `uri` names a segment; what it answers is written as it is.
pub fn write_playlist(
    listed: &[Stretch],
    items: &[Item],
    shape: Shape,
    uri: impl Fn(&Item) -> String,
) -> String {
    // of all that ever was listed, because it must not change when a long one has gone
    let longest = listed.iter().map(|stretch| stretch.longest_us).max().unwrap_or(0);
    let target = longest.max(shape.segment_us).max(1_000_000).saturating_add(999_999) / 1_000_000;
    let next = listed.last().map_or(0, Stretch::next_sequence);
    let first = items.first().map_or(next, |item| item.sequence);
    let run = items.first().map_or(0, |item| item.run);
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{target}\n\
         #EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:{run}\n"
    );
    if shape.grows_only {
        text.push_str("#EXT-X-PLAYLIST-TYPE:EVENT\n");
    }
    let mut before = run;
    for item in items {
        if item.run != before {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        before = item.run;
        let mut line = |line: std::fmt::Arguments<'_>| {
            // writing into a string cannot fail
            let _ = text.write_fmt(line);
        };
        let seconds = (item.duration_us / 1_000_000, item.duration_us % 1_000_000);
        match item.starts_at {
            Some(at) => {
                line(format_args!("#EXT-X-PROGRAM-DATE-TIME:{at}\n"));
                line(format_args!("#EXTINF:{}.{:06},\n", seconds.0, seconds.1));
            }
            None => line(format_args!(
                "#EXT-X-GAP\n#EXTINF:{}.{:06},\n",
                shape.segment_us / 1_000_000,
                shape.segment_us % 1_000_000
            )),
        }
        line(format_args!("{}\n", uri(item)));
    }
    if shape.ended {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

/// Reads the name of a segment in an address: `3-17.ts`.
pub fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (epoch, number) = name.strip_suffix(".ts")?.split_once('-')?;
    let plain = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // one name for one segment: what is signed is the name
        digits && (text == "0" || !text.starts_with('0'))
    };
    if !plain(epoch) || !plain(number) {
        return None;
    }
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

/// The other way round.
pub fn name_of(epoch: u32, number: u64) -> String {
    format!("{epoch}-{number}.ts")
}

#[cfg(test)]
mod tests;
