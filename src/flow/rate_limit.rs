//! How often a user may ask for a thing: counters in rows, so that replicas share them. Fixed windows of a minute.

use super::Deps;
use crate::{
    domain::{
        id::UserId,
        limits::{Rate, rate_window},
        text_enum::text_enum,
    },
    error::Result,
    store,
};

text_enum!(
    /// What is limited; the name is that of the counter and of the route's idempotency keys.
    Limited {
        /// POST /start.
        Start = "start",
        /// POST /capture.
        Capture = "capture",
        /// DELETE of sessions and clips.
        Delete = "delete",
    }
);

/// Counts a request; `None` where the limit is off.
pub async fn count(deps: &Deps, user: &UserId, what: Limited) -> Result<Option<Rate>> {
    let Some(limit) = limit_of(deps, what) else { return Ok(None) };
    let (window_start, reset_seconds) = rate_window(deps.clock.now());
    let used = store::rate::count(deps.db.conn(), user, what.as_str(), window_start).await?;
    Ok(Some(Rate { limit, used: u32::try_from(used).unwrap_or(0), reset_seconds }))
}

/// How the limit stands, without counting; `None` where it is off.
pub async fn peek(deps: &Deps, user: &UserId, what: Limited) -> Result<Option<Rate>> {
    let Some(limit) = limit_of(deps, what) else { return Ok(None) };
    let (window_start, reset_seconds) = rate_window(deps.clock.now());
    let used = store::rate::used(deps.db.conn(), user, what.as_str(), window_start).await?;
    Ok(Some(Rate { limit, used: u32::try_from(used).unwrap_or(0), reset_seconds }))
}

fn limit_of(deps: &Deps, what: Limited) -> Option<u32> {
    let limits = &deps.config.rate_limits;
    let limit = match what {
        Limited::Start => limits.start_per_minute,
        Limited::Capture => limits.capture_per_minute,
        Limited::Delete => limits.delete_per_minute,
    };
    (limit > 0).then_some(limit)
}
