//! The index of segments: one row per file, usable or not, until its bytes are gone.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::{NotSet, Set},
    FromQueryResult, QueryOrder, QuerySelect,
    entity::prelude::*,
    sea_query::{ExprTrait, OnConflict},
};

use super::{Conn, Tx, columns, db_error};
use crate::{
    domain::{
        id::SessionId,
        text_enum::text_enum,
        time::{Timestamp, Window},
    },
    error::Result,
};

text_enum!(
    /// What an indexed file is good for.
    SegmentState {
        /// Can be cut.
        Usable = "usable",
        /// Named by a playlist, not there.
        Missing = "missing",
        /// Damaged inside.
        Corrupt = "corrupt",
        /// Shorter than it should be.
        Truncated = "truncated",
        /// No bytes.
        Empty = "empty",
        /// Not a transport stream of ours.
        Foreign = "foreign",
    }
);

columns::text_column!(SegmentState => |text| SegmentState::from_name(&text));

/// A segment row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "segment")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_id: SessionId,
    /// Of which epoch.
    #[sea_orm(primary_key, auto_increment = false)]
    pub epoch: i32,
    /// The number in its name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// Bare name in the epoch's directory.
    pub file_name: String,
    /// What it is good for.
    pub state: SegmentState,
    /// First picture, 90 kHz, unwrapped.
    pub pts_start: i64,
    /// End of the last picture, 90 kHz, unwrapped.
    pub pts_end: i64,
    /// First picture, screen time.
    pub starts_at: Timestamp,
    /// End of the last picture, screen time.
    pub ends_at: Timestamp,
    /// PROGRAM-DATE-TIME, egress host clock.
    pub label_at: Timestamp,
    /// Bytes of the file.
    pub size_bytes: i64,
    /// JSON list of key frames' PTS (90 kHz, unwrapped).
    pub key_frames: String,
    /// Length of one frame in 90 kHz ticks.
    pub frame_ticks: i64,
    /// Whether it carries audio.
    pub has_audio: bool,
    /// Pixels.
    pub width: Option<i32>,
    /// Pixels.
    pub height: Option<i32>,
    /// Set when its bytes are to go.
    pub condemned_at: Option<Timestamp>,
    /// When it was indexed, our clock.
    pub indexed_at: Timestamp,
    /// CRC-32 of the bytes that were indexed; none for what was indexed by an older release, or is not usable.
    pub crc: Option<i64>,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The screen time it covers.
    pub fn window(&self) -> Window {
        Window::new(self.starts_at, self.ends_at)
    }
    /// Key frames' PTS (90 kHz, unwrapped), ascending.
    pub fn key_frame_list(&self) -> Vec<i64> {
        serde_json::from_str(&self.key_frames).unwrap_or_default()
    }
}

/// Adds a segment; false if it is indexed already. What is indexed never changes, except that a file once missing
/// or damaged may turn out well (it was still being copied): see [`replace_bad`]; and a good one may rot: [`spoil`].
pub async fn insert<C: Conn>(db: &C, row: Model) -> Result<bool> {
    let active: ActiveModel = row.into();
    let key = [Column::SessionId, Column::Epoch, Column::Number];
    let inserted = Entity::insert(active.reset_all())
        .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map_err(|error| db_error("indexing a segment", error))?;
    Ok(inserted > 0)
}

/// Replaces the row of a segment that was not usable when it was indexed.
pub async fn replace_bad<C: Conn>(db: &C, row: Model) -> Result<bool> {
    let (session, epoch, number) = (row.session_id.clone(), row.epoch, row.number);
    let active: ActiveModel = row.into();
    let outcome = Entity::update_many()
        .set(ActiveModel {
            session_id: NotSet,
            epoch: NotSet,
            number: NotSet,
            ..active.reset_all()
        })
        .filter(Column::SessionId.eq(session))
        .filter(Column::Epoch.eq(epoch))
        .filter(Column::Number.eq(number))
        .filter(Column::State.ne(SegmentState::Usable))
        .filter(Column::CondemnedAt.is_null())
        .exec(db)
        .await
        .map_err(|error| db_error("replacing a segment's row", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Takes back that a segment is usable: its bytes are not what was indexed any more. Where it lies in time stays.
/// `again_from`: since when it counts as bad, which decides whether it is looked at again.
///
/// False if it was not usable, or has gone meanwhile.
pub async fn spoil<C: Conn>(
    db: &C,
    row: &Model,
    state: SegmentState,
    again_from: Timestamp,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel {
            state: Set(state),
            indexed_at: Set(again_from),
            crc: Set(None),
            ..Default::default()
        })
        .filter(Column::SessionId.eq(row.session_id.clone()))
        .filter(Column::Epoch.eq(row.epoch))
        .filter(Column::Number.eq(row.number))
        .filter(Column::State.eq(SegmentState::Usable))
        .filter(Column::CondemnedAt.is_null())
        .exec(db)
        .await
        .map_err(|error| db_error("taking back a segment", error))?;
    Ok(outcome.rows_affected > 0)
}

/// One segment's row.
pub async fn find<C: Conn>(
    db: &C,
    session: &SessionId,
    epoch: i32,
    number: i64,
) -> Result<Option<Model>> {
    Entity::find_by_id((session.clone(), epoch, number))
        .one(db)
        .await
        .map_err(|error| db_error("reading a segment's row", error))
}

/// Every segment of a session that is not condemned, in order of epoch and number.
pub async fn list<C: Conn>(db: &C, session: &SessionId) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::CondemnedAt.is_null())
        .order_by_asc(Column::Epoch)
        .order_by_asc(Column::Number)
        .all(db)
        .await
        .map_err(|error| db_error("listing segments", error))
}

/// Every row of one epoch, condemned ones too, by number.
pub async fn list_of_epoch<C: Conn>(db: &C, session: &SessionId, epoch: i32) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::Epoch.eq(epoch))
        .order_by_asc(Column::Number)
        .all(db)
        .await
        .map_err(|error| db_error("listing an epoch's segments", error))
}

/// What the indexer asks of a row; without the long columns, as it asks often.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Brief {
    /// The number in its name.
    pub number: i64,
    /// What it is good for.
    pub state: SegmentState,
    /// First picture, 90 kHz, unwrapped.
    pub pts_start: i64,
    /// End of the last picture, 90 kHz, unwrapped.
    pub pts_end: i64,
    /// First picture, screen time.
    pub starts_at: Timestamp,
    /// PROGRAM-DATE-TIME, egress host clock.
    pub label_at: Timestamp,
    /// When it was indexed, our clock.
    pub indexed_at: Timestamp,
    /// Set when its bytes are to go.
    pub condemned_at: Option<Timestamp>,
}

/// Every row of one epoch, condemned ones too, by number, in brief.
pub async fn list_brief<C: Conn>(db: &C, session: &SessionId, epoch: i32) -> Result<Vec<Brief>> {
    Entity::find()
        .select_only()
        .columns([
            Column::Number,
            Column::State,
            Column::PtsStart,
            Column::PtsEnd,
            Column::StartsAt,
            Column::LabelAt,
            Column::IndexedAt,
            Column::CondemnedAt,
        ])
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::Epoch.eq(epoch))
        .order_by_asc(Column::Number)
        .into_model::<Brief>()
        .all(db)
        .await
        .map_err(|error| db_error("listing an epoch's segments", error))
}

/// The segments that touch a window and are not condemned, in order of epoch and number.
pub async fn list_touching<C: Conn>(
    db: &C,
    session: &SessionId,
    window: Window,
) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::CondemnedAt.is_null())
        .filter(Column::EndsAt.gt(window.from))
        .filter(Column::StartsAt.lt(window.to))
        .order_by_asc(Column::Epoch)
        .order_by_asc(Column::Number)
        .all(db)
        .await
        .map_err(|error| db_error("listing the segments of a window", error))
}

/// Where a segment lies in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromQueryResult)]
pub struct Span {
    /// Of which epoch.
    pub epoch: i32,
    /// The number in its name.
    pub number: i64,
    /// Screen time.
    pub starts_at: Timestamp,
    /// Screen time.
    pub ends_at: Timestamp,
}

impl Span {
    /// The screen time it covers.
    pub fn window(&self) -> Window {
        Window::new(self.starts_at, self.ends_at)
    }
}

/// The end on the screen of the newest usable segment of an epoch.
pub async fn find_end<C: Conn>(
    db: &C,
    session: &SessionId,
    epoch: i32,
) -> Result<Option<Timestamp>> {
    let newest = Entity::find()
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::Epoch.eq(epoch))
        .filter(Column::State.eq(SegmentState::Usable))
        .order_by_desc(Column::Number)
        .one(db)
        .await
        .map_err(|error| db_error("looking for the newest segment", error))?;
    Ok(newest.map(|row| row.ends_at))
}

/// Where the segments of a session lie that are not condemned.
pub async fn list_spans<C: Conn>(db: &C, session: &SessionId) -> Result<Vec<Span>> {
    Entity::find()
        .select_only()
        .columns([Column::Epoch, Column::Number, Column::StartsAt, Column::EndsAt])
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::CondemnedAt.is_null())
        .order_by_asc(Column::StartsAt)
        .into_model::<Span>()
        .all(db)
        .await
        .map_err(|error| db_error("listing where segments lie", error))
}

/// Condemns one segment; false if it was condemned before. Call it only under
/// [`super::session::lock_for_pins`], after the pins were read in the same transaction.
pub async fn condemn_one(
    tx: &Tx,
    session: &SessionId,
    epoch: i32,
    number: i64,
    now: Timestamp,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { condemned_at: Set(Some(now)), ..Default::default() })
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::Epoch.eq(epoch))
        .filter(Column::Number.eq(number))
        .filter(Column::CondemnedAt.is_null())
        .exec(tx)
        .await
        .map_err(|error| db_error("condemning a segment", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Condemned segments whose bytes may still be there, oldest first, behind the first `passed_over`.
pub async fn list_condemned<C: Conn>(db: &C, passed_over: u64, limit: u64) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::CondemnedAt.is_not_null())
        .order_by_asc(Column::CondemnedAt)
        .order_by_asc(Column::SessionId)
        .order_by_asc(Column::Epoch)
        .order_by_asc(Column::Number)
        .offset(passed_over)
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("listing condemned segments", error))
}

/// Forgets a segment whose bytes are gone.
pub async fn delete<C: Conn>(db: &C, segment: &Model) -> Result<()> {
    Entity::delete_by_id((segment.session_id.clone(), segment.epoch, segment.number))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("deleting a segment's row", error))
}

/// Forgets all segments of a session whose directory is gone.
pub async fn delete_of<C: Conn>(db: &C, session: &SessionId) -> Result<()> {
    Entity::delete_many()
        .filter(Column::SessionId.eq(session.clone()))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("deleting a session's segments", error))
}

/// A session's indexed bytes.
#[derive(Debug, FromQueryResult)]
struct Held {
    session_id: SessionId,
    bytes: i64,
}

/// Bytes of the indexed segments that are still on disk, by session.
pub async fn bytes_by_session<C: Conn>(db: &C) -> Result<HashMap<SessionId, u64>> {
    let rows = Entity::find()
        .select_only()
        .column(Column::SessionId)
        .column_as(Expr::expr(Expr::col(Column::SizeBytes).sum()).cast_as("bigint"), "bytes")
        .group_by(Column::SessionId)
        .into_model::<Held>()
        .all(db)
        .await
        .map_err(|error| db_error("adding up the segments of sessions", error))?;
    let bytes = |row: Held| (row.session_id, u64::try_from(row.bytes).unwrap_or(0));
    Ok(rows.into_iter().map(bytes).collect())
}

/// How many segments and bytes are indexed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromQueryResult)]
pub struct Totals {
    /// Rows.
    pub segments: i64,
    /// Bytes.
    pub bytes: i64,
}

/// Totals over all sessions, for the gauges.
pub async fn totals<C: Conn>(db: &C) -> Result<Totals> {
    let row = Entity::find()
        .select_only()
        .column_as(Expr::col(Column::Number).count(), "segments")
        .column_as(
            Expr::expr(sea_orm::sea_query::Func::coalesce([
                Expr::col(Column::SizeBytes).sum(),
                Expr::value(0),
            ]))
            .cast_as("bigint"),
            "bytes",
        )
        .into_model::<Totals>()
        .one(db)
        .await
        .map_err(|error| db_error("adding up segments", error))?;
    Ok(row.unwrap_or_default())
}
