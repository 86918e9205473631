//! A part of a finished clip: which part is meant, and when it was on the screen. A clip's own time runs on where
//! screen time has a gap.

use serde::{Deserialize, Serialize};

use super::{
    selection::Gap,
    time::{Timestamp, Window},
};
use crate::error::{Code, Error, Result};

/// Seconds are told with fractions that do not end: an end this little behind the clip's is the clip's.
const SLACK_US: i64 = 50_000;
/// Two moments closer than this are the same: frames lie on a grid of thirds of a millisecond.
const SAME_US: i64 = 500;

/// A part of a clip, microseconds of its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub from_us: i64,
    /// Where it ends.
    pub to_us: i64,
}

/// Which part of a clip of `duration_us` is meant.
///
/// # Errors
/// `window_invalid`.
pub fn part(start_seconds: f64, end_seconds: f64, duration_us: i64) -> Result<Part> {
    let invalid = |why: String| Err(Error::new(Code::WindowInvalid, why));
    let longest = duration_us as f64 / 1e6;
    // false for NaN and infinities too
    if !(start_seconds >= 0.0 && end_seconds <= longest + SLACK_US as f64 / 1e6) {
        return invalid(format!("startSeconds and endSeconds must lie within 0 and {longest:.3}."));
    }
    let micros = |seconds: f64| (seconds * 1e6).round() as i64;
    let part = Part { from_us: micros(start_seconds), to_us: micros(end_seconds).min(duration_us) };
    if part.to_us - part.from_us <= SAME_US {
        return invalid("endSeconds must be more than startSeconds.".to_owned());
    }
    Ok(part)
}

/// All that the making of a trim asks of its source's row, which may be gone by then. Microseconds throughout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Where the part begins in the source's own time.
    pub from_us: i64,
    /// Where it ends.
    pub to_us: i64,
    /// The source's first frame, screen time.
    pub starts_at_us: i64,
    /// The source's gaps.
    pub gaps: Vec<Gap>,
}

impl Plan {
    /// The part of the source.
    pub fn part(&self) -> Part {
        Part { from_us: self.from_us, to_us: self.to_us }
    }

    /// The source's time line.
    pub fn line(&self) -> TimeLine<'_> {
        TimeLine { starts_at: Timestamp::from_micros(self.starts_at_us), gaps: &self.gaps }
    }
}

/// A clip's own time against the screen's.
#[derive(Debug, Clone, Copy)]
pub struct TimeLine<'a> {
    /// The first frame.
    pub starts_at: Timestamp,
    /// In order; what lies before the first frame does not count.
    pub gaps: &'a [Gap],
}

impl TimeLine<'_> {
    /// Gaps that were cut out of the middle.
    fn inner(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.from.micros_since(self.starts_at) > SAME_US)
    }

    /// When what the clip shows from `part.from_us` to `part.to_us` was on the screen. Where either lies at a gap, the
    /// gap is outside.
    pub fn on_screen(&self, part: Part) -> Window {
        let mut from = self.starts_at.plus_micros(part.from_us);
        let mut to = self.starts_at.plus_micros(part.to_us);
        for gap in self.inner() {
            let length = gap.to.micros_since(gap.from);
            if gap.from.micros_since(from) <= SAME_US {
                from = from.plus_micros(length);
            }
            if gap.from.micros_since(to) < -SAME_US {
                to = to.plus_micros(length);
            }
        }
        Window::new(from, to)
    }

    /// The gaps inside a window of screen time.
    pub fn gaps_within(&self, window: Window) -> Vec<Gap> {
        let inside = |gap: &&Gap| gap.from >= window.from && gap.to <= window.to;
        self.inner().filter(inside).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::selection::GapReason;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn gap(from: i64, to: i64) -> Gap {
        let (from, to) = (START.plus_seconds(from), START.plus_seconds(to));
        Gap { from, to, reason: GapReason::Restart }
    }

    fn seconds(gaps: &[Gap], from: i64, to: i64) -> (i64, i64, usize) {
        let line = TimeLine { starts_at: START, gaps };
        let part = Part { from_us: from * 1_000_000, to_us: to * 1_000_000 };
        let window = line.on_screen(part);
        let second = |at: Timestamp| at.micros_since(START) / 1_000_000;
        (second(window.from), second(window.to), line.gaps_within(window).len())
    }

    #[test]
    fn gaps_lengthen_what_lies_behind_them_on_the_screen() {
        // ten seconds of clip: 0 to 4, 6 to 9, 20 to 23 of the screen, and nothing before 0
        let gaps = [gap(-5, 0), gap(4, 6), gap(9, 20)];
        assert_eq!(seconds(&gaps, 0, 10), (0, 23, 2));
        assert_eq!(seconds(&gaps, 1, 3), (1, 3, 0));
        assert_eq!(seconds(&gaps, 3, 5), (3, 7, 1));
        assert_eq!(seconds(&gaps, 5, 8), (7, 21, 1));
        // at the very edge of a gap it is outside
        assert_eq!(seconds(&gaps, 0, 4), (0, 4, 0));
        assert_eq!(seconds(&gaps, 4, 7), (6, 9, 0));
        assert_eq!(seconds(&gaps, 7, 10), (20, 23, 0));
    }

    #[test]
    fn a_part_lies_within_its_clip() {
        let whole = part(0.0, 10.04, 10_000_000).expect("the whole clip");
        assert_eq!(whole, Part { from_us: 0, to_us: 10_000_000 });
        for (start, end) in [
            (-0.1, 5.0),
            (5.0, 5.0),
            (6.0, 5.0),
            (0.0, 10.1),
            (10.0, 10.0),
            (f64::NAN, 5.0),
            (0.0, f64::NAN),
            (0.0, f64::INFINITY),
        ] {
            let error = part(start, end, 10_000_000).expect_err("refused");
            assert_eq!(error.code(), Code::WindowInvalid);
        }
    }
}
