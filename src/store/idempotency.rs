//! Answers kept for repeated requests with the same `Idempotency-Key`: one per user, route and key. The first
//! request holds the row while it runs; only an accepted answer stays.

use sea_orm::{ActiveValue::Set, Condition, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, db_error};
use crate::{
    domain::{id::UserId, time::Timestamp},
    error::Result,
};

/// A kept answer.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency")]
pub struct Model {
    /// Who asked.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    /// Which route.
    #[sea_orm(primary_key, auto_increment = false)]
    pub route: String,
    /// The caller's key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// Hash of the body: another body under the same key is refused.
    pub request_hash: String,
    /// HTTP status of the answer; `None` while the first request runs.
    pub status: Option<i32>,
    /// The answer.
    pub body: Option<String>,
    /// Its `Location`.
    pub location: Option<String>,
    /// A first request that did not end until then is dead.
    pub lease_until: Timestamp,
    /// Kept until then.
    pub expires_at: Timestamp,
    /// Row made.
    pub created_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Claims the key; false if it is taken.
pub async fn claim<C: Conn>(db: &C, row: Model) -> Result<bool> {
    let active: ActiveModel = row.into();
    let inserted = Entity::insert(active.reset_all())
        .on_conflict(
            OnConflict::columns([Column::UserId, Column::Route, Column::Key])
                .do_nothing()
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .map_err(|error| db_error("claiming an idempotency key", error))?;
    Ok(inserted > 0)
}

/// The row of the key.
pub async fn find<C: Conn>(db: &C, user: &UserId, route: &str, key: &str) -> Result<Option<Model>> {
    Entity::find_by_id((user.clone(), route.to_owned(), key.to_owned()))
        .one(db)
        .await
        .map_err(|error| db_error("reading an idempotency key", error))
}

/// One claim of a key: whoever claims it after this one's lease has run out has another `since`.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Who asked.
    pub user: &'a UserId,
    /// Which route.
    pub route: &'a str,
    /// The caller's key.
    pub key: &'a str,
    /// [`Model::created_at`].
    pub since: Timestamp,
}

impl Held<'_> {
    fn is_it(self) -> Condition {
        Condition::all()
            .add(Column::UserId.eq(self.user.clone()))
            .add(Column::Route.eq(self.route))
            .add(Column::Key.eq(self.key))
            .add(Column::CreatedAt.eq(self.since))
    }
}

/// Keeps the answer; false if the key is somebody else's by now.
pub async fn keep<C: Conn>(
    db: &C,
    held: Held<'_>,
    status: i32,
    body: String,
    location: Option<String>,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel {
            status: Set(Some(status)),
            body: Set(Some(body)),
            location: Set(location),
            ..Default::default()
        })
        .filter(held.is_it())
        .exec(db)
        .await
        .map_err(|error| db_error("keeping an answer", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Frees the keys of requests that run, all of whose processes are known to be dead; says how many.
pub async fn release_open<C: Conn>(db: &C) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::Status.is_null())
        .exec(db)
        .await
        .map_err(|error| db_error("freeing the keys of dead requests", error))?;
    Ok(outcome.rows_affected)
}

/// Frees a key whose request was not accepted, if it is still held by it.
pub async fn release<C: Conn>(db: &C, held: Held<'_>) -> Result<()> {
    Entity::delete_many()
        .filter(held.is_it())
        .filter(Column::Status.is_null())
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("freeing an idempotency key", error))
}

/// Frees a key whose first request is dead or whose answer is no longer kept; false if it is alive or kept.
pub async fn release_dead<C: Conn>(db: &C, row: &Model, now: Timestamp) -> Result<bool> {
    let outcome = Entity::delete_many()
        .filter(Column::UserId.eq(row.user_id.clone()))
        .filter(Column::Route.eq(row.route.clone()))
        .filter(Column::Key.eq(row.key.clone()))
        .filter(
            Condition::any()
                .add(Condition::all().add(Column::Status.is_null()).add(Column::LeaseUntil.lt(now)))
                .add(Column::ExpiresAt.lte(now)),
        )
        .exec(db)
        .await
        .map_err(|error| db_error("freeing a dead idempotency key", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Deletes what is no longer kept; says how many.
pub async fn delete_expired<C: Conn>(db: &C, now: Timestamp) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::ExpiresAt.lt(now))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting expired idempotency keys", error))?;
    Ok(outcome.rows_affected)
}
