//! A clip's files: where they lie, the record beside the video, and the order in which they come and go.
//!
//! `<clips>/<user-key>/<clipId>.mp4`, `.json` (the record), `.jpg` (the poster). A record with its video is what
//! gives a clip its row back after the database is lost; so a deletion first renames the record to `.deleted`, then
//! deletes the row, then the files. The order and its crash cases are written down in `docs/invariants.md`.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Deps, capture::Clip};
use crate::{
    domain::{
        id::{ClipId, CommunityId, InstanceId, RoomName, SessionId, UserId},
        keys,
        lifecycle::ClipStatus,
        time::Timestamp,
    },
    error::{Error, Result},
    media::{
        files::{Found, Gate, list_entries, read_plain},
        publish,
    },
    store::clip::{self, Finished, Visibility},
};

/// Records are small.
pub(super) const MOST_RECORD: u64 = 1 << 20;
/// The version of the record that this binary writes.
const VERSION: u32 = 1;

/// Where a clip's files are (or would be).
#[derive(Debug, Clone)]
pub struct ClipFiles {
    /// The way to them.
    gate: Gate,
    /// The video.
    pub video: PathBuf,
    /// Its record.
    pub record: PathBuf,
    /// What the record becomes when the clip is being deleted.
    pub tombstone: PathBuf,
    /// The poster.
    pub poster: PathBuf,
    /// While it is cut out of another clip, and a while after that failed: that one's video under a name of ours.
    pub source: PathBuf,
}

impl ClipFiles {
    /// The places of a user's clip.
    ///
    /// # Errors
    /// `not_found` for an id that is none of ours.
    pub fn of(deps: &Deps, user: &UserId, clip: &ClipId) -> Result<ClipFiles> {
        let root = &deps.config.storage.clips;
        let record = root.join(keys::sidecar_path(user, clip)?);
        Ok(ClipFiles {
            gate: deps.stores.clips.gate.clone(),
            video: root.join(keys::clip_path(user, clip)?),
            tombstone: record.with_extension("deleted"),
            source: record.with_extension("source"),
            record,
            poster: root.join(keys::thumbnail_path(user, clip)?),
        })
    }

    /// Takes the record away, so that nothing brings the clip back. Answers whether there was one.
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn entomb(&self) -> Result<bool> {
        if publish::size(&self.gate, &self.record).await?.is_none() {
            return Ok(false);
        }
        publish::publish(&self.gate, &self.record, &self.tombstone).await.map(|()| true)
    }

    /// Undoes [`entomb`](Self::entomb).
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn exhume(&self) -> Result<()> {
        if publish::size(&self.gate, &self.tombstone).await?.is_none() {
            return Ok(());
        }
        publish::publish(&self.gate, &self.tombstone, &self.record).await
    }

    /// Removes what an attempt may have made of a clip that is `failed`; what it holds of another one stays.
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn remove_made(&self) -> Result<()> {
        for file in [&self.record, &self.poster, &self.video] {
            publish::remove(&self.gate, file).await?;
        }
        Ok(())
    }

    /// Removes all of a clip's files whose row is gone; the tombstone last, because it is what tells
    /// that the others are to go. Answers the bytes of the video.
    ///
    /// # Errors
    /// `storage_unavailable`; call it again.
    pub async fn remove_all(&self) -> Result<u64> {
        let size = publish::size(&self.gate, &self.video).await?.unwrap_or(0);
        for file in [&self.record, &self.poster, &self.video, &self.source, &self.tombstone] {
            publish::remove(&self.gate, file).await?;
        }
        Ok(size)
    }

    /// Lets go of the clip this one was cut out of. What cannot be removed now the next walk removes.
    pub async fn release_source(&self, deps: &Deps) {
        if let Err(error) = publish::remove(&self.gate, &self.source).await {
            tracing::warn!(error = error.chain(), "a held source stays for now");
            deps.walks.want();
        }
    }
}

/// A ready clip as it is written beside its video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of this format.
    pub version: u32,
    /// Whose store this is.
    pub instance_id: InstanceId,
    /// The clip.
    pub clip_id: ClipId,
    /// Cut from.
    pub session_id: SessionId,
    /// The owner.
    pub user_id: UserId,
    /// The tenant.
    pub community_id: Option<CommunityId>,
    /// The room.
    pub room_name: RoomName,
    /// The owner's words.
    pub title: String,
    /// Who may see it.
    pub visibility: Visibility,
    /// The window asked for.
    pub requested_from: Timestamp,
    /// The window asked for.
    pub requested_to: Timestamp,
    /// Screen time of the first frame.
    pub starts_at: Option<Timestamp>,
    /// Screen time of the end of the last frame.
    pub ends_at: Option<Timestamp>,
    /// Presented length.
    pub duration_us: Option<i64>,
    /// `keyframe` or `exact`.
    pub precision: String,
    /// `skip` or `refuse`.
    pub gap_policy: String,
    /// How much earlier than asked it starts.
    pub preroll_ms: i64,
    /// How much of the tail never came.
    pub shortfall_ms: i64,
    /// The gaps.
    pub gaps: Value,
    /// Bytes of the video.
    pub size_bytes: i64,
    /// Hash of the video.
    pub checksum: Option<String>,
    /// Pixels.
    pub width: Option<i32>,
    /// Pixels.
    pub height: Option<i32>,
    /// `h264`.
    pub video_codec: Option<String>,
    /// `aac`, absent without audio.
    pub audio_codec: Option<String>,
    /// Says nothing, as posters follow their clips; programs of the first release take a record without it for nobody's.
    #[serde(skip_deserializing)]
    pub has_poster: bool,
    /// Accepted.
    pub created_at: Timestamp,
}

impl Record {
    /// The record of a clip's row.
    pub fn of(deps: &Deps, clip: &Clip) -> Record {
        Record {
            version: VERSION,
            instance_id: deps.instance.clone(),
            clip_id: clip.id.clone(),
            session_id: clip.session_id.clone(),
            user_id: clip.user_id.clone(),
            community_id: clip.community_id.clone(),
            room_name: clip.room_name.clone(),
            title: clip.title.clone(),
            visibility: clip.visibility,
            requested_from: clip.requested_from,
            requested_to: clip.requested_to,
            starts_at: clip.starts_at,
            ends_at: clip.ends_at,
            duration_us: clip.duration_us,
            precision: clip.precision.clone(),
            gap_policy: clip.gap_policy.clone(),
            preroll_ms: clip.preroll_ms,
            shortfall_ms: clip.shortfall_ms,
            gaps: serde_json::from_str(&clip.gaps).unwrap_or_default(),
            size_bytes: clip.size_bytes,
            checksum: clip.checksum.clone(),
            width: clip.width,
            height: clip.height,
            video_codec: clip.video_codec.clone(),
            audio_codec: clip.audio_codec.clone(),
            has_poster: false,
            created_at: clip.created_at,
        }
    }

    /// Reads a record; `None` if it is not one of ours that this binary understands.
    pub fn parse(bytes: &[u8], instance: &InstanceId) -> Option<Record> {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        (record.version == VERSION && record.instance_id == *instance).then_some(record)
    }

    /// What a row says of a clip that is finished; none if the record does not say enough.
    pub fn finished(&self) -> Option<Finished> {
        Some(Finished {
            starts_at: self.starts_at?,
            ends_at: self.ends_at?,
            duration_us: self.duration_us?,
            preroll_ms: self.preroll_ms,
            shortfall_ms: self.shortfall_ms,
            gaps: self.gaps.to_string(),
            size_bytes: self.size_bytes,
            checksum: self.checksum.clone()?,
            width: self.width?,
            height: self.height?,
            video_codec: self.video_codec.clone()?,
            audio_codec: self.audio_codec.clone(),
        })
    }

    /// The row that a record gives back: `ready`, and private whatever it was, because nobody can say whether its
    /// owner had narrowed it since.
    pub fn into_row(self, now: Timestamp) -> clip::Model {
        clip::Model {
            id: self.clip_id,
            session_id: self.session_id,
            user_id: self.user_id,
            community_id: self.community_id,
            room_name: self.room_name,
            title: self.title,
            visibility: Visibility::Private,
            status: ClipStatus::Ready,
            error_code: None,
            error_detail: None,
            requested_from: self.requested_from,
            requested_to: self.requested_to,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            duration_us: self.duration_us,
            precision: self.precision,
            gap_policy: self.gap_policy,
            preroll_ms: self.preroll_ms,
            shortfall_ms: self.shortfall_ms,
            gaps: self.gaps.to_string(),
            size_bytes: self.size_bytes,
            reserved_bytes: 0,
            checksum: self.checksum,
            width: self.width,
            height: self.height,
            video_codec: self.video_codec,
            audio_codec: self.audio_codec,
            // one that is there is made once more when somebody asks
            has_poster: false,
            cancelled: false,
            // links made before the row was lost stay void
            link_generation: 1,
            queue_ms: 0,
            wait_ms: 0,
            pin_ms: 0,
            mux_ms: 0,
            finalize_ms: 0,
            request_id: None,
            created_at: self.created_at,
            updated_at: now,
            // as it stands it is a clip like any other
            trim_of: None,
            trim_plan: None,
            share_error: None,
            message_id: None,
        }
    }
}

/// The record in this file; `None` if there is none that is ours. Blocking.
///
/// # Errors
/// When the file cannot be read.
pub fn read_record(path: &Path, instance: &InstanceId) -> io::Result<Option<Record>> {
    Ok(match read_plain(path, MOST_RECORD)? {
        Found::Bytes(bytes) => Record::parse(&bytes, instance),
        Found::Absent | Found::NotOurs => None,
    })
}

/// Writes a ready clip's record, whole or not at all.
///
/// # Errors
/// `storage_unavailable`; the record that was there is untouched.
pub async fn write_record(deps: &Deps, clip: &Clip) -> Result<()> {
    let files = ClipFiles::of(deps, &clip.user_id, &clip.id)?;
    let bytes = serde_json::to_vec_pretty(&Record::of(deps, clip))
        .map_err(|error| Error::internal("writing a clip's record", error))?;
    publish::write_whole(&deps.stores.clips.gate, &deps.work_dir(), &files.record, bytes).await
}

/// How many clips of this instance lie in a store with their record and a video of the size that it names. Blocking.
///
/// # Errors
/// When the store cannot be read.
pub fn count_whole(root: &Path, instance: &InstanceId) -> io::Result<u64> {
    let mut count = 0;
    for user in list_entries(root)?.into_iter().filter(|entry| entry.is_directory) {
        let directory = root.join(&user.name);
        for entry in list_entries(&directory)? {
            let path = directory.join(&entry.name);
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let Some(record) = read_record(&path, instance)? else { continue };
            let video = std::fs::symlink_metadata(path.with_extension("mp4"));
            let same = |size: u64| i64::try_from(size) == Ok(record.size_bytes);
            count += u64::from(video.is_ok_and(|about| about.is_file() && same(about.len())));
        }
    }
    Ok(count)
}
