//! How long a disk lasts: its free bytes as they were measured over the last while, and the line through them.

use std::{collections::VecDeque, time::Duration};

use super::text_enum::text_enum;

/// Measurements are kept this long; cleanup runs every few minutes, so a shorter time would show its teeth alone.
const KEPT: Duration = Duration::from_secs(30 * 60);
/// No two are closer than this, however often is asked.
const APART: Duration = Duration::from_secs(10);
/// Nothing is said before this much time was seen.
const ENOUGH: Duration = Duration::from_secs(120);
const SECONDS_OF_AN_HOUR: f64 = 3600.0;
/// Longer is as good as never.
const LONGEST_HOURS: f64 = 24.0 * 365.0;

text_enum!(
    /// How full a disk is.
    Watermark {
        /// There is room.
        Fine = "fine",
        /// At or above `storage.high_percent`.
        High = "high",
        /// At or above `storage.critical_percent`.
        Critical = "critical",
    }
);

impl Watermark {
    /// That of a disk of which so much is used.
    pub fn of(used_percent: u8, high_percent: u8, critical_percent: u8) -> Watermark {
        if used_percent >= critical_percent {
            Watermark::Critical
        } else if used_percent >= high_percent {
            Watermark::High
        } else {
            Watermark::Fine
        }
    }
}

/// Free bytes at some moments, the newest last. Moments count from an origin of the caller's on a clock that never jumps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples(VecDeque<(Duration, u64)>);

impl Samples {
    /// Takes a measurement, unless it comes right after the one before; forgets old ones.
    pub fn take(&mut self, at: Duration, free: u64) {
        if self.0.back().is_some_and(|(last, _)| at.saturating_sub(*last) < APART) {
            return;
        }
        self.0.push_back((at, free));
        while self.0.front().is_some_and(|(first, _)| at.saturating_sub(*first) > KEPT) {
            self.0.pop_front();
        }
    }

    /// What they say; nothing before two minutes were seen.
    pub fn forecast(&self, reserve: u64) -> Option<Forecast> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        if last.0.saturating_sub(first.0) < ENOUGH {
            return None;
        }
        let written = -self.slope();
        let room = as_float(last.1.saturating_sub(reserve));
        let hours = room / written / SECONDS_OF_AN_HOUR;
        let hours_left = (written > 0.0 && hours <= LONGEST_HOURS).then_some(hours);
        Some(Forecast { bytes_per_second: written, hours_left })
    }

    /// Bytes per second that become free: the line with the least squares.
    fn slope(&self) -> f64 {
        let count = as_float(self.0.len() as u64);
        let origin = self.0.front().map_or(Duration::ZERO, |(at, _)| *at);
        let points = || {
            self.0
                .iter()
                .map(|(at, free)| (at.saturating_sub(origin).as_secs_f64(), as_float(*free)))
        };
        let mean_at = points().map(|(at, _)| at).sum::<f64>() / count;
        let mean_free = points().map(|(_, free)| free).sum::<f64>() / count;
        let both: f64 = points().map(|(at, free)| (at - mean_at) * (free - mean_free)).sum();
        let square: f64 = points().map(|(at, _)| (at - mean_at) * (at - mean_at)).sum();
        if square > 0.0 { both / square } else { 0.0 }
    }
}

/// What the measurements say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Bytes written per second, less what was deleted; negative while more is deleted.
    pub bytes_per_second: f64,
    /// Until what is free is down to the reserve at that rate; none if it does not get there within a year.
    pub hours_left: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "a forecast of bytes needs no last digit")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// Measured every half minute for that many minutes.
    fn measured(minutes: u64, free: impl Fn(u64) -> u64) -> Samples {
        let mut samples = Samples::default();
        for seconds in (0..=minutes * 60).step_by(30) {
            samples.take(Duration::from_secs(seconds), free(seconds));
        }
        samples
    }

    #[test]
    fn a_steady_writer_fills_what_is_above_the_reserve() {
        let forecast = measured(10, |at| 11 * GIB - at * 1_000_000).forecast(GIB).expect("enough");
        assert!((forecast.bytes_per_second - 1e6).abs() < 1.0, "{forecast:?}");
        let room = 10.0 * GIB as f64 - 600.0 * 1e6;
        let hours = forecast.hours_left.expect("some day");
        assert!((hours - room / 1e6 / 3600.0).abs() < 0.001, "{forecast:?}");
    }

    #[test]
    fn a_disk_that_stands_still_or_empties_lasts() {
        for free in [|_| GIB, |at| GIB + at] {
            let forecast = measured(10, free).forecast(0).expect("enough");
            assert_eq!(forecast.hours_left, None, "{forecast:?}");
        }
    }

    #[test]
    fn two_minutes_come_before_a_word_and_half_an_hour_is_remembered() {
        assert_eq!(measured(1, |_| GIB).forecast(0), None);
        assert_eq!(Samples::default().forecast(0), None);
        // wrote for an hour, then stopped
        let samples = measured(120, |at| 100 * GIB - at.min(3600) * 1_000_000);
        assert_eq!(samples.forecast(0).expect("enough").hours_left, None);
        let mut samples = Samples::default();
        for _ in 0..1000 {
            samples.take(Duration::ZERO, GIB);
        }
        assert_eq!(samples.0.len(), 1, "one moment, however often is asked");
    }

    #[test]
    fn cleanup_that_takes_as_much_as_comes_is_no_end() {
        // filled for five minutes, and emptied at once
        let samples = measured(30, |at| 50 * GIB - (at % 300) * 1_000_000);
        let forecast = samples.forecast(GIB).expect("enough");
        assert!(forecast.bytes_per_second.abs() < 60_000.0, "{forecast:?}");
    }

    #[test]
    fn a_watermark_begins_at_its_percentage() {
        let of = |used| Watermark::of(used, 85, 98);
        assert_eq!(
            [of(84), of(85), of(97), of(98), of(100)].map(Watermark::as_str),
            ["fine", "high", "high", "critical", "critical"]
        );
    }

    proptest! {
        #[test]
        fn hours_are_finite_and_never_negative(free in proptest::collection::vec(0u64..1 << 50, 5..100), reserve in 0u64..1 << 50) {
            let mut samples = Samples::default();
            for (at, free) in free.iter().enumerate() {
                samples.take(Duration::from_secs(30 * at as u64), *free);
            }
            if let Some(hours) = samples.forecast(reserve).and_then(|forecast| forecast.hours_left) {
                prop_assert!(hours.is_finite() && (0.0..=LONGEST_HOURS).contains(&hours));
            }
        }
    }
}
