//! A clip's way: from `processing` to `ready` or `failed`, each once, and back where a file comes back or its owner tries
//! again.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    entity::prelude::*,
};

use super::{ActiveModel, Column, Entity, update_if};
use crate::{
    domain::{id::ClipId, lifecycle::ClipStatus, time::Timestamp},
    error::Result,
    store::{Tx, db_error},
};

/// What a finished clip is.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Screen time of the first frame.
    pub starts_at: Timestamp,
    /// Screen time of the end of the last frame.
    pub ends_at: Timestamp,
    /// Presented length, microseconds.
    pub duration_us: i64,
    /// How much earlier than asked it starts, milliseconds.
    pub preroll_ms: i64,
    /// How much of the tail never came, milliseconds.
    pub shortfall_ms: i64,
    /// JSON list of gaps.
    pub gaps: String,
    /// Bytes of the MP4 file.
    pub size_bytes: i64,
    /// `blake3:…` of the MP4 file.
    pub checksum: String,
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
    /// `h264`.
    pub video_codec: String,
    /// `aac`, absent without audio.
    pub audio_codec: Option<String>,
}

/// How long the phases of making a clip took, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// From acceptance to the first attempt.
    pub queue_ms: i64,
    /// Waiting for late segments.
    pub wait_ms: i64,
    /// Linking the segments.
    pub pin_ms: i64,
    /// Muxing and verifying.
    pub mux_ms: i64,
    /// Publishing and settling.
    pub finalize_ms: i64,
}

/// Takes a clip from `processing` to `ready`, once; false if it is not `processing` any more. Its reservation is
/// settled by [`super::quota::settle`] in the same transaction.
pub async fn make_ready(
    tx: &Tx,
    id: &ClipId,
    done: &Finished,
    phases: Phases,
    now: Timestamp,
) -> Result<bool> {
    let change = ActiveModel {
        queue_ms: Set(phases.queue_ms),
        wait_ms: Set(phases.wait_ms),
        pin_ms: Set(phases.pin_ms),
        mux_ms: Set(phases.mux_ms),
        finalize_ms: Set(phases.finalize_ms),
        ..ready(done, now)
    };
    update_if(tx, id, ClipStatus::Ready.follows(), change).await
}

/// What a row says of a finished clip.
fn ready(done: &Finished, now: Timestamp) -> ActiveModel {
    ActiveModel {
        status: Set(ClipStatus::Ready),
        error_code: Set(None),
        error_detail: Set(None),
        starts_at: Set(Some(done.starts_at)),
        ends_at: Set(Some(done.ends_at)),
        duration_us: Set(Some(done.duration_us)),
        preroll_ms: Set(done.preroll_ms),
        shortfall_ms: Set(done.shortfall_ms),
        gaps: Set(done.gaps.clone()),
        size_bytes: Set(done.size_bytes),
        reserved_bytes: Set(0),
        checksum: Set(Some(done.checksum.clone())),
        width: Set(Some(done.width)),
        height: Set(Some(done.height)),
        video_codec: Set(Some(done.video_codec.clone())),
        audio_codec: Set(done.audio_codec.clone()),
        updated_at: Set(now),
        ..Default::default()
    }
}

/// Says that a ready clip has its poster, once; false if it is not ready (any more) or has one.
pub async fn set_poster(tx: &Tx, id: &ClipId) -> Result<bool> {
    let outcome = Entity::update_many()
        .set(ActiveModel { has_poster: Set(true), ..Default::default() })
        .filter(Column::Id.eq(id.clone()))
        .filter(Column::Status.eq(ClipStatus::Ready))
        .filter(Column::HasPoster.eq(false))
        .exec(tx)
        .await
        .map_err(|error| db_error("keeping a poster", error))?;
    Ok(outcome.rows_affected > 0)
}

/// Takes a clip from `processing` to `failed`, once; false if it is not `processing` any more.
pub async fn make_failed(
    tx: &Tx,
    id: &ClipId,
    code: &str,
    detail: &str,
    gaps: Option<String>,
    now: Timestamp,
) -> Result<bool> {
    let change = ActiveModel {
        status: Set(ClipStatus::Failed),
        error_code: Set(Some(code.to_owned())),
        error_detail: Set(Some(detail.to_owned())),
        gaps: gaps.map_or(NotSet, Set),
        reserved_bytes: Set(0),
        updated_at: Set(now),
        ..Default::default()
    };
    update_if(tx, id, ClipStatus::Failed.follows(), change).await
}

/// Says what a clip that is being made waits for; it is forgotten when the clip is ready or has failed.
pub async fn set_waits_for(
    tx: &Tx,
    id: &ClipId,
    code: &str,
    detail: &str,
    now: Timestamp,
) -> Result<bool> {
    let change = ActiveModel {
        error_code: Set(Some(code.to_owned())),
        error_detail: Set(Some(detail.to_owned())),
        updated_at: Set(now),
        ..Default::default()
    };
    update_if(tx, id, &[ClipStatus::Processing], change).await
}

/// Takes a clip whose file is gone from `ready` to `failed`, once; its bytes go from the account with
/// [`super::quota::settle`] in the same transaction.
pub async fn make_lost(
    tx: &Tx,
    id: &ClipId,
    code: &str,
    detail: &str,
    now: Timestamp,
) -> Result<bool> {
    let change = ActiveModel {
        status: Set(ClipStatus::Failed),
        error_code: Set(Some(code.to_owned())),
        error_detail: Set(Some(detail.to_owned())),
        size_bytes: Set(0),
        updated_at: Set(now),
        ..Default::default()
    };
    update_if(tx, id, &[ClipStatus::Ready], change).await
}

/// Takes a clip to `ready` that was finished before, which its row did not know; false if it is not in `from` any more.
/// Its bytes are settled by [`super::quota::settle`] in the same transaction.
pub async fn make_ready_again(
    tx: &Tx,
    id: &ClipId,
    from: ClipStatus,
    done: &Finished,
    now: Timestamp,
) -> Result<bool> {
    update_if(tx, id, &[from], ready(done, now)).await
}

/// Takes a clip that [`make_lost`] gave up back to `ready`: its file is there again.
pub async fn make_found(tx: &Tx, id: &ClipId, size_bytes: i64, now: Timestamp) -> Result<bool> {
    let change = ActiveModel {
        status: Set(ClipStatus::Ready),
        error_code: Set(None),
        error_detail: Set(None),
        size_bytes: Set(size_bytes),
        updated_at: Set(now),
        ..Default::default()
    };
    update_if(tx, id, &[ClipStatus::Failed], change).await
}

/// Takes a clip from `failed` back to `processing` with a new reservation, once.
pub async fn make_processing_again(
    tx: &Tx,
    id: &ClipId,
    reserved_bytes: i64,
    now: Timestamp,
) -> Result<bool> {
    let change = ActiveModel {
        status: Set(ClipStatus::Processing),
        error_code: Set(None),
        error_detail: Set(None),
        gaps: Set("[]".to_owned()),
        reserved_bytes: Set(reserved_bytes),
        updated_at: Set(now),
        ..Default::default()
    };
    update_if(tx, id, ClipStatus::Processing.follows(), change).await
}
