//! What the simulated server knows: rooms, participants, tracks. Every change sends the webhooks a server would.
//!
//! One mutex around all of it, held for moments only and never across an await; `egress_state` adds the egresses.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use livekit_protocol as proto;
use proto::{TrackSource, TrackType, participant_info::Kind};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CalledMethod, SimConfig,
    egress_state::Egress,
    fault::{CallAction, CallFaults},
    id,
    webhook::Webhooks,
};
use crate::error::{Error, Result};

/// The part of a track that encoders look at for each frame.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) sid: String,
    pub(super) source: TrackSource,
    /// Whether an egress of it encodes anything.
    pub(super) live_media: bool,
    muted: AtomicBool,
    gone: AtomicBool,
    /// Width in the upper half, height in the lower.
    size: AtomicU64,
}

impl Track {
    fn new(source: TrackSource, size: (u32, u32), live_media: bool) -> Track {
        let track = Track {
            sid: id::new("TR"),
            source,
            live_media,
            muted: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            size: AtomicU64::new(0),
        };
        track.set_size(size);
        track
    }

    /// Muted or no longer published: egress records black or silence.
    pub(super) fn is_silent(&self) -> bool {
        self.muted.load(Ordering::Relaxed) || self.is_gone()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub(super) fn size(&self) -> (u32, u32) {
        let both = self.size.load(Ordering::Relaxed);
        ((both >> 32) as u32, both as u32)
    }

    fn set_size(&self, (width, height): (u32, u32)) {
        self.size.store(u64::from(width) << 32 | u64::from(height), Ordering::Relaxed);
    }

    fn to_proto(&self) -> proto::TrackInfo {
        let audio = matches!(self.source, TrackSource::Microphone | TrackSource::ScreenShareAudio);
        let (width, height) = self.size();
        proto::TrackInfo {
            sid: self.sid.clone(),
            r#type: if audio { TrackType::Audio } else { TrackType::Video } as i32,
            source: self.source as i32,
            muted: self.muted.load(Ordering::Relaxed),
            width: if audio { 0 } else { width },
            height: if audio { 0 } else { height },
            mime_type: if audio { "audio/opus" } else { "video/VP8" }.to_owned(),
            ..proto::TrackInfo::default()
        }
    }
}

struct Participant {
    sid: String,
    identity: String,
    name: String,
    kind: Kind,
    joined_ms: u64,
    tracks: Vec<Arc<Track>>,
}

impl Participant {
    fn to_proto(&self) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            name: self.name.clone(),
            kind: self.kind as i32,
            state: proto::participant_info::State::Active as i32,
            joined_at: (self.joined_ms / 1000) as i64,
            joined_at_ms: self.joined_ms as i64,
            tracks: self.tracks.iter().map(|track| track.to_proto()).collect(),
            is_publisher: !self.tracks.is_empty(),
            version: 1,
            ..proto::ParticipantInfo::default()
        }
    }
}

struct Room {
    sid: String,
    name: String,
    metadata: String,
    created_ms: u64,
    participants: Vec<Participant>,
}

impl Room {
    fn to_proto(&self) -> proto::Room {
        // egress joins hidden and is not counted
        let people = || self.participants.iter().filter(|one| one.kind != Kind::Egress);
        proto::Room {
            sid: self.sid.clone(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            empty_timeout: 300,
            departure_timeout: 20,
            creation_time: (self.created_ms / 1000) as i64,
            creation_time_ms: self.created_ms as i64,
            num_participants: people().count() as u32,
            num_publishers: people().filter(|one| !one.tracks.is_empty()).count() as u32,
            active_recording: self.participants.iter().any(|one| one.kind == Kind::Egress),
            ..proto::Room::default()
        }
    }

    fn name_only(&self) -> proto::Room {
        proto::Room { sid: self.sid.clone(), name: self.name.clone(), ..proto::Room::default() }
    }
}

#[derive(Default)]
pub(super) struct State {
    rooms: BTreeMap<String, Room>,
    pub(super) egresses: BTreeMap<String, Egress>,
    calls: Vec<CalledMethod>,
    pub(super) call_faults: CallFaults,
}

/// The simulated server and everything it started.
pub(super) struct World {
    pub(super) config: SimConfig,
    pub(super) hooks: Webhooks,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    /// Private directory of growing segments; removed at the end.
    pub(super) scratch: PathBuf,
    state: Mutex<State>,
    /// What the egress host's clock shows more than ours, in milliseconds.
    pub(super) host_clock_skew_ms: AtomicI64,
    /// Moves whenever tracks come or go.
    changed: watch::Sender<u64>,
}

impl World {
    pub(super) fn new(
        config: SimConfig,
        hooks: Webhooks,
        tasks: TaskTracker,
        cancel: CancellationToken,
        scratch: PathBuf,
    ) -> World {
        let state = Mutex::new(State::default());
        let host_clock_skew_ms = AtomicI64::new(config.egress.host_clock_skew_ms);
        let changed = watch::Sender::new(0);
        World { config, hooks, tasks, cancel, scratch, state, host_clock_skew_ms, changed }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // a panic in one call leaves the others their server
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but not beyond the simulator's end.
    pub(super) async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }

    /// Wakes when tracks have come or gone since it was asked for.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// The egress host's clock.
    pub(super) fn egress_clock_ns(&self, our_ms: u64) -> i64 {
        (our_ms as i64 + self.host_clock_skew_ms.load(Ordering::Relaxed)) * 1_000_000
    }

    pub(super) fn note_call(&self, service: &str, method: &str) -> Option<CallAction> {
        let mut state = self.lock();
        state.calls.push(CalledMethod {
            service: service.to_owned(),
            method: method.to_owned(),
            at_ms: id::now_ms(),
        });
        state.call_faults.hit(service, method)
    }

    pub(super) fn calls(&self) -> Vec<CalledMethod> {
        self.lock().calls.clone()
    }

    fn emit(&self, event: &str, room: &Room, fill: impl FnOnce(&mut proto::WebhookEvent)) {
        let mut event = proto::WebhookEvent { event: event.to_owned(), ..Default::default() };
        fill(&mut event);
        self.hooks.send(&room.name, event, id::now_ms(), &[]);
    }

    // ---- rooms and participants ----

    pub(super) fn create_room(&self, name: &str, metadata: Option<&str>) -> proto::Room {
        let mut state = self.lock();
        let room = self.room_entry(&mut state, name);
        if let Some(metadata) = metadata {
            room.metadata = metadata.to_owned();
        }
        room.to_proto()
    }

    fn room_entry<'s>(&self, state: &'s mut State, name: &str) -> &'s mut Room {
        state.rooms.entry(name.to_owned()).or_insert_with(|| {
            let room = Room {
                sid: id::new("RM"),
                name: name.to_owned(),
                metadata: String::new(),
                created_ms: id::now_ms(),
                participants: Vec::new(),
            };
            self.emit("room_started", &room, |event| event.room = Some(room.to_proto()));
            room
        })
    }

    pub(super) fn set_metadata(&self, name: &str, metadata: &str) -> Option<proto::Room> {
        let mut state = self.lock();
        let room = state.rooms.get_mut(name)?;
        room.metadata = metadata.to_owned();
        Some(room.to_proto())
    }

    pub(super) fn room(&self, name: &str) -> Option<proto::Room> {
        self.lock().rooms.get(name).map(Room::to_proto)
    }

    pub(super) fn rooms(&self) -> Vec<proto::Room> {
        self.lock().rooms.values().map(Room::to_proto).collect()
    }

    pub(super) fn participants(&self, room: &str) -> Vec<proto::ParticipantInfo> {
        let state = self.lock();
        let list = state.rooms.get(room).map(|room| &room.participants);
        list.into_iter().flatten().map(Participant::to_proto).collect()
    }

    /// Joins (again: the old connection is replaced, as the server does with a double identity).
    pub(super) fn join(&self, room: &str, identity: &str, name: &str, kind: Kind) {
        self.leave(room, identity);
        let mut state = self.lock();
        let room = self.room_entry(&mut state, room);
        let participant = Participant {
            sid: id::new("PA"),
            identity: identity.to_owned(),
            name: name.to_owned(),
            kind,
            joined_ms: id::now_ms(),
            tracks: Vec::new(),
        };
        let info = participant.to_proto();
        room.participants.push(participant);
        self.emit("participant_joined", room, |event| {
            event.room = Some(room.to_proto());
            event.participant = Some(info);
        });
    }

    /// Leaves, with all its tracks; `false` if it was not there.
    pub(super) fn leave(&self, room: &str, identity: &str) -> bool {
        let left = {
            let mut state = self.lock();
            let Some(room) = state.rooms.get_mut(room) else { return false };
            let position = room.participants.iter().position(|one| one.identity == identity);
            position.map(|position| self.remove_participant(room, position)).is_some()
        };
        self.touch();
        left
    }

    fn remove_participant(&self, room: &mut Room, position: usize) {
        let participant = room.participants.remove(position);
        for track in &participant.tracks {
            self.track_event("track_unpublished", room, &participant, track);
            track.gone.store(true, Ordering::Relaxed);
        }
        let mut info = participant.to_proto();
        info.state = proto::participant_info::State::Disconnected as i32;
        info.disconnect_reason = proto::DisconnectReason::ClientInitiated as i32;
        info.tracks.clear();
        self.emit("participant_left", room, |event| {
            event.room = Some(room.to_proto());
            event.participant = Some(info);
        });
    }

    /// Ends a room; `false` if there is none.
    pub(super) fn close_room(&self, name: &str) -> bool {
        {
            let mut state = self.lock();
            let Some(mut room) = state.rooms.remove(name) else { return false };
            while !room.participants.is_empty() {
                self.remove_participant(&mut room, 0);
            }
            self.emit("room_finished", &room, |event| event.room = Some(room.to_proto()));
        }
        self.touch();
        true
    }

    // ---- tracks ----

    /// Publishes tracks of a participant who has joined.
    pub(super) fn publish(
        &self,
        room: &str,
        identity: &str,
        tracks: &[(TrackSource, (u32, u32), bool)],
    ) -> Result<Vec<String>> {
        let mut sids = Vec::new();
        {
            let mut state = self.lock();
            let room = state.rooms.get_mut(room).ok_or_else(|| Error::not_found("room"))?;
            let position = room.participants.iter().position(|one| one.identity == identity);
            let position = position.ok_or_else(|| Error::not_found("participant"))?;
            for (source, size, live_media) in tracks {
                let track = Arc::new(Track::new(*source, *size, *live_media));
                sids.push(track.sid.clone());
                room.participants[position].tracks.push(track.clone());
                self.track_event("track_published", room, &room.participants[position], &track);
            }
        }
        self.touch();
        Ok(sids)
    }

    pub(super) fn unpublish(&self, sid: &str) -> Result<()> {
        {
            let mut state = self.lock();
            let (room, participant) = locate(&mut state, sid)?;
            let tracks = &mut room.participants[participant].tracks;
            let position = tracks.iter().position(|track| track.sid == sid);
            let track = tracks.remove(position.ok_or_else(|| Error::not_found("track"))?);
            track.gone.store(true, Ordering::Relaxed);
            self.track_event("track_unpublished", room, &room.participants[participant], &track);
        }
        self.touch();
        Ok(())
    }

    fn track_event(&self, name: &str, room: &Room, participant: &Participant, track: &Track) {
        self.emit(name, room, |event| {
            event.room = Some(room.name_only());
            event.participant = Some(proto::ParticipantInfo {
                sid: participant.sid.clone(),
                identity: participant.identity.clone(),
                ..Default::default()
            });
            event.track = Some(track.to_proto());
        });
    }

    /// Mutes or unmutes; there is no webhook for it.
    pub(super) fn set_muted(&self, sid: &str, muted: bool) -> Result<proto::TrackInfo> {
        let track = self.track(sid).ok_or_else(|| Error::not_found("track"))?;
        track.muted.store(muted, Ordering::Relaxed);
        Ok(track.to_proto())
    }

    /// A window that changed its size.
    pub(super) fn resize(&self, sid: &str, width: u32, height: u32) -> Result<()> {
        let track = self.track(sid).ok_or_else(|| Error::not_found("track"))?;
        track.set_size((width, height));
        Ok(())
    }

    pub(super) fn track(&self, sid: &str) -> Option<Arc<Track>> {
        let state = self.lock();
        let mut people = state.rooms.values().flat_map(|room| &room.participants);
        people.find_map(|one| one.tracks.iter().find(|track| track.sid == sid).cloned())
    }

    pub(super) fn track_in(&self, room: &str, sid: &str) -> Option<Arc<Track>> {
        let state = self.lock();
        let people = &state.rooms.get(room)?.participants;
        people.iter().flat_map(|one| &one.tracks).find(|track| track.sid == sid).cloned()
    }

    /// The screen that a participant shares at present.
    pub(super) fn share_of(&self, room: &str, identity: &str) -> Option<Arc<Track>> {
        let state = self.lock();
        let people = &state.rooms.get(room)?.participants;
        let mut tracks =
            people.iter().filter(|one| one.identity == identity).flat_map(|one| &one.tracks);
        tracks.rfind(|track| track.source == TrackSource::ScreenShare).cloned()
    }
}

fn locate<'s>(state: &'s mut State, sid: &str) -> Result<(&'s mut Room, usize)> {
    let has = |one: &Participant| one.tracks.iter().any(|track| track.sid == sid);
    for room in state.rooms.values_mut() {
        if let Some(position) = room.participants.iter().position(has) {
            return Ok((room, position));
        }
    }
    Err(Error::not_found("track"))
}
