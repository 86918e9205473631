//! Stop a buffer, or throw it away. The owner always may, whatever rights are left; managers of the community too.

use super::{
    Deps,
    audit_log::{Line, Signed},
    authorize, place,
};
use crate::{
    access::{Caller, Permission},
    domain::{
        audit::Action,
        id::SessionId,
        lifecycle::{EndReason, SessionStatus},
    },
    error::{Code, Error, Result},
    store::{self, Set, session},
};

/// The session, if the caller is its owner or a manager; else it does not exist for him.
pub async fn load_own_or_managed(
    deps: &Deps,
    caller: &Caller,
    id: &SessionId,
) -> Result<session::Model> {
    let session = session::load(deps.db.conn(), id).await?;
    if session.user_id == caller.user_id || manages(deps, caller, &session).await? {
        return Ok(session);
    }
    Err(Error::not_found("session"))
}

async fn manages(deps: &Deps, caller: &Caller, session: &session::Model) -> Result<bool> {
    authorize::allowed(deps, caller, Permission::ManageReplayLimits, session.community_id.as_ref())
        .await
}

/// Stops a session; its media stays capturable until the answer's `capturable_until`.
pub async fn stop(deps: &Deps, caller: &Caller, id: &SessionId) -> Result<session::Model> {
    let session = load_own_or_managed(deps, caller, id).await?;
    end_by(deps, &session, caller).await
}

/// Stops the caller's own session.
pub async fn stop_own(deps: &Deps, caller: &Caller) -> Result<session::Model> {
    let session = session::find_holding(deps.db.conn(), &caller.user_id)
        .await?
        .ok_or_else(|| Error::new(Code::SessionNotActive, "You have no running replay buffer."))?;
    end_by(deps, &session, caller).await
}

async fn end_by(deps: &Deps, session: &session::Model, caller: &Caller) -> Result<session::Model> {
    let reason = if session.user_id == caller.user_id {
        EndReason::StoppedByUser
    } else {
        EndReason::StoppedByManager
    };
    let told = told(caller, session, Action::SessionStop, reason);
    if !place::end_told(deps, session, reason, deps.clock.now(), told).await? {
        return Err(Error::new(Code::SessionNotActive, "This replay buffer is not running."));
    }
    session::load(deps.db.conn(), &session.id).await
}

/// The line for the audit log, unless the session is the caller's own.
fn told(
    caller: &Caller,
    session: &session::Model,
    action: Action,
    reason: EndReason,
) -> Option<Signed> {
    let line = Line::new(action)
        .session(session)
        .before(serde_json::json!({ "status": session.status, "discard": session.discard }))
        .after(serde_json::json!({ "endReason": reason }));
    (session.user_id != caller.user_id).then(|| Signed::new(caller, line))
}

/// Stops if it runs, and lets the buffer go as soon as accepted captures have their bytes.
pub async fn discard(deps: &Deps, caller: &Caller, id: &SessionId) -> Result<session::Model> {
    let session = load_own_or_managed(deps, caller, id).await?;
    let now = deps.clock.now();
    let line = || told(caller, &session, Action::SessionDiscard, EndReason::Discarded);
    let ended = place::end_told(deps, &session, EndReason::Discarded, now, line()).await?;
    if !ended && !session.discard {
        let until = session.capturable_until.map_or(now, |until| until.min(now));
        let change = session::ActiveModel {
            discard: Set(true),
            link_generation: Set(session.link_generation.saturating_add(1)),
            capturable_until: Set(Some(until)),
            updated_at: Set(now),
            ..Default::default()
        };
        let over = [SessionStatus::Stopping, SessionStatus::Stopped, SessionStatus::Failed];
        let tx = deps.db.begin().await?;
        let changed = session::update_if(&tx, &session.id, &over, change).await?;
        if let Some(told) = line().filter(|_| changed) {
            told.write(&tx, now).await?;
        }
        store::commit(tx).await?;
    }
    deps.filmstrips.forget(id);
    session::load(deps.db.conn(), &session.id).await
}

/// Stops these sessions; says how many. Each has its line in the audit log.
pub async fn stop_all(deps: &Deps, caller: &Caller, sessions: &[session::Model]) -> Result<u64> {
    let mut stopped = 0;
    for session in sessions {
        let reason = EndReason::StoppedByManager;
        let line = Line::new(Action::SessionStop)
            .session(session)
            .before(serde_json::json!({ "status": session.status }))
            .after(serde_json::json!({ "endReason": reason }));
        let told = Some(Signed::new(caller, line));
        if place::end_told(deps, session, reason, deps.clock.now(), told).await? {
            stopped += 1;
        }
    }
    Ok(stopped)
}
