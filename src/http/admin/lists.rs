//! All sessions, clips and jobs; the scheduled work.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::InCommunity;
use crate::{
    access::Caller,
    domain::{
        id::{ClipId, CommunityId, JobId, UserId},
        names,
        time::Timestamp,
    },
    error::{Error, Result},
    flow::{
        admin::{self, ClipFilter, Job, JobState, Page},
        authorize, maintenance,
    },
    http::{
        AppState,
        clips::{self, ClipBody},
        error::Answer,
        extract::{Path, Query},
        sessions::SessionBody,
    },
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(list_clips))
        .routes(routes!(list_jobs))
        .routes(routes!(retry_job))
        .routes(routes!(list_maintenance))
        .routes(routes!(run_maintenance))
}

/// What a list is narrowed by.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Narrow {
    /// One community's; without it all, for an instance admin.
    community_id: Option<String>,
    /// Sessions: only those that hold a place.
    active: Option<bool>,
    /// Clips: this one.
    clip_id: Option<String>,
    /// Clips: one owner's.
    user_id: Option<String>,
    /// Jobs: `queued`, `running`, `done` or `failed`.
    state: Option<String>,
    /// 1 to 200, 50 unless told.
    limit: Option<u64>,
    /// How many to pass over.
    offset: Option<u64>,
}

impl Narrow {
    fn page(&self) -> Result<Page> {
        super::page(self.limit, self.offset)
    }

    fn community(&self) -> Option<CommunityId> {
        self.community_id.as_deref().map(CommunityId::new)
    }

    fn user(&self) -> Result<Option<UserId>> {
        let Some(user) = &self.user_id else { return Ok(None) };
        names::check_name("userId", user)?;
        Ok(Some(UserId::new(user.as_str())))
    }

    fn state(&self) -> Result<Option<JobState>> {
        let Some(name) = &self.state else { return Ok(None) };
        let state = JobState::from_name(name);
        state
            .map(Some)
            .ok_or_else(|| Error::invalid_field("state", "is one of queued, running, done, failed"))
    }
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
struct Sessions {
    sessions: Vec<SessionBody>,
    total: u64,
}

/// All sessions, newest first. Instance admin; with `communityId` also its MANAGE_REPLAY_LIMITS.
#[utoipa::path(get, path = "/admin/sessions", tag = "admin", security(("bearer" = [])),
    params(Narrow),
    responses((status = 200, body = Sessions), (status = 403, description = "permission_denied")))]
async fn list_sessions(
    State(state): State<AppState>,
    caller: Caller,
    Query(narrow): Query<Narrow>,
) -> Answer<Json<Sessions>> {
    let page = narrow.page()?;
    let active = narrow.active.unwrap_or(false);
    let (rows, total) =
        admin::list_sessions(&state.deps, &caller, narrow.community(), active, page).await?;
    let body = |shown| SessionBody::of(&state.deps, &caller, shown);
    Ok(Json(Sessions { sessions: rows.into_iter().map(body).collect(), total }))
}

/// A clip with what is reserved for it while it is being made. Its links open what the administrator may see himself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AdminClip {
    #[serde(flatten)]
    clip: ClipBody,
    reserved_bytes: i64,
}

/// A page of clips.
#[derive(Debug, Serialize, ToSchema)]
struct Clips {
    clips: Vec<AdminClip>,
    total: u64,
}

/// All clips, newest first. Instance admin; with `communityId` also its MANAGE_REPLAY_LIMITS.
#[utoipa::path(get, path = "/admin/clips", tag = "admin", security(("bearer" = [])),
    params(Narrow),
    responses((status = 200, body = Clips), (status = 403, description = "permission_denied")))]
async fn list_clips(
    State(state): State<AppState>,
    caller: Caller,
    Query(narrow): Query<Narrow>,
) -> Answer<Json<Clips>> {
    let filter = ClipFilter {
        id: narrow.clip_id.as_deref().map(ClipId::new),
        user_id: narrow.user()?,
        community_id: narrow.community(),
        ..ClipFilter::default()
    };
    let (rows, total) = admin::list_clips(&state.deps, &caller, filter, narrow.page()?).await?;
    let clips = rows.iter().map(|clip| AdminClip {
        clip: clips::body_of(&state.deps, &caller, clip),
        reserved_bytes: clip.reserved_bytes,
    });
    Ok(Json(Clips { clips: clips.collect(), total }))
}

/// A durable piece of work.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct JobView {
    id: String,
    kind: &'static str,
    /// `queued`, `running`, `done` or `failed`.
    state: &'static str,
    attempts: i32,
    last_error: Option<String>,
    clip_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    lease_until: Option<Timestamp>,
}

impl From<Job> for JobView {
    fn from(job: Job) -> JobView {
        JobView {
            id: job.id.into_string(),
            kind: job.kind.as_str(),
            state: job.state.as_str(),
            attempts: job.attempts,
            last_error: job.last_error,
            clip_id: job.clip_id.map(|clip| clip.into_string()),
            created_at: job.created_at,
            lease_until: job.lease_until,
        }
    }
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
struct Jobs {
    jobs: Vec<JobView>,
    total: u64,
}

/// All jobs, newest first. Instance admin; with `communityId` also its MANAGE_REPLAY_LIMITS.
#[utoipa::path(get, path = "/admin/jobs", tag = "admin", security(("bearer" = [])),
    params(Narrow),
    responses((status = 200, body = Jobs), (status = 403, description = "permission_denied")))]
async fn list_jobs(
    State(state): State<AppState>,
    caller: Caller,
    Query(narrow): Query<Narrow>,
) -> Answer<Json<Jobs>> {
    let (page, wanted) = (narrow.page()?, narrow.state()?);
    let (rows, total) =
        admin::list_jobs(&state.deps, &caller, narrow.community(), wanted, page).await?;
    Ok(Json(Jobs { jobs: rows.into_iter().map(JobView::from).collect(), total }))
}

/// Tries a failed job again and answers the job that does so. Instance admin, or MANAGE_REPLAY_LIMITS in its clip's community.
#[utoipa::path(post, path = "/admin/jobs/{id}/retry", tag = "admin", security(("bearer" = [])),
    params(("id" = String, Path), InCommunity),
    responses((status = 200, body = JobView), (status = 403, description = "permission_denied"),
        (status = 404, description = "not_found"), (status = 409, description = "clip_not_ready")))]
async fn retry_job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(place): Query<InCommunity>,
) -> Answer<Json<JobView>> {
    let id = JobId::new(id);
    let job = admin::retry_job(&state.deps, &caller, &id, place.community()).await?;
    Ok(Json(job.into()))
}

/// A scheduled job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobReportView {
    name: String,
    /// Cron, six fields, UTC.
    schedule: String,
    last_run: Option<RunView>,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_run_at: Option<Timestamp>,
    overdue: bool,
}

impl From<maintenance::JobReport> for JobReportView {
    fn from(report: maintenance::JobReport) -> JobReportView {
        JobReportView {
            name: report.name,
            schedule: report.schedule,
            last_run: report.last_run.map(RunView::from),
            next_run_at: report.next_run_at,
            overdue: report.overdue,
        }
    }
}

/// One run of a scheduled job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RunView {
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// `ok` or an error's code.
    outcome: Option<String>,
    #[schema(value_type = Object)]
    counts: Map<String, Value>,
}

impl From<maintenance::Run> for RunView {
    fn from(run: maintenance::Run) -> RunView {
        RunView {
            started_at: run.started_at,
            ended_at: run.ended_at,
            outcome: run.outcome,
            counts: run.counts,
        }
    }
}

/// All scheduled jobs.
#[derive(Debug, Serialize, ToSchema)]
struct Maintenance {
    jobs: Vec<JobReportView>,
}

/// The scheduled jobs with their last runs. Instance admin.
#[utoipa::path(get, path = "/admin/maintenance", tag = "admin", security(("bearer" = [])),
    responses((status = 200, body = Maintenance), (status = 403, description = "permission_denied")))]
async fn list_maintenance(
    State(state): State<AppState>,
    caller: Caller,
) -> Answer<Json<Maintenance>> {
    authorize::require_instance_admin(&state.deps, &caller).await?;
    let jobs = state.maintenance.list(&state.deps).await?;
    Ok(Json(Maintenance { jobs: jobs.into_iter().map(JobReportView::from).collect() }))
}

/// How a job is run.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunHow {
    /// Only count what would be done: `true` (also without a value) or `false`.
    dry_run: Option<String>,
}

impl RunHow {
    pub(super) fn dry_run(&self) -> Result<bool> {
        is_dry(self.dry_run.as_deref())
    }
}

/// What `dryRun` says.
pub(super) fn is_dry(text: Option<&str>) -> Result<bool> {
    match text {
        Some("" | "true" | "1") => Ok(true),
        None | Some("false" | "0") => Ok(false),
        Some(_) => Err(Error::invalid_field("dryRun", "is true or false")),
    }
}

/// Runs a scheduled job now and answers the run. Instance admin.
#[utoipa::path(post, path = "/admin/maintenance/{job}/run", tag = "admin", security(("bearer" = [])),
    params(("job" = String, Path), RunHow),
    responses((status = 200, body = RunView), (status = 403, description = "permission_denied"),
        (status = 404, description = "not_found")))]
async fn run_maintenance(
    State(state): State<AppState>,
    caller: Caller,
    Path(job): Path<String>,
    Query(how): Query<RunHow>,
) -> Answer<Json<RunView>> {
    authorize::require_instance_admin(&state.deps, &caller).await?;
    let dry_run = how.dry_run()?;
    let (deps, maintenance) = (state.deps.clone(), state.maintenance.clone());
    // a run that began goes on when the caller hangs up
    let run =
        async move { admin::run_maintenance(&deps, &caller, &*maintenance, &job, dry_run).await };
    Ok(Json(state.deps.to_the_end(run).await?.into()))
}
