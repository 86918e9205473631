//! The states of sessions and clips, and the only place where they change: a state and a fact give the next state.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Asked for; no media yet.
    Starting,
    /// Media flows.
    Active,
    /// Wanted, but nothing usable is being recorded right now.
    Degraded,
    /// Ended; egress may still flush its tail. Holds no place any more.
    Stopping,
    /// Over.
    Stopped,
    /// Over for a reason of ours or LiveKit's.
    Failed,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// By its owner.
    StoppedByUser,
    /// By somebody with the right to.
    StoppedByManager,
    /// Stopped and deleted.
    Discarded,
    /// The share went and did not come back in time.
    ShareEnded,
    /// The room closed.
    RoomFinished,
    /// Egress failed for good.
    EgressFailed,
    /// Egress reached a limit and could not go on.
    LimitReached,
    /// It never began.
    StartFailed,
    /// Found without a living egress or share.
    Orphaned,
}

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFact {
    /// LiveKit accepted an egress: media is to be expected, none has come.
    EgressAccepted,
    /// Media of the current egress arrived.
    MediaFlows,
    /// The share vanished, egress died, no segment came in time.
    Trouble,
    /// The start could not be carried out.
    StartFailed,
    /// Somebody asks for an end.
    StopAsked(EndReason),
    /// It ends by itself.
    Ended(EndReason),
    /// All egress left behind is indexed (or given up); the reason is the one kept with the session.
    Settled(EndReason),
}

macro_rules! names {
    ($type:ty: $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            /// All of them.
            pub const ALL: &'static [$type] = &[$(<$type>::$variant),+];

            /// The name in the API and in rows.
            pub fn as_str(self) -> &'static str {
                match self { $(<$type>::$variant => $name),+ }
            }

            /// The one of that name.
            pub fn from_name(name: &str) -> Option<$type> {
                Self::ALL.iter().copied().find(|known| known.as_str() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names!(SessionStatus: Starting = "starting", Active = "active", Degraded = "degraded",
    Stopping = "stopping", Stopped = "stopped", Failed = "failed");
names!(EndReason: StoppedByUser = "stopped_by_user", StoppedByManager = "stopped_by_manager",
    Discarded = "discarded", ShareEnded = "share_ended", RoomFinished = "room_finished",
    EgressFailed = "egress_failed", LimitReached = "limit_reached", StartFailed = "start_failed",
    Orphaned = "orphaned");
names!(ClipStatus: Processing = "processing", Ready = "ready", Failed = "failed");

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

    /// The state after `fact`. News that comes late or twice leaves the state as it is; only a wish that cannot be
    /// met (stopping what is over) is refused, with `session_not_active`.
    pub fn after(self, fact: SessionFact) -> Result<SessionStatus> {
        use SessionStatus::{Active, Degraded, Failed, Stopping};
        let live = self.holds_place();
        Ok(match fact {
            SessionFact::StopAsked(_) if !live => return Err(not_active()),
            SessionFact::StopAsked(_) | SessionFact::Ended(_) if live => Stopping,
            SessionFact::MediaFlows if live => Active,
            SessionFact::Trouble if live => Degraded,
            SessionFact::StartFailed if self == SessionStatus::Starting => Failed,
            SessionFact::Settled(reason) if self == Stopping => reason.final_status(),
            _ => self,
        })
    }
}

fn not_active() -> Error {
    Error::new(Code::SessionNotActive, "This session is not active any more.")
}

/// Where a clip stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipStatus {
    /// Accepted; being made.
    Processing,
    /// There.
    Ready,
    /// Not made, or lost; says why.
    Failed,
}

/// What happened to a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipFact {
    /// Its file is published and verified.
    Published,
    /// Its job gave up.
    GaveUp,
    /// Its owner wants another try.
    RetryAsked,
    /// Verification found its file gone.
    FileGone,
}

impl ClipStatus {
    /// The state after `fact`. Refused: publishing what is not being made (`cancelled`: its job has lost the clip), and
    /// retrying what has not failed (`clip_not_ready` while it is being made, else a validation failure).
    pub fn after(self, fact: ClipFact) -> Result<ClipStatus> {
        match (self, fact) {
            (ClipStatus::Processing, ClipFact::Published) => Ok(ClipStatus::Ready),
            (ClipStatus::Processing, ClipFact::GaveUp) => Ok(ClipStatus::Failed),
            (ClipStatus::Failed, ClipFact::RetryAsked) => Ok(ClipStatus::Processing),
            (ClipStatus::Ready, ClipFact::FileGone) => Ok(ClipStatus::Failed),
            (ClipStatus::Ready, ClipFact::Published) => Ok(ClipStatus::Ready),
            (ClipStatus::Failed, ClipFact::GaveUp | ClipFact::FileGone) => Ok(ClipStatus::Failed),
            (ClipStatus::Processing, ClipFact::RetryAsked | ClipFact::FileGone) => {
                Err(Error::new(Code::ClipNotReady, "The clip is still being made."))
            }
            (ClipStatus::Ready, ClipFact::RetryAsked) => {
                Err(Error::new(Code::ValidationFailed, "Only a failed clip can be tried again."))
            }
            (ClipStatus::Ready, ClipFact::GaveUp) | (ClipStatus::Failed, ClipFact::Published) => {
                Err(Error::new(Code::Cancelled, "The clip is not being made any more."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn a_session_lives_its_life() {
        let mut status = SessionStatus::Starting;
        let reason = EndReason::StoppedByUser;
        for (fact, next) in [
            (SessionFact::EgressAccepted, SessionStatus::Starting),
            (SessionFact::MediaFlows, SessionStatus::Active),
            (SessionFact::Trouble, SessionStatus::Degraded),
            (SessionFact::EgressAccepted, SessionStatus::Degraded),
            (SessionFact::MediaFlows, SessionStatus::Active),
            (SessionFact::StopAsked(reason), SessionStatus::Stopping),
            (SessionFact::MediaFlows, SessionStatus::Stopping),
            (SessionFact::Settled(reason), SessionStatus::Stopped),
            (SessionFact::Ended(EndReason::RoomFinished), SessionStatus::Stopped),
        ] {
            status = status.after(fact).expect("allowed");
            assert_eq!(status, next, "{fact:?}");
        }
    }

    #[test]
    fn only_a_wish_is_refused_and_only_when_it_is_over() {
        for status in SessionStatus::ALL {
            let asked = status.after(SessionFact::StopAsked(EndReason::StoppedByUser));
            match asked {
                Ok(next) => assert!(status.holds_place() && next == SessionStatus::Stopping),
                Err(error) => {
                    assert!(!status.holds_place());
                    assert_eq!(error.code(), Code::SessionNotActive);
                }
            }
        }
    }

    #[test]
    fn a_failed_start_frees_its_place_at_once_and_a_failed_egress_ends_failed() {
        let failed = SessionStatus::Starting.after(SessionFact::StartFailed).expect("a fact");
        assert!(!failed.holds_place() && failed.is_final());
        let stopping = SessionStatus::Degraded.after(SessionFact::Ended(EndReason::EgressFailed));
        let settled = stopping.and_then(|s| s.after(SessionFact::Settled(EndReason::EgressFailed)));
        assert_eq!(settled.expect("facts"), SessionStatus::Failed);
    }

    #[test]
    fn a_clip_ends_ready_or_failed_and_a_lost_job_cannot_publish() {
        assert_eq!(
            ClipStatus::Processing.after(ClipFact::Published).expect("ok"),
            ClipStatus::Ready
        );
        assert_eq!(
            ClipStatus::Failed.after(ClipFact::RetryAsked).expect("ok"),
            ClipStatus::Processing
        );
        assert_eq!(ClipStatus::Ready.after(ClipFact::FileGone).expect("ok"), ClipStatus::Failed);
        let error = ClipStatus::Failed.after(ClipFact::Published).expect_err("refused");
        assert_eq!(error.code(), Code::Cancelled);
        let error = ClipStatus::Processing.after(ClipFact::RetryAsked).expect_err("refused");
        assert_eq!(error.code(), Code::ClipNotReady);
    }

    fn any_fact() -> impl Strategy<Value = SessionFact> {
        let reason = proptest::sample::select(EndReason::ALL);
        prop_oneof![
            Just(SessionFact::EgressAccepted),
            Just(SessionFact::MediaFlows),
            Just(SessionFact::Trouble),
            Just(SessionFact::StartFailed),
            reason.clone().prop_map(SessionFact::StopAsked),
            reason.clone().prop_map(SessionFact::Ended),
            reason.prop_map(SessionFact::Settled),
        ]
    }

    proptest! {
        #[test]
        fn a_place_once_given_back_is_never_held_again_and_news_twice_is_news_once(facts in proptest::collection::vec(any_fact(), 0..30)) {
            let mut status = SessionStatus::Starting;
            let mut freed = false;
            for fact in facts {
                let was_final = status.is_final();
                let Ok(next) = status.after(fact) else { continue };
                prop_assert!(!was_final || next == status);
                prop_assert!(!(freed && next.holds_place()));
                if !matches!(fact, SessionFact::StopAsked(_)) {
                    prop_assert_eq!(next.after(fact).expect("news is never refused"), next);
                }
                freed |= !next.holds_place();
                status = next;
            }
        }
    }
}
