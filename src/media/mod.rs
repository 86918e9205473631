//! Bytes: transport streams, MP4 files, FFmpeg, and the publication of finished files.
//!
//! What belongs here: everything that reads or writes media. What does not: which media is wanted (that is
//! `domain`), and what is remembered of it (that is `store`). Media times are 90 kHz ticks (`i64`, unwrapped unless
//! a name says `raw`); wall-clock time appears only as metadata to be written into a file.

pub mod compose;
pub mod cut;
mod draft;
mod edges;
pub mod exact;
pub mod ffmpeg;
pub mod files;
pub mod filmstrip;
pub mod fragments;
pub mod mp4;
pub mod native;
pub mod poster;
pub mod publish;
pub mod reopen;
pub mod ts;
pub mod verify;

/// Ticks of the media clock in a second.
pub const TICKS: i64 = 90_000;

/// Times closer than this (half a millisecond) are the same: windows are asked for in milliseconds, frames lie on a
/// grid of thirds, and `[a, b)` + `[b, c)` must neither share nor lose a frame.
pub const TOLERANCE: i64 = 45;

/// Ticks by which frames of sound may overlap or lie apart and still follow each other: times inside a PES are rounded
/// by their source. More is a join, or a hole.
pub(crate) const SOUND_SLACK: i64 = 180;

/// Ticks as microseconds, rounded to the nearest.
pub fn ticks_to_micros(ticks: i64) -> i64 {
    let micros = (i128::from(ticks) * 100 + 4).div_euclid(9);
    i64::try_from(micros).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
}

/// Microseconds as ticks, rounded to the nearest.
pub fn micros_to_ticks(micros: i64) -> i64 {
    // |micros| * 0.09 always fits
    i64::try_from((i128::from(micros) * 9 + 50).div_euclid(100)).unwrap_or(0)
}
