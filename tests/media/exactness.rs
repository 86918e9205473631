//! The table of exactness: many random windows over the recordings of egress's own muxer, cut both ways and judged by
//! decoding every picture of every result.
//!
//! `EXACTNESS_SEED` repeats a run, `EXACTNESS_WINDOWS` changes how many windows there are (300). The table is printed
//! (`--nocapture` shows it).

use std::path::Path;

use futures::{StreamExt, stream};
use livekit_replay::media::{
    TOLERANCE,
    compose::Precision,
    cut::{CutOutcome, CutSpan},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    EXACT, NATIVE, make,
    material::{FPS, FRAME, Recording, Scratch, Seen, watch_once},
};

const WINDOWS: usize = 300;
/// Cuts made and decoded at once.
const AT_ONCE: usize = 3;
/// The furthest that a beep may lie from its picture, in milliseconds.
const SYNC_MS: f64 = 40.0;
/// A frame of AAC and a bit of rounding, in milliseconds: by so much sound may outlast the pictures.
const SOUND_OVER_MS: f64 = 50.0;
/// Without sound for the rest of a clip no more than this, in milliseconds.
const SOUND_SHORT_MS: f64 = 60.0;

const SETS: [(&str, i64, bool, i64); 6] = [
    ("2s", 2, true, 6000),
    ("2s-silent", 2, false, 7500),
    ("4s", 4, true, 12_000),
    ("4s-silent", 4, false, 13_500),
    ("10s", 10, true, 30_000),
    ("10s-silent", 10, false, 31_500),
];

/// A window in ticks since the recording's first picture.
#[derive(Debug, Clone, Copy)]
struct Window {
    set: usize,
    from: i64,
    to: i64,
}

/// What was found wrong with one clip, in the units of the table.
#[derive(Debug, Clone, Copy, Default)]
struct Errors {
    /// First picture shown less the one due: above zero is late.
    start_frames: i64,
    /// Last picture shown less the one due.
    end_frames: i64,
    /// Pictures due that are missing, doubled or out of order.
    missing_frames: i64,
    /// Pictures from outside the window when edit lists are ignored (exact only).
    outside_frames: i64,
    /// Longest distance of two pictures beyond a frame.
    gap_ms: f64,
    sync_ms: f64,
    sound_over_ms: f64,
    sound_short_ms: f64,
    /// What the outcome says against what was decoded.
    told_frames: i64,
    told_ms: f64,
}

impl Errors {
    /// The broken promises.
    fn broken(&self, precision: Precision) -> Vec<&'static str> {
        let exact = precision == Precision::Exact;
        let rules = [
            // a copy begins with the key frame at or before the window, never later
            (self.start_frames > i64::from(exact), "starts late"),
            (exact && self.start_frames < -1, "starts early"),
            (self.end_frames.abs() > 1, "ends elsewhere"),
            (self.missing_frames > 0, "pictures missing or out of order"),
            (self.outside_frames > 0, "holds pictures from outside"),
            (self.gap_ms > 2.0, "pictures are not even"),
            (self.sync_ms > SYNC_MS, "sound and picture apart"),
            (self.sound_over_ms > SOUND_OVER_MS, "sound from outside"),
            (self.sound_short_ms > SOUND_SHORT_MS, "sound missing at the end"),
            (self.told_frames > 1, "the outcome names other pictures"),
            (self.told_ms > 34.0, "the outcome names another length"),
        ];
        rules.into_iter().filter_map(|(broken, name)| broken.then_some(name)).collect()
    }

    /// The greater of each, by size.
    fn worst(self, other: Errors) -> Errors {
        let frames = |a: i64, b: i64| if a.abs() >= b.abs() { a } else { b };
        Errors {
            start_frames: frames(self.start_frames, other.start_frames),
            end_frames: frames(self.end_frames, other.end_frames),
            missing_frames: frames(self.missing_frames, other.missing_frames),
            outside_frames: frames(self.outside_frames, other.outside_frames),
            gap_ms: self.gap_ms.max(other.gap_ms),
            sync_ms: self.sync_ms.max(other.sync_ms),
            sound_over_ms: self.sound_over_ms.max(other.sound_over_ms),
            sound_short_ms: self.sound_short_ms.max(other.sound_short_ms),
            told_frames: frames(self.told_frames, other.told_frames),
            told_ms: self.told_ms.max(other.told_ms),
        }
    }
}

/// One in three off the grid of frames, on it, and in whole milliseconds; short ones as often as long ones.
fn windows(seed: u64, count: usize, recordings: &[Recording]) -> Vec<Window> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut windows = Vec::new();
    for index in 0..count {
        let set = index % recordings.len();
        let end = recordings[set].kind.seconds * 90_000;
        let length = 9_000.0 * f64::powf(140.0, random.random_range(0.0..1.0));
        let length = (length as i64).min(end);
        let from = random.random_range(0..=end - length);
        let grid = [1, FRAME, 90][index / recordings.len() % 3];
        let from = from / grid * grid;
        windows.push(Window { set, from, to: (from + length) / grid * grid });
    }
    windows
}

/// Cuts one window, decodes what came of it and compares.
async fn judge(recording: &Recording, window: Window, precision: Precision, dir: &Path) -> Errors {
    let begin = recording.pts_of(recording.kind.first_number);
    let all = 0..recording.segments.len();
    let part = recording.part(all, begin + window.from, begin + window.to);
    let way = if precision == Precision::Exact { EXACT } else { NATIVE };
    let made = make(vec![part], way, dir).await.unwrap();
    let (file, audio) = (made.file.clone(), recording.kind.audio);
    let exact = precision == Precision::Exact;
    let watching = tokio::task::spawn_blocking(move || {
        let seen = watch_once(&file, &[], audio);
        let bare = exact.then(|| watch_once(&file, &["-ignore_editlist", "1"], audio));
        std::fs::remove_file(&file).unwrap();
        (seen, bare)
    });
    let (seen, bare) = watching.await.unwrap();
    compare(recording, window, precision, &made, &seen, bare.as_ref())
}

fn compare(
    recording: &Recording,
    window: Window,
    precision: Precision,
    made: &CutOutcome,
    seen: &Seen,
    bare: Option<&Seen>,
) -> Errors {
    let zero = recording.kind.first_number;
    // half a millisecond belongs to neither side
    let frame_from = |ticks: i64| (ticks - TOLERANCE + FRAME - 1).div_euclid(FRAME) + zero;
    let (first_due, last_due) = (frame_from(window.from), frame_from(window.to) - 1);
    let numbers = seen.numbers();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let begins = match precision {
        Precision::Exact => first_due,
        Precision::Keyframe => {
            let keys = recording.keys();
            let due =
                keys.into_iter().filter(|key| (key - zero) * FRAME <= window.from + TOLERANCE);
            due.max().expect("a recording begins with a key frame")
        }
    };
    let missing = (begins.max(first)..=last_due.min(last)).filter(|due| !numbers.contains(due));
    let disordered = numbers.windows(2).filter(|pair| pair[1] <= pair[0]);
    let length = made.facts.duration_us as f64 / 1e6;
    let shown = (last - first + 1) as f64 / FPS as f64;
    let span: CutSpan = made.parts[0];
    let told = [
        span.first_pts - recording.pts_of(first),
        span.end_pts - recording.pts_of(last + 1),
        (span.frames as i64 - numbers.len() as i64) * FRAME,
        (made.facts.frames as i64 - numbers.len() as i64) * FRAME,
    ];
    let told = told.map(|ticks| (ticks.abs() + FRAME / 2) / FRAME);
    let mut errors = Errors {
        start_frames: first - begins,
        end_frames: last - last_due,
        missing_frames: (missing.count() + disordered.count()) as i64,
        gap_ms: (seen.longest_gap() * 1000.0 - 1000.0 / FPS as f64).max(0.0),
        told_frames: told.into_iter().max().unwrap_or(0),
        told_ms: (length - shown).abs() * 1000.0,
        ..Errors::default()
    };
    if recording.kind.audio {
        errors.sync_ms = seen.worst_sync().abs() * 1000.0;
        let longest = bare.map_or(0.0, |bare| bare.sound_seconds).max(seen.sound_seconds);
        errors.sound_over_ms = ((longest - shown) * 1000.0).max(0.0);
        errors.sound_short_ms = ((shown - seen.sound_seconds) * 1000.0).max(0.0);
    }
    if let Some(bare) = bare {
        let allowed = first_due - 1..=last_due + 1;
        let outside = bare.numbers().into_iter().filter(|number| !allowed.contains(number));
        errors.outside_frames = outside.count() as i64;
    }
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_windows_are_cut_to_the_frame() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("EXACTNESS_SEED").unwrap_or_else(rand::random);
    let count = number("EXACTNESS_WINDOWS").map_or(WINDOWS, |count| count as usize);
    println!("EXACTNESS_SEED={seed} EXACTNESS_WINDOWS={count}");
    let recordings: Vec<_> = SETS
        .iter()
        .map(|&(name, seconds, audio, first)| Recording::fixture(name, seconds, audio, first))
        .collect();
    let dir = Scratch::new();
    let asked = windows(seed, count, &recordings).into_iter();
    let asked = asked.flat_map(|one| [(one, Precision::Exact), (one, Precision::Keyframe)]);
    let judged: Vec<_> = stream::iter(asked)
        .map(|(window, precision)| {
            let (recording, dir) = (&recordings[window.set], &dir.0);
            async move { (window, precision, judge(recording, window, precision, dir).await) }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    assert_eq!(dir.files(), 0, "the cuts left files behind");
    println!("{}", table(&judged));
    let mut faults = Vec::new();
    for (window, precision, errors) in &judged {
        let broken = errors.broken(*precision);
        if !broken.is_empty() {
            let name = SETS[window.set].0;
            faults.push(format!("{precision:?} {name} {window:?}: {broken:?} {errors:?}"));
        }
    }
    assert!(faults.is_empty(), "EXACTNESS_SEED={seed}\n{}", faults.join("\n"));
}

/// The worst of every set and precision.
fn table(judged: &[(Window, Precision, Errors)]) -> String {
    let mut text = format!(
        "{:<11}{:<9}{:>8}{:>7}{:>5}{:>8}{:>8}{:>7}{:>8}{:>11}{:>12}{:>6}{:>9}",
        "set",
        "cut",
        "windows",
        "start",
        "end",
        "missing",
        "outside",
        "gap ms",
        "sync ms",
        "sound over",
        "sound short",
        "told",
        "told ms"
    );
    for (set, (name, ..)) in SETS.iter().enumerate() {
        for precision in [Precision::Exact, Precision::Keyframe] {
            let of =
                judged.iter().filter(|(window, how, _)| window.set == set && *how == precision);
            let count = of.clone().count();
            let worst = of.fold(Errors::default(), |worst, (_, _, errors)| worst.worst(*errors));
            text += &format!(
                "\n{name:<11}{:<9}{count:>8}{:>7}{:>5}{:>8}{:>8}{:>7.1}{:>8.1}{:>11.1}{:>12.1}{:>6}{:>9.1}",
                format!("{precision:?}"),
                worst.start_frames,
                worst.end_frames,
                worst.missing_frames,
                worst.outside_frames,
                worst.gap_ms,
                worst.sync_ms,
                worst.sound_over_ms,
                worst.sound_short_ms,
                worst.told_frames,
                worst.told_ms,
            );
        }
    }
    text
}
