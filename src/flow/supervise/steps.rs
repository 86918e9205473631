//! What supervision planned, done.

use super::Case;
use crate::{
    domain::{
        id::EgressId,
        lifecycle::{EndReason, SessionStatus},
        share,
        supervision::Step,
        time::Timestamp,
    },
    error::Result,
    flow::{Deps, egress_fact, epoch as epoch_flow, index, outbox, place, probe, stores::Which},
    livekit::Stopped,
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        session,
    },
};

/// Does one thing.
pub(super) async fn carry_out(
    deps: &Deps,
    Case { session, epochs }: &Case,
    step: &Step,
    found: Option<&share::Share>,
) -> Result<()> {
    let row = |number: i32| epochs.iter().find(|row| row.number == number);
    match step {
        Step::LookAtRoom => Ok(()),
        Step::Adopt(number) => match row(*number) {
            Some(row) => epoch_flow::adopt(deps, row).await,
            None => Ok(()),
        },
        Step::StopEgress(number) => match row(*number) {
            Some(row) => stop_egress(deps, row).await,
            None => Ok(()),
        },
        Step::EndEpoch { number, outcome } => match row(*number) {
            Some(row) => {
                egress_fact::index_quietly(deps, row).await;
                epoch_flow::end(deps, row, outcome, None).await?;
                deps.wake.jobs.notify_waiters();
                Ok(())
            }
            None => Ok(()),
        },
        Step::StartEpoch => match found {
            // one that replaces another waits for the store: no attempt is spent on a disk without room
            Some(_)
                if session.restart_attempts > 0
                    && !probe::is_writable(deps, Which::Buffer).await =>
            {
                Ok(())
            }
            Some(found) => epoch_flow::start_next(deps, session, found).await,
            None => Ok(()),
        },
        Step::ShareLost => mark_share(deps, session, Some(deps.clock.now())).await,
        Step::ShareBack => mark_share(deps, session, None).await,
        Step::Activate => set_status(deps, session, SessionStatus::Active).await,
        Step::Keep => match found {
            Some(found) => keep(deps, session, found).await,
            None => Ok(()),
        },
        Step::Settle => settle(deps, session).await,
        Step::Degrade => set_status(deps, session, SessionStatus::Degraded).await,
        Step::End(reason) => end(deps, session, *reason).await,
        Step::Finish => {
            index::index_session(deps, &session.id).await?;
            place::finish(deps, session).await.map(drop)
        }
    }
}

/// Tells an epoch's egress to stop. The first time is remembered: flushing is counted from there. A dead egress answers
/// nothing until a deadline, in which others have to be looked after: the answer is awaited in a task, and the stop is
/// repeated until the flush time is over.
async fn stop_egress(deps: &Deps, row: &epoch::Model) -> Result<()> {
    let Some(egress) = &row.egress_id else { return Ok(()) };
    if row.stop_sent_at.is_none() {
        let change = epoch::ActiveModel {
            status: Set(EpochStatus::Ending),
            stop_sent_at: Set(Some(deps.clock.now())),
            ..Default::default()
        };
        let open = [EpochStatus::Starting, EpochStatus::Active];
        epoch::update_if(deps.db.conn(), &row.session_id, row.number, &open, change).await?;
    }
    let (own, row, egress) = (deps.clone(), row.clone(), egress.clone());
    deps.tasks.spawn(async move {
        if let Err(error) = ask_to_stop(&own, &row, &egress).await {
            tracing::warn!(egress.id = %egress, error = ?error, "could not follow a stop");
        }
    });
    Ok(())
}

async fn ask_to_stop(deps: &Deps, row: &epoch::Model, egress: &EgressId) -> Result<()> {
    match deps.livekit.stop_egress(egress).await {
        Ok(Stopped::Ending) => Ok(()),
        Ok(Stopped::AlreadyOver) => {
            egress_fact::index_quietly(deps, row).await;
            epoch_flow::end(deps, row, "stopped", None).await?;
            deps.wake.supervisor.notify_one();
            deps.wake.jobs.notify_waiters();
            Ok(())
        }
        Err(error) => {
            tracing::debug!(egress.id = %egress, error = ?error, "stop was not answered");
            Ok(())
        }
    }
}

async fn mark_share(
    deps: &Deps,
    session: &session::Model,
    lost_at: Option<Timestamp>,
) -> Result<()> {
    let change = session::ActiveModel {
        share_lost_at: Set(lost_at),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    session::update_if(deps.db.conn(), &session.id, SessionStatus::HOLDING, change).await.map(drop)
}

async fn set_status(deps: &Deps, session: &session::Model, status: SessionStatus) -> Result<()> {
    let change = session::ActiveModel {
        status: Set(status),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    let tx = deps.db.begin().await?;
    // locked before it is read: which change this is depends on how the row really was
    let Some(before) = session::lock(&tx, &session.id).await? else {
        return store::rollback(tx).await;
    };
    // somebody changed it since this was planned: the next pass plans anew
    if (before.status, before.current_epoch) != (session.status, session.current_epoch) {
        return store::rollback(tx).await;
    }
    let changed = session::update_if(&tx, &session.id, status.follows(), change).await?;
    if changed {
        let now = deps.clock.now();
        outbox::session_changed(&tx, &session.id, before.status, status, now).await?;
    }
    outbox::commit(deps, tx).await?;
    if changed {
        tracing::info!(session.id = %session.id, status = %status, "session status changed");
    }
    Ok(())
}

/// Replacements that failed before are forgotten, unless another has begun since.
async fn settle(deps: &Deps, session: &session::Model) -> Result<()> {
    let change = session::ActiveModel {
        restart_attempts: Set(0),
        restart_at: Set(None),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    change_as_planned(deps, session, change).await
}

/// What is recorded is what is shared: the track that could not be recorded is not waited for any more.
async fn keep(deps: &Deps, session: &session::Model, found: &share::Share) -> Result<()> {
    let change = session::ActiveModel {
        identity: Set(found.identity.clone()),
        video_track_id: Set(Some(found.video.sid.clone())),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    change_as_planned(deps, session, change).await
}

/// Changes a session that is recorded as it was when this was planned.
async fn change_as_planned(
    deps: &Deps,
    session: &session::Model,
    change: session::ActiveModel,
) -> Result<()> {
    let tx = deps.db.begin().await?;
    let locked = session::lock(&tx, &session.id).await?;
    if locked.is_none_or(|now| now.current_epoch != session.current_epoch) {
        return store::rollback(tx).await;
    }
    session::update_if(&tx, &session.id, SessionStatus::HOLDING, change).await?;
    store::commit(tx).await
}

/// A session that ends by itself ends where its share was lost, or where its media end: LiveKit may have said that the
/// share is gone, and recorded on.
async fn end(deps: &Deps, session: &session::Model, reason: EndReason) -> Result<()> {
    let now = deps.clock.now();
    let lost_at = session.share_lost_at.unwrap_or(now);
    let ended_at = session.media_ends_at.map_or(lost_at, |end| end.max(lost_at)).min(now);
    place::end(deps, session, reason, ended_at).await.map(drop)
}
