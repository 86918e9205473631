//! What cannot be removed stays, and keeps nothing else from being removed.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use livekit_replay::{
    access::Caller,
    domain::{id::UserId, lifecycle::ClipStatus, time::Timestamp},
    flow::{
        Deps, cleanup,
        clip_files::{self, ClipFiles},
        library, reap,
        upkeep::{self, Job},
    },
    store::{self, clip, segment},
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Recorded},
    keeping::{ready_clip, touch},
};

/// A file that nobody can remove, or a directory out of which nobody can: immutable, as far as the file system knows that.
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

fn caller(user: &str, now: Timestamp) -> Caller {
    Caller {
        user_id: UserId::new(user),
        name: None,
        issued_at: Some(now),
        communities: BTreeMap::new(),
        roles: Vec::new(),
        origin: Default::default(),
    }
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
    for session in [&first, &second] {
        session.end(600).await;
    }
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

/// The store is walked through every ten minutes, and earlier where somebody left something.
pub async fn what_a_deletion_could_not_remove_is_taken_by_the_next_pass(bench: Bench) {
    let session = bench.session("anna", "room").await;
    let clips = [0, 1].map(|_| ready_clip("anna", &session, bench.now(), 8));
    let files = clips
        .each_ref()
        .map(|clip| ClipFiles::of(&bench.deps, &clip.user_id, &clip.id).expect("an id of ours"));
    for (clip, files) in clips.iter().zip(&files) {
        touch(&files.video);
        clip_files::write_record(&bench.deps, clip).await.expect("a record");
    }
    assert_eq!(reaped(&bench).await["clipsRestored"], 2, "the first pass of a process walks");
    first_walks(&bench.deps).await;
    let [immovable, entombed] = &files;
    assert!(entombed.entomb().await.expect("entombed"));
    let tx = bench.deps.db.begin().await.expect("a transaction");
    clip::delete_if(&tx, &clips[1].id, &[ClipStatus::Ready]).await.expect("gone");
    store::commit(tx).await.expect("committed");
    assert_eq!(reaped(&bench).await["deletionsFinished"], 0, "nobody asked for a walk");
    let Some(stuck) = Stuck::make(immovable.video.clone()) else { return bench.close().await };
    library::delete(&bench.deps, &caller("anna", bench.now()), &clips[0].id)
        .await
        .expect("deleted");
    assert!(immovable.video.exists() && immovable.tombstone.exists());
    drop(stuck);
    assert_eq!(reaped(&bench).await["deletionsFinished"], 2, "both, by the way");
    assert!(!immovable.video.exists() && !immovable.tombstone.exists() && !entombed.video.exists());
    bench.close().await;
}

/// However often it was tried: a walk that was not whole is followed by another.
pub async fn what_a_walk_had_to_pass_over_the_next_pass_takes(bench: Bench) {
    let session = bench.session("anna", "room").await;
    let clip = ready_clip("anna", &session, bench.now(), 8);
    let files = ClipFiles::of(&bench.deps, &clip.user_id, &clip.id).expect("an id of ours");
    touch(&files.video);
    clip_files::write_record(&bench.deps, &clip).await.expect("a record");
    // its row went, and its process died
    assert!(files.entomb().await.expect("entombed"));
    let Some(stuck) = Stuck::make(files.video.clone()) else { return bench.close().await };
    for _ in 0..4 {
        assert_eq!(reaped(&bench).await["failed"], 1, "it walked, and passed it over");
    }
    drop(stuck);
    assert_eq!(reaped(&bench).await["deletionsFinished"], 1);
    assert!(!files.video.exists() && !files.tombstone.exists() && !bench.deps.walks.is_due());
    bench.close().await;
}

/// What a process left it takes itself, also where another one runs every tick.
pub async fn what_a_deletion_left_is_taken_whoever_runs_the_tick(bench: Bench) {
    let session = bench.session("anna", "room").await;
    let clip = ready_clip("anna", &session, bench.now(), 8);
    let files = ClipFiles::of(&bench.deps, &clip.user_id, &clip.id).expect("an id of ours");
    touch(&files.video);
    clip_files::write_record(&bench.deps, &clip).await.expect("a record");
    assert_eq!(reaped(&bench).await["clipsRestored"], 1);
    first_walks(&bench.deps).await;
    let Some(stuck) = Stuck::make(files.video.clone()) else { return bench.close().await };
    library::delete(&bench.deps, &caller("anna", bench.now()), &clip.id).await.expect("deleted");
    drop(stuck);
    let other = bench.replica("two");
    first_walks(&other).await;
    touch(&files.video);
    clip_files::write_record(&bench.deps, &clip).await.expect("as it was left");
    assert!(files.entomb().await.expect("entombed"));
    next_minute(&bench);
    upkeep::run_tick(&other, Job::OrphanReaper).await.expect("asked").expect("it is the first");
    assert!(files.tombstone.exists(), "the other knows of nothing");
    let ours = upkeep::run_tick(&bench.deps, Job::OrphanReaper).await.expect("asked");
    assert!(ours.is_none(), "the other had the tick");
    assert!(!files.video.exists() && !files.tombstone.exists());
    bench.close().await;
}

/// A week after it failed a clip goes, by the same way.
pub async fn what_a_failed_clip_could_not_take_along_is_taken_by_the_next_pass(bench: Bench) {
    let session = bench.session("anna", "room").await;
    let ready = ready_clip("anna", &session, bench.now(), 0);
    let failed = clip::Model {
        status: ClipStatus::Failed,
        error_code: Some("ffmpeg_failed".to_owned()),
        ..ready.clone()
    };
    first_walks(&bench.deps).await;
    clip::insert(bench.deps.db.conn(), failed.clone()).await.expect("a row");
    let files = ClipFiles::of(&bench.deps, &failed.user_id, &failed.id).expect("an id of ours");
    touch(&files.poster);
    clip_files::write_record(&bench.deps, &ready).await.expect("a record without its video");
    bench.pass_seconds(8 * 86_400);
    let Some(stuck) = Stuck::make(files.poster.clone()) else { return bench.close().await };
    let counts = reaped(&bench).await;
    assert_eq!((&counts["failedClips"], &counts["failed"]), (&json!(0), &json!(1)), "{counts}");
    assert!(files.tombstone.exists());
    drop(stuck);
    assert_eq!(reaped(&bench).await["deletionsFinished"], 1);
    assert!(!files.poster.exists() && !files.tombstone.exists());
    bench.close().await;
}

/// Those that a process makes whatever the time; from then on it walks where somebody asks for it.
async fn first_walks(deps: &Deps) {
    while deps.walks.is_due() {
        reap::run(deps, true, false).await.expect("reaped");
    }
}

/// The pass of a minute in which the store is not walked through for the time alone; what it counted.
async fn reaped(bench: &Bench) -> Value {
    next_minute(bench);
    let run = upkeep::run_tick(&bench.deps, Job::OrphanReaper).await.expect("asked");
    let run = run.expect("nobody else runs it");
    assert_eq!(run.outcome.as_deref(), Some("ok"), "{:?}", run.counts);
    Value::Object(run.counts)
}

fn next_minute(bench: &Bench) {
    let minute = |bench: &Bench| bench.now().as_micros().div_euclid(60_000_000) % 10;
    bench.pass_seconds(60);
    while minute(bench) < 2 {
        bench.pass_seconds(60);
    }
}
