//! FFmpeg never outlives its purpose.

use std::{fs, time::Duration};

use ffmpeg_sidecar::command::FfmpegCommand;
use livekit_replay::{
    error::Code,
    media::{
        cut::cut,
        ffmpeg::{Ffmpeg, Limits},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    COPIES, EXACT, ffmpeg, limits, make,
    material::{Kind, Recording, Scratch, TWO_SECONDS, processes_naming},
    request,
};

/// Waits for a pipe that never speaks, and for a copy of its output to be written.
fn waiting(out: &std::path::Path) -> FfmpegCommand {
    let mut command = FfmpegCommand::new_with_path("ffmpeg");
    command.args(["-progress", "pipe:1", "-f", "mpegts"]).input("pipe:0");
    command.args(["-c", "copy", "-f", "mp4"]).overwrite().arg(out);
    command
}

#[tokio::test]
async fn a_run_without_progress_is_ended_and_leaves_no_process() {
    let dir = Scratch::new();
    let out = dir.0.join("never.mp4");
    let (held, feed) = mpsc::channel(1);
    let limits = Limits { stall: Duration::from_millis(300), ..limits() };
    let error = ffmpeg().run(&mut waiting(&out), Some(feed), &limits).await.unwrap_err();
    assert_eq!(error.code(), Code::FfmpegFailed);
    assert!(error.chain().contains("no progress"), "{}", error.chain());
    assert!(!error.detail().contains("never.mp4"));
    assert_eq!(processes_naming(out.to_str().unwrap()), Vec::<String>::new());
    drop(held);
}

#[tokio::test]
async fn a_run_over_its_deadline_is_ended_and_leaves_no_process() {
    let dir = Scratch::new();
    let out = dir.0.join("never.mp4");
    let (held, feed) = mpsc::channel(1);
    let limits = Limits { deadline: Duration::from_millis(300), ..limits() };
    let error = ffmpeg().run(&mut waiting(&out), Some(feed), &limits).await.unwrap_err();
    assert!(error.chain().contains("no end within"), "{}", error.chain());
    assert_eq!(processes_naming(out.to_str().unwrap()), Vec::<String>::new());
    drop(held);
}

#[tokio::test]
async fn a_dropped_run_leaves_no_process() {
    let dir = Scratch::new();
    let out = dir.0.join("never.mp4");
    let name = out.to_str().unwrap().to_owned();
    let (held, feed) = mpsc::channel(1);
    let run = tokio::spawn(async move {
        let _ = ffmpeg().run(&mut waiting(&out), Some(feed), &limits()).await;
    });
    while processes_naming(&name).is_empty() {
        tokio::task::yield_now().await;
    }
    run.abort();
    let _ = run.await;
    while !processes_naming(&name).is_empty() {
        tokio::task::yield_now().await;
    }
    drop(held);
}

/// Niceness of every thread of a process, as the kernel tells it.
fn niceness(pid: &str) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let told = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("stat")).ok()?;
        // behind the program's name: state is the first field, niceness the seventeenth
        text.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
    });
    told.collect()
}

#[tokio::test]
async fn a_run_makes_way_for_others_with_all_its_threads() {
    let dir = Scratch::new();
    let out = dir.0.join("slow.mp4");
    let name = out.to_str().unwrap().to_owned();
    let mut command = FfmpegCommand::new_with_path("ffmpeg");
    // as fast as it is shown, so that it is still at work when it is looked at
    command.args(["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:duration=60"]);
    command.args(["-c:v", "libx264", "-threads", "3", "-f", "mp4"]).overwrite().arg(&out);
    let run = tokio::spawn(async move {
        let _ = ffmpeg().run(&mut command, None, &limits()).await;
    });
    // these tests may run with a low priority themselves
    let due = niceness("self").into_iter().max().unwrap().max(10);
    let all_low = async {
        loop {
            let found =
                processes_naming(&name).iter().flat_map(|pid| niceness(pid)).collect::<Vec<_>>();
            if found.len() > 2 && found.iter().all(|nice| *nice == due) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), all_low).await.expect("all are low");
    run.abort();
    let _ = run.await;
}

#[tokio::test]
async fn the_last_words_are_kept_for_the_log_and_not_for_the_caller() {
    let mut command = FfmpegCommand::new_with_path("ffmpeg");
    command.args(["-nostdin", "-i", "/nonexistent/secret-name.ts", "-f", "null", "-"]);
    let error = ffmpeg().run(&mut command, None, &limits()).await.unwrap_err();
    assert!(error.chain().contains("No such file"), "{}", error.chain());
    assert!(!error.to_string().contains("secret-name"));
    let missing = Ffmpeg::new("/nonexistent/ffmpeg").check(&limits()).await.unwrap_err();
    assert_eq!(missing.code(), Code::FfmpegFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_cut_leaves_neither_file_nor_process() {
    let recording = Recording::make(Kind { segment_seconds: 10, seconds: 30, ..TWO_SECONDS });
    let dir = Scratch::new();
    let name = dir.0.to_str().unwrap().to_owned();
    let cancel = CancellationToken::new();
    let part = recording.part(0..3, recording.pts_of(0), recording.pts_of(900));
    let mut wanted = request(vec![part], EXACT, &dir.0);
    wanted.cancel = cancel.clone();
    let work = tokio::spawn(async move { cut(&ffmpeg(), wanted).await });
    while dir.files() == 0 && !work.is_finished() {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let error = work.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    assert_eq!(dir.files(), 0);
    assert_eq!(processes_naming(&name), Vec::<String>::new());
}

#[tokio::test]
async fn a_segment_that_vanishes_or_breaks_ends_the_cut_with_a_reason_and_without_a_file() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    for way in COPIES {
        let segments = Scratch::new();
        let mut part = recording.part(0..4, recording.pts_of(0), recording.pts_of(230));
        part.segments[1].path = segments.0.join("gone.ts");
        let error = make(vec![part.clone()], way, &dir.0).await.unwrap_err();
        assert_eq!(error.code(), Code::StorageUnavailable);
        assert!(error.is_retryable());
        let mut bytes = fs::read(&recording.segments[1].0).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(&part.segments[1].path, bytes).unwrap();
        let error = make(vec![part], way, &dir.0).await.unwrap_err();
        assert_eq!(error.code(), Code::NoUsableSegments);
        assert_eq!(dir.files(), 0);
    }
}
