//! A published share starts a buffer by itself where the community wants it: under the same rights and limits as a
//! request, by database roles alone, because there is no token.

use std::time::Duration;

use super::{
    Deps, own, room,
    start::{self, StartRequest, Starter},
};
use crate::{
    domain::{
        id::{Identity, RoomName, TrackId, UserId},
        lifecycle::EndReason,
        share::{self, ShareRequest},
        sizes::Quality,
    },
    error::{Code, Result},
    store::{community, epoch, session},
};

/// How often the room is asked while waiting for the share's audio.
const AUDIO_POLL: Duration = Duration::from_millis(250);

/// Starts a buffer for a share that was just published, if its community wants that and its user may.
pub async fn consider(
    deps: &Deps,
    room: &RoomName,
    identity: &Identity,
    track: &TrackId,
) -> Result<()> {
    let Some(user) = deps.config.livekit.identity_pattern.user_of(identity) else { return Ok(()) };
    let arrived_at = deps.clock.now();
    let Some(community_id) = room::community(deps, room).await? else { return Ok(()) };
    let wanted = community::find(deps.db.conn(), &community_id)
        .await?
        .is_some_and(|community| community.auto_start && community.enabled);
    if !wanted
        || session::find_holding(deps.db.conn(), &user).await?.is_some()
        || !own::wants_auto_start(deps, &user).await?
        || is_barred(deps, &user, track).await?
    {
        return Ok(());
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
            Ok(())
        }
        Err(error) if is_a_plain_no(error.code()) => {
            tracing::info!(user.id = %user, code = %error.code(), "no automatic start");
            Ok(())
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
