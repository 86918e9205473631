//! When the scheduled jobs run: a table of names, cadences and flows over tokio-cron-scheduler.
//!
//! The scheduler itself lets runs overlap, swallows panics and does not wait when it is shut down; so every job has a
//! gate of one place here, its runs are tracked, and [`Handle::stop`] waits for them.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_cron_scheduler::{Job as CronJob, JobScheduler};
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, Result},
    flow::{
        Deps,
        upkeep::{self, Job},
    },
};

/// How long [`Handle::stop`] waits. Passes end at their next step once the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// The running schedule.
pub struct Handle {
    scheduler: JobScheduler,
    runs: TaskTracker,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("runs", &self.runs.len()).finish_non_exhaustive()
    }
}

/// Begins the schedule. The stores are asked once before, so that health has an answer from the start.
///
/// # Errors
/// When the scheduler cannot be set up (a cadence that is none was refused with the configuration).
pub async fn start(deps: &Deps) -> Result<Handle> {
    let failed = |error| Error::internal("setting up the schedule", error);
    upkeep::run_tick(deps, Job::StorageProbe).await?;
    let scheduler = JobScheduler::new().await.map_err(failed)?;
    let runs = TaskTracker::new();
    for job in Job::ALL.iter().copied() {
        let gate = Arc::new(Semaphore::new(1));
        let (deps, runs) = (deps.clone(), runs.clone());
        let schedule = job.schedule(&deps.config).to_owned();
        let tick = move |_, _| {
            let (deps, gate, runs) = (deps.clone(), Arc::clone(&gate), runs.clone());
            let tick: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                // the one before still runs: this tick is nobody's on this replica
                let Ok(_place) = gate.try_acquire_owned() else { return };
                if let Err(broken) = runs.spawn(run(deps, job)).await {
                    let outcome = if broken.is_panic() { "panicked" } else { "cancelled" };
                    tracing::error!(job = job.as_str(), outcome, "job.broken");
                    metrics::counter!("livekit_replay_job_runs_total", "job" => job.as_str(), "outcome" => outcome)
                        .increment(1);
                }
            });
            tick
        };
        // UTC: a job keeps a fixed offset, which a change to summer time would make wrong
        let cron = CronJob::new_async(schedule.as_str(), tick).map_err(failed)?;
        scheduler.add(cron).await.map_err(failed)?;
    }
    scheduler.start().await.map_err(failed)?;
    Ok(Handle { scheduler, runs })
}

async fn run(deps: Deps, job: Job) {
    if deps.stop.is_cancelled() {
        return;
    }
    match upkeep::run_tick(&deps, job).await {
        Ok(Some(run)) => {
            tracing::debug!(job = job.as_str(), outcome = run.outcome.as_deref(), "job.ran");
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(job = job.as_str(), error = %error.chain(), "job.not_recorded");
        }
    }
}

impl Handle {
    /// Lets no tick begin any more and waits for the runs under way. Cancel [`Deps::stop`] before, and they end soon.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "schedule.shutdown_failed");
        }
        self.runs.close();
        if tokio::time::timeout(STOP_LIMIT, self.runs.wait()).await.is_err() {
            tracing::warn!(runs = self.runs.len(), "schedule.runs_left");
        }
    }
}
