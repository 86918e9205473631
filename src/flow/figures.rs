//! Gauges that are looked up when somebody asks for the figures. Numbers only: no names, no ids.

use super::{
    Deps,
    stores::{self, Which},
};
use crate::{
    domain::lifecycle::SessionStatus,
    error::Result,
    store::{self, delivery::DeliveryState},
};

/// Sets the gauges. What cannot be read is left as it was, and said in `livekit_replay_scrape_errors`.
pub async fn refresh(deps: &Deps) {
    let mut errors = 0_u32;
    for outcome in [rows(deps).await, room(deps).await] {
        if let Err(error) = outcome {
            tracing::warn!(error = error.chain(), "figures could not be read");
            errors += 1;
        }
    }
    metrics::gauge!("livekit_replay_scrape_errors").set(f64::from(errors));
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("livekit_replay_process_resident_bytes").set(as_float(bytes));
    }
}

async fn rows(deps: &Deps) -> Result<()> {
    let counted = store::session::count_by_status(deps.db.conn()).await?;
    for status in SessionStatus::ALL {
        let count =
            counted.iter().find(|(found, _)| found == status).map_or(0, |(_, count)| *count);
        metrics::gauge!("livekit_replay_sessions", "status" => status.as_str())
            .set(as_float(u64::try_from(count).unwrap_or(0)));
    }
    let totals = store::segment::totals(deps.db.conn()).await?;
    metrics::gauge!("livekit_replay_segments")
        .set(as_float(u64::try_from(totals.segments).unwrap_or(0)));
    metrics::gauge!("livekit_replay_segment_bytes")
        .set(as_float(u64::try_from(totals.bytes).unwrap_or(0)));
    let jobs = store::job::count_open(deps.db.conn()).await?;
    metrics::gauge!("livekit_replay_jobs_open").set(as_float(jobs));
    for state in DeliveryState::ALL {
        let count = store::delivery::count_in(deps.db.conn(), *state).await?;
        metrics::gauge!("livekit_replay_event_deliveries", "state" => state.as_str())
            .set(as_float(count));
    }
    Ok(())
}

async fn room(deps: &Deps) -> Result<()> {
    for which in [Which::Buffer, Which::Clips] {
        let space = stores::space(deps, which).await?;
        metrics::gauge!("livekit_replay_store_free_bytes", "store" => which.as_str())
            .set(as_float(space.free));
        metrics::gauge!("livekit_replay_store_total_bytes", "store" => which.as_str())
            .set(as_float(space.total));
    }
    Ok(())
}

/// Linux tells it in kilobytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Prometheus counts in floats; bytes beyond 2^53 lose a digit nobody reads.
#[expect(clippy::cast_precision_loss, reason = "figures are floats")]
fn as_float(value: u64) -> f64 {
    value as f64
}
