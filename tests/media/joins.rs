//! Several parts, several epochs, the wrap of the time stamps.

use livekit_replay::error::Code;

use crate::{
    COPIES, EXACT, FFMPEG, NATIVE, WAYS, make,
    material::{FRAME, Kind, Recording, Scratch, Seen, TWO_SECONDS, watch},
};

fn assert_even(seen: &Seen) {
    assert!(seen.longest_gap() < 0.035, "{:?}", seen.pictures);
    let steps = seen.pictures.windows(2).map(|pair| pair[1].1 - pair[0].1);
    assert!(steps.fold(1.0, f64::min) > 0.03, "{:?}", seen.pictures);
}

fn range(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}

#[tokio::test]
async fn a_gap_is_cut_out_and_picture_and_sound_stay_together_behind_it() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    for way in WAYS {
        let at = |number| recording.pts_of(number);
        let parts =
            vec![recording.part(0..2, at(40), at(120)), recording.part(3..6, at(180), at(305))];
        let made = make(parts, way, &dir.0).await.unwrap();
        assert_eq!(made.encoded, way == EXACT);
        let seen = watch(&made.file, &[]);
        let first = if way == EXACT { 40 } else { 0 };
        assert_eq!(seen.numbers(), [range(first, 120), range(180, 305)].concat());
        assert_even(&seen);
        let sync = seen.worst_sync() * 1000.0;
        println!("gap, {way:?}: sync {sync:.1} ms");
        assert!(sync.abs() <= 40.0, "{sync}");
        assert_eq!(
            made.parts.iter().map(|part| part.frames).sum::<u64>(),
            seen.numbers().len() as u64
        );
    }
}

#[tokio::test]
async fn an_inner_part_that_ends_between_reference_pictures_shows_none_twice_or_out_of_order() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    for (last, way) in (70..76).flat_map(|last| COPIES.map(|way| (last, way))) {
        let at = |number| recording.pts_of(number);
        let parts =
            vec![recording.part(0..2, at(0), at(last)), recording.part(3..4, at(180), at(200))];
        let made = make(parts, way, &dir.0).await.unwrap();
        let seen = watch(&made.file, &[]).numbers();
        let first: Vec<_> = seen.iter().copied().filter(|number| *number < 180).collect();
        // FFmpeg alone cannot take them apart: what follows in decode order is shown too, up to four pictures
        let most = if way == NATIVE { last } else { last + 4 };
        assert!((last..=most).contains(&(first.len() as i64)), "{last}: {seen:?}");
        assert_eq!(made.parts[0].end_pts, at(first.len() as i64));
        assert_eq!(seen, [range(0, first.len() as i64), range(180, 200)].concat());
    }
}

#[tokio::test]
async fn epochs_of_different_size_become_one_clip_of_the_longer_ones_size() {
    let first = Recording::make(TWO_SECONDS);
    let kind = Kind { size: (480, 360), seconds: 6, first_number: 3000, ..TWO_SECONDS };
    let second = Recording::make(kind);
    let dir = Scratch::new();
    for way in WAYS {
        let parts = vec![
            first.part(0..4, first.pts_of(65), first.pts_of(240)),
            second.part(0..3, second.pts_of(3000), second.pts_of(3100)),
            first.part(5..6, first.pts_of(300), first.pts_of(330)),
        ];
        let made = make(parts, way, &dir.0).await.unwrap();
        assert!(made.encoded);
        assert_eq!((made.facts.width, made.facts.height), (320, 180));
        let begin = if way == EXACT { 65 } else { 60 };
        let seen = count_only(&made.file);
        assert_eq!(seen as i64, 240 - begin + 100 + 30);
        // the parts of the clip's own size still carry readable numbers
        assert_eq!(made.facts.frames, seen as u64);
    }
}

pub fn count_only(file: &std::path::Path) -> usize {
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-v", "error", "-i"]).arg(file);
    command.args(["-map", "0:v", "-fps_mode", "passthrough", "-f", "framecrc", "-"]);
    let out = command.output().unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test]
async fn same_looking_epochs_are_copied_and_joined_without_a_hole() {
    let first = Recording::make(TWO_SECONDS);
    let second = Recording::make(Kind { seconds: 6, first_number: 900, ..TWO_SECONDS });
    let dir = Scratch::new();
    for way in COPIES {
        let parts = vec![
            first.part(2..4, first.pts_of(120), first.pts_of(240)),
            second.part(0..3, second.pts_of(900), second.pts_of(1001)),
        ];
        let made = make(parts, way, &dir.0).await.unwrap();
        assert!(!made.encoded);
        let seen = watch(&made.file, &[]);
        assert_eq!(seen.numbers(), [range(120, 240), range(900, 1001)].concat());
        assert_even(&seen);
        let sync = seen.worst_sync() * 1000.0;
        println!("two epochs, {way:?}: sync {sync:.1} ms");
        assert!(sync.abs() <= 40.0, "{sync}");
    }
}

#[tokio::test]
async fn the_wrap_of_the_time_stamps_is_not_seen() {
    // 2^33 ticks are 95443.7 s
    let kind = Kind { offset_seconds: 95_438, seconds: 12, ..TWO_SECONDS };
    let recording = Recording::make(kind);
    let raw: Vec<_> = recording.segments.iter().map(|segment| segment.1.pts_first).collect();
    assert!(raw.windows(2).any(|pair| pair[1] < pair[0]), "the material does not wrap: {raw:?}");
    let dir = Scratch::new();
    for (way, first) in [(NATIVE, 60), (FFMPEG, 60), (EXACT, 77)] {
        let part = recording.part(0..6, recording.pts_of(77), recording.pts_of(333));
        let made = make(vec![part], way, &dir.0).await.unwrap();
        let seen = watch(&made.file, &[]);
        assert_eq!(seen.numbers(), range(first, 333));
        assert_even(&seen);
        assert!(seen.worst_sync().abs() <= 0.04, "{}", seen.worst_sync());
    }
}

#[tokio::test]
async fn where_a_part_has_no_sound_there_is_silence() {
    let silent =
        Recording::make(Kind { audio: false, seconds: 6, first_number: 600, ..TWO_SECONDS });
    let loud = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    for way in WAYS {
        for silent_first in [true, false] {
            let mut parts = vec![
                silent.part(0..2, silent.pts_of(600), silent.pts_of(720)),
                loud.part(1..4, loud.pts_of(60), loud.pts_of(230)),
            ];
            if !silent_first {
                parts.reverse();
            }
            let made = make(parts, way, &dir.0).await.unwrap();
            assert_eq!(made.facts.audio_codec.as_deref(), Some("aac"));
            let seen = watch(&made.file, &[]);
            let loud: Vec<_> = seen.pictures.iter().filter(|(number, _)| *number < 600).collect();
            let beeps = loud.iter().filter(|(number, _)| number % 30 == 0).count();
            assert_eq!(seen.beeps.len(), beeps, "{:?}", seen.beeps);
            for (_, time) in loud.iter().filter(|(number, _)| number % 30 == 0) {
                let off = seen.beeps.iter().map(|beep| (beep - time).abs()).fold(9.0, f64::min);
                assert!(off <= 0.04, "{way:?}: {off}, {:?}", seen.beeps);
            }
            let length = made.facts.duration_us as f64 / 1e6;
            assert!((seen.sound_seconds - length).abs() < 0.05, "{length} {}", seen.sound_seconds);
        }
    }
}

#[tokio::test]
async fn a_window_without_a_picture_is_refused_and_an_empty_part_is_left_out() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let end = recording.pts_of(480);
    let late = recording.part(0..8, end + FRAME * 10, end + FRAME * 40);
    let refused = make(vec![late.clone()], EXACT, &dir.0).await.unwrap_err();
    assert_eq!(refused.code(), Code::NoUsableSegments);
    let good = recording.part(0..1, recording.pts_of(0), recording.pts_of(30));
    let made = make(vec![late, good], EXACT, &dir.0).await.unwrap();
    assert_eq!(made.parts.len(), 1);
    assert_eq!(made.parts[0].part, 1);
}
