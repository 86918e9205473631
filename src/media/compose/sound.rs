//! Puts sound frames one behind the other: no overlap, no hole longer than a frame, silence where nothing is.

use super::{Sink, Stop};
use crate::media::{
    SOUND_SLACK, TICKS,
    ts::{AudioFormat, AudioFrame, silence},
};

/// The clip's sound as it grows. Times are kept as ticks times rate, so that no rounding adds up.
pub(super) struct Sound {
    format: AudioFormat,
    silent: Option<Vec<u8>>,
    start: i64,
    end: i64,
    /// Where the next frame belongs; none before the first.
    next: Option<i64>,
    first: Option<i64>,
}

impl Sound {
    /// The sound of `[start, end)` ticks.
    pub fn new(format: AudioFormat, start: i64, end: i64) -> Sound {
        Sound { format, silent: silence(format), start, end, next: None, first: None }
    }

    /// A frame of the source at `pts` of the clip; what lies before `part_start` and is no lead-in is left out.
    pub fn frame(
        &mut self,
        out: &mut dyn Sink,
        pts: i64,
        part_start: i64,
        frame: &AudioFrame,
    ) -> Result<(), Stop> {
        let rate = i64::from(frame.format.rate.max(1));
        let length = frame.samples * TICKS / rate;
        // one frame more before the clip's beginning: the decoder needs it to render the first one whole
        let lead_in = if part_start == self.start { length } else { 0 };
        if pts + length + lead_in <= part_start || pts >= self.end {
            return Ok(());
        }
        if self.next.is_some_and(|next| (pts + SOUND_SLACK) * self.rate() < next) {
            return Ok(());
        }
        self.fill_before(out, pts)?;
        let at = self.next.map_or(pts, |next| pts.max(next / self.rate()));
        self.first.get_or_insert(at);
        out.sound(at, &frame.data)?;
        self.next = Some(at * self.rate() + length * self.rate());
        Ok(())
    }

    /// Silence in every whole frame that is free before `until`.
    pub fn fill(&mut self, out: &mut dyn Sink, until: i64) -> Result<(), Stop> {
        let until = until.min(self.end) * self.rate();
        let mut next = self.next.unwrap_or(self.start * self.rate());
        while next + AudioFormat::BLOCK <= until {
            self.silent_frame(out, next)?;
            next += AudioFormat::BLOCK;
            self.next = Some(next);
        }
        Ok(())
    }

    /// Silence up to the end, the last frame may reach over it.
    pub fn finish(&mut self, out: &mut dyn Sink) -> Result<(), Stop> {
        let mut next = self.next.unwrap_or(self.start * self.rate());
        while next + SOUND_SLACK * self.rate() < self.end * self.rate() {
            self.silent_frame(out, next)?;
            next += AudioFormat::BLOCK;
        }
        self.next = Some(next);
        Ok(())
    }

    fn fill_before(&mut self, out: &mut dyn Sink, pts: i64) -> Result<(), Stop> {
        let goal = pts * self.rate();
        match self.next {
            Some(_) => self.fill(out, pts + SOUND_SLACK),
            None => {
                // aligned with the first frame, and covering the clip's first moment
                let hole = (goal - self.start * self.rate()).max(0);
                let frames = (hole + AudioFormat::BLOCK - 1) / AudioFormat::BLOCK;
                for index in (1..=frames).rev() {
                    self.silent_frame(out, goal - index * AudioFormat::BLOCK)?;
                }
                Ok(())
            }
        }
    }

    fn silent_frame(&mut self, out: &mut dyn Sink, at: i64) -> Result<(), Stop> {
        if let Some(silent) = &self.silent {
            let at = at / i64::from(self.format.rate.max(1));
            self.first.get_or_insert(at);
            out.sound(at, silent)?;
        }
        Ok(())
    }

    /// When the first frame begins, once there is one.
    pub fn first(&self) -> Option<i64> {
        self.first
    }

    fn rate(&self) -> i64 {
        i64::from(self.format.rate.max(1))
    }
}
