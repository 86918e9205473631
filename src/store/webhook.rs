//! Webhooks seen, by LiveKit's event id: retries and doubles are applied once.

use sea_orm::{ActiveValue::Set, entity::prelude::*, sea_query::OnConflict};

use super::{Conn, db_error};
use crate::{domain::time::Timestamp, error::Result};

/// An event seen.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_seen")]
pub struct Model {
    /// `EV_…`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// When it came first.
    pub received_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Remembers an event; false if it was seen before.
pub async fn remember<C: Conn>(db: &C, id: &str, now: Timestamp) -> Result<bool> {
    let row = ActiveModel { id: Set(id.to_owned()), received_at: Set(now) };
    let inserted = Entity::insert(row)
        .on_conflict(OnConflict::column(Column::Id).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map_err(|error| db_error("remembering a webhook", error))?;
    Ok(inserted > 0)
}

/// Forgets events seen before `before`; says how many.
pub async fn delete_before<C: Conn>(db: &C, before: Timestamp) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::ReceivedAt.lt(before))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting old webhooks", error))?;
    Ok(outcome.rows_affected)
}
