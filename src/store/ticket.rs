//! Tickets: each opens one stream of events, once, within a minute. The ticket itself is kept as a hash alone.

use sea_orm::{ActiveValue::Set, entity::prelude::*};

use super::{Conn, db_error};
use crate::{
    domain::{id::UserId, time::Timestamp},
    error::Result,
};

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "event_ticket")]
pub struct Model {
    /// SHA-256 of the ticket, hex.
    #[sea_orm(primary_key, auto_increment = false)]
    pub token_hash: String,
    /// Who got it.
    pub user_id: UserId,
    /// JSON: what else his token said.
    pub rights: String,
    /// From then on it opens nothing.
    pub expires_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Keeps a ticket.
pub async fn insert<C: Conn>(db: &C, row: Model) -> Result<()> {
    let row = ActiveModel {
        token_hash: Set(row.token_hash),
        user_id: Set(row.user_id),
        rights: Set(row.rights),
        expires_at: Set(row.expires_at),
    };
    Entity::insert(row)
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("keeping a ticket", error))
}

/// How many tickets of a user could be used now.
pub async fn count_of<C: Conn>(db: &C, user: &UserId, now: Timestamp) -> Result<u64> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::ExpiresAt.gt(now))
        .count(db)
        .await
        .map_err(|error| db_error("counting tickets", error))
}

/// Takes a ticket: of all who try, on whatever replica, one gets it.
pub async fn take<C: Conn>(db: &C, token_hash: &str, now: Timestamp) -> Result<Option<Model>> {
    let found = Entity::find_by_id(token_hash)
        .one(db)
        .await
        .map_err(|error| db_error("reading a ticket", error))?;
    let Some(row) = found.filter(|row| row.expires_at > now) else { return Ok(None) };
    let gone = Entity::delete_many()
        .filter(Column::TokenHash.eq(token_hash))
        .filter(Column::ExpiresAt.gt(now))
        .exec(db)
        .await
        .map_err(|error| db_error("taking a ticket", error))?;
    Ok((gone.rows_affected > 0).then_some(row))
}

/// Forgets tickets whose time is over; says how many.
pub async fn delete_expired<C: Conn>(db: &C, now: Timestamp) -> Result<u64> {
    let gone = Entity::delete_many()
        .filter(Column::ExpiresAt.lte(now))
        .exec(db)
        .await
        .map_err(|error| db_error("forgetting tickets", error))?;
    Ok(gone.rows_affected)
}
