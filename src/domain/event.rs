//! What is worth telling: which change of a session, a clip or an account is which event, and when the telling is
//! tried again. Written down with the change (`flow::outbox`), told later (`flow::events`).

use std::time::Duration;

use super::{
    lifecycle::{EndReason, SessionStatus},
    text_enum::text_enum,
};

text_enum!(
    /// A kind of event. Apps filter by these words, so one is never renamed.
    EventKind {
        /// LiveKit accepted the recording of a new session.
        Started = "replay_buffer_started",
        /// Nothing usable is being recorded right now.
        Degraded = "replay_buffer_degraded",
        /// It records again, or another recording took over while it went on.
        Restarted = "replay_buffer_restarted",
        /// It was stopped, or came to its end.
        Stopped = "replay_buffer_stopped",
        /// It never began, or could not go on.
        Failed = "replay_buffer_failed",
        /// The first media is there: from now on something can be captured.
        SegmentsReady = "segments_ready",
        /// A clip was accepted, or is tried again.
        ClipProcessing = "clip_processing",
        /// A clip is there.
        ClipReady = "clip_ready",
        /// A clip could not be made.
        ClipFailed = "clip_failed",
        /// A clip is gone.
        ClipDeleted = "clip_deleted",
        /// A clip was shared.
        ClipShared = "clip_shared",
        /// A threshold of the user's allowance was passed.
        QuotaWarning = "quota_warning",
    }
);

impl EventKind {
    /// Whether its data is a clip.
    pub fn is_of_clip(self) -> bool {
        use EventKind::{ClipDeleted, ClipFailed, ClipProcessing, ClipReady, ClipShared};
        matches!(self, ClipProcessing | ClipReady | ClipFailed | ClipDeleted | ClipShared)
    }

    /// Whether its data is a session.
    pub fn is_of_session(self) -> bool {
        !self.is_of_clip() && self != EventKind::QuotaWarning
    }
}

/// What the change of a session's status is called; `None` where it is none. `Starting` to `Active` is the first media,
/// which whoever indexes it tells.
pub fn of_change(before: SessionStatus, after: SessionStatus) -> Option<EventKind> {
    use SessionStatus::{Active, Degraded, Starting};
    match (before, after) {
        (Starting | Active, Degraded) => Some(EventKind::Degraded),
        (Degraded, Active) => Some(EventKind::Restarted),
        _ => None,
    }
}

/// What the end of a session is called. It is told once, when the session gives its place up.
pub fn of_end(reason: EndReason) -> EventKind {
    match reason.final_status() {
        SessionStatus::Failed => EventKind::Failed,
        _ => EventKind::Stopped,
    }
}

/// Parts of an allowance, in percent, whose passing is told.
pub const THRESHOLDS: [i64; 3] = [80, 90, 100];

/// The highest threshold that lies between two states of an account: bytes used and allowed, before and after.
pub fn passed(before: (i64, i64), after: (i64, i64)) -> Option<i64> {
    let reaches = |(used, allowed): (i64, i64), percent: i64| {
        used > 0 && i128::from(used) * 100 >= i128::from(allowed) * i128::from(percent)
    };
    let new = |percent: &&i64| reaches(after, **percent) && !reaches(before, **percent);
    THRESHOLDS.iter().rev().find(new).copied()
}

/// How long an event can be asked for again by who resumes a stream.
pub const RESUMABLE: Duration = Duration::from_secs(3600);
/// How long it is kept: the same, and what clocks of replicas and long transactions may differ by.
pub const KEPT: Duration = Duration::from_secs(4200);

/// Pauses between the attempts at a delivery, seconds; after the last one it is dead. A day in all.
const PAUSES: [u64; 8] = [5, 30, 120, 600, 3600, 3 * 3600, 6 * 3600, 12 * 3600];
/// The longest pause that a receiver may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(12 * 3600);

/// The pause after the `attempts`th attempt failed; `None`: no more. `jitter` is 0 to 1 and moves the pause by up to a
/// fifth either way, so that what failed together is not repeated together; `wished` is the receiver's `Retry-After`.
pub fn pause(attempts: i32, jitter: f64, wished: Option<Duration>) -> Option<Duration> {
    let at = usize::try_from(attempts.max(1) - 1).unwrap_or(usize::MAX);
    let pause = Duration::from_secs(*PAUSES.get(at)?);
    let moved = pause.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
    Some(wished.map_or(moved, |wished| moved.max(wished.min(LONGEST_WISH))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_out_of_holding_a_place_is_an_end_and_every_other_change_at_most_one_event() {
        for reason in EndReason::ALL {
            assert!(matches!(of_end(*reason), EventKind::Stopped | EventKind::Failed));
        }
        for status in SessionStatus::ALL {
            assert_eq!(of_change(*status, *status), None, "{status} is told again");
        }
        assert_eq!(of_end(EndReason::EgressFailed), EventKind::Failed);
        assert_eq!(of_end(EndReason::StoppedByUser), EventKind::Stopped);
    }

    #[test]
    fn a_threshold_is_told_when_it_is_passed_upwards_and_the_highest_of_several_alone() {
        assert_eq!(passed((79, 100), (80, 100)), Some(80));
        assert_eq!(passed((80, 100), (89, 100)), None);
        assert_eq!(passed((10, 100), (95, 100)), Some(90));
        assert_eq!(passed((10, 100), (100, 100)), Some(100));
        assert_eq!(passed((95, 100), (50, 100)), None);
        assert_eq!(passed((50, 100), (50, 60)), Some(80), "a smaller allowance passes it too");
        assert_eq!(passed((0, 100), (0, 0)), None, "nothing used is no warning");
        assert_eq!(passed((1, 0), (2, 0)), None);
        assert_eq!(passed((0, i64::MAX), (i64::MAX, i64::MAX)), Some(100));
    }

    #[test]
    fn pauses_grow_and_end_and_a_receiver_may_lengthen_them_within_bounds() {
        let seconds = |attempts| pause(attempts, 0.5, None).map(|pause| pause.as_secs());
        let all: Vec<_> = (1..=9).map(seconds).collect();
        assert_eq!(all[..3], [Some(5), Some(30), Some(120)]);
        assert_eq!(all[8], None);
        let hour = Duration::from_secs(3600);
        assert_eq!(pause(1, 0.0, Some(hour)), Some(hour));
        assert_eq!(pause(1, 0.0, Some(hour * 1000)), Some(LONGEST_WISH));
        assert_eq!(pause(1, 0.0, Some(Duration::ZERO)), Some(Duration::from_secs(4)));
        assert_eq!(pause(9, 0.0, Some(hour)), None);
    }
}
