//! What an administrator sees and runs of the scheduled work. The schedule (a door of its own) fills this seam.

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::Deps;
use crate::{domain::time::Timestamp, error::Result};

/// The scheduled jobs, as the schedule has them.
#[async_trait]
pub trait Maintenance: Send + Sync + std::fmt::Debug {
    /// Every job, in the order of the documentation, with its last run.
    async fn list(&self, deps: &Deps) -> Result<Vec<JobReport>>;

    /// Runs a job now, whatever its cadence; `dry_run` only counts what it would do.
    ///
    /// # Errors
    /// [`crate::error::Code::NotFound`] for a name that is no job's.
    async fn run(&self, deps: &Deps, job: &str, dry_run: bool) -> Result<Run>;
}

/// A scheduled job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobReport {
    /// `segment-cleanup`, …
    pub name: String,
    /// Cron, six fields, UTC.
    pub schedule: String,
    /// The newest run.
    pub last_run: Option<Run>,
    /// When it is due next.
    pub next_run_at: Option<Timestamp>,
    /// Whether a run that was due did not begin.
    pub overdue: bool,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Begun.
    pub started_at: Timestamp,
    /// Ended; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// `ok` or an error's code.
    pub outcome: Option<String>,
    /// What it did, by name.
    pub counts: Map<String, Value>,
}
