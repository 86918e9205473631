//! What a track says about how to decode it.

use super::boxes::{boxed, full, halves, words};
use crate::media::ts::{AudioFormat, Sequence, sequence, specific_config};

/// Kinds of unit.
pub(super) const SPS: u8 = 7;
const PPS: u8 = 8;

/// Parameter sets that were found fit.
#[derive(Debug, Clone)]
pub(super) struct Pictures {
    /// What the first sequence parameter set says.
    pub first: Sequence,
    /// The whole `avcC`.
    config: Vec<u8>,
}

impl Pictures {
    /// Judges parameter sets; the reason where they are not taken.
    pub fn judge(sets: &[Vec<u8>]) -> Result<Pictures, String> {
        let of = |kind: u8| {
            sets.iter().filter(move |set| set.first().is_some_and(|first| first & 31 == kind))
        };
        let (sequences, pictures) = (of(SPS).count(), of(PPS).count());
        if sequences == 0 || sequences > 31 || pictures == 0 || pictures > 255 {
            return Err(format!("{sequences} sequence and {pictures} picture parameter sets"));
        }
        if sequences + pictures != sets.len() || sets.iter().any(|set| set.len() > 0xffff) {
            return Err("other units among the parameter sets".to_owned());
        }
        let mut all = Vec::new();
        for set in of(SPS) {
            let read = sequence(set).ok_or("a sequence parameter set that makes no sense")?;
            if !read.frames_only {
                return Err("interlaced pictures".to_owned());
            }
            if read.chroma != 1 || read.depth != (8, 8) {
                return Err("pictures that are not 4:2:0 with 8 bits".to_owned());
            }
            if !matches!(read.profile, 66 | 77 | 88 | 100) {
                return Err(format!("profile {}", read.profile));
            }
            all.push(read);
        }
        let first = *all.first().ok_or("no sequence parameter set")?;
        if all.iter().any(|other| other.size != first.size) {
            return Err("pictures of different size".to_owned());
        }
        let config = config(&all, of(SPS), of(PPS));
        Ok(Pictures { first, config })
    }

    /// The sample entry.
    pub fn entry(&self, out: &mut Vec<u8>) {
        let (width, height) = self.first.size;
        let side = |side: u32| u16::try_from(side).unwrap_or(0);
        boxed(out, b"avc1", |out| {
            out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
            out.extend_from_slice(&[0; 16]);
            halves(out, &[side(width), side(height)]);
            words(out, &[0x0048_0000, 0x0048_0000, 0]);
            halves(out, &[1]);
            out.extend_from_slice(&[0; 32]);
            halves(out, &[24, 0xffff]);
            boxed(out, b"avcC", |out| out.extend_from_slice(&self.config));
            if let Some((primaries, transfer, matrix, full)) = self.first.colours {
                boxed(out, b"colr", |out| {
                    out.extend_from_slice(b"nclx");
                    halves(out, &[primaries.into(), transfer.into(), matrix.into()]);
                    out.push(u8::from(full) << 7);
                });
            }
            if let Some((x, y)) = self.first.pixel {
                boxed(out, b"pasp", |out| words(out, &[x, y]));
            }
        });
    }

    /// Size as it is shown, in pixels.
    pub fn shown_size(&self) -> (u32, u32) {
        let (width, height) = self.first.size;
        let (x, y) = self.first.pixel.unwrap_or((1, 1));
        let wide = u64::from(width) * u64::from(x) / u64::from(y.max(1));
        (u32::try_from(wide).unwrap_or(width).min(0xffff), height)
    }
}

/// `avcC` for all sets: a decoder of the highest profile and level can decode them all, and only what every set
/// promises is promised.
fn config<'a>(
    all: &[Sequence],
    sequences: impl Iterator<Item = &'a Vec<u8>>,
    pictures: impl Iterator<Item = &'a Vec<u8>>,
) -> Vec<u8> {
    let profile = all.iter().map(|one| one.profile).max().unwrap_or(0);
    let level = all.iter().map(|one| one.level).max().unwrap_or(0);
    let compatibility = all.iter().fold(0xff, |bits, one| bits & one.compatibility);
    // units have lengths of four bytes
    let mut out = vec![1, profile, compatibility, level, 0xff];
    let list = |out: &mut Vec<u8>, sets: Vec<&'a Vec<u8>>, mark: u8| {
        out.push(mark | u8::try_from(sets.len()).unwrap_or(0));
        for set in sets {
            halves(out, &[u16::try_from(set.len()).unwrap_or(0)]);
            out.extend_from_slice(set);
        }
    };
    list(&mut out, sequences.collect(), 0xe0);
    list(&mut out, pictures.collect(), 0);
    if profile == 100 {
        // 4:2:0, 8 bits, 8 bits, no extensions
        out.extend_from_slice(&[0xfd, 0xf8, 0xf8, 0]);
    }
    out
}

/// The sample entry of AAC-LC sound; `bits` is its average number of bits in a second.
pub(super) fn sound_entry(out: &mut Vec<u8>, format: AudioFormat, bits: u32) {
    let config = specific_config(format).unwrap_or_default();
    boxed(out, b"mp4a", |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 8]);
        halves(out, &[format.channels.into(), 16, 0, 0]);
        words(out, &[u16::try_from(format.rate).map_or(0, |rate| u32::from(rate) << 16)]);
        full(out, b"esds", 0, 0, |out| {
            // descriptors: stream (3), decoder (4), its configuration (5), synchronisation (6)
            out.extend_from_slice(&[3, 25, 0, 0, 0, 4, 17, 0x40, 0x15, 0, 0, 0]);
            words(out, &[bits, bits]);
            out.extend_from_slice(&[5, 2]);
            out.extend_from_slice(&config);
            out.extend_from_slice(&[6, 1, 2]);
        });
    });
}
