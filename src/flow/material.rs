//! What selection looks at: a session's epochs and segments, read from rows and put into the words of `domain`.

use crate::{
    domain::{
        id::SessionId,
        selection::{EpochInput, GapReason, SegmentInput, SegmentState},
        time::Timestamp,
        timeline::{ClockBasis, EpochClock},
    },
    error::Result,
    store::{Conn, epoch, segment, session},
};

/// The recorded material of one session at one moment.
#[derive(Debug, Clone)]
pub struct Material {
    /// The session.
    pub session: session::Model,
    /// Its epochs.
    pub epoch_rows: Vec<epoch::Model>,
    /// Its epochs as selection sees them.
    pub epochs: Vec<EpochInput>,
    /// Its segments that are not condemned.
    pub rows: Vec<segment::Model>,
    /// The same, as selection sees them: same order, same indices.
    pub segments: Vec<SegmentInput>,
}

impl Material {
    /// Reads it all. The session must exist.
    pub async fn load<C: Conn>(db: &C, id: &SessionId) -> Result<Material> {
        let session = session::load(db, id).await?;
        // epochs before segments: an epoch that reads as over has all its segments in the later read
        let epoch_rows = epoch::list(db, id).await?;
        let rows = segment::list(db, id).await?;
        let epochs = epoch_rows.iter().map(epoch_input).collect();
        let segments = rows.iter().map(segment_input).collect();
        Ok(Material { session, epoch_rows, epochs, rows, segments })
    }

    /// No further epoch will start.
    pub fn session_over(&self) -> bool {
        !self.session.status.holds_place()
    }

    /// Up to when media was there and has expired, if any has.
    pub fn buffer_starts_at(&self) -> Option<Timestamp> {
        let first = self.rows.iter().map(|row| row.starts_at).min()?;
        self.session.media_starts_at.is_some_and(|media| media < first).then_some(first)
    }
}

/// Whether nothing more comes from an epoch, as its row says.
pub fn is_complete(row: &epoch::Model) -> bool {
    row.status == epoch::EpochStatus::Ended || row.playlist_ended
}

fn epoch_input(row: &epoch::Model) -> EpochInput {
    EpochInput {
        number: u32::try_from(row.number).unwrap_or(0),
        clock: row.zero_at.map(|zero| EpochClock {
            zero,
            delay_ms: row.delay_ms,
            basis: match row.basis {
                Some(epoch::Basis::StartedAt) => ClockBasis::StartedAt,
                _ => ClockBasis::Label,
            },
        }),
        started_at: row.sent_at,
        ended_at: row.ended_at,
        complete: is_complete(row),
    }
}

fn segment_input(row: &segment::Model) -> SegmentInput {
    SegmentInput {
        epoch: u32::try_from(row.epoch).unwrap_or(0),
        number: u64::try_from(row.number).unwrap_or(0),
        pts_start: row.pts_start,
        pts_end: row.pts_end,
        state: match row.state {
            segment::SegmentState::Usable => SegmentState::Usable,
            segment::SegmentState::Missing => SegmentState::Bad(GapReason::Missing),
            segment::SegmentState::Corrupt => SegmentState::Bad(GapReason::Corrupt),
            segment::SegmentState::Truncated => SegmentState::Bad(GapReason::Truncated),
            segment::SegmentState::Empty => SegmentState::Bad(GapReason::Empty),
            segment::SegmentState::Foreign => SegmentState::Bad(GapReason::Foreign),
        },
        key_frames: row.key_frame_list(),
        size_bytes: u64::try_from(row.size_bytes).unwrap_or(0),
        frame_pts: row.frame_ticks,
        has_audio: row.has_audio,
        width: row.width.and_then(|width| u32::try_from(width).ok()).unwrap_or(0),
        height: row.height.and_then(|height| u32::try_from(height).ok()).unwrap_or(0),
    }
}
