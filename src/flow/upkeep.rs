//! The scheduled jobs: which there are, one run of one of them, and how they stand. When they run is `schedule`'s.
//!
//! Every pass is idempotent and takes no input. A tick is claimed in the database under the moment the schedule
//! meant, so with several replicas it runs once, and a replica whose clock is a little off claims the same moment.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Timelike, Utc};
use croner::Cron;
use serde_json::{Map, Value};

use super::{
    Deps, audit, cleanup,
    maintenance::{JobReport, Maintenance, Run},
    probe, reap, reconcile, sweep,
};
use crate::{
    config::Config,
    domain::{forecast::Watermark, text_enum::text_enum, time::Timestamp},
    error::{Code, Error, Result},
    store::{Conn, maintenance, setting},
};

text_enum!(
    /// A scheduled job.
    Job {
        /// Condemns and deletes expired segments.
        SegmentCleanup = "segment-cleanup",
        /// Reaps what nobody owns.
        OrphanReaper = "orphan-reaper",
        /// Compares sessions with LiveKit.
        Reconcile = "reconcile",
        /// Empties the work directory of what no job owns.
        WorkdirSweep = "workdir-sweep",
        /// Compares accounts with clips.
        QuotaAudit = "quota-audit",
        /// Asks the stores whether they are there; on every replica.
        StorageProbe = "storage-probe",
    }
);

/// A pass that takes longer is dropped; it goes on at the next tick.
const LONGEST_RUN: Duration = Duration::from_secs(300);
/// A run may begin that much late before it is called overdue.
const OVERDUE_AFTER: Duration = Duration::from_secs(60);
/// A run that began that far ahead of the present moment began before the clock was set back; less is a replica's
/// clock that is a little fast.
const SET_BACK: Duration = Duration::from_secs(60);
/// The clip store is walked through every that many minutes (and when a process has begun).
const THOROUGH_MINUTES: u32 = 10;

impl Job {
    /// Its cadence: cron, six fields, UTC.
    pub fn schedule(self, config: &Config) -> &str {
        let jobs = &config.jobs;
        match self {
            Job::SegmentCleanup => &jobs.segment_cleanup,
            Job::OrphanReaper => &jobs.orphan_reaper,
            Job::Reconcile => &jobs.reconcile,
            Job::WorkdirSweep => &jobs.workdir_sweep,
            Job::QuotaAudit => &jobs.quota_audit,
            Job::StorageProbe => &jobs.storage_probe,
        }
    }

    fn cron(self, config: &Config) -> Result<Cron> {
        Cron::from_str(self.schedule(config))
            .map_err(|error| Error::internal("reading a job's schedule", error))
    }

    /// The moment the newest tick was meant for.
    fn tick_before(self, config: &Config, now: Timestamp) -> Result<Timestamp> {
        let found = self.cron(config)?.find_previous_occurrence(&civil(now), true);
        found.map(moment).map_err(|error| Error::internal("looking for a job's last tick", error))
    }

    /// The moment of the next tick after `now`.
    fn tick_after(self, config: &Config, now: Timestamp) -> Result<Timestamp> {
        let found = self.cron(config)?.find_next_occurrence(&civil(now), false);
        // croner leaves the fraction of the second that it was asked from
        found
            .map(|time| moment(time.with_nanosecond(0).unwrap_or(time)))
            .map_err(|error| Error::internal("looking for a job's next tick", error))
    }

    /// The time between the next two ticks.
    pub fn period(self, config: &Config, now: Timestamp) -> Result<Duration> {
        let next = self.tick_after(config, now)?;
        Ok(self.tick_after(config, next)?.since(next))
    }
}

/// Whole seconds: a tick is named by the second it was meant for, and the parser carries fractions along.
fn civil(time: Timestamp) -> DateTime<Utc> {
    DateTime::<Utc>::from_timestamp(time.as_micros().div_euclid(1_000_000), 0).unwrap_or_default()
}

fn moment(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(time.timestamp_micros())
}

/// Runs the tick that is due now, unless another replica has it; `None` then.
///
/// # Errors
/// Those of claiming and recording; a pass that fails is a run whose outcome is its code.
pub async fn run_tick(deps: &Deps, job: Job) -> Result<Option<Run>> {
    let now = deps.clock.now();
    let meant = job.tick_before(&deps.config, now)?;
    let conn = deps.db.conn();
    let claimed = if job == Job::StorageProbe {
        let tick = format!("every:{}", deps.replica);
        maintenance::begin_again(conn, job.as_str(), tick, now).await?
    } else {
        claim(deps, job, meant, now).await?
    };
    let Some(run) = claimed else {
        if job == Job::OrphanReaper {
            walk_of_our_own(deps).await;
        }
        return Ok(None);
    };
    let thorough = civil(meant).minute().is_multiple_of(THOROUGH_MINUTES) || deps.walks.is_due();
    let run = execute(deps, job, run, thorough, false).await?;
    if job == Job::StorageProbe {
        relieve(deps, meant).await?;
    }
    Ok(Some(run))
}

/// Another replica has the tick, perhaps each time; what this process alone knows to be looked for it looks for itself.
/// Two walks beside each other do no harm.
async fn walk_of_our_own(deps: &Deps) {
    if !deps.walks.is_due() {
        return;
    }
    let walk = tokio::time::timeout(LONGEST_RUN, reap::clip_store(deps, false));
    if let Some(Ok(Err(error))) = deps.stop.run_until_cancelled(walk).await {
        tracing::warn!(error = error.chain(), "the clip store was not walked through");
    }
}

/// A critically full disk does not wait for the next cleanup: one of the replicas that see it begins at once.
async fn relieve(deps: &Deps, seen: Timestamp) -> Result<()> {
    let space = deps.stores.buffer.last().and_then(|probed| probed.space);
    if space.is_none_or(|space| space.watermark(&deps.config) != Watermark::Critical) {
        return Ok(());
    }
    let (job, tick) = (Job::SegmentCleanup, format!("critical {}", seen.to_rfc3339()));
    let now = deps.clock.now();
    let run = maintenance::claim(deps.db.conn(), job.as_str(), tick, now).await?;
    match run {
        Some(run) => execute(deps, job, run, false, false).await.map(drop),
        None => Ok(()),
    }
}

/// Claims a tick. One that is taken may be so by a run under a clock that has been set back since: its moment comes
/// again then, and is claimed anew, once.
async fn claim(
    deps: &Deps,
    job: Job,
    meant: Timestamp,
    now: Timestamp,
) -> Result<Option<maintenance::Model>> {
    let (conn, tick) = (deps.db.conn(), meant.to_rfc3339());
    if let Some(run) = maintenance::claim(conn, job.as_str(), tick.clone(), now).await? {
        return Ok(Some(run));
    }
    let last = maintenance::find_last(conn, job.as_str()).await?;
    let Some(ahead) = last.filter(|last| last.started_at > now.plus(SET_BACK)) else {
        return Ok(None);
    };
    let tick = format!("{tick} after {}", ahead.started_at.to_rfc3339());
    maintenance::claim(conn, job.as_str(), tick, now).await
}

/// Runs a job at once, whatever its cadence. A dry run touches nothing, and is not recorded: it would look as if the
/// job had run.
///
/// # Errors
/// [`Code::NotFound`] for a name that is no job's.
pub async fn run_now(deps: &Deps, name: &str, dry_run: bool) -> Result<Run> {
    let job = Job::from_name(name).ok_or_else(|| Error::not_found("job"))?;
    let now = deps.clock.now();
    if dry_run {
        let (outcome, counts) = attempt(deps, job, true, true).await;
        let ended_at = Some(deps.clock.now());
        return Ok(Run { started_at: now, ended_at, outcome: Some(outcome), counts });
    }
    let tick = format!("manual:{}", uuid::Uuid::now_v7());
    let claimed = maintenance::claim(deps.db.conn(), job.as_str(), tick, now).await?;
    let run = claimed.ok_or_else(|| Error::internal("running a job", "its name is taken"))?;
    execute(deps, job, run, true, false).await
}

/// Every job with its last run and when it is due.
///
/// # Errors
/// Those of the database.
pub async fn status(deps: &Deps) -> Result<Vec<JobReport>> {
    let now = deps.clock.now();
    let born_at = born_at(deps.db.conn(), now).await?;
    let mut reports = Vec::new();
    for job in Job::ALL.iter().copied() {
        let last = maintenance::find_last(deps.db.conn(), job.as_str()).await?;
        // one that never ran is due since the first tick there was
        let since = last.as_ref().map_or(born_at, |last| last.started_at);
        let due = job.tick_after(&deps.config, since)?;
        reports.push(JobReport {
            name: job.as_str().to_owned(),
            schedule: job.schedule(&deps.config).to_owned(),
            next_run_at: Some(job.tick_after(&deps.config, now)?),
            overdue: now > due.plus(OVERDUE_AFTER),
            last_run: last.map(run_of),
        });
    }
    Ok(reports)
}

/// When the database was made; `now` if it says nothing yet, and from then on.
///
/// # Errors
/// Those of the database.
pub async fn born_at<C: Conn>(db: &C, now: Timestamp) -> Result<Timestamp> {
    let born = setting::load_or_make(db, setting::BORN_AT, now.as_micros().to_string()).await?;
    Ok(born.parse().map_or(now, Timestamp::from_micros))
}

async fn execute(
    deps: &Deps,
    job: Job,
    run: maintenance::Model,
    thorough: bool,
    dry_run: bool,
) -> Result<Run> {
    let began = tokio::time::Instant::now();
    let (outcome, counts) = attempt(deps, job, thorough, dry_run).await;
    metrics::counter!("livekit_replay_job_runs_total", "job" => job.as_str(), "outcome" => outcome.clone())
        .increment(1);
    metrics::histogram!("livekit_replay_job_seconds", "job" => job.as_str())
        .record(began.elapsed().as_secs_f64());
    let counts = Value::Object(counts);
    let ended =
        maintenance::finish(deps.db.conn(), run, outcome, &counts, deps.clock.now()).await?;
    Ok(run_of(ended))
}

/// One pass: its outcome (`ok`, or the code of what went wrong) and counts.
async fn attempt(
    deps: &Deps,
    job: Job,
    thorough: bool,
    dry_run: bool,
) -> (String, Map<String, Value>) {
    let pass = tokio::time::timeout(LONGEST_RUN, pass(deps, job, thorough, dry_run));
    match deps.stop.run_until_cancelled(pass).await {
        None => (Code::Draining.as_str().to_owned(), Map::new()),
        Some(Err(_)) => ("timed_out".to_owned(), Map::new()),
        Some(Ok(Ok(Value::Object(counts)))) => ("ok".to_owned(), counts),
        Some(Ok(Ok(_))) => ("ok".to_owned(), Map::new()),
        Some(Ok(Err(error))) => {
            tracing::warn!(job = job.as_str(), error = %error.chain(), "job.failed");
            (error.code().as_str().to_owned(), Map::new())
        }
    }
}

async fn pass(deps: &Deps, job: Job, thorough: bool, dry_run: bool) -> Result<Value> {
    let counts = match job {
        Job::SegmentCleanup => {
            let period = job.period(&deps.config, deps.clock.now())?;
            serde_json::to_value(cleanup::run(deps, period, dry_run).await?)
        }
        Job::OrphanReaper => serde_json::to_value(reap::run(deps, thorough, dry_run).await?),
        Job::Reconcile if dry_run => serde_json::to_value(reconcile::preview(deps).await?),
        Job::Reconcile => serde_json::to_value(reconcile::run(deps).await?),
        Job::WorkdirSweep => serde_json::to_value(sweep::run(deps, dry_run).await?),
        Job::QuotaAudit => serde_json::to_value(audit::run(deps, dry_run).await?),
        Job::StorageProbe => serde_json::to_value(probe::run(deps).await),
    };
    counts.map_err(|error| Error::internal("writing a job's counts", error))
}

fn run_of(row: maintenance::Model) -> Run {
    let counts = match serde_json::from_str(&row.counts) {
        Ok(Value::Object(counts)) => counts,
        _ => Map::new(),
    };
    Run { started_at: row.started_at, ended_at: row.ended_at, outcome: row.outcome, counts }
}

/// The jobs as the administrator's door has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jobs;

#[async_trait::async_trait]
impl Maintenance for Jobs {
    async fn list(&self, deps: &Deps) -> Result<Vec<JobReport>> {
        status(deps).await
    }

    async fn run(&self, deps: &Deps, job: &str, dry_run: bool) -> Result<Run> {
        run_now(deps, job, dry_run).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_replica_finds_the_moment_that_was_meant() {
        let cron = Cron::from_str("30 * * * * *").expect("valid");
        for late in ["10:00:30.000Z", "10:00:30.700Z", "10:00:58.000Z"] {
            let now = Timestamp::parse_rfc3339(&format!("2026-11-20T{late}")).expect("a time");
            let meant = cron.find_previous_occurrence(&civil(now), true).map(moment).expect("one");
            assert_eq!(meant.to_rfc3339(), "2026-11-20T10:00:30.000Z", "{late}");
        }
    }
}
