//! Blocking work with an owner who does not block: it can be stopped, and it cannot keep its owner waiting for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::thread::gettid;
use tokio::sync::oneshot;

use super::Halt;
use crate::{
    error::{Code, Error, Result},
    media::ffmpeg::{Limits, failed, make_way, stalled},
};

/// Work that was told to stop gets so long to leave nothing behind. Only a file system that hangs takes longer.
const GRACE: Duration = Duration::from_secs(5);

/// Shared with whoever waits: tells the work to stop, and whether it still gets on.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    pulse: AtomicU64,
}

impl Control {
    /// Asks the work to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// To be called by the work, often.
    ///
    /// # Errors
    /// `Stopped` once that was asked for.
    pub fn go_on(&self) -> Result<(), Halt> {
        if self.stop.load(Ordering::Relaxed) { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Says that the work got on.
    pub fn beat(&self) {
        self.pulse.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stops the work when its owner goes away.
struct Owned(Arc<Control>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs blocking work on a thread of its own, behind everything else the machine does, within `limits`.
///
/// # Errors
/// `cancelled`; `ffmpeg_failed` for work that took too long or got stuck. In both cases the work was told to stop; if
/// it is stuck in the file system, its thread stays until that answers.
pub async fn run<T: Send + 'static>(
    limits: &Limits,
    work: impl FnOnce(&Arc<Control>) -> T + Send + 'static,
) -> Result<T> {
    let owned = Owned(Arc::default());
    let control = Arc::clone(&owned.0);
    let (tell, mut told) = oneshot::channel();
    let body = move || {
        // a courtesy, and of this thread (and those it starts) alone
        make_way(gettid());
        // whoever waited may have gone
        let _ = tell.send(work(&control));
    };
    thread::Builder::new()
        .name("mux".to_owned())
        .spawn(body)
        .map_err(|error| Error::internal("starting a thread", error))?;
    let what = tokio::select! {
        biased;
        () = limits.cancel.cancelled() => None,
        done = &mut told => {
            return done.map_err(|error| Error::internal("working on a clip", error));
        }
        () = tokio::time::sleep(limits.deadline) => Some(format!("no end within {:?}", limits.deadline)),
        () = stalled(&owned.0.pulse, limits) => Some(format!("no progress for {:?}", limits.stall)),
    };
    owned.0.stop();
    let _ = tokio::time::timeout(GRACE, &mut told).await;
    Err(match what {
        None => Error::new(Code::Cancelled, "The work was cancelled."),
        Some(what) => failed("Making the video failed.", what),
    })
}
