//! Names made fit for a disk: every directory and file name of ours, from ids only.
//!
//! Rooms and users are named by strangers. A key is a readable prefix and a hash of the whole name: bounded, plain
//! lower-case ASCII, never special to a file system, and never the same for two names, also where case is ignored.

use sha2::{Digest, Sha256};

use crate::{
    domain::id::{ClipId, InstanceId, RoomName, SessionId, UserId},
    error::{Error, Result},
};

/// No key is longer, in bytes.
pub const MAX_KEY_BYTES: usize = 64;
const PREFIX_BYTES: usize = 24;
const HASH_BYTES: usize = 16;

/// The directory name of a room.
pub fn room_key(room: &RoomName) -> String {
    key(room.as_str())
}

/// The directory name of a user, in the buffer and among the clips.
pub fn user_key(user: &UserId) -> String {
    key(user.as_str())
}

fn key(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut prefix: String = name.chars().take(PREFIX_BYTES).map(plain).collect();
    while prefix.contains("--") {
        prefix = prefix.replace("--", "-");
    }
    let prefix = prefix.trim_matches('-');
    let hash = hex::encode(&Sha256::digest(name.as_bytes())[..HASH_BYTES]);
    if prefix.is_empty() { hash } else { format!("{prefix}-{hash}") }
}

/// `<instanceId>/<room-key>/<user-key>/<sessionId>`, relative to the buffer's root: the directory of a session.
///
/// Fails with `not_found` on an id that is none of ours (it came from outside and was not checked).
pub fn session_path(
    instance: &InstanceId,
    room: &RoomName,
    user: &UserId,
    session: &SessionId,
) -> Result<String> {
    let instance = instance_name(instance)?;
    let session = plain_id(session.as_str(), "session")?;
    Ok(format!("{instance}/{}/{}/{session}", room_key(room), user_key(user)))
}

/// The directory of an epoch: a session's and the epoch's number.
pub fn buffer_path(
    instance: &InstanceId,
    room: &RoomName,
    user: &UserId,
    session: &SessionId,
    epoch: u32,
) -> Result<String> {
    Ok(format!("{}/{epoch}", session_path(instance, room, user, session)?))
}

/// `<user-key>/<clipId>.mp4`, relative to the clips' root.
pub fn clip_path(user: &UserId, clip: &ClipId) -> Result<String> {
    clip_file(user, clip, "mp4")
}

/// `<user-key>/<clipId>.json`: the clip's record beside it.
pub fn sidecar_path(user: &UserId, clip: &ClipId) -> Result<String> {
    clip_file(user, clip, "json")
}

/// `<user-key>/<clipId>.jpg`: its thumbnail.
pub fn thumbnail_path(user: &UserId, clip: &ClipId) -> Result<String> {
    clip_file(user, clip, "jpg")
}

fn clip_file(user: &UserId, clip: &ClipId, extension: &str) -> Result<String> {
    Ok(format!("{}/{}.{extension}", user_key(user), plain_id(clip.as_str(), "clip")?))
}

fn instance_name(instance: &InstanceId) -> Result<&str> {
    let name = instance.as_str();
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if name.len() == 8 && name.bytes().all(hex) {
        Ok(name)
    } else {
        Err(Error::internal(
            "naming a directory",
            format!("instance id {name:?} is not 8 hex digits"),
        ))
    }
}

/// Our ids are UUIDs: lower-case hex and hyphens. Anything else would be somebody's text in a path.
fn plain_id<'a>(id: &'a str, what: &str) -> Result<&'a str> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'-';
    let bounded = (1..=MAX_KEY_BYTES).contains(&id.len());
    if bounded && id.bytes().all(plain) { Ok(id) } else { Err(Error::not_found(what)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_a_readable_prefix_and_a_hash_and_stays_what_it_is() {
        let key = room_key(&RoomName::new("Team 42 / Standup"));
        assert!(key.starts_with("team-42-standup-"), "{key}");
        assert_eq!(key, room_key(&RoomName::new("Team 42 / Standup")));
        // directories of earlier versions must be found again
        let abc = "abc-ba7816bf8f01cfea414140de5dae2223";
        assert_eq!(user_key(&UserId::new("abc")), abc);
    }

    #[test]
    fn names_that_look_alike_to_a_file_system_do_not_meet() {
        let names = [
            "bob",
            "Bob",
            "BOB",
            "bob ",
            "bob.",
            "bo/b",
            "bo\\b",
            "",
            ".",
            "..",
            "...",
            "b\u{f6}b",
            "bo\u{308}b",
            "con",
            "nul",
        ];
        let mut keys: Vec<String> =
            names.iter().map(|name| user_key(&UserId::new(*name))).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), names.len());
    }

    #[test]
    fn paths_are_made_of_our_ids_only() {
        let instance = InstanceId::new("0123abcd");
        let (room, user) = (RoomName::new("../../etc"), UserId::new("a\n/b"));
        let path =
            buffer_path(&instance, &room, &user, &SessionId::new("0190-aa"), 2).expect("a path");
        assert_eq!(path, format!("0123abcd/{}/{}/0190-aa/2", room_key(&room), user_key(&user)));
        for hostile in ["..", "", "a/b", "A", "a.b", "a\0"] {
            assert!(buffer_path(&instance, &room, &user, &SessionId::new(hostile), 1).is_err());
            assert!(clip_path(&user, &ClipId::new(hostile)).is_err());
        }
        assert!(
            session_path(&InstanceId::new("../x/abc"), &room, &user, &SessionId::new("a")).is_err()
        );
        let clip = ClipId::generate();
        assert_eq!(
            clip_path(&user, &clip).expect("ours"),
            format!("{}/{clip}.mp4", user_key(&user))
        );
    }

    proptest! {
        #[test]
        fn every_name_gives_a_plain_bounded_key(name in any::<String>(), other in any::<String>()) {
            let key = room_key(&RoomName::new(name.clone()));
            prop_assert!((32..=MAX_KEY_BYTES).contains(&key.len()));
            prop_assert!(key.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-'));
            prop_assert!(!key.starts_with('-'));
            prop_assert_eq!(name == other, key == room_key(&RoomName::new(other)));
        }
    }
}
