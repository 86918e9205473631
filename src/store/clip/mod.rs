//! Clips and what they reserved. A clip leaves `processing` once, by the statement that settles its bytes.

mod transitions;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    QueryOrder, QuerySelect,
    entity::prelude::*,
    sea_query::ExprTrait,
};

pub use self::transitions::{
    Finished, Phases, make_failed, make_found, make_lost, make_processing_again, make_ready,
    make_ready_again, set_poster, set_waits_for,
};
use super::{Conn, Page, Tx, columns, db_error};
use crate::{
    domain::{
        id::{ClipId, CommunityId, RoomName, SessionId, UserId},
        lifecycle::ClipStatus,
        text_enum::text_enum,
        time::Timestamp,
    },
    error::{Code, Error, Result},
};

text_enum!(
    /// Who may see a clip.
    Visibility {
        /// Its owner.
        Private = "private",
        /// The members of its community.
        Community = "community",
        /// Every signed-in user.
        Public = "public",
        /// Its owner, and who has a share link.
        Unlisted = "unlisted",
    }
);

impl Visibility {
    /// How many may see it, in order.
    pub fn openness(self) -> u8 {
        match self {
            Visibility::Private => 0,
            Visibility::Unlisted => 1,
            Visibility::Community => 2,
            Visibility::Public => 3,
        }
    }
}

columns::text_column!(Visibility => |text| Visibility::from_name(&text));

/// A clip row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "clip")]
pub struct Model {
    /// Ours.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ClipId,
    /// Cut from.
    pub session_id: SessionId,
    /// The owner.
    pub user_id: UserId,
    /// The session's tenant.
    pub community_id: Option<CommunityId>,
    /// The session's room.
    pub room_name: RoomName,
    /// The owner's words.
    pub title: String,
    /// Who may see it.
    pub visibility: Visibility,
    /// Where it stands.
    pub status: ClipStatus,
    /// Why it failed: a [`crate::error::Code`].
    pub error_code: Option<String>,
    /// Why it failed, for its owner.
    pub error_detail: Option<String>,
    /// The window, screen time.
    pub requested_from: Timestamp,
    /// The window, screen time.
    pub requested_to: Timestamp,
    /// Screen time of the first frame.
    pub starts_at: Option<Timestamp>,
    /// Screen time of the end of the last frame.
    pub ends_at: Option<Timestamp>,
    /// Presented length, microseconds.
    pub duration_us: Option<i64>,
    /// `keyframe` or `exact`.
    pub precision: String,
    /// `skip` or `refuse`.
    pub gap_policy: String,
    /// How much earlier than asked it starts, milliseconds.
    pub preroll_ms: i64,
    /// How much of the tail never came, milliseconds.
    pub shortfall_ms: i64,
    /// JSON list of gaps.
    pub gaps: String,
    /// Bytes of the MP4 file; 0 until ready.
    pub size_bytes: i64,
    /// Bytes reserved while it is made; 0 after.
    pub reserved_bytes: i64,
    /// `blake3:…` of the MP4 file.
    pub checksum: Option<String>,
    /// Pixels.
    pub width: Option<i32>,
    /// Pixels.
    pub height: Option<i32>,
    /// `h264`.
    pub video_codec: Option<String>,
    /// `aac`, absent without audio.
    pub audio_codec: Option<String>,
    /// Whether the poster image was made.
    pub has_poster: bool,
    /// The owner deleted it while it was being made.
    pub cancelled: bool,
    /// Raised when links made so far shall no longer work.
    pub link_generation: i32,
    /// Milliseconds from acceptance to the first attempt.
    pub queue_ms: i64,
    /// Milliseconds waited for late segments.
    pub wait_ms: i64,
    /// Milliseconds to link the segments.
    pub pin_ms: i64,
    /// Milliseconds of muxing and verifying.
    pub mux_ms: i64,
    /// Milliseconds of publishing and settling.
    pub finalize_ms: i64,
    /// The request that accepted it.
    pub request_id: Option<String>,
    /// Accepted.
    pub created_at: Timestamp,
    /// Row last changed.
    pub updated_at: Timestamp,
    /// The clip it is cut out of, if it is no capture.
    pub trim_of: Option<ClipId>,
    /// Which part of it: JSON of a [`crate::domain::trim::Plan`].
    pub trim_plan: Option<String>,
    /// Why the share that was asked for with it was not delivered: a [`crate::error::Code`].
    pub share_error: Option<String>,
    /// The app's name of the message that carries it.
    pub message_id: Option<String>,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Inserts a clip; false if that id exists.
pub async fn insert<C: Conn>(db: &C, row: Model) -> Result<bool> {
    let active: ActiveModel = row.into();
    match Entity::insert(active.reset_all()).exec_without_returning(db).await {
        Ok(_) => Ok(true),
        Err(error) if super::is_unique_violation(&error) => Ok(false),
        Err(error) => Err(db_error("inserting a clip", error)),
    }
}

/// The clip of that id.
pub async fn find<C: Conn>(db: &C, id: &ClipId) -> Result<Option<Model>> {
    Entity::find_by_id(id.clone()).one(db).await.map_err(|error| db_error("reading a clip", error))
}

/// The clip of that id, or `not_found`.
pub async fn load<C: Conn>(db: &C, id: &ClipId) -> Result<Model> {
    find(db, id).await?.ok_or_else(|| Error::not_found("clip"))
}

/// Those of `ids` that have a row.
pub async fn list_existing<C: Conn>(db: &C, ids: &[ClipId]) -> Result<Vec<ClipId>> {
    let mut existing = Vec::new();
    // far below the engines' bounds on parameters
    for some in ids.chunks(500) {
        let found = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::Id.is_in(some.iter().cloned()))
            .into_tuple::<ClipId>()
            .all(db)
            .await
            .map_err(|error| db_error("asking which clips exist", error))?;
        existing.extend(found);
    }
    Ok(existing)
}

/// What a list is narrowed by.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// This one.
    pub id: Option<ClipId>,
    /// One owner.
    pub user_id: Option<UserId>,
    /// One tenant.
    pub community_id: Option<CommunityId>,
    /// One state.
    pub status: Option<ClipStatus>,
    /// Any of these, if there are any.
    pub visibility: Vec<Visibility>,
}

/// A page of clips, newest first, with the total.
pub async fn list<C: Conn>(db: &C, filter: &Filter, page: Page) -> Result<(Vec<Model>, u64)> {
    let mut query = Entity::find();
    if let Some(id) = &filter.id {
        query = query.filter(Column::Id.eq(id.clone()));
    }
    if let Some(user) = &filter.user_id {
        query = query.filter(Column::UserId.eq(user.clone()));
    }
    if let Some(community) = &filter.community_id {
        query = query.filter(Column::CommunityId.eq(community.clone()));
    }
    if let Some(status) = filter.status {
        query = query.filter(Column::Status.eq(status));
    }
    if !filter.visibility.is_empty() {
        query = query.filter(Column::Visibility.is_in(filter.visibility.iter().copied()));
    }
    let total = query.clone().count(db).await.map_err(|error| db_error("counting clips", error))?;
    let rows = query
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(page.limit)
        .offset(page.offset)
        .all(db)
        .await
        .map_err(|error| db_error("listing clips", error))?;
    Ok((rows, total))
}

/// All clips of a user, of whatever state.
pub async fn list_of_user<C: Conn>(db: &C, user: &UserId) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .order_by_asc(Column::CreatedAt)
        .all(db)
        .await
        .map_err(|error| db_error("listing all clips of a user", error))
}

/// Clips that have a file, or had one that was lost, by id.
pub async fn list_kept<C: Conn>(db: &C, after: Option<&ClipId>, limit: u64) -> Result<Vec<Model>> {
    let lost =
        Column::Status.eq(ClipStatus::Failed).and(Column::ErrorCode.eq(Code::FileMissing.as_str()));
    let mut query = Entity::find().filter(Column::Status.eq(ClipStatus::Ready).or(lost));
    if let Some(after) = after {
        query = query.filter(Column::Id.gt(after.clone()));
    }
    query
        .order_by_asc(Column::Id)
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("listing clips with files", error))
}

/// Clips of everybody, by id.
pub async fn list_after<C: Conn>(db: &C, after: Option<&ClipId>, limit: u64) -> Result<Vec<Model>> {
    let mut query = Entity::find();
    if let Some(after) = after {
        query = query.filter(Column::Id.gt(after.clone()));
    }
    query
        .order_by_asc(Column::Id)
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("listing clips by id", error))
}

/// Ready clips of everybody, the newest first.
pub async fn list_newest_ready<C: Conn>(db: &C, limit: u64) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::Status.eq(ClipStatus::Ready))
        .order_by_desc(Column::Id)
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("listing the newest ready clips", error))
}

/// How many ready clips a user has.
pub async fn count_ready<C: Conn>(db: &C, user: &UserId) -> Result<u64> {
    Entity::find()
        .filter(Column::UserId.eq(user.clone()))
        .filter(Column::Status.eq(ClipStatus::Ready))
        .count(db)
        .await
        .map_err(|error| db_error("counting a user's clips", error))
}

/// Failed clips last touched before `before`.
pub async fn list_failed_before<C: Conn>(
    db: &C,
    before: Timestamp,
    limit: u64,
) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::Status.eq(ClipStatus::Failed))
        .filter(Column::UpdatedAt.lt(before))
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("listing old failed clips", error))
}

/// Writes the columns set in `change` if the clip still is in one of `from`; says whether it was.
pub async fn update_if<C: Conn>(
    db: &C,
    id: &ClipId,
    from: &[ClipStatus],
    change: ActiveModel,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { id: NotSet, ..change })
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::Status.is_in(from.iter().copied()))
        .exec(db)
        .await
        .map_err(|error| db_error("changing a clip", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Deletes the row if it still is in one of `from`; says whether it was.
pub async fn delete_if(tx: &Tx, id: &ClipId, from: &[ClipStatus]) -> Result<bool> {
    let outcome = Entity::delete_many()
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::Status.is_in(from.iter().copied()))
        .exec(tx)
        .await
        .map_err(|error| db_error("deleting a clip", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Writes what came of the share that was asked for with a clip.
pub async fn set_share_outcome(
    tx: &Tx,
    id: &ClipId,
    message_id: Option<String>,
    share_error: Option<String>,
    now: Timestamp,
) -> Result<()> {
    let change = ActiveModel {
        message_id: Set(message_id),
        share_error: Set(share_error),
        updated_at: Set(now),
        ..Default::default()
    };
    Entity::update_many()
        .set(change)
        .filter(Column::Id.eq(id.clone()))
        .exec(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("writing what came of a share", error))
}

/// Takes the row's lock and changes nothing; false if there is no such clip.
pub async fn lock(tx: &Tx, id: &ClipId) -> Result<bool> {
    let outcome = Entity::update_many()
        .col_expr(Column::LinkGeneration, super::schema::plus(Column::LinkGeneration, 0))
        .filter(Column::Id.eq(id.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("locking a clip", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Changes what its owner may change; `raise_generation` voids the links made so far. False if there is no such clip.
pub async fn amend(
    tx: &Tx,
    id: &ClipId,
    title: Option<String>,
    visibility: Option<Visibility>,
    raise_generation: bool,
    now: Timestamp,
) -> Result<bool> {
    let mut update = Entity::update_many().set(ActiveModel {
        title: title.map_or(NotSet, Set),
        visibility: visibility.map_or(NotSet, Set),
        updated_at: Set(now),
        ..Default::default()
    });
    if raise_generation {
        update =
            update.col_expr(Column::LinkGeneration, super::schema::plus(Column::LinkGeneration, 1));
    }
    let outcome = update
        .filter(Column::Id.eq(id.clone()))
        .exec(tx)
        .await
        .map_err(|error| db_error("amending a clip", error))?;
    Ok(outcome.rows_affected > 0)
}
