//! What these stories share: numbered recordings laid out as sessions, a real server, FFmpeg as the player.

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc};

use livekit_replay::{
    access::token::Verifier,
    config::Config,
    domain::{
        id::{ClipId, UserId},
        playlist::segment_file_name,
    },
    flow::{
        clip_files::ClipFiles,
        index, render,
        work::{self, Place},
    },
    http::{self, AppState},
    livekit::webhook::Receiver,
    store::{
        Set, epoch,
        job::{self, JobState},
    },
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    bench::{Bench, NoMaintenance, Recorded},
    material::{Recording, TWO_SECONDS},
};

/// Pictures in one segment.
pub const PICTURES: i64 = 60;

/// The numbered recording: eight segments of two seconds.
pub fn recording() -> Recording {
    Recording::make(TWO_SECONDS)
}

/// Puts segments of the numbered recording into an epoch as egress would, and indexes them. Picture `n` of an epoch
/// is shown `n / 30` seconds after the epoch began.
pub async fn write(
    bench: &Bench,
    session: &Recorded<'_>,
    epoch: i32,
    numbers: std::ops::Range<u64>,
) {
    write_of(&recording(), bench, session, epoch, numbers).await;
}

/// The same with segments of another recording.
pub async fn write_of(
    recording: &Recording,
    bench: &Bench,
    session: &Recorded<'_>,
    epoch: i32,
    numbers: std::ops::Range<u64>,
) {
    let row = epoch::find(bench.deps.db.conn(), &session.id, epoch).await.unwrap().unwrap();
    let directory = bench.deps.config.storage.buffer.join(&row.path);
    std::fs::create_dir_all(&directory).unwrap();
    for number in numbers.clone() {
        let from = &recording.segments[usize::try_from(number).unwrap()].0;
        std::fs::copy(from, directory.join(segment_file_name(number))).unwrap();
    }
    let mut text = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n".to_owned();
    for number in 0..numbers.end {
        let at = row.zero_at.unwrap().plus_seconds(2 * i64::try_from(number).unwrap());
        let name = segment_file_name(number);
        text += &format!("#EXT-X-PROGRAM-DATE-TIME:{at}\n#EXTINF:2.000,\n{name}\n");
    }
    std::fs::write(directory.join("index.m3u8"), text).unwrap();
    index::index_session(&bench.deps, &session.id).await.unwrap();
}

/// A further epoch of the session, whose first picture comes `at` seconds after the session began. The one before
/// it is over.
pub async fn next_epoch(bench: &Bench, session: &Recorded<'_>, number: i32, at: i64) {
    let db = bench.deps.db.conn();
    let before = epoch::find(db, &session.id, number - 1).await.unwrap().unwrap();
    let zero = session.began.plus_seconds(at);
    let row = epoch::Model {
        number,
        path: before.path.replace(&format!("/{}", number - 1), &format!("/{number}")),
        egress_id: None,
        sent_at: zero,
        host_started_at: Some(zero),
        media_started_at: Some(zero),
        zero_at: Some(zero),
        first_seen_at: Some(zero),
        last_segment_at: None,
        ..before
    };
    assert_ne!(row.path, epoch::find(db, &session.id, number - 1).await.unwrap().unwrap().path);
    assert!(epoch::insert(db, row).await.unwrap());
    let change = epoch::ActiveModel {
        status: Set(epoch::EpochStatus::Ended),
        ended_at: Set(Some(zero)),
        ..Default::default()
    };
    let all = epoch::EpochStatus::ALL;
    assert!(epoch::update_if(db, &session.id, number - 1, all, change).await.unwrap());
}

/// Ends the session with the given epoch.
pub async fn end(bench: &Bench, session: &Recorded<'_>, last_epoch: i32, seconds: i64) {
    let change = epoch::ActiveModel {
        status: Set(epoch::EpochStatus::Ended),
        ended_at: Set(Some(session.began.plus_seconds(seconds))),
        ..Default::default()
    };
    let db = bench.deps.db.conn();
    let all = epoch::EpochStatus::ALL;
    epoch::update_if(db, &session.id, last_epoch, all, change).await.unwrap();
    session.end(u64::try_from(seconds / 2).unwrap()).await;
}

/// The bench with other settings.
pub fn with_config(mut bench: Bench, change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = (*bench.deps.config).clone();
    change(&mut config);
    bench.deps.config = Arc::new(config);
    bench.app = http::router(AppState {
        deps: bench.deps.clone(),
        webhooks: Arc::new(Receiver::new(&bench.deps.config.livekit)),
        verifier: Arc::new(Verifier::new(&bench.deps.config.auth).unwrap()),
        maintenance: Arc::new(NoMaintenance),
        figures: None,
    });
    bench
}

/// Moves the clock to the beginning of a minute: what is limited by the minute then has one to itself.
pub fn begin_minute(bench: &Bench) {
    let minute = 60_000_000;
    bench.clock.advance_micros(minute - bench.now().as_micros().rem_euclid(minute));
}

/// Says in both stores that they are ours.
pub fn mark_stores(bench: &Bench) {
    let marker = serde_json::json!({ "instanceId": bench.deps.instance.as_str() }).to_string();
    for store in [&bench.deps.config.storage.buffer, &bench.deps.config.storage.clips] {
        std::fs::write(store.join(".livekit-replay.json"), &marker).unwrap();
    }
}

/// The bench's door on a real socket; served until the test's runtime ends.
pub async fn serve(bench: &Bench) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = bench.app.clone();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Pictures that FFmpeg shows of a file or an address, decoded to the end; any complaint of its fails the test.
pub async fn played(input: String) -> i64 {
    let counted = tokio::task::spawn_blocking(move || {
        Command::new("ffprobe")
            // every segment counts its packets anew, of which FFmpeg's player of playlists warns
            .args(["-v", "error", "-count_frames", "-select_streams", "v:0"])
            .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
            .arg(&input)
            .output()
            .unwrap()
    });
    let out = counted.await.unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    // once for the program and once for the stream
    let text = String::from_utf8(out.stdout).unwrap();
    text.split_whitespace().next().unwrap().trim_end_matches(',').parse().unwrap()
}

/// Writes bytes where FFmpeg can read them.
pub fn file_of(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether a failed attempt is to be repeated later.
async fn is_to_be_repeated(bench: &Bench) -> bool {
    let again = job::Entity::find()
        .filter(job::Column::State.eq(JobState::Queued))
        .filter(job::Column::Attempts.gt(0));
    again.count(bench.deps.db.conn()).await.unwrap() > 0
}

/// Does the work that waits, in this task, also what is tried again; nothing runs before it and nothing after.
pub async fn make_all(bench: &Bench) {
    let (workers, cancel) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
    loop {
        let leased = work::lease(&bench.deps, 16).await.unwrap();
        if leased.is_empty() {
            if !is_to_be_repeated(bench).await {
                return;
            }
            bench.clock.advance_micros(10_000_000);
        }
        for job in leased {
            let place = Place::take(&workers).await.unwrap();
            if let Err(error) = render::render(&bench.deps, &job, place, &cancel).await {
                work::failed(&bench.deps, &job, &error).await.unwrap();
            }
        }
    }
}

/// A finished capture of a window of the session.
pub async fn captured(bench: &Bench, user: &str, body: Value) -> Value {
    let asked = [("prefer", "respond-async")];
    let reply = bench.ask_with(user, "POST", "/capture", Some(body), &asked).await;
    assert_eq!(reply.status, 202, "{:#}", reply.json());
    make_all(bench).await;
    clip(bench, user, &reply.json()["id"]).await
}

/// A clip as its owner sees it.
pub async fn clip(bench: &Bench, user: &str, id: &Value) -> Value {
    bench.ask(user, "GET", &format!("/clips/{}", id.as_str().unwrap()), None).await.json()
}

/// Where a clip's files are.
pub fn files(bench: &Bench, user: &str, clip: &Value) -> ClipFiles {
    let id = ClipId::new(clip["id"].as_str().unwrap());
    ClipFiles::of(&bench.deps, &UserId::new(user), &id).unwrap()
}
