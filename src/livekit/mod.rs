//! LiveKit in our words. This room is the only importer of livekit-api and livekit-protocol; whoever needs LiveKit
//! asks [`LiveKit`] and gets facts, never protobuf.

use std::fmt;

use async_trait::async_trait;

use crate::{
    domain::{
        id::{EgressId, RoomName, TrackId},
        share::Participant,
        time::Timestamp,
    },
    error::Result,
};

pub mod client;
mod convert;
pub mod webhook;

/// What we ask of LiveKit. Every call has a deadline of its own.
#[async_trait]
pub trait LiveKit: Send + Sync + fmt::Debug {
    /// Starts recording; `Ok` means LiveKit accepted. A timeout is [`crate::error::Code::EgressStartTimeout`]: the
    /// egress may start all the same, and is found again by its path.
    async fn start_egress(&self, order: &EgressOrder) -> Result<EgressFact>;

    /// Tells an egress to end. Over already, or unknown: fine. No answer: an error, and nothing is known.
    async fn stop_egress(&self, egress: &EgressId) -> Result<Stopped>;

    /// One egress; `None` when LiveKit does not know it (any more).
    async fn find_egress(&self, egress: &EgressId) -> Result<Option<EgressFact>>;

    /// Egresses of a room that are not over, or of every room.
    async fn list_active_egress(&self, room: Option<&RoomName>) -> Result<Vec<EgressFact>>;

    /// The people in a room (no recorders, no agents), with what they publish; `None` when there is no such room.
    async fn list_participants(&self, room: &RoomName) -> Result<Option<Vec<Participant>>>;

    /// Every room there is.
    async fn list_rooms(&self) -> Result<Vec<Room>>;

    /// The metadata of a room; `None` when there is no such room.
    async fn find_room_metadata(&self, room: &RoomName) -> Result<Option<String>>;
}

/// A room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Its name.
    pub name: RoomName,
    /// What the app keeps with it.
    pub metadata: String,
}

/// A recording to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressOrder {
    /// Which room.
    pub room: RoomName,
    /// The screen share.
    pub video: TrackId,
    /// Its audio.
    pub audio: Option<TrackId>,
    /// Absolute directory as egress sees it; segments become `<directory>/seg_00000.ts`.
    pub directory: String,
    /// Pixels, even, at least 16.
    pub width: u32,
    /// Pixels, even, at least 16.
    pub height: u32,
    /// Frames per second.
    pub frame_rate: u32,
    /// Kilobits per second (LiveKit's unit).
    pub video_kbps: u32,
    /// Kilobits per second.
    pub audio_kbps: u32,
    /// Whole seconds.
    pub segment_seconds: u32,
}

/// What LiveKit says of an egress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressFact {
    /// Its name; empty when an automatic egress could not be launched.
    pub id: EgressId,
    /// Its room.
    pub room: RoomName,
    /// Where it stands.
    pub state: EgressState,
    /// The directory it was told to write to (as egress sees it), from the request it echoes.
    pub directory: Option<String>,
    /// `EgressInfo.started_at`: the request's time on the egress host's clock.
    pub requested_at: Option<Timestamp>,
    /// `segment_results[0].started_at`: the first packet on the egress host's clock.
    pub media_started_at: Option<Timestamp>,
    /// `details`: `End reason: …`.
    pub details: String,
    /// LiveKit's error text.
    pub error: String,
    /// LiveKit's error code, HTTP-like.
    pub error_code: i32,
}

/// Where an egress stands, in LiveKit's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressState {
    /// Asked for; no media yet.
    Starting,
    /// Recording.
    Active,
    /// Told to end; its tail is on the way.
    Ending,
    /// Ended well.
    Complete,
    /// Ended badly; segments may still be good.
    Failed,
    /// Ended before it began.
    Aborted,
    /// Ended by a limit of the egress service.
    LimitReached,
    /// A state this version does not know.
    Unknown,
}

impl EgressState {
    /// Whether nothing more comes.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Aborted | Self::LimitReached)
    }

    /// The word kept in the epoch's row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Ending => "ending",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::LimitReached => "limit_reached",
            Self::Unknown => "unknown",
        }
    }
}

/// What came of telling an egress to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It is ending; the tail comes.
    Ending,
    /// It was over, or LiveKit does not know it.
    AlreadyOver,
}
