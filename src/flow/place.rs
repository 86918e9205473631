//! The ends of a session: every way out of holding a place goes through here, so that place, status and promise
//! change together, once.

use super::{Deps, audit_log::Signed, outbox};
use crate::{
    domain::{
        lifecycle::{EndReason, SessionStatus},
        time::Timestamp,
    },
    error::Result,
    store::{
        Set,
        epoch::{self, EpochStatus},
        session,
    },
};

/// A start that did not work out: its place is free at once.
pub async fn fail_start(deps: &Deps, session: &session::Model) -> Result<bool> {
    let now = deps.clock.now();
    let change = session::ActiveModel {
        status: Set(SessionStatus::Failed),
        end_reason: Set(Some(EndReason::StartFailed)),
        ended_at: Set(Some(now)),
        capturable_until: Set(Some(now)),
        updated_at: Set(now),
        ..Default::default()
    };
    leave(deps, session, change, None).await
}

/// Ends a session that holds a place; false if it did not any more. Its egress is stopped by the supervisor, which
/// is woken: a stop that is lost is repeated, here it would be forgotten.
pub async fn end(
    deps: &Deps,
    session: &session::Model,
    reason: EndReason,
    ended_at: Timestamp,
) -> Result<bool> {
    end_told(deps, session, reason, ended_at, None).await
}

/// [`end`], with a line in the audit log if it is somebody else's doing.
pub async fn end_told(
    deps: &Deps,
    session: &session::Model,
    reason: EndReason,
    ended_at: Timestamp,
    told: Option<Signed>,
) -> Result<bool> {
    let now = deps.clock.now();
    let nothing_to_keep = matches!(reason, EndReason::StartFailed | EndReason::Discarded);
    let capturable_until = if nothing_to_keep { now } else { now.plus(deps.config.buffer.grace) };
    let discarded = reason == EndReason::Discarded;
    let next = session.link_generation.saturating_add(1);
    let change = session::ActiveModel {
        status: Set(SessionStatus::Stopping),
        end_reason: Set(Some(reason)),
        ended_at: Set(Some(ended_at)),
        stop_requested_at: Set(Some(now)),
        capturable_until: Set(Some(capturable_until)),
        discard: Set(discarded),
        // what was handed out for looking opens nothing any more
        link_generation: if discarded { Set(next) } else { Default::default() },
        updated_at: Set(now),
        ..Default::default()
    };
    let ended = leave(deps, session, change, told).await?;
    if ended {
        tracing::info!(session.id = %session.id, reason = %reason, "replay buffer ended");
        metrics::counter!("livekit_replay_sessions_ended_total", "reason" => reason.as_str())
            .increment(1);
    }
    Ok(ended)
}

/// A stopping session whose epochs are all over comes to rest.
pub async fn finish(deps: &Deps, session: &session::Model) -> Result<bool> {
    let now = deps.clock.now();
    let rest = session.end_reason.unwrap_or(EndReason::Orphaned).final_status();
    let change =
        session::ActiveModel { status: Set(rest), updated_at: Set(now), ..Default::default() };
    let finished = session::update_if(deps.db.conn(), &session.id, rest.follows(), change).await?;
    // captures that wait for the tail can be sure now that nothing more comes
    deps.wake.jobs.notify_waiters();
    Ok(finished)
}

async fn leave(
    deps: &Deps,
    session: &session::Model,
    change: session::ActiveModel,
    told: Option<Signed>,
) -> Result<bool> {
    let tx = deps.db.begin().await?;
    let left = session::give_up_place(&tx, session, change).await?;
    if let Some(told) = told.filter(|_| left) {
        told.write(&tx, deps.clock.now()).await?;
    }
    if left {
        outbox::session_ended(&tx, &session.id, deps.clock.now()).await?;
    }
    outbox::commit(deps, tx).await?;
    deps.wake.supervisor.notify_one();
    Ok(left)
}

/// Whether any of a session's epochs may still bring segments.
pub fn may_still_come(epochs: &[epoch::Model]) -> bool {
    epochs.iter().any(|epoch| epoch.status != EpochStatus::Ended)
}
