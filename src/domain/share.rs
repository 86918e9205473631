//! Which tracks of a room are the caller's screen share: LiveKit's list decides, never the client's word.

use crate::{
    domain::{
        id::{Identity, TrackId, UserId},
        names::IdentityRule,
    },
    error::{Code, Error, Result},
};

/// Where a track comes from, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackSource {
    /// The picture of a shared screen.
    ScreenShare,
    /// Its sound.
    ScreenShareAudio,
    /// Camera, microphone, anything else.
    Other,
}

/// Sound or picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
    /// Neither.
    Data,
}

/// A published track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// LiveKit's id.
    pub sid: TrackId,
    /// Where it comes from.
    pub source: TrackSource,
    /// Sound or picture.
    pub kind: TrackKind,
    /// Muted tracks are recorded as black or silence.
    pub muted: bool,
    /// Picture size, 0 if LiveKit does not know it yet.
    pub width: u32,
    /// Picture size, 0 if LiveKit does not know it yet.
    pub height: u32,
    /// Rises with the time of publication, over the whole room.
    pub published_order: u64,
}

/// Somebody in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// LiveKit's identity.
    pub identity: Identity,
    /// LiveKit's id of this presence (`PA_…`).
    pub sid: String,
    /// The name shown to others; may be empty.
    pub name: String,
    /// What is published.
    pub tracks: Vec<Track>,
}

/// What the caller named, if anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareRequest {
    /// The picture.
    pub video: Option<TrackId>,
    /// The sound.
    pub audio: Option<TrackId>,
    /// The identity it is to be looked for at.
    pub identity: Option<Identity>,
}

/// What is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The person on the screen: the session is his.
    pub owner: UserId,
    /// The identity that publishes the picture.
    pub identity: Identity,
    /// That presence's id.
    pub participant_sid: String,
    /// The name shown to others; may be empty.
    pub name: String,
    /// The picture.
    pub video: Track,
    /// The sound, if there is any.
    pub audio: Option<Track>,
}

/// Finds what to record for `caller`: his newest screen share with its sound, or the tracks named.
///
/// Somebody else's share needs `others_allowed` (`MANAGE_REPLAY_LIMITS`) and must be named by track or identity. Fails
/// with `screen_share_not_found`, or `track_not_yours` for a track that is another's or no screen share.
pub fn find_share(
    participants: &[Participant],
    request: &ShareRequest,
    caller: &UserId,
    rule: &IdentityRule,
    others_allowed: bool,
) -> Result<Share> {
    let place = Room { participants, rule };
    let (participant, video) = match &request.video {
        Some(sid) => place.named_video(sid)?,
        None => place.newest_video(request.identity.as_ref(), caller)?,
    };
    let owner = rule.user_of(&participant.identity).ok_or_else(not_yours)?;
    let elsewhere = request.identity.as_ref().is_some_and(|wanted| *wanted != participant.identity);
    if elsewhere || (owner != *caller && !others_allowed) {
        return Err(not_yours());
    }
    let audio = match &request.audio {
        Some(sid) => Some(place.named_audio(sid, &owner)?),
        None => screen_audio(participant),
    };
    Ok(Share {
        owner,
        identity: participant.identity.clone(),
        participant_sid: participant.sid.clone(),
        name: participant.name.clone(),
        video: video.clone(),
        audio: audio.cloned(),
    })
}

/// What to ask for so that a recording goes on with the tracks it has, as far as they are still there and the user's: a
/// share that was chosen is not given up for a newer one.
pub fn same_again(
    participants: &[Participant],
    (video, audio): (&TrackId, Option<&TrackId>),
    user: &UserId,
    rule: &IdentityRule,
) -> ShareRequest {
    let own = participants.iter().filter(|one| rule.user_of(&one.identity).as_ref() == Some(user));
    let own: Vec<&Track> = own.flat_map(|one| &one.tracks).collect();
    let find = |sid: &TrackId| own.iter().find(|track| track.sid == *sid);
    match Some(video).filter(|sid| find(sid).is_some_and(|track| is_screen(track))) {
        None => ShareRequest::default(),
        Some(video) => ShareRequest {
            video: Some(video.clone()),
            audio: audio
                .filter(|sid| find(sid).is_some_and(|track| track.kind == TrackKind::Audio))
                .cloned(),
            identity: None,
        },
    }
}

/// The users who share a screen, newest share first, each once.
pub fn sharing_users(participants: &[Participant], rule: &IdentityRule) -> Vec<UserId> {
    let mut shares: Vec<(u64, UserId)> = participants
        .iter()
        .filter_map(|one| Some((newest_screen(one)?.published_order, rule.user_of(&one.identity)?)))
        .collect();
    shares.sort_by(|a, b| b.cmp(a));
    let mut users: Vec<UserId> = Vec::new();
    for (_, user) in shares {
        if !users.contains(&user) {
            users.push(user);
        }
    }
    users
}

struct Room<'a> {
    participants: &'a [Participant],
    rule: &'a IdentityRule,
}

impl<'a> Room<'a> {
    fn track(&self, sid: &TrackId) -> Option<(&'a Participant, &'a Track)> {
        let mut all = self
            .participants
            .iter()
            .flat_map(|one| one.tracks.iter().map(move |track| (one, track)));
        all.find(|(_, track)| track.sid == *sid)
    }

    fn named_video(&self, sid: &TrackId) -> Result<(&'a Participant, &'a Track)> {
        let (participant, track) = self.track(sid).ok_or_else(not_found)?;
        if is_screen(track) { Ok((participant, track)) } else { Err(not_yours()) }
    }

    /// The newest share of the caller, over all his identities; of the identity named, if one is.
    fn newest_video(
        &self,
        identity: Option<&Identity>,
        caller: &UserId,
    ) -> Result<(&'a Participant, &'a Track)> {
        let wanted = |one: &Participant| match identity {
            Some(identity) => one.identity == *identity,
            None => self.rule.user_of(&one.identity).as_ref() == Some(caller),
        };
        let found = self.participants.iter().filter(|one| wanted(one));
        found
            .filter_map(|one| Some((one, newest_screen(one)?)))
            .max_by_key(|(_, track)| track.published_order)
            .ok_or_else(not_found)
    }

    /// Any sound of the person on the screen, his microphone included, if it was asked for by name.
    fn named_audio(&self, sid: &TrackId, owner: &UserId) -> Result<&'a Track> {
        let (participant, track) = self.track(sid).ok_or_else(not_found)?;
        let his = self.rule.user_of(&participant.identity).as_ref() == Some(owner);
        if his && track.kind == TrackKind::Audio { Ok(track) } else { Err(not_yours()) }
    }
}

fn is_screen(track: &Track) -> bool {
    track.source == TrackSource::ScreenShare && track.kind == TrackKind::Video
}

fn newest_screen(participant: &Participant) -> Option<&Track> {
    let screens = participant.tracks.iter().filter(|track| is_screen(track));
    screens.max_by_key(|track| track.published_order)
}

fn screen_audio(participant: &Participant) -> Option<&Track> {
    let sounds = participant.tracks.iter().filter(|track| {
        track.source == TrackSource::ScreenShareAudio && track.kind == TrackKind::Audio
    });
    sounds.max_by_key(|track| track.published_order)
}

fn not_found() -> Error {
    Error::new(Code::ScreenShareNotFound, "No such screen share is published in this room.")
}

fn not_yours() -> Error {
    Error::new(Code::TrackNotYours, "This track is not your screen share or its sound.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(sid: &str, source: TrackSource, kind: TrackKind, published_order: u64) -> Track {
        let (width, height) = if kind == TrackKind::Video { (1920, 1080) } else { (0, 0) };
        Track { sid: TrackId::new(sid), source, kind, muted: false, width, height, published_order }
    }

    fn room() -> Vec<Participant> {
        use TrackKind::{Audio, Video};
        use TrackSource::{Other, ScreenShare, ScreenShareAudio};
        let one = |identity: &str, tracks| Participant {
            name: String::new(),
            identity: Identity::new(identity),
            sid: format!("PA_{identity}"),
            tracks,
        };
        vec![
            one(
                "alice:desk",
                vec![
                    track("a-cam", Other, Video, 9),
                    track("a-mic", Other, Audio, 8),
                    track("a-old", ScreenShare, Video, 1),
                    track("a-old-sound", ScreenShareAudio, Audio, 2),
                ],
            ),
            one("alice:phone", vec![track("a-new", ScreenShare, Video, 5)]),
            one(
                "bob:desk",
                vec![
                    track("b-screen", ScreenShare, Video, 7),
                    track("b-sound", ScreenShareAudio, Audio, 6),
                ],
            ),
            one("carol:desk", vec![]),
            one("nobody", vec![track("x-screen", ScreenShare, Video, 10)]),
        ]
    }

    fn find(user: &str, video: Option<&str>, audio: Option<&str>, manager: bool) -> Result<Share> {
        let rule = IdentityRule::new("^(?<user>[^:]+):.*$").expect("a pattern");
        let request = ShareRequest {
            video: video.map(TrackId::new),
            audio: audio.map(TrackId::new),
            identity: None,
        };
        find_share(&room(), &request, &UserId::new(user), &rule, manager)
    }

    #[test]
    fn a_recording_goes_on_with_its_own_tracks_while_they_are_there() {
        let rule = IdentityRule::new("^(?<user>[^:]+):.*$").expect("a pattern");
        let again = |video: &str, audio: Option<&str>| {
            let (video, audio) = (TrackId::new(video), audio.map(TrackId::new));
            let alice = UserId::new("alice");
            let request = same_again(&room(), (&video, audio.as_ref()), &alice, &rule);
            let found = find_share(&room(), &request, &alice, &rule, false).expect("a share");
            (found.video.sid.into_string(), found.audio.map(|track| track.sid.into_string()))
        };
        let told = |video: &str, audio: Option<&str>| (video.to_owned(), audio.map(str::to_owned));
        // older than another one of hers, with a microphone for its sound
        assert_eq!(again("a-old", Some("a-mic")), told("a-old", Some("a-mic")));
        assert_eq!(again("a-old", None), told("a-old", Some("a-old-sound")), "that came later");
        assert_eq!(again("a-old", Some("gone")), told("a-old", Some("a-old-sound")));
        // what is gone, another's, or no screen: the newest
        for other in ["gone", "b-screen", "a-cam"] {
            assert_eq!(again(other, Some("a-mic")), told("a-new", None), "{other}");
        }
    }

    fn code(result: Result<Share>) -> Code {
        result.expect_err("refused").code()
    }

    #[test]
    fn the_newest_share_over_all_of_a_users_identities_is_taken_with_its_own_sound() {
        let share = find("alice", None, None, false).expect("a share");
        assert_eq!((share.video.sid.as_str(), share.audio), ("a-new", None));
        assert_eq!(share.participant_sid, "PA_alice:phone");
        let share = find("bob", None, None, false).expect("a share");
        assert_eq!(share.audio.map(|track| track.sid), Some(TrackId::new("b-sound")));
    }

    #[test]
    fn named_tracks_must_be_the_callers_screen_and_sound() {
        let share = find("alice", Some("a-old"), None, false).expect("a share");
        assert_eq!(share.audio.map(|track| track.sid), Some(TrackId::new("a-old-sound")));
        let share = find("alice", Some("a-new"), Some("a-mic"), false).expect("a share");
        assert_eq!(share.audio.map(|track| track.sid), Some(TrackId::new("a-mic")));
        assert_eq!(code(find("alice", Some("b-screen"), None, false)), Code::TrackNotYours);
        assert_eq!(code(find("alice", Some("a-cam"), None, false)), Code::TrackNotYours);
        assert_eq!(code(find("alice", Some("a-new"), Some("b-sound"), false)), Code::TrackNotYours);
        assert_eq!(code(find("alice", Some("a-new"), Some("a-cam"), false)), Code::TrackNotYours);
        assert_eq!(code(find("alice", Some("gone"), None, false)), Code::ScreenShareNotFound);
        assert_eq!(code(find("carol", None, None, false)), Code::ScreenShareNotFound);
    }

    #[test]
    fn a_manager_records_another_only_by_name_and_the_session_is_the_others() {
        let share = find("carol", Some("b-screen"), None, true).expect("a share");
        assert_eq!(share.owner, UserId::new("bob"));
        assert_eq!(code(find("carol", None, None, true)), Code::ScreenShareNotFound);
        assert_eq!(code(find("carol", Some("b-screen"), Some("a-mic"), true)), Code::TrackNotYours);
        // an identity the rule knows no user for belongs to nobody
        assert_eq!(code(find("carol", Some("x-screen"), None, true)), Code::TrackNotYours);
    }

    #[test]
    fn an_identity_narrows_the_search() {
        let rule = IdentityRule::new("^(?<user>[^:]+):.*$").expect("a pattern");
        let at = |identity: &str, video: Option<&str>, user: &str| {
            let request = ShareRequest {
                identity: Some(Identity::new(identity)),
                video: video.map(TrackId::new),
                audio: None,
            };
            find_share(&room(), &request, &UserId::new(user), &rule, false)
        };
        let share = at("alice:desk", None, "alice").expect("a share");
        assert_eq!(share.video.sid.as_str(), "a-old");
        assert_eq!(code(at("alice:desk", Some("a-new"), "alice")), Code::TrackNotYours);
        assert_eq!(code(at("bob:desk", None, "alice")), Code::TrackNotYours);
        assert_eq!(code(at("carol:desk", None, "alice")), Code::ScreenShareNotFound);
    }

    #[test]
    fn those_who_share_are_listed_once_newest_first() {
        let rule = IdentityRule::new("^(?<user>[^:]+):.*$").expect("a pattern");
        assert_eq!(sharing_users(&room(), &rule), [UserId::new("bob"), UserId::new("alice")]);
    }
}
