//! Screen time: the one mapping between media time stamps (PTS) and the moment a thing was on the screen.
//!
//! Each epoch gets one [`EpochClock`], fixed once and kept with it; nothing that arrives later moves it.

use serde::{Deserialize, Serialize};

use crate::domain::time::Timestamp;

/// PTS of an egress's first picture: 3600 s in 90 kHz units. Every egress begins there anew.
pub const PTS_BASE: i64 = 3600 * 90_000;
/// PTS units per second.
pub const PTS_PER_SECOND: i64 = 90_000;
/// The longest delay between packet and muxer label that is believed; beyond it the two clocks tell different stories.
pub const MAX_DELAY_US: i64 = 10_000_000;
/// MPEG-TS carries 33 bits of PTS: about 26.5 hours.
const PTS_MODULUS: i64 = 1 << 33;

/// PTS units to microseconds, to the nearest.
pub fn pts_to_micros(pts: i64) -> i64 {
    let micros = (i128::from(pts) * 100 + 4).div_euclid(9);
    micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Microseconds to PTS units, to the nearest.
pub fn micros_to_pts(micros: i64) -> i64 {
    (i128::from(micros) * 9 + 50).div_euclid(100) as i64
}

/// The full time stamp whose low 33 bits are `raw` and which lies nearest to `near` (the last one known).
pub fn unwrap_pts(raw: u64, near: i64) -> i64 {
    let raw = (raw & (PTS_MODULUS as u64 - 1)) as i64;
    let ahead = (raw - near.rem_euclid(PTS_MODULUS)).rem_euclid(PTS_MODULUS);
    if ahead > PTS_MODULUS / 2 { near - (PTS_MODULUS - ahead) } else { near + ahead }
}

/// Microseconds to add to the egress host's clock to get ours: the least that puts `host_started_at`
/// (`EgressInfo.started_at` of the StartEgress answer) between our sending of the request and the answer's arrival.
pub fn clock_offset(sent: Timestamp, received: Timestamp, host_started_at: Timestamp) -> i64 {
    if host_started_at < sent {
        sent.micros_since(host_started_at)
    } else if host_started_at > received {
        received.micros_since(host_started_at)
    } else {
        0
    }
}

/// What an epoch's clock was set by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockBasis {
    /// `segment_results[0].started_at`: the first packet.
    StartedAt,
    /// The playlist's label less the configured delay.
    Label,
}

/// The mapping of one epoch, in our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochClock {
    /// Screen time of PTS 3600 s.
    #[serde(with = "micros")]
    pub zero: Timestamp,
    /// LiveKit's delay from screen to label in milliseconds, measured or configured; none if neither.
    pub delay_ms: Option<i64>,
    /// What it was set by.
    pub basis: ClockBasis,
}

impl EpochClock {
    /// Sets an epoch's clock, once, when its first segment is seen.
    ///
    /// `first_media_started_at` (`segment_results[0].started_at`) and `label_of_first_segment` (PROGRAM-DATE-TIME) are
    /// in the egress host's clock and `offset` (see [`clock_offset`]) brings them into ours; `first_pts` is the first
    /// segment's lowest picture PTS, unwrapped. The first packet's time is believed if the label of the same frame
    /// lies 0 to 10 s after it; else the label less `pipeline_delay_ms` (0 if unset) counts.
    pub fn fix(
        first_media_started_at: Option<Timestamp>,
        label_of_first_segment: Timestamp,
        first_pts: i64,
        offset: i64,
        pipeline_delay_ms: Option<i64>,
    ) -> EpochClock {
        let since_base = pts_to_micros(first_pts.saturating_sub(PTS_BASE));
        if let Some(started) = first_media_started_at {
            let delay = label_of_first_segment.micros_since(started.plus_micros(since_base));
            if (0..=MAX_DELAY_US).contains(&delay) {
                return EpochClock {
                    zero: started.plus_micros(offset),
                    delay_ms: Some((delay + 500).div_euclid(1000)),
                    basis: ClockBasis::StartedAt,
                };
            }
        }
        let delay = pipeline_delay_ms.unwrap_or(0).saturating_mul(1000);
        EpochClock {
            zero: label_of_first_segment
                .plus_micros(delay.saturating_neg())
                .plus_micros(since_base.saturating_neg())
                .plus_micros(offset),
            delay_ms: pipeline_delay_ms,
            basis: ClockBasis::Label,
        }
    }

    /// When the frame with this (unwrapped) PTS was on the screen.
    pub fn screen_time(&self, pts: i64) -> Timestamp {
        self.zero.plus_micros(pts_to_micros(pts.saturating_sub(PTS_BASE)))
    }

    /// The PTS of what was on the screen then, to the nearest unit.
    pub fn pts_at(&self, screen: Timestamp) -> i64 {
        PTS_BASE.saturating_add(micros_to_pts(screen.micros_since(self.zero)))
    }
}

/// Kept to the microsecond; the outside form has milliseconds only.
mod micros {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::domain::time::Timestamp;

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        time.as_micros().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).expect("a time")
    }

    #[test]
    fn the_first_packet_counts_when_the_label_follows_within_ten_seconds() {
        let started = at("2026-11-20T10:00:00.250Z");
        let label = at("2026-11-20T10:00:03.000Z");
        let clock = EpochClock::fix(Some(started), label, PTS_BASE, 0, Some(9_999));
        assert_eq!(
            clock,
            EpochClock { zero: started, delay_ms: Some(2750), basis: ClockBasis::StartedAt }
        );
        assert_eq!(clock.screen_time(PTS_BASE + 12 * PTS_PER_SECOND), started.plus_seconds(12));
    }

    #[test]
    fn a_label_before_the_packet_or_far_after_it_wins_less_the_configured_delay() {
        let label = at("2026-11-20T10:00:03.000Z");
        for started in [label.plus_micros(1), label.plus_micros(-10_000_001)] {
            let clock = EpochClock::fix(Some(started), label, PTS_BASE, 0, Some(2500));
            assert_eq!(clock.basis, ClockBasis::Label);
            assert_eq!(clock.zero, at("2026-11-20T10:00:00.500Z"));
            assert_eq!(clock.delay_ms, Some(2500));
        }
        for started in [label, label.plus_micros(-10_000_000)] {
            let clock = EpochClock::fix(Some(started), label, PTS_BASE, 0, None);
            assert_eq!(clock.basis, ClockBasis::StartedAt);
        }
    }

    #[test]
    fn without_a_first_packet_or_a_delay_the_label_stands() {
        let label = at("2026-11-20T10:00:03.000Z");
        let clock = EpochClock::fix(None, label, PTS_BASE + 45_000, 0, None);
        assert_eq!(clock.screen_time(PTS_BASE + 45_000), label);
        assert_eq!(clock.delay_ms, None);
    }

    #[test]
    fn the_offset_moves_the_result_and_not_the_choice() {
        let started = at("2026-11-20T10:00:00Z");
        let label = at("2026-11-20T10:00:04Z");
        let clock = EpochClock::fix(Some(started), label, PTS_BASE, -90_000_000, None);
        assert_eq!((clock.zero, clock.delay_ms), (at("2026-11-20T09:58:30Z"), Some(4000)));
    }

    #[test]
    fn a_host_clock_is_corrected_by_no_more_than_needed() {
        let (sent, received) = (at("2026-11-20T10:00:00Z"), at("2026-11-20T10:00:01Z"));
        assert_eq!(clock_offset(sent, received, at("2026-11-20T10:00:00.4Z")), 0);
        assert_eq!(clock_offset(sent, received, at("2026-11-20T09:59:58Z")), 2_000_000);
        assert_eq!(clock_offset(sent, received, at("2026-11-20T10:00:31Z")), -30_000_000);
    }

    #[test]
    fn time_stamps_go_on_past_33_bits_and_back_over_the_seam() {
        let wrap = 1i64 << 33;
        assert_eq!(unwrap_pts(10, wrap - 10), wrap + 10);
        assert_eq!(unwrap_pts((wrap - 10) as u64, wrap + 10), wrap - 10);
        assert_eq!(unwrap_pts(PTS_BASE as u64, PTS_BASE), PTS_BASE);
        assert_eq!(unwrap_pts(5, 3 * wrap), 3 * wrap + 5);
    }

    #[test]
    fn a_kept_clock_comes_back_to_the_microsecond() {
        let clock = EpochClock {
            zero: Timestamp::from_micros(1_234_567),
            delay_ms: None,
            basis: ClockBasis::Label,
        };
        let text = serde_json::to_string(&clock).expect("serialises");
        assert_eq!(serde_json::from_str::<EpochClock>(&text).expect("reads"), clock);
    }

    proptest! {
        #[test]
        fn pts_and_screen_time_are_inverse(zero in 0i64..4_000_000_000_000_000, pts in -PTS_BASE..100 * PTS_BASE) {
            let clock = EpochClock { zero: Timestamp::from_micros(zero), delay_ms: None, basis: ClockBasis::Label };
            prop_assert_eq!(clock.pts_at(clock.screen_time(pts)), pts);
        }

        #[test]
        fn screen_time_never_runs_backwards(zero in 0i64..4_000_000_000_000_000, pts in 0i64..1 << 40, step in 1i64..9_000_000) {
            let clock = EpochClock { zero: Timestamp::from_micros(zero), delay_ms: None, basis: ClockBasis::Label };
            prop_assert!(clock.screen_time(pts) < clock.screen_time(pts + step));
        }

        #[test]
        fn unwrapping_keeps_the_low_bits_and_stays_nearest(raw in 0u64..1 << 33, near in -(1i64 << 40)..1i64 << 40) {
            let pts = unwrap_pts(raw, near);
            prop_assert_eq!(pts.rem_euclid(1 << 33), raw as i64);
            prop_assert!((pts - near).abs() <= 1 << 32);
        }

        #[test]
        fn a_corrected_start_lies_between_sending_and_receiving(sent in 0i64..1_000_000, took in 0i64..1_000_000, host in -5_000_000i64..5_000_000) {
            let (sent, received) = (Timestamp::from_micros(sent), Timestamp::from_micros(sent + took));
            let host = Timestamp::from_micros(host);
            let corrected = host.plus_micros(clock_offset(sent, received, host));
            prop_assert!(sent <= corrected && corrected <= received);
        }

        #[test]
        fn the_labels_frame_is_never_shown_after_its_label(delay in -20_000_000i64..20_000_000, first in 0i64..900_000, configured in proptest::option::of(0i64..8000)) {
            let label = Timestamp::from_micros(1_000_000_000_000);
            let pts = PTS_BASE + first;
            let started = label.plus_micros(-delay).plus_micros(-pts_to_micros(first));
            let clock = EpochClock::fix(Some(started), label, pts, 0, configured);
            prop_assert!(clock.screen_time(pts) <= label);
            prop_assert_eq!(clock.basis == ClockBasis::StartedAt, (0..=MAX_DELAY_US).contains(&delay));
        }
    }
}
