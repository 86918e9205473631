//! What a window means for a session as it stands, what of it is there, and what has to stay on disk for it.

use super::GapPolicy;
use crate::{
    domain::{
        lifecycle::{SessionStatus, media_end},
        selection::{self, Coverage, Gap, Plan, Selection},
        time::{Timestamp, Window},
        window::{MediaEnd, Precision, ResolvedWindow, WindowRequest, WindowRules, resolve_window},
    },
    error::{Code, Error, Result},
    flow::{Deps, material::Material},
    store::session,
};

/// Bytes per second that a session is taken to need before any segment of it is known (8 Mbit/s).
const RATE_UNKNOWN: u64 = 1_000_000;

/// The window that a request means for a session as it stands.
pub(in crate::flow) fn resolve(
    deps: &Deps,
    session: &session::Model,
    request: &WindowRequest,
    arrived_at: Timestamp,
) -> Result<ResolvedWindow> {
    resolve_window(request, &rules(deps, session, arrived_at))
}

fn rules(deps: &Deps, session: &session::Model, arrived_at: Timestamp) -> WindowRules {
    let media_end = match session.status {
        status if status.holds_place() => MediaEnd::Live,
        SessionStatus::Stopping => {
            MediaEnd::Stopping { ended_at: session.ended_at.unwrap_or(arrived_at) }
        }
        _ => MediaEnd::Ended(media_end(session.media_ends_at, session.ended_at)),
    };
    WindowRules {
        now: arrived_at,
        session_started_at: session.started_at,
        media_end,
        buffer_minutes: u32::try_from(deps.config.buffer.length.as_secs() / 60).unwrap_or(u32::MAX),
        clip_max_seconds: deps.config.limits.clip_max.as_secs(),
    }
}

/// What of a window is there, and what may still come.
#[derive(Debug)]
pub(in crate::flow) struct Found {
    /// None if nothing is there yet.
    pub plan: Option<Plan>,
    /// Whether more is to come.
    pub coverage: Coverage,
}

impl Found {
    /// Contract 3.5.
    pub(in crate::flow) fn needed_bytes(&self, material: &Material, window: Window) -> u64 {
        let rate = match u64::try_from(material.session.highest_rate) {
            Ok(known) if known > 0 => known,
            _ => RATE_UNKNOWN,
        };
        let (epochs, segments) = (&material.epochs, &material.segments);
        selection::reservation_bytes(window, epochs, segments, self.coverage, rate)
    }
}

/// Refuses a window of which nothing is there and nothing will come, and known gaps if they are not wanted.
pub(in crate::flow) fn judge(
    material: &Material,
    resolved: &ResolvedWindow,
    gap_policy: GapPolicy,
    now: Timestamp,
) -> Result<Found> {
    let over = material.session_over();
    let (epochs, segments) = (&material.epochs, &material.segments);
    let coverage = selection::coverage(resolved.window, epochs, segments, now, over);
    let planned = selection::plan(&select(material, resolved.window, resolved.precision));
    let plan = match (planned, coverage) {
        (Ok(plan), _) => Some(plan),
        (Err(_), Coverage::Waiting { .. }) => None,
        (Err(error), Coverage::Covered) => return Err(error),
    };
    if gap_policy == GapPolicy::Refuse {
        // a hole at the edge of what is known may still be filled
        let known_to = match coverage {
            Coverage::Covered => resolved.window.to,
            Coverage::Waiting { from } => from,
        };
        let gaps = plan.iter().flat_map(|plan| &plan.gaps);
        let gaps: Vec<Gap> = gaps.filter(|gap| gap.to <= known_to).copied().collect();
        if !gaps.is_empty() {
            return Err(has_gaps(&gaps));
        }
    }
    Ok(Found { plan, coverage })
}

/// What selection is asked.
pub(in crate::flow) fn select(
    material: &Material,
    window: Window,
    precision: Precision,
) -> Selection<'_> {
    Selection {
        window,
        precision,
        epochs: &material.epochs,
        segments: &material.segments,
        buffer_starts_at: material.buffer_starts_at(),
    }
}

/// `window_has_gaps`.
pub(in crate::flow) fn has_gaps(gaps: &[Gap]) -> Error {
    let list = serde_json::to_value(gaps).unwrap_or_default();
    Error::new(Code::WindowHasGaps, "Parts of this window were not recorded.").with("gaps", list)
}

/// What must stay on disk: the window, the key frame region in front of it, and one segment more at either end
/// (sound lies up to a segment away from its pictures).
pub(in crate::flow) fn pin_window(
    deps: &Deps,
    plan: Option<&Plan>,
    material: &Material,
    window: Window,
) -> Window {
    let segment = deps.config.buffer.segment;
    let decode_from = plan
        .into_iter()
        .flat_map(|plan| &plan.parts)
        .filter_map(|part| material.rows.get(*part.segments.first()?).map(|row| row.starts_at));
    let from = decode_from.min().map_or(window.from, |from| from.min(window.from));
    Window::new(from.minus(segment), window.to.plus(segment))
}
