//! The faults: their names, where they can happen, which operations they can hurt, and what they explain.

use crate::plan::Press;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    Kill,
    Terminate,
    DrillAccept,
    DrillRename,
    DrillSettle,
    HostDies,
    EgressFails,
    EgressAborts,
    EgressLimit,
    LivekitGone,
    LivekitSlow,
    LivekitFails,
    LivekitRefuses,
    StartTimesOut,
    HooksLost,
    HooksLate,
    HooksDoubled,
    HooksSwapped,
    HooksForged,
    BufferFull,
    BufferReadOnly,
    BufferHung,
    BufferGone,
    ClipsFull,
    ClipsReadOnly,
    ClipsHung,
    ClipsGone,
    ClockForward,
    ClockBack,
    HostClockForward,
    HostClockBack,
    DatabaseCut,
    DatabaseRestarts,
    DatabaseLocked,
    FfmpegHangs,
    FfmpegCrashes,
    FfmpegRubbish,
    FfmpegMissing,
    TickOnTick,
}

const EGRESS: &[(Press, u32)] = &[(Press::CaptureLast, 3), (Press::CaptureOn, 2)];
const LIVEKIT: &[(Press, u32)] = &[(Press::Again, 4), (Press::Start, 1), (Press::CaptureLast, 1)];
const CLIPS: &[(Press, u32)] =
    &[(Press::CaptureLast, 4), (Press::Download, 2), (Press::Delete, 2), (Press::Trim, 2)];
const BUFFER: &[(Press, u32)] =
    &[(Press::CaptureLast, 4), (Press::Again, 2), (Press::CaptureSpan, 2)];
const DATABASE: &[(Press, u32)] = &[
    (Press::CaptureLast, 4),
    (Press::Delete, 2),
    (Press::Again, 1),
    (Press::Trim, 1),
    (Press::List, 2),
];
const MAKING: &[(Press, u32)] = &[(Press::CaptureLast, 5), (Press::Trim, 2), (Press::CaptureOn, 1)];

use Fault as F;

impl Fault {
    pub fn all() -> Vec<Fault> {
        vec![
            F::Kill,
            F::Terminate,
            F::DrillAccept,
            F::DrillRename,
            F::DrillSettle,
            F::HostDies,
            F::EgressFails,
            F::EgressAborts,
            F::EgressLimit,
            F::LivekitGone,
            F::LivekitSlow,
            F::LivekitFails,
            F::LivekitRefuses,
            F::StartTimesOut,
            F::HooksLost,
            F::HooksLate,
            F::HooksDoubled,
            F::HooksSwapped,
            F::HooksForged,
            F::BufferFull,
            F::BufferReadOnly,
            F::BufferHung,
            F::BufferGone,
            F::ClipsFull,
            F::ClipsReadOnly,
            F::ClipsHung,
            F::ClipsGone,
            F::ClockForward,
            F::ClockBack,
            F::HostClockForward,
            F::HostClockBack,
            F::DatabaseCut,
            F::DatabaseRestarts,
            F::DatabaseLocked,
            F::FfmpegHangs,
            F::FfmpegCrashes,
            F::FfmpegRubbish,
            F::FfmpegMissing,
            F::TickOnTick,
        ]
    }

    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            F::Kill => "kill -9 of a replica",
            F::Terminate => "SIGTERM of a replica",
            F::DrillAccept => "death right after a capture was accepted",
            F::DrillRename => "death between a clip's name and its row",
            F::DrillSettle => "death while a clip's bytes are settled",
            F::HostDies => "egress host dies without a word",
            F::EgressFails => "egress fails",
            F::EgressAborts => "egress aborts",
            F::EgressLimit => "egress hits its limit",
            F::LivekitGone => "LiveKit unreachable",
            F::LivekitSlow => "LiveKit slow",
            F::LivekitFails => "LiveKit answers 500",
            F::LivekitRefuses => "LiveKit refuses the credentials",
            F::StartTimesOut => "StartEgress times out but did start",
            F::HooksLost => "webhooks lost",
            F::HooksLate => "webhooks late",
            F::HooksDoubled => "webhooks doubled",
            F::HooksSwapped => "webhooks reordered",
            F::HooksForged => "webhooks forged",
            F::BufferFull => "buffer store full",
            F::BufferReadOnly => "buffer store read-only",
            F::BufferHung => "buffer store hung",
            F::BufferGone => "buffer store gone",
            F::ClipsFull => "clip store full",
            F::ClipsReadOnly => "clip store read-only",
            F::ClipsHung => "clip store hung",
            F::ClipsGone => "clip store gone",
            F::ClockForward => "service's clock 150 s forward, and back",
            F::ClockBack => "service's clock 5 s back, and forward",
            F::HostClockForward => "egress host's clock 90 s forward",
            F::HostClockBack => "egress host's clock 90 s back",
            F::DatabaseCut => "database connections cut",
            F::DatabaseRestarts => "database restarted",
            F::DatabaseLocked => "transaction held open",
            F::FfmpegHangs => "FFmpeg hangs",
            F::FfmpegCrashes => "FFmpeg crashes",
            F::FfmpegRubbish => "FFmpeg produces rubbish",
            F::FfmpegMissing => "FFmpeg is missing",
            F::TickOnTick => "tick while the last one runs",
        }
    }

    pub fn needs_postgres(self) -> bool {
        matches!(self, F::DatabaseCut | F::DatabaseRestarts)
    }

    pub fn needs_mounts(self) -> bool {
        self.breaks_buffer() || self.breaks_clips()
    }

    pub fn breaks_buffer(self) -> bool {
        matches!(self, F::BufferFull | F::BufferReadOnly | F::BufferHung | F::BufferGone)
    }

    pub fn breaks_clips(self) -> bool {
        matches!(self, F::ClipsFull | F::ClipsReadOnly | F::ClipsHung | F::ClipsGone)
    }

    /// Presses that can meet it.
    pub fn hurts(self) -> Option<&'static [(Press, u32)]> {
        match self {
            F::Kill | F::Terminate => None,
            F::DrillAccept | F::DrillRename | F::DrillSettle => Some(MAKING),
            F::HostDies | F::EgressFails | F::EgressAborts | F::EgressLimit => Some(EGRESS),
            F::LivekitGone
            | F::LivekitSlow
            | F::LivekitFails
            | F::LivekitRefuses
            | F::StartTimesOut
            | F::HooksLost
            | F::HooksLate
            | F::HooksDoubled
            | F::HooksSwapped
            | F::HooksForged
            | F::HostClockForward
            | F::HostClockBack
            | F::TickOnTick => Some(LIVEKIT),
            F::BufferFull | F::BufferReadOnly | F::BufferHung | F::BufferGone => Some(BUFFER),
            F::ClipsFull | F::ClipsReadOnly | F::ClipsHung | F::ClipsGone => Some(CLIPS),
            F::ClockForward
            | F::ClockBack
            | F::DatabaseCut
            | F::DatabaseRestarts
            | F::DatabaseLocked => Some(DATABASE),
            F::FfmpegHangs | F::FfmpegCrashes | F::FfmpegRubbish | F::FfmpegMissing => Some(MAKING),
        }
    }

    /// A process that dies by itself, at a marked place.
    pub fn is_drill(self) -> bool {
        matches!(self, F::DrillAccept | F::DrillRename | F::DrillSettle)
    }

    /// How long it lasts at most, milliseconds.
    pub fn lasts(self) -> u64 {
        match self {
            F::DatabaseLocked | F::BufferHung | F::ClipsHung => 4000,
            F::StartTimesOut | F::LivekitSlow | F::TickOnTick => 6000,
            F::FfmpegCrashes | F::FfmpegMissing => 8000,
            _ => 5000,
        }
    }

    /// Codes that a clip accepted before or during it may fail with. Everything else has to become a clip: an attempt
    /// that a broken store, a death or LiveKit hurt is repeated, and nothing is given up for them.
    pub fn explains(self) -> &'static [&'static str] {
        match self {
            // three attempts in a row can meet it; there is no telling it from media that nobody can read
            F::FfmpegHangs
            | F::FfmpegCrashes
            | F::FfmpegRubbish
            | F::FfmpegMissing
            | F::ClockForward => &["ffmpeg_failed"],
            // the egress's own writes fail: what was on its way is lost or cut short
            F::BufferFull | F::BufferReadOnly | F::BufferHung | F::BufferGone => {
                &["no_usable_segments", "no_segments_in_range"]
            }
            _ => &[],
        }
    }

    /// Whether a session may have ended by it without anybody asking.
    pub fn ends_sessions(self) -> bool {
        !matches!(
            self,
            F::HooksLost
                | F::HooksDoubled
                | F::HooksSwapped
                | F::HooksForged
                | F::ClipsFull
                | F::ClipsReadOnly
                | F::ClipsHung
                | F::ClipsGone
                | F::FfmpegHangs
                | F::FfmpegCrashes
                | F::FfmpegRubbish
                | F::FfmpegMissing
        )
    }
}
