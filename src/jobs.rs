//! The door of durable work: leases due jobs, runs each in a task of its own, keeps its lease while it runs, and
//! says what becomes of it. What a job does is in `flow::render`.
//!
//! A place (`capture.workers`) first, then a job for it: who is next is said by the database when there is somebody to do
//! it, so users take turns however much one of them has queued, and replicas share what there is. A job that waits for
//! late segments lets its place go and holds a lease and nothing else; one that finds no place afterwards is queued again.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Code, Error, Result},
    flow::{
        Deps, poster, render, shares,
        work::{self, Leased, Place},
    },
};

/// Jobs in hand at once; more wait in the table for a replica with free hands.
const IN_HAND: usize = 256;
/// Between two looks when no bell rings.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at whether a running job is still wanted.
const STILL_OURS: Duration = Duration::from_secs(1);

/// Runs until `deps.stop`; then gives unfinished jobs back and returns when all have let go.
pub async fn run(deps: Deps) {
    match work::take_over(&deps).await {
        Ok(0) => {}
        Ok(jobs) => tracing::info!(jobs, "taking over from the process before"),
        Err(error) => tracing::warn!(error = error.chain(), "leases of the process before stay"),
    }
    let workers = deps.places.get(&deps.config);
    let hands = Arc::new(Semaphore::new(IN_HAND));
    // awaited below, so that a job's end is this door's end
    let running = TaskTracker::new();
    while !deps.stop.is_cancelled() {
        let bell = deps.wake.jobs.notified();
        tokio::pin!(bell);
        bell.as_mut().enable();
        match take(&deps, &hands, &workers, &running).await {
            // there may be more
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = error.chain(), "leasing jobs failed"),
        }
        tokio::select! {
            () = bell => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = deps.stop.cancelled() => {}
        }
    }
    running.close();
    running.wait().await;
}

/// Leases one job for a free place and starts it; false if there is none, or we stop.
async fn take(
    deps: &Deps,
    hands: &Arc<Semaphore>,
    workers: &Arc<Semaphore>,
    running: &TaskTracker,
) -> Result<bool> {
    if !work::any_due(deps).await? {
        return Ok(false);
    }
    let free = async {
        let hand = Arc::clone(hands).acquire_owned().await;
        (hand, Place::take(workers).await)
    };
    let (hand, place) = tokio::select! {
        free = free => free,
        () = deps.stop.cancelled() => return Ok(false),
    };
    let place = place?;
    let Some((job, place)) = work::lease_for(deps, place).await? else { return Ok(false) };
    let deps = deps.clone();
    running.spawn(async move {
        attempt(&deps, &job, place).await;
        drop(hand);
        // one that waits may be of a kind that there was no place for
        deps.wake.jobs.notify_one();
    });
    Ok(true)
}

/// One attempt, with its lease kept; whatever comes of it is written down.
async fn attempt(deps: &Deps, leased: &Leased, place: Place) {
    let cancel = deps.stop.child_token();
    let work = AssertUnwindSafe(render::render(deps, leased, place, &cancel)).catch_unwind();
    tokio::pin!(work);
    let outcome = tokio::select! {
        outcome = &mut work => Some(outcome),
        () = lost(deps, leased) => {
            // let the attempt kill its FFmpeg and clean up behind itself; one that was done a moment ago has no lease
            // either, and what follows a clip follows it all the same
            cancel.cancel();
            Some(work.await).filter(|outcome| matches!(outcome, Ok(Ok(()))))
        }
    };
    let written = match outcome {
        Some(Ok(Ok(()))) => match &leased.job.clip_id {
            // what was to be shared is delivered while the poster is made; the clip's row says what came of it
            Some(clip) => tokio::join!(shares::fulfil(deps, clip), poster::follow(deps, clip)).0,
            None => Ok(()),
        },
        Some(Ok(Err(_))) if deps.stop.is_cancelled() => work::hand_back(deps, leased).await,
        Some(Ok(Err(error))) => keeping_lease(deps, leased, after(deps, leased, &error)).await,
        Some(Err(panic)) => {
            let text = panic_text(panic.as_ref());
            let error = Error::internal("making a clip", format!("panic: {text}")).retryable();
            keeping_lease(deps, leased, work::failed(deps, leased, &error)).await
        }
        None => {
            tracing::info!(job.id = %leased.job.id, "lease lost or job cancelled");
            Ok(())
        }
    };
    if let Err(error) = written {
        // the lease runs out and somebody takes the job up again
        tracing::warn!(job.id = %leased.job.id, error = error.chain(), "a job's end was not kept");
    }
}

/// What a failed attempt is followed by may take long, too: a file that is whole already is read to its end.
async fn keeping_lease<T>(deps: &Deps, leased: &Leased, work: impl Future<Output = T>) -> T {
    let renewing = async || -> Infallible {
        loop {
            tokio::time::sleep(work::RENEW).await;
            if let Err(error) = work::renew(deps, leased).await {
                tracing::warn!(error = error.chain(), "renewing a lease failed");
            }
        }
    };
    // side by side: the work may hold the very row that is to be renewed
    tokio::select! {
        done = work => done,
        never = renewing() => match never {},
    }
}

async fn after(deps: &Deps, leased: &Leased, error: &Error) -> Result<()> {
    if error.code() == Code::Cancelled && !work::is_ours(deps, leased).await? {
        return Ok(());
    }
    work::failed(deps, leased, error).await
}

/// Keeps the lease; returns when it is no longer ours.
async fn lost(deps: &Deps, leased: &Leased) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(STILL_OURS).await;
        let ours = if renewed.elapsed() >= work::RENEW {
            renewed = tokio::time::Instant::now();
            work::renew(deps, leased).await
        } else {
            work::is_ours(deps, leased).await
        };
        match ours {
            Ok(true) => {}
            Ok(false) => return,
            // not knowing is no reason to stop: publishing checks the lease again
            Err(error) => tracing::warn!(error = error.chain(), "renewing a lease failed"),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of unknown kind".to_owned())
}
