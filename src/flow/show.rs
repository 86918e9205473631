//! What is running and what can be captured, for those it concerns.

use super::{Deps, authorize, material::Material};
use crate::{
    access::Caller,
    domain::{
        id::{RoomName, SessionId},
        names,
        selection::{self, Gap, SegmentState, Selection},
        time::{Timestamp, Window},
        window::Precision,
    },
    error::{Code, Error, Result},
    store::{epoch, session},
};

/// A session with its newest epoch, and its buffer where it was asked for.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The row.
    pub session: session::Model,
    /// The newest epoch's row.
    pub epoch: Option<epoch::Model>,
    /// What is kept.
    pub buffer: Option<Buffer>,
    /// Whether paths and clocks may be shown.
    pub for_admin: bool,
}

/// The media of a session that is still kept, screen time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// The first frame; `None` before the first segment.
    pub starts_at: Option<Timestamp>,
    /// The end of the last frame.
    pub ends_at: Option<Timestamp>,
    /// Our clock.
    pub now: Timestamp,
    /// Media kept, gaps not counted, milliseconds.
    pub duration_ms: i64,
    /// Usable segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The highest rate of any segment so far.
    pub bytes_per_second: u64,
    /// Time inside without usable media.
    pub gaps: Vec<Gap>,
}

/// The caller's capturable sessions, newest first.
pub async fn list_own(deps: &Deps, caller: &Caller) -> Result<Vec<Shown>> {
    let now = deps.clock.now();
    let rows = session::list_capturable(deps.db.conn(), &caller.user_id, now).await?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        shown.push(with_buffer(deps, &row.id, false).await?);
    }
    Ok(shown)
}

/// The caller's newest capturable session.
pub async fn newest_own(deps: &Deps, caller: &Caller) -> Result<Shown> {
    let now = deps.clock.now();
    let rows = session::list_capturable(deps.db.conn(), &caller.user_id, now).await?;
    let newest = rows
        .first()
        .ok_or_else(|| Error::new(Code::NoSession, "You have no capturable replay buffer."))?;
    with_buffer(deps, &newest.id, false).await
}

/// One session, for its owner and for managers.
pub async fn one(deps: &Deps, caller: &Caller, id: &SessionId) -> Result<Shown> {
    super::stop::load_own_or_managed(deps, caller, id).await?;
    let for_admin = authorize::is_instance_admin(deps, caller).await?;
    with_buffer(deps, id, for_admin).await
}

/// A row without its buffer, as start and stop answer it.
pub async fn plain(deps: &Deps, session: session::Model, for_admin: bool) -> Result<Shown> {
    let epoch = epoch::find(deps.db.conn(), &session.id, session.current_epoch).await?;
    Ok(Shown { session, epoch, buffer: None, for_admin })
}

/// A session that was just accepted: what cannot be read of it now is left out.
pub async fn started(deps: &Deps, session: session::Model) -> Shown {
    let epoch = epoch::find(deps.db.conn(), &session.id, session.current_epoch).await;
    Shown { session, epoch: epoch.unwrap_or_default(), buffer: None, for_admin: false }
}

/// The same later.
///
/// # Errors
/// `not_found`.
pub async fn started_before(deps: &Deps, id: &SessionId) -> Result<Shown> {
    Ok(started(deps, session::load(deps.db.conn(), id).await?).await)
}

/// A session with its buffer.
pub async fn with_buffer(deps: &Deps, id: &SessionId, for_admin: bool) -> Result<Shown> {
    let material = Material::load(deps.db.conn(), id).await?;
    let buffer = buffer(&material, deps.clock.now());
    let epoch = material.epoch_rows.last().cloned();
    Ok(Shown { session: material.session, epoch, buffer: Some(buffer), for_admin })
}

fn buffer(material: &Material, now: Timestamp) -> Buffer {
    let usable =
        || material.segments.iter().filter(|segment| segment.state == SegmentState::Usable);
    let starts_at = material.rows.iter().map(|row| row.starts_at).min();
    let ends_at = material.rows.iter().map(|row| row.ends_at).max();
    let plan = starts_at.zip(ends_at).and_then(|(from, to)| {
        selection::plan(&Selection {
            window: Window::new(from, to),
            precision: Precision::Keyframe,
            epochs: &material.epochs,
            segments: &material.segments,
            buffer_starts_at: None,
        })
        .ok()
    });
    Buffer {
        starts_at,
        ends_at,
        now,
        duration_ms: plan.as_ref().map_or(0, |plan| plan.duration_us / 1000),
        segments: u64::try_from(usable().count()).unwrap_or(0),
        bytes: usable().map(|segment| segment.size_bytes).sum(),
        bytes_per_second: u64::try_from(material.session.highest_rate).unwrap_or(0),
        gaps: plan.map(|plan| plan.gaps).unwrap_or_default(),
    }
}

/// Running sessions of a room, for members of its community and people who are in it. For others the answer is the
/// same as for a room that does not exist.
pub async fn room_status(
    deps: &Deps,
    caller: &Caller,
    room: &RoomName,
) -> Result<Vec<session::Model>> {
    names::check_name("roomName", room.as_str())?;
    let running = session::list_holding_in_room(deps.db.conn(), room).await?;
    if running.is_empty() {
        return Ok(running);
    }
    // a room without a community of its own may hold sessions of several: members see their own's
    let mut seen = Vec::new();
    for session in &running {
        if let Some(community) = &session.community_id
            && authorize::is_member(deps, caller, community).await?
        {
            seen.push(session.clone());
        }
    }
    // administrators have lists of their own: a room's status is for those who are in it or belong to it
    let concerned = seen.len() == running.len()
        || running.iter().any(|session| session.user_id == caller.user_id)
        || deps.presence.is_present(deps, room, &caller.user_id).await?;
    Ok(if concerned { running } else { seen })
}
