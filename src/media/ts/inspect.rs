//! What the index keeps of a segment.

use serde::{Deserialize, Serialize};

use super::{AudioFrame, Damage, Demuxed, demux, h264, unwrap_pts};
use crate::media::TICKS;

/// Frame length taken where a segment holds one frame only: 1/30 s.
const LONE_FRAME: i64 = TICKS / 30;

/// Facts of one whole segment. Times are 90 kHz ticks, unwrapped from the first picture's raw time on: they may
/// exceed 33 bits, and only audio that begins before the wrap may be below zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFacts {
    /// Size of the file.
    pub bytes: u64,
    /// The earliest picture.
    pub pts_first: i64,
    /// Where the last picture ends: the greatest time plus one frame.
    pub pts_end: i64,
    /// Usual distance of two pictures (the median).
    pub frame_duration: i64,
    /// Number of pictures.
    pub frames: u32,
    /// Every picture at which decoding can begin; the first of the segment always is one.
    pub key_frames: Vec<KeyFrame>,
    /// In pixels, of the first picture.
    pub width: u32,
    /// In pixels, of the first picture.
    pub height: u32,
    /// Names the parameter sets of all pictures: equal names can be joined without encoding.
    pub parameter_sets: u64,
    /// The sound, if there is any.
    pub audio: Option<AudioFacts>,
    /// Names the bytes.
    pub checksum: i64,
}

/// A picture at which decoding can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFrame {
    /// When it is shown.
    pub pts: i64,
    /// Of its first packet, in bytes from the start of the segment.
    pub offset: u64,
}

/// The sound of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioFacts {
    /// Samples per second.
    pub rate: u32,
    /// Number of channels.
    pub channels: u8,
    /// The first frame.
    pub pts_first: i64,
    /// Where the last frame ends.
    pub pts_end: i64,
}

/// Checks a segment and says what is in it, without decoding.
///
/// # Errors
/// The [`Damage`], which is also the reason of the gap that the segment leaves.
pub fn inspect(bytes: &[u8]) -> Result<SegmentFacts, Damage> {
    let Demuxed { video, audio } = demux(bytes)?;
    let first = video.first().ok_or(Damage::corrupt("it holds no picture"))?;
    if let Some(why) = video.iter().find_map(|unit| h264::fault(&unit.data, unit.key)) {
        return Err(Damage::corrupt(why));
    }
    let reference = first.pts_raw;
    let times: Vec<i64> = video.iter().map(|unit| unwrap_pts(unit.pts_raw, reference)).collect();
    let frame_duration = usual_distance(&times);
    let (min, max) = times
        .iter()
        .fold((reference, reference), |(min, max), &time| (min.min(time), max.max(time)));
    let key_frames = video.iter().zip(&times).filter(|(unit, _)| unit.key);
    let key_frames = key_frames.map(|(unit, &pts)| KeyFrame { pts, offset: unit.offset as u64 });
    let mut sets = first.sets.hash;
    let mut last = &first.sets;
    for unit in &video {
        if unit.sets.hash != last.hash {
            // other sets inside the segment: a name of its own
            sets = sets.rotate_left(7) ^ unit.sets.hash;
            last = &unit.sets;
        }
    }
    Ok(SegmentFacts {
        bytes: bytes.len() as u64,
        pts_first: min,
        pts_end: max + frame_duration,
        frame_duration,
        frames: u32::try_from(video.len()).unwrap_or(u32::MAX),
        key_frames: key_frames.collect(),
        width: first.sets.size.0,
        height: first.sets.size.1,
        parameter_sets: sets,
        audio: audio_facts(&audio, reference),
        checksum: checksum(bytes),
    })
}

/// The CRC-32 of a segment, piece by piece: tells bytes that changed on the disk, at a tenth of the cost of a hash that
/// nobody can forge.
#[derive(Debug, Default)]
pub(crate) struct Checksum(crc32fast::Hasher);

impl Checksum {
    pub fn new() -> Checksum {
        Checksum::default()
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn value(self) -> i64 {
        i64::from(self.0.finalize())
    }
}

/// The checksum of all bytes of a segment.
fn checksum(bytes: &[u8]) -> i64 {
    i64::from(crc32fast::hash(bytes))
}

fn audio_facts(audio: &[AudioFrame], reference: i64) -> Option<AudioFacts> {
    let (first, last) = (audio.first()?, audio.last()?);
    let length = last.samples * TICKS / i64::from(last.format.rate.max(1));
    Some(AudioFacts {
        rate: first.format.rate,
        channels: first.format.channels,
        pts_first: unwrap_pts(first.pts_raw, reference),
        pts_end: unwrap_pts(last.pts_raw, reference) + length,
    })
}

/// The median distance of neighbours in time.
pub(crate) fn usual_distance(times: &[i64]) -> i64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let mut steps: Vec<i64> = sorted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.retain(|&step| step > 0);
    if steps.is_empty() {
        return LONE_FRAME;
    }
    let middle = steps.len() / 2;
    *steps.select_nth_unstable(middle).1
}
