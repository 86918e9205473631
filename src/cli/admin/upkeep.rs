//! Questions about work: durable jobs, scheduled upkeep, the accounts it keeps right.

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::ask::{Ask, DryRun, Json, Show, change, get, maintenance};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Jobs {
    /// Work that waits, runs or failed
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Try a failed job again
    Retry {
        /// The job's id
        id: String,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Maintenance {
    /// Scheduled jobs with their last run
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Run one now
    Run {
        /// Its name: segment-cleanup, orphan-reaper, reconcile, …
        job: String,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Quota {
    /// A user's quota and what is used of it
    Get {
        /// The user's id
        user: String,
        #[command(flatten)]
        json: Json,
    },
    /// Change a user's quota
    Set {
        /// The user's id
        user: String,
        /// Bytes
        bytes: u64,
        #[command(flatten)]
        json: Json,
    },
    /// Compare the accounts with the clips and put them right
    Verify {
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

const JOB_COLUMNS: &[&str] =
    &["id", "kind", "state", "attempts", "clipId", "createdAt", "leaseUntil", "lastError"];

const MAINTENANCE_COLUMNS: &[&str] = &["name", "schedule", "lastRun", "nextRunAt", "overdue"];

pub(super) fn ask_jobs(command: Jobs) -> Ask {
    match command {
        Jobs::List { json } => get(&["admin", "jobs"], Show::Table("jobs", JOB_COLUMNS), json),
        Jobs::Retry { id, json } => {
            change(Method::POST, &["admin", "jobs", &id, "retry"], None, json)
        }
    }
}

pub(super) fn ask_maintenance(command: Maintenance) -> Ask {
    match command {
        Maintenance::List { json } => {
            get(&["admin", "maintenance"], Show::Table("jobs", MAINTENANCE_COLUMNS), json)
        }
        Maintenance::Run { job, dry_run, json } => maintenance(&job, dry_run, json),
    }
}

pub(super) fn ask_quota(command: Quota) -> Ask {
    match command {
        Quota::Get { user, json } => get(&["admin", "users", &user, "quota"], Show::Fields, json),
        Quota::Set { user, bytes, json } => {
            let body = json!({ "quotaBytes": bytes });
            change(Method::PATCH, &["admin", "users", &user, "quota"], Some(body), json)
        }
        Quota::Verify { dry_run, json } => maintenance("quota-audit", dry_run, json),
    }
}
