//! What a process remembers between its walks through the clip store.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Longer than a trim may take from holding its source to the commit that makes it known (`trim`).
const PATIENCE: Duration = Duration::from_secs(60);

/// After that long a walk is no longer hurried for something that was seen once: a store so large that no walk comes to its end
/// would be walked through without a pause.
const HURRY: Duration = Duration::from_secs(300);

/// Walks that a process makes as soon as it can: what is read while others write in it may not show everything at once.
const FIRST: u64 = 2;

/// Walks made, and what was met in them that may yet become somebody's.
#[derive(Debug)]
pub struct Walks {
    patience: Duration,
    walk: Mutex<Walk>,
}

#[derive(Debug, Default)]
struct Walk {
    /// Those that were begun.
    begun: u64,
    /// Whether somebody left something for the next one.
    wanted: bool,
    /// Since when each of them had to pass something over.
    wanting: Option<Instant>,
    /// Those that came to their end.
    ended: u64,
    /// Sources held for a trim that nobody knows: when they were first seen, and in which walk last.
    unowned: HashMap<String, (Instant, u64)>,
}

impl Default for Walks {
    fn default() -> Walks {
        Walks::with_patience(PATIENCE)
    }
}

impl Walk {
    fn begin(&mut self) {
        self.begun += 1;
        self.wanted = false;
    }

    fn is_due(&self, now: Instant) -> bool {
        let waits = |first: &Instant| now.duration_since(*first) < HURRY;
        let mut waited_for = self.unowned.values().map(|(first, _)| first).chain(&self.wanting);
        self.begun < FIRST || self.wanted || waited_for.any(waits)
    }

    fn is_abandoned(&mut self, name: &str, patience: Duration, now: Instant) -> bool {
        let ended = self.ended;
        let seen = self.unowned.entry(name.to_owned()).or_insert_with(|| {
            tracing::info!(name, "a source is held for a trim that nobody knows");
            (now, ended)
        });
        seen.1 = ended;
        now.duration_since(seen.0) >= patience
    }

    fn end(&mut self, whole: bool, now: Instant) {
        self.wanting = if whole { None } else { self.wanting.or(Some(now)) };
        // what one walk did not meet is not forgotten for it: names are never given twice
        let ended = self.ended;
        self.unowned.retain(|_, seen| seen.1 + 1 >= ended);
        self.ended += 1;
    }
}

impl Walks {
    /// With another time after which a held source is nobody's.
    pub fn with_patience(patience: Duration) -> Walks {
        Walks { patience, walk: Mutex::default() }
    }

    /// Whether one is to be made whatever the time: a process that has just begun may follow one that died, and what it
    /// waits for is looked at again.
    pub fn is_due(&self) -> bool {
        self.walk().is_due(Instant::now())
    }

    /// Something could not be finished in the clip store, and the next walk is to do it soon.
    pub fn want(&self) {
        self.walk().wanted = true;
    }

    pub(super) fn begin(&self) {
        self.walk().begin();
    }

    /// Whether a held source that nobody knows was so for long enough. Counted from when this process saw it first: the
    /// store's clock may be any other, and ours may be set.
    pub(super) fn is_abandoned(&self, name: &str) -> bool {
        self.walk().is_abandoned(name, self.patience, Instant::now())
    }

    /// A walk came to its end: what was not met in it nor in the one before is gone, or has an owner. One that had to pass
    /// something over (`whole` is false) is soon followed by another.
    pub(super) fn end(&self, whole: bool) {
        self.walk().end(whole, Instant::now());
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(walk: &mut Walk, met: &[&str], now: Instant) -> Vec<bool> {
        walk.begin();
        let abandoned = met.iter().map(|name| walk.is_abandoned(name, PATIENCE, now)).collect();
        walk.end(true, now);
        abandoned
    }

    #[test]
    fn a_held_source_that_nobody_knows_is_nobodys_after_a_minute_of_ours() {
        let (mut walk, began) = (Walk::default(), Instant::now());
        let later = |minutes: f64| began + PATIENCE.mul_f64(minutes);
        assert_eq!(walked(&mut walk, &["a.source"], began), [false]);
        assert_eq!(walked(&mut walk, &["a.source", "b.source"], later(0.5)), [false, false]);
        assert!(walk.is_due(later(0.5)), "they are waited for");
        assert_eq!(walked(&mut walk, &["a.source", "b.source"], later(1.0)), [true, false]);
        assert_eq!(walked(&mut walk, &["b.source"], later(1.5)), [true]);
        assert_eq!(walked(&mut walk, &[], later(1.6)), [false; 0]);
        assert!(walk.is_due(later(1.6)), "that one walk did not meet it may be its fault");
        assert_eq!(walked(&mut walk, &[], later(1.7)), [false; 0]);
        assert!(!walk.is_due(later(1.7)), "nothing is waited for");
    }

    #[test]
    fn what_a_walk_missed_the_next_one_meets() {
        let (mut walk, began) = (Walk::default(), Instant::now());
        let later = |minutes: f64| began + PATIENCE.mul_f64(minutes);
        assert!(walk.is_due(began), "a process that has just begun");
        walked(&mut walk, &[], began);
        assert!(walk.is_due(began), "its first walk may have missed something");
        assert_eq!(walked(&mut walk, &["a.source"], later(0.1)), [false]);
        assert_eq!(walked(&mut walk, &[], later(0.2)), [false; 0]);
        assert!(walk.is_due(later(0.2)));
        assert_eq!(walked(&mut walk, &["a.source"], later(1.1)), [true], "counted from the first");
        // met in neither of two: forgotten, and counted anew
        walked(&mut walk, &[], later(1.2));
        walked(&mut walk, &[], later(1.3));
        assert_eq!(walked(&mut walk, &["a.source"], later(1.4)), [false]);
    }

    #[test]
    fn a_walk_that_passed_something_over_is_followed_by_another() {
        let (mut walk, began) = (Walk::default(), Instant::now());
        for _ in 0..3 {
            walked(&mut walk, &[], began);
        }
        assert!(!walk.is_due(began));
        for moment in [began, began + HURRY / 2] {
            walk.begin();
            walk.end(false, moment);
            assert!(walk.is_due(moment));
        }
        assert!(
            !walk.is_due(began + HURRY),
            "what is always passed over has its turn with the time"
        );
        walked(&mut walk, &[], began + HURRY);
        walk.begin();
        walk.end(false, began + HURRY);
        assert!(walk.is_due(began + HURRY), "and is hurried for again once there was none");
    }

    #[test]
    fn a_walk_that_never_comes_to_its_end_is_not_hurried_for_ever() {
        let (mut walk, began) = (Walk::default(), Instant::now());
        walk.begin();
        walk.begin();
        walk.is_abandoned("a.source", PATIENCE, began);
        assert!(walk.is_due(began + HURRY / 2));
        assert!(!walk.is_due(began + HURRY), "it has its turn with the time");
        walk.wanted = true;
        assert!(walk.is_due(began + HURRY), "somebody left something");
        walk.begin();
        assert!(!walk.is_due(began + HURRY));
    }
}
