//! One part: where a clip begins and ends.

use std::path::PathBuf;

use livekit_replay::media::compose::{CutPart, SegmentFile};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    COPIES, EXACT, FFMPEG, NATIVE, Way, make,
    material::{FPS, FRAME, Kind, Recording, Scratch, TWO_SECONDS, watch},
};

const TEN_SECONDS: Kind = Kind { segment_seconds: 10, seconds: 30, ..TWO_SECONDS };
const SILENT: Kind = Kind { audio: false, ..TEN_SECONDS };

/// Windows in ticks from the recording's beginning: off the grid, on it, and a hair (half a millisecond) beside it.
fn windows(kind: Kind, seed: u64, count: usize) -> Vec<(i64, i64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let end = kind.seconds * 90_000;
    let mut windows = Vec::new();
    for index in 0..count {
        let length = random.random_range(9_000..end / 2);
        let from = random.random_range(0..end - length);
        let (from, to) = match index % 3 {
            0 => (from, from + length),
            1 => (from / FRAME * FRAME, (from + length) / FRAME * FRAME),
            _ => (from / 90 * 90, (from + length) / 90 * 90),
        };
        windows.push((from, to));
    }
    windows.push((0, end));
    windows.push((90_000 * 5 + 30, 90_000 * 6 - 30));
    windows
}

/// The worst of all windows, for the printed table; zero is asserted where zero is due.
#[derive(Default, Debug)]
struct Worst {
    windows: usize,
    late_start_frames: i64,
    end_frames: i64,
    missing_frames: usize,
    duration_ms: f64,
    sync_ms: f64,
    outside_without_edits: i64,
    sound_outside_ms: f64,
}

fn grow(worst: &mut f64, value: f64) {
    *worst = worst.max(value.abs());
}

async fn measure(kind: Kind, way: Way, seed: u64, count: usize) {
    let recording = Recording::make(kind);
    let dir = Scratch::new();
    let mut worst = Worst::default();
    let begin = recording.pts_of(0);
    let all = 0..recording.segments.len();
    for (from, to) in windows(kind, seed, count) {
        let part = recording.part(all.clone(), begin + from, begin + to);
        let made = make(vec![part], way, &dir.0).await.unwrap();
        let seen = watch(&made.file, &[]);
        // half a millisecond belongs to neither side
        let first_wanted = (from - 45 + FRAME - 1).div_euclid(FRAME);
        let last_wanted = (to - 45 + FRAME - 1).div_euclid(FRAME) - 1;
        let key =
            recording.keys().into_iter().filter(|key| key * FRAME <= from + 45).max().unwrap();
        let first = if way == EXACT { first_wanted } else { key };
        let numbers = seen.numbers();
        assert_eq!(made.facts.frames, numbers.len() as u64);
        assert_eq!(made.parts[0].first_pts, recording.pts_of(numbers[0]));
        let end = recording.pts_of(numbers[numbers.len() - 1] + 1);
        assert_eq!(made.parts[0].end_pts, end);
        worst.windows += 1;
        let context = format!("{from}..{to}: {numbers:?} wanted {first}..={last_wanted}");
        let start_error = numbers[0] - first;
        assert_eq!(start_error, 0, "{context}");
        worst.late_start_frames = worst.late_start_frames.max(start_error);
        let end_error = (numbers[numbers.len() - 1] - last_wanted).abs();
        assert!(end_error <= 1, "{context}");
        worst.end_frames = worst.end_frames.max(end_error);
        let missing = (first..=last_wanted).filter(|number| !numbers.contains(number)).count();
        worst.missing_frames = worst.missing_frames.max(missing);
        assert_eq!(missing, 0, "{context}");
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{context}");
        let length = made.facts.duration_us as f64 / 1e6;
        let wanted = (last_wanted + 1 - first) as f64 / FPS as f64;
        grow(&mut worst.duration_ms, (length - wanted) * 1000.0);
        assert!(seen.longest_gap() < 0.035, "{context}: {}", seen.longest_gap());
        if kind.audio {
            grow(&mut worst.sync_ms, seen.worst_sync() * 1000.0);
            let outside = seen.sound_seconds - length;
            worst.sound_outside_ms = worst.sound_outside_ms.max(outside * 1000.0);
        }
        if way == EXACT {
            let bare = watch(&made.file, &["-ignore_editlist", "1"]);
            let outside = bare.numbers().iter().filter(|n| !numbers.contains(n)).count();
            worst.outside_without_edits = worst.outside_without_edits.max(outside as i64);
            let over = bare.sound_seconds - length;
            worst.sound_outside_ms = worst.sound_outside_ms.max(over * 1000.0);
        }
        std::fs::remove_file(&made.file).unwrap();
    }
    assert_eq!(dir.files(), 0);
    println!("{way:?} {}s audio={}: {worst:?}", kind.segment_seconds, kind.audio);
    assert!(worst.duration_ms <= 34.0, "{worst:?}");
    assert!(worst.sync_ms <= 40.0, "{worst:?}");
    assert!(worst.sound_outside_ms <= 50.0, "{worst:?}");
    assert_eq!(worst.outside_without_edits, 0, "{worst:?}");
}

#[tokio::test]
async fn keyframe_cuts_of_short_segments_begin_at_the_key_frame_and_end_at_the_window() {
    for way in COPIES {
        measure(TWO_SECONDS, way, 1, 8).await;
    }
}

#[tokio::test]
async fn keyframe_cuts_use_the_key_frames_inside_long_segments() {
    for way in COPIES {
        measure(TEN_SECONDS, way, 2, 6).await;
    }
}

#[tokio::test]
async fn keyframe_cuts_work_without_sound() {
    for way in COPIES {
        measure(SILENT, way, 3, 5).await;
    }
}

#[tokio::test]
async fn exact_cuts_of_short_segments_hold_the_window_and_nothing_else() {
    measure(TWO_SECONDS, EXACT, 4, 6).await;
}

#[tokio::test]
async fn exact_cuts_of_long_segments_hold_the_window_and_nothing_else() {
    measure(TEN_SECONDS, EXACT, 5, 3).await;
}

#[tokio::test]
async fn exact_cuts_work_without_sound() {
    measure(SILENT, EXACT, 6, 2).await;
}

#[tokio::test]
async fn segments_of_the_muxer_that_egress_uses_are_cut_like_our_own() {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/segments");
    let segments = [("gst-0.ts", 3600), ("gst-1.ts", 3610)];
    let segments = segments.map(|(name, seconds)| SegmentFile {
        path: place.join(name),
        pts_start_unwrapped: seconds * 90_000,
        checksum: None,
    });
    let dir = Scratch::new();
    let at = |number: i64| 3600 * 90_000 + number * FRAME;
    // a key frame lies at 250, inside the first segment
    for (way, first) in [(NATIVE, 250), (FFMPEG, 250), (EXACT, 261)] {
        for last in [299, 300, 301, 407, 600] {
            let part = CutPart { segments: segments.to_vec(), from_pts: at(261), to_pts: at(last) };
            let made = make(vec![part], way, &dir.0).await.unwrap();
            let seen = watch(&made.file, &[]);
            assert_eq!(seen.numbers(), (first..last).collect::<Vec<_>>());
            assert!(seen.longest_gap() < 0.035);
            assert!(seen.worst_sync().abs() <= 0.04, "{}", seen.worst_sync());
        }
    }
}
