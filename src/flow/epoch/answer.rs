//! LiveKit's answer to a start: heard and written down, found in its list when it was not heard, or concluded from what
//! the egress brings.

use super::{Failed, OPEN, Told};
use crate::{
    domain::{time::Timestamp, timeline},
    error::{Code, Error, Result},
    flow::{Deps, idempotency, outbox},
    livekit::EgressFact,
    store::{self, NotSet, Set, epoch, session},
};

/// Writes the answer into the row, unless the session ended meanwhile: then the egress is stopped at once.
pub(super) async fn keep(
    deps: &Deps,
    row: &epoch::Model,
    fact: &EgressFact,
    (sent_at, answered_at): (Timestamp, Timestamp),
    told: Option<Told>,
) -> std::result::Result<(), Failed> {
    let offset = fact.requested_at.map(|host| timeline::clock_offset(sent_at, answered_at, host));
    let change = epoch::ActiveModel {
        egress_id: Set(Some(fact.id.clone())),
        sent_at: Set(sent_at),
        answered_at: Set(Some(answered_at)),
        host_started_at: Set(fact.requested_at),
        clock_offset_us: Set(offset),
        ..Default::default()
    };
    let kept = keep_in_row(deps, row, change, told).await;
    let error = match kept {
        Ok(true) => return Ok(()),
        // the database is away: others may hear of it by then
        Err(error) if replaces(row) => return Err(Failed::Perhaps(error)),
        Err(error) => error,
        Ok(false) => {
            let detail = "The session was ended while it was being started.";
            Error::new(Code::SessionNotActive, detail)
        }
    };
    // Best effort: if this stop is lost, the reconcile pass finds the egress under our path.
    if let Err(error) = deps.livekit.stop_egress(&fact.id).await {
        tracing::warn!(egress.id = %fact.id, error = ?error, "could not stop an unwanted egress");
    }
    // what a replacement has recorded by now belongs to the session that ended: its row is over when that has come
    Err(if replaces(row) { Failed::Perhaps(error) } else { Failed::Surely(error) })
}

/// Whether the epoch was still open and its session still holds its place.
async fn keep_in_row(
    deps: &Deps,
    row: &epoch::Model,
    mut change: epoch::ActiveModel,
    told: Option<Told>,
) -> Result<bool> {
    let tx = deps.db.begin().await?;
    // the session first: whoever indexes its first media waits here, or came before
    let locked = session::lock(&tx, &row.session_id).await?;
    let before = epoch::find(&tx, &row.session_id, row.number).await?;
    if before.as_ref().is_some_and(|before| before.zero_at.is_some()) {
        // media came before the answer: what they were placed by stays as it is
        change.clock_offset_us = NotSet;
    }
    let kept = epoch::update_if(&tx, &row.session_id, row.number, OPEN, change).await?;
    let held = locked.filter(|session| kept && session.status.holds_place());
    if let Some(session) = &held {
        // who waits for the answer may hear it after others have concluded it
        if before.is_some_and(|before| before.answered_at.is_none()) {
            outbox::epoch_accepted(&tx, session, row.number, deps.clock.now()).await?;
        }
        if let Some((key, kept)) = told {
            idempotency::keep_in(&tx, &key, kept).await?;
        }
    }
    outbox::commit(deps, tx).await?;
    Ok(held.is_some())
}

/// Takes an epoch whose answer nobody heard for accepted: its egress is known and brings media.
pub async fn adopt(deps: &Deps, row: &epoch::Model) -> Result<()> {
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let Some(session) = session::lock(&tx, &row.session_id).await? else {
        return store::rollback(tx).await;
    };
    // the answer may have come since
    let before = epoch::find(&tx, &row.session_id, row.number).await?;
    let unheard = before.is_some_and(|before| before.answered_at.is_none());
    let change = epoch::ActiveModel { answered_at: Set(Some(now)), ..Default::default() };
    if !unheard || !epoch::update_if(&tx, &row.session_id, row.number, OPEN, change).await? {
        return store::rollback(tx).await;
    }
    outbox::epoch_accepted(&tx, &session, row.number, now).await?;
    outbox::commit(deps, tx).await?;
    tracing::info!(session.id = %row.session_id, epoch = row.number, "an epoch was adopted");
    Ok(())
}

/// What LiveKit started of a replacement although it did not say so in time. Of a session's first epoch that is not asked:
/// whoever started it is told that it failed, and must not be recorded then.
pub(super) async fn find_started(
    deps: &Deps,
    session: &session::Model,
    row: &epoch::Model,
    error: Error,
) -> std::result::Result<EgressFact, Failed> {
    if error.code() != Code::EgressStartTimeout || !replaces(row) {
        return Err(Failed::Surely(error));
    }
    let Ok(listed) = deps.livekit.list_active_egress(Some(&session.room_name)).await else {
        return Err(Failed::Perhaps(error));
    };
    let ours = |fact: &EgressFact| {
        let path = fact.directory.as_deref().and_then(|directory| deps.own_path(directory));
        path == Some(row.path.as_str()) && !fact.state.is_over()
    };
    listed.into_iter().find(ours).ok_or(Failed::Surely(error))
}

/// Whether its session's user was told long ago that he is recorded.
fn replaces(row: &epoch::Model) -> bool {
    row.number > 1
}

/// Lets an epoch that may be recorded wait for a sign of that no longer than one that records may be silent.
pub(super) async fn await_signs(deps: &Deps, row: &epoch::Model) -> Result<()> {
    let deadline = deps.clock.now().plus(deps.config.buffer.no_segment);
    let change = epoch::ActiveModel { deadline_at: Set(deadline), ..Default::default() };
    epoch::update_if(deps.db.conn(), &row.session_id, row.number, OPEN, change).await.map(drop)
}
