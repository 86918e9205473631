//! A published share starts a buffer by itself where the community wants it: under the same rights and limits as a
//! request, by database roles alone, because there is no token.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};

use super::{
    Deps, own, room,
    start::{self, StartRequest, Starter},
};
use crate::{
    domain::{
        id::{Identity, RoomName, TrackId, UserId},
        lifecycle::EndReason,
        share::{self, ShareRequest, TrackSource},
        sizes::Quality,
    },
    error::{Code, Result},
    store::{community, epoch, session},
};

/// How often the room is asked while waiting for the share's audio.
const AUDIO_POLL: Duration = Duration::from_millis(250);

/// Rooms or shares looked at side by side.
const AT_ONCE: usize = 16;

/// Shares remembered; beyond it everything is forgotten, because they are made outside.
const MOST_SEEN: usize = 10_000;

/// Shares about which it was decided, in this process: a no counts for as long as the share is published, whatever
/// changes meanwhile.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashSet<TrackId>>);

impl Seen {
    fn insert(&self, track: TrackId) {
        let mut tracks = self.tracks();
        if tracks.len() >= MOST_SEEN {
            tracks.clear();
        }
        tracks.insert(track);
    }

    fn tracks(&self) -> MutexGuard<'_, HashSet<TrackId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A share in a room.
#[derive(Debug, Clone)]
struct Published {
    room: RoomName,
    identity: Identity,
    track: TrackId,
}

/// Starts a buffer for a share that was just published, if its community wants that and its user may.
pub async fn consider(
    deps: &Deps,
    room: &RoomName,
    identity: &Identity,
    track: &TrackId,
) -> Result<()> {
    let share = Published { room: room.clone(), identity: identity.clone(), track: track.clone() };
    decide(deps, &share).await.map(drop)
}

/// Shares that nobody told us of, or could not be started when we were told: a webhook comes once, and may get lost. A
/// share that was recorded before is left alone, however that ended. Says how many started.
///
/// # Errors
/// Those of the database, and of LiveKit when it does not list its rooms.
pub async fn catch_up(deps: &Deps) -> Result<u64> {
    let wanting = community::list_auto_starting(deps.db.conn()).await?;
    if wanting.is_empty() {
        return Ok(0);
    }
    let mut rooms = deps.livekit.list_rooms().await?;
    let rule = &deps.config.rooms;
    rooms.retain(|room| {
        rule.community_of(&room.name, &room.metadata).is_some_and(|of| wanting.contains(&of))
    });
    let asked: Vec<_> = rooms.iter().map(|room| shares_in(deps, &room.name)).collect();
    let asked: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let all_said = asked.iter().all(Option::is_some);
    let shares: Vec<Published> = asked.into_iter().flatten().flatten().collect();
    let there: HashSet<&TrackId> = shares.iter().map(|share| &share.track).collect();
    let new: Vec<_> = {
        let mut seen = deps.shares_seen.tracks();
        // nothing is concluded from a room that did not say who is there
        seen.retain(|track| !all_said || there.contains(track));
        shares.iter().filter(|share| !seen.contains(&share.track)).collect()
    };
    let work: Vec<_> = new.into_iter().map(|share| make_up(deps, share)).collect();
    let started: Vec<bool> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
    Ok(started.into_iter().map(u64::from).sum())
}

/// The screens shared in a room; `None` where LiveKit does not say, until the next pass.
async fn shares_in(deps: &Deps, room: &RoomName) -> Option<Vec<Published>> {
    let participants = match deps.livekit.list_participants(room).await {
        Ok(found) => found.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "a room was not looked at for shares");
            return None;
        }
    };
    let shares = participants.into_iter().flat_map(|participant| {
        let identity = participant.identity;
        let screens = participant.tracks.into_iter();
        screens.filter(|track| track.source == TrackSource::ScreenShare).map(move |track| {
            Published { room: room.clone(), identity: identity.clone(), track: track.sid }
        })
    });
    Some(shares.collect())
}

async fn make_up(deps: &Deps, share: &Published) -> bool {
    let done = match was_recorded(deps, share).await {
        Ok(false) => decide(deps, share).await,
        no => no.map(|_| false),
    };
    done.unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "a share waits for the next pass to start");
        false
    })
}

/// Whether the user's newest session recorded this share; one of an older release counts as if it had.
async fn was_recorded(deps: &Deps, share: &Published) -> Result<bool> {
    let Some(user) = deps.config.livekit.identity_pattern.user_of(&share.identity) else {
        return Ok(false);
    };
    let newest = session::find_newest_of_user(deps.db.conn(), &user).await?;
    Ok(newest.is_some_and(|newest| newest.video_track_id.is_none_or(|track| track == share.track)))
}

/// Starts, or says no once and for all; says whether it started. An error decides nothing.
async fn decide(deps: &Deps, share: &Published) -> Result<bool> {
    let started = try_start(deps, share).await?;
    deps.shares_seen.insert(share.track.clone());
    Ok(started)
}

async fn try_start(deps: &Deps, share: &Published) -> Result<bool> {
    let Published { room, identity, track } = share;
    let Some(user) = deps.config.livekit.identity_pattern.user_of(identity) else {
        return Ok(false);
    };
    let arrived_at = deps.clock.now();
    let Some(community_id) = room::community(deps, room).await? else { return Ok(false) };
    let wanted = community::find(deps.db.conn(), &community_id)
        .await?
        .is_some_and(|community| community.auto_start && community.enabled);
    if !wanted
        || session::find_holding(deps.db.conn(), &user).await?.is_some()
        || !own::wants_auto_start(deps, &user).await?
        || is_barred(deps, &user, track).await?
    {
        return Ok(false);
    }
    wait_for_audio(deps, room, &user).await?;
    let request = StartRequest {
        room: room.clone(),
        community: Some(community_id),
        quality: Quality::default(),
        video: None,
        audio: None,
        identity: None,
    };
    match start::start(deps, Starter::Automatic(&user), &request, arrived_at).await {
        Ok(session) => {
            tracing::info!(session.id = %session.id, user.id = %user, "replay buffer started by itself");
            Ok(true)
        }
        Err(error) if is_a_plain_no(error.code()) => {
            tracing::info!(user.id = %user, code = %error.code(), "no automatic start");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Answers that a caller would simply have been given.
fn is_a_plain_no(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied
            | Code::BufferAlreadyActive
            | Code::CommunityLimitReached
            | Code::CommunityDisabled
            | Code::InsufficientDisk
            | Code::ScreenShareNotFound
    )
}

/// A stop by the user bars automatic starts until he publishes a new track.
async fn is_barred(deps: &Deps, user: &UserId, track: &TrackId) -> Result<bool> {
    let Some(newest) = session::find_newest_of_user(deps.db.conn(), user).await? else {
        return Ok(false);
    };
    if !matches!(newest.end_reason, Some(EndReason::StoppedByUser | EndReason::Discarded)) {
        return Ok(false);
    }
    if let Some(recorded) = &newest.video_track_id {
        return Ok(recorded == track);
    }
    // of an older release: as long as its buffer is there, its epochs know
    let epochs = epoch::list(deps.db.conn(), &newest.id).await?;
    Ok(epochs.iter().any(|epoch| epoch.video_track_id == *track))
}

/// Picture and sound of a share are published one after the other, in no defined order.
async fn wait_for_audio(deps: &Deps, room: &RoomName, user: &UserId) -> Result<()> {
    let deadline = tokio::time::Instant::now() + deps.config.sessions.audio_wait;
    let rule = &deps.config.livekit.identity_pattern;
    while tokio::time::Instant::now() < deadline && !deps.stop.is_cancelled() {
        let participants = deps.livekit.list_participants(room).await?.unwrap_or_default();
        match share::find_share(&participants, &ShareRequest::default(), user, rule, false) {
            Ok(found) if found.audio.is_none() => tokio::time::sleep(AUDIO_POLL).await,
            _ => return Ok(()),
        }
    }
    Ok(())
}
