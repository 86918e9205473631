//! Cuts a new clip out of a ready one. Accepted like a capture, in one transaction; what the segments' pin is there,
//! a further name of the source's file is here: from acceptance to the end of the making the bytes are held, whatever
//! becomes of the source. The clip itself is made by [`super::render`].

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Deps,
    audit_log::Signed,
    capture::{self, Clip, Visibility},
    clip_files::ClipFiles,
    crash, idempotency, library, outbox, probe,
    stores::{self, FILE_LIMIT, Which},
};
use crate::{
    access::Caller,
    domain::{
        event::EventKind,
        id::ClipId,
        lifecycle::ClipStatus,
        selection::Gap,
        time::Timestamp,
        trim::{self, Part, Plan},
        window::Precision,
    },
    error::{Code, Error, Result},
    media::{files::remove_plain, micros_to_ticks, mp4, publish},
    store::{clip, job, quota},
};

/// For the file's own structure.
const SLACK_BYTES: u64 = 1024 * 1024;
/// Bytes in a second that a copy may take at worst.
const SLOWEST_COPY: u64 = 4 * 1024 * 1024;

/// From holding the source to the commit that says what for: the reaper takes a source that nobody knows away after a minute
/// (`reap::Walks`), and a commit may take 15 s.
const ACCEPT_WITHIN: Duration = Duration::from_secs(20);

/// A trim as asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of which clip.
    pub clip_id: ClipId,
    /// From its beginning.
    pub start_seconds: f64,
    /// From its beginning.
    pub end_seconds: f64,
    /// Exact unless said.
    pub precision: Option<Precision>,
    /// The key under which the answer is kept.
    pub held: Option<idempotency::Held>,
    /// For rows and logs.
    pub request_id: Option<String>,
}

/// Accepts a trim; the clip answered is `processing`. The future must run to its end once polled.
///
/// # Errors
/// `not_found`, `not_owner`, `clip_not_ready`, `window_invalid`, `quota_exceeded`, `insufficient_disk`,
/// `storage_unavailable`, `file_missing`.
pub async fn trim(deps: &Deps, caller: &Caller, request: Request) -> Result<Clip> {
    let source = library::load_own(deps, caller, &request.clip_id).await?;
    demand_ready(&source)?;
    let part = trim::part(
        request.start_seconds,
        request.end_seconds,
        source.duration_us.unwrap_or_default(),
    )?;
    probe::demand(deps, Which::Clips).await?;
    let video = ClipFiles::of(deps, &source.user_id, &source.id)?.video;
    let needed = needed_bytes(deps, &video, part).await?;
    let row = clip_row(&source, &request, part, needed, deps.clock.now())?;
    let files = ClipFiles::of(deps, &row.user_id, &row.id)?;
    // a store that answers too late may still have done it
    hold(deps, &video, &files.source).await.inspect_err(|_| deps.walks.want())?;
    crash::point("after-hold");
    if let Err(error) = accept(deps, &source, &row, request.held.as_ref()).await {
        // a commit whose answer got lost may have happened: then the row needs it
        if matches!(clip::find(deps.db.conn(), &row.id).await, Ok(None)) {
            files.release_source(deps).await;
        } else {
            deps.walks.want();
        }
        return Err(error);
    }
    crash::point("after-accept-commit");
    tracing::info!(
        clip.id = %row.id, source.id = %source.id, reserved_bytes = row.reserved_bytes,
        "trim accepted"
    );
    deps.wake.jobs.notify_waiters();
    deps.wake.clips.notify_waiters();
    Ok(row)
}

async fn accept(
    deps: &Deps,
    source: &Clip,
    row: &Clip,
    key: Option<&idempotency::Held>,
) -> Result<()> {
    let held = Instant::now();
    let tx = deps.db.begin().await?;
    // a deletion comes before this and is seen, or after it and finds the bytes held
    if !clip::lock(&tx, &source.id).await? {
        return Err(Error::not_found("clip"));
    }
    demand_ready(&clip::load(&tx, &source.id).await?)?;
    capture::reserve(&tx, deps, &row.user_id, row.reserved_bytes, row.created_at).await?;
    if !clip::insert(&tx, row.clone()).await? {
        return Err(Error::internal("inserting a clip", "its new id exists already"));
    }
    outbox::clip(&tx, EventKind::ClipProcessing, row, row.created_at).await?;
    let request_id = row.request_id.clone();
    job::enqueue_render(
        &tx,
        &row.id,
        &row.user_id,
        capture::MAX_ATTEMPTS,
        request_id,
        row.created_at,
    )
    .await?;
    if let Some(key) = key {
        let kept = capture::Repeat { clip_id: row.id.clone(), link: None };
        idempotency::keep_in(&tx, key, kept.keep()).await?;
    }
    if held.elapsed() > ACCEPT_WITHIN {
        let late = Error::new(Code::Overloaded, "The database is too slow at the moment.");
        return Err(late.retry_after(Duration::from_secs(15)).retryable());
    }
    outbox::commit(deps, tx).await
}

/// Another attempt at a failed trim, as long as its source is there, or what was held of it.
///
/// # Errors
/// `clip_not_ready`, `file_missing`, and what [`trim()`] may fail with for want of room.
pub(super) async fn retry(deps: &Deps, failed: &Clip, told: Option<Signed>) -> Result<Clip> {
    let part = plan_of(failed)?.part();
    let files = ClipFiles::of(deps, &failed.user_id, &failed.id)?;
    let source = source_of(deps, failed).await?;
    let video = source.as_ref().unwrap_or(&files.source);
    let needed = needed_bytes(deps, video, part).await?;
    if source.is_some() {
        // whatever becomes of this attempt: the reaper lets go of it with the failed clip
        hold(deps, video, &files.source).await?;
    }
    let reserved = i64::try_from(needed).unwrap_or(i64::MAX);
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    if !clip::make_processing_again(&tx, &failed.id, reserved, now).await? {
        return Err(Error::new(Code::ClipNotReady, "Only a failed clip can be tried again."));
    }
    // under the row's lock, so that the reaper does not let go of it any more
    if publish::size(&deps.stores.clips.gate, &files.source).await?.is_none() {
        return Err(gone());
    }
    capture::reserve(&tx, deps, &failed.user_id, reserved, now).await?;
    let request_id = failed.request_id.clone();
    job::enqueue_render(&tx, &failed.id, &failed.user_id, capture::MAX_ATTEMPTS, request_id, now)
        .await?;
    let again = clip::load(&tx, &failed.id).await?;
    outbox::clip(&tx, EventKind::ClipProcessing, &again, now).await?;
    if let Some(told) = told {
        told.write(&tx, now).await?;
    }
    outbox::commit(deps, tx).await?;
    deps.wake.jobs.notify_waiters();
    Ok(again)
}

/// The video of a trim's source, if that still is a ready clip.
async fn source_of(deps: &Deps, clip: &Clip) -> Result<Option<PathBuf>> {
    let found = match &clip.trim_of {
        Some(id) => clip::find(deps.db.conn(), id).await?,
        None => None,
    };
    let source = found.filter(|source| source.user_id == clip.user_id);
    let source = source.filter(|source| source.status == ClipStatus::Ready);
    source.map(|source| Ok(ClipFiles::of(deps, &source.user_id, &source.id)?.video)).transpose()
}

fn gone() -> Error {
    Error::new(Code::FileMissing, "The file that the clip is cut out of is gone.")
}

/// Which part of its source a trim shows, and when that was.
pub(super) fn plan_of(clip: &Clip) -> Result<Plan> {
    serde_json::from_str(clip.trim_plan.as_deref().unwrap_or_default())
        .map_err(|error| Error::internal("reading a trim", error))
}

fn demand_ready(source: &Clip) -> Result<()> {
    if source.status == ClipStatus::Ready {
        return Ok(());
    }
    Err(Error::new(Code::ClipNotReady, "Only a ready clip can be trimmed.")
        .with("status", source.status.as_str()))
}

/// The bytes of the part itself, from the key frame it needs on, and some for the file's structure.
async fn needed_bytes(deps: &Deps, video: &Path, part: Part) -> Result<u64> {
    let video = video.to_owned();
    let (from, to) = (micros_to_ticks(part.from_us), micros_to_ticks(part.to_us));
    let weigh = move || match mp4::weigh(&video, from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let bytes = stores::work(&deps.stores, Which::Clips, weigh).await?;
    let Some(bytes) = bytes else {
        // where nothing is mounted no file is missing
        stores::demand_ours(deps, Which::Clips).await?;
        return Err(gone());
    };
    let needed = bytes.saturating_add(SLACK_BYTES);
    let free = stores::space(deps, Which::Clips).await?.free;
    // the pieces it is taken apart into lie beside the file that is made of them
    let room = needed.saturating_mul(2).saturating_add(quota::sum_reserved(deps.db.conn()).await?);
    capture::check_disk(free, room.saturating_add(deps.config.storage.min_free_bytes))?;
    Ok(needed)
}

fn clip_row(
    source: &Clip,
    request: &Request,
    part: Part,
    needed: u64,
    now: Timestamp,
) -> Result<Clip> {
    let starts_at = source
        .starts_at
        .ok_or_else(|| Error::internal("trimming a clip", "a ready clip without a beginning"))?;
    let gaps: Vec<Gap> = serde_json::from_str(&source.gaps)
        .map_err(|error| Error::internal("reading a clip's gaps", error))?;
    let plan = Plan {
        from_us: part.from_us,
        to_us: part.to_us,
        starts_at_us: starts_at.as_micros(),
        gaps,
    };
    let asked = plan.line().on_screen(part);
    let trim_plan =
        serde_json::to_string(&plan).map_err(|error| Error::internal("writing a trim", error))?;
    let precision = request.precision.unwrap_or(Precision::Exact);
    Ok(Clip {
        id: ClipId::generate(),
        visibility: Visibility::Private,
        status: ClipStatus::Processing,
        requested_from: asked.from,
        requested_to: asked.to,
        starts_at: None,
        gaps: "[]".to_owned(),
        ends_at: None,
        duration_us: None,
        precision: capture::precision_name(precision).to_owned(),
        preroll_ms: 0,
        shortfall_ms: 0,
        size_bytes: 0,
        reserved_bytes: i64::try_from(needed).unwrap_or(i64::MAX),
        checksum: None,
        width: None,
        height: None,
        video_codec: None,
        audio_codec: None,
        has_poster: false,
        cancelled: false,
        link_generation: 0,
        queue_ms: 0,
        wait_ms: 0,
        pin_ms: 0,
        mux_ms: 0,
        finalize_ms: 0,
        request_id: request.request_id.clone(),
        created_at: now,
        updated_at: now,
        trim_of: Some(source.id.clone()),
        trim_plan: Some(trim_plan),
        share_error: None,
        message_id: None,
        ..source.clone()
    })
}

/// Gives a source's bytes a name of the new clip; what had that name is replaced. Where the file system has no links
/// they are copied, so this is no work for a transaction.
async fn hold(deps: &Deps, video: &Path, place: &Path) -> Result<()> {
    let work_dir = deps.work_dir();
    let draft = work_dir.join(format!("{}.part", uuid::Uuid::new_v4().simple()));
    let (from, to) = (video.to_owned(), draft.clone());
    let link = move || {
        std::fs::create_dir_all(&work_dir)?;
        match std::fs::hard_link(&from, &to) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => std::fs::metadata(&from).map(|about| Some(about.len())),
        }
    };
    if let Some(bytes) = stores::work(&deps.stores, Which::Clips, link).await? {
        copy(deps, video, &draft, bytes).await?;
    }
    let place = place.to_owned();
    let name = move || {
        let named = std::fs::rename(&draft, &place);
        // two names of the same bytes both stay
        let removed = remove_plain(&draft);
        named.and(removed.map(drop))
    };
    stores::work(&deps.stores, Which::Clips, name).await
}

/// A whole copy or none; one that hangs the sweep of the work directory finds.
async fn copy(deps: &Deps, video: &Path, draft: &Path, bytes: u64) -> Result<()> {
    let (from, to) = (video.to_owned(), draft.to_owned());
    let copy = move || {
        let copied = std::fs::copy(&from, &to).and_then(|_| std::fs::File::open(&to)?.sync_all());
        if copied.is_err() {
            // best effort: the sweep finds it too
            let _ = std::fs::remove_file(&to);
        }
        copied
    };
    let limit = FILE_LIMIT + Duration::from_secs(bytes / SLOWEST_COPY);
    let copied = deps.stores.get(Which::Clips).gate.run(limit, copy).await;
    copied.map_err(|trouble| stores::unavailable(Which::Clips, trouble))
}
