//! What we know of a room: its community, and who is in it.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::Deps;
use crate::{
    domain::id::{CommunityId, RoomName, UserId},
    error::Result,
};

/// The room's community, by the configured rule over its name and metadata. Participants' metadata is never asked:
/// they write it themselves.
pub async fn community(deps: &Deps, room: &RoomName) -> Result<Option<CommunityId>> {
    let metadata = deps.livekit.find_room_metadata(room).await?.unwrap_or_default();
    Ok(deps.config.rooms.community_of(room, &metadata))
}

/// How long an answer of LiveKit about who is in a room is good for.
const FRESH: Duration = Duration::from_secs(5);
/// Rooms remembered; beyond it everything is forgotten, because names come from outside.
const ROOMS: usize = 10_000;

/// Who is in which room, asked of LiveKit at most every five seconds a room.
#[derive(Debug, Default)]
pub struct Presence {
    rooms: Mutex<HashMap<RoomName, (Instant, Vec<UserId>)>>,
}

impl Presence {
    /// Whether a user is in a room now (or was a moment ago). LiveKit not answering counts as no.
    pub async fn is_present(&self, deps: &Deps, room: &RoomName, user: &UserId) -> Result<bool> {
        if let Some(known) = self.known(room) {
            return Ok(known.contains(user));
        }
        let participants = match deps.livekit.list_participants(room).await {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => {
                tracing::debug!(error = ?error, "could not ask who is in a room");
                return Ok(false);
            }
        };
        let rule = &deps.config.livekit.identity_pattern;
        let users: Vec<UserId> =
            participants.iter().filter_map(|one| rule.user_of(&one.identity)).collect();
        let present = users.contains(user);
        self.remember(room, users);
        Ok(present)
    }

    fn known(&self, room: &RoomName) -> Option<Vec<UserId>> {
        let rooms = self.rooms.lock().ok()?;
        let (asked_at, users) = rooms.get(room)?;
        (asked_at.elapsed() < FRESH).then(|| users.clone())
    }

    fn remember(&self, room: &RoomName, users: Vec<UserId>) {
        if let Ok(mut rooms) = self.rooms.lock() {
            if rooms.len() >= ROOMS {
                rooms.clear();
            }
            rooms.insert(room.clone(), (Instant::now(), users));
        }
    }
}
