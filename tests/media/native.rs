//! What holds of our own muxer beyond what holds of both.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use livekit_replay::{
    config::Muxer,
    error::Code,
    media::{
        compose::{CutPart, SegmentFile},
        cut::cut,
        ts::{demux, inspect, unwrap_pts},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    COPIES, FFMPEG, NATIVE, Way, ffmpeg, make,
    material::{Kind, Recording, Scratch, TWO_SECONDS},
    request,
};

/// All units of an Annex B stream that are pictures or messages about them.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let begins = |at: &usize| stream[*at..].starts_with(&[0, 0, 1]);
    let starts: Vec<_> = (0..stream.len()).filter(begins).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let mut units = Vec::new();
    for (start, end) in starts.iter().zip(ends) {
        let mut unit = &stream[start + 3..end];
        while let [rest @ .., 0] = unit {
            unit = rest;
        }
        if matches!(unit[0] & 31, 1 | 5 | 6) {
            units.push(unit);
        }
    }
    units
}

#[tokio::test]
async fn every_picture_is_kept_byte_for_byte() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let part = recording.part(1..5, recording.pts_of(60), recording.pts_of(300));
    let paths: Vec<_> = part.segments.iter().map(|segment| segment.path.clone()).collect();
    let made = make(vec![part], NATIVE, &dir.0).await.unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-i"]).arg(&made.file);
    command.args(["-map", "0:v", "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-f", "h264", "-"]);
    let stream = command.output().unwrap().stdout;
    let mut source = Vec::new();
    for path in paths {
        for unit in demux(&fs::read(path).unwrap()).unwrap().video {
            source.extend_from_slice(&unit.data);
        }
    }
    let (ours, theirs) = (units(&stream), units(&source));
    assert!(ours.len() >= 240, "{}", ours.len());
    assert_eq!(ours.len(), theirs.len());
    assert!(ours == theirs, "a unit differs");
}

/// FFmpeg reads and decodes the whole file, with its edit lists and without, and has nothing to say.
fn assert_clean(file: &Path) {
    for options in [&[][..], &["-ignore_editlist", "1"]] {
        for codec in [&["-c", "copy"][..], &[]] {
            let mut command = Command::new("ffmpeg");
            command.args(["-hide_banner", "-nostats", "-v", "warning"]).args(options);
            command.arg("-i").arg(file).args(["-map", "0"]).args(codec);
            let out = command.args(["-f", "null", "-"]).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() && said.is_empty(), "{options:?} {codec:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_decoder_has_nothing_to_say_about_a_clip() {
    let loud = Recording::make(TWO_SECONDS);
    let silent =
        Recording::make(Kind { audio: false, seconds: 6, first_number: 600, ..TWO_SECONDS });
    let dir = Scratch::new();
    let cases: [Vec<CutPart>; 4] = [
        vec![loud.part(0..8, loud.pts_of(7), loud.pts_of(470))],
        vec![silent.part(0..3, silent.pts_of(600), silent.pts_of(771))],
        // a gap, and an end between reference pictures
        vec![
            loud.part(0..2, loud.pts_of(0), loud.pts_of(73)),
            loud.part(3..6, loud.pts_of(180), loud.pts_of(305)),
        ],
        vec![
            silent.part(0..2, silent.pts_of(600), silent.pts_of(720)),
            loud.part(1..4, loud.pts_of(60), loud.pts_of(230)),
        ],
    ];
    for parts in cases {
        let made = make(parts, NATIVE, &dir.0).await.unwrap();
        assert_clean(&made.file);
    }
}

#[tokio::test]
async fn both_muxers_store_and_show_the_same() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    // the parts meet at the end of a group: where they do not, FFmpeg alone cannot take the pictures apart
    let parts = vec![
        recording.part(0..2, recording.pts_of(10), recording.pts_of(120)),
        recording.part(4..7, recording.pts_of(250), recording.pts_of(377)),
    ];
    let mut packets = Vec::new();
    for way in COPIES {
        let made = make(parts.clone(), way, &dir.0).await.unwrap();
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-show_entries", "packet=stream_index,pts_time,flags"]);
        let out = command.args(["-of", "csv=p=0"]).arg(&made.file).output().unwrap();
        let mut lines: Vec<_> =
            String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        packets.push((made.facts.frames, made.facts.duration_us, made.parts, lines));
    }
    assert!(packets[0].3.len() > 400);
    assert_eq!(packets[0], packets[1]);
}

/// Two seconds of interlaced pictures.
fn interlaced(dir: &Path) -> CutPart {
    let path = dir.join("interlaced.ts");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30", "-t", "2"]);
    command.args(["-c:v", "libx264", "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme"]);
    command.args(["-x264-params", "tff=1", "-f", "mpegts"]).arg(&path);
    assert!(command.status().unwrap().success());
    let facts = inspect(&fs::read(&path).unwrap()).unwrap();
    let start = unwrap_pts(facts.pts_first, facts.pts_first);
    let segments = vec![SegmentFile { path, pts_start_unwrapped: start, checksum: None }];
    CutPart { segments, from_pts: start, to_pts: start + 180_000 }
}

#[tokio::test]
async fn what_our_muxer_will_not_take_ffmpeg_does() {
    let (source, dir) = (Scratch::new(), Scratch::new());
    let part = interlaced(&source.0);
    let refused = make(vec![part.clone()], NATIVE, &dir.0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FfmpegFailed);
    assert!(refused.chain().contains("interlaced"), "{}", refused.chain());
    assert_eq!(dir.files(), 0);
    let auto = Way { muxer: Muxer::Auto, ..NATIVE };
    let made = make(vec![part.clone()], auto, &dir.0).await.unwrap();
    let theirs = make(vec![part], FFMPEG, &dir.0).await.unwrap();
    assert!(!made.encoded);
    assert_eq!(made.facts, theirs.facts);
}

/// A file that never answers, as on a file system that hangs.
fn never(dir: &Path) -> PathBuf {
    let path = dir.join("never.ts");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Answers at last, so that the thread that waits for it can end.
fn answer(path: &Path) {
    drop(fs::OpenOptions::new().write(true).open(path).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_hangs_does_not_keep_its_owner() {
    let recording = Recording::make(TWO_SECONDS);
    for way in COPIES {
        let (dir, segments) = (Scratch::new(), Scratch::new());
        let mut part = recording.part(0..4, recording.pts_of(0), recording.pts_of(230));
        part.segments[2].path = never(&segments.0);
        let mut wanted = request(vec![part.clone()], way, &dir.0);
        wanted.stall = Duration::from_millis(300);
        wanted.deadline = Duration::from_secs(3);
        let error = cut(&ffmpeg(), wanted).await.unwrap_err();
        assert_eq!(error.code(), Code::FfmpegFailed);
        assert!(error.chain().contains("no progress"), "{}", error.chain());
        assert_eq!(dir.files(), 0);
        answer(&part.segments[2].path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_cancelled_leaves_no_file() {
    let recording = Recording::make(TWO_SECONDS);
    for way in COPIES {
        let (dir, segments) = (Scratch::new(), Scratch::new());
        let mut part = recording.part(0..4, recording.pts_of(0), recording.pts_of(230));
        let held = never(&segments.0);
        part.segments[2].path.clone_from(&held);
        let cancel = CancellationToken::new();
        let mut wanted = request(vec![part], way, &dir.0);
        wanted.cancel = cancel.clone();
        let work = tokio::spawn(async move { cut(&ffmpeg(), wanted).await });
        if way == NATIVE {
            while dir.files() == 0 && !work.is_finished() {
                tokio::task::yield_now().await;
            }
        }
        cancel.cancel();
        let error = work.await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
        assert_eq!(dir.files(), 0);
        if way == NATIVE {
            answer(&held);
        }
    }
}
