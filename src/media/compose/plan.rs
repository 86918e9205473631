//! Decides where every part begins and ends and where it lies, from its first and last segment.

use std::sync::Arc;

use super::{BASE, CutPart, Precision, load};
use crate::{
    error::{Code, Error, Result},
    media::{
        TICKS, TOLERANCE,
        ts::{AccessUnit, AudioFormat, Demuxed, ParameterSets, unwrap_pts, usual_distance},
    },
};

/// Free time between two parts in the spaced layout.
const SPACE: i64 = TICKS;

/// The whole stream.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Parts that hold at least one picture of the window, in order.
    pub parts: Vec<PartPlan>,
    /// Whether the pictures have to be encoded again (and so which layout is used).
    pub encode: bool,
    /// Sound of the clip: that of its longest part that has any.
    pub audio: Option<AudioFormat>,
    /// Size in pixels: that of the longest part.
    pub size: (u32, u32),
    /// The parameter sets of all pictures if the clip is copied.
    pub sets: Arc<ParameterSets>,
    /// Length of the clip in ticks, gaps cut out.
    pub duration: i64,
    /// Length of a picture in ticks, of the longest part.
    pub frame_duration: i64,
    /// Whether an inner part of a copy ends later than its window does, because pictures cannot be taken apart there.
    pub lengthened: bool,
}

/// One part. Source times are unwrapped ticks of its epoch.
#[derive(Debug, Clone)]
pub struct PartPlan {
    /// Index among the parts given.
    pub part: usize,
    /// Segments to read: from this index …
    pub first_segment: usize,
    /// … to this one.
    pub last_segment: usize,
    /// Pictures to take of the last one, in decode order.
    pub last_count: usize,
    /// Decoding begins with this picture.
    pub key_pts: i64,
    /// The clip's first picture of this part.
    pub start: i64,
    /// Where its last picture ends.
    pub end: i64,
    /// Where `key_pts` is put in the stream.
    pub picture_at: i64,
    /// Where `start` is put on the clip's own time line (and so its sound).
    pub sound_at: i64,
    /// Whether the part brings sound.
    pub has_audio: bool,
}

/// Pictures with `from <= pts < to` of the stream belong to the clip, moved back by `back` ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureMove {
    /// First tick taken.
    pub from: i64,
    /// First tick not taken.
    pub to: i64,
    /// Ticks to subtract; the clip then begins at zero.
    pub back: i64,
}

impl Plan {
    /// What an encoder keeps of a spaced stream.
    pub fn picture_moves(&self) -> Vec<PictureMove> {
        let moves = self.parts.iter().map(|part| {
            let from = part.picture_at + (part.start - part.key_pts);
            PictureMove {
                from: from - TOLERANCE,
                to: from + (part.end - part.start) - TOLERANCE,
                back: from - (part.sound_at - BASE),
            }
        });
        moves.collect()
    }
}

/// What was seen of one part.
struct Seen {
    plan: PartPlan,
    audio: Option<AudioFormat>,
    size: (u32, u32),
    sets: Arc<ParameterSets>,
    frame: i64,
    /// End of the greatest picture taken, later ones included.
    reach: i64,
    /// Whether later pictures than the window's are stored.
    ragged: bool,
}

/// Plans the stream. `encode` asks for the spaced layout also where copying seems possible.
///
/// Blocking: reads two segments of every part.
///
/// # Errors
/// `storage_unavailable` (retryable) if a segment cannot be read, `no_usable_segments` if one is damaged or no part
/// holds a picture of its window.
pub fn plan(parts: &[CutPart], precision: Precision, encode: bool) -> Result<Plan> {
    let mut seen = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        seen.extend(look_at(index, part, precision)?);
    }
    let longest = seen.iter().max_by_key(|seen| seen.plan.end - seen.plan.start);
    let longest = longest.ok_or_else(|| {
        Error::new(Code::NoUsableSegments, "The recording holds no picture of this window.")
    })?;
    let with_sound = seen.iter().filter(|seen| seen.audio.is_some());
    let audio = with_sound.max_by_key(|seen| seen.plan.end - seen.plan.start);
    let audio = audio.and_then(|seen| seen.audio);
    let alike = seen.iter().all(|seen| {
        seen.sets.hash == longest.sets.hash && (seen.audio.is_none() || seen.audio == audio)
    });
    let mut whole = Plan {
        parts: Vec::new(),
        encode: encode || precision == Precision::Exact || !alike,
        audio,
        size: longest.size,
        sets: Arc::clone(&longest.sets),
        duration: 0,
        frame_duration: longest.frame,
        lengthened: false,
    };
    lay_out(&mut whole, parts, seen)?;
    Ok(whole)
}

fn lay_out(whole: &mut Plan, parts: &[CutPart], seen: Vec<Seen>) -> Result<()> {
    let count = seen.len();
    let mut picture_at = BASE;
    for (index, mut seen) in seen.into_iter().enumerate() {
        let inner = index + 1 < count;
        if inner && seen.ragged && !whole.encode {
            let wanted = seen.plan.end;
            let part = parts.get(seen.plan.part);
            part.map_or(Ok(()), |part| make_even(&mut seen, part))?;
            whole.lengthened |= seen.plan.end > wanted + TOLERANCE;
        }
        let mut part = seen.plan;
        part.sound_at = BASE + whole.duration;
        part.picture_at = if whole.encode { picture_at } else { part.sound_at };
        picture_at += seen.reach - part.key_pts + SPACE;
        whole.duration += part.end - part.start;
        whole.parts.push(part);
    }
    Ok(())
}

fn look_at(index: usize, part: &CutPart, precision: Precision) -> Result<Option<Seen>> {
    if part.to_pts - part.from_pts <= TOLERANCE {
        return Ok(None);
    }
    let starts = |limit: i64| {
        part.segments.iter().rposition(move |segment| segment.pts_start_unwrapped <= limit)
    };
    let mut first_index = starts(part.from_pts + TOLERANCE).unwrap_or(0);
    let Some(mut last_index) = starts(part.to_pts - TOLERANCE - 1) else { return Ok(None) };
    let mut first = Loaded::read(part, first_index)?;
    let wanted = part.from_pts - TOLERANCE;
    if precision == Precision::Exact {
        // the window may begin behind the last picture of a segment
        while first.times.iter().all(|&time| time < wanted) && first_index < last_index {
            first_index += 1;
            first = Loaded::read(part, first_index)?;
        }
    }
    let mut keys = first.media.video.iter().zip(&first.times).filter(|(unit, _)| unit.key);
    let key = keys.rfind(|(_, time)| **time <= part.from_pts + TOLERANCE);
    let (unit, key_pts) = match key.or_else(|| first.media.video.first().zip(first.times.first())) {
        Some((unit, &pts)) => (unit, pts),
        None => return Ok(None),
    };
    let start = match precision {
        Precision::Keyframe => Some(key_pts),
        Precision::Exact => first.times.iter().copied().filter(|&time| time >= wanted).min(),
    };
    let Some(start) = start.filter(|&start| start < part.to_pts - TOLERANCE) else {
        return Ok(None);
    };
    last_index = last_index.max(first_index);
    let frame = usual_distance(&first.times);
    let (size, sets) = (unit.sets.size, Arc::clone(&unit.sets));
    let audio = first.media.audio.first().map(|frame| frame.format);
    let last = if last_index == first_index { first } else { Loaded::read(part, last_index)? };
    let audio = audio.or_else(|| last.media.audio.first().map(|frame| frame.format));
    let to = part.to_pts - TOLERANCE;
    let last_count = last.times.iter().rposition(|&time| time < to).map_or(0, |at| at + 1);
    let taken = last.times.get(..last_count).unwrap_or_default();
    let plan = PartPlan {
        part: index,
        first_segment: first_index,
        last_segment: last_index,
        last_count,
        key_pts,
        start,
        end: end_of_window(&last.times, part.to_pts, frame).unwrap_or(part.to_pts),
        picture_at: 0,
        sound_at: 0,
        has_audio: audio.is_some(),
    };
    let reach = taken.iter().copied().max().unwrap_or(key_pts) + frame;
    let ragged = taken.iter().any(|&time| time >= to);
    Ok(Some(Seen { plan, audio, size, sets, frame, reach, ragged }))
}

/// Where the last picture before `to` ends: a frame later, or at `to` if a longer picture is cut.
fn end_of_window(times: &[i64], to: i64, frame: i64) -> Option<i64> {
    let last = times.iter().copied().filter(|&time| time < to - TOLERANCE).max()?;
    let next = times.iter().copied().filter(|&time| time > last).min();
    Some(match next {
        Some(next) if next - last <= frame * 2 => next,
        Some(next) => to.clamp(last + frame, next),
        None => last + frame,
    })
}

/// An inner part that is copied must not store pictures later than its end, because they would be shown: it is
/// lengthened to the next moment at which decode order and time agree (at most a few frames).
fn make_even(seen: &mut Seen, part: &CutPart) -> Result<()> {
    let last = Loaded::read(part, seen.plan.last_segment)?;
    let mut count = seen.plan.last_count;
    let mut top = last.times.iter().take(count).copied().max().unwrap_or(i64::MIN);
    while let Some(earliest) = last.times.get(count..).and_then(|rest| rest.iter().min()) {
        if *earliest > top {
            break;
        }
        top = top.max(last.times.get(count).copied().unwrap_or(top));
        count += 1;
    }
    let next = last.times.get(count..).and_then(|rest| rest.iter().copied().min());
    seen.plan.last_count = count;
    seen.plan.end = next.filter(|next| next - top <= seen.frame * 2).unwrap_or(top + seen.frame);
    seen.reach = seen.plan.end;
    Ok(())
}

/// A segment with its unwrapped picture times in decode order.
struct Loaded {
    media: Demuxed,
    times: Vec<i64>,
}

impl Loaded {
    fn read(part: &CutPart, index: usize) -> Result<Loaded> {
        let segment = part.segments.get(index).ok_or_else(|| {
            Error::new(Code::NoUsableSegments, "The recording holds no picture of this window.")
        })?;
        let media = load(&segment.path)?;
        let time = |unit: &AccessUnit| unwrap_pts(unit.pts_raw, segment.pts_start_unwrapped);
        let times = media.video.iter().map(time).collect();
        Ok(Loaded { media, times })
    }
}
