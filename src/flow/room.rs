//! What we know of a room.

use super::Deps;
use crate::{
    domain::id::{CommunityId, RoomName},
    error::Result,
};

/// The room's community, by the configured rule over its name and metadata. Participants' metadata is never asked:
/// they write it themselves.
pub async fn community(deps: &Deps, room: &RoomName) -> Result<Option<CommunityId>> {
    let metadata = deps.livekit.find_room_metadata(room).await?.unwrap_or_default();
    Ok(deps.config.rooms.community_of(room, &metadata))
}
