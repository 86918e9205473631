//! Sessions: one user's replay buffer in one room. A status changes only if it still is what the caller thought,
//! and a place is given back by the statement that ends its holding, so no crash can leak one.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    Condition, QueryOrder, QuerySelect,
    entity::prelude::*,
};

use super::{Conn, Page, Tx, community, db_error, is_unique_violation, schema::plus};
use crate::{
    domain::{
        id::{CommunityId, Identity, RoomName, SessionId, TrackId, UserId},
        lifecycle::{EndReason, SessionStatus},
        time::Timestamp,
    },
    error::{Error, Result},
};

/// A session row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "session")]
pub struct Model {
    /// Ours.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SessionId,
    /// The person on the screen.
    pub user_id: UserId,
    /// Who pressed start (a manager may start somebody else's).
    pub started_by: UserId,
    /// The name in the caller's token.
    pub username: Option<String>,
    /// The tenant, if the room has one.
    pub community_id: Option<CommunityId>,
    /// The LiveKit room.
    pub room_name: RoomName,
    /// The participant whose share is recorded (of the newest epoch).
    pub identity: Identity,
    /// The picture that is recorded (of the newest epoch); `None` in rows of an older release.
    pub video_track_id: Option<TrackId>,
    /// As asked: `720p`, `1080p`, `1440p`, `source`.
    pub quality: String,
    /// Where the session stands.
    pub status: SessionStatus,
    /// Whether it counts against the user's and the community's places.
    pub holds_place: bool,
    /// Started by a webhook rather than a request.
    pub auto_started: bool,
    /// The newest epoch's number.
    pub current_epoch: i32,
    /// Pixels of the source, 0 if LiveKit did not say.
    pub source_width: i32,
    /// Pixels of the source, 0 if LiveKit did not say.
    pub source_height: i32,
    /// The moment the start was accepted; never changes.
    pub started_at: Timestamp,
    /// The moment it ended (stop asked, share gone for good).
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub end_reason: Option<EndReason>,
    /// Until then the promised minutes stay.
    pub capturable_until: Option<Timestamp>,
    /// Screen time of the first indexed frame.
    pub media_starts_at: Option<Timestamp>,
    /// Screen time of the end of the last indexed frame.
    pub media_ends_at: Option<Timestamp>,
    /// Since when no share is seen.
    pub share_lost_at: Option<Timestamp>,
    /// Failed attempts to replace an egress in a row.
    pub restart_attempts: i32,
    /// Not before then is the next attempt made.
    pub restart_at: Option<Timestamp>,
    /// Highest bytes per second of any segment.
    pub highest_rate: i64,
    /// Raised by pins and condemnations: the row on which the two meet.
    pub pin_seq: i64,
    /// The owner asked for the buffer to go.
    pub discard: bool,
    /// Raised when links to the recording made so far shall no longer work.
    pub link_generation: i32,
    /// When a stop was asked.
    pub stop_requested_at: Option<Timestamp>,
    /// When directory and segments were gone.
    pub buffer_gone_at: Option<Timestamp>,
    /// Row made.
    pub created_at: Timestamp,
    /// Row last changed.
    pub updated_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// What an insert met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The row is there and holds its places.
    Yes,
    /// The user holds a place already; the transaction is spoilt and must be rolled back.
    PlaceTaken,
}

/// Inserts a session that holds its user's place.
pub async fn insert(tx: &Tx, row: Model) -> Result<Inserted> {
    let active: ActiveModel = row.into();
    match Entity::insert(active.reset_all()).exec_without_returning(tx).await {
        Ok(_) => Ok(Inserted::Yes),
        Err(error) if is_unique_violation(&error) => Ok(Inserted::PlaceTaken),
        Err(error) => Err(db_error("inserting a session", error)),
    }
}

/// The session of that id.
pub async fn find<C: Conn>(db: &C, id: &SessionId) -> Result<Option<Model>> {
    Entity::find_by_id(id.clone())
        .one(db)
        .await
        .map_err(|error| db_error("reading a session", error))
}

/// The session of that id, or `not_found`.
pub async fn load<C: Conn>(db: &C, id: &SessionId) -> Result<Model> {
    find(db, id).await?.ok_or_else(|| Error::not_found("session"))
}

/// The session that holds the user's place.
pub async fn find_holding<C: Conn>(db: &C, user: &UserId) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::HoldsPlace.eq(true))
        .one(db)
        .await
        .map_err(|error| db_error("looking for the user's active session", error))
}

/// The user's sessions that still hold media or a place, newest first.
pub async fn list_capturable<C: Conn>(db: &C, user: &UserId, now: Timestamp) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(
            Condition::any().add(Column::HoldsPlace.eq(true)).add(
                Condition::all()
                    .add(Column::BufferGoneAt.is_null())
                    .add(Column::Discard.eq(false))
                    .add(Column::CapturableUntil.gt(now)),
            ),
        )
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(100)
        .all(db)
        .await
        .map_err(|error| db_error("listing a user's sessions", error))
}

/// Sessions of a room that hold a place, newest first.
pub async fn list_holding_in_room<C: Conn>(db: &C, room: &RoomName) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::RoomName.eq(room.clone()))
        .filter(Column::HoldsPlace.eq(true))
        .order_by_desc(Column::CreatedAt)
        .limit(1000)
        .all(db)
        .await
        .map_err(|error| db_error("listing a room's sessions", error))
}

/// Sessions in any of `statuses`, oldest first.
pub async fn list_in<C: Conn>(db: &C, statuses: &[SessionStatus]) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::Status.is_in(statuses.iter().copied()))
        .order_by_asc(Column::CreatedAt)
        .all(db)
        .await
        .map_err(|error| db_error("listing sessions by status", error))
}

/// Sessions whose directory may still be there, oldest first.
pub async fn list_with_buffer<C: Conn>(db: &C) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::BufferGoneAt.is_null())
        .order_by_asc(Column::CreatedAt)
        .all(db)
        .await
        .map_err(|error| db_error("listing sessions with a buffer", error))
}

/// The user's newest session whatever its state (auto start asks why it ended).
pub async fn find_newest_of_user<C: Conn>(db: &C, user: &UserId) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .order_by_desc(Column::CreatedAt)
        .one(db)
        .await
        .map_err(|error| db_error("reading the user's newest session", error))
}

/// The newest of the user's sessions whose last recorded share is this.
pub async fn find_newest_of_track<C: Conn>(
    db: &C,
    user: &UserId,
    track: &TrackId,
) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::VideoTrackId.eq(track.clone()))
        .order_by_desc(Column::CreatedAt)
        .one(db)
        .await
        .map_err(|error| db_error("reading the newest session of a share", error))
}

/// How often the recording of this share of the user's was not accepted.
pub async fn count_failed_starts<C: Conn>(db: &C, user: &UserId, track: &TrackId) -> Result<u64> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::VideoTrackId.eq(track.clone()))
        .filter(Column::EndReason.eq(EndReason::StartFailed))
        .count(db)
        .await
        .map_err(|error| db_error("counting failed starts", error))
}

/// All sessions there are rows of that are the user's.
pub async fn list_of_user<C: Conn>(db: &C, user: &UserId) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .order_by_asc(Column::CreatedAt)
        .all(db)
        .await
        .map_err(|error| db_error("listing all sessions of a user", error))
}

/// What an administrator's list is narrowed by.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One tenant.
    pub community_id: Option<CommunityId>,
    /// Only those that hold a place.
    pub active_only: bool,
}

/// An administrator's list, newest first, with the total.
pub async fn list_all<C: Conn>(db: &C, filter: &Filter, page: Page) -> Result<(Vec<Model>, u64)> {
    let mut query = Entity::find();
    if let Some(community) = &filter.community_id {
        query = query.filter(Column::CommunityId.eq(community.clone()));
    }
    if filter.active_only {
        query = query.filter(Column::HoldsPlace.eq(true));
    }
    let total =
        query.clone().count(db).await.map_err(|error| db_error("counting sessions", error))?;
    let rows = query
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(page.limit)
        .offset(page.offset)
        .all(db)
        .await
        .map_err(|error| db_error("listing sessions", error))?;
    Ok((rows, total))
}

/// Writes the columns set in `change` if the session still is in one of `from`; says whether it was.
///
/// `change` must not end the holding of a place: that is [`give_up_place`].
pub async fn update_if<C: Conn>(
    db: &C,
    id: &SessionId,
    from: &[SessionStatus],
    change: ActiveModel,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { id: NotSet, ..change })
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::Status.is_in(from.iter().copied()))
        .exec(db)
        .await
        .map_err(|error| db_error("changing a session", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Writes the columns set in `change` and gives back the user's and the community's place, if it is still held;
/// says whether it was. Both places go in one transaction, once.
pub async fn give_up_place(tx: &Tx, session: &Model, change: ActiveModel) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { id: NotSet, holds_place: Set(false), ..change })
        .filter(Column::Id.eq(session.id.clone()))
        .filter(Column::HoldsPlace.eq(true))
        .exec(tx)
        .await
        .map_err(|error| db_error("giving up a session's place", error))?;
    if outcome.rows_affected == 0 {
        return Ok(false);
    }
    if let Some(community) = &session.community_id {
        community::give_back_place(tx, community).await?;
    }
    Ok(true)
}

/// Takes the row's lock for the rest of the transaction and counts up: pins and condemnations of one session
/// happen one after the other, on both engines.
pub async fn lock_for_pins(tx: &Tx, id: &SessionId) -> Result<bool> {
    let outcome = Entity::update_many()
        .col_expr(Column::PinSeq, plus(Column::PinSeq, 1))
        .filter(Column::Id.eq(id.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("locking a session for pins", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Takes the row's lock for the rest of the transaction and answers the row as it is then.
pub async fn lock(tx: &Tx, id: &SessionId) -> Result<Option<Model>> {
    Entity::update_many()
        .col_expr(Column::PinSeq, plus(Column::PinSeq, 0))
        .filter(Column::Id.eq(id.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("locking a session", error))?;
    find(tx, id).await
}

/// Widens the session's media interval and its highest rate by what was indexed; never narrows.
pub async fn widen_media<C: Conn>(
    db: &C,
    id: &SessionId,
    starts_at: Timestamp,
    ends_at: Timestamp,
    rate: i64,
) -> Result<()> {
    let widen = |column: Column, value: sea_orm::Value, keep_if: Condition| {
        Entity::update_many()
            .col_expr(column, Expr::value(value))
            .filter(Column::Id.eq(id.clone()))
            .filter(keep_if)
    };
    let earlier = Condition::any()
        .add(Column::MediaStartsAt.is_null())
        .add(Column::MediaStartsAt.gt(starts_at));
    let later =
        Condition::any().add(Column::MediaEndsAt.is_null()).add(Column::MediaEndsAt.lt(ends_at));
    let higher = Condition::all().add(Column::HighestRate.lt(rate));
    for update in [
        widen(Column::MediaStartsAt, starts_at.into(), earlier),
        widen(Column::MediaEndsAt, ends_at.into(), later),
        widen(Column::HighestRate, rate.into(), higher),
    ] {
        update.exec(db).await.map_err(|error| db_error("widening a session's media", error))?;
    }
    Ok(())
}

#[derive(Debug, sea_orm::FromQueryResult)]
struct StatusCount {
    status: SessionStatus,
    count: i64,
}

/// How many sessions there are in each state that has any.
pub async fn count_by_status<C: Conn>(db: &C) -> Result<Vec<(SessionStatus, i64)>> {
    use sea_orm::sea_query::ExprTrait;
    let rows = Entity::find()
        .select_only()
        .column(Column::Status)
        .column_as(Expr::col(Column::Id).count(), "count")
        .group_by(Column::Status)
        .into_model::<StatusCount>()
        .all(db)
        .await
        .map_err(|error| db_error("counting sessions by status", error))?;
    Ok(rows.into_iter().map(|row| (row.status, row.count)).collect())
}
