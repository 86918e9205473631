//! The states of sessions and clips, and the only place that says which may follow which. Rows change state by
//! conditional updates (`store`): "become this, if you still are one of those it may follow". So news that comes late
//! or twice changes nothing, and of two that change a row at once one finds it changed.

use super::{text_enum::text_enum, time::Timestamp};

text_enum!(
    /// Where a session stands.
    SessionStatus {
        /// Asked for; no media yet.
        Starting = "starting",
        /// Media flows.
        Active = "active",
        /// Wanted, but nothing usable is being recorded right now.
        Degraded = "degraded",
        /// Ended; egress may still flush its tail. Holds no place any more.
        Stopping = "stopping",
        /// Over.
        Stopped = "stopped",
        /// Over for a reason of ours or LiveKit's.
        Failed = "failed",
    }
);

text_enum!(
    /// Why a session ended.
    EndReason {
        /// By its owner.
        StoppedByUser = "stopped_by_user",
        /// By somebody with the right to.
        StoppedByManager = "stopped_by_manager",
        /// Stopped and deleted.
        Discarded = "discarded",
        /// The share went and did not come back in time.
        ShareEnded = "share_ended",
        /// The room closed.
        RoomFinished = "room_finished",
        /// Egress failed for good.
        EgressFailed = "egress_failed",
        /// Egress reached a limit and could not go on.
        LimitReached = "limit_reached",
        /// It never began.
        StartFailed = "start_failed",
        /// Found without a living egress or share.
        Orphaned = "orphaned",
    }
);

text_enum!(
    /// Where a clip stands.
    ClipStatus {
        /// Accepted; being made.
        Processing = "processing",
        /// There.
        Ready = "ready",
        /// Not made, or lost; says why.
        Failed = "failed",
    }
);

impl EndReason {
    /// The state a session of this end comes to rest in.
    pub fn final_status(self) -> SessionStatus {
        match self {
            EndReason::StartFailed | EndReason::EgressFailed => SessionStatus::Failed,
            _ => SessionStatus::Stopped,
        }
    }
}

impl SessionStatus {
    /// Those that count against the user's and the community's places.
    pub const HOLDING: &'static [SessionStatus] =
        &[SessionStatus::Starting, SessionStatus::Active, SessionStatus::Degraded];

    /// Whether the session counts against the user's and the community's places.
    pub fn holds_place(self) -> bool {
        SessionStatus::HOLDING.contains(&self)
    }

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(self, SessionStatus::Stopped | SessionStatus::Failed)
    }

    /// The states that this one may follow. Active and degraded follow themselves: what belongs to them (attempts,
    /// times) may be written again.
    pub fn follows(self) -> &'static [SessionStatus] {
        match self {
            SessionStatus::Starting => &[],
            SessionStatus::Active | SessionStatus::Degraded | SessionStatus::Stopping => {
                SessionStatus::HOLDING
            }
            SessionStatus::Stopped => &[SessionStatus::Stopping],
            // a start that failed holds nothing that would have to come to rest first
            SessionStatus::Failed => &[SessionStatus::Starting, SessionStatus::Stopping],
        }
    }
}

/// The last frames of an egress that is told to stop may be this much younger than the end of their session: it is told
/// again for some seconds, and replicas' clocks may differ by half a minute.
const TAIL_US: i64 = 60_000_000;

/// The end of a session's media: its newest frame. What LiveKit went on to record because it could not be told to stop is
/// not the session's: its media end with it then.
pub fn media_end(newest: Option<Timestamp>, ended_at: Option<Timestamp>) -> Option<Timestamp> {
    match (newest, ended_at) {
        (Some(newest), Some(ended)) if newest.micros_since(ended) > TAIL_US => Some(ended),
        _ => newest,
    }
}

impl ClipStatus {
    /// The states that this one may follow. A ready clip whose file is gone fails; a failed one can be tried again.
    pub fn follows(self) -> &'static [ClipStatus] {
        match self {
            ClipStatus::Processing => &[ClipStatus::Failed],
            ClipStatus::Ready | ClipStatus::Failed => &[ClipStatus::Processing],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_rows_and_in_json_are_the_same() {
        for status in SessionStatus::ALL {
            assert_eq!(serde_json::json!(status), status.as_str());
            assert_eq!(SessionStatus::from_name(status.as_str()), Some(*status));
        }
        for reason in EndReason::ALL {
            assert_eq!(serde_json::json!(reason), reason.as_str());
            assert_eq!(EndReason::from_name(reason.as_str()), Some(*reason));
        }
        for status in ClipStatus::ALL {
            assert_eq!(serde_json::json!(status), status.as_str());
        }
    }

    #[test]
    fn a_session_owns_its_tail_and_nothing_of_later() {
        let at = |seconds: i64| Some(Timestamp::from_micros(seconds * 1_000_000));
        assert_eq!(media_end(at(100), None), at(100));
        assert_eq!(media_end(at(90), at(100)), at(90));
        assert_eq!(media_end(at(160), at(100)), at(160));
        assert_eq!(media_end(at(161), at(100)), at(100));
        assert_eq!(media_end(None, at(100)), None);
    }

    #[test]
    fn a_place_once_given_back_is_never_held_again_and_a_final_state_is_never_left() {
        for to in SessionStatus::ALL {
            for from in to.follows() {
                assert!(from.holds_place() || !to.holds_place(), "{from} -> {to}");
                assert!(!from.is_final(), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn every_end_comes_to_rest_from_stopping() {
        for reason in EndReason::ALL {
            let rest = reason.final_status();
            assert!(rest.is_final() && rest.follows().contains(&SessionStatus::Stopping));
        }
        assert!(
            SessionStatus::HOLDING.iter().all(|s| SessionStatus::Stopping.follows().contains(s))
        );
    }

    #[test]
    fn a_clip_is_published_only_while_it_is_being_made_and_only_a_failed_one_is_made_again() {
        assert_eq!(ClipStatus::Ready.follows(), &[ClipStatus::Processing]);
        assert_eq!(ClipStatus::Processing.follows(), &[ClipStatus::Failed]);
    }
}
