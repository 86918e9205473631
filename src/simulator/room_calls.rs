//! The RoomService: the calls a recorder needs.

use livekit_protocol as proto;

use super::{
    twirp::{Call, Refusal, answer},
    world::World,
};

pub(super) fn handle(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    match call.method.as_str() {
        "ListRooms" => list_rooms(world, call),
        "CreateRoom" => create_room(world, call),
        "DeleteRoom" => delete_room(world, call),
        "UpdateRoomMetadata" => update_metadata(world, call),
        "ListParticipants" => list_participants(world, call),
        "GetParticipant" => get_participant(world, call),
        "RemoveParticipant" => remove_participant(world, call),
        "MutePublishedTrack" => mute(world, call),
        _ => Err(call.bad_route("livekit.RoomService")),
    }
}

fn list_rooms(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    call.require(call.grants.room_list)?;
    let request: proto::ListRoomsRequest = call.decode()?;
    let mut rooms = world.rooms();
    rooms.retain(|room| request.names.is_empty() || request.names.contains(&room.name));
    Ok(answer(&proto::ListRoomsResponse { rooms }))
}

fn create_room(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    call.require(call.grants.room_create)?;
    let request: proto::CreateRoomRequest = call.decode()?;
    let metadata = Some(request.metadata.as_str()).filter(|metadata| !metadata.is_empty());
    Ok(answer(&world.create_room(&request.name, metadata)))
}

fn delete_room(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    call.require(call.grants.room_create)?;
    let request: proto::DeleteRoomRequest = call.decode()?;
    match world.close_room(&request.room) {
        true => Ok(answer(&proto::DeleteRoomResponse {})),
        false => Err(Refusal::not_found("room not found")),
    }
}

fn update_metadata(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    let request: proto::UpdateRoomMetadataRequest = call.decode()?;
    call.require_admin(&request.room)?;
    let room = world.set_metadata(&request.room, &request.metadata);
    room.map(|room| answer(&room))
        .ok_or_else(|| Refusal::not_found("requested room does not exist"))
}

/// A room that does not exist has no participants: the server answers with an empty list.
fn list_participants(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    let request: proto::ListParticipantsRequest = call.decode()?;
    call.require_admin(&request.room)?;
    let participants = world.participants(&request.room);
    Ok(answer(&proto::ListParticipantsResponse { participants }))
}

fn get_participant(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    let request: proto::RoomParticipantIdentity = call.decode()?;
    call.require_admin(&request.room)?;
    let mut people = world.participants(&request.room).into_iter();
    let found = people.find(|one| one.identity == request.identity);
    found.map(|one| answer(&one)).ok_or_else(|| Refusal::not_found("participant does not exist"))
}

fn remove_participant(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    let request: proto::RoomParticipantIdentity = call.decode()?;
    call.require_admin(&request.room)?;
    match world.leave(&request.room, &request.identity) {
        true => Ok(answer(&proto::RemoveParticipantResponse {})),
        false => Err(Refusal::not_found("participant not found")),
    }
}

fn mute(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    let request: proto::MuteRoomTrackRequest = call.decode()?;
    call.require_admin(&request.room)?;
    let not_found = || Refusal::not_found("track is not found");
    world.track_in(&request.room, &request.track_sid).ok_or_else(not_found)?;
    let track = world.set_muted(&request.track_sid, request.muted).map_err(|_| not_found())?;
    Ok(answer(&proto::MuteRoomTrackResponse { track: Some(track) }))
}
