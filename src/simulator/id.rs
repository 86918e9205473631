//! LiveKit's short ids, and the simulator's view of the time.

use rand::{Rng, distr::Alphanumeric};

/// A prefix and twelve random characters, as `TR_AMx4n2pQ7b9c`.
pub(super) fn new(prefix: &str) -> String {
    let tail: String = rand::rng().sample_iter(Alphanumeric).take(12).map(char::from).collect();
    format!("{prefix}_{tail}")
}

/// Milliseconds since the Unix epoch. The simulator stands for other machines, so it has a clock of its own.
#[expect(clippy::disallowed_methods, reason = "the simulator's only look at the system clock")]
pub(super) fn now_ms() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or_default()
}
