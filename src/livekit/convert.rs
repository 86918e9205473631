//! Protobuf into our words. Numbers this version does not know are kept as "unknown", never refused: servers are
//! newer than clients.

use livekit_protocol as proto;
use proto::egress_info::Request;

use super::{EgressFact, EgressState};
use crate::domain::{
    id::{EgressId, Identity, RoomName, TrackId},
    share::{Participant, Track, TrackKind, TrackSource},
    time::Timestamp,
};

/// An `EgressInfo`.
pub(super) fn egress(info: &proto::EgressInfo) -> EgressFact {
    EgressFact {
        id: EgressId::new(info.egress_id.clone()),
        room: RoomName::new(info.room_name.clone()),
        state: state(proto::EgressStatus::try_from(info.status).ok()),
        directory: prefix(info).and_then(directory_of),
        requested_at: nanos(info.started_at),
        media_started_at: info.segment_results.first().and_then(|first| nanos(first.started_at)),
        details: info.details.clone(),
        error: info.error.clone(),
        error_code: info.error_code,
    }
}

/// LiveKit's status; `None` = a number we do not know.
pub(super) fn state(status: Option<proto::EgressStatus>) -> EgressState {
    use proto::EgressStatus as Status;
    match status {
        Some(Status::EgressStarting) => EgressState::Starting,
        Some(Status::EgressActive) => EgressState::Active,
        Some(Status::EgressEnding) => EgressState::Ending,
        Some(Status::EgressComplete) => EgressState::Complete,
        Some(Status::EgressFailed) => EgressState::Failed,
        Some(Status::EgressAborted) => EgressState::Aborted,
        Some(Status::EgressLimitReached) => EgressState::LimitReached,
        #[allow(unreachable_patterns, reason = "newer protocol crates add states")]
        Some(_) | None => EgressState::Unknown,
    }
}

/// The directory of a segment prefix or playlist location.
pub(super) fn directory_of(path: &str) -> Option<String> {
    let (directory, _) = path.rsplit_once('/')?;
    (!directory.is_empty()).then(|| directory.to_owned())
}

/// LiveKit's nanoseconds; 0 = not set.
pub(super) fn nanos(value: i64) -> Option<Timestamp> {
    (value > 0).then(|| Timestamp::from_nanos(value))
}

fn prefix(info: &proto::EgressInfo) -> Option<&str> {
    let outputs = match info.request.as_ref()? {
        Request::TrackComposite(request) => &request.segment_outputs,
        Request::RoomComposite(request) => &request.segment_outputs,
        Request::Participant(request) => &request.segment_outputs,
        _ => return None,
    };
    outputs.first().map(|output| output.filename_prefix.as_str())
}

/// A `ParticipantInfo`; `None` for LiveKit's own kinds (recorders, ingresses, agents).
pub(super) fn participant(info: &proto::ParticipantInfo) -> Option<Participant> {
    use proto::participant_info::Kind;
    let machine = Kind::try_from(info.kind)
        .is_ok_and(|kind| matches!(kind, Kind::Egress | Kind::Ingress | Kind::Agent));
    (!machine).then(|| Participant {
        identity: Identity::new(info.identity.clone()),
        sid: info.sid.clone(),
        name: info.name.clone(),
        tracks: info.tracks.iter().map(track).collect(),
    })
}

fn track(info: &proto::TrackInfo) -> Track {
    Track {
        sid: TrackId::new(info.sid.clone()),
        source: source(proto::TrackSource::try_from(info.source).ok()),
        kind: kind(proto::TrackType::try_from(info.r#type).ok()),
        width: info.width,
        height: info.height,
        muted: info.muted,
        published_order: info
            .version
            .as_ref()
            .map_or(0, |version| u64::try_from(version.unix_micro).unwrap_or(0)),
    }
}

/// LiveKit's track source; `None` = a number we do not know.
pub(super) fn source(source: Option<proto::TrackSource>) -> TrackSource {
    match source {
        Some(proto::TrackSource::ScreenShare) => TrackSource::ScreenShare,
        Some(proto::TrackSource::ScreenShareAudio) => TrackSource::ScreenShareAudio,
        _ => TrackSource::Other,
    }
}

fn kind(kind: Option<proto::TrackType>) -> TrackKind {
    match kind {
        Some(proto::TrackType::Audio) => TrackKind::Audio,
        Some(proto::TrackType::Video) => TrackKind::Video,
        _ => TrackKind::Data,
    }
}
