//! Reads what an MP4 says of itself, and corrects its edit lists. No decoding, bounded, safe on any input.

mod boxes;
mod patch;
mod weigh;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use boxes::{Boxes, full_box, u16_at, u32_at, u64_at};
pub use patch::{TrackEdit, patch};
pub use weigh::{Pictures, pictures, weigh};

/// The index may be this large; ours has about 40 bytes a picture.
const MAX_MOOV: u64 = 64 << 20;
/// Samples of a track we are willing to walk over.
const MAX_SAMPLES: u32 = 8_000_000;
/// Boxes at the file's top level.
const MAX_TOP: usize = 64;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mp4 {
    /// Of the whole file, in bytes.
    pub size_bytes: u64,
    /// Whether the index lies before the media (so that playing can begin while loading).
    pub index_in_front: bool,
    /// Units per second of `duration` and of edit lengths.
    pub timescale: u32,
    /// Length of the presentation.
    pub duration: u64,
    /// In the file's order.
    pub tracks: Vec<Track>,
}

/// One track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Handler: `vide`, `soun`, …
    pub kind: [u8; 4],
    /// Name of the sample entry: `avc1`, `mp4a`, …
    pub codec: [u8; 4],
    /// Number of sample entries.
    pub sample_entries: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Units per second of the times below.
    pub timescale: u32,
    /// Number of stored samples.
    pub samples: u32,
    /// Numbers (from 1) of the samples at which decoding can begin; none: all.
    pub sync_samples: Option<Vec<u32>>,
    /// Edit list.
    pub edits: Vec<Edit>,
    /// Time of the first sample in decode order.
    pub first_sample_pts: i64,
    /// Samples whose time lies inside the edits (all of them without an edit list).
    pub presented: u32,
    /// Earliest presented time, relative to the edit's start.
    pub first_pts: i64,
    /// Latest presented time, relative to the edit's start.
    pub last_pts: i64,
}

/// One entry of an edit list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// In the file's timescale.
    pub duration: u64,
    /// In the track's timescale; -1 is an empty edit.
    pub media_time: i64,
}

impl Mp4 {
    /// The first track of this kind.
    pub fn track(&self, kind: &[u8; 4]) -> Option<&Track> {
        self.tracks.iter().find(|track| &track.kind == kind)
    }
}

/// Reads a file's index. Blocking.
///
/// # Errors
/// `InvalidData` if it is not an MP4 we understand, else what the disk says.
pub fn read(path: &Path) -> io::Result<Mp4> {
    let mut file = File::open(path)?;
    let layout = layout(&mut file)?;
    let moov = read_range(&mut file, layout.moov)?;
    let mut out = parse_moov(&moov).ok_or_else(|| invalid("the index makes no sense"))?;
    out.size_bytes = layout.size;
    out.index_in_front = layout.media.is_some_and(|media| layout.moov.0 < media);
    Ok(out)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Where the parts of a file lie.
struct Layout {
    size: u64,
    /// Offset and length of the index, header included.
    moov: (u64, u64),
    media: Option<u64>,
}

fn layout(file: &mut File) -> io::Result<Layout> {
    let size = file.seek(SeekFrom::End(0))?;
    let (mut moov, mut media, mut at) = (None, None, 0u64);
    for _ in 0..MAX_TOP {
        if size.saturating_sub(at) < 8 {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0u8; 16];
        let count = usize::try_from((size - at).min(16)).unwrap_or(16);
        file.read_exact(head.get_mut(..count).unwrap_or_default())?;
        let length = match u32_at(&head, 0) {
            Some(1) => u64_at(&head, 8).unwrap_or(0),
            Some(0) => size - at,
            Some(length) => u64::from(length),
            None => 0,
        };
        if length < 8 || length > size - at {
            return Err(invalid("a box is longer than the file"));
        }
        match head.get(4..8) {
            Some(b"moov") => moov = moov.or(Some((at, length))),
            Some(b"mdat") => media = media.or(Some(at)),
            _ => {}
        }
        at += length;
    }
    let moov = moov.ok_or_else(|| invalid("there is no index"))?;
    Ok(Layout { size, moov, media })
}

fn read_range(file: &mut File, (offset, length): (u64, u64)) -> io::Result<Vec<u8>> {
    if length > MAX_MOOV {
        return Err(invalid("the index is too large"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| invalid("too large"))?];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn parse_moov(moov: &[u8]) -> Option<Mp4> {
    let inner = moov.get(8..)?;
    let (version, header) = full_box(Boxes::find(inner, b"mvhd")?)?;
    let (timescale, duration) = clock(version, header)?;
    let tracks = Boxes::new(inner).filter(|(name, _)| name == b"trak").take(16);
    let tracks = tracks.filter_map(|(_, body)| parse_track(body, timescale));
    let tracks = tracks.collect();
    Some(Mp4 { size_bytes: 0, index_in_front: false, timescale, duration, tracks })
}

/// Timescale and duration of `mvhd` and `mdhd`, which begin alike.
fn clock(version: u8, body: &[u8]) -> Option<(u32, u64)> {
    if version == 1 {
        Some((u32_at(body, 16)?, u64_at(body, 20)?))
    } else {
        Some((u32_at(body, 8)?, u64::from(u32_at(body, 12)?)))
    }
}

fn parse_track(trak: &[u8], movie_scale: u32) -> Option<Track> {
    let mdia = Boxes::find(trak, b"mdia")?;
    let (version, header) = full_box(Boxes::find(mdia, b"mdhd")?)?;
    let (timescale, _) = clock(version, header)?;
    let kind = Boxes::find(mdia, b"hdlr")?.get(8..12)?.try_into().ok()?;
    let stbl = Boxes::find(Boxes::find(mdia, b"minf")?, b"stbl")?;
    let (_, entries) = full_box(Boxes::find(stbl, b"stsd")?)?;
    let entry = entries.get(4..)?;
    let codec = entry.get(4..8)?.try_into().ok()?;
    let video = &kind == b"vide";
    let side = |at: usize| if video { u16_at(entry, at).map(u32::from) } else { None };
    let edits = Boxes::find(trak, b"edts").and_then(|edts| Boxes::find(edts, b"elst"));
    let mut track = Track {
        kind,
        codec,
        sample_entries: u32_at(entries, 0)?,
        width: side(32).unwrap_or(0),
        height: side(34).unwrap_or(0),
        timescale,
        samples: 0,
        sync_samples: sync_samples(stbl),
        edits: edits.map(parse_edits).unwrap_or_default(),
        first_sample_pts: 0,
        presented: 0,
        first_pts: 0,
        last_pts: 0,
    };
    walk_samples(&mut track, stbl, movie_scale)?;
    Some(track)
}

fn sync_samples(stbl: &[u8]) -> Option<Vec<u32>> {
    let (_, body) = full_box(Boxes::find(stbl, b"stss")?)?;
    Some(body.get(4..)?.chunks_exact(4).filter_map(|entry| u32_at(entry, 0)).collect())
}

fn parse_edits(elst: &[u8]) -> Vec<Edit> {
    let Some((version, body)) = full_box(elst) else { return Vec::new() };
    let rest = body.get(4..).unwrap_or_default();
    let size = if version == 1 { 20 } else { 12 };
    let entry = |bytes: &[u8]| {
        Some(if version == 1 {
            Edit { duration: u64_at(bytes, 0)?, media_time: u64_at(bytes, 8)?.cast_signed() }
        } else {
            let media_time = i64::from(u32_at(bytes, 4)?.cast_signed());
            Edit { duration: u64::from(u32_at(bytes, 0)?), media_time }
        })
    };
    rest.chunks_exact(size).take(1024).filter_map(entry).collect()
}

/// Goes over all samples once: times, and what of them is presented.
fn walk_samples(track: &mut Track, stbl: &[u8], movie_scale: u32) -> Option<()> {
    let (_, steps) = full_box(Boxes::find(stbl, b"stts")?)?;
    let mut steps = Runs::new(steps.get(4..)?);
    let shifts = Boxes::find(stbl, b"ctts").and_then(full_box);
    let mut shifts = shifts.and_then(|(_, body)| Some(Runs::new(body.get(4..)?)));
    let (begin, end) = presented_range(track, movie_scale);
    let (mut dts, mut first, mut last) = (0i64, None::<i64>, None::<i64>);
    while let Some(step) = steps.next() {
        track.samples += 1;
        if track.samples > MAX_SAMPLES {
            return None;
        }
        let shift = shifts.as_mut().and_then(Runs::next).unwrap_or(0);
        // signed in version 1, and written so by many in version 0 too
        let pts = dts.checked_add(i64::from(shift.cast_signed()))?;
        if track.samples == 1 {
            track.first_sample_pts = pts;
        }
        if pts >= begin && pts < end {
            track.presented += 1;
            first = Some(first.map_or(pts, |first| first.min(pts)));
            last = Some(last.map_or(pts, |last| last.max(pts)));
        }
        dts = dts.checked_add(i64::from(step))?;
    }
    track.first_pts = first.unwrap_or(begin).saturating_sub(begin);
    track.last_pts = last.unwrap_or(begin).saturating_sub(begin);
    Some(())
}

/// The part of the track's own time line that its (one, not empty) edit shows.
fn presented_range(track: &Track, movie_scale: u32) -> (i64, i64) {
    let Some(edit) = track.edits.iter().find(|edit| edit.media_time >= 0) else {
        return (0, i64::MAX);
    };
    let length = u128::from(edit.duration) * u128::from(track.timescale);
    // a started unit counts: the end is rounded up to the track's finer scale
    let length = length.div_ceil(u128::from(movie_scale.max(1)));
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    (edit.media_time, edit.media_time.saturating_add(length))
}

/// A run-length coded table of `(count, value)`.
struct Runs<'a> {
    rest: &'a [u8],
    left: u32,
    value: u32,
}

impl<'a> Runs<'a> {
    fn new(rest: &'a [u8]) -> Runs<'a> {
        Runs { rest, left: 0, value: 0 }
    }

    fn next(&mut self) -> Option<u32> {
        while self.left == 0 {
            self.left = u32_at(self.rest, 0)?;
            self.value = u32_at(self.rest, 4)?;
            self.rest = self.rest.get(8..)?;
        }
        self.left -= 1;
        Some(self.value)
    }
}
