//! Shares that were asked for with a capture and wait for the clip. A row is there until its share was delivered or
//! given up; what came of it stands in the clip's row.

use sea_orm::{
    ActiveValue::Set, Condition, QueryOrder, QuerySelect, entity::prelude::*, sea_query::Query,
};

use super::{Conn, Tx, clip, db_error, share::Destination};
use crate::{
    domain::{
        id::{ClipId, ShareId},
        lifecycle::ClipStatus,
        time::Timestamp,
    },
    error::Result,
};

/// A share that waits.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "share_wish")]
pub struct Model {
    /// For which clip.
    #[sea_orm(primary_key, auto_increment = false)]
    pub clip_id: ClipId,
    /// What the share will be called.
    pub share_id: ShareId,
    /// Where it is to go.
    pub destination: Destination,
    /// The person or channel.
    pub target_id: Option<String>,
    /// The owner's name, as his token had it.
    pub username: Option<String>,
    /// Since when somebody delivers it.
    pub claimed_at: Option<Timestamp>,
    /// Asked for.
    pub created_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Inserts a wish.
pub async fn insert(tx: &Tx, row: Model) -> Result<()> {
    let active: ActiveModel = row.into();
    Entity::insert(active.reset_all())
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("inserting a share that waits", error))
}

/// The clip's wish, if there is one.
pub async fn find<C: Conn>(db: &C, clip: &ClipId) -> Result<Option<Model>> {
    Entity::find_by_id(clip.clone())
        .one(db)
        .await
        .map_err(|error| db_error("reading a share that waits", error))
}

/// Takes a wish up, once.
pub async fn claim<C: Conn>(db: &C, clip: &ClipId, now: Timestamp) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { claimed_at: Set(Some(now)), ..Default::default() })
        .filter(Column::ClipId.eq(clip.clone()))
        .filter(Column::ClaimedAt.is_null())
        .exec(db)
        .await
        .map_err(|error| db_error("taking up a share", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Lets go of a wish of which nothing was carried out.
pub async fn let_go<C: Conn>(db: &C, clip: &ClipId) -> Result<()> {
    Entity::update_many()
        .set(ActiveModel { claimed_at: Set(None), ..Default::default() })
        .filter(Column::ClipId.eq(clip.clone()))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("letting go of a share", error))
}

/// Those that wait longest of what can be done something about: the clip is ready, or somebody took the wish up. That of
/// a failed clip waits for the clip.
pub async fn list_due<C: Conn>(db: &C, limit: u64) -> Result<Vec<Model>> {
    let ready = Query::select()
        .column(clip::Column::Id)
        .from(clip::Entity)
        .and_where(clip::Column::Status.eq(ClipStatus::Ready))
        .to_owned();
    let due = Condition::any()
        .add(Column::ClaimedAt.is_not_null())
        .add(Column::ClipId.in_subquery(ready));
    Entity::find()
        .filter(due)
        .order_by_asc(Column::CreatedAt)
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("listing shares that wait", error))
}

/// Deletes a clip's wish; says whether there was one.
pub async fn delete(tx: &Tx, clip: &ClipId) -> Result<bool> {
    let outcome = Entity::delete_by_id(clip.clone())
        .exec(tx)
        .await
        .map_err(|error| db_error("deleting a share that waits", error))?;
    Ok(outcome.rows_affected > 0)
}
