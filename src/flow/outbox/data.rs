//! What an event shows: the session, clip or account as routes answer it, without signed links, which are whoever's who
//! looks. A test compares the members with the routes' answers.

use serde_json::{Value, json};

use crate::{
    flow::capture::Clip,
    store::{epoch, quota, session, share},
};

/// A session.
pub(super) fn session(row: &session::Model, newest: Option<&epoch::Model>) -> Value {
    let egress = newest.and_then(|epoch| epoch.egress_id.as_ref());
    let mut data = json!({
        "id": row.id,
        "egressId": egress.map_or("", |id| id.as_str()),
        "epoch": row.current_epoch,
        "userId": row.user_id,
        "startedBy": row.started_by,
        "communityId": row.community_id,
        "roomName": row.room_name,
        "quality": row.quality,
        "status": row.status,
        "startedAt": row.started_at,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    });
    for (name, value) in [
        ("username", json!(row.username)),
        ("endedAt", json!(row.ended_at)),
        ("endReason", json!(row.end_reason)),
        ("capturableUntil", json!(row.capturable_until)),
    ] {
        if !value.is_null() {
            data[name] = value;
        }
    }
    data
}

/// A clip.
pub(super) fn clip(row: &Clip) -> Value {
    let gaps: Value = serde_json::from_str(&row.gaps).unwrap_or_else(|_| json!([]));
    let mut data = json!({
        "clipId": row.id,
        "id": row.id,
        "fileId": row.id,
        "sessionId": row.session_id,
        "userId": row.user_id,
        "communityId": row.community_id,
        "roomName": row.room_name,
        "title": row.title,
        "visibility": row.visibility,
        "status": row.status,
        "requestedFrom": row.requested_from,
        "requestedTo": row.requested_to,
        "startsAt": row.starts_at,
        "endsAt": row.ends_at,
        "requestedDurationSeconds": seconds(row.requested_to.micros_since(row.requested_from)),
        "durationSeconds": row.duration_us.map(seconds),
        "precision": row.precision,
        "prerollMs": row.preroll_ms,
        "shortfallMs": row.shortfall_ms,
        "gaps": gaps,
        "sizeBytes": row.size_bytes,
        "checksum": row.checksum,
        "filename": crate::domain::names::file_name(&row.title),
        "width": row.width,
        "height": row.height,
        "videoCodec": row.video_codec,
        "timings": {
            "queueMs": row.queue_ms,
            "waitMs": row.wait_ms,
            "pinMs": row.pin_ms,
            "muxMs": row.mux_ms,
            "finalizeMs": row.finalize_ms,
        },
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    });
    if let Some(code) = &row.error_code {
        data["error"] = json!({ "code": code, "detail": row.error_detail });
    }
    for (name, value) in [
        ("audioCodec", &row.audio_codec),
        ("shareError", &row.share_error),
        ("messageId", &row.message_id),
    ] {
        if let Some(value) = value {
            data[name] = json!(value);
        }
    }
    data
}

/// A clip with the share. To whom it went is not told: that is another person's.
pub(super) fn shared(row: &Clip, share: &share::Model) -> Value {
    let mut data = clip(row);
    data["share"] = json!({
        "shareId": share.id,
        "destination": share.destination,
        "messageId": share.message_id,
        "expiresAt": share.expires_at,
    });
    data
}

/// An account that passed a threshold.
pub(super) fn quota(row: &quota::Model, allowed: i64, clips: u64, percent: i64) -> Value {
    json!({
        "userId": row.user_id,
        "quotaBytes": allowed,
        "usedBytes": row.used_bytes,
        "reservedBytes": row.reserved_bytes,
        "clipsCount": clips,
        "thresholdPercent": percent,
    })
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
