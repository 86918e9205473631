//! What cannot be removed stays, and keeps nothing else from being removed.

use std::{path::PathBuf, process::Command, time::Duration};

use livekit_replay::{
    domain::lifecycle::ClipStatus,
    flow::{cleanup, reap},
    store::{clip, segment},
};

use crate::{
    bench::{Bench, Recorded},
    keeping::ready_clip,
};

/// A directory out of which nothing can be removed, by nobody: an immutable one, as far as the file system knows that.
struct Stuck(PathBuf);

impl Stuck {
    fn make(path: PathBuf) -> Option<Stuck> {
        if chattr("+i", &path) {
            return Some(Stuck(path));
        }
        println!("SKIPPED: nothing can be made immutable here");
        None
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(change: &str, path: &std::path::Path) -> bool {
    Command::new("chattr").arg(change).arg(path).output().is_ok_and(|done| done.status.success())
}

/// Segments one after the other, all of them indexed.
async fn recorded<'a>(bench: &'a Bench, user: &str, segments: u64) -> Recorded<'a> {
    let session = bench.session(user, "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    for number in 0..segments {
        session.record(number);
        bench.pass_seconds(2);
        session.index().await;
    }
    assert_eq!(session.segments().await.len() as u64, segments);
    session
}

/// Egress makes a directory again that was removed, as somebody else: the reaper cannot take it away, and goes on.
pub async fn a_directory_that_cannot_be_removed_holds_up_nothing(bench: Bench) {
    let first = recorded(&bench, "anna", 2).await;
    let second = recorded(&bench, "bert", 2).await;
    let third = recorded(&bench, "cora", 2).await;
    for session in [&first, &second, &third] {
        session.end(600).await;
    }
    let failed = clip::Model {
        status: ClipStatus::Failed,
        error_code: Some("ffmpeg_failed".to_owned()),
        ..ready_clip("anna", &first, bench.now(), 0)
    };
    clip::insert(bench.deps.db.conn(), failed.clone()).await.expect("a row");
    bench.pass_seconds(8 * 86_400);
    let Some(stuck) = Stuck::make(second.directory.clone()) else { return bench.close().await };
    let counts = reap::run(&bench.deps, true, false).await.expect("the rest is done");
    assert_eq!(
        (counts.buffers_removed, counts.failed),
        (2, 2),
        "as a buffer, and without an owner"
    );
    assert_eq!(counts.failed_clips, 1, "the clip store has its turn");
    assert!(!first.directory.exists() && second.path(0).exists() && !third.directory.exists());
    let again = reap::run(&bench.deps, true, false).await.expect("the rest is done");
    assert_eq!(again, reap::Counts { failed: 1, ..reap::Counts::default() }, "said each time");
    drop(stuck);
    let counts = reap::run(&bench.deps, true, false).await.expect("reaped");
    assert_eq!((counts.orphan_directories, counts.failed), (1, 0));
    assert!(!second.directory.exists());
    bench.close().await;
}

/// More segments that stay than are looked at in one go.
pub async fn segments_that_cannot_be_removed_hold_up_no_others(bench: Bench) {
    let first = recorded(&bench, "anna", 140).await;
    let second = recorded(&bench, "bert", 3).await;
    bench.pass_seconds(7200);
    let Some(stuck) = Stuck::make(first.directory.clone()) else { return bench.close().await };
    let period = Duration::from_secs(300);
    let counts = cleanup::run(&bench.deps, period, false).await.expect("the rest is done");
    assert_eq!((counts.condemned, counts.failed_files, counts.deleted_files), (143, 140, 3));
    assert!(first.path(0).exists() && !second.path(0).exists());
    assert_eq!(segment::list_condemned(bench.deps.db.conn(), 0, 200).await.unwrap().len(), 140);
    drop(stuck);
    let counts = cleanup::run(&bench.deps, period, false).await.expect("cleaned");
    assert_eq!((counts.failed_files, counts.deleted_files), (0, 140));
    bench.close().await;
}
