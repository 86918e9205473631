//! What we know of a room: its community, and who is in it (asked at most every few seconds).

use super::Deps;
use crate::{
    config::CommunitySource,
    domain::{
        id::{CommunityId, RoomName},
        names,
    },
    error::Result,
};

/// The room's community: the pattern over its name, else its metadata, in the configured order. Participants'
/// metadata is never asked: they write it themselves.
pub async fn community(deps: &Deps, room: &RoomName) -> Result<Option<CommunityId>> {
    for source in &deps.config.rooms.community_sources {
        let found = match source {
            CommunitySource::Pattern => deps
                .config
                .rooms
                .community_pattern
                .as_ref()
                .and_then(|pattern| names::community_of_name(pattern, room)),
            CommunitySource::Metadata => deps
                .livekit
                .find_room_metadata(room)
                .await?
                .and_then(|metadata| names::community_of_metadata(&metadata)),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
