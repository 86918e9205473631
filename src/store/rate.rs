//! Counters of rate limits, shared by replicas: one row per user, route and minute.

use sea_orm::{ActiveValue::Set, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, db_error, schema::plus};
use crate::{
    domain::{id::UserId, time::Timestamp},
    error::{Error, Result},
};

/// A counter.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rate_window")]
pub struct Model {
    /// Who.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    /// Which route.
    #[sea_orm(primary_key, auto_increment = false)]
    pub route: String,
    /// Start of the minute.
    #[sea_orm(primary_key, auto_increment = false)]
    pub window_start: Timestamp,
    /// Requests so far.
    pub used: i32,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Counts a request and answers how many there are with it.
pub async fn count<C: Conn>(
    db: &C,
    user: &UserId,
    route: &str,
    window_start: Timestamp,
) -> Result<i32> {
    let row = ActiveModel {
        user_id: Set(user.clone()),
        route: Set(route.to_owned()),
        window_start: Set(window_start),
        used: Set(0),
    };
    Entity::insert(row)
        .on_conflict(
            OnConflict::columns([Column::UserId, Column::Route, Column::WindowStart])
                .do_nothing()
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .map_err(|error| db_error("opening a rate window", error))?;
    let counted = Entity::update_many()
        .col_expr(Column::Used, plus(Column::Used, 1))
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::Route.eq(route))
        .filter(Column::WindowStart.eq(window_start))
        .exec_with_returning(db)
        .await
        .map_err(|error| db_error("counting a request", error))?;
    counted
        .first()
        .map(|row| row.used)
        .ok_or_else(|| Error::internal("counting a request", route.to_owned()))
}

/// Forgets windows that began before `before`; says how many.
pub async fn delete_before<C: Conn>(db: &C, before: Timestamp) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::WindowStart.lt(before))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting old rate windows", error))?;
    Ok(outcome.rows_affected)
}

/// How many requests were counted in a window.
pub async fn used<C: Conn>(
    db: &C,
    user: &UserId,
    route: &str,
    window_start: Timestamp,
) -> Result<i32> {
    let row = Entity::find_by_id((user.clone(), route.to_owned(), window_start))
        .one(db)
        .await
        .map_err(|error| db_error("reading a rate window", error))?;
    Ok(row.map_or(0, |row| row.used))
}
