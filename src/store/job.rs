//! Durable work: enqueued in the transaction that needs it, leased, renewed, finished. A worker that dies loses its
//! lease and somebody else takes over, so finishing twice must be harmless.

mod turn;

use std::time::Duration;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    Condition, Order, QueryOrder, QuerySelect,
    entity::prelude::*,
    sea_query::{LockBehavior, LockType, Query},
};

use super::{Conn, Db, Page, Tx, clip, columns, db_error};
use crate::{
    domain::{
        id::{ClipId, CommunityId, JobId, UserId},
        text_enum::text_enum,
        time::Timestamp,
    },
    error::Result,
};

text_enum!(
    /// Where a job stands.
    JobState {
        /// Waits for its moment and a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Finished.
        Done = "done",
        /// Given up; the last error is kept.
        Failed = "failed",
    }
);

text_enum!(
    /// What kind of work.
    JobKind {
        /// Make a clip from its pinned window.
        Render = "render",
    }
);

columns::text_column!(
    JobState => |text| JobState::from_name(&text),
    JobKind => |text| JobKind::from_name(&text),
);

/// A job row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    /// Ours.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: JobId,
    /// What kind of work.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// The clip it makes.
    pub clip_id: Option<ClipId>,
    /// Attempts so far that made something, or failed; waiting makes nothing.
    pub attempts: i32,
    /// Attempts that may fail.
    pub max_attempts: i32,
    /// Not before.
    pub run_after: Timestamp,
    /// Which worker process.
    pub lease_owner: Option<String>,
    /// Until when it is that worker's.
    pub lease_until: Option<Timestamp>,
    /// The last failure, for admins.
    pub last_error: Option<String>,
    /// Whose clip it is; none only where a release that did not know of turns enqueued it.
    pub user_id: Option<UserId>,
    /// When it was last leased.
    pub leased_at: Option<Timestamp>,
    /// The request that needed it.
    pub request_id: Option<String>,
    /// Enqueued.
    pub created_at: Timestamp,
    /// Row last changed.
    pub updated_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Enqueues the making of a clip.
pub async fn enqueue_render(
    tx: &Tx,
    clip: &ClipId,
    user: &UserId,
    max_attempts: i32,
    request_id: Option<String>,
    now: Timestamp,
) -> Result<()> {
    let row = ActiveModel {
        id: Set(JobId::generate()),
        kind: Set(JobKind::Render),
        state: Set(JobState::Queued),
        clip_id: Set(Some(clip.clone())),
        attempts: Set(0),
        max_attempts: Set(max_attempts),
        run_after: Set(now),
        lease_owner: Set(None),
        lease_until: Set(None),
        last_error: Set(None),
        user_id: Set(Some(user.clone())),
        leased_at: Set(None),
        request_id: Set(request_id),
        created_at: Set(now),
        updated_at: Set(now),
    };
    Entity::insert(row)
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("enqueueing a job", error))
}

/// Farther ahead than any pause or lease of a job (30 s), and than clocks of replicas differ: a time beyond it was written
/// before the clock was set back.
const BEYOND_ANY_PAUSE: Duration = Duration::from_secs(60);

/// Queued jobs whose moment has come, and running ones whose lease ran out; also those whose time was written under a
/// clock that has been set back since, or they would wait until it is where it was.
fn due(now: Timestamp) -> Condition {
    let beyond = now.plus(BEYOND_ANY_PAUSE);
    let come = Condition::any().add(Column::RunAfter.lte(now)).add(Column::RunAfter.gt(beyond));
    let over = Condition::any().add(Column::LeaseUntil.lt(now)).add(Column::LeaseUntil.gt(beyond));
    let queued = Condition::all().add(Column::State.eq(JobState::Queued)).add(come);
    let abandoned = Condition::all().add(Column::State.eq(JobState::Running)).add(over);
    Condition::any().add(queued).add(abandoned)
}

/// Whether there is a job to lease: a read, so that looking often costs no writer's turn.
pub async fn any_due<C: Conn>(db: &C, now: Timestamp) -> Result<bool> {
    let found = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(due(now))
        .into_tuple::<JobId>()
        .one(db)
        .await
        .map_err(|error| db_error("looking for due jobs", error))?;
    Ok(found.is_some())
}

/// Leases up to `count` due jobs: queued ones whose moment has come, running ones whose lease ran out. Users take
/// turns: first who has the fewest jobs running, of these who was served least recently, of his the one that has waited
/// longest, where a long clip counts as asked for later by its length. Turns are those before the call, so whoever wants
/// them exact leases one at a time. With `longest` only clips of at most that length are leased.
pub async fn lease(
    db: &Db,
    owner: &str,
    count: u64,
    longest: Option<Duration>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Model>> {
    let tx = db.begin().await?;
    // locked first and changed then: as a subquery of the change it may be run once a row, and lock more than `count`
    let chosen = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Condition::all().add(due(now)).add_option(longest.map(turn::is_no_longer_than)))
        .order_by(turn::running_of_its_user(now), Order::Asc)
        .order_by(turn::last_of_its_user(), Order::Asc)
        .order_by(turn::age_less_length(), Order::Asc)
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .limit(count)
        // left out by the builder on SQLite, where the transaction is the lock
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple::<JobId>()
        .all(&tx)
        .await
        .map_err(|error| db_error("choosing jobs", error))?;
    if chosen.is_empty() {
        super::rollback(tx).await?;
        return Ok(Vec::new());
    }
    let leased = Entity::update_many()
        .set(ActiveModel {
            state: Set(JobState::Running),
            lease_owner: Set(Some(owner.to_owned())),
            lease_until: Set(Some(until)),
            leased_at: Set(Some(now)),
            updated_at: Set(now),
            ..Default::default()
        })
        .filter(Column::Id.is_in(chosen))
        .exec_with_returning(&tx)
        .await
        .map_err(|error| db_error("leasing jobs", error))?;
    super::commit(tx).await?;
    Ok(leased)
}

/// Keeps a lease; false if it is no longer ours.
pub async fn renew<C: Conn>(db: &C, id: &JobId, owner: &str, until: Timestamp) -> Result<bool> {
    change_ours(db, id, owner, ActiveModel { lease_until: Set(Some(until)), ..Default::default() })
        .await
}

/// Counts the attempt that this lease is for, before what may cost the worker its life; false if the lease is lost.
pub async fn count_attempt<C: Conn>(db: &C, job: &Model, owner: &str) -> Result<bool> {
    let attempts = Set(job.attempts + 1);
    change_ours(db, &job.id, owner, ActiveModel { attempts, ..Default::default() }).await
}

/// Ends a job well; false if the lease was lost.
pub async fn finish<C: Conn>(db: &C, id: &JobId, owner: &str, now: Timestamp) -> Result<bool> {
    change_ours(
        db,
        id,
        owner,
        ActiveModel {
            state: Set(JobState::Done),
            lease_owner: Set(None),
            lease_until: Set(None),
            updated_at: Set(now),
            ..Default::default()
        },
    )
    .await
}

/// Ends a job badly, keeping the error.
pub async fn fail<C: Conn>(
    db: &C,
    id: &JobId,
    owner: &str,
    error: String,
    now: Timestamp,
) -> Result<bool> {
    change_ours(
        db,
        id,
        owner,
        ActiveModel {
            state: Set(JobState::Failed),
            lease_owner: Set(None),
            lease_until: Set(None),
            last_error: Set(Some(error)),
            updated_at: Set(now),
            ..Default::default()
        },
    )
    .await
}

/// Why a job goes back into the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// The worker stops, or has no place for it.
    Unfinished,
    /// The attempt failed with this, and counts.
    Failed(String),
    /// The attempt failed with this for something that is not the job's fault, and does not count.
    Hindered(String),
}

/// Gives a job back as it was leased, to be run at `run_after`.
pub async fn give_back<C: Conn>(
    db: &C,
    job: &Model,
    owner: &str,
    run_after: Timestamp,
    back: Back,
    now: Timestamp,
) -> Result<bool> {
    let attempts = Set(job.attempts + i32::from(matches!(back, Back::Failed(_))));
    let error = match back {
        Back::Unfinished => None,
        Back::Failed(error) | Back::Hindered(error) => Some(error),
    };
    change_ours(
        db,
        &job.id,
        owner,
        ActiveModel {
            state: Set(JobState::Queued),
            attempts,
            run_after: Set(run_after),
            lease_owner: Set(None),
            lease_until: Set(None),
            last_error: error.map_or(NotSet, |error| Set(Some(error))),
            updated_at: Set(now),
            ..Default::default()
        },
    )
    .await
}

async fn change_ours<C: Conn>(
    db: &C,
    id: &JobId,
    owner: &str,
    change: ActiveModel,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(change)
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::State.eq(JobState::Running))
        .filter(Column::LeaseOwner.eq(owner))
        .exec(db)
        .await
        .map_err(|error| db_error("changing a job", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Makes every lease run out at once: this process is the only one (SQLite under its lock) and has just started, so
/// whoever held them is dead.
pub async fn expire_leases<C: Conn>(db: &C, now: Timestamp) -> Result<u64> {
    let outcome = Entity::update_many()
        .set(ActiveModel {
            state: Set(JobState::Queued),
            lease_owner: Set(None),
            lease_until: Set(None),
            run_after: Set(now),
            ..Default::default()
        })
        .filter(Column::State.eq(JobState::Running))
        .exec(db)
        .await
        .map_err(|error| db_error("expiring leases", error))?;
    Ok(outcome.rows_affected)
}

/// Stops work on a clip that is no longer wanted.
pub async fn cancel_of_clip<C: Conn>(db: &C, clip: &ClipId, now: Timestamp) -> Result<()> {
    Entity::update_many()
        .set(ActiveModel {
            state: Set(JobState::Failed),
            last_error: Set(Some("cancelled".to_owned())),
            lease_owner: Set(None),
            lease_until: Set(None),
            updated_at: Set(now),
            ..Default::default()
        })
        .filter(Column::ClipId.eq(clip.clone()))
        .filter(Column::State.is_in([JobState::Queued, JobState::Running]))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("cancelling a job", error))
}

/// Puts a failed job back into the queue with fresh attempts; false if it had not failed.
pub async fn requeue<C: Conn>(db: &C, id: &JobId, now: Timestamp) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel {
            state: Set(JobState::Queued),
            attempts: Set(0),
            run_after: Set(now),
            updated_at: Set(now),
            ..Default::default()
        })
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::State.eq(JobState::Failed))
        .exec(db)
        .await
        .map_err(|error| db_error("requeueing a job", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Whether the lease still is `owner`'s (it may have run out, as long as nobody else took it).
pub async fn is_ours<C: Conn>(db: &C, id: &JobId, owner: &str) -> Result<bool> {
    let found = find(db, id).await?;
    Ok(found.is_some_and(|job| {
        job.state == JobState::Running && job.lease_owner.as_deref() == Some(owner)
    }))
}

/// The job of that id.
pub async fn find<C: Conn>(db: &C, id: &JobId) -> Result<Option<Model>> {
    Entity::find_by_id(id.clone()).one(db).await.map_err(|error| db_error("reading a job", error))
}

/// The newest job of a clip.
pub async fn find_newest_of_clip<C: Conn>(db: &C, clip: &ClipId) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::ClipId.eq(clip.clone()))
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .one(db)
        .await
        .map_err(|error| db_error("reading a clip's job", error))
}

/// A page of jobs, newest first, with the total.
pub async fn list<C: Conn>(
    db: &C,
    state: Option<JobState>,
    page: Page,
) -> Result<(Vec<Model>, u64)> {
    list_of(db, state, None, page).await
}

/// A page of jobs, of those that make a community's clips if one is given.
pub async fn list_of<C: Conn>(
    db: &C,
    state: Option<JobState>,
    community: Option<&CommunityId>,
    page: Page,
) -> Result<(Vec<Model>, u64)> {
    let mut query = Entity::find();
    if let Some(state) = state {
        query = query.filter(Column::State.eq(state));
    }
    if let Some(community) = community {
        let clips = Query::select()
            .column(clip::Column::Id)
            .from(clip::Entity)
            .and_where(clip::Column::CommunityId.eq(community.clone()))
            .to_owned();
        query = query.filter(Column::ClipId.in_subquery(clips));
    }
    let total = query.clone().count(db).await.map_err(|error| db_error("counting jobs", error))?;
    let rows = query
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(page.limit)
        .offset(page.offset)
        .all(db)
        .await
        .map_err(|error| db_error("listing jobs", error))?;
    Ok((rows, total))
}

/// Clips whose job waits or runs.
pub async fn list_open_clips<C: Conn>(db: &C) -> Result<Vec<ClipId>> {
    let found = Entity::find()
        .select_only()
        .column(Column::ClipId)
        .filter(Column::State.is_in([JobState::Queued, JobState::Running]))
        .filter(Column::ClipId.is_not_null())
        .into_tuple::<ClipId>()
        .all(db)
        .await;
    found.map_err(|error| db_error("listing clips that are being made", error))
}

/// How many jobs wait or run.
pub async fn count_open<C: Conn>(db: &C) -> Result<u64> {
    count_open_of(db, None).await
}

/// How many jobs wait or run, of one user or of all.
pub async fn count_open_of<C: Conn>(db: &C, user: Option<&UserId>) -> Result<u64> {
    let open = Entity::find().filter(Column::State.is_in([JobState::Queued, JobState::Running]));
    let open = match user {
        Some(user) => open.filter(Column::UserId.eq(user.clone())),
        None => open,
    };
    open.count(db).await.map_err(|error| db_error("counting open jobs", error))
}

/// Forgets jobs that ended before `before`; says how many.
pub async fn delete_ended_before<C: Conn>(db: &C, before: Timestamp) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::State.is_in([JobState::Done, JobState::Failed]))
        .filter(Column::UpdatedAt.lt(before))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting old jobs", error))?;
    Ok(outcome.rows_affected)
}
