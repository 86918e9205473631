//! Puts samples into chunks, chunks into the file, and the index in front of them.

use std::{fs::File, io, path::Path, sync::Arc};

use super::{
    Control, Payload, Sample,
    entry::{Pictures, SPS},
    output::Output,
    sample::Splitter,
    tables::{self, Chunk, Edit, Kind, Track},
};
use crate::media::{
    SOUND_SLACK, TICKS,
    ffmpeg::Metadata,
    ts::{AudioFormat, raw_block, specific_config},
};

/// A chunk of pictures is closed after so many ticks …
const CHUNK_TICKS: i64 = TICKS;
/// … or bytes.
const CHUNK_BYTES: u64 = 4 << 20;
/// Sound that waits for the end of a chunk of pictures at most.
const SOUND_BYTES: usize = 256 * 1024;
/// Steps of sound that are off by so many samples are rounding.
const ROUNDING: i64 = 2;
/// Samples of a frame of sound.
const FRAME_SAMPLES: i64 = 1024;

/// What is known before the first sample.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// All sequence and picture parameter sets that the pictures refer to, each with its header byte and without
    /// start code, ids unambiguous. The first sequence parameter set gives the size and the colours.
    pub sets: Vec<Vec<u8>>,
    /// Sound, if there shall be any: AAC-LC with one or two channels.
    pub audio: Option<AudioFormat>,
    /// What the file says about itself.
    pub meta: Metadata,
    /// Pictures that will come, as a guess: decides the space reserved for the index.
    pub pictures: u64,
    /// Sound frames that will come, as a guess.
    pub frames: u64,
    /// Ticks that the last picture is shown.
    pub frame_duration: i64,
}

/// What of the samples is shown: `[start, start + duration)` in the samples' ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// First tick.
    pub start: i64,
    /// Number of ticks.
    pub duration: i64,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The file, still open for writing: it is complete, but not synced.
    pub file: Arc<File>,
    /// Of the whole file, hex.
    pub blake3: String,
    /// Pictures.
    pub pictures: u64,
    /// Frames of sound.
    pub frames: u64,
}

/// Why a file cannot be written (by this writer).
#[derive(Debug)]
pub enum Halt {
    /// Not what this writer takes with certainty: let FFmpeg do it.
    Unfit(String),
    /// The space in front did not suffice: begin again, with larger guesses.
    NoRoom,
    /// [`Control`] asked for it.
    Stopped,
    /// What the disk says.
    Io(io::Error),
}

/// Samples of one kind as they come.
#[derive(Debug, Default)]
struct Samples {
    times: Vec<i64>,
    sizes: Vec<u32>,
    chunks: Vec<Chunk>,
}

/// Writes one MP4. Blocking. Dropped before [`Writer::finish`], it leaves an unusable file, which its owner removes.
#[derive(Debug)]
pub struct Writer {
    head: Head,
    kind: Pictures,
    room: usize,
    out: Output,
    splitter: Splitter,
    pictures: Samples,
    dts: Vec<i64>,
    keys: Vec<u32>,
    sound: Samples,
    /// Sound of the chunk that is open, to be written behind its pictures.
    waiting: Vec<u8>,
    waiting_frames: u32,
    /// First time and place of the open chunk of pictures.
    open: Option<(i64, u64)>,
}

impl Writer {
    /// Creates the file (which must not exist) and reserves the space in front.
    ///
    /// # Errors
    /// `Unfit` for parameter sets or sound that the writer does not take, `Io`, `Stopped`.
    pub fn create(path: &Path, head: Head, control: Arc<Control>) -> Result<Writer, Halt> {
        let kind = Pictures::judge(&head.sets).map_err(Halt::Unfit)?;
        if let Some(format) = head.audio
            && specific_config(format).is_none()
        {
            return Err(Halt::Unfit(format!("sound that is not plain AAC-LC: {format:?}")));
        }
        let room = room(&head);
        let out = Output::create(path, room, control)?;
        Ok(Writer {
            head,
            kind,
            room,
            out,
            splitter: Splitter::new(),
            pictures: Samples::default(),
            dts: Vec::new(),
            keys: Vec::new(),
            sound: Samples::default(),
            waiting: Vec::new(),
            waiting_frames: 0,
            open: None,
        })
    }

    /// The next picture in decode order. Sound and pictures should come about as they are played.
    ///
    /// # Errors
    /// `Unfit` for an access unit that makes no sense, or with parameter sets that were not given in front; `Io`,
    /// `Stopped`.
    pub fn picture(&mut self, sample: Sample<'_>) -> Result<(), Halt> {
        let place = self.out.position();
        if let Some((since, from)) = self.open
            && (sample.dts - since >= CHUNK_TICKS || place - from >= CHUNK_BYTES)
        {
            self.close_chunk()?;
        }
        let place = self.out.position();
        if self.open.is_none() {
            self.open = Some((sample.dts, place));
            self.pictures.chunks.push(Chunk { offset: place, samples: 0 });
        }
        self.payload(sample.data)?;
        let size = u32::try_from(self.out.position() - place);
        self.pictures.sizes.push(size.map_err(|_| unfit("a picture of more than 4 GiB"))?);
        self.pictures.times.push(sample.pts);
        self.dts.push(sample.dts);
        if let Some(chunk) = self.pictures.chunks.last_mut() {
            chunk.samples += 1;
        }
        if sample.key {
            self.keys.push(count(&self.dts));
        }
        Ok(())
    }

    fn payload(&mut self, data: Payload<'_>) -> Result<(), Halt> {
        let Writer { out, head, splitter, .. } = self;
        let mut slices = 0;
        let whole = splitter.split(data, |unit| {
            let kind = unit.first().map_or(0, |first| first & 31);
            match kind {
                // the delimiter says nothing that the sample does not
                9 => return Ok(()),
                SPS | 8 => {
                    let known = head.sets.iter().any(|set| set == unit);
                    return if known {
                        Ok(())
                    } else {
                        Err(unfit("other parameter sets in between"))
                    };
                }
                14 | 15 | 20 | 21 => return Err(unfit("pictures in layers")),
                2..=4 => return Err(unfit("slices in partitions")),
                1 | 5 => slices += 1,
                _ => {}
            }
            let length =
                u32::try_from(unit.len()).map_err(|_| unfit("a unit of more than 4 GiB"))?;
            out.push(&length.to_be_bytes())?;
            out.push(unit)
        })?;
        if whole && slices > 0 { Ok(()) } else { Err(unfit("a picture without slices")) }
    }

    /// The next frame of sound with its ADTS header, in order and without overlap.
    ///
    /// # Errors
    /// `Unfit` for a frame of another format or with several blocks; `Io`, `Stopped`.
    pub fn sound(&mut self, pts: i64, adts: &[u8]) -> Result<(), Halt> {
        let (format, block) = raw_block(adts).ok_or(unfit("a frame of sound makes no sense"))?;
        if self.head.audio != Some(format) {
            return Err(unfit("the sound changes"));
        }
        if self.waiting.len() + block.len() > SOUND_BYTES {
            self.close_chunk()?;
        }
        self.waiting.extend_from_slice(block);
        self.waiting_frames += 1;
        self.sound.sizes.push(u32::try_from(block.len()).unwrap_or(0));
        self.sound.times.push(pts);
        Ok(())
    }

    /// Sound goes behind the pictures it belongs to.
    fn close_chunk(&mut self) -> Result<(), Halt> {
        self.open = None;
        if self.waiting_frames > 0 {
            let chunk = Chunk { offset: self.out.position(), samples: self.waiting_frames };
            self.sound.chunks.push(chunk);
            self.out.push(&self.waiting)?;
            self.waiting.clear();
            self.waiting_frames = 0;
        }
        Ok(())
    }

    /// Writes what is left, and the index.
    ///
    /// # Errors
    /// `NoRoom`, `Io`, `Stopped`; `Unfit` if there is no picture, the first one is no key frame, or two are shown at
    /// one time.
    pub fn finish(mut self, shown: Shown) -> Result<Written, Halt> {
        self.close_chunk()?;
        if self.keys.first() != Some(&1) {
            return Err(unfit("it does not begin with a key frame"));
        }
        let (pictures, frames) = (self.dts.len() as u64, self.sound.sizes.len() as u64);
        let payload = self.out.position() - self.room as u64;
        let mut tracks = vec![self.picture_track(shown)?];
        tracks.extend(self.sound_track(shown)?);
        let front = tables::front(&tracks, &self.head.meta, self.room, payload);
        let front = front.ok_or(Halt::NoRoom)?;
        let (file, blake3) = self.out.finish(front)?;
        Ok(Written { file, blake3, pictures, frames })
    }

    fn picture_track(&mut self, shown: Shown) -> Result<Track, Halt> {
        let Samples { times, sizes, chunks } = std::mem::take(&mut self.pictures);
        let mut dts = std::mem::take(&mut self.dts);
        let rising = dts.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || dts.iter().zip(&times).any(|(dts, pts)| dts > pts) {
            dts = decode_times(&times, self.head.frame_duration.max(1))
                .ok_or(unfit("two pictures at one time"))?;
        }
        let zero = dts.first().copied().unwrap_or(0);
        let shifts = times.iter().zip(&dts).map(|(pts, dts)| u32::try_from(pts - dts));
        let shifts = shifts.collect::<Result<_, _>>();
        let keys = std::mem::take(&mut self.keys);
        Ok(Track {
            kind: Kind::Pictures(self.kind.clone()),
            timescale: 90_000,
            dts: dts.iter().map(|dts| dts - zero).collect(),
            shifts: shifts.map_err(|_| unfit("times too far apart"))?,
            keys: (keys.len() < sizes.len()).then_some(keys),
            sizes,
            chunks,
            last: u32::try_from(self.head.frame_duration.max(1)).unwrap_or(1),
            edit: edit(shown, zero, 90_000, i64::MAX),
        })
    }

    fn sound_track(&mut self, shown: Shown) -> Result<Option<Track>, Halt> {
        let Samples { times, sizes, chunks } = std::mem::take(&mut self.sound);
        let (Some(format), Some(&zero)) = (self.head.audio, times.first()) else { return Ok(None) };
        let rate = i64::from(format.rate.max(1));
        let mut dts = Vec::with_capacity(times.len());
        let mut next = 0;
        for time in &times {
            let at = ((time - zero) * rate + TICKS / 2).div_euclid(TICKS);
            if next - at > rate * SOUND_SLACK / TICKS {
                return Err(unfit("frames of sound overlap"));
            }
            let at = if at - next <= ROUNDING { next } else { at };
            dts.push(at);
            next = at + FRAME_SAMPLES;
        }
        let end = zero + next * TICKS / rate;
        Ok(Some(Track {
            kind: Kind::Sound(format),
            timescale: format.rate,
            dts,
            shifts: Vec::new(),
            keys: None,
            sizes,
            chunks,
            last: u32::try_from(FRAME_SAMPLES).unwrap_or(0),
            edit: edit(shown, zero, rate, end),
        }))
    }
}

/// The samples' time `zero` is the track's zero; nothing is there after `end`.
fn edit(shown: Shown, zero: i64, scale: i64, end: i64) -> Edit {
    let lead = shown.start - zero;
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    let empty = positive(-lead);
    let length = shown.duration.min(end.saturating_sub(shown.start));
    Edit {
        empty,
        duration: positive(length).saturating_sub(empty),
        media_time: positive(lead * scale / TICKS),
    }
}

/// Decode times for pictures that are given in decode order: the times of all pictures in order, moved back by as
/// many pictures as any one comes early. None if two pictures have the same time.
fn decode_times(pts: &[i64], frame: i64) -> Option<Vec<i64>> {
    let mut sorted = pts.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let early = |(index, time): (usize, &i64)| {
        index.saturating_sub(sorted.binary_search(time).unwrap_or(index))
    };
    let back = pts.iter().enumerate().map(early).max().unwrap_or(0);
    let first = sorted.first().copied().unwrap_or(0);
    let lead = (1..=back).rev().map(|index| first - frame * index as i64);
    Some(lead.chain(sorted.iter().copied()).take(pts.len()).collect())
}

fn room(head: &Head) -> usize {
    let sets = head.sets.iter().map(Vec::len).sum();
    let chunks = head.pictures / 8 + head.frames / 256 + 16;
    usize::try_from(tables::bound(head.pictures, head.frames, chunks, sets, &head.meta))
        .unwrap_or(usize::MAX)
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn unfit(why: &'static str) -> Halt {
    Halt::Unfit(why.to_owned())
}
