//! Every structural damage is found, and no input makes the readers panic.

use std::{fs, path::PathBuf};

use livekit_replay::media::{
    mp4,
    ts::{Damage, demux, inspect},
};
use proptest::prelude::*;

use crate::material::Scratch;

fn fixture(name: &str) -> Vec<u8> {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/segments");
    fs::read(place.join(name)).unwrap()
}

#[test]
fn a_muxers_segments_are_read_as_they_are() {
    let facts = inspect(&fixture("gst-0.ts")).unwrap();
    assert_eq!((facts.frames, facts.width, facts.height), (300, 320, 180));
    assert_eq!((facts.pts_first, facts.pts_end), (3600 * 90_000, 3610 * 90_000));
    let keys: Vec<_> = facts.key_frames.iter().map(|key| (key.pts, key.offset)).collect();
    assert_eq!(keys, [(324_000_000, 376), (324_750_000, 205_296)]);
    let audio = facts.audio.unwrap();
    assert_eq!((audio.rate, audio.channels), (48_000, 2));
    assert!((audio.pts_end - facts.pts_end).abs() < 4_000, "{audio:?}");
    let next = inspect(&fixture("gst-1.ts")).unwrap();
    assert_eq!(next.pts_first, facts.pts_end);
    assert_eq!(next.parameter_sets, facts.parameter_sets);
    assert_eq!(inspect(&fixture("gst-video-only.ts")).unwrap().audio, None);
    let units = demux(&fixture("gst-0.ts")).unwrap().video;
    assert!(units.iter().any(|unit| unit.pts_raw > unit.dts_raw), "the material has B-frames");
}

#[test]
fn each_kind_of_damage_is_told_apart() {
    let good = fixture("gst-0.ts");
    let reason = |bytes: &[u8]| inspect(bytes).unwrap_err().reason();
    assert_eq!(inspect(&[]), Err(Damage::Empty));
    assert_eq!(reason(&fixture("gst-truncated.ts")), "truncated");
    assert_eq!(reason(&good[..good.len() - 77]), "truncated");
    let mut zeros = good.clone();
    zeros[100 * 188..].fill(0);
    assert_eq!(reason(&zeros), "truncated");
    assert_eq!(reason(&[0; 1880]), "truncated");
    let mut garbage = good.clone();
    for (at, byte) in garbage[50 * 188..60 * 188].iter_mut().enumerate() {
        *byte = (at * 7 + 3) as u8;
    }
    assert_eq!(reason(&garbage), "corrupt");
    let mut hole = good.clone();
    hole.drain(300 * 188..301 * 188);
    assert_eq!(reason(&hole), "corrupt");
    let tables_gone = &good[2 * 188..];
    assert_eq!(reason(tables_gone), "corrupt");
    // begins in the middle: tables, then what is behind the first pictures
    let middle = [&good[..376], &good[500 * 188..]].concat();
    assert_eq!(reason(&middle), "corrupt");
    assert_eq!(reason(b"<html>not a segment</html>"), "foreign");
    assert_eq!(reason(&[b'x'; 188 * 3]), "foreign");
    let mut flipped = good.clone();
    flipped[180] ^= 1; // in the first table, behind its stuffing
    assert_eq!(reason(&flipped), "corrupt");
    let mut marked = good;
    marked[188 * 40 + 1] |= 0x80;
    assert_eq!(reason(&marked), "corrupt");
}

#[test]
fn a_cut_on_a_packet_boundary_is_found_where_the_pes_says_its_length() {
    let good = fixture("gst-0.ts");
    let whole = inspect(&good).unwrap();
    let mut silent = 0;
    for packets in 1..40 {
        let end = good.len() - packets * 188;
        match inspect(&good[..end]) {
            Err(damage) => assert_eq!(damage, Damage::Truncated),
            // cut exactly between two PES: then something must be missing
            Ok(facts) => {
                silent += 1;
                let shorter = facts.frames < whole.frames
                    || facts.audio.as_ref().map(|audio| audio.pts_end)
                        < whole.audio.as_ref().map(|audio| audio.pts_end);
                assert!(shorter, "{packets}");
            }
        }
    }
    println!("{silent} of 39 cuts fell between two PES");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_the_segment_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = inspect(&bytes);
    }

    #[test]
    fn no_packets_make_the_segment_reader_panic(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 187), 1..12),
    ) {
        let with_sync = packets.iter().flat_map(|rest| [&[0x47u8][..], rest].concat());
        let _ = inspect(&with_sync.collect::<Vec<_>>());
    }

    #[test]
    fn no_change_of_a_good_segment_makes_the_reader_panic(
        changes in prop::collection::vec((0usize..40_000, any::<u8>()), 1..30),
        end in 1usize..40_000,
    ) {
        let mut bytes = fixture("gst-video-only.ts");
        bytes.truncate(40_000);
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(end.max(376));
        let _ = inspect(&bytes);
    }

    #[test]
    fn no_bytes_make_the_mp4_reader_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        names in prop::collection::vec((0usize..580, 0usize..10), 0..20),
    ) {
        const NAMES: [&[u8; 4]; 10] = [
            b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts", b"elst", b"mvhd", b"hdlr", b"stsd",
        ];
        for (at, name) in names {
            if at + 8 <= bytes.len() {
                let length = (bytes.len() - at).min(40 + at % 300) as u32;
                bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
                bytes[at + 4..at + 8].copy_from_slice(NAMES[name]);
            }
        }
        let dir = Scratch::new();
        let file = dir.0.join("hostile.mp4");
        fs::write(&file, &bytes).unwrap();
        let _ = mp4::read(&file);
        let edit = mp4::TrackEdit { kind: *b"vide", media_time: Some(1), duration: 5 };
        let _ = mp4::patch(&file, &[edit]);
    }
}
