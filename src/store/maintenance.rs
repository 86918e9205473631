//! Runs of the scheduled jobs. A tick is claimed by inserting its row, so with several replicas it runs once.

use sea_orm::{ActiveValue::Set, QueryOrder, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, db_error};
use crate::{domain::time::Timestamp, error::Result};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "maintenance_run")]
pub struct Model {
    /// Ours.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Which job (`segment-cleanup`, …).
    pub job: String,
    /// The moment the schedule meant (RFC 3339), or `manual:<id>`.
    pub tick: String,
    /// Begun.
    pub started_at: Timestamp,
    /// Ended; `None` while it runs or if its replica died.
    pub ended_at: Option<Timestamp>,
    /// `ok` or the error's code.
    pub outcome: Option<String>,
    /// JSON object of counts.
    pub counts: String,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Claims a tick; `None` if somebody has it.
pub async fn claim<C: Conn>(
    db: &C,
    job: &str,
    tick: String,
    now: Timestamp,
) -> Result<Option<Model>> {
    let row = Model {
        id: uuid::Uuid::now_v7().to_string(),
        job: job.to_owned(),
        tick,
        started_at: now,
        ended_at: None,
        outcome: None,
        counts: "{}".to_owned(),
    };
    let active: ActiveModel = row.clone().into();
    let inserted = Entity::insert(active.reset_all())
        .on_conflict(OnConflict::columns([Column::Job, Column::Tick]).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map_err(|error| db_error("claiming a tick", error))?;
    Ok((inserted > 0).then_some(row))
}

/// Begins a run that takes the place of the one before under the same tick: what every replica does for itself, often,
/// leaves one row each.
pub async fn begin_again<C: Conn>(
    db: &C,
    job: &str,
    tick: String,
    now: Timestamp,
) -> Result<Option<Model>> {
    Entity::delete_many()
        .filter(Column::Job.eq(job))
        .filter(Column::Tick.eq(tick.clone()))
        .exec(db)
        .await
        .map_err(|error| db_error("forgetting a run", error))?;
    claim(db, job, tick, now).await
}

/// Records the end of a run and answers it.
pub async fn finish<C: Conn>(
    db: &C,
    run: Model,
    outcome: String,
    counts: &serde_json::Value,
    now: Timestamp,
) -> Result<Model> {
    let ended =
        Model { ended_at: Some(now), outcome: Some(outcome), counts: counts.to_string(), ..run };
    Entity::update_many()
        .set(ActiveModel {
            ended_at: Set(ended.ended_at),
            outcome: Set(ended.outcome.clone()),
            counts: Set(ended.counts.clone()),
            ..Default::default()
        })
        .filter(Column::Id.eq(ended.id.clone()))
        .exec(db)
        .await
        .map_err(|error| db_error("recording a run", error))?;
    Ok(ended)
}

/// The newest run of a job.
pub async fn find_last<C: Conn>(db: &C, job: &str) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::Job.eq(job))
        .order_by_desc(Column::StartedAt)
        .one(db)
        .await
        .map_err(|error| db_error("reading a job's last run", error))
}

/// Forgets runs begun before `before`; says how many.
pub async fn delete_before<C: Conn>(db: &C, before: Timestamp) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::StartedAt.lt(before))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting old runs", error))?;
    Ok(outcome.rows_affected)
}
