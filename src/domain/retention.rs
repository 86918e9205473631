//! Which segments may go. A plan only: rows are condemned first, bytes follow.

use std::time::Duration;

use crate::domain::time::{Timestamp, Window};

/// The lengths a buffer is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRules {
    /// `buffer.minutes`: what is promised.
    pub promised: Duration,
    /// `buffer.cleanup_minutes`: the age at which cleanup takes things.
    pub cleanup: Duration,
    /// The longest segment known: one that begins before the promised span reaches into it.
    pub longest_segment: Duration,
    /// Time between two runs of the cleanup job.
    pub cleanup_period: Duration,
}

impl RetentionRules {
    /// What is kept in ordinary times: never less than the promise, the longest segment and one cleanup period.
    pub fn keep(&self) -> Duration {
        self.cleanup.max(self.promise().saturating_add(self.cleanup_period))
    }

    /// What is kept even when the disk is critically full.
    pub fn promise(&self) -> Duration {
        self.promised.saturating_add(self.longest_segment)
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAge {
    /// Wanted: ages count back from `until`.
    Live {
        /// Now while media flows; the end of the last media while none does, because that is where the promised
        /// minutes would end if the share did not come back.
        until: Timestamp,
    },
    /// Ages count back from the end of the media until `capturable_until`; after that everything may go.
    Ended {
        /// The end of its last frame (of the session while the tail is still coming).
        media_end: Timestamp,
        /// `endedAt` and the grace.
        capturable_until: Timestamp,
    },
    /// Its owner had it deleted: everything may go.
    Discarded,
}

/// How hard space is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Keep [`RetentionRules::keep`].
    Normal,
    /// Keep only [`RetentionRules::promise`].
    Critical,
}

impl SessionAge {
    /// Who gives first when space is needed: what was discarded, then what is over, longest ago first, then what still
    /// records. `began` orders those that are alike.
    pub fn eviction_rank(self, began: Timestamp) -> (u8, Timestamp, Timestamp) {
        match self {
            SessionAge::Discarded => (0, began, began),
            SessionAge::Ended { media_end, .. } => (1, media_end, began),
            SessionAge::Live { .. } => (2, began, began),
        }
    }
}

/// A segment as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSegment<K> {
    /// The caller's name for it.
    pub key: K,
    /// When it was on the screen.
    pub span: Window,
}

/// What may go, and how much stays why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPlan<K> {
    /// To condemn, oldest first.
    pub condemn: Vec<K>,
    /// Old enough to go, but a pin covers them.
    pub kept_pinned: usize,
    /// Too young to go.
    pub kept_promised: usize,
}

/// Everything that ended on the screen by this moment may go; `None`: nothing is too young.
pub fn horizon(
    now: Timestamp,
    age: SessionAge,
    rules: &RetentionRules,
    pressure: Pressure,
) -> Option<Timestamp> {
    let keep = match pressure {
        Pressure::Normal => rules.keep(),
        Pressure::Critical => rules.promise(),
    };
    match age {
        SessionAge::Live { until } => Some(until.min(now).minus(keep)),
        SessionAge::Ended { media_end, capturable_until } if now < capturable_until => {
            Some(media_end.min(now).minus(keep))
        }
        SessionAge::Ended { .. } | SessionAge::Discarded => None,
    }
}

/// Decides for one session. `pinned` are the windows accepted captures hold; what touches one stays.
pub fn plan_retention<K: Clone>(
    now: Timestamp,
    age: SessionAge,
    rules: &RetentionRules,
    pressure: Pressure,
    segments: &[KeptSegment<K>],
    pinned: &[Window],
) -> RetentionPlan<K> {
    let horizon = horizon(now, age, rules, pressure);
    let mut plan = RetentionPlan { condemn: Vec::new(), kept_pinned: 0, kept_promised: 0 };
    let mut going: Vec<&KeptSegment<K>> = Vec::new();
    for segment in segments {
        if horizon.is_some_and(|horizon| segment.span.to > horizon) {
            plan.kept_promised += 1;
        } else if pinned.iter().any(|pin| touches(segment.span, *pin)) {
            plan.kept_pinned += 1;
        } else {
            going.push(segment);
        }
    }
    going.sort_by_key(|segment| segment.span.from);
    plan.condemn = going.into_iter().map(|segment| segment.key.clone()).collect();
    plan
}

/// Touching ends count too: a window's end may be half a millisecond off, and a bad segment may have no length.
fn touches(span: Window, pin: Window) -> bool {
    span.from <= pin.to && pin.from <= span.to
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn rules() -> RetentionRules {
        RetentionRules {
            promised: Duration::from_secs(600),
            cleanup: Duration::from_secs(720),
            longest_segment: Duration::from_secs(2),
            cleanup_period: Duration::from_secs(60),
        }
    }

    /// Segments of two seconds, the oldest `oldest` seconds before `end`.
    fn segments(end: Timestamp, oldest: i64) -> Vec<KeptSegment<i64>> {
        (0..oldest / 2)
            .map(|n| {
                let from = end.plus_seconds(-oldest + 2 * n);
                KeptSegment {
                    key: from.micros_since(NOW) / 1_000_000,
                    span: Window::new(from, from.plus_seconds(2)),
                }
            })
            .collect()
    }

    fn seconds(from: i64, to: i64) -> Window {
        Window::new(NOW.plus_seconds(from), NOW.plus_seconds(to))
    }

    #[test]
    fn a_live_session_loses_what_is_older_than_the_cleanup_age() {
        let plan = plan_retention(
            NOW,
            SessionAge::Live { until: NOW },
            &rules(),
            Pressure::Normal,
            &segments(NOW, 730),
            &[],
        );
        assert_eq!(plan.condemn, [-730, -728, -726, -724, -722]);
        assert_eq!((plan.kept_pinned, plan.kept_promised), (0, 360));
    }

    #[test]
    fn a_slow_cleanup_keeps_more_than_its_age_says() {
        let rules = RetentionRules { cleanup_period: Duration::from_secs(300), ..rules() };
        assert_eq!(rules.keep(), Duration::from_secs(902));
    }

    #[test]
    fn a_critical_disk_takes_what_lies_beyond_the_promise_and_no_more() {
        let plan = plan_retention(
            NOW,
            SessionAge::Live { until: NOW },
            &rules(),
            Pressure::Critical,
            &segments(NOW, 730),
            &[],
        );
        assert_eq!(plan.condemn.last(), Some(&-604));
    }

    #[test]
    fn an_ended_sessions_promise_counts_from_its_last_media_until_its_grace_is_over() {
        let media_end = NOW.plus_seconds(-500);
        let age =
            |until| SessionAge::Ended { media_end, capturable_until: NOW.plus_seconds(until) };
        let all = segments(media_end, 730);
        let plan = plan_retention(NOW, age(100), &rules(), Pressure::Normal, &all, &[]);
        assert_eq!(plan.condemn.len(), 5);
        let plan = plan_retention(NOW, age(0), &rules(), Pressure::Normal, &all, &[]);
        assert_eq!(plan.condemn.len(), all.len());
    }

    #[test]
    fn while_nothing_is_recorded_nothing_grows_old() {
        let lost = NOW.plus_seconds(-900);
        let age = SessionAge::Live { until: lost };
        let all = segments(lost, 730);
        let plan = plan_retention(NOW, age, &rules(), Pressure::Critical, &all, &[]);
        assert!(plan.condemn.iter().all(|at| *at < -900 - 600));
    }

    #[test]
    fn what_is_over_longest_gives_first_and_what_records_last() {
        let ended = |ago: i64| SessionAge::Ended {
            media_end: NOW.plus_seconds(-ago),
            capturable_until: NOW.plus_seconds(600),
        };
        let mut sessions = [
            ("records, new", SessionAge::Live { until: NOW }, -10),
            ("over just now", ended(1), -900),
            ("records, old", SessionAge::Live { until: NOW }, -800),
            ("discarded", SessionAge::Discarded, -5),
            ("over long ago", ended(300), -400),
        ];
        sessions.sort_by_key(|(_, age, began)| age.eviction_rank(NOW.plus_seconds(*began)));
        let names = sessions.map(|(name, ..)| name);
        assert_eq!(
            names,
            ["discarded", "over long ago", "over just now", "records, old", "records, new"]
        );
    }

    #[test]
    fn pinned_windows_stay_even_of_a_discarded_session() {
        let pins = [seconds(-100, -95)];
        let plan = plan_retention(
            NOW,
            SessionAge::Discarded,
            &rules(),
            Pressure::Critical,
            &segments(NOW, 200),
            &pins,
        );
        assert_eq!(plan.kept_pinned, 4);
        assert!(plan.condemn.iter().all(|at| !(-102..=-95).contains(at)));
        assert_eq!(plan.condemn.len(), 96);
    }

    proptest! {
        #[test]
        fn a_legal_request_made_before_the_next_cleanup_finds_its_segments(
            promised in 60u64..3600, extra in 0u64..600, longest in 1u64..20, period in 1u64..900, wait in 0u64..900, back in 0u64..3600,
        ) {
            let rules = RetentionRules {
                promised: Duration::from_secs(promised), cleanup: Duration::from_secs(promised + extra),
                longest_segment: Duration::from_secs(longest), cleanup_period: Duration::from_secs(period),
            };
            // asked within one period after this cleanup, for a moment within the promise
            let asked = NOW.plus_seconds((wait % (period + 1)) as i64);
            let moment = asked.plus_seconds(-((back % (promised + 1)) as i64));
            let span = Window::new(moment.plus_seconds(-(longest as i64) + 1), moment.plus_seconds(1));
            let one = [KeptSegment { key: (), span }];
            for pressure in [Pressure::Normal, Pressure::Critical] {
                // cleanup under pressure runs at the moment itself
                let now = if pressure == Pressure::Critical { asked } else { NOW };
                let live = SessionAge::Live { until: now };
                prop_assert!(plan_retention(now, live, &rules, pressure, &one, &[]).condemn.is_empty());
            }
        }

        #[test]
        fn every_segment_is_counted_once_and_no_pinned_one_goes(
            oldest in 0i64..3000, pin_from in -3000i64..0, pin_length in 1i64..600, critical in any::<bool>(),
        ) {
            let all = segments(NOW, oldest);
            let pin = seconds(pin_from, pin_from + pin_length);
            let pressure = if critical { Pressure::Critical } else { Pressure::Normal };
            let plan = plan_retention(NOW, SessionAge::Live { until: NOW }, &rules(), pressure, &all, &[pin]);
            prop_assert_eq!(plan.condemn.len() + plan.kept_pinned + plan.kept_promised, all.len());
            for segment in all.iter().filter(|segment| plan.condemn.contains(&segment.key)) {
                prop_assert!(!segment.span.overlaps(&pin));
            }
            prop_assert!(plan.condemn.is_sorted());
        }
    }
}
