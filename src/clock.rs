//! The one source of the present moment: real, shifted for tests and drills, never read elsewhere (`clippy.toml`).

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::domain::time::Timestamp;

/// Tells the time. Wall-clock only: deadlines inside one process use tokio's monotonic clock.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment, whole microseconds (what both databases keep).
    fn now(&self) -> Timestamp;
}

/// A clock as it is passed around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the system clock is read")]
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(chrono::Utc::now().timestamp_micros())
    }
}

/// The machine's clock plus an offset that a test moves by hand; time goes on by itself between the moves.
#[derive(Debug, Default)]
pub struct ShiftedClock {
    offset_micros: AtomicI64,
}

impl ShiftedClock {
    /// Moves the clock forward (or back, with a negative number of microseconds).
    pub fn advance_micros(&self, micros: i64) {
        self.offset_micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_micros(self.offset_micros.load(Ordering::SeqCst))
    }
}

/// The variable that names the file of a [`DrillClock`].
pub const DRILL: &str = "REPLAY_CLOCK_SHIFT_FILE";

/// The machine's clock plus what a file says, in milliseconds: a drill's way of stepping the clock of the real program
/// while it runs. Read at every look, so that all processes that name the same file step at once.
#[derive(Debug)]
pub struct DrillClock {
    file: PathBuf,
}

impl Clock for DrillClock {
    fn now(&self) -> Timestamp {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let shift: i64 = text.trim().parse().unwrap_or(0);
        SystemClock.now().plus_micros(shift.saturating_mul(1000))
    }
}

/// The clock of a program: the machine's, unless [`DRILL`] names a file.
pub fn of_program() -> SharedClock {
    match std::env::var_os(DRILL) {
        Some(file) => {
            tracing::warn!(file = %file.display(), "the clock is a drill's: it goes by this file ({DRILL})");
            Arc::new(DrillClock { file: file.into() })
        }
        None => Arc::new(SystemClock),
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl ManualClock {
    /// Stands at `start`.
    pub fn at(start: Timestamp) -> ManualClock {
        ManualClock { micros: AtomicI64::new(start.as_micros()) }
    }

    /// Moves the hands.
    pub fn advance_micros(&self, micros: i64) {
        self.micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros.load(Ordering::SeqCst))
    }
}
