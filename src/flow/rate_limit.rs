//! How often a user may ask for a thing: counters in rows, so that replicas share them. Fixed windows of a minute.

use std::time::Duration;

use super::Deps;
use crate::{
    domain::{id::UserId, text_enum::text_enum, time::Timestamp},
    error::{Code, Error, Result},
    store,
};

const WINDOW_MICROS: i64 = 60_000_000;

text_enum!(
    /// What is limited; the name is that of the counter and of the route's idempotency keys.
    Limited {
        /// POST /start.
        Start = "start",
        /// POST /capture.
        Capture = "capture",
        /// DELETE of sessions and clips.
        Delete = "delete",
        /// GET /sessions/{id}/filmstrip.
        Filmstrip = "filmstrip",
    }
);

/// How a limit stands with one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute.
    pub limit: u32,
    /// Requests in this minute, those above the limit included.
    pub used: u32,
    /// Seconds until the minute ends, at least 1.
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
        Err(Error::new(
            Code::RateLimited,
            format!("At most {} of these requests a minute are taken.", self.limit),
        )
        .with("limit", self.limit)
        .retry_after(Duration::from_secs(self.reset_seconds)))
    }
}

/// Counts a request; `None` where the limit is off.
pub async fn count(deps: &Deps, user: &UserId, what: Limited) -> Result<Option<Rate>> {
    let Some(limit) = limit_of(deps, what) else { return Ok(None) };
    let (window_start, reset_seconds) = window(deps.clock.now());
    let used = store::rate::count(deps.db.conn(), user, what.as_str(), window_start).await?;
    Ok(Some(Rate { limit, used: u32::try_from(used).unwrap_or(0), reset_seconds }))
}

/// How the limit stands, without counting; `None` where it is off.
pub async fn peek(deps: &Deps, user: &UserId, what: Limited) -> Result<Option<Rate>> {
    let Some(limit) = limit_of(deps, what) else { return Ok(None) };
    let (window_start, reset_seconds) = window(deps.clock.now());
    let used = store::rate::used(deps.db.conn(), user, what.as_str(), window_start).await?;
    Ok(Some(Rate { limit, used: u32::try_from(used).unwrap_or(0), reset_seconds }))
}

fn limit_of(deps: &Deps, what: Limited) -> Option<u32> {
    let limits = &deps.config.rate_limits;
    let limit = match what {
        Limited::Start => limits.start_per_minute,
        Limited::Capture => limits.capture_per_minute,
        Limited::Delete => limits.delete_per_minute,
        Limited::Filmstrip => limits.filmstrip_per_minute,
    };
    (limit > 0).then_some(limit)
}

/// The minute `now` lies in, and the seconds left of it.
fn window(now: Timestamp) -> (Timestamp, u64) {
    let into = now.as_micros().rem_euclid(WINDOW_MICROS);
    let left = u64::try_from(WINDOW_MICROS - into).unwrap_or(0).div_ceil(1_000_000);
    (now.plus_micros(-into), left.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_minute_of_the_moment_and_its_rest_is_never_nothing() {
        let minute = Timestamp::from_micros(1_800_000_000_000_000);
        assert_eq!(window(minute), (minute, 60));
        assert_eq!(window(minute.plus_micros(59_999_999)), (minute, 1));
        assert_eq!(window(minute.plus_micros(60_000_000)), (minute.plus_seconds(60), 60));
    }
}
