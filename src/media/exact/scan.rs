//! Looks at the first and last segment of every part: what the edges are, which parameter sets there are.

use std::{collections::HashMap, fs, ops::Range};

use super::{
    Refusal, Unfit,
    plan::{GroupCut, cut_group},
    sets::Sets,
};
use crate::media::{
    TICKS, TOLERANCE,
    compose::{self, BASE, CutPart, PartPlan, Plan, SegmentFile},
    ts::{AccessUnit, Demuxed, TsWriter, unwrap_pts},
};

/// All edges together may have this many bytes; a group of ten seconds has about 10 MB.
const MAX_INPUT: usize = 256 << 20;

/// Where a group is: part of the plan, segment of the part, group of the segment.
pub(super) type Place = (usize, usize, usize);

/// A piece for the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Whose pictures these are.
    pub place: Place,
    /// Times of the pictures wanted, rising, in the source's ticks.
    pub times: Vec<i64>,
    /// To be added to a source time to get its time in the encoder's stream.
    pub offset: i64,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Edges {
    /// In the clip's order.
    pub jobs: Vec<Job>,
    /// A transport stream that holds what the encoder has to decode, in pieces.
    pub input: Vec<Vec<u8>>,
    /// Of all pictures looked at.
    pub sets: Sets,
    /// Bytes of all segments that are read, less those of the groups that are encoded: what the copied part takes at
    /// most.
    pub kept_bytes: u64,
}

/// A segment cut into groups.
pub(super) struct Segment {
    pub media: Demuxed,
    /// Unwrapped times of its pictures in decode order.
    pub times: Vec<i64>,
    /// Pictures of each group, and what of them is in the clip.
    pub groups: Vec<(Range<usize>, Option<GroupCut>)>,
}

impl Segment {
    /// Blocking.
    pub fn read(file: &SegmentFile, part: &CutPart) -> Result<Segment, Refusal> {
        let media = compose::load(file)?;
        let time = |unit: &AccessUnit| unwrap_pts(unit.pts_raw, file.pts_start_unwrapped);
        let times: Vec<i64> = media.video.iter().map(time).collect();
        let keys = media.video.iter().enumerate().filter(|(_, unit)| unit.key);
        let mut bounds: Vec<_> = keys.map(|(index, _)| index).collect();
        bounds.push(times.len());
        let mut groups = Vec::new();
        let mut latest = i64::MIN;
        for pair in bounds.windows(2) {
            let &[begin, end] = pair else { continue };
            let own = times.get(begin..end).unwrap_or_default();
            if own.iter().min().is_some_and(|&first| first <= latest) {
                return Err(Unfit::OpenGroup.into());
            }
            latest = own.iter().copied().max().unwrap_or(latest);
            let cut = cut_group(own, part.from_pts - TOLERANCE, part.to_pts - TOLERANCE)?;
            groups.push((begin..end, cut));
        }
        Ok(Segment { media, times, groups })
    }

    /// Access units and times of the first `count` pictures of a group.
    pub fn pictures(
        &self,
        group: &Range<usize>,
        count: usize,
    ) -> impl Iterator<Item = (&AccessUnit, i64)> {
        let range = group.start..(group.start + count).min(group.end);
        let units = self.media.video.get(range.clone()).unwrap_or_default();
        units.iter().zip(self.times.get(range).unwrap_or_default().iter().copied())
    }
}

/// Looks at the edges of every part. Blocking.
///
/// # Errors
/// [`Refusal::Unfit`] if they cannot be cut; [`Refusal::Failed`] if a segment cannot be read.
pub(super) fn scan(parts: &[CutPart], plan: &Plan) -> Result<Edges, Refusal> {
    let edges =
        Edges { jobs: vec![], input: vec![], sets: Sets::default(), kept_bytes: size(parts, plan) };
    let mut scanned = Scan { edges, at: BASE };
    let mut stream = TsWriter::new(false);
    let mut bytes = 0;
    for (number, planned) in plan.parts.iter().enumerate() {
        let Some(part) = parts.get(planned.part) else { continue };
        for index in edges_of(planned) {
            let Some(file) = part.segments.get(index) else { continue };
            let segment = Segment::read(file, part)?;
            scanned.segment(&segment, (number, index), &mut stream)?;
            let piece = stream.take();
            bytes += piece.len();
            if bytes > MAX_INPUT {
                return Err(Unfit::TooMuch.into());
            }
            scanned.edges.input.push(piece);
        }
    }
    Ok(scanned.edges)
}

/// Bytes of the plan's segments; one that is gone is missed by whoever reads it.
fn size(parts: &[CutPart], plan: &Plan) -> u64 {
    let files = plan.parts.iter().filter_map(|planned| {
        parts.get(planned.part)?.segments.get(planned.first_segment..=planned.last_segment)
    });
    files.flatten().filter_map(|file| Some(fs::metadata(&file.path).ok()?.len())).sum()
}

fn edges_of(part: &PartPlan) -> Vec<usize> {
    let mut edges = vec![part.first_segment, part.last_segment];
    edges.dedup();
    edges
}

struct Scan {
    edges: Edges,
    /// Where the next piece is put in the stream.
    at: i64,
}

impl Scan {
    fn segment(
        &mut self,
        segment: &Segment,
        (part, index): (usize, usize),
        stream: &mut TsWriter,
    ) -> Result<(), Unfit> {
        let mut last = None;
        for unit in &segment.media.video {
            if last != Some(unit.sets.hash) {
                self.edges.sets.add(&unit.sets)?;
                last = Some(unit.sets.hash);
            }
        }
        for (number, (group, cut)) in segment.groups.iter().enumerate() {
            let Some(cut) = cut.as_ref().filter(|cut| !cut.encoded.is_empty()) else { continue };
            let begin = segment.times.get(group.start).copied().unwrap_or_default();
            let offset = self.at - begin;
            let own = segment.pictures(group, group.len()).map(|(unit, _)| unit.data.len() as u64);
            self.edges.kept_bytes = self.edges.kept_bytes.saturating_sub(own.sum());
            let pictures = segment.pictures(group, cut.decoded);
            let end = write_pictures(stream, pictures, offset);
            let place = (part, index, number);
            self.edges.jobs.push(Job { place, times: cut.encoded.clone(), offset });
            // a second between two pieces, as far from each other as from a hole in a recording
            self.at = end + TICKS;
        }
        Ok(())
    }
}

/// Writes pictures of one group moved by `offset`; the latest time written.
pub(super) fn write_pictures<'a>(
    stream: &mut TsWriter,
    pictures: impl Iterator<Item = (&'a AccessUnit, i64)>,
    offset: i64,
) -> i64 {
    let (mut latest, mut before) = (i64::MIN, i64::MIN);
    for (unit, pts) in pictures {
        let dts = unwrap_pts(unit.dts_raw, pts).min(pts);
        before = dts.max(before.saturating_add(1)).min(pts);
        latest = latest.max(pts + offset);
        stream.video(pts + offset, before + offset, unit.key, &unit.data);
    }
    latest
}

/// Encoded pictures by the group they belong to.
pub(super) type Pieces = HashMap<Place, Vec<Coded>>;

/// A picture as the encoder gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coded {
    /// In the source's ticks.
    pub pts: i64,
    /// Whether decoding can begin here.
    pub key: bool,
    /// Annex B.
    pub data: bytes::Bytes,
}
