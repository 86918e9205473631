//! Compare sessions with LiveKit, in both directions: egresses of ours that nobody wants are stopped, epochs whose
//! egress is gone end, shares that are gone end their sessions, shares nobody told us of start. Takes no input, may run at any time, twice is once.

use std::collections::HashSet;

use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::{
    Deps, auto_start,
    egress_fact::{self, Applied, Source},
    epoch as epoch_flow, supervise,
};
use crate::{
    domain::{
        id::{EgressId, SessionId},
        lifecycle::SessionStatus,
    },
    error::{Code, Result},
    livekit::{EgressFact, EgressState},
    store::{epoch, session},
};

/// Egresses looked at side by side: LiveKit lists what ran on a host that died for ever, and every word to one of those
/// takes until its deadline.
const AT_ONCE: usize = 16;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Egresses that LiveKit calls active, of all apps.
    pub egresses_seen: u64,
    /// Egresses of ours without a session, told to stop.
    pub orphans_stopped: u64,
    /// Epochs whose egress LiveKit no longer knows or calls over.
    pub epochs_ended: u64,
    /// Sessions whose share was looked at.
    pub sessions_examined: u64,
    /// Shares that should have started a buffer by themselves when they were published, and did now.
    pub auto_started: u64,
}

/// One pass. An epoch or session that cannot be looked at keeps none of the others from being so.
///
/// # Errors
/// At once when LiveKit or the database is away; else the first of those met, once everything was looked at.
pub async fn run(deps: &Deps) -> Result<Counts> {
    let asked_at = deps.clock.now();
    let facts = deps.livekit.list_active_egress(None).await?;
    let mut counts =
        Counts { egresses_seen: u64::try_from(facts.len()).unwrap_or(0), ..Counts::default() };
    let work: Vec<_> = facts.iter().map(|fact| apply(deps, fact)).collect();
    let applied: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
    let stopped = applied.iter().filter(|applied| **applied == Some(Applied::StoppedOrphan));
    counts.orphans_stopped = u64::try_from(stopped.count()).unwrap_or(u64::MAX);
    let alive: HashSet<&EgressId> = facts.iter().map(|fact| &fact.id).collect();
    let mut first = Ok(());
    for row in epoch::list_open(deps.db.conn()).await? {
        // younger than the list: not being in it says nothing
        let answered = row.answered_at.is_some_and(|at| at < asked_at);
        if let Some(egress) = row.egress_id.clone()
            && answered
            && !alive.contains(&egress)
        {
            let ended = end_if_over(deps, &row, &egress).await;
            let ended = pass_over(ended, &row.session_id, &mut first)?;
            counts.epochs_ended += u64::from(ended == Some(true));
        }
    }
    for session in session::list_in(deps.db.conn(), SessionStatus::HOLDING).await? {
        let looked = supervise::look_at(deps, &session.id).await;
        let looked = pass_over(looked, &session.id, &mut first)?;
        counts.sessions_examined += u64::from(looked.is_some());
    }
    counts.auto_started = auto_start::catch_up(deps).await?;
    first.map(|()| counts)
}

/// What goes wrong with one session is kept for the end of the pass, unless it would go wrong with every other.
fn pass_over<T>(done: Result<T>, session: &SessionId, first: &mut Result<()>) -> Result<Option<T>> {
    let error = match done {
        Ok(value) => return Ok(Some(value)),
        Err(error) if matches!(error.code(), Code::LivekitUnreachable | Code::Overloaded) => {
            return Err(error);
        }
        Err(error) => error,
    };
    tracing::warn!(session.id = %session, error = %error.chain(), "could not be reconciled");
    if first.is_ok() {
        *first = Err(error);
    }
    Ok(None)
}

async fn apply(deps: &Deps, fact: &EgressFact) -> Option<Applied> {
    let applied = egress_fact::apply(deps, fact, Source::Asked).await;
    applied
        .inspect_err(
            |error| tracing::warn!(egress.id = %fact.id, error = ?error, "reconciling failed"),
        )
        .ok()
}

/// What a pass would count, as far as it can be known without touching anything.
pub async fn preview(deps: &Deps) -> Result<Counts> {
    let asked_at = deps.clock.now();
    let facts = deps.livekit.list_active_egress(None).await?;
    let mut counts =
        Counts { egresses_seen: u64::try_from(facts.len()).unwrap_or(0), ..Counts::default() };
    for fact in &facts {
        let ours = fact.directory.as_deref().and_then(|directory| deps.own_path(directory));
        let Some(path) = ours else { continue };
        if fact.state == EgressState::Ending || fact.state.is_over() {
            continue;
        }
        let row = epoch::find_by_path(deps.db.conn(), path).await?;
        if row.is_none_or(|row| row.status == epoch::EpochStatus::Ended) {
            counts.orphans_stopped += 1;
        }
    }
    let alive: HashSet<&EgressId> = facts.iter().map(|fact| &fact.id).collect();
    for row in epoch::list_open(deps.db.conn()).await? {
        let answered = row.answered_at.is_some_and(|at| at < asked_at);
        let listed = row.egress_id.as_ref().is_none_or(|egress| alive.contains(egress));
        counts.epochs_ended += u64::from(answered && !listed);
    }
    let holding = session::list_in(deps.db.conn(), SessionStatus::HOLDING).await?;
    counts.sessions_examined = u64::try_from(holding.len()).unwrap_or(0);
    Ok(counts)
}

async fn end_if_over(deps: &Deps, row: &epoch::Model, egress: &EgressId) -> Result<bool> {
    match deps.livekit.find_egress(egress).await? {
        Some(fact) if fact.state.is_over() => {
            Ok(egress_fact::end(deps, row, &fact).await? == Applied::Changed)
        }
        Some(_) => Ok(false),
        None => {
            egress_fact::index_quietly(deps, row).await;
            epoch_flow::end(deps, row, "lost", None).await
        }
    }
}
