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

impl Walks {
    /// With another time after which a held source is nobody's.
    pub fn with_patience(patience: Duration) -> Walks {
        Walks { patience, walk: Mutex::default() }
    }

    /// Whether one is to be made whatever the time: a process that has just begun may follow one that died, and what it
    /// waits for is looked at again.
    pub fn is_due(&self) -> bool {
        let walk = self.walk();
        !walk.begun
            || walk.wanted
            || walk.unowned.values().any(|(first, _)| first.elapsed() < HURRY)
    }

    /// Something could not be finished in the clip store, and the next walk is to do it soon.
    pub fn want(&self) {
        self.walk().wanted = true;
    }

    pub(super) fn begin(&self) {
        let mut walk = self.walk();
        walk.begun = true;
        walk.wanted = false;
    }

    /// Whether a held source that nobody knows was so for long enough. Counted from when this process saw it first: the
    /// store's clock may be any other, and ours may be set.
    pub(super) fn is_abandoned(&self, name: &str) -> bool {
        let mut walk = self.walk();
        let now = walk.ended;
        let seen = walk.unowned.entry(name.to_owned()).or_insert((Instant::now(), now));
        seen.1 = now;
        seen.0.elapsed() >= self.patience
    }

    /// A walk came to its end: what was not met in it is gone, or has an owner.
    pub(super) fn end(&self) {
        let mut walk = self.walk();
        let now = walk.ended;
        walk.unowned.retain(|_, seen| seen.1 == now);
        walk.ended += 1;
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
