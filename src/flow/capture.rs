//! Accepts a capture: may the caller, what window does he mean, is it there, is there room. Then one transaction, in
//! which pin, reservation, clip, job and the answer to repeats appear together. Nothing slow happens here; the clip
//! itself is made by [`super::render`].

mod window;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Deps, authorize, crash, idempotency, index,
    material::Material,
    outbox, probe, queue,
    shares::{self, Covered},
    stores::{self, Which},
};
use crate::{
    access::{Caller, Permission},
    domain::{
        event::EventKind,
        id::{ClipId, SessionId, UserId},
        lifecycle::ClipStatus,
        names,
        text_enum::text_enum,
        time::Timestamp,
        window::{Precision, ResolvedWindow, WindowRequest},
    },
    error::{Code, Error, Result},
    store::{Tx, clip, job, pin, quota, session},
};

pub(super) use window::{has_gaps, judge, pin_window, resolve, select};

pub use crate::store::clip::{Model as Clip, Visibility};

/// Leases a job may take before its clip has failed.
pub const MAX_ATTEMPTS: i32 = 3;
/// How often a caller who waits looks again when no bell rings (the clip may be made on another replica).
const LOOK_AGAIN: Duration = Duration::from_millis(500);

text_enum!(
    /// What to do about holes in the window.
    GapPolicy {
        /// Cut them out and list them.
        Skip = "skip",
        /// Make no clip.
        Refuse = "refuse",
    }
);

/// A capture as asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// From which session.
    pub session_id: SessionId,
    /// Which part.
    pub window: WindowRequest,
    /// What to do about holes.
    pub gap_policy: GapPolicy,
    /// The owner's words; a default names the moment.
    pub title: Option<String>,
    /// Who may see it; private unless said.
    pub visibility: Option<Visibility>,
    /// The key under which the answer is kept.
    pub held: Option<idempotency::Held>,
    /// For rows and logs.
    pub request_id: Option<String>,
    /// Who gets a link to the clip when it is ready.
    pub share: Option<shares::Order>,
}

/// A capture that was accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The clip, `processing`.
    pub clip: Clip,
    /// The link that was asked for with it.
    pub share_url: Option<String>,
}

/// Accepts a capture whose request arrived at `arrived_at`; the clip answered is `processing`.
///
/// The future must run to its end once polled (spawn it): a caller who hangs up must not tear it apart.
///
/// # Errors
/// `not_found`, `not_owner`, `permission_denied`, `window_invalid`, `no_segments_in_range`, `no_usable_segments`,
/// `window_has_gaps`, `quota_exceeded`, `insufficient_disk`, `storage_unavailable`, `validation_failed`.
pub async fn capture(
    deps: &Deps,
    caller: &Caller,
    request: Request,
    arrived_at: Timestamp,
) -> Result<Accepted> {
    let accepted = accept(deps, caller, request, arrived_at).await;
    let outcome = accepted.as_ref().map_or_else(|error| error.code().as_str(), |_| "accepted");
    metrics::counter!("livekit_replay_captures_total", "outcome" => outcome).increment(1);
    let accepted = accepted?;
    let clip = &accepted.clip;
    crash::point("after-accept-commit");
    tracing::info!(
        clip.id = %clip.id, session.id = %clip.session_id, reserved_bytes = clip.reserved_bytes,
        "capture accepted"
    );
    deps.wake.jobs.notify_waiters();
    // repeats of this request wait on this bell
    deps.wake.clips.notify_waiters();
    Ok(accepted)
}

async fn accept(
    deps: &Deps,
    caller: &Caller,
    request: Request,
    arrived_at: Timestamp,
) -> Result<Accepted> {
    let session = load_own(deps, caller, &request.session_id).await?;
    let community = session.community_id.as_ref();
    authorize::require(deps, caller, Permission::CaptureReplay, community).await?;
    let title = title(request.title.as_deref(), arrived_at)?;
    let visibility = request.visibility.unwrap_or(Visibility::Private);
    check_visibility(visibility, session.community_id.is_some())?;
    if let Some(order) = &request.share {
        shares::check_order(deps, order, deps.clock.now())?;
    }
    probe::demand_readable(deps, Which::Buffer).await?;
    probe::demand(deps, Which::Clips).await?;
    index::index_session(deps, &session.id).await?;
    let free_bytes = stores::space(deps, Which::Clips).await?.free;

    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    if !session::lock_for_pins(&tx, &session.id).await? {
        return Err(Error::not_found("session"));
    }
    let material = Material::load(&tx, &session.id).await?;
    let resolved = resolve(deps, &material.session, &request.window, arrived_at)?;
    let found = judge(&material, &resolved, request.gap_policy, now)?;
    let needed = found.needed_bytes(&material, resolved.window);
    let reserved_bytes = i64::try_from(needed).unwrap_or(i64::MAX);
    let promised = quota::sum_reserved(&tx).await?.saturating_add(needed);
    check_disk(free_bytes, promised.saturating_add(deps.config.storage.min_free_bytes))?;
    reserve(&tx, deps, &material.session.user_id, reserved_bytes, now).await?;

    let row = clip_row(&material.session, &resolved, &request, title, visibility, now);
    let clip = Clip { reserved_bytes, ..row };
    if !clip::insert(&tx, clip.clone()).await? {
        return Err(Error::internal("inserting a clip", "its new id exists already"));
    }
    outbox::clip(&tx, EventKind::ClipProcessing, &clip, now).await?;
    let pinned = pin_window(deps, found.plan.as_ref(), &material, resolved.window);
    pin::insert(&tx, &clip.session_id, &clip.id, pinned, now).await?;
    let asked_by = request.request_id.clone();
    job::enqueue_render(&tx, &clip.id, &clip.user_id, MAX_ATTEMPTS, asked_by, now).await?;
    let shared = match request.share {
        Some(order) => shares::keep(&tx, deps, caller, &clip, order).await?,
        None => None,
    };
    if let Some(held) = &request.held {
        let link = shared.as_ref().map(|shared| Covered::of(deps, shared));
        let kept = Repeat { clip_id: clip.id.clone(), link };
        idempotency::keep_in(&tx, held, kept.keep()).await?;
    }
    outbox::commit(deps, tx).await?;
    let share_url = shared.map(|shared| shares::address(deps, &shared.secret));
    Ok(Accepted { clip, share_url })
}

/// What is kept of an accepted capture or trim for repeats of it: which clip it was, and what is told once. The door
/// answers with that clip as it then is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repeat {
    /// The clip.
    pub clip_id: ClipId,
    /// The link that was made with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Covered>,
}

impl Repeat {
    pub(super) fn keep(&self) -> idempotency::Kept {
        idempotency::Kept {
            status: 202,
            body: json!(self).to_string(),
            location: Some(self.clip_id.as_str().to_owned()),
        }
    }

    /// What was kept.
    ///
    /// # Errors
    /// `internal` for what [`keep`](Self::keep) did not write.
    pub fn of(kept: &idempotency::Kept) -> Result<Repeat> {
        serde_json::from_str(&kept.body)
            .map_err(|error| Error::internal("reading a kept answer", error))
    }
}

/// The caller's own session, not discarded.
pub(super) async fn load_own(
    deps: &Deps,
    caller: &Caller,
    id: &SessionId,
) -> Result<session::Model> {
    let session = session::load(deps.db.conn(), id).await?;
    check_own(deps, caller, &session).await?;
    if session.discard { Err(Error::not_found("session")) } else { Ok(session) }
}

/// Refuses a session that is not the caller's. Who may see it without owning it learns that it is not his.
pub(super) async fn check_own(
    deps: &Deps,
    caller: &Caller,
    session: &session::Model,
) -> Result<()> {
    if session.user_id == caller.user_id {
        return Ok(());
    }
    let community = session.community_id.as_ref();
    if authorize::allowed(deps, caller, Permission::ManageReplayLimits, community).await? {
        return Err(Error::new(
            Code::NotOwner,
            "Only its owner can look at or capture from this session.",
        ));
    }
    Err(Error::not_found("session"))
}

/// `community` needs one.
pub(super) fn check_visibility(visibility: Visibility, has_community: bool) -> Result<()> {
    if visibility == Visibility::Community && !has_community {
        return Err(Error::invalid_field("visibility", "the clip belongs to no community"));
    }
    Ok(())
}

fn title(asked: Option<&str>, arrived_at: Timestamp) -> Result<String> {
    let Some(asked) = asked.filter(|title| !title.trim().is_empty()) else {
        // 2026-11-20T10:00:00.000Z -> 2026-11-20 10:00
        let time = arrived_at.to_rfc3339();
        return Ok(format!("Replay {}", time.get(..16).unwrap_or(&time).replace('T', " ")));
    };
    names::check_title("title", asked)?;
    Ok(asked.to_owned())
}

/// Reserves the clip's bytes with its owner's account, and sees that there is room in the queue.
pub(super) async fn reserve(
    tx: &Tx,
    deps: &Deps,
    user: &UserId,
    bytes: i64,
    now: Timestamp,
) -> Result<()> {
    let default = deps.config.limits.user_quota_bytes;
    let Err(account) = quota::reserve(tx, user, bytes, default, now).await? else {
        return queue::demand_room(tx, deps, user).await;
    };
    Err(quota_exceeded(&account, default, bytes))
}

/// `quota_exceeded` with the account as it stands.
pub(super) fn quota_exceeded(account: &quota::Model, default: i64, needed: i64) -> Error {
    Error::new(Code::QuotaExceeded, "This clip does not fit into your quota; delete some clips.")
        .with("usedBytes", account.used_bytes)
        .with("reservedBytes", account.reserved_bytes)
        .with("quotaBytes", account.quota_bytes.unwrap_or(default))
        .with("neededBytes", needed)
}

fn clip_row(
    session: &session::Model,
    resolved: &ResolvedWindow,
    request: &Request,
    title: String,
    visibility: Visibility,
    now: Timestamp,
) -> Clip {
    Clip {
        id: ClipId::generate(),
        session_id: session.id.clone(),
        user_id: session.user_id.clone(),
        community_id: session.community_id.clone(),
        room_name: session.room_name.clone(),
        title,
        visibility,
        status: ClipStatus::Processing,
        error_code: None,
        error_detail: None,
        requested_from: resolved.window.from,
        requested_to: resolved.window.to,
        starts_at: None,
        ends_at: None,
        duration_us: None,
        precision: precision_name(resolved.precision).to_owned(),
        gap_policy: request.gap_policy.as_str().to_owned(),
        preroll_ms: 0,
        shortfall_ms: 0,
        gaps: "[]".to_owned(),
        size_bytes: 0,
        reserved_bytes: 0,
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
        trim_of: None,
        trim_plan: None,
        share_error: None,
        message_id: None,
    }
}

pub(super) fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Keyframe => "keyframe",
        Precision::Exact => "exact",
    }
}

/// The precision of a clip's row.
pub(super) fn precision_of(clip: &Clip) -> Precision {
    if clip.precision == "exact" { Precision::Exact } else { Precision::Keyframe }
}

/// The gap policy of a clip's row.
pub(super) fn gap_policy_of(clip: &Clip) -> GapPolicy {
    GapPolicy::from_name(&clip.gap_policy).unwrap_or(GapPolicy::Skip)
}

/// `insufficient_disk` if a clip does not fit.
pub(super) fn check_disk(free_bytes: u64, needed_bytes: u64) -> Result<()> {
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(Error::new(Code::InsufficientDisk, "The server's disk has no room for this clip.")
        .with("freeBytes", free_bytes)
        .with("neededBytes", needed_bytes))
}

/// Waits until the clip has left `processing` and was shared if that was asked for, at most `longest`; answers it as it
/// is then, or nothing if it was deleted meanwhile.
pub async fn settled(deps: &Deps, id: &ClipId, longest: Duration) -> Result<Option<Clip>> {
    let deadline = tokio::time::Instant::now() + longest;
    loop {
        let bell = deps.wake.clips.notified();
        tokio::pin!(bell);
        // from here on no ring is missed
        bell.as_mut().enable();
        // before the clip is read, so that one which is shared says how that went
        let to_be_shared = shares::is_open(deps, id).await?;
        let found = clip::find(deps.db.conn(), id).await?;
        let waiting = match found.as_ref().map(|clip| clip.status) {
            Some(ClipStatus::Processing) => true,
            Some(ClipStatus::Ready) => to_be_shared,
            Some(ClipStatus::Failed) | None => false,
        };
        if !waiting || tokio::time::Instant::now() >= deadline {
            return Ok(found);
        }
        tokio::select! {
            () = bell => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = deps.stop.cancelled() => return Ok(found),
        }
    }
}
