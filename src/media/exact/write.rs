//! Writes the clip: copied groups, encoded pieces in their places, sound in between.
//!
//! Decoding times follow one rule for the whole file: the n-th picture in decode order is decoded when the picture
//! `reorder` places earlier in time is shown. That rises over every seam, however the pieces were ordered before.

use std::{collections::VecDeque, fs::File, io, path::Path, sync::Arc};

use super::{
    Refusal, Unfit,
    plan::{GroupCut, clean_prefix},
    scan::{Pieces, Place, Segment, write_pictures},
    sets::Sets,
    sound::Track,
};
use crate::{
    error::{Code, Error},
    media::{
        TICKS, TOLERANCE,
        compose::{self, BASE, CutPart, PartPlan, Plan},
        ffmpeg::Metadata,
        native::{Control, Halt, Head, Payload, Sample, Shown, Writer, Written},
        ts::{
            AudioFrame, TsWriter,
            h264::{Format, units},
            unwrap_pts,
        },
    },
};

/// Pictures behind a seam that are compared with the source.
pub(super) const COMPARED: usize = 12;

/// What the writing needs besides the plan.
pub(super) struct Task<'a> {
    pub parts: &'a [CutPart],
    pub plan: &'a Plan,
    pub sets: &'a Sets,
    pub pieces: &'a Pieces,
    pub meta: Metadata,
    pub control: Arc<Control>,
}

/// A picture of the finished file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picture {
    /// Ticks from the clip's beginning.
    pub pts: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// As it was in the source.
    pub copied: bool,
    /// Of the plan.
    pub part: usize,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Made {
    /// The file, complete but not synced.
    pub file: Arc<File>,
    /// Hash of the whole file, hex.
    pub blake3: String,
    /// How many places in time a picture may be decoded early.
    pub depth: usize,
    /// In the order they are shown; groups are closed, so every group lies together.
    pub pictures: Vec<Picture>,
    /// The source's pictures next to the seams, as a transport stream with a clock of its own.
    pub reference: Vec<u8>,
    /// Times of the reference's pictures: there, and in the clip.
    pub compared: Vec<(i64, i64)>,
}

/// Writes the clip. Blocking.
///
/// # Errors
/// [`Refusal::Unfit`] where the middle is not what the edges promised, or the writer does not take it;
/// [`Refusal::Failed`] for what would stop every other way as well.
pub(super) fn write(task: &Task<'_>, path: &Path) -> Result<Made, Refusal> {
    let plan = task.plan;
    let format = task.sets.format()?;
    let ticks = u64::try_from(plan.duration).unwrap_or(0);
    let expected = ticks / u64::try_from(plan.frame_duration).unwrap_or(0).max(1);
    let rate = plan.audio.map_or(0, |audio| u64::from(audio.rate));
    let frames = ticks * rate / 1024 / TICKS.unsigned_abs();
    let head = Head {
        sets: task.sets.units(),
        audio: plan.audio,
        meta: task.meta.clone(),
        // an eighth more than there should be
        pictures: expected * 9 / 8 + 100,
        frames: frames * 9 / 8 + 100,
        frame_duration: plan.frame_duration,
    };
    let sound = plan.audio.map(|format| Track::new(format, plan.duration)).transpose()?;
    let writer = Writer::create(path, head, Arc::clone(&task.control)).map_err(refusal)?;
    let mut output = Output {
        writer,
        order: Order::new(format, plan.frame_duration),
        sound,
        reference: TsWriter::new(false),
        reference_end: BASE,
        compared: Vec::new(),
        pictures: Vec::new(),
        due: VecDeque::new(),
    };
    for (number, planned) in plan.parts.iter().enumerate() {
        let Some(part) = task.parts.get(planned.part) else { continue };
        for index in planned.first_segment..=planned.last_segment {
            let Some(file) = part.segments.get(index) else { break };
            let segment = Segment::read(file, part)?;
            output.segment(task, (number, index), planned, segment, file.pts_start_unwrapped)?;
        }
        output.late_sound(number, part, planned)?;
        output.sound_until(planned.end - planned.start + planned.sound_at - BASE)?;
    }
    output.finish(plan)
}

fn refusal(halt: Halt) -> Refusal {
    match halt {
        Halt::Unfit(why) => Unfit::Writer(why).into(),
        Halt::NoRoom => Unfit::Writer("the index needs more room".to_owned()).into(),
        Halt::Stopped => Error::new(Code::Cancelled, "The work was cancelled.").into(),
        Halt::Io(error) => unwritable(error).into(),
    }
}

pub(super) fn unwritable(error: io::Error) -> Error {
    Error::new(Code::StorageUnavailable, "The clip store cannot be used right now.")
        .retryable()
        .because(error)
}

struct Output {
    writer: Writer,
    order: Order,
    sound: Option<Track>,
    reference: TsWriter,
    /// Where the reference goes on: its groups lie close to each other, because FFmpeg warns of long holes.
    reference_end: i64,
    compared: Vec<(i64, i64)>,
    pictures: Vec<Picture>,
    /// Sound of the segment at hand that belongs behind the pictures written so far, and its times in the clip.
    due: VecDeque<(i64, AudioFrame)>,
}

/// Where a part lies: what to add to a source time to get a clip time.
#[derive(Clone, Copy)]
struct Lie {
    part: usize,
    moved: i64,
    /// In clip ticks.
    begin: i64,
    end: i64,
}

impl Lie {
    fn of(part: usize, planned: &PartPlan) -> Lie {
        let begin = planned.sound_at - BASE;
        let end = begin + planned.end - planned.start;
        Lie { part, moved: begin - planned.start, begin, end }
    }
}

impl Output {
    /// Sound is stored with the pictures that are decoded at its time, which are shown later: the last of it may
    /// stand at the beginning of the next segment.
    fn late_sound(
        &mut self,
        number: usize,
        part: &CutPart,
        planned: &PartPlan,
    ) -> Result<(), Refusal> {
        let lie = Lie::of(number, planned);
        let lacks = planned.has_audio && self.sound.as_ref().is_some_and(|one| one.lacks(lie.end));
        let file = part.segments.get(planned.last_segment + 1).filter(|_| lacks);
        let Some(file) = file else { return Ok(()) };
        // what is there is enough: a segment behind the window may be anything
        let Ok(media) = compose::load(file) else { return Ok(()) };
        let reference = file.pts_start_unwrapped;
        let sound = media.audio.into_iter();
        let sound = sound.map(|one| (unwrap_pts(one.pts_raw, reference) + lie.moved, one));
        self.due.extend(sound.take_while(|(pts, _)| *pts < lie.end));
        self.sound_before(i64::MAX, lie)
    }

    fn segment(
        &mut self,
        task: &Task<'_>,
        (part, index): (usize, usize),
        planned: &PartPlan,
        mut segment: Segment,
        reference: i64,
    ) -> Result<(), Refusal> {
        let lie = Lie::of(part, planned);
        let sound = std::mem::take(&mut segment.media.audio).into_iter();
        self.due
            .extend(sound.map(|frame| (unwrap_pts(frame.pts_raw, reference) + lie.moved, frame)));
        let last = segment.groups.iter().rposition(|(_, cut)| {
            cut.as_ref().is_some_and(|cut| cut.copied > 0) && index == planned.last_segment
        });
        for (number, (range, cut)) in segment.groups.iter().enumerate() {
            let Some(cut) = cut else { continue };
            let ends_here = last == Some(number)
                && (!cut.encoded.is_empty() || part + 1 < task.plan.parts.len());
            self.compare(&segment, range, cut, lie, ends_here);
            self.copy(&segment, range, cut, lie)?;
            self.encoded(task, (part, index, number), cut, lie)?;
        }
        self.sound_before(i64::MAX, lie)?;
        if !planned.has_audio {
            let latest = segment.times.iter().copied().max().unwrap_or(planned.start);
            self.sound_until((latest + lie.moved).min(lie.end))?;
        }
        Ok(())
    }

    /// Keeps the source's pictures of a group that touches a seam.
    fn compare(
        &mut self,
        segment: &Segment,
        range: &std::ops::Range<usize>,
        cut: &GroupCut,
        lie: Lie,
        ends_here: bool,
    ) {
        let before = self.pictures.last();
        let behind_seam = before.is_some_and(|last| !last.copied || last.part != lie.part);
        let times = segment.times.get(range.clone()).unwrap_or_default();
        let count = cut.copied.min(COMPARED);
        let count = if ends_here || behind_seam { clean_prefix(times, count) } else { 0 };
        let Some(&first) = times.first().filter(|_| count > 0) else { return };
        let offset = self.reference_end - first;
        let kept = times.iter().take(count).map(|time| (time + offset, time + lie.moved));
        self.compared.extend(kept);
        let pictures = segment.pictures(range, count);
        self.reference_end = write_pictures(&mut self.reference, pictures, offset) + TICKS;
    }

    fn copy(
        &mut self,
        segment: &Segment,
        range: &std::ops::Range<usize>,
        cut: &GroupCut,
        lie: Lie,
    ) -> Result<(), Refusal> {
        if cut.copied == 0 {
            return Ok(());
        }
        let before = self.pictures.last().copied();
        if before.is_some_and(|last| last.key && last.copied && last.part != lie.part) {
            return Err(Unfit::TwinKeys.into());
        }
        let pictures = || segment.pictures(range, cut.copied);
        self.begin_piece(pictures().map(|(_, pts)| pts + lie.moved).collect())?;
        for (unit, pts) in pictures() {
            let pts = pts + lie.moved;
            let picture = Picture { pts, key: unit.key, copied: true, part: lie.part };
            self.picture(picture, &unit.data, lie)?;
        }
        self.end_piece(cut.copied);
        Ok(())
    }

    fn encoded(
        &mut self,
        task: &Task<'_>,
        place: Place,
        cut: &GroupCut,
        lie: Lie,
    ) -> Result<(), Refusal> {
        if cut.encoded.is_empty() {
            return Ok(());
        }
        let piece = task.pieces.get(&place).filter(|piece| piece.len() == cut.encoded.len());
        let piece = piece
            .ok_or_else(|| Unfit::Writer("a group in the middle has to be encoded".to_owned()))?;
        self.begin_piece(piece.iter().map(|coded| coded.pts + lie.moved).collect())?;
        for coded in piece {
            let pts = coded.pts + lie.moved;
            let picture = Picture { pts, key: coded.key, copied: false, part: lie.part };
            self.picture(picture, &without_notes(&coded.data), lie)?;
        }
        self.end_piece(piece.len());
        Ok(())
    }

    fn begin_piece(&mut self, times: Vec<i64>) -> Result<(), Unfit> {
        self.order.add(times)
    }

    /// Pictures of one piece are listed as they are shown.
    fn end_piece(&mut self, count: usize) {
        let begin = self.pictures.len().saturating_sub(count);
        if let Some(piece) = self.pictures.get_mut(begin..) {
            piece.sort_by_key(|picture| picture.pts);
        }
    }

    fn picture(&mut self, picture: Picture, data: &[u8], lie: Lie) -> Result<(), Refusal> {
        let dts = self.order.decoded_at(self.pictures.len());
        let dts = dts.filter(|&dts| dts <= picture.pts);
        let dts = dts
            .ok_or_else(|| Unfit::Writer("pictures wait longer than the stream says".to_owned()))?;
        self.sound_before(dts, lie)?;
        let sample =
            Sample { pts: picture.pts, dts, key: picture.key, data: Payload::AnnexB(data) };
        self.writer.picture(sample).map_err(refusal)?;
        self.pictures.push(picture);
        Ok(())
    }

    /// Sound that is played before `limit`.
    fn sound_before(&mut self, limit: i64, lie: Lie) -> Result<(), Refusal> {
        let writer = &mut self.writer;
        let mut out = |pts: i64, data: &[u8]| writer.sound(pts, data).map_err(refusal);
        while self.due.front().is_some_and(|(pts, _)| *pts < limit) {
            let Some((pts, frame)) = self.due.pop_front() else { break };
            if let Some(track) = &mut self.sound {
                track.frame(pts, (lie.begin, lie.end), &frame, &mut out)?;
            }
        }
        Ok(())
    }

    fn sound_until(&mut self, until: i64) -> Result<(), Refusal> {
        let writer = &mut self.writer;
        let mut out = |pts: i64, data: &[u8]| writer.sound(pts, data).map_err(refusal);
        match &mut self.sound {
            Some(track) => track.fill(until, &mut out),
            None => Ok(()),
        }
    }

    fn finish(mut self, plan: &Plan) -> Result<Made, Refusal> {
        let writer = &mut self.writer;
        let mut out = |pts: i64, data: &[u8]| writer.sound(pts, data).map_err(refusal);
        if let Some(track) = &mut self.sound {
            track.finish(&mut out)?;
        }
        let first = self.pictures.first().map(|picture| picture.pts);
        if first.is_none_or(|first| first.abs() > TOLERANCE) {
            return Err(Unfit::Writer("the first picture is missing".to_owned()).into());
        }
        let shown = Shown { start: 0, duration: plan.duration };
        let written = self.writer.finish(shown).map_err(refusal)?;
        let reference = self.reference.take();
        let (pictures, compared, depth) = (self.pictures, self.compared, self.order.depth);
        let Written { file, blake3, .. } = written;
        Ok(Made { file, blake3, depth, pictures, reference, compared })
    }
}

/// An encoded picture without the encoder's words about itself.
fn without_notes(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    for unit in units(data).filter(|unit| (1..=5).contains(&unit.kind)) {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(unit.bytes);
    }
    out
}

/// The rule of decoding times.
#[derive(Debug)]
struct Order {
    times: Vec<i64>,
    depth: usize,
    frame: i64,
}

impl Order {
    fn new(format: &Format, frame: i64) -> Order {
        let depth = format.reorder.unwrap_or(0).min(16);
        Order { times: Vec::new(), depth: usize::try_from(depth).unwrap_or(0), frame }
    }

    /// Times of the next piece, which all lie behind those before.
    fn add(&mut self, mut times: Vec<i64>) -> Result<(), Unfit> {
        times.sort_unstable();
        let last = self.times.last().copied();
        if times.first().copied() <= last || times.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Unfit::OpenGroup);
        }
        self.times.extend(times);
        Ok(())
    }

    fn decoded_at(&self, index: usize) -> Option<i64> {
        match index.checked_sub(self.depth) {
            Some(earlier) => self.times.get(earlier).copied(),
            None => {
                let before = i64::try_from(self.depth - index).ok()?;
                Some(self.times.first()? - before * self.frame)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(depth: usize) -> Order {
        Order { times: vec![], depth, frame: 3000 }
    }

    #[test]
    fn decoding_times_rise_over_every_seam_and_never_pass_the_picture() {
        let mut order = order(2);
        // I P B b b | I | I P B
        let pieces = [&[0, 12_000, 6_000, 3_000, 9_000][..], &[15_000], &[18_000, 24_000, 21_000]];
        let mut decoded = Vec::new();
        for piece in pieces {
            order.add(piece.to_vec()).expect("in order");
            for pts in piece {
                let dts = order.decoded_at(decoded.len()).expect("known");
                assert!(dts <= *pts, "{dts} {pts}");
                decoded.push(dts);
            }
        }
        assert_eq!(decoded[..3], [-6_000, -3_000, 0]);
        assert!(decoded.windows(2).all(|pair| pair[1] - pair[0] == 3_000), "{decoded:?}");
    }

    #[test]
    fn a_piece_before_the_end_of_the_last_is_refused() {
        let mut order = order(1);
        order.add(vec![0, 6_000, 3_000]).expect("in order");
        assert_eq!(order.add(vec![6_000]), Err(Unfit::OpenGroup));
        assert_eq!(order.add(vec![9_000, 9_000]), Err(Unfit::OpenGroup));
    }

    #[test]
    fn only_the_picture_itself_is_kept_of_what_the_encoder_says() {
        let data = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 6, 5, 0, 0, 1, 0x65, 7, 8, 0, 0, 1, 0x65, 9];
        assert_eq!(without_notes(&data), [0, 0, 0, 1, 0x65, 7, 8, 0, 0, 0, 1, 0x65, 9]);
    }
}
