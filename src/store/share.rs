//! Shares of clips: who got a link that needs no login. The link's secret part is kept as a hash alone.

use sea_orm::{ActiveValue::Set, Condition, QueryOrder, entity::prelude::*};

use super::{Conn, Tx, db_error};
use crate::{
    domain::{
        id::{ClipId, ShareId, UserId},
        text_enum::text_enum,
        time::Timestamp,
    },
    error::Result,
};

text_enum!(
    /// Where a share goes.
    Destination {
        /// Nowhere: its owner passes the link on himself.
        Link = "link",
        /// A person.
        Dm = "dm",
        /// A channel of the app's.
        Channel = "channel",
    }
);
super::columns::text_column!(Destination => |text| Destination::from_name(&text));

/// A share.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "clip_share")]
pub struct Model {
    /// Ours.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ShareId,
    /// What is shared.
    pub clip_id: ClipId,
    /// Who shared it.
    pub user_id: UserId,
    /// SHA-256 of the link's secret part, hex.
    pub token_hash: String,
    /// Where it went.
    pub destination: Destination,
    /// The person or channel.
    pub target_id: Option<String>,
    /// The app's name of the message with the link.
    pub message_id: Option<String>,
    /// Shared.
    pub created_at: Timestamp,
    /// From then on the link does not work; `None` = as long as the clip.
    pub expires_at: Option<Timestamp>,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Inserts a share.
pub async fn insert(tx: &Tx, row: Model) -> Result<()> {
    let active: ActiveModel = row.into();
    Entity::insert(active.reset_all())
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("inserting a share", error))
}

/// A share.
pub async fn find<C: Conn>(db: &C, id: &ShareId) -> Result<Option<Model>> {
    Entity::find_by_id(id.clone()).one(db).await.map_err(|error| db_error("reading a share", error))
}

/// The share whose link has that hash.
pub async fn find_by_token<C: Conn>(db: &C, token_hash: &str) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::TokenHash.eq(token_hash))
        .one(db)
        .await
        .map_err(|error| db_error("reading a share", error))
}

/// A clip's shares whose links work at `now`, newest first.
pub async fn list_of_clip<C: Conn>(db: &C, clip: &ClipId, now: Timestamp) -> Result<Vec<Model>> {
    let works = Condition::any().add(Column::ExpiresAt.is_null()).add(Column::ExpiresAt.gt(now));
    Entity::find()
        .filter(Column::ClipId.eq(clip.clone()))
        .filter(works)
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .all(db)
        .await
        .map_err(|error| db_error("listing a clip's shares", error))
}

/// Remembers the message that carries the link.
pub async fn set_message<C: Conn>(db: &C, id: &ShareId, message: &str) -> Result<()> {
    Entity::update_many()
        .set(ActiveModel { message_id: Set(Some(message.to_owned())), ..Default::default() })
        .filter(Column::Id.eq(id.clone()))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("remembering a message", error))
}

/// Deletes a share of that clip; says whether there was one.
pub async fn delete<C: Conn>(db: &C, clip: &ClipId, id: &ShareId) -> Result<bool> {
    let outcome = Entity::delete_many()
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::ClipId.eq(clip.clone()))
        .exec(db)
        .await
        .map_err(|error| db_error("deleting a share", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Deletes all shares of a clip; says how many.
pub async fn delete_of_clip(tx: &Tx, clip: &ClipId) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::ClipId.eq(clip.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("deleting a clip's shares", error))?;
    Ok(outcome.rows_affected)
}

/// Deletes shares whose time is over; says how many.
pub async fn delete_expired(tx: &Tx, now: Timestamp) -> Result<u64> {
    let outcome = Entity::delete_many()
        .filter(Column::ExpiresAt.lte(now))
        .exec(tx)
        .await
        .map_err(|error| db_error("deleting expired shares", error))?;
    Ok(outcome.rows_affected)
}
