//! Compares every user's account with what his clips really add up to. The difference must be nothing; if it is not,
//! that is said aloud and put right.

use serde::Serialize;

use super::{Deps, outbox};
use crate::{
    error::Result,
    store::{self, quota},
};

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Accounts compared.
    pub accounts: u64,
    /// Accounts that did not agree with their clips.
    pub drifted: u64,
    /// Bytes by which they were wrong, added up without sign.
    pub drift_bytes: u64,
    /// Accounts put right.
    pub corrected: u64,
}

/// Compares all accounts at one moment, and corrects those that were wrong one by one, unless dry.
///
/// # Errors
/// Those of the database.
pub async fn run(deps: &Deps, dry_run: bool) -> Result<Counts> {
    let snapshot = deps.db.begin_snapshot().await?;
    let accounts = quota::audit(&snapshot).await?;
    store::rollback(snapshot).await?;
    let mut counts = Counts::default();
    for account in accounts {
        counts.accounts += 1;
        if account.is_true() {
            continue;
        }
        counts.drifted += 1;
        let used = account.used_bytes.abs_diff(account.true_used);
        let reserved = account.reserved_bytes.abs_diff(account.true_reserved);
        counts.drift_bytes = counts.drift_bytes.saturating_add(used).saturating_add(reserved);
        tracing::error!(
            user.id = %account.user_id, used_bytes = account.used_bytes, true_used = account.true_used,
            reserved_bytes = account.reserved_bytes, true_reserved = account.true_reserved,
            "an account's figures were not those of its clips"
        );
        if !dry_run {
            let tx = deps.db.begin().await?;
            if quota::correct(&tx, &account.user_id).await? {
                counts.corrected += 1;
                let added = account.true_used.saturating_sub(account.used_bytes);
                let now = deps.clock.now();
                outbox::bytes_taken(&tx, deps, &account.user_id, added, now).await?;
            }
            outbox::commit(deps, tx).await?;
        }
    }
    metrics::gauge!("livekit_replay_quota_drift_bytes").set(counts.drift_bytes as f64);
    Ok(counts)
}
