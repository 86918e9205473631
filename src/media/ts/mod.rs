//! Our own reader and writer of MPEG transport streams: one H.264 picture stream, at most one AAC (ADTS) sound stream.
//!
//! [`demux()`] gives the access units and sound frames of one segment, [`inspect()`] the facts the index keeps of it
//! (or the damage), [`TsWriter`] writes a clean stream. Nothing is decoded. Why this is ours and not a crate's:
//! `docs/decisions/0003-own-ts-reader.md`.

mod adts;
mod demux;
pub(crate) mod h264;
mod inspect;
mod packet;
mod writer;

pub use adts::AudioFormat;
#[cfg(test)]
pub(crate) use adts::frame_header;
pub(crate) use adts::{raw_block, silence, specific_config};
pub(crate) use demux::Demuxer;
pub use demux::{AccessUnit, AudioFrame, Demuxed, ParameterSets, demux};
pub(crate) use h264::{Sequence, sequence};
pub use inspect::{AudioFacts, KeyFrame, SegmentFacts, inspect};
pub(crate) use inspect::{Checksum, usual_distance};
pub use packet::Damage;
pub(crate) use packet::PACKET;
pub use writer::TsWriter;

/// The period of the 33-bit time stamps.
pub const WRAP: i64 = 1 << 33;

/// The time nearest to `reference` whose lowest 33 bits are `raw`.
pub fn unwrap_pts(raw: i64, reference: i64) -> i64 {
    let ahead = raw.wrapping_sub(reference).rem_euclid(WRAP);
    let nearest = if ahead >= WRAP / 2 { ahead - WRAP } else { ahead };
    reference.saturating_add(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwrapping_takes_the_nearest_time() {
        assert_eq!(unwrap_pts(5, WRAP - 5), WRAP + 5);
        assert_eq!(unwrap_pts(WRAP - 5, WRAP + 5), WRAP - 5);
        assert_eq!(unwrap_pts(WRAP - 5, 3), -5);
        assert_eq!(unwrap_pts(100, 7 * WRAP + 90), 7 * WRAP + 100);
    }

    proptest::proptest! {
        #[test]
        fn unwrapping_undoes_wrapping(time in -(1i64 << 45)..(1i64 << 45), off in -(WRAP / 2 - 1)..(WRAP / 2)) {
            proptest::prop_assert_eq!(unwrap_pts(time.rem_euclid(WRAP), time - off), time);
        }
    }
}
