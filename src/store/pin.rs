//! Pins: what keeps a window of a session from cleanup. A pin covers a window, not a list of files: segments that
//! arrive later inside it are kept as well.

use sea_orm::{
    ActiveValue::Set, Condition, QueryOrder, QuerySelect, entity::prelude::*, sea_query::Query,
};

use super::{Conn, Tx, clip, db_error};
use crate::{
    domain::{
        id::{ClipId, PinId, SessionId},
        lifecycle::ClipStatus,
        time::{Timestamp, Window},
    },
    error::Result,
};

/// A pin row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pin")]
pub struct Model {
    /// Ours.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: PinId,
    /// Whose segments.
    pub session_id: SessionId,
    /// For which clip.
    pub clip_id: ClipId,
    /// Screen time.
    pub from_at: Timestamp,
    /// Screen time.
    pub to_at: Timestamp,
    /// Gone after that moment (a failed clip's time for a retry); `None` = while the clip is being made.
    pub expires_at: Option<Timestamp>,
    /// Row made.
    pub created_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// What it keeps.
    pub fn window(&self) -> Window {
        Window::new(self.from_at, self.to_at)
    }
}

/// Sets a pin. Call [`super::session::lock_for_pins`] first in the same transaction.
pub async fn insert(
    tx: &Tx,
    session: &SessionId,
    clip: &ClipId,
    window: Window,
    now: Timestamp,
) -> Result<()> {
    let row = ActiveModel {
        id: Set(PinId::generate()),
        session_id: Set(session.clone()),
        clip_id: Set(clip.clone()),
        from_at: Set(window.from),
        to_at: Set(window.to),
        expires_at: Set(None),
        created_at: Set(now),
    };
    Entity::insert(row)
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("setting a pin", error))
}

/// Lets a pin hold until a moment that its owner moves on while he lives: what he leaves behind is let go by itself.
pub async fn insert_lease(
    tx: &Tx,
    session: &SessionId,
    owner: &ClipId,
    window: Window,
    until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    insert(tx, session, owner, window, now).await?;
    set_expiry(tx, owner, Some(until)).await
}

/// A session's pins that hold at `now`.
pub async fn list_holding<C: Conn>(
    db: &C,
    session: &SessionId,
    now: Timestamp,
) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Condition::any().add(Column::ExpiresAt.is_null()).add(Column::ExpiresAt.gt(now)))
        .all(db)
        .await
        .map_err(|error| db_error("listing a session's pins", error))
}

/// The pin of a clip.
pub async fn find_of_clip<C: Conn>(db: &C, clip: &ClipId) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::ClipId.eq(clip.clone()))
        .order_by_desc(Column::CreatedAt)
        .one(db)
        .await
        .map_err(|error| db_error("reading a clip's pin", error))
}

/// Lets go of a clip's segments at once.
pub async fn delete_of_clip<C: Conn>(db: &C, clip: &ClipId) -> Result<()> {
    Entity::delete_many()
        .filter(Column::ClipId.eq(clip.clone()))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("deleting a pin", error))
}

/// Sets or clears the moment after which a clip's pin no longer holds.
pub async fn set_expiry<C: Conn>(
    db: &C,
    clip: &ClipId,
    expires_at: Option<Timestamp>,
) -> Result<()> {
    Entity::update_many()
        .set(ActiveModel { expires_at: Set(expires_at), ..Default::default() })
        .filter(Column::ClipId.eq(clip.clone()))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("changing a pin's expiry", error))
}

/// Has a pin that would end hold again without an end; false if it is gone already. The pin is made anew: a deletion of stale
/// pins that waits for this very row would take it for stale after the commit, too, because PostgreSQL looks at the rest of
/// its statement as it was before.
pub async fn hold_again(tx: &Tx, pin: &Model, now: Timestamp) -> Result<bool> {
    let gone = Entity::delete_by_id(pin.id.clone())
        .exec(tx)
        .await
        .map_err(|error| db_error("renewing a pin", error))?;
    if gone.rows_affected == 0 {
        return Ok(false);
    }
    insert(tx, &pin.session_id, &pin.clip_id, pin.window(), now).await?;
    Ok(true)
}

/// Deletes pins that no longer hold, and pins whose clip is no longer being made and set no expiry; says how many.
pub async fn delete_stale<C: Conn>(db: &C, now: Timestamp) -> Result<u64> {
    let processing = Query::select()
        .column(clip::Column::Id)
        .from(clip::Entity)
        .and_where(clip::Column::Status.eq(ClipStatus::Processing))
        .to_owned();
    let outcome = Entity::delete_many()
        .filter(
            Condition::any().add(Column::ExpiresAt.lte(now)).add(
                Condition::all()
                    .add(Column::ExpiresAt.is_null())
                    .add(Column::ClipId.not_in_subquery(processing)),
            ),
        )
        .exec(db)
        .await
        .map_err(|error| db_error("deleting stale pins", error))?;
    Ok(outcome.rows_affected)
}

/// Sessions that have a pin which holds at `now`.
pub async fn list_pinned_sessions<C: Conn>(db: &C, now: Timestamp) -> Result<Vec<SessionId>> {
    Entity::find()
        .select_only()
        .column(Column::SessionId)
        .distinct()
        .filter(Condition::any().add(Column::ExpiresAt.is_null()).add(Column::ExpiresAt.gt(now)))
        .into_tuple::<SessionId>()
        .all(db)
        .await
        .map_err(|error| db_error("listing pinned sessions", error))
}
