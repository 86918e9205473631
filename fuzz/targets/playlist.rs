//! Any bytes as an egress's playlist: what is believed is ours, in order and finite; printed again it is the same, and
//! a part of it gives the first of its entries.
#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use livekit_replay::domain::playlist::{Entry, parse_segment_file_name, read_playlist};

const DAY_US: i64 = 86_400_000_000;
/// The years that RFC 3339 can write.
const WRITABLE_US: std::ops::Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;

fn print(entries: &[Entry], ended: bool) -> (String, Vec<usize>) {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n".to_owned();
    let mut ends = Vec::new();
    for entry in entries {
        let (label, seconds) = (entry.label, entry.duration_us / 1_000_000);
        let millis = entry.duration_us / 1000 % 1000;
        let name = &entry.file_name;
        let _ = write!(
            text,
            "#EXT-X-PROGRAM-DATE-TIME:{label}\n#EXTINF:{seconds}.{millis:03},\n{name}"
        );
        ends.push(text.len());
        text.push('\n');
    }
    if ended {
        text += "#EXT-X-ENDLIST\n";
    }
    (text, ends)
}

fuzz_target!(|data: &[u8]| {
    // the first byte says where what is printed is cut off
    let Some((cut, data)) = data.split_first() else { return };
    let read = read_playlist(data);
    assert!(read.entries.windows(2).all(|two| two[0].number < two[1].number));
    for entry in &read.entries {
        assert_eq!(parse_segment_file_name(&entry.file_name), Some(entry.number));
        assert!(!entry.file_name.contains(['/', '\\', '\0', '\n']));
        assert!((0..DAY_US).contains(&entry.duration_us) && entry.duration_us % 1000 == 0);
    }
    let writable = |entry: &&Entry| WRITABLE_US.contains(&entry.label.as_micros());
    let entries: Vec<Entry> = read.entries.iter().filter(writable).cloned().collect();
    let (text, ends) = print(&entries, read.ended);
    let again = read_playlist(text.as_bytes());
    let same = |old: &Entry, new: &Entry| {
        let label = old.label.as_millis() == new.label.as_millis();
        // seconds are kept in 24 bits: whole milliseconds up to some hours
        let off = (old.duration_us - new.duration_us).abs();
        label && off <= old.duration_us / 4_000_000 && old.file_name == new.file_name
    };
    assert_eq!(entries.len(), again.entries.len(), "{text}");
    assert!(entries.iter().zip(&again.entries).all(|(old, new)| same(old, new)), "{text}");
    assert_eq!(again.ended, read.ended);
    let kept = text.len() * usize::from(*cut) / 256;
    let part = read_playlist(&text.as_bytes()[..kept]);
    let complete = ends.iter().filter(|end| **end <= kept).count();
    assert_eq!(part.entries[..], again.entries[..complete], "{}", &text[..kept]);
});
