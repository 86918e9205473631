//! A clip as callers see it.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    domain::{lifecycle::ClipStatus, names::file_name, time::Timestamp},
    flow::{
        Deps,
        capture::{Clip, Visibility},
        library,
    },
    http::{BASE, address},
};

/// Why a clip failed, or what one that is being made waits for.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClipFailure {
    /// A stable code.
    code: String,
    /// For people.
    detail: String,
}

/// How long the phases took, milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    queue_ms: i64,
    wait_ms: i64,
    pin_ms: i64,
    mux_ms: i64,
    finalize_ms: i64,
}

/// A clip. Fields that are not known yet (or never will be) are left out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClipBody {
    clip_id: String,
    /// The same.
    id: String,
    /// The same.
    file_id: String,
    session_id: String,
    user_id: String,
    community_id: Option<String>,
    room_name: String,
    title: String,
    /// `private`, `community`, `public`, `unlisted`.
    #[schema(value_type = String)]
    visibility: Visibility,
    /// `processing`, `ready`, `failed`.
    #[schema(value_type = String)]
    status: ClipStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ClipFailure>,
    #[schema(value_type = String, format = DateTime)]
    requested_from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    requested_to: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    requested_duration_seconds: f64,
    duration_seconds: Option<f64>,
    /// `keyframe` or `exact`.
    precision: String,
    preroll_ms: i64,
    shortfall_ms: i64,
    /// `{from, to, reason}`.
    #[schema(value_type = Vec<Object>)]
    gaps: Value,
    size_bytes: i64,
    /// `blake3:…`.
    checksum: Option<String>,
    filename: String,
    download_url: String,
    thumbnail_url: Option<String>,
    /// HLS of what is there of it, growing while it is being made; signed, for the owner alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    preview_url: Option<String>,
    width: Option<i32>,
    height: Option<i32>,
    video_codec: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_codec: Option<String>,
    timings: Timings,
    /// Of the capture's `shareOption`: the code with which it was not delivered; for the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_error: Option<String>,
    /// Of the capture's `shareOption`: the app's name of the message; for the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// Of the capture's `shareOption` `link`: works without a login once the clip is ready. Told in the answer to
    /// the capture and to its repeats under the same `Idempotency-Key`, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) share_url: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A clip as `caller` sees it; the links in it are his.
pub(in crate::http) fn clip(deps: &Deps, caller: &Caller, clip: &Clip) -> ClipBody {
    let links = library::links(deps, caller, clip);
    let base = address(deps, &format!("/clips/{}", clip.id));
    let is_owner = clip.user_id == caller.user_id;
    let has_poster = clip.status != ClipStatus::Failed;
    ClipBody {
        clip_id: clip.id.to_string(),
        id: clip.id.to_string(),
        file_id: clip.id.to_string(),
        session_id: clip.session_id.to_string(),
        user_id: clip.user_id.to_string(),
        community_id: clip.community_id.as_ref().map(ToString::to_string),
        room_name: clip.room_name.to_string(),
        title: clip.title.clone(),
        visibility: clip.visibility,
        status: clip.status,
        error: clip.error_code.clone().map(|code| ClipFailure {
            code,
            detail: clip.error_detail.clone().unwrap_or_default(),
        }),
        requested_from: clip.requested_from,
        requested_to: clip.requested_to,
        starts_at: clip.starts_at,
        ends_at: clip.ends_at,
        requested_duration_seconds: seconds(clip.requested_to.micros_since(clip.requested_from)),
        duration_seconds: clip.duration_us.map(seconds),
        precision: clip.precision.clone(),
        preroll_ms: clip.preroll_ms,
        shortfall_ms: clip.shortfall_ms,
        gaps: serde_json::from_str(&clip.gaps).unwrap_or_else(|_| Value::Array(Vec::new())),
        size_bytes: clip.size_bytes,
        checksum: clip.checksum.clone(),
        filename: file_name(&clip.title),
        download_url: format!("{base}/file?{}", links.video),
        thumbnail_url: has_poster.then(|| format!("{base}/thumbnail.jpg?{}", links.poster)),
        preview_url: links.preview.map(|query| format!("{base}/preview.m3u8?{query}")),
        width: clip.width,
        height: clip.height,
        video_codec: clip.video_codec.clone(),
        audio_codec: clip.audio_codec.clone(),
        timings: Timings {
            queue_ms: clip.queue_ms,
            wait_ms: clip.wait_ms,
            pin_ms: clip.pin_ms,
            mux_ms: clip.mux_ms,
            finalize_ms: clip.finalize_ms,
        },
        share_error: clip.share_error.clone().filter(|_| is_owner),
        message_id: clip.message_id.clone().filter(|_| is_owner),
        share_url: None,
        created_at: clip.created_at,
        updated_at: clip.updated_at,
    }
}

/// Where a clip is found.
pub(super) fn location(clip: &Clip) -> String {
    format!("{BASE}/clips/{}", clip.id)
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
