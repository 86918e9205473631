//! Calls that go wrong on command.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A rule for coming calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallFault {
    /// Name of the call (`StopEgress`), a service (`livekit.Egress`), or `*` for every call.
    pub method: String,
    /// What happens.
    pub action: CallAction,
    /// How many calls it hits; `None`: until cleared or expired.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long it lasts, in milliseconds from its setting; `None`: until cleared or used up.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// How a call goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CallAction {
    /// Nothing is done and a Twirp error is answered, with the status that belongs to its code
    /// (`unavailable`, `unauthenticated`, `bad_route`, `internal`, `deadline_exceeded` …).
    Error {
        /// Twirp's code.
        code: String,
        /// The message.
        msg: String,
    },
    /// Nothing is done and a bare HTTP status with a plain text is answered, as a proxy in between would.
    Http {
        /// The status.
        status: u16,
    },
    /// Nothing is done and no answer ever comes.
    Hang,
    /// The call is done, but no answer ever comes.
    HangAfter,
    /// The call is done late.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The call is done at once and answered late.
    DelayAnswer {
        /// Milliseconds.
        ms: u64,
    },
}

#[derive(Default)]
pub(super) struct CallFaults {
    rules: Vec<(CallFault, Option<Instant>)>,
    hits: u64,
}

impl CallFaults {
    pub(super) fn add(&mut self, fault: CallFault) {
        let end = fault.for_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        self.rules.push((fault, end));
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How many calls a rule was applied to.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    /// The first rule that fits; used-up and expired ones disappear.
    pub(super) fn hit(&mut self, service: &str, method: &str) -> Option<CallAction> {
        let now = Instant::now();
        self.rules.retain(|(_, end)| end.is_none_or(|end| end > now));
        let fits = |name: &str| name == "*" || name == method || name == service;
        let index = self.rules.iter().position(|(fault, _)| fits(&fault.method))?;
        let action = self.rules[index].0.action.clone();
        self.hits += 1;
        match &mut self.rules[index].0.times {
            Some(0 | 1) => drop(self.rules.remove(index)),
            Some(times) => *times -= 1,
            None => {}
        }
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_hits_as_often_as_it_says_and_only_what_it_names() {
        let mut faults = CallFaults::default();
        let rule = |method: &str, times| CallFault {
            method: method.to_owned(),
            action: CallAction::Hang,
            times,
            for_ms: None,
        };
        faults.add(rule("StopEgress", Some(2)));
        assert_eq!(faults.hit("livekit.Egress", "ListEgress"), None);
        assert!(faults.hit("livekit.Egress", "StopEgress").is_some());
        assert!(faults.hit("livekit.Egress", "StopEgress").is_some());
        assert_eq!(faults.hit("livekit.Egress", "StopEgress"), None);
        faults.add(rule("livekit.Egress", None));
        assert!(faults.hit("livekit.Egress", "ListEgress").is_some());
        assert_eq!(faults.hit("livekit.RoomService", "ListRooms"), None);
        assert_eq!(faults.hits(), 3);
    }
}
