//! Raw pictures and sound with the markers of the tests, and egress's playlists: what `scripts/make-material.sh` pipes
//! into GStreamer. Needs nothing but the standard library, so that `rustc -O` alone builds it in a second.
//!
//! `raw_material video WIDTH HEIGHT FPS SECONDS FIRST_NUMBER GRAIN` writes I420, `raw_material audio SECONDS` writes
//! signed 16-bit stereo at 48 kHz, `raw_material playlists LOG DIRECTORY SEGMENT_SECONDS` reads what `gst-launch-1.0 -m`
//! said of fragments and writes the two playlists beside them.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/media/picture.rs"]
mod picture;

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufWriter, Write},
    path::Path,
};

/// 2026-01-02T03:04:05.678Z: when the first frame of every set reached the muxer, in milliseconds of its day.
const LABEL_MS: u64 = ((3 * 60 + 4) * 60 + 5) * 1000 + 678;
/// How many entries egress's live playlist keeps.
const LIVE: usize = 5;

fn main() -> io::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| given[at].parse::<usize>().expect("a whole number");
    match given.first().map(String::as_str) {
        Some("video") => {
            let rest: Vec<usize> = (1..7).map(number).collect();
            video(rest[0], rest[1], rest[2] * rest[3], rest[4] as i64, rest[5] as u8)
        }
        Some("audio") => audio(number(1)),
        Some("playlists") => playlists(&given[1], Path::new(&given[2]), number(3)),
        _ => Err(io::Error::other("raw_material video|audio|playlists …; see its first lines")),
    }
}

fn video(width: usize, height: usize, frames: usize, first: i64, grain: u8) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let colour = vec![128u8; width.div_ceil(2) * height.div_ceil(2) * 2];
    for number in first..first + frames as i64 {
        out.write_all(&picture::picture(number, width, height, grain))?;
        out.write_all(&colour)?;
    }
    out.flush()
}

fn audio(seconds: usize) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for at in 0..seconds * picture::RATE {
        let value = picture::sample(at).to_le_bytes();
        out.write_all(&[value[0], value[1], value[0], value[1]])?;
    }
    out.flush()
}

/// A finished fragment: its name, and when it began and ended, in milliseconds since the first one's begin.
struct Fragment {
    name: String,
    from: u64,
    to: u64,
}

/// Lines such as `… splitmuxsink-fragment-closed, location=(string)/x/seg_00000.ts, running-time=(guint64)2000000000, …`.
fn fragments(log: &str) -> Vec<Fragment> {
    let said = |what: &str| -> Vec<(String, u64)> {
        let lines = log.lines().filter(|line| line.contains(what));
        let read = lines.filter_map(|line| {
            let place = field(line, "location=(string)")?;
            let name = place.rsplit('/').next()?.to_owned();
            Some((name, field(line, "running-time=(guint64)")?.parse().ok()?))
        });
        read.collect()
    };
    let opened = said("splitmuxsink-fragment-opened");
    let closed = said("splitmuxsink-fragment-closed");
    let zero = opened.first().expect("a fragment was opened").1;
    let of = |(name, end): (String, u64)| {
        let begin = opened.iter().find(|(other, _)| *other == name).expect("opened").1;
        let ms = |at: u64| (at - zero + 500_000) / 1_000_000;
        Fragment { name, from: ms(begin), to: ms(end) }
    };
    closed.into_iter().map(of).collect()
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.split_once(name)?.1;
    Some(rest.split([',', ';']).next()?.trim().trim_matches('"'))
}

fn playlists(log: &str, directory: &Path, target: usize) -> io::Result<()> {
    let fragments = fragments(&fs::read_to_string(log)?);
    let live = fragments.len().saturating_sub(LIVE);
    fs::write(directory.join("index.m3u8"), playlist(&fragments, target, Some("EVENT"), 0))?;
    fs::write(directory.join("live.m3u8"), playlist(&fragments[live..], target, None, live))
}

fn playlist(fragments: &[Fragment], target: usize, kind: Option<&str>, sequence: usize) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:4\n".to_owned();
    if let Some(kind) = kind {
        let _ = writeln!(text, "#EXT-X-PLAYLIST-TYPE:{kind}");
    }
    let _ = writeln!(
        text,
        "#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{sequence}"
    );
    for Fragment { name, from, to } in fragments {
        let seconds = (to - from) as f64 / 1000.0;
        let label = label(*from);
        let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{label}\n#EXTINF:{seconds:.3},\n{name}");
    }
    text + "#EXT-X-ENDLIST\n"
}

/// The fraction as egress leaves it: cut to milliseconds, zeros trimmed.
fn label(since_ms: u64) -> String {
    let of_day = LABEL_MS + since_ms;
    let (seconds, ms) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let text = format!("2026-01-02T{hour:02}:{minute:02}:{second:02}.{ms:03}");
    format!("{}Z", text.trim_end_matches('0').trim_end_matches('.'))
}
