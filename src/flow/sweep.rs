//! Empties the work directory of what no job owns. Its entries are named after the clip they are for.

use std::time::Duration;

use serde::Serialize;

use super::{
    Deps,
    stores::{self, Which},
};
use crate::{
    error::Result,
    media::files::{Entry, list_entries, remove_plain, remove_tree},
    store::job,
};

/// Younger entries are left alone: their job's row may be about to say that they are wanted.
const YOUNGEST: Duration = Duration::from_secs(60);

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Entries found.
    pub seen: u64,
    /// Entries removed (or, dry, that would be).
    pub removed: u64,
}

/// Removes entries that no queued or running job owns and that are older than a minute.
///
/// # Errors
/// `storage_unavailable` when the clip store does not answer.
pub async fn run(deps: &Deps, dry_run: bool) -> Result<Counts> {
    sweep(deps, Some(YOUNGEST), dry_run).await
}

/// Removes everything: this process is the only one (SQLite under its lock) and nothing of it runs yet.
///
/// # Errors
/// As [`run`].
pub async fn run_at_start(deps: &Deps) -> Result<Counts> {
    sweep(deps, None, false).await
}

async fn sweep(deps: &Deps, youngest: Option<Duration>, dry_run: bool) -> Result<Counts> {
    stores::demand_ours(deps, Which::Clips).await?;
    let directory = deps.work_dir();
    // the directory before the jobs: a job made in between owns nothing that was seen
    let at = directory.clone();
    let entries = stores::work(&deps.stores, Which::Clips, move || list_entries(&at)).await?;
    let owners = match youngest {
        Some(_) => job::list_open_clips(deps.db.conn()).await?,
        None => Vec::new(),
    };
    let now = deps.clock.now().as_micros();
    let old = |entry: &Entry| {
        youngest.is_none_or(|age| {
            now.saturating_sub(entry.changed_us)
                > i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
        })
    };
    let owned = |entry: &Entry| owners.iter().any(|clip| entry.name.starts_with(clip.as_str()));
    let mut counts = Counts { seen: entries.len() as u64, removed: 0 };
    for entry in entries.into_iter().filter(|entry| old(entry) && !owned(entry)) {
        counts.removed += 1;
        if !dry_run {
            let path = directory.join(&entry.name);
            let work = move || match entry.is_directory {
                true => remove_tree(&path),
                false => remove_plain(&path).map(|gone| gone.is_some()),
            };
            stores::work(&deps.stores, Which::Clips, work).await?;
        }
    }
    Ok(counts)
}
