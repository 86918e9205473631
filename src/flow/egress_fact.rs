//! Apply what LiveKit says of an egress: pushed by webhook or fetched by the reconcile pass, one path.
//!
//! Facts come late, twice, out of order, or before our own row knows the egress's id. They are matched by id or by
//! the directory in the echoed request, only ever add what was not known, and an end is believed from a webhook only
//! after LiveKit's own list agrees, where it answers.

use super::{Deps, epoch as epoch_flow, index};
use crate::{
    error::Result,
    livekit::{EgressFact, EgressState},
    store::{
        Set,
        epoch::{self, EpochStatus},
        session,
    },
};

/// Where a fact came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Pushed; may be late, doubled or out of order.
    Webhook,
    /// LiveKit's answer just now.
    Asked,
}

/// What applying a fact did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Another app's, or another instance's.
    Foreign,
    /// Ours, but nobody wants it (any more): told to stop.
    StoppedOrphan,
    /// Nothing new.
    Known,
    /// The row changed.
    Changed,
}

/// Applies one fact.
pub async fn apply(deps: &Deps, fact: &EgressFact, source: Source) -> Result<Applied> {
    let Some(row) = find_epoch(deps, fact).await? else {
        return stop_if_ours(deps, fact).await;
    };
    if row.status == EpochStatus::Ended {
        return if fact.state.is_over() {
            Ok(Applied::Known)
        } else {
            stop_orphan(deps, fact).await
        };
    }
    learn(deps, &row, fact).await?;
    if !fact.state.is_over() {
        let wanted = session::find(deps.db.conn(), &row.session_id)
            .await?
            .is_some_and(|session| !session.status.is_final());
        return if wanted { Ok(Applied::Changed) } else { stop_orphan(deps, fact).await };
    }
    let fact = match confirmed(deps, fact, source).await {
        Some(fact) => fact,
        None => return Ok(Applied::Known),
    };
    end(deps, &row, &fact).await
}

/// The epoch is over: the tail is indexed first, because "ended" promises that nothing more comes.
pub async fn end(deps: &Deps, row: &epoch::Model, fact: &EgressFact) -> Result<Applied> {
    index_quietly(deps, row).await;
    let words = [fact.error.as_str(), fact.details.as_str()];
    let error = words.into_iter().find(|text| !text.is_empty()).map(str::to_owned);
    let ended = epoch_flow::end(deps, row, fact.state.as_str(), error).await?;
    deps.wake.supervisor.notify_one();
    deps.wake.jobs.notify_waiters();
    Ok(if ended { Applied::Changed } else { Applied::Known })
}

/// Indexes what an ending epoch left; a failure is not worth losing the end for, the next pass tries again.
pub async fn index_quietly(deps: &Deps, row: &epoch::Model) {
    if let Err(error) = index::index_session(deps, &row.session_id).await {
        tracing::warn!(session.id = %row.session_id, error = ?error, "could not index an ending epoch");
    }
}

async fn find_epoch(deps: &Deps, fact: &EgressFact) -> Result<Option<epoch::Model>> {
    if let Some(row) = epoch::find_by_egress(deps.db.conn(), &fact.id).await? {
        return Ok(Some(row));
    }
    match fact.directory.as_deref().and_then(|directory| deps.own_path(directory)) {
        Some(path) => epoch::find_by_path(deps.db.conn(), path).await,
        None => Ok(None),
    }
}

/// An egress under our instance's directory without an epoch: a start that was given up, or a forgotten session.
async fn stop_if_ours(deps: &Deps, fact: &EgressFact) -> Result<Applied> {
    let ours = fact.directory.as_deref().is_some_and(|path| deps.own_path(path).is_some());
    if !ours {
        return Ok(Applied::Foreign);
    }
    if fact.state.is_over() {
        return Ok(Applied::Known);
    }
    stop_orphan(deps, fact).await
}

async fn stop_orphan(deps: &Deps, fact: &EgressFact) -> Result<Applied> {
    if fact.state == EgressState::Ending {
        return Ok(Applied::Known);
    }
    deps.livekit.stop_egress(&fact.id).await?;
    tracing::warn!(egress.id = %fact.id, "an egress that no session wants was told to stop");
    metrics::counter!("livekit_replay_orphan_egress_stopped_total").increment(1);
    Ok(Applied::StoppedOrphan)
}

/// Writes what the row did not know yet: the id, its host's clock, the first packet's time, that media flows.
async fn learn(deps: &Deps, row: &epoch::Model, fact: &EgressFact) -> Result<()> {
    let mut change = epoch::ActiveModel::default();
    let mut news = false;
    if row.egress_id.is_none() {
        change.egress_id = Set(Some(fact.id.clone()));
        news = true;
    }
    if row.host_started_at.is_none() && fact.requested_at.is_some() {
        change.host_started_at = Set(fact.requested_at);
        news = true;
    }
    if row.media_started_at.is_none() && fact.media_started_at.is_some() {
        change.media_started_at = Set(fact.media_started_at);
        news = true;
    }
    if row.status == EpochStatus::Starting && fact.state == EgressState::Active {
        change.status = Set(EpochStatus::Active);
        news = true;
    }
    if news {
        let open = [EpochStatus::Starting, EpochStatus::Active, EpochStatus::Ending];
        epoch::update_if(deps.db.conn(), &row.session_id, row.number, &open, change).await?;
    }
    Ok(())
}

/// The fact to believe, or `None` when LiveKit itself says the egress goes on.
async fn confirmed(deps: &Deps, fact: &EgressFact, source: Source) -> Option<EgressFact> {
    if source == Source::Asked {
        return Some(fact.clone());
    }
    match deps.livekit.find_egress(&fact.id).await {
        Ok(Some(now)) if now.state.is_over() => Some(now),
        Ok(Some(_)) => {
            tracing::warn!(egress.id = %fact.id, "a webhook says ended, LiveKit says it goes on");
            None
        }
        // gone from LiveKit's memory, or LiveKit does not answer: the signed word counts
        Ok(None) | Err(_) => Some(fact.clone()),
    }
}
