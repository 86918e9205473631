//! Makes one clean transport stream out of parts of recordings.
//!
//! A part is a run of segments of one epoch without hole, and the window wanted of it. [`plan()`] looks at the first
//! and last segment of every part and decides where each part begins, ends and lies; [`write()`] reads the segments
//! one after the other and hands the stream on in pieces.
//!
//! Two layouts. *Joined* (for copying): pictures and sound lie on the clip's own time line, one part right behind the
//! other; only the last part may store a few later pictures, which the MP4's edit list hides. *Spaced* (for
//! encoding): pictures keep their lead-in and lead-out and get a time range of their own per part, because the
//! decoder needs them; [`Plan::picture_moves`] tells the encoder what to keep and where to put it. Sound lies on the
//! clip's own time line in both.

mod plan;
mod sound;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use plan::{PartPlan, PictureMove, Plan, plan};

use super::{
    TOLERANCE,
    ts::{Demuxed, TsWriter, demux, unwrap_pts},
};
use crate::error::{Code, Error, Result};
use sound::Sound;

/// Where the clip begins in the composed stream: early enough that no time of it is negative.
pub const BASE: i64 = 10 * super::TICKS;

/// Pieces handed on have about this many bytes.
const PIECE: usize = 256 * 1024;

/// One segment's file and where it lies on its epoch's time line.
#[derive(Debug, Clone)]
pub struct SegmentFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its earliest picture, unwrapped ticks.
    pub pts_start_unwrapped: i64,
}

/// What is wanted of one run of consecutive segments of one epoch.
#[derive(Debug, Clone)]
pub struct CutPart {
    /// In order and without hole. Decoding begins at the last key frame at or before `from_pts` that they hold.
    pub segments: Vec<SegmentFile>,
    /// First moment wanted, unwrapped ticks.
    pub from_pts: i64,
    /// First moment not wanted, unwrapped ticks.
    pub to_pts: i64,
}

/// How sharp the edges are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Begins at the last key frame at or before the window, ends within a frame; nothing is encoded.
    Keyframe,
    /// Begins and ends within a frame; nothing from outside is in the file.
    Exact,
}

/// What came of writing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Composed {
    /// Pictures in the stream, lead-in and lead-out included.
    pub pictures: u64,
    /// Pictures of the clip, per part of the plan.
    pub window_pictures: Vec<u64>,
    /// Ticks by which the sound begins before the clip does.
    pub sound_lead: i64,
}

/// Why writing stopped.
#[derive(Debug)]
pub enum Stop {
    /// Parameters change inside a part: copying is not possible, plan again for encoding.
    Changed,
    /// Nobody takes the bytes any more.
    Closed,
    /// A segment cannot be read any more.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// Reads one segment and takes it apart.
pub(super) fn load(path: &Path) -> Result<Demuxed> {
    let bytes = fs::read(path).map_err(|source| {
        Error::new(Code::StorageUnavailable, "A recorded segment cannot be read.")
            .retryable()
            .because(source)
    })?;
    demux(&bytes).map_err(|damage| {
        Error::new(Code::NoUsableSegments, "A recorded segment is damaged.").because(damage)
    })
}

/// Writes the planned stream; `sink` takes pieces and says whether it wants more.
///
/// Blocking: reads files. Memory is bounded by one segment and one piece.
///
/// # Errors
/// See [`Stop`].
pub fn write(
    parts: &[CutPart],
    plan: &Plan,
    sink: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<Composed, Stop> {
    let mut out = Output {
        writer: TsWriter::new(plan.audio.is_some()),
        sink,
        sound: plan.audio.map(|format| Sound::new(format, BASE, BASE + plan.duration)),
        last_dts: i64::MIN,
        done: Composed::default(),
    };
    for planned in &plan.parts {
        let Some(part) = parts.get(planned.part) else { continue };
        out.done.window_pictures.push(0);
        for index in planned.first_segment..=planned.last_segment {
            let Some(segment) = part.segments.get(index) else { break };
            let count = (index == planned.last_segment).then_some(planned.last_count);
            out.segment(plan, planned, segment, count)?;
        }
        out.end_part(planned)?;
    }
    out.end()
}

struct Output<'a> {
    writer: TsWriter,
    sink: &'a mut dyn FnMut(Vec<u8>) -> bool,
    sound: Option<Sound>,
    last_dts: i64,
    done: Composed,
}

impl Output<'_> {
    fn segment(
        &mut self,
        plan: &Plan,
        part: &PartPlan,
        segment: &SegmentFile,
        count: Option<usize>,
    ) -> Result<(), Stop> {
        let Demuxed { mut video, audio } = load(&segment.path)?;
        let reference = segment.pts_start_unwrapped;
        video.truncate(count.unwrap_or(usize::MAX));
        let mut window = 0;
        let mut frames = audio.into_iter().peekable();
        for unit in &video {
            let pts = unwrap_pts(unit.pts_raw, reference);
            let dts = unwrap_pts(unit.dts_raw, pts).min(pts);
            if dts < part.key_pts && pts < part.key_pts - TOLERANCE {
                continue;
            }
            if !plan.encode && unit.sets.hash != plan.parameter_sets {
                return Err(Stop::Changed);
            }
            // sound that belongs before this picture goes before it
            while let Some(frame) =
                frames.next_if(|frame| unwrap_pts(frame.pts_raw, reference) <= dts)
            {
                self.frame(plan, part, unwrap_pts(frame.pts_raw, reference), &frame)?;
            }
            let moved = part.picture_at - part.key_pts;
            let dts = (dts + moved).max(self.last_dts.saturating_add(1)).min(pts + moved);
            self.last_dts = dts;
            self.writer.video(pts + moved, dts, unit.key, &unit.data);
            self.done.pictures += 1;
            window += u64::from(pts >= part.start - TOLERANCE && pts < part.end - TOLERANCE);
            self.hand_on(false)?;
        }
        for frame in frames {
            self.frame(plan, part, unwrap_pts(frame.pts_raw, reference), &frame)?;
        }
        if let (Some(sound), false) = (&mut self.sound, part.has_audio) {
            let last = video.iter().map(|unit| unwrap_pts(unit.pts_raw, reference)).max();
            let until = last.map_or(part.start, |last| last.min(part.end));
            sound.fill(&mut self.writer, until - part.start + part.sound_at);
        }
        if let Some(count) = self.done.window_pictures.last_mut() {
            *count += window;
        }
        self.hand_on(false)
    }

    fn frame(
        &mut self,
        plan: &Plan,
        part: &PartPlan,
        pts: i64,
        frame: &super::ts::AudioFrame,
    ) -> Result<(), Stop> {
        let Some(sound) = &mut self.sound else { return Ok(()) };
        if !plan.encode && plan.audio != Some(frame.format) {
            return Err(Stop::Changed);
        }
        if pts >= part.end - TOLERANCE {
            return Ok(());
        }
        sound.frame(&mut self.writer, pts - part.start + part.sound_at, part.sound_at, frame);
        Ok(())
    }

    fn end_part(&mut self, part: &PartPlan) -> Result<(), Stop> {
        if let Some(sound) = &mut self.sound {
            sound.fill(&mut self.writer, part.end - part.start + part.sound_at);
        }
        self.hand_on(false)
    }

    fn end(mut self) -> Result<Composed, Stop> {
        if let Some(sound) = &mut self.sound {
            sound.finish(&mut self.writer);
            self.done.sound_lead = sound.first().map_or(0, |first| BASE - first);
        }
        self.hand_on(true)?;
        Ok(self.done)
    }

    fn hand_on(&mut self, all: bool) -> Result<(), Stop> {
        if self.writer.pending() < PIECE && !all {
            return Ok(());
        }
        if (self.sink)(self.writer.take()) { Ok(()) } else { Err(Stop::Closed) }
    }
}
