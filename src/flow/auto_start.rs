//! A published share starts a buffer by itself where the community wants it: under the same rights and limits as a
//! request, by database roles alone, because there is no token.

use std::{
    collections::{HashMap, HashSet},
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

/// After a start of a share that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// Rooms or shares looked at side by side.
const AT_ONCE: usize = 16;

/// Shares remembered; beyond it everything is forgotten, because they are made outside.
const MOST_SEEN: usize = 10_000;

/// Shares that this process has seen.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<TrackId, Sight>>);

/// How a share was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// It was decided about: a no counts for as long as the share is published, whatever changes meanwhile.
    Decided,
    /// Its user was being recorded elsewhere. If he stops that, he does not want this recorded either: he had published
    /// it before.
    Behind,
}

impl Seen {
    fn insert(&self, track: TrackId, sight: Sight) {
        let mut tracks = self.tracks();
        if tracks.len() >= MOST_SEEN {
            tracks.clear();
        }
        tracks.insert(track, sight);
    }

    fn is(&self, track: &TrackId, sight: Sight) -> bool {
        self.tracks().get(track) == Some(&sight)
    }

    fn tracks(&self) -> MutexGuard<'_, HashMap<TrackId, Sight>> {
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
/// share that was recorded before is left alone, however that ended; one whose start failed is tried again, less and less
/// often. Says how many started.
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
        seen.retain(|track, _| !all_said || there.contains(track));
        let decided = |track| seen.get(track) == Some(&Sight::Decided);
        shares.iter().filter(|share| !decided(&share.track)).collect()
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
    let done = match is_open(deps, share).await {
        // to its end, also when the pass is cut short: LiveKit may have begun
        Ok(true) => {
            let (own, share) = (deps.clone(), share.clone());
            deps.to_the_end(async move { decide(&own, &share).await }).await
        }
        no => no,
    };
    done.unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "a share waits for the next pass to start");
        false
    })
}

/// Whether it may be started now: no session recorded this share (one of an older release counts as if it had), or that
/// was never accepted, some time ago.
async fn is_open(deps: &Deps, share: &Published) -> Result<bool> {
    let Some(user) = deps.config.livekit.identity_pattern.user_of(&share.identity) else {
        return Ok(true);
    };
    let (conn, track) = (deps.db.conn(), &share.track);
    match session::find_newest_of_track(conn, &user, track).await? {
        Some(failed) if failed.end_reason == Some(EndReason::StartFailed) => {
            let times = session::count_failed_starts(conn, &user, track).await?;
            Ok(failed.created_at.plus(pause_after(times)) <= deps.clock.now())
        }
        Some(_) => Ok(false),
        None => {
            let newest = session::find_newest_of_user(conn, &user).await?;
            Ok(newest.is_none_or(|newest| newest.video_track_id.is_some()))
        }
    }
}

/// Each failed start is a session and an event: half a minute, doubled each time, at most half an hour.
fn pause_after(failed: u64) -> Duration {
    let doubled = u32::try_from(failed.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    FIRST_PAUSE * 2_u32.pow(doubled)
}

/// What becomes of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Started,
    /// For as long as it is published.
    No,
    /// To be asked again.
    Later,
}

/// Starts, or says no once and for all, or waits; says whether it started. An error decides nothing.
async fn decide(deps: &Deps, share: &Published) -> Result<bool> {
    let decision = try_start(deps, share).await?;
    let later = decision == Decision::Later;
    deps.shares_seen
        .insert(share.track.clone(), if later { Sight::Behind } else { Sight::Decided });
    Ok(decision == Decision::Started)
}

async fn try_start(deps: &Deps, share: &Published) -> Result<Decision> {
    let Published { room, identity, track } = share;
    let Some(user) = deps.config.livekit.identity_pattern.user_of(identity) else {
        return Ok(Decision::No);
    };
    let arrived_at = deps.clock.now();
    let Some(community_id) = room::community(deps, room).await? else { return Ok(Decision::No) };
    let wanted = community::find(deps.db.conn(), &community_id)
        .await?
        .is_some_and(|community| community.auto_start && community.enabled);
    if !wanted
        || !own::wants_auto_start(deps, &user).await?
        || is_barred(deps, &user, track).await?
    {
        return Ok(Decision::No);
    }
    if let Some(holding) = session::find_holding(deps.db.conn(), &user).await? {
        // it may be one whose share is over and only waited for, while its user is sharing here now
        let elsewhere = holding.video_track_id.as_ref() != Some(track);
        return Ok(if elsewhere { Decision::Later } else { Decision::No });
    }
    wait_for_audio(deps, room, &user).await?;
    let request = StartRequest {
        room: room.clone(),
        community: Some(community_id),
        quality: Quality::default(),
        video: Some(track.clone()),
        audio: None,
        identity: None,
        held: None,
    };
    match start::start(deps, Starter::Automatic(&user), &request, arrived_at).await {
        Ok(session) => {
            tracing::info!(session.id = %session.id, user.id = %user, "replay buffer started by itself");
            Ok(Decision::Started)
        }
        Err(error) if is_a_plain_no(error.code()) => {
            tracing::info!(user.id = %user, code = %error.code(), "no automatic start");
            Ok(Decision::No)
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
    let stopped = |session: &session::Model| {
        matches!(session.end_reason, Some(EndReason::StoppedByUser | EndReason::Discarded))
    };
    let of_track = session::find_newest_of_track(deps.db.conn(), user, track).await?;
    if of_track.as_ref().is_some_and(stopped) {
        return Ok(true);
    }
    let newest = session::find_newest_of_user(deps.db.conn(), user).await?;
    let Some(newest) = newest.filter(stopped) else { return Ok(false) };
    if deps.shares_seen.is(track, Sight::Behind) {
        return Ok(true);
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
