//! Playlists as egress writes them. Pure text.

use chrono::{DateTime, Utc};

/// A finished segment as a playlist tells of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// File name beside the playlist (or relative to it).
    pub(super) name: String,
    /// Moment at which the muxer got the first frame, by the egress host's clock: nanoseconds since the Unix epoch.
    pub(super) label_ns: i64,
    /// Measured length in seconds.
    pub(super) seconds: f64,
}

/// How many entries the live playlist keeps.
pub(super) const LIVE_ENTRIES: usize = 5;

/// The playlist that keeps everything.
pub(super) fn event(target_seconds: u32, entries: &[Entry], ended: bool) -> String {
    write(target_seconds, Some("EVENT"), 0, entries, ended)
}

/// The playlist of the last five.
pub(super) fn live(target_seconds: u32, entries: &[Entry], ended: bool) -> String {
    let first = entries.len().saturating_sub(LIVE_ENTRIES);
    write(target_seconds, None, first, &entries[first..], ended)
}

fn write(
    target: u32,
    kind: Option<&str>,
    sequence: usize,
    entries: &[Entry],
    ended: bool,
) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:4\n".to_owned();
    if let Some(kind) = kind {
        text.push_str(&format!("#EXT-X-PLAYLIST-TYPE:{kind}\n"));
    }
    text.push_str(&format!(
        "#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n"
    ));
    for entry in entries {
        text.push_str(&format!(
            "#EXT-X-PROGRAM-DATE-TIME:{}\n#EXTINF:{:.3},\n{}\n",
            date_time(entry.label_ns),
            entry.seconds,
            entry.name
        ));
    }
    if ended {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

/// UTC with the fraction as Go's layout `.999` leaves it: cut to milliseconds, zeros trimmed, none at all if zero.
pub(super) fn date_time(nanoseconds: i64) -> String {
    let moment = DateTime::<Utc>::from_timestamp_nanos(nanoseconds);
    let text = moment.format("%Y-%m-%dT%H:%M:%S.%3f").to_string();
    format!("{}Z", text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_of_a_label_has_none_to_three_digits() {
        let at =
            |milliseconds: i64| date_time((1_769_999_990_000 + milliseconds) * 1_000_000 + 999_999);
        assert_eq!(at(0), "2026-02-02T02:39:50Z");
        assert_eq!(at(330), "2026-02-02T02:39:50.33Z");
        assert_eq!(at(500), "2026-02-02T02:39:50.5Z");
        assert_eq!(at(7), "2026-02-02T02:39:50.007Z");
    }

    #[test]
    fn the_live_playlist_keeps_five_and_counts_the_rest() {
        let entries: Vec<Entry> = (0..7i64)
            .map(|n| Entry {
                name: format!("s_{n:05}.ts"),
                label_ns: n * 2_000_000_000,
                seconds: 2.0,
            })
            .collect();
        let text = live(2, &entries, true);
        assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:2\n") && !text.contains("s_00001.ts"));
        assert_eq!(text.matches("#EXTINF:2.000,\n").count(), 5);
        assert!(text.ends_with("s_00006.ts\n#EXT-X-ENDLIST\n") && !text.contains("PLAYLIST-TYPE"));
        let text = event(2, &entries[..1], false);
        assert_eq!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:2\n\
             #EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00Z\n#EXTINF:2.000,\ns_00000.ts\n"
        );
    }
}
