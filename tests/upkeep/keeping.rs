//! What is deleted, what is kept, and whose.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use livekit_replay::{
    domain::{
        id::{ClipId, RoomName, UserId},
        keys,
        lifecycle::ClipStatus,
        time::{Timestamp, Window},
    },
    error::Code,
    flow::{
        Deps, audit, cleanup,
        clip_files::{self, ClipFiles},
        probe, reap,
        stores::Which,
        sweep,
        upkeep::{self, Job},
    },
    store::{self, clip, pin, quota, segment, session},
};

use crate::bench::{Bench, INSTANCE, Recorded};

const PERIOD: Duration = Duration::from_secs(300);

pub fn ready_clip(user: &str, session: &Recorded<'_>, now: Timestamp, size: i64) -> clip::Model {
    clip::Model {
        id: ClipId::generate(),
        session_id: session.id.clone(),
        user_id: UserId::new(user),
        community_id: None,
        room_name: RoomName::new("room"),
        title: "a title".to_owned(),
        visibility: clip::Visibility::Public,
        status: ClipStatus::Ready,
        error_code: None,
        error_detail: None,
        requested_from: now,
        requested_to: now.plus_seconds(10),
        starts_at: Some(now),
        ends_at: Some(now.plus_seconds(10)),
        duration_us: Some(10_000_000),
        precision: "exact".to_owned(),
        gap_policy: "skip".to_owned(),
        preroll_ms: 0,
        shortfall_ms: 0,
        gaps: "[]".to_owned(),
        size_bytes: size,
        reserved_bytes: 0,
        checksum: None,
        width: Some(128),
        height: Some(72),
        video_codec: Some("h264".to_owned()),
        audio_codec: None,
        has_poster: false,
        cancelled: false,
        link_generation: 0,
        queue_ms: 0,
        wait_ms: 0,
        pin_ms: 0,
        mux_ms: 0,
        finalize_ms: 0,
        request_id: None,
        created_at: now,
        updated_at: now,
        trim_of: None,
        trim_plan: None,
        share_error: None,
        message_id: None,
    }
}

/// Pins a window as a capture does: under the session's lock, and only if all of it is still there.
async fn pin_window(
    deps: &Deps,
    session: &Recorded<'_>,
    clip: &ClipId,
    window: Window,
) -> Vec<PathBuf> {
    let tx = deps.db.begin().await.expect("a transaction");
    assert!(session::lock_for_pins(&tx, &session.id).await.expect("locked"));
    let held = segment::list_touching(&tx, &session.id, window).await.expect("listed");
    pin::insert(&tx, &session.id, clip, window, deps.clock.now()).await.expect("pinned");
    store::commit(tx).await.expect("committed");
    held.iter().map(|row| session.directory.join(&row.file_name)).collect()
}

pub async fn captures_and_cleanup_never_meet_on_a_segment(bench: Bench) {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    let keep = 602 + 300;
    let (mut deleted, mut refused, mut checked) = (0, 0, 0);
    for number in 0..900_u64 {
        session.record(number);
        bench.pass_seconds(2);
        session.index().await;
        if number < 440 || number % 10 != 0 {
            continue;
        }
        // a capture of the oldest minutes that are still promised, or just beyond, races a cleanup
        let clip = ready_clip("anna", &session, bench.now(), 0);
        let clip = clip::Model { status: ClipStatus::Processing, ..clip };
        assert!(clip::insert(bench.deps.db.conn(), clip.clone()).await.expect("a row"));
        let from = bench.now().plus_seconds(-keep - 10 + i64::try_from(number % 30).unwrap());
        let window = Window::new(from, from.plus_seconds(20));
        let (held, cleaned) = futures::join!(
            pin_window(&bench.deps, &session, &clip.id, window),
            cleanup::run(&bench.deps, PERIOD, false)
        );
        let again = {
            bench.pass_seconds(30);
            cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned")
        };
        let cleaned = cleaned.expect("cleaned");
        for path in &held {
            assert!(path.is_file(), "{} was pinned and is gone", path.display());
            checked += 1;
        }
        deleted += cleaned.deleted_files + again.deleted_files;
        refused += cleaned.refused_pinned + again.refused_pinned;
        pin::delete_of_clip(bench.deps.db.conn(), &clip.id).await.expect("unpinned");
        bench.clock.advance_micros(-30_000_000);
    }
    assert!(deleted > 100, "deleted {deleted}");
    assert!(refused > 20, "refused {refused}");
    assert!(checked > 100, "checked {checked}");
    eprintln!(
        "deleted {deleted}, refused because pinned {refused}, pinned files checked {checked}"
    );
    bench.close().await;
}

pub async fn an_hour_of_recording_leaves_the_promise_and_little_more(bench: Bench) {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    for number in 0..1800_u64 {
        session.record(number);
        bench.pass_seconds(2);
        if number % 5 == 4 {
            session.index().await;
        }
        if number % 150 == 149 {
            cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned");
        }
    }
    let files = std::fs::read_dir(&session.directory).unwrap().count();
    // promise + period (which is more than cleanup_minutes here), one period until the next pass, one segment
    let most = (600 + 2 + 300 + 300 + 2) / 2 + 2;
    assert!(files <= most, "{files} of at most {most}");
    // just cleaned: nothing younger than the promise is missing
    let dry = cleanup::run(&bench.deps, PERIOD, true).await.expect("dry");
    assert_eq!(dry.condemned, 0);
    let held = session.segments().await;
    let oldest = held.first().expect("segments").starts_at;
    assert!(oldest <= bench.now().plus_seconds(-600), "the promised minutes are there");
    assert!(held.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "in one piece");
    // every file has its row and the other way round
    assert!(held.iter().all(|row| session.directory.join(&row.file_name).is_file()));
    assert_eq!(held.len() + 1, files, "and the live playlist");
    bench.close().await;
}

/// Where every disk is critically full.
fn on_a_full_disk(bench: &Bench) -> Deps {
    let mut config = (*bench.deps.config).clone();
    config.storage.critical_percent = 0;
    config.jobs.segment_cleanup = "0 0 0 1 1 *".to_owned();
    Deps { config: Arc::new(config), ..bench.deps.clone() }
}

/// More than the ten that are promised, less than ordinary cleanup keeps.
async fn fourteen_minutes(bench: &Bench) -> Recorded<'_> {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    for number in 0..420_u64 {
        session.record(number);
        bench.pass_seconds(2);
    }
    session.index().await;
    session
}

pub async fn a_critically_full_disk_takes_what_is_beyond_the_promise_and_no_pin(bench: Bench) {
    let deps = on_a_full_disk(&bench);
    let session = fourteen_minutes(&bench).await;
    let clip = ready_clip("anna", &session, bench.now(), 0);
    let clip = clip::Model { status: ClipStatus::Processing, ..clip };
    assert!(clip::insert(bench.deps.db.conn(), clip.clone()).await.expect("a row"));
    let oldest = session.screen(0);
    let held =
        pin_window(&deps, &session, &clip.id, Window::new(oldest, oldest.plus_seconds(9))).await;
    assert!(held.len() >= 4, "{held:?}");
    let ordinary = cleanup::run(&bench.deps, PERIOD, false).await.expect("a pass");
    assert_eq!((ordinary.condemned, ordinary.evicted, ordinary.critical), (0, 0, false));

    // the probe finds it so, and cleanup does not wait for its own time
    upkeep::run_tick(&deps, Job::StorageProbe).await.expect("asked").expect("ran");
    let jobs = upkeep::status(&deps).await.expect("listed");
    let cleaned = jobs.into_iter().find(|job| job.name == "segment-cleanup").expect("listed");
    let counts = cleaned.last_run.expect("it ran").counts;
    assert_eq!(counts["critical"], true, "{counts:?}");
    assert_eq!(counts["evicted"], counts["condemned"]);
    assert_eq!(counts["deletedFiles"], counts["condemned"]);
    assert!(counts["refusedPinned"].as_u64() >= Some(4), "{counts:?}");
    assert!(held.iter().all(|file| file.exists()), "a pinned segment went");
    let left = session.segments().await;
    let promised = bench.now().plus_seconds(-600);
    let kept = left.iter().filter(|row| row.ends_at > promised).count();
    assert!((295..=302).contains(&kept), "{kept} of the promised minutes");
    assert!(left.len() <= kept + held.len() + 4, "{} are left", left.len());
    bench.close().await;
}

/// The process was away while the share ended: its row says that it goes on, and its minutes are promised all the same.
pub async fn what_ended_while_nobody_looked_keeps_what_was_promised(bench: Bench) {
    let deps = on_a_full_disk(&bench);
    let session = fourteen_minutes(&bench).await;
    let promised = session.row().await.media_ends_at.expect("media").plus_seconds(-600);
    bench.pass_seconds(1200);
    upkeep::run_tick(&deps, Job::StorageProbe).await.expect("asked").expect("ran");
    cleanup::run(&bench.deps, PERIOD, false).await.expect("a pass");
    let left = session.segments().await;
    let kept = left.iter().filter(|row| row.ends_at > promised).count();
    assert!((299..=302).contains(&kept), "{kept} of the promised minutes");
    bench.close().await;
}

/// LiveKit could not be told to stop for four minutes: what it recorded then is not what its user is promised.
pub async fn what_was_recorded_on_after_a_stop_pushes_out_nothing_promised(bench: Bench) {
    let deps = on_a_full_disk(&bench);
    let session = fourteen_minutes(&bench).await;
    session.end_as_of(bench.now().plus_seconds(-240), 7200).await;
    let counts = cleanup::run(&deps, PERIOD, false).await.expect("a pass");
    assert!(counts.critical);
    assert_eq!((counts.condemned, session.segments().await.len()), (0, 420));
    bench.close().await;
}

pub async fn a_large_sweep_lets_others_write(bench: Bench) {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    for number in 0..1200_u64 {
        session.record(number);
        bench.pass_seconds(2);
    }
    session.index().await;
    let before = session.segments().await.len();
    assert!(before > 600, "{before}");
    session.end(0).await;
    bench.pass_seconds(1);
    let over = tokio_util::sync::CancellationToken::new();
    let writer = async {
        let mut writes = 0;
        while !over.is_cancelled() {
            let tx = bench.deps.db.begin().await.expect("a transaction");
            assert!(session::lock_for_pins(&tx, &session.id).await.expect("locked"));
            store::commit(tx).await.expect("committed");
            writes += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        writes
    };
    let sweep = async {
        let counts = cleanup::run(&bench.deps, PERIOD, false).await.expect("a pass");
        over.cancel();
        counts
    };
    let (counts, writes) = futures::join!(sweep, writer);
    assert_eq!(counts.condemned, before as u64);
    assert_eq!(counts.deleted_files, before as u64);
    println!("{before} segments went, others wrote {writes} times meanwhile");
    // condemned in one go, the session would have been locked from the first to the last
    assert!(writes >= 5, "{writes}");
    bench.close().await;
}

pub async fn a_buffer_goes_when_its_time_is_over_and_nothing_holds_it(bench: Bench) {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    session.record(0);
    session.index().await;
    bench.pass_seconds(60);
    session.end(600).await;
    let run = |dry| reap::run(&bench.deps, false, dry);
    assert_eq!(run(false).await.expect("reaped").buffers_removed, 0, "capturable still");
    let clip = clip::Model {
        status: ClipStatus::Processing,
        ..ready_clip("anna", &session, bench.now(), 0)
    };
    clip::insert(bench.deps.db.conn(), clip.clone()).await.expect("a row");
    let window = Window::new(session.began, session.began.plus_seconds(5));
    pin_window(&bench.deps, &session, &clip.id, window).await;
    bench.pass_seconds(601);
    assert_eq!(run(false).await.expect("reaped").buffers_removed, 0, "a pin holds it");
    cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned");
    assert!(session.path(0).is_file(), "and its segment");
    pin::delete_of_clip(bench.deps.db.conn(), &clip.id).await.expect("unpinned");
    assert_eq!(run(true).await.expect("dry").buffers_removed, 1);
    assert!(session.path(0).is_file(), "a dry run touches nothing");
    assert_eq!(run(false).await.expect("reaped").buffers_removed, 1);
    assert_eq!(std::fs::read_dir(bench.buffer().join(INSTANCE)).unwrap().count(), 0);
    assert!(session.row().await.buffer_gone_at.is_some());
    assert!(session.segments().await.is_empty());
    // egress flushes late and makes the directory again
    std::fs::create_dir_all(&session.directory).unwrap();
    session.write(1);
    bench.pass_seconds(60);
    assert_eq!(run(false).await.expect("reaped").orphan_directories, 1);
    assert_eq!(std::fs::read_dir(bench.buffer().join(INSTANCE)).unwrap().count(), 0);
    assert_eq!(run(false).await.expect("reaped"), reap::Counts::default(), "twice is once");
    // a process died between the removal of a session and that of the levels above it
    let above = session.directory.ancestors().nth(2).unwrap();
    std::fs::create_dir_all(above).unwrap();
    bench.pass_seconds(60);
    assert_eq!(run(true).await.expect("dry"), reap::Counts::default());
    assert!(above.is_dir());
    while bench.buffer().join(INSTANCE).read_dir().unwrap().count() > 0 {
        let left = || walked(&bench.buffer().join(INSTANCE));
        let before = left();
        run(false).await.expect("reaped");
        bench.pass_seconds(60);
        assert!(left() < before, "each pass takes a level");
    }
    bench.close().await;
}

/// Directories below this one.
fn walked(top: &Path) -> usize {
    let below = top.read_dir().unwrap().flatten().filter(|entry| entry.path().is_dir());
    below.map(|entry| 1 + walked(&entry.path())).sum()
}

pub fn touch(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, b"whatever").unwrap();
}

pub async fn nothing_of_others_is_touched(bench: Bench) {
    let session = bench.session("anna", "room").await;
    let id = uuid::Uuid::now_v7();
    let kept = [
        // another instance's session, a stranger's files, names that are not ours under our own id
        bench.buffer().join(format!("99999999/room/user/{id}/1/seg_00000.ts")),
        bench.buffer().join("holiday.mp4"),
        bench.buffer().join(INSTANCE).join("room/user/notes/seg_00000.ts"),
        bench.buffer().join(INSTANCE).join("readme.txt"),
        // our own session in a place we did not give it
        bench.buffer().join(INSTANCE).join(format!("elsewhere/user/{}/seg_00000.ts", session.id)),
        bench.clips().join("music/track.mp4"),
        bench.clips().join("readme.txt"),
        bench.clips().join("quarantine/mine.mp4"),
    ];
    kept.iter().for_each(|path| touch(path));
    let orphan = bench.buffer().join(INSTANCE).join(format!("room/user/{id}/1/seg_00000.ts"));
    touch(&orphan);
    bench.pass_seconds(30 * 86_400);
    let counts = reap::run(&bench.deps, true, false).await.expect("reaped");
    assert_eq!(counts.orphan_directories, 1);
    assert!(!orphan.exists());
    cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned");
    for path in kept {
        assert!(path.is_file(), "{}", path.display());
    }
    assert!(session.directory.is_dir(), "a session that runs");
    // the work directory: only what no job owns, and not what is fresh
    touch(&bench.deps.work_dir().join("no-such-clip-1/part.ts"));
    assert_eq!(sweep::run(&bench.deps, true).await.expect("dry").removed, 1);
    assert_eq!(sweep::run(&bench.deps, false).await.expect("swept").removed, 1);
    assert_eq!(std::fs::read_dir(bench.deps.work_dir()).unwrap().count(), 0);
    bench.close().await;
}

pub async fn the_clip_store_gives_rows_back_and_sets_the_unknown_aside(bench: Bench) {
    let session = bench.session("anna", "room").await;
    let lost = ready_clip("anna", &session, bench.now(), 8);
    let files = ClipFiles::of(&bench.deps, &lost.user_id, &lost.id).unwrap();
    touch(&files.video);
    clip_files::write_record(&bench.deps, &lost).await.expect("a record");
    // a deletion that died after its commit
    let deleted = ready_clip("anna", &session, bench.now(), 8);
    let gone = ClipFiles::of(&bench.deps, &deleted.user_id, &deleted.id).unwrap();
    touch(&gone.video);
    clip_files::write_record(&bench.deps, &deleted).await.expect("a record");
    assert!(gone.entomb().await.expect("entombed"));
    let stray = bench.clips().join(keys::user_key(&UserId::new("anna"))).join("stray.mp4");
    touch(&stray);
    // a copy of a clip that was cut short, with its record
    let short = ready_clip("anna", &session, bench.now(), 9);
    let short = (short.clone(), ClipFiles::of(&bench.deps, &short.user_id, &short.id).unwrap());
    touch(&short.1.video);
    clip_files::write_record(&bench.deps, &short.0).await.expect("a record");
    let dry = reap::clip_store(&bench.deps, true).await.expect("looked at");
    assert_eq!((dry.clips_restored, dry.quarantined), (1, 0), "what is not whole is not restored");
    let counts = reap::run(&bench.deps, true, false).await.expect("reaped");
    assert_eq!((counts.clips_restored, counts.deletions_finished, counts.quarantined), (1, 1, 0));
    let back = clip::load(bench.deps.db.conn(), &lost.id).await.expect("its row");
    assert_eq!((back.visibility, back.status), (clip::Visibility::Private, ClipStatus::Ready));
    assert_eq!(back.title, "a title");
    let user = UserId::new("anna");
    let account = quota::load_or_make(bench.deps.db.conn(), &user, bench.now()).await.unwrap();
    assert_eq!(account.used_bytes, 8);
    assert_eq!(audit::run(&bench.deps, false).await.expect("audited").drifted, 0);
    assert!(!gone.video.exists() && !gone.tombstone.exists());

    bench.pass_seconds(2 * 3600);
    let counts = reap::run(&bench.deps, true, false).await.expect("reaped");
    assert_eq!((counts.clips_restored, counts.quarantined), (0, 3));
    assert!(!stray.exists() && !short.1.video.exists() && !short.1.record.exists());
    assert_eq!(std::fs::read_dir(bench.clips().join("quarantine")).unwrap().count(), 3);
    bench.pass_seconds(7 * 86_400 + 60);
    let counts = reap::run(&bench.deps, true, false).await.expect("reaped");
    assert_eq!(counts.quarantine_emptied, 3);
    assert!(files.video.is_file(), "a clip with its row stays");

    // drift is said and put right
    let tx = bench.deps.db.begin().await.unwrap();
    quota::settle(&tx, &user, 0, 100).await.unwrap();
    store::commit(tx).await.unwrap();
    let dry = audit::run(&bench.deps, true).await.expect("audited");
    assert_eq!((dry.drifted, dry.drift_bytes, dry.corrected), (1, 100, 0));
    assert_eq!(audit::run(&bench.deps, false).await.expect("audited").corrected, 1);
    assert_eq!(audit::run(&bench.deps, false).await.expect("audited").drifted, 0);
    bench.close().await;
}

/// A retry in the last moment of its hour, while the pass that takes what is stale waits for the row.
pub async fn a_pin_that_holds_again_is_not_taken_for_stale(bench: Bench) {
    let (db, now) = (&bench.deps.db, bench.now());
    let session = bench.session("anna", "room").await;
    let mut failed = ready_clip("anna", &session, now, 0);
    failed.status = ClipStatus::Failed;
    let tx = db.begin().await.unwrap();
    clip::insert(&tx, failed.clone()).await.unwrap();
    pin::insert(&tx, &session.id, &failed.id, Window::new(now, now.plus_seconds(5)), now)
        .await
        .unwrap();
    pin::set_expiry(&tx, &failed.id, Some(now)).await.unwrap();
    store::commit(tx).await.unwrap();

    let retry = db.begin().await.unwrap();
    assert!(clip::make_processing_again(&retry, &failed.id, 0, now).await.unwrap());
    let old = pin::find_of_clip(&retry, &failed.id).await.unwrap().expect("a pin");
    assert!(pin::hold_again(&retry, &old, now).await.unwrap());
    let stale = async {
        let tx = db.begin().await.unwrap();
        pin::delete_stale(&tx, now).await.unwrap();
        store::commit(tx).await.unwrap();
    };
    let commit = async {
        bench.until_somebody_waits_for_a_row().await;
        store::commit(retry).await.unwrap();
    };
    tokio::join!(stale, commit);
    let pin = pin::find_of_clip(db.conn(), &failed.id).await.unwrap().expect("it holds");
    assert_eq!((pin.expires_at, pin.window()), (None, old.window()));

    let tx = db.begin().await.unwrap();
    assert!(!pin::hold_again(&tx, &old, now).await.unwrap(), "a pin that is gone is gone");
    store::rollback(tx).await.unwrap();
    bench.close().await;
}

pub async fn what_a_crash_left_condemned_goes_with_the_next_pass(bench: Bench) {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    for number in 0..3 {
        session.record(number);
    }
    session.index().await;
    bench.pass_seconds(700);
    // condemned and committed; then the process died
    let tx = bench.deps.db.begin().await.unwrap();
    assert!(session::lock_for_pins(&tx, &session.id).await.unwrap());
    assert!(segment::condemn_one(&tx, &session.id, 1, 0, bench.now()).await.unwrap());
    store::commit(tx).await.unwrap();
    let counts = cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned");
    assert_eq!((counts.condemned, counts.deleted_files), (0, 1));
    assert!(!session.path(0).exists() && session.path(1).exists());
    assert_eq!(session.index().await.new, 0, "what cleanup took is not missed");
    assert_eq!(segment::list_condemned(bench.deps.db.conn(), 0, 10).await.unwrap(), []);
    bench.close().await;
}

pub async fn a_vanished_mount_is_not_an_empty_one(bench: Bench) {
    let session = bench.session("anna", "room").await;
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
    for number in 0..3 {
        session.record(number);
    }
    session.index().await;
    session.end(600).await;
    assert_eq!(probe::run(&bench.deps).await.usable, 2);
    let (there, away) = (bench.buffer(), bench.buffer().with_extension("away"));
    std::fs::rename(&there, &away).unwrap();
    std::fs::create_dir(&there).unwrap();
    bench.pass_seconds(7200);
    assert_eq!(probe::run(&bench.deps).await.unusable, 1);
    let refused = probe::demand(&bench.deps, Which::Buffer).await;
    assert_eq!(refused.expect_err("refused").code(), Code::StorageUnavailable);
    for error in [
        cleanup::run(&bench.deps, PERIOD, false).await.map(drop).expect_err("no store"),
        reap::run(&bench.deps, true, false).await.map(drop).expect_err("no store"),
    ] {
        assert_eq!(error.code(), Code::StorageUnavailable);
    }
    assert_eq!(session.segments().await.len(), 3, "nothing condemned, nothing lost");
    std::fs::remove_dir(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    assert_eq!(probe::run(&bench.deps).await.usable, 2);
    assert!(probe::demand(&bench.deps, Which::Buffer).await.is_ok());
    let counts = cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned");
    assert_eq!((counts.condemned, counts.deleted_files), (3, 3));
    bench.close().await;
}
