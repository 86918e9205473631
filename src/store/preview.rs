//! What players were told of a preview: stretches of consecutive segments, in playing order. Only the last one of a
//! view grows, and none is ever changed otherwise, so a segment keeps its number as long as anybody may ask for it.

use sea_orm::{
    QueryOrder,
    entity::prelude::*,
    sea_query::{OnConflict, Query},
};

use super::{Conn, Tx, clip, db_error, session};
use crate::{domain::lifecycle::ClipStatus, error::Result};

/// A stretch row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "preview_stretch")]
pub struct Model {
    /// A session's id, or that of a clip being made.
    #[sea_orm(primary_key, auto_increment = false)]
    pub view_id: String,
    /// 0, 1, …: stretches before this one.
    #[sea_orm(primary_key, auto_increment = false)]
    pub run: i64,
    /// Of which epoch.
    pub epoch: i32,
    /// Its first segment's number.
    pub first_number: i64,
    /// Its last segment's number so far.
    pub last_number: i64,
    /// Segments listed before its first.
    pub first_sequence: i64,
    /// The longest segment of it, microseconds.
    pub longest_us: i64,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The stretches of a view, in order.
pub async fn list<C: Conn>(db: &C, view: &str) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::ViewId.eq(view))
        .order_by_asc(Column::Run)
        .all(db)
        .await
        .map_err(|error| db_error("reading what a preview listed", error))
}

/// Adds a stretch, or lets the one of that run grow. Call [`super::session::lock_for_pins`] first in the same
/// transaction, and read [`list`] after it.
pub async fn put(tx: &Tx, row: Model) -> Result<()> {
    let active: ActiveModel = row.into();
    Entity::insert(active.reset_all())
        .on_conflict(
            OnConflict::columns([Column::ViewId, Column::Run])
                .update_columns([Column::LastNumber, Column::LongestUs])
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("keeping what a preview listed", error))
}

/// Forgets what nobody can look at any more: sessions without buffer, clips that are no longer being made. Says how
/// many rows.
pub async fn delete_stale<C: Conn>(db: &C) -> Result<u64> {
    let sessions = Query::select()
        .column(session::Column::Id)
        .from(session::Entity)
        .and_where(session::Column::BufferGoneAt.is_null())
        .to_owned();
    let clips = Query::select()
        .column(clip::Column::Id)
        .from(clip::Entity)
        .and_where(clip::Column::Status.eq(ClipStatus::Processing))
        .to_owned();
    let outcome = Entity::delete_many()
        .filter(Column::ViewId.not_in_subquery(sessions))
        .filter(Column::ViewId.not_in_subquery(clips))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting what old previews listed", error))?;
    Ok(outcome.rows_affected)
}
