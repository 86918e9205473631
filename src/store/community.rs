//! Communities: the switch, the number of places, and the places taken. Taking a place is one conditional update.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    QuerySelect,
    entity::prelude::*,
    sea_query::{ExprTrait, Func, OnConflict},
};

use super::{Conn, Tx, db_error, schema::plus};
use crate::{
    domain::{id::CommunityId, time::Timestamp},
    error::{Error, Result},
};

/// A community row; made when first needed.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "community")]
pub struct Model {
    /// The app's name of it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CommunityId,
    /// Places; `None` = the configured default.
    pub max_concurrent: Option<i32>,
    /// Whether new starts are taken.
    pub enabled: bool,
    /// Whether a published share starts a buffer by itself.
    pub auto_start: bool,
    /// Places taken.
    pub active_sessions: i32,
    /// Row made.
    pub created_at: Timestamp,
    /// Row last changed.
    pub updated_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Why no place was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Taken; give it back with the session.
    Taken,
    /// All places are taken.
    Full {
        /// How many there are.
        max_concurrent: i32,
        /// How many are taken.
        active: i32,
    },
    /// Switched off.
    Disabled,
}

/// The row, made with defaults if there is none.
pub async fn load_or_make<C: Conn>(db: &C, id: &CommunityId, now: Timestamp) -> Result<Model> {
    make_if_absent(db, id, now).await?;
    find(db, id)
        .await?
        .ok_or_else(|| Error::internal("reading a community just made", id.to_string()))
}

/// The row, if there is one.
pub async fn find<C: Conn>(db: &C, id: &CommunityId) -> Result<Option<Model>> {
    Entity::find_by_id(id.clone())
        .one(db)
        .await
        .map_err(|error| db_error("reading a community", error))
}

/// Those in which a published share starts a buffer by itself.
pub async fn list_auto_starting<C: Conn>(db: &C) -> Result<Vec<CommunityId>> {
    Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::AutoStart.eq(true))
        .filter(Column::Enabled.eq(true))
        .into_tuple()
        .all(db)
        .await
        .map_err(|error| db_error("listing communities that start by themselves", error))
}

async fn make_if_absent<C: Conn>(db: &C, id: &CommunityId, now: Timestamp) -> Result<()> {
    let row = ActiveModel {
        id: Set(id.clone()),
        max_concurrent: Set(None),
        enabled: Set(true),
        auto_start: Set(false),
        active_sessions: Set(0),
        created_at: Set(now),
        updated_at: Set(now),
    };
    Entity::insert(row)
        .on_conflict(OnConflict::column(Column::Id).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("making a community", error))
}

/// The row, made with defaults if there is none, and nobody else's to change until the transaction ends.
pub async fn lock(tx: &Tx, id: &CommunityId, now: Timestamp) -> Result<Model> {
    make_if_absent(tx, id, now).await?;
    // SQLite has no such locks: its transactions write one after the other from their beginning
    let row = Entity::find_by_id(id.clone()).lock_exclusive().one(tx).await;
    row.map_err(|error| db_error("locking a community", error))?
        .ok_or_else(|| Error::internal("reading a community just made", id.to_string()))
}

/// Takes a place if the switch is on and one is free. A session's row comes before its community's in the order of
/// locks: insert the session first.
pub async fn take_place(
    tx: &Tx,
    id: &CommunityId,
    default_max: i32,
    now: Timestamp,
) -> Result<Place> {
    make_if_absent(tx, id, now).await?;
    if take_if_free(tx, id, default_max).await? {
        return Ok(Place::Taken);
    }
    // Between the update and a look at the row places come back and limits change: only under its lock is the reason
    // that is told the reason.
    let row = lock(tx, id, now).await?;
    let max_concurrent = row.max_concurrent.unwrap_or(default_max);
    if !row.enabled {
        Ok(Place::Disabled)
    } else if row.active_sessions >= max_concurrent {
        Ok(Place::Full { max_concurrent, active: row.active_sessions })
    } else if take_if_free(tx, id, default_max).await? {
        Ok(Place::Taken)
    } else {
        Err(Error::internal("taking a community's place", "a locked row changed"))
    }
}

async fn take_if_free(tx: &Tx, id: &CommunityId, default_max: i32) -> Result<bool> {
    let max = Func::coalesce([Expr::col(Column::MaxConcurrent), Expr::value(default_max)]);
    let outcome = Entity::update_many()
        .col_expr(Column::ActiveSessions, plus(Column::ActiveSessions, 1))
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::Enabled.eq(true))
        .filter(Expr::col(Column::ActiveSessions).lt(max))
        .exec(tx)
        .await
        .map_err(|error| db_error("taking a community's place", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Gives a place back; only [`super::session::give_up_place`] calls this.
pub(super) async fn give_back_place(tx: &Tx, id: &CommunityId) -> Result<()> {
    Entity::update_many()
        .col_expr(Column::ActiveSessions, plus(Column::ActiveSessions, -1))
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::ActiveSessions.gt(0))
        .exec(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("giving back a community's place", error))
}

/// What an administrator may change; absent = as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Places.
    pub max_concurrent: Option<i32>,
    /// The switch.
    pub enabled: Option<bool>,
    /// Auto start.
    pub auto_start: Option<bool>,
}

/// Applies a change and answers the row after it.
pub async fn update<C: Conn>(
    db: &C,
    id: &CommunityId,
    change: Change,
    now: Timestamp,
) -> Result<Model> {
    make_if_absent(db, id, now).await?;
    let row = ActiveModel {
        id: NotSet,
        max_concurrent: change.max_concurrent.map_or(NotSet, |max| Set(Some(max))),
        enabled: change.enabled.map_or(NotSet, Set),
        auto_start: change.auto_start.map_or(NotSet, Set),
        active_sessions: NotSet,
        created_at: NotSet,
        updated_at: Set(now),
    };
    Entity::update_many()
        .set(row)
        .filter(Column::Id.eq(id.clone()))
        .exec(db)
        .await
        .map_err(|error| db_error("changing a community", error))?;
    load_or_make(db, id, now).await
}
