//! Arithmetic of rate limits and of the disk room a start needs. Exactness under concurrency is the database's.

use std::time::Duration;

use crate::{
    domain::time::{Timestamp, Window},
    error::{Code, Error, Result},
};

/// Bytes per second of a buffer whose rate is not known yet: 8 Mbit/s.
pub const ASSUMED_BYTES_PER_SECOND: u64 = 1_000_000;
const MINUTE_US: i64 = 60_000_000;

/// The minute a request counts in: fixed windows, the same on every replica.
pub fn rate_window(now: Timestamp) -> Window {
    let from = Timestamp::from_micros(now.as_micros().div_euclid(MINUTE_US) * MINUTE_US);
    Window::new(from, from.plus_micros(MINUTE_US))
}

/// What the `RateLimit-*` headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDecision {
    /// Whether this request passes.
    pub allowed: bool,
    /// Requests a minute.
    pub limit: u32,
    /// How many more would pass.
    pub remaining: u32,
    /// Whole seconds until the window is over, at least 1.
    pub reset_seconds: u64,
}

/// Judges the `count`-th request (this one included) of a window; none if the limit is off (0).
pub fn rate_decision(limit: u32, count: u64, now: Timestamp) -> Option<RateDecision> {
    if limit == 0 {
        return None;
    }
    let left_us = rate_window(now).to.micros_since(now);
    let reset_seconds = u64::try_from(left_us).unwrap_or(0).div_ceil(1_000_000).max(1);
    let remaining = u64::from(limit).saturating_sub(count);
    Some(RateDecision {
        allowed: count <= u64::from(limit),
        limit,
        remaining: u32::try_from(remaining).unwrap_or(limit),
        reset_seconds,
    })
}

impl RateDecision {
    /// `rate_limited` unless allowed.
    pub fn check(&self) -> Result<()> {
        if self.allowed {
            return Ok(());
        }
        let detail = format!("More than {} requests of this kind in a minute.", self.limit);
        Err(Error::new(Code::RateLimited, detail)
            .retry_after(Duration::from_secs(self.reset_seconds)))
    }
}

/// A running buffer as the disk rule sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferGrowth {
    /// Measured, none before the first segments.
    pub bytes_per_second: Option<u64>,
    /// What it holds now.
    pub held_bytes: u64,
}

impl BufferGrowth {
    /// What it can still grow by until it is full and cleanup takes as much as comes.
    fn room(&self, kept: Duration) -> u64 {
        let rate = u128::from(self.bytes_per_second.unwrap_or(ASSUMED_BYTES_PER_SECOND));
        let full = rate.saturating_mul(kept.as_millis()).div_ceil(1000);
        u64::try_from(full).unwrap_or(u64::MAX).saturating_sub(self.held_bytes)
    }
}

/// Free bytes a start needs: the reserve, what the running buffers can still grow to, and a full new one.
/// `kept` is how long a buffer keeps its media before cleanup takes it.
pub fn bytes_needed_to_start(min_free_bytes: u64, kept: Duration, running: &[BufferGrowth]) -> u64 {
    running
        .iter()
        .map(|buffer| buffer.room(kept))
        .fold(min_free_bytes, u64::saturating_add)
        .saturating_add(BufferGrowth::default().room(kept))
}

/// `insufficient_disk` if a start does not fit.
pub fn check_disk(free_bytes: u64, needed_bytes: u64) -> Result<()> {
    if free_bytes < needed_bytes {
        return Err(Error::new(
            Code::InsufficientDisk,
            "The server's disk has no room for another replay buffer.",
        )
        .with("freeBytes", free_bytes)
        .with("neededBytes", needed_bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limit_th_request_passes_and_the_next_waits_for_the_minute() {
        let now = Timestamp::from_micros(90 * 1_000_000 + 1);
        let last = rate_decision(5, 5, now).expect("on");
        assert!(last.check().is_ok());
        assert_eq!((last.remaining, last.reset_seconds), (0, 30));
        let refused = rate_decision(5, 6, now).expect("on").check().expect_err("too many");
        assert_eq!(refused.code(), Code::RateLimited);
        assert_eq!(refused.retry_delay(), Some(Duration::from_secs(30)));
        assert_eq!(rate_decision(0, 1_000_000, now), None);
    }

    #[test]
    fn a_start_needs_the_reserve_and_every_buffers_growth() {
        let kept = Duration::from_secs(600);
        assert_eq!(bytes_needed_to_start(1000, kept, &[]), 600_001_000);
        let running = [
            BufferGrowth { bytes_per_second: Some(500_000), held_bytes: 100_000_000 },
            BufferGrowth { bytes_per_second: Some(500_000), held_bytes: 400_000_000 },
            BufferGrowth { bytes_per_second: None, held_bytes: 0 },
        ];
        let needed = bytes_needed_to_start(1000, kept, &running);
        assert_eq!(needed, 1000 + 200_000_000 + 600_000_000 + 600_000_000);
        assert!(check_disk(needed, needed).is_ok());
        let error = check_disk(needed - 1, needed).expect_err("too little");
        assert_eq!(error.code(), Code::InsufficientDisk);
        let endless = [BufferGrowth { bytes_per_second: Some(u64::MAX), held_bytes: 0 }];
        assert_eq!(bytes_needed_to_start(1, kept, &endless), u64::MAX);
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_its_window_and_the_reset_reaches_the_next(now in -10_000_000_000i64..4_000_000_000_000_000) {
            let now = Timestamp::from_micros(now);
            let window = rate_window(now);
            prop_assert!(window.from <= now && now < window.to);
            let decision = rate_decision(3, 1, now).expect("on");
            prop_assert!(now.plus_seconds(decision.reset_seconds as i64) >= window.to);
            prop_assert!((1..=60).contains(&decision.reset_seconds));
        }
    }
}
