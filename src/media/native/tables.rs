//! The index of a file: everything in front of the payload. Pure.

use super::{
    boxes::{boxed, counted, full, halves, sized, words},
    entry::{Pictures, sound_entry},
};
use crate::{
    domain::time::Timestamp,
    media::{ffmpeg::Metadata, ts::AudioFormat},
};

/// Ticks per second of the presentation.
const MOVIE_SCALE: u32 = 90_000;
/// Between the zero of MP4 (1904) and that of Unix.
const SECONDS_SINCE_1904: i64 = 2_082_844_800;
const MATRIX: [u32; 9] = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000];
/// `und`
const NO_LANGUAGE: u16 = 0x55c4;

/// How the samples of a track are decoded.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Pictures(Pictures),
    Sound(AudioFormat),
}

/// Samples that lie side by side in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub offset: u64,
    pub samples: u32,
}

/// One track.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub kind: Kind,
    /// Units of the times below per second.
    pub timescale: u32,
    /// When each sample is decoded: begins with zero, rises.
    pub dts: Vec<i64>,
    /// By how much later each is shown; empty: at once.
    pub shifts: Vec<u32>,
    /// Numbers (from 1) of samples at which decoding can begin; none: all.
    pub keys: Option<Vec<u32>>,
    pub sizes: Vec<u32>,
    pub chunks: Vec<Chunk>,
    /// Length of the last sample.
    pub last: u32,
    pub edit: Edit,
}

/// What of a track is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// Nothing before it for so long (90 kHz ticks).
    pub empty: u64,
    /// 90 kHz ticks.
    pub duration: u64,
    /// In the track's timescale.
    pub media_time: u64,
}

/// All that stands in front of `payload` bytes, in exactly `room` bytes; none if there is not enough room. Offsets
/// of the chunks count from the file's beginning, the payload begins at `room`.
pub(super) fn front(
    tracks: &[Track],
    meta: &Metadata,
    room: usize,
    payload: u64,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(room);
    boxed(&mut out, b"ftyp", |out| out.extend_from_slice(b"isom\0\0\x02\0isomiso2avc1mp41"));
    moov(&mut out, tracks, meta);
    let mut media = Vec::new();
    match u32::try_from(payload + 8) {
        Ok(length) => {
            words(&mut media, &[length]);
            media.extend_from_slice(b"mdat");
        }
        Err(_) => {
            words(&mut media, &[1]);
            media.extend_from_slice(b"mdat");
            media.extend_from_slice(&(payload + 16).to_be_bytes());
        }
    }
    let spare = room.checked_sub(out.len() + media.len())?;
    if spare > 0 {
        boxed(&mut out, b"free", |out| out.resize(out.len() + spare.saturating_sub(8), 0));
    }
    out.extend_from_slice(&media);
    // a rest of less than a box's header cannot be filled
    (out.len() == room).then_some(out)
}

/// Space for so many samples in so many chunks of either kind: enough whatever the times of the pictures are, as long
/// as sound has hardly any holes.
pub(super) fn bound(pictures: u64, frames: u64, chunks: u64, sets: usize, meta: &Metadata) -> u64 {
    let title = meta.title.as_ref().map_or(0, String::len);
    // sizes, steps and shifts of pictures, numbers of key ones; sizes and steps of sound; chunks of both
    let fixed = 4096 + sets + title;
    pictures * (4 + 8 + 8 + 1) + frames * (4 + 1) + chunks * 2 * (8 + 12) + fixed as u64
}

fn moov(out: &mut Vec<u8>, tracks: &[Track], meta: &Metadata) {
    let created = created(meta.started_at);
    boxed(out, b"moov", |out| {
        let longest = tracks.iter().map(Track::shown).max().unwrap_or(0);
        let version = version(&[created, longest]);
        full(out, b"mvhd", version, 0, |out| {
            sized(out, version, &[created, created]);
            words(out, &[MOVIE_SCALE]);
            sized(out, version, &[longest]);
            words(out, &[0x10000, 0x0100_0000, 0, 0]);
            words(out, &MATRIX);
            words(out, &[0; 6]);
            words(out, &[u32::try_from(tracks.len()).unwrap_or(0) + 1]);
        });
        for (track, number) in tracks.iter().zip(1u32..) {
            boxed(out, b"trak", |out| track.write(out, number, created));
        }
        tags(out, meta);
    });
}

fn created(at: Option<Timestamp>) -> u64 {
    let seconds = at.map(|at| at.as_micros().div_euclid(1_000_000) + SECONDS_SINCE_1904);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
}

/// Of a box: 1 where a number needs more than four bytes.
fn version(numbers: &[u64]) -> u8 {
    u8::from(numbers.iter().any(|&number| number > u64::from(u32::MAX)))
}

/// Title and date as players look for them.
fn tags(out: &mut Vec<u8>, meta: &Metadata) {
    let mut items: Vec<(&[u8; 4], String)> = Vec::new();
    if let Some(title) = &meta.title {
        let title = title.chars().filter(|letter| !letter.is_control()).collect();
        items.push((b"\xa9nam", title));
    }
    if let Some(time) = meta.started_at {
        items.push((b"\xa9day", time.to_rfc3339()));
    }
    if items.is_empty() {
        return;
    }
    boxed(out, b"udta", |out| {
        full(out, b"meta", 0, 0, |out| {
            full(out, b"hdlr", 0, 0, |out| {
                out.extend_from_slice(b"\0\0\0\0mdirappl\0\0\0\0\0\0\0\0\0")
            });
            boxed(out, b"ilst", |out| {
                for (name, text) in items {
                    boxed(out, name, |out| {
                        boxed(out, b"data", |out| {
                            // text in UTF-8, no language
                            words(out, &[1, 0]);
                            out.extend_from_slice(text.as_bytes());
                        });
                    });
                }
            });
        });
    });
}

impl Track {
    /// Length of the presentation in 90 kHz ticks.
    fn shown(&self) -> u64 {
        self.edit.empty + self.edit.duration
    }

    /// Length of all samples in the track's timescale.
    fn length(&self) -> u64 {
        let last = self.dts.last().copied().unwrap_or(0);
        u64::try_from(last).unwrap_or(0) + u64::from(self.last)
    }

    fn write(&self, out: &mut Vec<u8>, number: u32, created: u64) {
        let (volume, group) = match self.kind {
            Kind::Pictures(_) => (0, 0),
            Kind::Sound(_) => (0x0100, 1),
        };
        let (width, height) = match &self.kind {
            Kind::Pictures(pictures) => pictures.shown_size(),
            Kind::Sound(_) => (0, 0),
        };
        let version = version(&[created, self.shown(), self.length(), self.edit.media_time]);
        full(out, b"tkhd", version, 3, |out| {
            sized(out, version, &[created, created]);
            words(out, &[number, 0]);
            sized(out, version, &[self.shown()]);
            words(out, &[0, 0]);
            halves(out, &[0, group, volume, 0]);
            words(out, &MATRIX);
            words(out, &[width << 16, height << 16]);
        });
        boxed(out, b"edts", |out| self.edits(out, version));
        boxed(out, b"mdia", |out| {
            full(out, b"mdhd", version, 0, |out| {
                sized(out, version, &[created, created]);
                words(out, &[self.timescale]);
                sized(out, version, &[self.length()]);
                halves(out, &[NO_LANGUAGE, 0]);
            });
            let (name, label): (&[u8; 4], &[u8]) = match self.kind {
                Kind::Pictures(_) => (b"vide", b"VideoHandler\0"),
                Kind::Sound(_) => (b"soun", b"SoundHandler\0"),
            };
            full(out, b"hdlr", 0, 0, |out| {
                words(out, &[0]);
                out.extend_from_slice(name);
                words(out, &[0; 3]);
                out.extend_from_slice(label);
            });
            boxed(out, b"minf", |out| {
                match self.kind {
                    Kind::Pictures(_) => full(out, b"vmhd", 0, 1, |out| words(out, &[0; 2])),
                    Kind::Sound(_) => full(out, b"smhd", 0, 0, |out| words(out, &[0])),
                }
                boxed(out, b"dinf", |out| {
                    full(out, b"dref", 0, 0, |out| {
                        words(out, &[1]);
                        full(out, b"url ", 0, 1, |_| {});
                    });
                });
                boxed(out, b"stbl", |out| self.samples(out));
            });
        });
    }

    fn edits(&self, out: &mut Vec<u8>, version: u8) {
        full(out, b"elst", version, 0, |out| {
            words(out, &[1 + u32::from(self.edit.empty > 0)]);
            if self.edit.empty > 0 {
                sized(out, version, &[self.edit.empty]);
                // -1: nothing
                out.extend_from_slice(if version == 1 { &[0xff; 8] } else { &[0xff; 4] });
                words(out, &[0x10000]);
            }
            sized(out, version, &[self.edit.duration, self.edit.media_time]);
            words(out, &[0x10000]);
        });
    }

    fn samples(&self, out: &mut Vec<u8>) {
        full(out, b"stsd", 0, 0, |out| {
            words(out, &[1]);
            match &self.kind {
                Kind::Pictures(pictures) => pictures.entry(out),
                Kind::Sound(format) => sound_entry(out, *format, self.bits()),
            }
        });
        let next = self.dts.iter().skip(1).zip(&self.dts);
        let steps = next.map(|(next, this)| u32::try_from(next - this).unwrap_or(0));
        let steps: Vec<_> = runs(steps.chain((!self.dts.is_empty()).then_some(self.last)));
        let pair = |out: &mut Vec<u8>, (count, value): (u32, u32)| words(out, &[count, value]);
        full(out, b"stts", 0, 0, |out| counted(out, steps.into_iter(), pair));
        if self.shifts.iter().any(|&shift| shift > 0) {
            let shifts = runs(self.shifts.iter().copied());
            full(out, b"ctts", 0, 0, |out| counted(out, shifts.into_iter(), pair));
        }
        if let Some(keys) = &self.keys {
            full(out, b"stss", 0, 0, |out| {
                counted(out, keys.iter(), |out, key| words(out, &[*key]))
            });
        }
        self.places(out);
        if let Kind::Sound(_) = self.kind {
            // a frame is whole only behind the one before it
            full(out, b"sgpd", 1, 0, |out| {
                out.extend_from_slice(b"roll");
                words(out, &[2, 1]);
                halves(out, &[0xffff]);
            });
            full(out, b"sbgp", 0, 0, |out| {
                out.extend_from_slice(b"roll");
                words(out, &[1, self.count(), 1]);
            });
        }
    }

    fn places(&self, out: &mut Vec<u8>) {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (chunk, number) in self.chunks.iter().zip(1u32..) {
            if runs.last().is_none_or(|(_, samples)| *samples != chunk.samples) {
                runs.push((number, chunk.samples));
            }
        }
        full(out, b"stsc", 0, 0, |out| {
            counted(out, runs.into_iter(), |out, (from, samples)| words(out, &[from, samples, 1]));
        });
        full(out, b"stsz", 0, 0, |out| {
            words(out, &[0]);
            counted(out, self.sizes.iter(), |out, size| words(out, &[*size]));
        });
        let far = version(&self.chunks.iter().map(|chunk| chunk.offset).collect::<Vec<_>>());
        let name = if far == 1 { b"co64" } else { b"stco" };
        full(out, name, 0, 0, |out| {
            counted(out, self.chunks.iter(), |out, chunk| sized(out, far, &[chunk.offset]));
        });
    }

    fn count(&self) -> u32 {
        u32::try_from(self.sizes.len()).unwrap_or(u32::MAX)
    }

    /// Average bits in a second.
    fn bits(&self) -> u32 {
        let bytes: u64 = self.sizes.iter().map(|&size| u64::from(size)).sum();
        let bits = bytes.saturating_mul(8).saturating_mul(self.timescale.into());
        u32::try_from(bits / self.length().max(1)).unwrap_or(u32::MAX)
    }
}

/// Equal neighbours, counted.
fn runs(values: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((count, last)) if *last == value => *count += 1,
            _ => runs.push((1, value)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use proptest::prelude::*;

    use super::*;
    use crate::media::mp4;

    /// 320 x 180, High.
    const SPS: [u8; 25] = [
        0x67, 0x64, 0x00, 0x0c, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9f, 0x01, 0x6c, 0x80, 0x00, 0x00,
        0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x07, 0x8a, 0x14, 0xcb,
    ];

    fn pictures() -> Kind {
        let sets = [SPS.to_vec(), vec![0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]];
        Kind::Pictures(Pictures::judge(&sets).expect("plain sets"))
    }

    fn read(tracks: &[Track], room: usize, payload: u64) -> (mp4::Mp4, Vec<u8>) {
        let front = front(tracks, &Metadata::default(), room, payload).expect("room");
        assert_eq!(front.len(), room);
        let name = format!("tables-{}.mp4", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        let mut file = File::create(&path).expect("a file");
        file.write_all(&front).expect("written");
        // a hole: takes no space on disk
        file.set_len(room as u64 + payload).expect("longer");
        let read = mp4::read(&path);
        std::fs::remove_file(&path).expect("removed");
        (read.expect("what we write, we read"), front)
    }

    fn track(kind: Kind, timescale: u32, samples: &[(u32, u32, u32)], edit: Edit) -> Track {
        let mut at = 0;
        let steps = samples.iter().map(|(step, ..)| {
            let this = at;
            at += i64::from(*step);
            this
        });
        Track {
            kind,
            timescale,
            dts: steps.collect(),
            shifts: samples.iter().map(|(_, shift, _)| *shift).collect(),
            keys: None,
            sizes: samples.iter().map(|(.., size)| *size).collect(),
            chunks: vec![Chunk { offset: 0, samples: u32::try_from(samples.len()).expect("few") }],
            last: samples.last().map_or(0, |(step, ..)| *step),
            edit,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_written_is_read(
            samples in prop::collection::vec((1u32..9000, 0u32..20_000, 1u32..90_000), 1..120),
            sound in prop::collection::vec(1024u32..1030, 0..60),
            keys in prop::collection::btree_set(1u32..120, 0..20),
            lead in 0u64..3,
            spare in prop::sample::select(vec![0usize, 8, 9, 4000]),
        ) {
            let count = u32::try_from(samples.len()).expect("few");
            let length: u64 = samples.iter().map(|(step, ..)| u64::from(*step)).sum();
            let edit = Edit { empty: 0, duration: length, media_time: u64::from(samples[0].1) };
            let mut video = track(pictures(), 90_000, &samples, edit);
            let mut keys: Vec<_> = keys.into_iter().filter(|key| *key <= count).collect();
            keys.insert(0, 1);
            keys.dedup();
            video.keys = Some(keys.clone());
            let mut tracks = vec![video];
            let format = AudioFormat { rate: 48_000, channels: 2, profile: 1 };
            if !sound.is_empty() {
                let frames: Vec<_> = sound.iter().map(|step| (*step, 0, 7)).collect();
                let edit = Edit { empty: lead, duration: 90_000, media_time: 1024 };
                tracks.push(track(Kind::Sound(format), 48_000, &frames, edit));
            }
            let need = front(&tracks, &Metadata::default(), 1 << 20, 5).expect("room");
            let free = need.windows(4).position(|name| name == b"free").expect("spare") - 4;
            let room = free + 8 + spare;
            // where nothing is left there is no box for it
            let (read, front) = read(&tracks, room, 5);
            prop_assert_eq!(front.windows(4).any(|name| name == b"free"), spare > 0);
            prop_assert!(read.index_in_front);
            prop_assert_eq!(read.timescale, 90_000);
            let video = read.track(b"vide").expect("pictures");
            prop_assert_eq!((video.samples, video.sample_entries), (count, 1));
            prop_assert_eq!((video.width, video.height), (320, 180));
            prop_assert_eq!(video.sync_samples.as_ref(), Some(&keys));
            let edits = vec![mp4::Edit { duration: length, media_time: i64::from(samples[0].1) }];
            prop_assert_eq!(&video.edits, &edits);
            prop_assert_eq!(video.first_sample_pts, i64::from(samples[0].1));
            let mut dts = 0i64;
            let (begin, end) = (i64::from(samples[0].1), i64::from(samples[0].1) + length as i64);
            let mut shown = Vec::new();
            for (step, shift, _) in &samples {
                let pts = dts + i64::from(*shift);
                if (begin..end).contains(&pts) {
                    shown.push(pts - begin);
                }
                dts += i64::from(*step);
            }
            prop_assert_eq!(video.presented as usize, shown.len());
            prop_assert_eq!(Some(&video.last_pts), shown.iter().max());
            let sounds = read.track(b"soun").map_or(0, |track| track.samples as usize);
            prop_assert_eq!(sounds, sound.len());
            if let Some(track) = read.track(b"soun") {
                prop_assert_eq!(track.edits.len(), if lead > 0 { 2 } else { 1 });
                prop_assert_eq!(track.edits.last().map(|edit| edit.media_time), Some(1024));
            }
        }
    }

    #[test]
    fn beyond_four_gibibytes_places_and_lengths_have_eight_bytes() {
        let far = 5u64 << 30;
        let edit = Edit { empty: 0, duration: 6000, media_time: 0 };
        let mut video = track(pictures(), 90_000, &[(3000, 0, 9), (3000, 0, 9)], edit);
        let room = 4096;
        video.chunks = vec![Chunk { offset: 4096, samples: 1 }, Chunk { offset: far, samples: 1 }];
        let (read, front) = read(&[video], room, far);
        assert_eq!(read.size_bytes, room as u64 + far);
        assert_eq!(read.track(b"vide").map(|track| track.presented), Some(2));
        let at = front.windows(4).position(|name| name == b"co64").expect("large offsets");
        assert_eq!(front[at + 8..at + 12], 2u32.to_be_bytes());
        assert_eq!(front[at + 12..at + 20], 4096u64.to_be_bytes());
        assert_eq!(front[at + 20..at + 28], far.to_be_bytes());
        assert!(!front.windows(4).any(|name| name == b"stco"));
        assert_eq!(front[room - 16..room - 8], *b"\0\0\0\x01mdat");
        assert_eq!(front[room - 8..], (far + 16).to_be_bytes());
    }

    #[test]
    fn too_little_room_is_noticed() {
        let edit = Edit { empty: 0, duration: 3000, media_time: 0 };
        let tracks = [track(pictures(), 90_000, &[(3000, 0, 9)], edit)];
        let whole = front(&tracks, &Metadata::default(), 4096, 9).expect("room");
        let free = whole.windows(4).position(|name| name == b"free").expect("spare") - 4;
        assert!(front(&tracks, &Metadata::default(), free + 8, 9).is_some());
        for room in [0, 100, free, free + 7, free + 9, free + 15] {
            assert_eq!(front(&tracks, &Metadata::default(), room, 9), None, "{room}");
        }
        assert!(front(&tracks, &Metadata::default(), free + 16, 9).is_some());
    }
}
