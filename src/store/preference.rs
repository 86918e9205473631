//! What users want for themselves. A user without a row wants what everybody gets.

use sea_orm::{ActiveValue::Set, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, db_error};
use crate::{
    domain::{id::UserId, time::Timestamp},
    error::Result,
};

/// A user's wishes.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "user_preference")]
pub struct Model {
    /// Who.
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    /// Whether a share of his may start a buffer by itself, where the community wants that.
    pub auto_start: bool,
    /// Row last changed.
    pub updated_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A user's wishes, if he ever said any.
pub async fn find<C: Conn>(db: &C, user: &UserId) -> Result<Option<Model>> {
    Entity::find_by_id(user.clone())
        .one(db)
        .await
        .map_err(|error| db_error("reading preferences", error))
}

/// Says whether a user's shares may start a buffer by themselves.
pub async fn set_auto_start<C: Conn>(
    db: &C,
    user: &UserId,
    auto_start: bool,
    now: Timestamp,
) -> Result<()> {
    let row = ActiveModel {
        user_id: Set(user.clone()),
        auto_start: Set(auto_start),
        updated_at: Set(now),
    };
    Entity::insert(row)
        .on_conflict(
            OnConflict::column(Column::UserId)
                .update_columns([Column::AutoStart, Column::UpdatedAt])
                .to_owned(),
        )
        .exec_without_returning(db)
        .await
        .map(drop)
        .map_err(|error| db_error("writing preferences", error))
}
