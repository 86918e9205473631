//! Makes one clean transport stream out of parts of recordings.
//!
//! A part is a run of segments of one epoch without hole, and the window wanted of it. [`plan()`] looks at the first
//! and last segment of every part and decides where each part begins, ends and lies; [`write()`] reads the segments
//! one after the other and hands them on as a transport stream for FFmpeg, [`order()`] as bare samples.
//!
//! Two layouts. *Joined* (for copying): pictures and sound lie on the clip's own time line, one part right behind the
//! other; only the last part may store a few later pictures, which the MP4's edit list hides. *Spaced* (for
//! encoding): pictures keep their lead-in and lead-out and get a time range of their own per part, because the
//! decoder needs them; [`Plan::picture_moves`] tells the encoder what to keep and where to put it. Sound lies on the
//! clip's own time line in both.

mod ahead;
mod plan;
mod sound;

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

pub use plan::{PartPlan, PictureMove, Plan, plan};

use super::{
    TOLERANCE,
    ts::{AccessUnit, Checksum, Demuxed, Demuxer, PACKET, TsWriter, unwrap_pts},
};
use crate::error::{Code, Error, Result};
use sound::Sound;

/// Where the clip begins in the composed stream: early enough that no time of it is negative.
pub const BASE: i64 = 10 * super::TICKS;

type Why = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a segment read at once: whole packets.
const READ: usize = 1024 * PACKET;
/// Pieces handed on have about this many bytes.
const PIECE: usize = 256 * 1024;

/// One segment's file and where it lies on its epoch's time line.
#[derive(Debug, Clone)]
pub struct SegmentFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its earliest picture, unwrapped ticks.
    pub pts_start_unwrapped: i64,
    /// What its bytes were named when they were found good, if they shall still be the same.
    pub checksum: Option<i64>,
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

/// Reads one segment and takes it apart, if it still is what it was.
pub(super) fn load(segment: &SegmentFile) -> Result<Demuxed> {
    let loaded = load_by_pieces(segment).map_err(|source| {
        Error::new(Code::StorageUnavailable, "A recorded segment cannot be read.")
            .retryable()
            .because(source)
    })?;
    loaded.map_err(|why| {
        Error::new(Code::NoUsableSegments, "A recorded segment is damaged.").because(why)
    })
}

/// Pieces that fit into a core's own cache: large segments are read as fast as small ones.
fn load_by_pieces(segment: &SegmentFile) -> io::Result<std::result::Result<Demuxed, Why>> {
    let mut file = fs::File::open(&segment.path)?;
    let mut piece = Vec::with_capacity(READ);
    let (mut demuxer, mut sum) = (Demuxer::new(), Checksum::new());
    let mut damage = None;
    loop {
        piece.clear();
        let read = file.by_ref().take(READ as u64).read_to_end(&mut piece)?;
        sum.take(&piece);
        if damage.is_none() {
            damage = demuxer.take(&piece).err();
        }
        if read < READ {
            break;
        }
    }
    // that the bytes have changed says more than what became of them
    if segment.checksum.is_some_and(|known| known != sum.value()) {
        return Ok(Err(io::Error::other("its bytes have changed").into()));
    }
    let done = damage.map_or_else(|| demuxer.finish(), Err);
    Ok(done.map_err(Into::into))
}

/// What takes the ordered samples of a plan. Times are ticks of the composed stream, see [`BASE`].
pub trait Sink {
    /// The next picture in decode order.
    ///
    /// # Errors
    /// [`Stop::Closed`] if no more are wanted.
    fn picture(&mut self, pts: i64, dts: i64, unit: &AccessUnit) -> Result<(), Stop>;

    /// The next frame of sound, with its ADTS header. It comes before the pictures that are decoded later.
    ///
    /// # Errors
    /// [`Stop::Closed`] if no more are wanted.
    fn sound(&mut self, pts: i64, adts: &[u8]) -> Result<(), Stop>;
}

/// Writes the planned stream as a transport stream; `sink` takes pieces and says whether it wants more.
///
/// Blocking: reads files. Memory is bounded by a few segments and one piece.
///
/// # Errors
/// See [`Stop`].
pub fn write(
    parts: &[CutPart],
    plan: &Plan,
    sink: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<Composed, Stop> {
    let mut stream = Stream { writer: TsWriter::new(plan.audio.is_some()), sink };
    let composed = order(parts, plan, &mut stream)?;
    stream.hand_on()?;
    Ok(composed)
}

/// The samples as a transport stream.
struct Stream<'a> {
    writer: TsWriter,
    sink: &'a mut dyn FnMut(Vec<u8>) -> bool,
}

impl Stream<'_> {
    fn hand_on(&mut self) -> Result<(), Stop> {
        if (self.sink)(self.writer.take()) { Ok(()) } else { Err(Stop::Closed) }
    }
}

impl Sink for Stream<'_> {
    fn picture(&mut self, pts: i64, dts: i64, unit: &AccessUnit) -> Result<(), Stop> {
        self.writer.video(pts, dts, unit.key, &unit.data);
        if self.writer.pending() < PIECE { Ok(()) } else { self.hand_on() }
    }

    fn sound(&mut self, pts: i64, adts: &[u8]) -> Result<(), Stop> {
        self.writer.audio(pts, adts);
        if self.writer.pending() < PIECE { Ok(()) } else { self.hand_on() }
    }
}

/// Hands the planned samples to `sink`, in order.
///
/// Blocking: reads files, a segment ahead. Memory is bounded by a few segments.
///
/// # Errors
/// See [`Stop`].
pub fn order(parts: &[CutPart], plan: &Plan, sink: &mut dyn Sink) -> Result<Composed, Stop> {
    let mut out = Output {
        sink,
        sound: plan.audio.map(|format| Sound::new(format, BASE, BASE + plan.duration)),
        last_dts: i64::MIN,
        done: Composed::default(),
    };
    let steps = steps(parts, plan);
    let segments: Vec<_> = steps.iter().map(|step| step.segment).collect();
    let mut part: Option<&PartPlan> = None;
    ahead::each(&segments, |index, loaded| {
        let Some(step) = steps.get(index) else { return Ok(()) };
        if part.is_none_or(|part| !std::ptr::eq(part, step.part)) {
            if let Some(part) = part.replace(step.part) {
                out.end_part(part)?;
            }
            out.done.window_pictures.push(0);
        }
        out.segment(plan, step, loaded?)
    })?;
    if let Some(part) = part {
        out.end_part(part)?;
    }
    out.end()
}

/// A segment to read.
struct Step<'a> {
    part: &'a PartPlan,
    segment: &'a SegmentFile,
    /// Pictures to take, if not all.
    count: Option<usize>,
}

fn steps<'a>(parts: &'a [CutPart], plan: &'a Plan) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for part in &plan.parts {
        let Some(files) = parts.get(part.part) else { continue };
        for index in part.first_segment..=part.last_segment {
            let Some(segment) = files.segments.get(index) else { break };
            let count = (index == part.last_segment).then_some(part.last_count);
            steps.push(Step { part, segment, count });
        }
    }
    steps
}

struct Output<'a> {
    sink: &'a mut dyn Sink,
    sound: Option<Sound>,
    last_dts: i64,
    done: Composed,
}

impl Output<'_> {
    fn segment(&mut self, plan: &Plan, step: &Step<'_>, loaded: Demuxed) -> Result<(), Stop> {
        let Demuxed { mut video, audio } = loaded;
        let (part, reference) = (step.part, step.segment.pts_start_unwrapped);
        video.truncate(step.count.unwrap_or(usize::MAX));
        let mut window = 0;
        let mut frames = audio.into_iter().peekable();
        for unit in &video {
            let pts = unwrap_pts(unit.pts_raw, reference);
            let dts = unwrap_pts(unit.dts_raw, pts).min(pts);
            if dts < part.key_pts && pts < part.key_pts - TOLERANCE {
                continue;
            }
            if !plan.encode && unit.sets.hash != plan.sets.hash {
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
            self.sink.picture(pts + moved, dts, unit)?;
            self.done.pictures += 1;
            window += u64::from(pts >= part.start - TOLERANCE && pts < part.end - TOLERANCE);
        }
        for frame in frames {
            self.frame(plan, part, unwrap_pts(frame.pts_raw, reference), &frame)?;
        }
        if let (Some(sound), false) = (&mut self.sound, part.has_audio) {
            let last = video.iter().map(|unit| unwrap_pts(unit.pts_raw, reference)).max();
            let until = last.map_or(part.start, |last| last.min(part.end));
            sound.fill(self.sink, until - part.start + part.sound_at)?;
        }
        if let Some(count) = self.done.window_pictures.last_mut() {
            *count += window;
        }
        Ok(())
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
        sound.frame(self.sink, pts - part.start + part.sound_at, part.sound_at, frame)
    }

    fn end_part(&mut self, part: &PartPlan) -> Result<(), Stop> {
        match &mut self.sound {
            Some(sound) => sound.fill(self.sink, part.end - part.start + part.sound_at),
            None => Ok(()),
        }
    }

    fn end(mut self) -> Result<Composed, Stop> {
        if let Some(sound) = &mut self.sound {
            sound.finish(self.sink)?;
            self.done.sound_lead = sound.first().map_or(0, |first| BASE - first);
        }
        Ok(self.done)
    }
}
