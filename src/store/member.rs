//! Who has which role where. `*` as community means everywhere (instance-wide roles).

use sea_orm::{ActiveValue::Set, QueryOrder, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, Tx, db_error};
use crate::{
    domain::{
        id::{CommunityId, UserId},
        time::Timestamp,
    },
    error::Result,
};

/// The community of instance-wide roles.
pub const EVERYWHERE: &str = "*";

/// One role of one user in one community.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "member_role")]
pub struct Model {
    /// Where; `*` = everywhere.
    #[sea_orm(primary_key, auto_increment = false)]
    pub community_id: CommunityId,
    /// Who.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    /// Which role.
    #[sea_orm(primary_key, auto_increment = false)]
    pub role: String,
    /// Granted.
    pub created_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// When a member was removed last: token roles issued before count no more.
pub mod removal {
    use super::*;

    /// A removal.
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "member_removal")]
    pub struct Model {
        /// Where.
        #[sea_orm(primary_key, auto_increment = false)]
        pub community_id: CommunityId,
        /// Who.
        #[sea_orm(primary_key, auto_increment = false)]
        pub user_id: UserId,
        /// When.
        pub removed_at: Timestamp,
    }

    /// No relations are followed.
    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The user's roles everywhere, in every community.
pub async fn list_of_user<C: Conn>(db: &C, user: &UserId) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .order_by_asc(Column::CommunityId)
        .order_by_asc(Column::Role)
        .all(db)
        .await
        .map_err(|error| db_error("listing a user's roles", error))
}

/// The user's roles in some places.
pub async fn list_held<C: Conn>(
    db: &C,
    user: &UserId,
    places: &[CommunityId],
) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::CommunityId.is_in(places.iter().cloned()))
        .order_by_asc(Column::CommunityId)
        .order_by_asc(Column::Role)
        .all(db)
        .await
        .map_err(|error| db_error("listing a user's roles", error))
}

/// Whether a user has a role in a community by a row.
pub async fn has<C: Conn>(
    db: &C,
    community: &CommunityId,
    user: &UserId,
    role: &str,
) -> Result<bool> {
    let found = Entity::find_by_id((community.clone(), user.clone(), role.to_owned()))
        .one(db)
        .await
        .map_err(|error| db_error("looking for a role", error))?;
    Ok(found.is_some())
}

/// Grants a role; twice is once.
pub async fn grant<C: Conn>(
    db: &C,
    community: &CommunityId,
    user: &UserId,
    role: &str,
    now: Timestamp,
) -> Result<()> {
    let row = ActiveModel {
        community_id: Set(community.clone()),
        user_id: Set(user.clone()),
        role: Set(role.to_owned()),
        created_at: Set(now),
    };
    Entity::insert(row)
        .on_conflict(
            OnConflict::columns([Column::CommunityId, Column::UserId, Column::Role])
                .do_nothing()
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("granting a role", error))
}

/// Takes a role away; says whether it was there.
pub async fn revoke<C: Conn>(
    db: &C,
    community: &CommunityId,
    user: &UserId,
    role: &str,
) -> Result<bool> {
    let outcome = Entity::delete_by_id((community.clone(), user.clone(), role.to_owned()))
        .exec(db)
        .await
        .map_err(|error| db_error("revoking a role", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Takes a role away from everybody who has it in a community.
pub async fn revoke_from_all<C: Conn>(db: &C, community: &CommunityId, role: &str) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::CommunityId.eq(community.clone()))
        .filter(Column::Role.eq(role))
        .exec(db)
        .await
        .map_err(|error| db_error("revoking a role from all", error))?;
    Ok(outcome.rows_affected)
}

/// Removes a member: all roles there go, and roles in tokens issued until now count no more.
pub async fn remove(tx: &Tx, community: &CommunityId, user: &UserId, now: Timestamp) -> Result<()> {
    Entity::delete_many()
        .filter(Column::CommunityId.eq(community.clone()))
        .filter(Column::UserId.eq(user.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("removing a member", error))?;
    let row = removal::ActiveModel {
        community_id: Set(community.clone()),
        user_id: Set(user.clone()),
        removed_at: Set(now),
    };
    removal::Entity::insert(row)
        .on_conflict(
            OnConflict::columns([removal::Column::CommunityId, removal::Column::UserId])
                .update_column(removal::Column::RemovedAt)
                .to_owned(),
        )
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("recording a removal", error))
}

/// The user's removals from some places.
pub async fn list_removals<C: Conn>(
    db: &C,
    user: &UserId,
    places: &[CommunityId],
) -> Result<Vec<removal::Model>> {
    removal::Entity::find()
        .filter(removal::Column::UserId.eq(user.clone()))
        .filter(removal::Column::CommunityId.is_in(places.iter().cloned()))
        .all(db)
        .await
        .map_err(|error| db_error("listing removals", error))
}
