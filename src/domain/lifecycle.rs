//! Session and clip states, and why a session ended.

use super::text_enum::text_enum;

text_enum!(
    /// Where a session stands.
    SessionStatus {
        /// The egress was asked for; no media yet.
        Starting = "starting",
        /// Media arrives.
        Active = "active",
        /// The share or the egress is gone for the moment; the place is kept.
        Degraded = "degraded",
        /// Told to stop; the tail is being flushed. Holds no place.
        Stopping = "stopping",
        /// Over; capturable until its buffer expires.
        Stopped = "stopped",
        /// Over because recording could not go on (or never began).
        Failed = "failed",
    }
);

impl SessionStatus {
    /// The states that hold the user's and the community's place.
    pub const HOLDING: &'static [SessionStatus] =
        &[SessionStatus::Starting, SessionStatus::Active, SessionStatus::Degraded];
    /// The states after which nothing more is recorded.
    pub const OVER: &'static [SessionStatus] = &[SessionStatus::Stopped, SessionStatus::Failed];

    /// Whether the user's and the community's place are held.
    pub fn holds_place(self) -> bool {
        Self::HOLDING.contains(&self)
    }

    /// Whether nothing more will be recorded.
    pub fn is_over(self) -> bool {
        Self::OVER.contains(&self)
    }
}

text_enum!(
    /// Why a session ended.
    EndReason {
        /// Its owner pressed stop.
        StoppedByUser = "stopped_by_user",
        /// A manager stopped it.
        StoppedByManager = "stopped_by_manager",
        /// Its owner threw it away.
        Discarded = "discarded",
        /// The share ended and did not come back.
        ShareEnded = "share_ended",
        /// The room closed.
        RoomFinished = "room_finished",
        /// The egress failed and could not be replaced.
        EgressFailed = "egress_failed",
        /// The egress hit its limit and could not be replaced.
        LimitReached = "limit_reached",
        /// Recording never began.
        StartFailed = "start_failed",
        /// Nobody was behind it any more.
        Orphaned = "orphaned",
    }
);

text_enum!(
    /// Where a clip stands.
    ClipStatus {
        /// Being made.
        Processing = "processing",
        /// There, verified.
        Ready = "ready",
        /// Could not be made; says why.
        Failed = "failed",
    }
);
