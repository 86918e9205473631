//! The process dies at a named place, for real, and the next one finds what it left.

use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::Command, time::Duration};

use livekit_replay::{
    domain::{id::UserId, window::WindowRequest},
    flow::{
        capture::{self, Clip, GapPolicy},
        clip_files::ClipFiles,
        crash, library,
    },
    store::{Page, clip, job},
};

use crate::bench::{Bench, RECORDED};

/// Tells the child where to work.
const DIR: &str = "LKR_CRASH_TEST_DIR";
const USER: &str = "zed";
/// SIGABRT.
const ABORTED: i32 = 6;

/// The process that dies. Run by [`die_at`] alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut bench = Bench::in_dir(PathBuf::from(dir)).await;
    let session = bench.session(USER, 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let request = capture::Request {
        session_id: session.id.clone(),
        window: WindowRequest {
            from: Some(session.began.plus_seconds(2)),
            to: Some(session.began.plus_seconds(6)),
            ..WindowRequest::default()
        },
        gap_policy: GapPolicy::Skip,
        title: None,
        visibility: None,
        claim: None,
        request_id: None,
        share: None,
    };
    let caller = bench.caller(USER);
    let clip = capture::capture(&bench.deps, &caller, request, bench.now()).await.unwrap().clip;
    bench.run_jobs();
    capture::settled(&bench.deps, &clip.id, Duration::from_secs(60)).await.unwrap();
    library::delete(&bench.deps, &caller, &clip.id).await.unwrap();
}

/// Runs the child until it dies at `point`, then starts again on what it left.
async fn die_at(point: &str) -> Bench {
    let name = format!("lkr-crash-{}", uuid::Uuid::new_v4().simple());
    let dir = std::env::temp_dir().join(name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child", "--nocapture"]);
    command.env(crash::VARIABLE, point).env(DIR, &dir);
    let died = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&died.stderr).into_owned();
    assert_eq!(died.status.signal(), Some(ABORTED), "{point}: {said}");
    Bench::in_dir(dir).await
}

async fn only_clip(bench: &Bench) -> Option<Clip> {
    let filter = clip::Filter { user_id: Some(UserId::new(USER)), ..clip::Filter::default() };
    let page = Page { limit: 10, offset: 0 };
    let (clips, total) = clip::list(bench.deps.db.conn(), &filter, page).await.unwrap();
    assert!(total <= 1);
    clips.into_iter().next()
}

async fn ends_ready_after_a_crash_at(point: &str) {
    let mut bench = die_at(point).await;
    let left = only_clip(&bench).await.expect("what was accepted is kept");
    assert_eq!(left.status.as_str(), "processing");
    assert!(bench.account(USER).await.reserved_bytes > 0);
    bench.run_jobs();
    let done = capture::settled(&bench.deps, &left.id, Duration::from_secs(60)).await.unwrap();
    let done = done.expect("still there");
    assert_eq!(done.status.as_str(), "ready", "{point}: {:?}", done.error_detail);
    let files = ClipFiles::of(&bench.deps, &done.user_id, &done.id).unwrap();
    let bytes = std::fs::read(&files.video).unwrap();
    assert_eq!(done.checksum, Some(format!("blake3:{}", blake3::hash(&bytes).to_hex())));
    let account = bench.account(USER).await;
    assert_eq!((account.used_bytes, account.reserved_bytes), (done.size_bytes, 0));
    bench.assert_accounts_are_true().await;
    assert_eq!(job::count_open(bench.deps.db.conn()).await.unwrap(), 0);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_right_after_acceptance_loses_no_capture() {
    ends_ready_after_a_crash_at("after-accept-commit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_muxing_loses_no_capture() {
    ends_ready_after_a_crash_at("during-mux").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_inside_the_settling_transaction_loses_no_capture() {
    ends_ready_after_a_crash_at("during-settle").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_rename_and_commit_is_repaired_by_the_next_attempt() {
    ends_ready_after_a_crash_at("between-rename-and-commit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_inside_a_deletion_before_its_commit_leaves_the_clip() {
    let bench = die_at("between-tombstone-and-commit").await;
    let left = only_clip(&bench).await.expect("not deleted");
    let files = ClipFiles::of(&bench.deps, &left.user_id, &left.id).unwrap();
    assert!(files.video.exists() && files.tombstone.exists() && !files.record.exists());
    library::finish_deletion(&bench.deps, &left.user_id, &left.id).await.unwrap();
    assert!(files.video.exists() && !files.tombstone.exists() && files.record.exists());
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_a_deletions_commit_and_its_unlinking_brings_nothing_back() {
    let bench = die_at("between-condemn-and-unlink").await;
    assert!(only_clip(&bench).await.is_none());
    let user = UserId::new(USER);
    let dir = bench.deps.config.storage.clips.join(livekit_replay::domain::keys::user_key(&user));
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    // no record: nothing here can give the clip its row back
    assert!(names().iter().all(|name| !name.ends_with(".json")), "{:?}", names());
    let tombstone = names().into_iter().find(|name| name.ends_with(".deleted")).unwrap();
    let id = tombstone.trim_end_matches(".deleted");
    let id = livekit_replay::domain::id::ClipId::new(id);
    library::finish_deletion(&bench.deps, &user, &id).await.unwrap();
    assert!(names().is_empty(), "{:?}", names());
    assert_eq!(bench.account(USER).await.used_bytes, 0);
    bench.close().await;
}
