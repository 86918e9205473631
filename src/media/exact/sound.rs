//! Sound of a clip whose frames are copied: only what was heard inside the window, silence around it.
//!
//! A frame of AAC codes 2048 samples, of which the later half is finished by the next frame. So a frame is taken only
//! if all of these lie inside its part; the first and last one or two of a part are silence instead, which makes a
//! fade of about twenty milliseconds at either end and keeps everything from outside out of the file.

use super::{Refusal, Unfit};
use crate::media::{
    SOUND_SLACK,
    ts::{AudioFormat, AudioFrame, silence},
};

const BLOCK_SAMPLES: i64 = 1024;
const AAC_LC: u8 = 1;

/// Takes a frame and its time in clip ticks.
pub(super) type Out<'a> = dyn FnMut(i64, &[u8]) -> Result<(), Refusal> + 'a;

/// A clip's sound as it grows. Places are ticks times rate, so that no rounding adds up.
#[derive(Debug)]
pub(super) struct Track {
    format: AudioFormat,
    silent: Vec<u8>,
    rate: i64,
    end: i64,
    /// Where the next frame belongs; none before the first.
    next: Option<i64>,
}

impl Track {
    /// The sound of a clip that begins at 0 and lasts until `end` ticks.
    ///
    /// # Errors
    /// [`Unfit::Sound`] for anything but AAC-LC with one or two channels.
    pub fn new(format: AudioFormat, end: i64) -> Result<Track, Unfit> {
        let silent = silence(format).filter(|_| format.profile == AAC_LC);
        let rate = i64::from(format.rate.max(1));
        Ok(Track { format, silent: silent.ok_or(Unfit::Sound)?, rate, end, next: None })
    }

    /// A frame of the source at `pts` of the clip, from a part that lies at `[begin, end)`.
    pub fn frame(
        &mut self,
        pts: i64,
        (begin, end): (i64, i64),
        frame: &AudioFrame,
        out: &mut Out<'_>,
    ) -> Result<(), Refusal> {
        if frame.format != self.format || frame.samples != BLOCK_SAMPLES {
            return Err(Unfit::Sound.into());
        }
        let place = pts * self.rate;
        // a tick of rounding is no sound from outside
        if pts + 1 < begin || place + 2 * AudioFormat::BLOCK > (end + 1) * self.rate {
            return Ok(());
        }
        if self.next.is_some_and(|next| place + SOUND_SLACK * self.rate < next) {
            return Ok(());
        }
        match self.next {
            Some(_) => self.fill(pts + SOUND_SLACK, out)?,
            None => {
                // on the first frame's grid, at least one, so that the clip's first moment is covered
                let blocks = place.max(1).div_euclid(AudioFormat::BLOCK)
                    + i64::from(place.max(1) % AudioFormat::BLOCK > 0);
                self.next = Some(place - blocks * AudioFormat::BLOCK);
                for _ in 0..blocks {
                    self.silence(out)?;
                }
            }
        }
        let at = self.next.map_or(place, |next| next.max(place));
        self.put(at, &frame.data, out)
    }

    /// Whether a frame that ends a part at `end` may still come.
    pub fn lacks(&self, end: i64) -> bool {
        self.next.unwrap_or(0) + 2 * AudioFormat::BLOCK <= (end + 1) * self.rate
    }

    /// Silence in every whole frame that is free before `until` ticks.
    pub fn fill(&mut self, until: i64, out: &mut Out<'_>) -> Result<(), Refusal> {
        let until = until.min(self.end) * self.rate;
        while self.next.unwrap_or(0) + AudioFormat::BLOCK <= until {
            self.silence(out)?;
        }
        Ok(())
    }

    /// Silence up to the end; the last frame may reach over it.
    pub fn finish(&mut self, out: &mut Out<'_>) -> Result<(), Refusal> {
        while self.next.unwrap_or(0) + SOUND_SLACK * self.rate < self.end * self.rate {
            self.silence(out)?;
        }
        Ok(())
    }

    fn silence(&mut self, out: &mut Out<'_>) -> Result<(), Refusal> {
        let silent = self.silent.clone();
        self.put(self.next.unwrap_or(0), &silent, out)
    }

    fn put(&mut self, at: i64, data: &[u8], out: &mut Out<'_>) -> Result<(), Refusal> {
        self.next = Some(at + AudioFormat::BLOCK);
        out((at + self.rate / 2).div_euclid(self.rate), data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEREO: AudioFormat = AudioFormat { rate: 48_000, channels: 2, profile: 1 };
    /// Ticks of one frame at 48 kHz.
    const FRAME: i64 = 1_920;

    fn frame() -> AudioFrame {
        let data = vec![0xff, 1, 2];
        AudioFrame { pts_raw: 0, samples: 1024, format: STEREO, data }
    }

    /// Times of copied and of silent frames.
    fn cut(parts: &[(i64, i64, &[i64])], end: i64) -> (Vec<i64>, Vec<i64>) {
        let mut track = Track::new(STEREO, end).expect("plain");
        let mut all = Vec::new();
        let mut out = |pts: i64, data: &[u8]| {
            all.push((pts, data.len() == 3));
            Ok(())
        };
        for (begin, end, times) in parts {
            for &time in *times {
                track.frame(time, (*begin, *end), &frame(), &mut out).expect("takes it");
            }
        }
        track.finish(&mut out).expect("takes it");
        let of = |copied: bool| all.iter().filter(move |one| one.1 == copied).map(|one| one.0);
        assert!(all.windows(2).all(|pair| pair[1].0 - pair[0].0 >= FRAME), "{all:?}");
        (of(true).collect(), of(false).collect())
    }

    #[test]
    fn only_frames_wholly_inside_are_copied_and_silence_is_around_them() {
        let source: Vec<_> = (-3..20).map(|index| 500 + index * FRAME).collect();
        let end = 10 * FRAME;
        let (copied, silent) = cut(&[(0, end, &source)], end);
        // 500 .. 500 + 7 frames: the eighth would be finished behind the end
        assert_eq!(copied, (0..8).map(|index| 500 + index * FRAME).collect::<Vec<_>>());
        assert_eq!(silent, [500 - FRAME, 500 + 8 * FRAME, 500 + 9 * FRAME]);
    }

    #[test]
    fn there_is_always_a_silent_frame_in_front() {
        let (copied, silent) = cut(&[(0, 4 * FRAME, &[0, FRAME, 2 * FRAME, 3 * FRAME])], 4 * FRAME);
        assert_eq!(copied, [0, FRAME, 2 * FRAME]);
        assert_eq!(silent, [-FRAME, 3 * FRAME]);
    }

    #[test]
    fn at_a_join_nothing_overlaps_and_no_hole_is_longer_than_a_frame() {
        let first: Vec<_> = (0..12).map(|index| index * FRAME).collect();
        let second: Vec<_> = (0..12).map(|index| 10 * FRAME + 700 + index * FRAME).collect();
        let end = 20 * FRAME;
        let (copied, silent) = cut(&[(0, 10 * FRAME, &first), (10 * FRAME, end, &second)], end);
        assert_eq!(copied.len(), 9 + 8);
        assert_eq!(copied[9], 10 * FRAME + 700);
        assert_eq!(silent, [-FRAME, 9 * FRAME, 18 * FRAME + 700, 19 * FRAME + 700]);
    }

    #[test]
    fn without_any_frame_there_is_silence() {
        let (copied, silent) = cut(&[], 3 * FRAME + 500);
        assert_eq!((copied.len(), silent.len()), (0, 4));
    }

    #[test]
    fn sound_that_is_not_plain_is_refused() {
        let odd = [
            AudioFormat { channels: 6, ..STEREO },
            AudioFormat { channels: 0, ..STEREO },
            AudioFormat { profile: 0, ..STEREO },
        ];
        for format in odd {
            assert_eq!(Track::new(format, 9).expect_err("unfit"), Unfit::Sound);
        }
        let mut track = Track::new(STEREO, 90_000).expect("plain");
        let double = AudioFrame { samples: 2048, ..frame() };
        let mono = AudioFrame { format: AudioFormat { channels: 1, ..STEREO }, ..frame() };
        for frame in [double, mono] {
            let taken = track.frame(0, (0, 90_000), &frame, &mut |_, _| Ok(()));
            assert!(matches!(taken, Err(Refusal::Unfit(Unfit::Sound))));
        }
    }
}
