//! Clips and playlists in a real browser: every kind of clip shows the right picture at its start, middle and end, and
//! the service's previews play.
//!
//! Needs Chromium (scripts/setup.sh installs it); without one the tests say `skipped`. What the page showed is kept as
//! `target/tmp/browser-*.png`.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../clips/bench.rs"]
#[allow(dead_code, reason = "that of other suites; this one uses a part")]
mod bench;
mod chromium;
#[path = "../media/material.rs"]
#[allow(dead_code, reason = "that of the cutting tests; this one uses a part")]
mod material;
#[path = "../media/picture.rs"]
mod picture;
mod preview;
#[path = "../view/studio.rs"]
#[allow(dead_code, reason = "that of the tests of looking; this one uses a part")]
mod studio;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use chromium::{Item, Picture, Shown, watch_in};
use livekit_replay::{
    config::Muxer,
    media::{
        compose::{CutPart, Precision},
        cut::{CutOutcome, CutRequest, cut},
        ffmpeg::Ffmpeg,
    },
};
use material::{FPS, Recording, Scratch, Seen, watch};
use tokio_util::sync::CancellationToken;

/// Pictures by which what is drawn may be older or newer than the time that the browser tells of it while it plays:
/// on a busy machine the page looks late.
const PLAYING_OLDER: i64 = 1;
const PLAYING_NEWER: i64 = 10;
/// Pictures by which hls.js may lie beside the playlist: its zero is the first decoding time, two pictures earlier.
const HLS_SLACK: i64 = 3;

fn browser() -> Option<PathBuf> {
    let found = chromium::find();
    if found.is_none() {
        eprintln!("skipped: no Chromium found (scripts/setup.sh installs it)");
    }
    found
}

fn screenshot(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{name}.png"))
}

async fn make(parts: Vec<CutPart>, precision: Precision, dir: &Path) -> CutOutcome {
    let request = CutRequest {
        parts,
        precision,
        muxer: Muxer::Auto,
        work_dir: dir.to_owned(),
        title: None,
        started_at: None,
        deadline: Duration::from_secs(120),
        stall: Duration::from_secs(60),
        max_bytes: None,
        cancel: CancellationToken::new(),
    };
    cut(&Ffmpeg::new("ffmpeg"), request).await.unwrap()
}

/// A clip and what decoding says of it.
struct Clip {
    name: &'static str,
    item: Item,
    seen: Seen,
    seconds: f64,
    audio: bool,
}

async fn clip(
    name: &'static str,
    parts: Vec<CutPart>,
    precision: Precision,
    audio: bool,
    dir: &Path,
) -> Clip {
    let made = make(parts, precision, dir).await;
    let seen = watch(&made.file, &[]);
    let file = made.file.file_name().unwrap().to_str().unwrap();
    let count = seen.pictures.len();
    // the middle of a picture's time: neither side's rounding matters
    let of = |index: usize| seen.pictures[index].1 + 0.5 / FPS as f64;
    let item = Item {
        name: name.to_owned(),
        url: format!("/files/{file}"),
        hls: false,
        // back to the start at last: that is where an edit list counts
        at: [count / 2, count - 1, 1, count / 3, 0].map(of).to_vec(),
        play_from: of(count / 4),
        play_seconds: 1.0,
        grows_to: 0.0,
    };
    Clip { name, item, seen, seconds: made.facts.duration_us as f64 / 1e6, audio }
}

/// One of each kind, none of whose edges lies on a key frame.
async fn clips(dir: &Path) -> Vec<Clip> {
    use Precision::{Exact, Keyframe};
    let long = Recording::fixture("10s", 10, true, 30_000);
    let silent = Recording::fixture("4s-silent", 4, false, 13_500);
    let short = Recording::fixture("2s", 2, true, 6000);
    let whole = |recording: &Recording, from: i64, to: i64| {
        let zero = recording.kind.first_number;
        let all = 0..recording.segments.len();
        vec![recording.part(all, recording.pts_of(zero + from), recording.pts_of(zero + to))]
    };
    let joined = || {
        let at = |number: i64| short.pts_of(6000 + number);
        vec![short.part(0..3, at(37), at(171)), short.part(5..9, at(322), at(487))]
    };
    vec![
        clip("keyframe", whole(&long, 128, 437), Keyframe, true, dir).await,
        clip("exact", whole(&long, 128, 437), Exact, true, dir).await,
        clip("keyframe, silent", whole(&silent, 77, 301), Keyframe, false, dir).await,
        clip("exact, silent", whole(&silent, 77, 301), Exact, false, dir).await,
        clip("keyframe, joined", joined(), Keyframe, true, dir).await,
        clip("exact, joined", joined(), Exact, true, dir).await,
    ]
}

/// What is wrong with a clip as the browser showed it.
fn faults(clip: &Clip, shown: &Shown) -> Vec<String> {
    let mut faults = Vec::new();
    let pictures = &clip.seen.pictures;
    if let Some(error) = &shown.error {
        return vec![error.clone()];
    }
    let mut same = |what: String, got: Option<i64>, due: i64| {
        if got != Some(due) {
            faults.push(format!("{what}: picture {got:?} instead of {due}"));
        }
    };
    same("opened".to_owned(), shown.first, pictures[0].0);
    for (Picture { at, number }, asked) in shown.shown.iter().zip(&clip.item.at) {
        same(format!("at {at:.3} s"), *number, pictures[index_at(&clip.seen, *asked)].0);
    }
    same("ended".to_owned(), shown.last, pictures[pictures.len() - 1].0);
    if shown.shown.len() != clip.item.at.len() {
        faults.push(format!("shown {} of {}", shown.shown.len(), clip.item.at.len()));
    }
    // sound may outlast the pictures by a frame of its own; a copy may store a picture that is never shown
    for duration in [shown.duration, shown.duration_at_end] {
        if (duration - clip.seconds).abs() > 0.05 {
            faults.push(format!("lasts {duration} instead of {}", clip.seconds));
        }
    }
    if (shown.audio_bytes > 0) != clip.audio {
        faults.push(format!("{} bytes of sound decoded", shown.audio_bytes));
    }
    faults.extend(playing_faults(clip, shown));
    faults
}

fn playing_faults(clip: &Clip, shown: &Shown) -> Vec<String> {
    let pictures = &clip.seen.pictures;
    let mut faults = Vec::new();
    let mut before = 0;
    for Picture { at, number } in &shown.played {
        let place = number.and_then(|number| pictures.iter().position(|one| one.0 == number));
        let due = index_at(&clip.seen, *at + 0.001);
        let allowed = -PLAYING_OLDER..=PLAYING_NEWER;
        let near = place.is_some_and(|place| allowed.contains(&(place as i64 - due as i64)));
        if !near || place.is_some_and(|place| place < before) {
            faults.push(format!("playing at {at:.3} s: {number:?}, due {}", pictures[due].0));
        }
        before = place.unwrap_or(before);
    }
    if shown.played.len() < 5 {
        faults.push(format!("only {} pictures while playing", shown.played.len()));
    }
    faults
}

/// The picture shown then.
fn index_at(seen: &Seen, at: f64) -> usize {
    seen.pictures.iter().rposition(|(_, time)| *time <= at).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_clip_plays_and_seeks_to_the_picture() {
    let Some(browser) = browser() else { return };
    let dir = Scratch::new();
    let clips = clips(&dir.0).await;
    let plan = clips.iter().map(|clip| clip.item.clone()).collect();
    let shown = watch_in(&browser, &dir.0, plan, &screenshot("clips")).await;
    assert_eq!(shown.len(), clips.len());
    let mut wrong = String::new();
    for (clip, shown) in clips.iter().zip(&shown) {
        assert_eq!(clip.name, shown.name);
        println!(
            "{:<17} {:>3} pictures, {:.3} s ({:.3} s once played), {:>2} seen playing, {} bytes of sound",
            clip.name,
            clip.seen.pictures.len(),
            shown.duration,
            shown.duration_at_end,
            shown.played.len(),
            shown.audio_bytes
        );
        for fault in faults(clip, shown) {
            let _ = writeln!(wrong, "{}: {fault}", clip.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(fs::metadata(screenshot("clips")).is_ok_and(|shot| shot.len() > 10_000));
}

/// A playlist that is played through hls.js: `due` are moments and the numbers to be seen there.
fn hls_item(url: &str, due: &[(f64, i64)], play_from: f64, name: &str) -> Item {
    Item {
        name: name.to_owned(),
        url: url.to_owned(),
        hls: true,
        at: due.iter().map(|(at, _)| *at).collect(),
        play_from,
        play_seconds: 2.0,
        grows_to: 0.0,
    }
}

/// It was shown as it was due.
fn assert_shown(shown: &Shown, due: &[(f64, i64)]) {
    let name = &shown.name;
    assert_eq!(shown.error, None, "{shown:?}");
    for ((at, due), picture) in due.iter().zip(&shown.shown) {
        let off = picture.number.map(|number| number - due);
        println!("{name}: at {at:.3} s {:?}, off by {off:?}", picture.number);
        assert!(off.is_some_and(|off| off.abs() <= HLS_SLACK), "{at} s, due {due}: {shown:?}");
    }
    assert_eq!(shown.shown.len(), due.len());
}

/// It was played without going back, with so many pictures out of each of these ranges, and with sound.
fn assert_played(shown: &Shown, ranges: &[std::ops::Range<i64>]) {
    let numbers: Vec<i64> = shown.played.iter().filter_map(|picture| picture.number).collect();
    for range in ranges {
        let seen = numbers.iter().filter(|number| range.contains(number)).count();
        assert!(seen > 3, "{range:?} is played: {numbers:?}");
    }
    assert!(numbers.windows(2).all(|pair| pair[1] >= pair[0]), "{numbers:?}");
    assert!(shown.audio_bytes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_playlist_plays_across_a_discontinuity() {
    let Some(browser) = browser() else { return };
    let dir = Scratch::new();
    let first = Recording::fixture("2s", 2, true, 6000);
    let second = Recording::fixture("4s", 4, true, 12_000);
    let mut list =
        "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-TARGETDURATION:4\n".to_owned();
    for index in 0..3 {
        fs::copy(&first.segments[index].0, dir.0.join(format!("a{index}.ts"))).unwrap();
        let _ = write!(list, "#EXTINF:2.000,\na{index}.ts\n");
    }
    list += "#EXT-X-DISCONTINUITY\n";
    for index in 2..4 {
        fs::copy(&second.segments[index].0, dir.0.join(format!("b{index}.ts"))).unwrap();
        let _ = write!(list, "#EXTINF:4.000,\nb{index}.ts\n");
    }
    fs::write(dir.0.join("index.m3u8"), list + "#EXT-X-ENDLIST\n").unwrap();
    let middle = |number: i64| (number as f64 + 0.5) / FPS as f64;
    let due = [
        (middle(20), 6020),
        (middle(150), 6150),
        // six seconds of the first, then the second from its eighth on
        (middle(200), 12_260),
        (middle(400), 12_460),
    ];
    let item = hls_item("/files/index.m3u8", &due, 5.0, "hls");
    let mut shown = watch_in(&browser, &dir.0, vec![item], &screenshot("hls")).await;
    let shown = shown.pop().expect("one was asked for");
    assert_shown(&shown, &due);
    assert!((shown.duration - 14.0).abs() < 0.2, "{}", shown.duration);
    assert_played(&shown, &[6000..6180, 12_240..12_480]);
}
