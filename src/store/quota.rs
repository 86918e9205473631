//! A user's bytes: the allowance, what ready clips take, what accepted captures have reserved. Every change is one
//! conditional update, so parallel captures cannot overshoot.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ConnectionTrait, FromQueryResult, QuerySelect,
    entity::prelude::*,
    sea_query::{ExprTrait, Func, OnConflict},
};

use super::{Conn, Tx, clip, db_error, schema::plus};
use crate::{
    domain::{id::UserId, lifecycle::ClipStatus, time::Timestamp},
    error::{Error, Result},
};

/// A user's account; made when first needed.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "user_account")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    /// The allowance; `None` = the configured default.
    pub quota_bytes: Option<i64>,
    /// Sum of `size_bytes` of ready clips.
    pub used_bytes: i64,
    /// Sum of `reserved_bytes` of clips being made.
    pub reserved_bytes: i64,
    /// Row made.
    pub created_at: Timestamp,
    /// Row last changed.
    pub updated_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The account, made if there is none.
pub async fn load_or_make<C: Conn>(db: &C, user: &UserId, now: Timestamp) -> Result<Model> {
    make_if_absent(db, user, now).await?;
    find(db, user)
        .await?
        .ok_or_else(|| Error::internal("reading an account just made", user.to_string()))
}

/// The account, if there is one.
pub async fn find<C: Conn>(db: &C, user: &UserId) -> Result<Option<Model>> {
    Entity::find_by_id(user.clone())
        .one(db)
        .await
        .map_err(|error| db_error("reading an account", error))
}

async fn make_if_absent<C: Conn>(db: &C, user: &UserId, now: Timestamp) -> Result<()> {
    let row = ActiveModel {
        user_id: Set(user.clone()),
        quota_bytes: Set(None),
        used_bytes: Set(0),
        reserved_bytes: Set(0),
        created_at: Set(now),
        updated_at: Set(now),
    };
    Entity::insert(row)
        .on_conflict(OnConflict::column(Column::UserId).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("making an account", error))
}

/// Reserves `bytes` if they fit; else answers the account as it stands.
pub async fn reserve(
    tx: &Tx,
    user: &UserId,
    bytes: i64,
    default_quota: i64,
    now: Timestamp,
) -> Result<Result<(), Model>> {
    make_if_absent(tx, user, now).await?;
    let quota = Func::coalesce([Expr::col(Column::QuotaBytes), Expr::value(default_quota)]);
    let wanted = Expr::col(Column::UsedBytes).add(Expr::col(Column::ReservedBytes)).add(bytes);
    let outcome = Entity::update_many()
        .col_expr(Column::ReservedBytes, plus(Column::ReservedBytes, bytes))
        .filter(Column::UserId.eq(user.clone()))
        .filter(wanted.lte(quota))
        .exec(tx)
        .await
        .map_err(|error| db_error("reserving bytes", error))?;
    if outcome.rows_affected > 0 {
        return Ok(Ok(()));
    }
    Ok(Err(load_or_make(tx, user, now).await?))
}

/// Turns a reservation into use: `reserved` goes, `used` comes. Both may be 0, either may be negative only to take
/// back what the same clip brought.
pub async fn settle(tx: &Tx, user: &UserId, reserved: i64, used: i64) -> Result<()> {
    Entity::update_many()
        .col_expr(Column::ReservedBytes, plus(Column::ReservedBytes, -reserved))
        .col_expr(Column::UsedBytes, plus(Column::UsedBytes, used))
        .filter(Column::UserId.eq(user.clone()))
        .exec(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("settling bytes", error))
}

/// Sets the allowance.
pub async fn set_quota<C: Conn>(
    db: &C,
    user: &UserId,
    quota_bytes: i64,
    now: Timestamp,
) -> Result<Model> {
    make_if_absent(db, user, now).await?;
    let row = ActiveModel {
        user_id: NotSet,
        quota_bytes: Set(Some(quota_bytes)),
        used_bytes: NotSet,
        reserved_bytes: NotSet,
        created_at: NotSet,
        updated_at: Set(now),
    };
    Entity::update_many()
        .set(row)
        .filter(Column::UserId.eq(user.clone()))
        .exec(db)
        .await
        .map_err(|error| db_error("changing a quota", error))?;
    load_or_make(db, user, now).await
}

/// An account beside what its clips really add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Whose.
    pub user_id: UserId,
    /// What the account says.
    pub used_bytes: i64,
    /// What the account says.
    pub reserved_bytes: i64,
    /// Sum over ready clips.
    pub true_used: i64,
    /// Sum over clips being made.
    pub true_reserved: i64,
}

impl Audited {
    /// Whether the two agree.
    pub fn is_true(&self) -> bool {
        self.used_bytes == self.true_used && self.reserved_bytes == self.true_reserved
    }
}

/// Every account beside the sums of its clips. Take it inside a transaction: a settlement between the reads would
/// look like drift.
pub async fn audit(tx: &Tx) -> Result<Vec<Audited>> {
    let used = sums(tx, clip::Column::SizeBytes, ClipStatus::Ready).await?;
    let reserved = sums(tx, clip::Column::ReservedBytes, ClipStatus::Processing).await?;
    let accounts =
        Entity::find().all(tx).await.map_err(|error| db_error("listing accounts", error))?;
    Ok(accounts
        .into_iter()
        .map(|account| Audited {
            true_used: used.get(&account.user_id).copied().unwrap_or(0),
            true_reserved: reserved.get(&account.user_id).copied().unwrap_or(0),
            user_id: account.user_id,
            used_bytes: account.used_bytes,
            reserved_bytes: account.reserved_bytes,
        })
        .collect())
}

/// Writes the true sums into an account.
pub async fn correct(tx: &Tx, audited: &Audited) -> Result<()> {
    Entity::update_many()
        .col_expr(Column::UsedBytes, Expr::value(audited.true_used))
        .col_expr(Column::ReservedBytes, Expr::value(audited.true_reserved))
        .filter(Column::UserId.eq(audited.user_id.clone()))
        .exec(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("correcting an account", error))
}

#[derive(Debug, FromQueryResult)]
struct Sum {
    user_id: UserId,
    total: i64,
}

async fn sums<C: ConnectionTrait>(
    db: &C,
    column: clip::Column,
    status: ClipStatus,
) -> Result<std::collections::HashMap<UserId, i64>> {
    let rows = clip::Entity::find()
        .select_only()
        .column(clip::Column::UserId)
        // SUM(bigint) is NUMERIC on PostgreSQL
        .column_as(Expr::col(column).sum().cast_as("bigint"), "total")
        .filter(clip::Column::Status.eq(status))
        .group_by(clip::Column::UserId)
        .into_model::<Sum>()
        .all(db)
        .await
        .map_err(|error| db_error("adding up clips", error))?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.total)).collect())
}
