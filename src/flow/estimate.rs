//! What a window would take before it is captured: what is there of it, its gaps, and the bytes a capture reserves.

use super::{
    Deps,
    capture::{self, GapPolicy},
    index,
    material::Material,
    probe,
    stores::Which,
};
use crate::{
    access::Caller,
    domain::{
        id::SessionId,
        selection::Gap,
        time::{Timestamp, Window},
        window::WindowRequest,
    },
    error::Result,
};

/// A window as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// What was meant.
    pub window: Window,
    /// Bytes of the segments that a capture would read now.
    pub bytes: u64,
    /// Bytes that a capture would reserve: also for what is still to come.
    pub reservation_bytes: u64,
    /// How many segments that is.
    pub segments: u64,
    /// Time inside without usable media.
    pub gaps: Vec<Gap>,
    /// What a clip would last now, gaps cut out, microseconds.
    pub duration_us: i64,
}

/// Estimates a capture of the caller's session.
///
/// # Errors
/// `not_found`, `not_owner`, `window_invalid`, `no_segments_in_range`, `no_usable_segments`, `storage_unavailable`.
pub async fn estimate(
    deps: &Deps,
    caller: &Caller,
    id: &SessionId,
    request: &WindowRequest,
    arrived_at: Timestamp,
) -> Result<Estimate> {
    capture::load_own(deps, caller, id).await?;
    probe::demand_readable(deps, Which::Buffer).await?;
    index::index_session(deps, id).await?;
    let material = Material::load(deps.db.conn(), id).await?;
    let resolved = capture::resolve(deps, &material.session, request, arrived_at)?;
    let found = capture::judge(&material, &resolved, GapPolicy::Skip, deps.clock.now())?;
    let reservation_bytes = found.needed_bytes(&material, resolved.window);
    let plan = found.plan.as_ref();
    // a segment may serve two parts
    let mut used: Vec<usize> = plan
        .into_iter()
        .flat_map(|plan| &plan.parts)
        .flat_map(|part| part.segments.iter().copied())
        .collect();
    used.sort_unstable();
    used.dedup();
    let bytes = used.iter().filter_map(|index| material.segments.get(*index));
    Ok(Estimate {
        window: resolved.window,
        bytes: bytes.map(|segment| segment.size_bytes).sum(),
        reservation_bytes,
        segments: u64::try_from(used.len()).unwrap_or(u64::MAX),
        gaps: plan.map(|plan| plan.gaps.clone()).unwrap_or_default(),
        duration_us: plan.map_or(0, |plan| plan.duration_us),
    })
}
