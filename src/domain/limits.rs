//! Arithmetic of rate limits and of the disk room a start needs. Exactness under concurrency is the database's.

use std::time::Duration;

use crate::{
    domain::time::Timestamp,
    error::{Code, Error, Result},
};

/// Bytes per second of a buffer whose rate is not known yet: 8 Mbit/s.
pub const ASSUMED_BYTES_PER_SECOND: u64 = 1_000_000;
const MINUTE_US: i64 = 60_000_000;

/// The minute a request counts in (fixed windows, the same on every replica), and the whole seconds left of it, at
/// least 1.
pub fn rate_window(now: Timestamp) -> (Timestamp, u64) {
    let into = now.as_micros().rem_euclid(MINUTE_US);
    let left = u64::try_from(MINUTE_US - into).unwrap_or(0).div_ceil(1_000_000);
    (now.plus_micros(-into), left.max(1))
}

/// How a rate limit stands with one user; what the `RateLimit-*` headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute.
    pub limit: u32,
    /// Requests in this minute, those above the limit included.
    pub used: u32,
    /// Whole seconds until the minute ends, at least 1.
    pub reset_seconds: u64,
}

impl Rate {
    /// What is left in this minute.
    pub fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }

    /// The failure of a request above the limit.
    ///
    /// # Errors
    /// [`Code::RateLimited`].
    pub fn check(&self) -> Result<()> {
        if self.used <= self.limit {
            return Ok(());
        }
        let detail = format!("At most {} of these requests a minute are taken.", self.limit);
        Err(Error::new(Code::RateLimited, detail)
            .with("limit", self.limit)
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

/// Free bytes that are promised: the reserve, and what buffers can still grow to, a new one among them that holds
/// nothing yet. `kept` is how long a buffer keeps its media before cleanup takes it.
pub fn bytes_promised(reserve: u64, kept: Duration, growing: &[BufferGrowth]) -> u64 {
    growing.iter().map(|buffer| buffer.room(kept)).fold(reserve, u64::saturating_add)
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
        let (_, reset_seconds) = rate_window(Timestamp::from_micros(90 * 1_000_000 + 1));
        assert_eq!(reset_seconds, 30);
        let last = Rate { limit: 5, used: 5, reset_seconds };
        assert!(last.check().is_ok());
        assert_eq!(last.remaining(), 0);
        let refused = Rate { used: 6, ..last }.check().expect_err("too many");
        assert_eq!(refused.code(), Code::RateLimited);
        assert_eq!(refused.retry_delay(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_start_needs_the_reserve_and_every_buffers_growth() {
        let kept = Duration::from_secs(600);
        assert_eq!(bytes_promised(1000, kept, &[BufferGrowth::default()]), 600_001_000);
        let running = [
            BufferGrowth { bytes_per_second: Some(500_000), held_bytes: 100_000_000 },
            BufferGrowth { bytes_per_second: Some(500_000), held_bytes: 400_000_000 },
            BufferGrowth { bytes_per_second: None, held_bytes: 0 },
        ];
        let needed = bytes_promised(1000, kept, &running);
        assert_eq!(needed, 1000 + 200_000_000 + 600_000_000);
        assert!(check_disk(needed, needed).is_ok());
        let error = check_disk(needed - 1, needed).expect_err("too little");
        assert_eq!(error.code(), Code::InsufficientDisk);
        let endless = [BufferGrowth { bytes_per_second: Some(u64::MAX), held_bytes: 0 }];
        assert_eq!(bytes_promised(1, kept, &endless), u64::MAX);
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_its_window_and_the_reset_reaches_the_next(now in -10_000_000_000i64..4_000_000_000_000_000) {
            let now = Timestamp::from_micros(now);
            let (start, reset_seconds) = rate_window(now);
            prop_assert!(start <= now && now < start.plus_seconds(60));
            prop_assert!(now.plus_seconds(reset_seconds as i64) >= start.plus_seconds(60));
            prop_assert!((1..=60).contains(&reset_seconds));
        }
    }
}
