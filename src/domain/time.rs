//! Moments and half-open windows of wall-clock time, in whole microseconds.

use std::{fmt, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment: microseconds since the Unix epoch, UTC. Shown outside as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros)
    }
    /// From nanoseconds since the Unix epoch (LiveKit's unit in `EgressInfo`), rounded down.
    pub const fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos.div_euclid(1000))
    }
    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
    /// `self` moved by a signed number of microseconds (saturating).
    pub const fn plus_micros(self, micros: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(micros))
    }
    /// `self` moved by a signed number of milliseconds (saturating).
    pub const fn plus_millis(self, millis: i64) -> Timestamp {
        self.plus_micros(millis.saturating_mul(1000))
    }
    /// `self` moved by a signed number of seconds (saturating).
    pub const fn plus_seconds(self, seconds: i64) -> Timestamp {
        self.plus_micros(seconds.saturating_mul(1_000_000))
    }
    /// `self` later by `duration`.
    pub fn plus(self, duration: Duration) -> Timestamp {
        self.plus_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
    /// `self` earlier by `duration`.
    pub fn minus(self, duration: Duration) -> Timestamp {
        self.plus_micros(-i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
    /// Signed microseconds from `earlier` to `self`.
    pub const fn micros_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
    /// Time from `earlier` to `self`, zero if `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.micros_since(earlier)).unwrap_or(0))
    }
    /// RFC 3339, UTC, milliseconds.
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_micros(self.0)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Millis, true)
    }
    /// Reads RFC 3339 with any offset.
    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Timestamp(time.timestamp_micros()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| {
            serde::de::Error::custom("expected an RFC 3339 time such as 2026-11-20T10:00:00.000Z")
        })
    }
}

/// A half-open interval `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first moment inside.
    pub from: Timestamp,
    /// The first moment after.
    pub to: Timestamp,
}

impl Window {
    /// `[from, to)`; empty when `to` is not after `from`.
    pub const fn new(from: Timestamp, to: Timestamp) -> Window {
        Window { from, to }
    }
    /// Microseconds inside, never negative.
    pub fn micros(&self) -> i64 {
        self.to.micros_since(self.from).max(0)
    }
    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.to <= self.from
    }
    /// Whether the two share a moment.
    pub fn overlaps(&self, other: &Window) -> bool {
        self.from < other.to && other.from < self.to
    }
    /// What the two share.
    pub fn intersect(&self, other: &Window) -> Option<Window> {
        let both = Window::new(self.from.max(other.from), self.to.min(other.to));
        (!both.is_empty()).then_some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_milliseconds_and_read_with_any_fraction_and_offset() {
        let time = Timestamp::parse_rfc3339("2026-11-20T12:00:00.1234567+02:00").expect("valid");
        assert_eq!(time.as_micros() % 1_000_000, 123_456);
        assert_eq!(time.to_rfc3339(), "2026-11-20T10:00:00.123Z");
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn windows_are_half_open() {
        let at = |s| Timestamp::from_micros(s);
        let left = Window::new(at(0), at(10));
        assert!(!left.overlaps(&Window::new(at(10), at(20))));
        assert_eq!(left.intersect(&Window::new(at(5), at(20))), Some(Window::new(at(5), at(10))));
        assert!(Window::new(at(5), at(5)).is_empty());
    }
}
