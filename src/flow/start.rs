//! Start a buffer: may they, is their screen shared, is there room; then the row, then the egress.
//!
//! Row first: whatever dies between the row and LiveKit's answer leaves a row that says what to look for, and an
//! egress that turns up under its path later is stopped. An error answer means that this call records nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Deps,
    audit_log::{self, Line},
    authorize, crash,
    disk::{self, Room},
    epoch,
    idempotency::{Held, Kept},
    place, room,
};
use crate::{
    access::{Caller, EVERYWHERE, Permission},
    domain::{
        audit::Action,
        id::{CommunityId, Identity, RoomName, SessionId, TrackId, UserId},
        lifecycle::SessionStatus,
        names,
        share::{self, Share, ShareRequest},
        sizes::Quality,
        time::Timestamp,
    },
    error::{Code, Error, Result},
    store::{self, community::Place, session},
};

/// Between two tries to end what was refused.
const END_AGAIN: Duration = Duration::from_secs(1);

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRequest {
    /// Which room.
    pub room: RoomName,
    /// The tenant the caller believes the room to be in.
    pub community: Option<CommunityId>,
    /// How large and good.
    pub quality: Quality,
    /// A certain share instead of the newest.
    pub video: Option<TrackId>,
    /// A certain audio track instead of the share's own.
    pub audio: Option<TrackId>,
    /// Somebody else's (or one's own other) participant.
    pub identity: Option<Identity>,
    /// The key under which the answer is kept.
    pub held: Option<Held>,
}

/// Who starts, and with which rights.
#[derive(Debug, Clone, Copy)]
pub enum Starter<'a> {
    /// A caller with a token.
    Caller(&'a Caller),
    /// A published share in a community that wants it; database roles of that user decide.
    Automatic(&'a UserId),
}

impl Starter<'_> {
    fn user(&self) -> &UserId {
        match self {
            Starter::Caller(caller) => &caller.user_id,
            Starter::Automatic(user) => user,
        }
    }
}

/// Starts a buffer; answers the session once LiveKit accepted.
pub async fn start(
    deps: &Deps,
    starter: Starter<'_>,
    request: &StartRequest,
    arrived_at: Timestamp,
) -> Result<session::Model> {
    names::check_name("roomName", request.room.as_str())?;
    if let Some(community) = &request.community {
        names::check_name("communityId", community.as_str())?;
        if community.as_str() == EVERYWHERE {
            return Err(Error::invalid_field("communityId", "is not a community"));
        }
    }
    let community = community_of(deps, request).await?;
    require(deps, starter, Permission::EnableReplayBuffer, community.as_ref()).await?;
    let chosen = find_share(deps, starter, request, community.as_ref()).await?;
    refuse_if_active(deps, &chosen.owner).await?;
    let room = disk::measure(deps).await?;

    let row = new_row(deps, starter, request, community, &chosen, arrived_at);
    let first = accept(deps, starter, row.clone(), &chosen, &room).await?;
    crash::point("after-row");
    let told = request.held.clone().map(|held| (held, Accepted::of(&row).keep()));
    match epoch::launch(deps, &row, first, told).await {
        Ok(()) => {
            crash::point("after-start-commit");
            tracing::info!(session.id = %row.id, user.id = %row.user_id, "replay buffer started");
            metrics::counter!("livekit_replay_sessions_started_total").increment(1);
            // it records: whatever can be read of it now, the answer is yes
            Ok(session::load(deps.db.conn(), &row.id).await.unwrap_or(row))
        }
        Err(error) => {
            give_up(deps, row).await;
            Err(error)
        }
    }
}

/// What was refused records nothing, now or later: its session is ended, if need be as soon as the database is back.
async fn give_up(deps: &Deps, row: session::Model) {
    let Err(error) = place::fail_start(deps, &row).await else { return };
    tracing::warn!(session.id = %row.id, error = error.chain(), "a refused start is ended later");
    let deps = deps.clone();
    deps.tasks.clone().spawn(async move {
        let ended = async {
            while place::fail_start(&deps, &row).await.is_err() {
                tokio::time::sleep(END_AGAIN).await;
            }
        };
        deps.stop.run_until_cancelled(ended).await;
    });
}

/// What is kept of a start in the transaction that accepts it, for repeats that come before there is an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accepted {
    /// The session.
    pub session_id: SessionId,
}

impl Accepted {
    fn of(row: &session::Model) -> Accepted {
        Accepted { session_id: row.id.clone() }
    }

    fn keep(&self) -> Kept {
        Kept { status: 201, body: serde_json::json!(self).to_string(), location: None }
    }
}

/// The room's community; the caller's word counts only where the room has none.
async fn community_of(deps: &Deps, request: &StartRequest) -> Result<Option<CommunityId>> {
    let of_room = room::community(deps, &request.room).await?;
    match (&request.community, of_room) {
        (Some(asked), Some(found)) if *asked != found => Err(Error::new(
            Code::CommunityMismatch,
            "The room belongs to another community than the request says.",
        )),
        (_, Some(found)) => Ok(Some(found)),
        (asked, None) => Ok(asked.clone()),
    }
}

async fn require(
    deps: &Deps,
    starter: Starter<'_>,
    permission: Permission,
    community: Option<&CommunityId>,
) -> Result<()> {
    match starter {
        Starter::Caller(caller) => authorize::require(deps, caller, permission, community).await,
        Starter::Automatic(user) => {
            if authorize::allowed_for_user(deps, user, permission, community).await? {
                Ok(())
            } else {
                Err(Error::new(Code::PermissionDenied, "This user may not start a buffer here."))
            }
        }
    }
}

/// The person on the screen and the tracks to record; somebody else's share takes a manager.
async fn find_share(
    deps: &Deps,
    starter: Starter<'_>,
    request: &StartRequest,
    community: Option<&CommunityId>,
) -> Result<Share> {
    let rule = &deps.config.livekit.identity_pattern;
    let managing = require(deps, starter, Permission::ManageReplayLimits, community).await;
    let others_allowed = managing.is_ok();
    let another = |identity| rule.user_of(identity).as_ref() != Some(starter.user());
    // named by person alone: a right is missing, not a track
    if request.video.is_none() && request.identity.as_ref().is_some_and(another) {
        managing?;
    }
    let participants = deps.livekit.list_participants(&request.room).await?.unwrap_or_default();
    let wanted = ShareRequest {
        video: request.video.clone(),
        audio: request.audio.clone(),
        identity: request.identity.clone(),
    };
    share::find_share(&participants, &wanted, starter.user(), rule, others_allowed)
}

/// A friendlier and earlier no than the unique index gives; the index is what holds.
async fn refuse_if_active(deps: &Deps, owner: &UserId) -> Result<()> {
    match session::find_holding(deps.db.conn(), owner).await? {
        Some(active) => Err(already_active(&active)),
        None => Ok(()),
    }
}

fn already_active(active: &session::Model) -> Error {
    Error::new(Code::BufferAlreadyActive, "A replay buffer is already running.")
        .with("sessionId", active.id.as_str())
        .with("roomName", active.room_name.as_str())
        .with("startedAt", active.started_at.to_rfc3339())
}

fn new_row(
    deps: &Deps,
    starter: Starter<'_>,
    request: &StartRequest,
    community_id: Option<CommunityId>,
    chosen: &Share,
    arrived_at: Timestamp,
) -> session::Model {
    let now = deps.clock.now();
    let username = match starter {
        Starter::Caller(caller) if caller.user_id == chosen.owner => caller.name.clone(),
        _ => Some(chosen.name.clone()).filter(|name| !name.is_empty()),
    };
    let pixels = |value: u32| i32::try_from(value).unwrap_or(0);
    session::Model {
        id: SessionId::generate(),
        user_id: chosen.owner.clone(),
        started_by: starter.user().clone(),
        username,
        community_id,
        room_name: request.room.clone(),
        identity: chosen.identity.clone(),
        video_track_id: Some(chosen.video.sid.clone()),
        quality: request.quality.as_str().to_owned(),
        status: SessionStatus::Starting,
        holds_place: true,
        auto_started: matches!(starter, Starter::Automatic(_)),
        current_epoch: 1,
        source_width: pixels(chosen.video.width),
        source_height: pixels(chosen.video.height),
        started_at: arrived_at,
        ended_at: None,
        end_reason: None,
        capturable_until: None,
        media_starts_at: None,
        media_ends_at: None,
        share_lost_at: None,
        restart_attempts: 0,
        restart_at: None,
        highest_rate: 0,
        pin_seq: 0,
        discard: false,
        stop_requested_at: None,
        link_generation: 0,
        buffer_gone_at: None,
        created_at: now,
        updated_at: now,
    }
}

/// How often a place that was given back the moment it was found taken is asked for again.
const TRIES: usize = 5;

/// The places and the rows; whoever is too late learns which session of the user's is there.
async fn accept(
    deps: &Deps,
    starter: Starter<'_>,
    row: session::Model,
    chosen: &Share,
    room: &Room,
) -> Result<store::epoch::Model> {
    for _ in 0..TRIES {
        if let Some(first) = take_places(deps, starter, row.clone(), chosen, room).await? {
            return Ok(first);
        }
        // one that ended in between is no reason to refuse
        refuse_if_active(deps, &row.user_id).await?;
    }
    Err(Error::new(Code::Overloaded, "Try again.").retryable())
}

/// One transaction: the session, which is its user's place, the community's place, the first epoch, and room on the disk
/// for all of it. In this order: whoever ends a session has its row first and the community's then, and two orders would wait for each other.
/// Nothing if the user has a session.
async fn take_places(
    deps: &Deps,
    starter: Starter<'_>,
    row: session::Model,
    chosen: &Share,
    room: &Room,
) -> Result<Option<store::epoch::Model>> {
    let now = deps.clock.now();
    let first = epoch::new_row(deps, &row, 1, chosen, now)?;
    let (owner, community) = (row.user_id.clone(), row.community_id.clone());
    let line = Line::new(Action::SessionStart)
        .session(&row)
        .after(serde_json::json!({ "quality": row.quality }));
    let tx = deps.db.begin().await?;
    if session::insert(&tx, row).await? == session::Inserted::PlaceTaken {
        store::rollback(tx).await?;
        return Ok(None);
    }
    if let Some(community) = &community {
        let default_max = deps.config.limits.community_max_concurrent;
        let place = store::community::take_place(&tx, community, default_max, now).await?;
        if let Some(refusal) = refusal(&place) {
            store::rollback(tx).await?;
            return Err(refusal);
        }
    }
    store::epoch::insert(&tx, first.clone()).await?;
    if let Starter::Caller(caller) = starter
        && caller.user_id != owner
    {
        audit_log::done(&tx, caller, line, now).await?;
    }
    if let Err(refusal) = room.refuse_if_it_does_not_fit(&tx).await {
        store::rollback(tx).await?;
        return Err(refusal);
    }
    store::commit(tx).await?;
    Ok(Some(first))
}

/// Why a community gave no place.
fn refusal(place: &Place) -> Option<Error> {
    match place {
        Place::Taken => None,
        Place::Disabled => {
            let detail = "Replay is switched off in this community.";
            Some(Error::new(Code::CommunityDisabled, detail))
        }
        Place::Full { max_concurrent, active } => {
            let detail = "This community has no free replay place.";
            let error = Error::new(Code::CommunityLimitReached, detail)
                .with("maxConcurrent", *max_concurrent)
                .with("active", *active)
                .retry_after(std::time::Duration::from_secs(30));
            Some(error)
        }
    }
}
