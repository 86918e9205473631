//! A user's bytes: the allowance, what ready clips take, what accepted captures have reserved. Every change is one
//! conditional update, so parallel captures cannot overshoot.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ConnectionTrait, FromQueryResult, QuerySelect, QueryTrait,
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

/// The account, made if there is none, and nobody else's to change until the transaction ends.
pub async fn lock(tx: &Tx, user: &UserId, now: Timestamp) -> Result<Model> {
    make_if_absent(tx, user, now).await?;
    find_locked(tx, user)
        .await?
        .ok_or_else(|| Error::internal("reading an account just made", user.to_string()))
}

async fn find_locked(tx: &Tx, user: &UserId) -> Result<Option<Model>> {
    // SQLite has no such locks: its transactions write one after the other from their beginning
    let row = Entity::find_by_id(user.clone()).lock_exclusive().one(tx).await;
    row.map_err(|error| db_error("locking an account", error))
}

/// Reserves `bytes` if they fit; else answers the account that they do not fit into.
pub async fn reserve(
    tx: &Tx,
    user: &UserId,
    bytes: i64,
    default_quota: i64,
    now: Timestamp,
) -> Result<Result<(), Model>> {
    make_if_absent(tx, user, now).await?;
    if reserve_if_free(tx, user, bytes, default_quota).await? {
        return Ok(Ok(()));
    }
    // Between the update and a look at the row bytes come back and quotas change: only under its lock are the figures
    // that are told those that leave no room.
    let account = lock(tx, user, now).await?;
    if reserve_if_free(tx, user, bytes, default_quota).await? {
        Ok(Ok(()))
    } else {
        Ok(Err(account))
    }
}

async fn reserve_if_free(tx: &Tx, user: &UserId, bytes: i64, default_quota: i64) -> Result<bool> {
    let quota = Func::coalesce([Expr::col(Column::QuotaBytes), Expr::value(default_quota)]);
    let wanted = Expr::col(Column::UsedBytes).add(Expr::col(Column::ReservedBytes)).add(bytes);
    let outcome = Entity::update_many()
        .col_expr(Column::ReservedBytes, plus(Column::ReservedBytes, bytes))
        .filter(Column::UserId.eq(user.clone()))
        .filter(wanted.lte(quota))
        .exec(tx)
        .await
        .map_err(|error| db_error("reserving bytes", error))?;
    Ok(outcome.rows_affected > 0)
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

/// Bytes reserved for clips that are being made, of everybody.
pub async fn sum_reserved<C: Conn>(db: &C) -> Result<u64> {
    let rows = Entity::find()
        .select_only()
        .column(Column::ReservedBytes)
        .filter(Column::ReservedBytes.gt(0))
        .into_tuple::<i64>()
        .all(db)
        .await
        .map_err(|error| db_error("adding up reservations", error))?;
    let bytes = rows.into_iter().map(|bytes| u64::try_from(bytes).unwrap_or(0));
    Ok(bytes.fold(0, u64::saturating_add))
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

/// Every account beside the sums of its clips. Take it inside [`super::Db::begin_snapshot`]: a settlement between the
/// reads would look like drift.
pub async fn audit(tx: &Tx) -> Result<Vec<Audited>> {
    let used = sums(tx, clip::Column::SizeBytes, ClipStatus::Ready, None).await?;
    let reserved = sums(tx, clip::Column::ReservedBytes, ClipStatus::Processing, None).await?;
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

/// Writes the true sums into an account if it has others; says whether it had. They are added up under the account's
/// lock, which every change of a clip's bytes needs before its commit: sums of a moment ago would undo what was settled
/// since. Not inside a snapshot.
pub async fn correct(tx: &Tx, user: &UserId) -> Result<bool> {
    let Some(account) = find_locked(tx, user).await? else { return Ok(false) };
    let used = sums(tx, clip::Column::SizeBytes, ClipStatus::Ready, Some(user)).await?;
    let reserved =
        sums(tx, clip::Column::ReservedBytes, ClipStatus::Processing, Some(user)).await?;
    let of = |sums: &HashMap<UserId, i64>| sums.get(user).copied().unwrap_or(0);
    let (used, reserved) = (of(&used), of(&reserved));
    if (account.used_bytes, account.reserved_bytes) == (used, reserved) {
        return Ok(false);
    }
    Entity::update_many()
        .col_expr(Column::UsedBytes, Expr::value(used))
        .col_expr(Column::ReservedBytes, Expr::value(reserved))
        .filter(Column::UserId.eq(user.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("correcting an account", error))?;
    Ok(true)
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
    user: Option<&UserId>,
) -> Result<HashMap<UserId, i64>> {
    let rows = clip::Entity::find()
        .select_only()
        .column(clip::Column::UserId)
        // SUM(bigint) is NUMERIC on PostgreSQL
        .column_as(Expr::col(column).sum().cast_as("bigint"), "total")
        .filter(clip::Column::Status.eq(status))
        .apply_if(user, |query, user| query.filter(clip::Column::UserId.eq(user.clone())))
        .group_by(clip::Column::UserId)
        .into_model::<Sum>()
        .all(db)
        .await
        .map_err(|error| db_error("adding up clips", error))?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.total)).collect())
}
