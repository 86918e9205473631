//! The few values that are made once with the database: who we are, what we sign links with.

use sea_orm::{ActiveValue::Set, QuerySelect, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, Tx, db_error};
use crate::error::Result;

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "setting")]
pub struct Model {
    /// The name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// Its value.
    pub value: String,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The eight hex digits that mark what is ours in the stores.
pub const INSTANCE_ID: &str = "instance_id";
/// When the database was made, Unix microseconds.
pub const BORN_AT: &str = "born_at";
/// The key of signed links, hex; or what goes into it beside a configured one.
pub const LINK_SECRET: &str = "link_secret";
/// Raised with every change of roles or their permissions.
pub const POLICY_VERSION: &str = "policy_version";
/// Set once the default rules were written, so that one an administrator removed never comes back.
pub const POLICY_SEEDED: &str = "policy_seeded";

/// The value of `key`.
pub async fn find<C: Conn>(db: &C, key: &str) -> Result<Option<String>> {
    let row = Entity::find_by_id(key)
        .one(db)
        .await
        .map_err(|error| db_error("reading a setting", error))?;
    Ok(row.map(|row| row.value))
}

/// The value of `key`, which becomes `fresh` if there is none yet; whoever is first decides for all replicas.
pub async fn load_or_make<C: Conn>(db: &C, key: &str, fresh: String) -> Result<String> {
    let row = ActiveModel { key: Set(key.to_owned()), value: Set(fresh) };
    Entity::insert(row)
        .on_conflict(OnConflict::column(Column::Key).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map_err(|error| db_error("making a setting", error))?;
    find(db, key)
        .await?
        .ok_or_else(|| crate::error::Error::internal("reading a setting just made", key.to_owned()))
}

/// Sets `key` to `value`.
pub async fn set<C: Conn>(db: &C, key: &str, value: String) -> Result<()> {
    let row = ActiveModel { key: Set(key.to_owned()), value: Set(value) };
    Entity::insert(row)
        .on_conflict(OnConflict::column(Column::Key).update_column(Column::Value).to_owned())
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("writing a setting", error))
}

/// Makes whoever comes here next wait until this transaction ends.
pub async fn lock(tx: &Tx, key: &str) -> Result<()> {
    // SQLite has no such locks: its transactions write one after the other from their beginning
    let row = Entity::find_by_id(key).lock_exclusive().one(tx).await;
    row.map(drop).map_err(|error| db_error("locking a setting", error))
}
