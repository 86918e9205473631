//! Epochs: the part of a session recorded by one egress. The row is written before the egress is asked for, so that
//! whoever inserts the number starts it, once, and a crash leaves a row that says what to look for.

use sea_orm::{ActiveValue::NotSet, Condition, QueryOrder, QuerySelect, entity::prelude::*};

use super::{Conn, columns, db_error, is_unique_violation};
use crate::{
    domain::{
        id::{EgressId, SessionId, TrackId},
        text_enum::text_enum,
        time::Timestamp,
    },
    error::Result,
};

text_enum!(
    /// Where an epoch stands.
    EpochStatus {
        /// Row written; LiveKit has not said yes, or has and no media came yet.
        Starting = "starting",
        /// Media arrives.
        Active = "active",
        /// Told to stop; its last segments are on the way.
        Ending = "ending",
        /// Nothing more comes.
        Ended = "ended",
    }
);

text_enum!(
    /// Whether the epoch's zero came from the first packet or from a playlist label.
    Basis {
        /// `segment_results[0].started_at`.
        StartedAt = "started_at",
        /// PROGRAM-DATE-TIME minus the configured delay.
        Label = "label",
    }
);

columns::text_column!(
    EpochStatus => |text| EpochStatus::from_name(&text),
    Basis => |text| Basis::from_name(&text),
);

/// An epoch row.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "epoch")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_id: SessionId,
    /// 1, 2, …
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    /// Where it stands.
    pub status: EpochStatus,
    /// LiveKit's name, once known.
    pub egress_id: Option<EgressId>,
    /// Its directory relative to the buffer root, `/`-separated.
    pub path: String,
    /// The screen share recorded.
    pub video_track_id: TrackId,
    /// Its audio, if it had one.
    pub audio_track_id: Option<TrackId>,
    /// Output pixels.
    pub width: i32,
    /// Output pixels.
    pub height: i32,
    /// When StartEgress was sent.
    pub sent_at: Timestamp,
    /// When its answer came.
    pub answered_at: Option<Timestamp>,
    /// Still `starting` without an answer after this: failed.
    pub deadline_at: Timestamp,
    /// `EgressInfo.started_at` of the answer (egress host clock).
    pub host_started_at: Option<Timestamp>,
    /// Added to the egress host's clock to get ours, microseconds.
    pub clock_offset_us: Option<i64>,
    /// `segment_results[0].started_at` (egress host clock).
    pub media_started_at: Option<Timestamp>,
    /// Screen time of PTS 3600 s; fixed once, never shifts.
    pub zero_at: Option<Timestamp>,
    /// Where `zero_at` came from.
    pub basis: Option<Basis>,
    /// Label minus screen time, milliseconds.
    pub delay_ms: Option<i64>,
    /// When a segment was first seen.
    pub first_seen_at: Option<Timestamp>,
    /// Our clock when the newest segment was indexed.
    pub last_segment_at: Option<Timestamp>,
    /// A playlist of it carried ENDLIST.
    pub playlist_ended: bool,
    /// When StopEgress was sent.
    pub stop_sent_at: Option<Timestamp>,
    /// When it was known to be over.
    pub ended_at: Option<Timestamp>,
    /// How it ended: LiveKit's final status, or `dead`, `start_failed`.
    pub outcome: Option<String>,
    /// LiveKit's words.
    pub error: Option<String>,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Inserts an epoch; false if that number exists (somebody else starts it).
pub async fn insert<C: Conn>(db: &C, row: Model) -> Result<bool> {
    let active: ActiveModel = row.into();
    match Entity::insert(active.reset_all()).exec_without_returning(db).await {
        Ok(_) => Ok(true),
        Err(error) if is_unique_violation(&error) => Ok(false),
        Err(error) => Err(db_error("inserting an epoch", error)),
    }
}

/// One epoch.
pub async fn find<C: Conn>(db: &C, session: &SessionId, number: i32) -> Result<Option<Model>> {
    Entity::find_by_id((session.clone(), number))
        .one(db)
        .await
        .map_err(|error| db_error("reading an epoch", error))
}

/// A session's epochs in order.
pub async fn list<C: Conn>(db: &C, session: &SessionId) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::SessionId.eq(session.clone()))
        .order_by_asc(Column::Number)
        .all(db)
        .await
        .map_err(|error| db_error("listing epochs", error))
}

/// Every epoch that is not over, of all sessions.
pub async fn list_open<C: Conn>(db: &C) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::Status.ne(EpochStatus::Ended))
        .order_by_asc(Column::SessionId)
        .order_by_asc(Column::Number)
        .all(db)
        .await
        .map_err(|error| db_error("listing open epochs", error))
}

/// Sessions whose epochs may still bring segments: not over, or over since `ended_after`.
pub async fn list_sessions_recording<C: Conn>(
    db: &C,
    ended_after: Timestamp,
) -> Result<Vec<SessionId>> {
    Entity::find()
        .select_only()
        .column(Column::SessionId)
        .distinct()
        .filter(
            Condition::any()
                .add(Column::Status.ne(EpochStatus::Ended))
                .add(Column::EndedAt.gt(ended_after)),
        )
        .into_tuple::<SessionId>()
        .all(db)
        .await
        .map_err(|error| db_error("listing sessions that record", error))
}

/// The epoch of that egress.
pub async fn find_by_egress<C: Conn>(db: &C, egress: &EgressId) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::EgressId.eq(egress.clone()))
        .one(db)
        .await
        .map_err(|error| db_error("looking for an egress's epoch", error))
}

/// The epoch whose directory that is (relative to the buffer root).
pub async fn find_by_path<C: Conn>(db: &C, path: &str) -> Result<Option<Model>> {
    // the session's id is the last but one part: a look-up by key instead of a scan over paths
    let mut parts = path.rsplit('/');
    let (Some(number), Some(session)) = (parts.next(), parts.next()) else { return Ok(None) };
    let Ok(number) = number.parse() else { return Ok(None) };
    let found = find(db, &SessionId::new(session), number).await?;
    Ok(found.filter(|epoch| epoch.path == path))
}

/// Writes the columns set in `change` if the epoch still is in one of `from`; says whether it was.
pub async fn update_if<C: Conn>(
    db: &C,
    session: &SessionId,
    number: i32,
    from: &[EpochStatus],
    change: ActiveModel,
) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { session_id: NotSet, number: NotSet, ..change })
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::Number.eq(number))
        .filter(Column::Status.is_in(from.iter().copied()))
        .exec(db)
        .await
        .map_err(|error| db_error("changing an epoch", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Fixes the epoch's zero if nobody did before; answers the row as it then stands.
pub async fn fix_clock<C: Conn>(
    db: &C,
    session: &SessionId,
    number: i32,
    change: ActiveModel,
) -> Result<Option<Model>> {
    Entity::update_many()
        .set(ActiveModel { session_id: NotSet, number: NotSet, ..change })
        .filter(Column::SessionId.eq(session.clone()))
        .filter(Column::Number.eq(number))
        .filter(Column::ZeroAt.is_null())
        .exec(db)
        .await
        .map_err(|error| db_error("fixing an epoch's clock", error))?;
    find(db, session, number).await
}

/// Lets every unanswered start fail now: this process is the only one (SQLite under its lock) and has just started,
/// so whoever sent them is dead. Replacements may be running, and have until `signs_until` to show it.
pub async fn expire_unanswered<C: Conn>(
    db: &C,
    now: Timestamp,
    signs_until: Timestamp,
) -> Result<u64> {
    let expire = |deadline: Timestamp, which: Condition| {
        Entity::update_many()
            .set(ActiveModel { deadline_at: super::Set(deadline), ..Default::default() })
            .filter(Column::Status.eq(EpochStatus::Starting))
            .filter(Column::AnsweredAt.is_null())
            .filter(Column::DeadlineAt.gt(deadline))
            .filter(which)
    };
    let firsts = Condition::all().add(Column::Number.eq(1));
    let replacements = Condition::all().add(Column::Number.gt(1));
    let mut expired = 0;
    for update in [expire(now.plus_micros(-1), firsts), expire(signs_until, replacements)] {
        let done = update.exec(db).await;
        expired +=
            done.map_err(|error| db_error("expiring unanswered starts", error))?.rows_affected;
    }
    Ok(expired)
}

/// Forgets a session's epochs (after its buffer is gone and nobody needs the mapping any more).
pub async fn delete_of<C: Conn>(db: &C, session: &SessionId) -> Result<()> {
    Entity::delete_many()
        .filter(Column::SessionId.eq(session.clone()))
        .exec(db)
        .await
        .map(drop)
        .map_err(|error| db_error("deleting epochs", error))
}
