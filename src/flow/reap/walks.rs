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

/// Walks made, and what was met in them that may yet become somebody's.
#[derive(Debug)]
pub struct Walks {
    patience: Duration,
    walk: Mutex<Walk>,
}

#[derive(Debug, Default)]
struct Walk {
    /// Whether there was one.
    begun: bool,
    /// Whether somebody left something for the next one.
    wanted: bool,
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
        self.begun = true;
        self.wanted = false;
    }

    fn is_due(&self, now: Instant) -> bool {
        let waits = |first: &Instant| now.duration_since(*first) < HURRY;
        !self.begun || self.wanted || self.unowned.values().any(|(first, _)| waits(first))
    }

    fn is_abandoned(&mut self, name: &str, patience: Duration, now: Instant) -> bool {
        let seen = self.unowned.entry(name.to_owned()).or_insert((now, self.ended));
        seen.1 = self.ended;
        now.duration_since(seen.0) >= patience
    }

    fn end(&mut self) {
        let ended = self.ended;
        self.unowned.retain(|_, seen| seen.1 == ended);
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

    /// A walk came to its end: what was not met in it is gone, or has an owner.
    pub(super) fn end(&self) {
        self.walk().end();
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
        walk.end();
        abandoned
    }

    #[test]
    fn a_held_source_that_nobody_knows_is_nobodys_after_a_minute_of_ours() {
        let (mut walk, began) = (Walk::default(), Instant::now());
        let later = |minutes: f64| began + PATIENCE.mul_f64(minutes);
        assert!(walk.is_due(began), "a process that has just begun");
        assert_eq!(walked(&mut walk, &["a.source"], began), [false]);
        assert!(walk.is_due(began), "it is waited for");
        // one that is not met is forgotten, and begins anew
        assert_eq!(walked(&mut walk, &["b.source"], later(0.5)), [false]);
        assert_eq!(walked(&mut walk, &["a.source", "b.source"], later(1.0)), [false, false]);
        assert_eq!(walked(&mut walk, &["a.source", "b.source"], later(1.5)), [false, true]);
        assert_eq!(walked(&mut walk, &[], later(2.0)), [false; 0]);
        assert!(!walk.is_due(later(2.0)), "nothing is waited for");
    }

    #[test]
    fn a_walk_that_never_comes_to_its_end_is_not_hurried_for_ever() {
        let (mut walk, began) = (Walk::default(), Instant::now());
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
