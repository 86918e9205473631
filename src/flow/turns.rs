//! Locks by name, within this process: whoever comes for what is being made waits for that instead of making it too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

/// Held by whoever makes the thing of that name.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// The turns there are; one that nobody holds or waits for is forgotten.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<String, Weak<Turn>>>);

impl Turns {
    /// The lock under which the thing of that name is made.
    pub(super) fn of(&self, name: &str) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        turns.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }
}
