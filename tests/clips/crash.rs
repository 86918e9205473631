//! The process dies at a named place, for real, and the next one finds what it left.

use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::Command, time::Duration};

use livekit_replay::{
    access::Caller,
    domain::{id::UserId, window::WindowRequest},
    flow::{
        capture::{self, Clip, GapPolicy},
        clip_files::ClipFiles,
        crash, erase, library, reap,
    },
    store::{Page, audit, clip, job, quota},
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
    let (bench, clip) = one_clip(PathBuf::from(dir)).await;
    library::delete(&bench.deps, &bench.caller(USER), &clip.id).await.unwrap();
}

/// The process that dies while it erases its user. Run by [`die_as`] alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_erases() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (bench, _) = one_clip(PathBuf::from(dir)).await;
    erase::erase(&bench.deps, &root(&bench), &UserId::new(USER), false).await.unwrap();
}

fn root(bench: &Bench) -> Caller {
    Caller { roles: vec!["instance_admin".to_owned()], ..bench.caller("root") }
}

/// A clip of the user's that is ready.
async fn one_clip(dir: PathBuf) -> (Bench, Clip) {
    let mut bench = Bench::in_dir(dir).await;
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
        held: None,
        request_id: None,
        share: None,
    };
    let caller = bench.caller(USER);
    let clip = capture::capture(&bench.deps, &caller, request, bench.now()).await.unwrap().clip;
    bench.run_jobs();
    capture::settled(&bench.deps, &clip.id, Duration::from_secs(60)).await.unwrap();
    (bench, clip)
}

/// Runs the child until it dies at `point`, then starts again on what it left.
async fn die_at(point: &str) -> Bench {
    die_as("crash::child", point).await
}

/// The same with another child.
async fn die_as(child: &'static str, point: &str) -> Bench {
    let name = format!("lkr-crash-{}", uuid::Uuid::new_v4().simple());
    let dir = std::env::temp_dir().join(name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", child, "--nocapture"]);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_died_half_way_is_completed_by_another() {
    for point in [
        "between-tombstone-and-commit",
        "between-condemn-and-unlink",
        "erase-after-clips",
        "erase-after-sessions",
        "erase-after-rows",
        "erase-before-forgetting",
    ] {
        let bench = die_as("crash::child_erases", point).await;
        let (deps, user) = (&bench.deps, UserId::new(USER));
        // the upkeep of the next process brings back at most what was not deleted yet
        reap::run(deps, true, false).await.unwrap();
        assert_eq!(only_clip(&bench).await.is_some(), point == "between-tombstone-and-commit");
        let done = erase::erase(deps, &root(&bench), &user, false).await;
        let done = done.unwrap_or_else(|error| panic!("{point}: {error} {:?}", error.fields()));
        assert!(done.verified, "{point}: {done:?}");
        assert!(quota::find(deps.db.conn(), &user).await.unwrap().is_none(), "{point}");
        let key = livekit_replay::domain::keys::user_key(&user);
        assert!(!deps.config.storage.clips.join(&key).exists(), "{point}");
        let rooms = deps.config.storage.buffer.join(deps.instance.as_str());
        assert_eq!(std::fs::read_dir(rooms).unwrap().count(), 0, "{point}");
        assert_eq!(audit::find_pseudonym(deps.db.conn(), &user).await.unwrap(), None, "{point}");
        let page = Page { limit: 10, offset: 0 };
        let lines = audit::list(deps.db.conn(), &audit::Filter::default(), page).await.unwrap().0;
        let lines: Vec<_> = lines.iter().map(|line| line.action.as_str()).collect();
        assert_eq!(lines, ["user.erased", "user.erase", "user.erase"], "{point}");
        let one = lines_of_one_person(deps).await;
        assert!(one, "{point}: both attempts stand under one name");
        bench.close().await;
    }
}

async fn lines_of_one_person(deps: &livekit_replay::flow::Deps) -> bool {
    let page = Page { limit: 10, offset: 0 };
    let lines = audit::list(deps.db.conn(), &audit::Filter::default(), page).await.unwrap().0;
    lines.windows(2).all(|two| two[0].subject == two[1].subject && two[0].subject.is_some())
}
