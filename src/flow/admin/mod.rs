//! What administrators see and change: a community's limits and roles, a user's allowance, all sessions, clips, jobs.
//! An instance admin may all of it; who holds MANAGE_REPLAY_LIMITS in a community, what concerns that community.

mod roles;

use serde_json::{Value, json};

use super::{
    Deps,
    audit_log::{self, Line, Signed},
    authorize,
    maintenance::{Maintenance, Run},
    outbox,
    show::{self, Shown},
};
use crate::{
    access::{Caller, EVERYWHERE, INSTANCE_ADMIN, Permission},
    domain::{
        audit::Action,
        id::{CommunityId, JobId, SessionId, UserId},
        lifecycle::{ClipStatus, SessionStatus},
        names,
    },
    error::{Code, Error, Result},
    store,
};

pub use self::roles::{
    RoleReport, define_role, drop_role, grant_role, remove_member, revoke_role, show_role,
};
pub use crate::store::{
    Page,
    clip::{Filter as ClipFilter, Model as Clip},
    community::{Change as CommunityChange, Model as Community},
    job::{JobState, Model as Job},
    quota::Model as Account,
    session::Model as Session,
};

/// Asks for the right to manage `community`; without one, or for `*`, for an instance admin.
pub async fn require_manager(
    deps: &Deps,
    caller: &Caller,
    community: Option<&CommunityId>,
) -> Result<()> {
    match community {
        Some(community) if community.as_str() != EVERYWHERE => {
            names::check_name("communityId", community.as_str())?;
            let permission = Permission::ManageReplayLimits;
            authorize::require(deps, caller, permission, Some(community)).await
        }
        _ => authorize::require_instance_admin(deps, caller).await,
    }
}

/// A community's settings.
pub async fn show_community(deps: &Deps, caller: &Caller, id: &CommunityId) -> Result<Community> {
    refuse_everywhere(id)?;
    require_manager(deps, caller, Some(id)).await?;
    store::community::load_or_make(deps.db.conn(), id, deps.clock.now()).await
}

/// Changes a community's settings; more places than the ceiling are an instance admin's to give.
pub async fn change_community(
    deps: &Deps,
    caller: &Caller,
    id: &CommunityId,
    change: CommunityChange,
) -> Result<Community> {
    refuse_everywhere(id)?;
    require_manager(deps, caller, Some(id)).await?;
    if let Some(places) = change.max_concurrent {
        if places < 1 {
            let message = "must be at least 1; use enabled: false to refuse new starts";
            return Err(Error::invalid_field("maxConcurrent", message));
        }
        let ceiling = deps.config.limits.community_ceiling;
        if places > ceiling && !authorize::is_instance_admin(deps, caller).await? {
            let detail =
                format!("Only an instance admin may give a community more than {ceiling} places.");
            return Err(Error::new(Code::PermissionDenied, detail)
                .with("permission", INSTANCE_ADMIN)
                .with("communityId", id.as_str())
                .with("ceiling", ceiling));
        }
    }
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    // under its lock: else somebody else's change may come between, and the log tells of a step that nobody made
    let before = store::community::lock(&tx, id, now).await?;
    let row = store::community::update(&tx, id, change.clone(), now).await?;
    let line = Line::new(Action::CommunityChange)
        .community(Some(id))
        .before(settings_of(&before))
        .after(settings_of(&row));
    audit_log::done(&tx, caller, line, now).await?;
    store::commit(tx).await?;
    tracing::info!(
        community.id = %id, by = %caller.user_id, max_concurrent = change.max_concurrent,
        enabled = change.enabled, auto_start = change.auto_start, "community changed"
    );
    Ok(row)
}

/// What of a community's row an administrator sets, as the audit log has it.
fn settings_of(row: &Community) -> Value {
    json!({
        "maxConcurrent": row.max_concurrent, "enabled": row.enabled, "autoStart": row.auto_start,
    })
}

/// A user's account and how many clips are ready.
pub async fn show_account(deps: &Deps, caller: &Caller, user: &UserId) -> Result<(Account, u64)> {
    names::check_name("userId", user.as_str())?;
    authorize::require_instance_admin(deps, caller).await?;
    let account = store::quota::load_or_make(deps.db.conn(), user, deps.clock.now()).await?;
    Ok((account, store::clip::count_ready(deps.db.conn(), user).await?))
}

/// Sets a user's allowance.
pub async fn set_quota(
    deps: &Deps,
    caller: &Caller,
    user: &UserId,
    quota_bytes: i64,
) -> Result<(Account, u64)> {
    names::check_name("userId", user.as_str())?;
    authorize::require_instance_admin(deps, caller).await?;
    if quota_bytes < 0 {
        return Err(Error::invalid_field("quotaBytes", "must not be negative"));
    }
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let before = store::quota::lock(&tx, user, now).await?.quota_bytes;
    let account = store::quota::set_quota(&tx, user, quota_bytes, now).await?;
    let allowed = before.unwrap_or(deps.config.limits.user_quota_bytes);
    outbox::allowance_changed(&tx, &account, allowed, quota_bytes, now).await?;
    let line = Line::new(Action::QuotaSet)
        .user(user)
        .before(json!({ "quotaBytes": before }))
        .after(json!({ "quotaBytes": quota_bytes }));
    audit_log::done(&tx, caller, line, now).await?;
    outbox::commit(deps, tx).await?;
    tracing::info!(user.id = %user, by = %caller.user_id, quota_bytes, "quota changed");
    Ok((account, store::clip::count_ready(deps.db.conn(), user).await?))
}

/// A page of sessions, newest first, with the total.
pub async fn list_sessions(
    deps: &Deps,
    caller: &Caller,
    community: Option<CommunityId>,
    active_only: bool,
    page: Page,
) -> Result<(Vec<Shown>, u64)> {
    require_manager(deps, caller, community.as_ref()).await?;
    let filter =
        store::session::Filter { community_id: community.filter(is_community), active_only };
    let (rows, total) = store::session::list_all(deps.db.conn(), &filter, page).await?;
    let mut reports = Vec::with_capacity(rows.len());
    for session in rows {
        reports.push(show::plain(deps, session, true).await?);
    }
    Ok((reports, total))
}

/// Stops every session that holds a place, or those of one community; says how many.
///
/// # Errors
/// [`crate::error::Code::PermissionDenied`] for who may not manage the community, or without one the instance.
pub async fn stop_all(deps: &Deps, caller: &Caller, community: Option<CommunityId>) -> Result<u64> {
    require_manager(deps, caller, community.as_ref()).await?;
    let community = community.filter(is_community);
    let holding = [SessionStatus::Starting, SessionStatus::Active, SessionStatus::Degraded];
    let mut sessions = store::session::list_in(deps.db.conn(), &holding).await?;
    sessions.retain(|session| community.is_none() || session.community_id == community);
    let line = Line::new(Action::SessionStopAll)
        .community(community.as_ref())
        .after(json!({ "running": sessions.len() }));
    audit_log::announce(deps, caller, line).await?;
    super::stop::stop_all(deps, caller, &sessions).await
}

/// Stops a session for who manages the community that is named, else the session's own.
///
/// # Errors
/// [`Code::PermissionDenied`] also where there is no such session, [`Code::NotFound`] if it is not one of the
/// community's, [`Code::SessionNotActive`].
pub async fn stop_session(
    deps: &Deps,
    caller: &Caller,
    id: &SessionId,
    community: Option<CommunityId>,
) -> Result<Session> {
    let found = store::session::find(deps.db.conn(), id).await?;
    let own = found.as_ref().and_then(|session| session.community_id.as_ref());
    require_manager_of(deps, caller, community.as_ref(), own).await?;
    if found.is_none() {
        return Err(Error::not_found("session"));
    }
    super::stop::stop(deps, caller, id).await
}

/// Asks for the right to manage the community that is named; else the one that a thing belongs to. The right is asked
/// before it is told whether there is such a thing there.
async fn require_manager_of(
    deps: &Deps,
    caller: &Caller,
    named: Option<&CommunityId>,
    own: Option<&CommunityId>,
) -> Result<()> {
    require_manager(deps, caller, named.or(own)).await?;
    match named.filter(|named| is_community(named)) {
        Some(named) if own != Some(named) => Err(Error::not_found("address")),
        _ => Ok(()),
    }
}

/// A page of clips, newest first, with the total.
pub async fn list_clips(
    deps: &Deps,
    caller: &Caller,
    filter: ClipFilter,
    page: Page,
) -> Result<(Vec<Clip>, u64)> {
    require_manager(deps, caller, filter.community_id.as_ref()).await?;
    let filter = ClipFilter { community_id: filter.community_id.filter(is_community), ..filter };
    store::clip::list(deps.db.conn(), &filter, page).await
}

/// A page of jobs, newest first, with the total.
pub async fn list_jobs(
    deps: &Deps,
    caller: &Caller,
    community: Option<CommunityId>,
    state: Option<JobState>,
    page: Page,
) -> Result<(Vec<Job>, u64)> {
    require_manager(deps, caller, community.as_ref()).await?;
    let community = community.filter(is_community);
    store::job::list_of(deps.db.conn(), state, community.as_ref(), page).await
}

/// Tries a failed job again: a clip that failed with it is accepted anew (its segments must still be kept), which
/// makes a new job; else the job goes back into the queue.
///
/// # Errors
/// [`Code::ClipNotReady`] if the job has not failed or is not its clip's newest, and what
/// [`super::library::retry`] fails with.
pub async fn retry_job(
    deps: &Deps,
    caller: &Caller,
    id: &JobId,
    community: Option<CommunityId>,
) -> Result<Job> {
    let db = deps.db.conn();
    let found = store::job::find(db, id).await?;
    let clip = match found.as_ref().and_then(|job| job.clip_id.as_ref()) {
        Some(clip) => store::clip::find(db, clip).await?,
        None => None,
    };
    let own = clip.as_ref().and_then(|clip| clip.community_id.as_ref());
    require_manager_of(deps, caller, community.as_ref(), own).await?;
    let (Some(found), Some(clip)) = (found, clip) else { return Err(Error::not_found("job")) };
    let newest = store::job::find_newest_of_clip(db, &clip.id).await?;
    let is_newest = newest.is_some_and(|newest| newest.id == *id);
    if found.state != JobState::Failed || !is_newest {
        return Err(not_to_be_retried());
    }
    let line = Line::new(Action::JobRetry)
        .clip(&clip)
        .job(id)
        .before(json!({ "clipStatus": clip.status, "attempts": found.attempts }));
    let told = Signed::new(caller, line);
    match clip.status {
        ClipStatus::Failed => drop(super::library::retry_failed(deps, &clip, Some(told)).await?),
        ClipStatus::Processing => {
            let now = deps.clock.now();
            let tx = deps.db.begin().await?;
            if !store::job::requeue(&tx, id, now).await? {
                return Err(not_to_be_retried());
            }
            told.write(&tx, now).await?;
            store::commit(tx).await?;
            deps.wake.jobs.notify_waiters();
        }
        ClipStatus::Ready => return Err(not_to_be_retried()),
    }
    tracing::info!(job.id = %id, clip.id = %clip.id, by = %caller.user_id, "job tried again");
    let newest = store::job::find_newest_of_clip(db, &clip.id).await?;
    newest.ok_or_else(|| Error::not_found("job"))
}

/// Runs a scheduled job now. The line of the audit log is there before the run begins; a dry run has none, as it
/// changes nothing.
///
/// # Errors
/// [`Code::PermissionDenied`] for whoever is no instance admin, [`Code::NotFound`] for a name that is no job's.
pub async fn run_maintenance(
    deps: &Deps,
    caller: &Caller,
    maintenance: &dyn Maintenance,
    job: &str,
    dry_run: bool,
) -> Result<Run> {
    authorize::require_instance_admin(deps, caller).await?;
    if !maintenance.list(deps).await?.iter().any(|known| known.name == job) {
        return Err(Error::not_found("job"));
    }
    if !dry_run {
        let line = Line::new(Action::MaintenanceRun).after(json!({ "job": job }));
        audit_log::announce(deps, caller, line).await?;
    }
    maintenance.run(deps, job, dry_run).await
}

fn not_to_be_retried() -> Error {
    Error::new(Code::ClipNotReady, "Only a clip's newest job can be tried again, once it failed.")
}

fn is_community(id: &CommunityId) -> bool {
    id.as_str() != EVERYWHERE
}

fn refuse_everywhere(id: &CommunityId) -> Result<()> {
    if is_community(id) { Ok(()) } else { Err(Error::not_found("community")) }
}
