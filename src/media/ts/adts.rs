//! AAC frames in ADTS dress: cut them apart, and make silent ones.

use serde::{Deserialize, Serialize};

use super::Damage;

/// Samples that one AAC block stands for.
pub(crate) const BLOCK_SAMPLES: i64 = 1024;

const RATES: [u32; 13] =
    [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];

/// What all sound frames of a stream share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioFormat {
    /// Samples per second.
    pub rate: u32,
    /// Number of channels (0: said inside the frames).
    pub channels: u8,
    /// The profile bits of ADTS; 1 is AAC-LC.
    pub profile: u8,
}

impl AudioFormat {
    /// Ticks times rate, so that no rounding adds up: length of one block.
    pub(crate) const BLOCK: i64 = BLOCK_SAMPLES * crate::media::TICKS;
}

/// One frame found in the bytes.
pub(super) struct Frame {
    pub format: AudioFormat,
    pub length: usize,
    pub samples: i64,
}

/// The frame at the start of `bytes`: none if more bytes are needed.
pub(super) fn frame_at(bytes: &[u8]) -> Result<Option<Frame>, Damage> {
    let Some(&[sync, flags, a, b, c, d, e]) = bytes.get(..7) else { return Ok(None) };
    if sync != 0xff || flags & 0xf6 != 0xf0 {
        return Err(Damage::corrupt("sound frames do not follow each other"));
    }
    let length = usize::from(b & 3) << 11 | usize::from(c) << 3 | usize::from(d >> 5);
    let rate = RATES.get(usize::from(a >> 2 & 15)).copied();
    let (Some(rate), true) = (rate, length > 7) else {
        return Err(Damage::corrupt("a sound frame makes no sense"));
    };
    if bytes.len() < length {
        return Ok(None);
    }
    let format = AudioFormat { rate, channels: (a & 1) << 2 | b >> 6, profile: a >> 6 };
    Ok(Some(Frame { format, length, samples: BLOCK_SAMPLES * i64::from((e & 3) + 1) }))
}

/// The seven bytes in front of a raw block of `length` bytes.
pub(crate) fn frame_header(format: AudioFormat, length: usize) -> Option<[u8; 7]> {
    let rate = u8::try_from(RATES.iter().position(|&rate| rate == format.rate)?).ok()?;
    let whole = u16::try_from(length + 7).ok().filter(|&whole| whole < 1 << 13)?;
    let low = (whole << 5) as u8;
    Some([
        0xff,
        0xf1,
        format.profile << 6 | rate << 2 | format.channels >> 2,
        format.channels << 6 | (whole >> 11) as u8 & 3,
        (whole >> 3) as u8,
        low | 0x1f,
        0xfc,
    ])
}

/// Format and raw block of a frame that is exactly these bytes; none if it is anything else, or has several blocks.
pub(crate) fn raw_block(bytes: &[u8]) -> Option<(AudioFormat, &[u8])> {
    let frame = frame_at(bytes).ok()??;
    // a checksum of two bytes follows the header unless the flag says there is none
    let head = if bytes.get(1)? & 1 == 1 { 7 } else { 9 };
    let whole = frame.length == bytes.len() && frame.samples == BLOCK_SAMPLES;
    if whole { Some((frame.format, bytes.get(head..)?)) } else { None }
}

/// What an MP4 says about AAC-LC sound of this format (ISO 14496-3, 1.6.2.1); none if it is anything else.
pub(crate) fn specific_config(format: AudioFormat) -> Option<[u8; 2]> {
    let rate = u8::try_from(RATES.iter().position(|&rate| rate == format.rate)?).ok()?;
    let plain = format.profile == 1 && matches!(format.channels, 1 | 2);
    plain.then_some([2 << 3 | rate >> 1, rate << 7 | format.channels << 3])
}

/// A silent frame; none for more than two channels (the blocks are those every AAC-LC decoder takes as silence).
pub(crate) fn silence(format: AudioFormat) -> Option<Vec<u8>> {
    let block: &[u8] = match format.channels {
        1 => &[0x00, 0xc8, 0x00, 0x80, 0x23, 0x80],
        2 => &[0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80],
        _ => return None,
    };
    let mut frame = frame_header(format, block.len())?.to_vec();
    frame.extend_from_slice(block);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_frame_reads_back_as_written() {
        for (rate, channels) in [(48_000, 2), (44_100, 1), (16_000, 2)] {
            let format = AudioFormat { rate, channels, profile: 1 };
            let bytes = silence(format).expect("mono and stereo have one");
            let frame = frame_at(&bytes).expect("valid").expect("whole");
            assert_eq!((frame.format, frame.length, frame.samples), (format, bytes.len(), 1024));
            assert!(frame_at(&bytes[..bytes.len() - 1]).expect("valid so far").is_none());
        }
    }
}
