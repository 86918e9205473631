//! What an egress's playlist says, read with distrust: only complete entries of exactly our own names count.
//!
//! Egress rewrites its playlists in place by truncate and copy, so any prefix of one may be read, the empty one
//! included. A reader therefore never treats "not listed" as "not there"; it only learns what *is* complete.
//! `m3u8-rs` does the reading; what it accepts without a word (bad times, bad durations, cut entries) is checked here.

use crate::domain::time::Timestamp;

/// The prefix we give every egress: `filename_prefix` is `<epoch directory>/seg`.
pub const SEGMENT_PREFIX: &str = "seg";
/// The growing EVENT playlist we ask egress for.
pub const EVENT_PLAYLIST: &str = "index.m3u8";
/// The sliding playlist we ask egress for, written after every segment.
pub const LIVE_PLAYLIST: &str = "live.m3u8";

/// No segment lasts a day; a label that says so is damage.
const LONGEST_BELIEVABLE_US: f64 = 86_400e6;

/// One complete entry: egress has finished copying this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number in the name, counted by egress from 0.
    pub number: u64,
    /// The name as listed, always `seg_<digits>.ts`, never a path.
    pub file_name: String,
    /// PROGRAM-DATE-TIME: when the muxer got the first picture, egress host clock, milliseconds.
    pub label: Timestamp,
    /// EXTINF in microseconds, a multiple of 1000; 0 when egress wrote nothing believable.
    pub duration_us: i64,
}

/// What could be learnt from one reading of a playlist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPlaylist {
    /// Complete entries, rising numbers, each once.
    pub entries: Vec<Entry>,
    /// ENDLIST was there: egress will add nothing.
    pub ended: bool,
}

/// Reads a playlist of ours as egress left it at this instant. Never fails: damage means fewer entries.
pub fn read_playlist(bytes: &[u8]) -> EgressPlaylist {
    let Ok((_, playlist)) = m3u8_rs::parse_media_playlist(bytes) else {
        return EgressPlaylist::default();
    };
    let mut entries: Vec<Entry> = playlist.segments.iter().filter_map(entry).collect();
    entries.sort_by_key(|entry| entry.number);
    entries.dedup_by_key(|entry| entry.number);
    EgressPlaylist { entries, ended: playlist.end_list }
}

fn entry(segment: &m3u8_rs::MediaSegment) -> Option<Entry> {
    let number = parse_segment_file_name(&segment.uri)?;
    let label = segment.program_date_time?.timestamp_micros();
    Some(Entry {
        number,
        file_name: segment.uri.clone(),
        label: Timestamp::from_micros(label),
        duration_us: duration_us(segment.duration),
    })
}

/// The crate keeps durations as `f32`: good to a millisecond up to hours for one, wrong by seconds for a sum.
/// So each is brought back to the whole milliseconds egress wrote before anything is added up.
fn duration_us(seconds: f32) -> i64 {
    let millis = (f64::from(seconds) * 1000.0).round();
    if millis.is_finite() && millis > 0.0 && millis * 1000.0 < LONGEST_BELIEVABLE_US {
        millis as i64 * 1000
    } else {
        0
    }
}

/// The name egress gives segment `number` (`%05d`, more digits from 100000 on).
pub fn segment_file_name(number: u64) -> String {
    format!("{SEGMENT_PREFIX}_{number:05}.ts")
}

/// The number in a segment's name; any digit count up to 19. Anything that is not exactly `seg_<digits>.ts`
/// (a path, a traversal, a temporary name, another prefix) is not ours and gives nothing.
pub fn parse_segment_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?.strip_prefix('_')?.strip_suffix(".ts")?;
    let plain = !digits.is_empty() && digits.len() <= 19;
    if plain && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-ALLOW-CACHE:NO\n\
                          #EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n";

    fn listed(time: &str, duration: &str, name: &str) -> String {
        format!("#EXT-X-PROGRAM-DATE-TIME:{time}\n#EXTINF:{duration},\n{name}\n")
    }

    fn playlist(entries: &[String], end: bool) -> String {
        let end = if end { "#EXT-X-ENDLIST\n" } else { "" };
        format!("{HEADER}{}{end}", entries.concat())
    }

    fn numbers(playlist: &EgressPlaylist) -> Vec<u64> {
        playlist.entries.iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn a_finished_playlist_gives_every_entry_and_its_end() {
        let text = playlist(
            &[
                listed("2026-01-02T03:04:05.678Z", "2.000", "seg_00000.ts"),
                listed("2026-01-02T03:04:07.68Z", "8.138", "seg_00001.ts"),
                listed("2026-01-02T03:04:15Z", "0.033", "seg_100000.ts"),
            ],
            true,
        );
        let read = read_playlist(text.as_bytes());
        assert!(read.ended);
        assert_eq!(numbers(&read), [0, 1, 100_000]);
        let durations: Vec<i64> = read.entries.iter().map(|entry| entry.duration_us).collect();
        assert_eq!(durations, [2_000_000, 8_138_000, 33_000]);
        assert_eq!(read.entries[1].label.to_rfc3339(), "2026-01-02T03:04:07.680Z");
        assert_eq!(read.entries[2].label.to_rfc3339(), "2026-01-02T03:04:15.000Z");
        assert_eq!(read.entries[2].file_name, "seg_100000.ts");
    }

    #[test]
    fn an_empty_file_is_a_playlist_without_entries() {
        assert_eq!(read_playlist(b""), EgressPlaylist::default());
        assert_eq!(read_playlist(b"#EXT"), EgressPlaylist::default());
        assert_eq!(read_playlist(HEADER.as_bytes()), EgressPlaylist::default());
        assert_eq!(read_playlist(&[0; 4096]), EgressPlaylist::default());
    }

    #[test]
    fn foreign_names_and_unlabelled_entries_are_left_out() {
        let time = "2026-01-02T03:04:05Z";
        let hostile = [
            "../seg_00001.ts",
            "/etc/seg_00001.ts",
            "a/seg_00001.ts",
            "seg_.ts",
            "seg_-1.ts",
            "seg_00001.ts.tmp",
            "seg_1e3.ts",
            "SEG_00001.ts",
            "seg_00001.mp4",
            "seg_20260102030405678901234.ts",
            "http://example.org/seg_00001.ts",
            "seg_٠٠٠٠١.ts",
        ];
        let mut entries: Vec<String> =
            hostile.iter().map(|name| listed(time, "2.0", name)).collect();
        entries.push("#EXTINF:2.000,\nseg_00007.ts\n".to_owned());
        entries.push(listed("half past nine", "2.000", "seg_00008.ts"));
        entries.push(format!("#EXT-X-UNHEARD-OF:1,2\n{}", listed(time, "2.000", "seg_00009.ts")));
        assert_eq!(numbers(&read_playlist(playlist(&entries, false).as_bytes())), [9]);
    }

    #[test]
    fn durations_nobody_can_believe_are_zero() {
        for text in ["nan", "-2.000", "inf", "99999999", "two"] {
            let text = playlist(&[listed("2026-01-02T03:04:05Z", text, "seg_00000.ts")], false);
            for entry in read_playlist(text.as_bytes()).entries {
                assert_eq!(entry.duration_us, 0);
            }
        }
    }

    #[test]
    fn windows_line_ends_are_read_too() {
        let text = playlist(&[listed("2026-01-02T03:04:05Z", "2.000", "seg_00000.ts")], true);
        let read = read_playlist(text.replace('\n', "\r\n").as_bytes());
        assert_eq!((numbers(&read), read.ended), (vec![0], true));
    }

    #[test]
    fn four_hours_of_odd_durations_add_up_to_the_millisecond() {
        let entries: Vec<String> = (0..2400)
            .map(|n| listed("2026-01-02T03:04:05.5Z", "6.006", &segment_file_name(n)))
            .collect();
        let read = read_playlist(playlist(&entries, false).as_bytes());
        let sum: i64 = read.entries.iter().map(|entry| entry.duration_us).sum();
        assert_eq!(sum, 2400 * 6_006_000);
    }

    proptest! {
        #[test]
        fn any_prefix_gives_exactly_the_entries_that_are_complete_in_it(
            count in 0usize..8, cut in 0.0f64..=1.0, millis in 0i64..1000,
        ) {
            let base = Timestamp::from_micros(1_767_323_045_000_000 + millis * 1000);
            let entries: Vec<String> = (0..count)
                .map(|n| listed(&base.plus_seconds(2 * n as i64).to_rfc3339(), "2.000", &segment_file_name(n as u64)))
                .collect();
            let text = playlist(&entries, true);
            let kept = &text[..(text.len() as f64 * cut) as usize];
            let read = read_playlist(kept.as_bytes());
            // complete means: the name stands there in full, with or without the line's end
            let mut end = HEADER.len();
            let mut complete = 0;
            for entry in &entries {
                end += entry.len();
                if kept.len() + 1 >= end { complete += 1; }
            }
            prop_assert_eq!(numbers(&read), (0..complete).collect::<Vec<u64>>());
            prop_assert_eq!(read.ended, kept.contains("#EXT-X-ENDLIST"));
            for (n, entry) in read.entries.iter().enumerate() {
                prop_assert_eq!(entry.label, base.plus_seconds(2 * n as i64));
                prop_assert_eq!(entry.duration_us, 2_000_000);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_give_a_name_that_is_not_ours(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut text = HEADER.as_bytes().to_vec();
            text.extend(bytes);
            for entry in read_playlist(&text).entries {
                prop_assert_eq!(parse_segment_file_name(&entry.file_name), Some(entry.number));
            }
        }

        #[test]
        fn names_and_numbers_are_the_same_thing(number in 0u64..10_000_000_000) {
            prop_assert_eq!(parse_segment_file_name(&segment_file_name(number)), Some(number));
        }
    }
}
