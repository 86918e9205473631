//! What a role may do where: casbin's rules, as rows. The enforcer itself is `access`'s.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    QueryOrder,
    entity::prelude::*,
    sea_query::OnConflict,
};

use super::{Conn, Tx, db_error, setting};
use crate::error::Result;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "casbin_rule")]
pub struct Model {
    /// Row number.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// `p`.
    pub ptype: String,
    /// Subject: `r:<role>`.
    pub v0: String,
    /// Domain: `c:<community>` or `*`.
    pub v1: String,
    /// Permission.
    pub v2: String,
    /// Unused.
    pub v3: String,
    /// Unused.
    pub v4: String,
    /// Unused.
    pub v5: String,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// All rules by row number.
pub async fn list<C: Conn>(db: &C) -> Result<Vec<Model>> {
    Entity::find()
        .order_by_asc(Column::Id)
        .all(db)
        .await
        .map_err(|error| db_error("listing rules", error))
}

/// Adds `p, subject, domain, permission`; twice is once.
pub async fn add<C: Conn>(db: &C, subject: &str, domain: &str, permission: &str) -> Result<()> {
    let row = ActiveModel {
        id: NotSet,
        ptype: Set("p".to_owned()),
        v0: Set(subject.to_owned()),
        v1: Set(domain.to_owned()),
        v2: Set(permission.to_owned()),
        v3: Set(String::new()),
        v4: Set(String::new()),
        v5: Set(String::new()),
    };
    Entity::insert(row)
        .on_conflict(
            OnConflict::columns([
                Column::Ptype,
                Column::V0,
                Column::V1,
                Column::V2,
                Column::V3,
                Column::V4,
                Column::V5,
            ])
            .do_nothing()
            .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("adding a rule", error))
}

/// The permissions that rules give a subject in a domain, by row number.
pub async fn list_of<C: Conn>(db: &C, subject: &str, domain: &str) -> Result<Vec<String>> {
    let rows = Entity::find()
        .filter(Column::V0.eq(subject))
        .filter(Column::V1.eq(domain))
        .order_by_asc(Column::Id)
        .all(db)
        .await
        .map_err(|error| db_error("listing a role's rules", error))?;
    Ok(rows.into_iter().map(|row| row.v2).collect())
}

/// Deletes every rule of a subject in a domain; says how many there were.
pub async fn delete_of<C: Conn>(db: &C, subject: &str, domain: &str) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::V0.eq(subject))
        .filter(Column::V1.eq(domain))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting rules", error))?;
    Ok(outcome.rows_affected)
}

/// Tells every replica that rules changed: to be called in the changing transaction.
pub async fn bump_version(tx: &Tx) -> Result<()> {
    setting::set(tx, setting::POLICY_VERSION, uuid::Uuid::now_v7().to_string()).await
}

/// Whether there is a rule of a subject in a domain.
pub async fn is_defined<C: Conn>(db: &C, subject: &str, domain: &str) -> Result<bool> {
    let row = Entity::find()
        .filter(Column::V0.eq(subject))
        .filter(Column::V1.eq(domain))
        .one(db)
        .await
        .map_err(|error| db_error("looking for a rule", error))?;
    Ok(row.is_some())
}
