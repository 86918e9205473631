//! One run of the cleanup over many sessions whose oldest segments are due, as in ordinary times, and one over what
//! is left.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use livekit_replay::{
    clock::{Clock, SystemClock},
    domain::{
        id::{CommunityId, EgressId, Identity, InstanceId, RoomName, SessionId, TrackId, UserId},
        keys,
        lifecycle::{EndReason, SessionStatus},
        playlist::segment_file_name,
        time::Timestamp,
        timeline::PTS_BASE,
    },
    store::{
        self, Connect, Db, epoch,
        segment::{self, SegmentState},
        session,
    },
};
use serde_json::Value;

use crate::{
    Scale,
    report::{Report, mebibytes, row, seconds},
    service::{Service, usage},
};

/// Per session: twelve minutes of 2 s.
const SEGMENTS: i64 = 360;
/// Of which so many are older than anything that is kept: a minute's worth.
const DUE: i64 = 30;
const KEPT_MINUTES: i64 = 12;

pub async fn sweep(scale: Scale, report: &mut Report) {
    let most = scale.count("BENCH_SWEEP_SESSIONS", 1000, 1000);
    let mut rows = vec![row([
        "sessions",
        "deleted",
        "time",
        "per deleted segment",
        "once more, nothing due",
        "memory",
    ])];
    for count in [10, 100, 1000, most] {
        let known = rows.last().and_then(|row| row[0].parse::<usize>().ok()).unwrap_or(0);
        if count <= most && count > known {
            rows.push(run(count).await);
        }
    }
    let said = format!(
        "Sessions of {SEGMENTS} segments each, {DUE} or more of them due; SQLite. Memory is the service's at the end."
    );
    report.table("A cleanup run", &said, &rows);
}

async fn run(count: usize) -> Vec<String> {
    let minutes = vec![
        ("REPLAY__BUFFER__MINUTES", "1".to_owned()),
        ("REPLAY__BUFFER__CLEANUP_MINUTES", KEPT_MINUTES.to_string()),
        ("REPLAY__BUFFER__GRACE_SECONDS", "36000".to_owned()),
    ];
    let mut service = Service::start(minutes).await;
    // the rows are laid down while nobody serves
    service.end().await;
    lay(&service, count).await;
    service.more.push(("REPLAY__JOBS__SEGMENT_CLEANUP", cadence()));
    service.spawn().await;
    let (took, counts) = clean(&service).await;
    let deleted = counts["deletedFiles"].as_u64().unwrap_or_else(|| panic!("{counts}"));
    // more become due while the others are laid down
    assert!(deleted >= count as u64 * (DUE.unsigned_abs() - 1), "{counts}");
    let (again, left) = clean(&service).await;
    assert_eq!(left["deletedFiles"], 0, "{left}");
    let each = format!("{:.3} ms", took.as_secs_f64() * 1000.0 / deleted as f64);
    let memory = mebibytes(usage(service.pid()).resident);
    service.close().await;
    vec![count.to_string(), deleted.to_string(), seconds(took), each, seconds(again), memory]
}

async fn clean(service: &Service) -> (Duration, Value) {
    let token = service.token("root");
    let path = "/admin/maintenance/segment-cleanup/run";
    let began = Instant::now();
    let (status, mut run) = service.ask(&token, "POST", path, Value::Null).await;
    let took = began.elapsed();
    assert!(status == 200 && run["outcome"] == "ok", "{status}: {run:#}");
    (took, run["counts"].take())
}

/// Every ten minutes (the period is part of what is kept), but not within the next five, nor missed since the first
/// start: the run that is measured is the only one.
fn cadence() -> String {
    let minute = SystemClock.now().as_millis() / 60_000;
    format!("0 {}-59/10 * * * *", (minute + 6) % 10)
}

/// Rows and files of ended sessions, written as the service itself keeps them.
async fn lay(service: &Service, count: usize) {
    let url = format!("sqlite://{}", service.dir.join("replay.db").display());
    let db = Db::connect(Connect { url: &url, max_connections: 1, create: false }).await.unwrap();
    let marker = fs::read(service.dir.join("buffer/.livekit-replay.json")).unwrap();
    let marker: BTreeMap<String, Value> = serde_json::from_slice(&marker).unwrap();
    let instance = InstanceId::new(marker["instanceId"].as_str().unwrap());
    let now = SystemClock.now();
    // a whole second inside what is due and what is not
    let began = now.plus_seconds(-KEPT_MINUTES * 60 - DUE * 2 + 1);
    for number in 0..count {
        let user = UserId::new(format!("user{number}"));
        let row = session_row(&user, began, now);
        let (id, room) = (row.id.clone(), row.room_name.clone());
        let path = keys::buffer_path(&instance, &room, &user, &id, 1).unwrap();
        let directory = service.dir.join("buffer").join(&path);
        fs::create_dir_all(&directory).unwrap();
        let tx = db.begin().await.unwrap();
        session::insert(&tx, row).await.unwrap();
        epoch::insert(&tx, epoch_row(&id, path, began, now)).await.unwrap();
        for number in 0..SEGMENTS {
            let name = segment_file_name(number.unsigned_abs());
            fs::write(directory.join(&name), [0; 188]).unwrap();
            segment::insert(&tx, segment_row(&id, number, name, began)).await.unwrap();
        }
        store::commit(tx).await.unwrap();
    }
    db.close().await.unwrap();
}

fn session_row(user: &UserId, began: Timestamp, now: Timestamp) -> session::Model {
    let ended = began.plus_seconds(SEGMENTS * 2);
    session::Model {
        id: SessionId::generate(),
        user_id: user.clone(),
        started_by: user.clone(),
        username: None,
        community_id: Some(CommunityId::new("bench")),
        room_name: RoomName::new(format!("bench-{user}")),
        identity: Identity::new(user.as_str()),
        video_track_id: None,
        quality: "1080p".to_owned(),
        status: SessionStatus::Stopped,
        holds_place: false,
        auto_started: false,
        current_epoch: 1,
        source_width: 320,
        source_height: 180,
        started_at: began,
        ended_at: Some(ended.min(now)),
        end_reason: Some(EndReason::StoppedByUser),
        capturable_until: Some(now.plus_seconds(36_000)),
        media_starts_at: Some(began),
        media_ends_at: Some(now),
        share_lost_at: None,
        restart_attempts: 0,
        restart_at: None,
        highest_rate: 0,
        pin_seq: 0,
        discard: false,
        stop_requested_at: None,
        buffer_gone_at: None,
        link_generation: 0,
        created_at: began,
        updated_at: began,
    }
}

fn epoch_row(session: &SessionId, path: String, began: Timestamp, now: Timestamp) -> epoch::Model {
    epoch::Model {
        session_id: session.clone(),
        number: 1,
        status: epoch::EpochStatus::Ended,
        egress_id: Some(EgressId::new(format!("EG_{session}"))),
        path,
        video_track_id: TrackId::new("TR_video"),
        audio_track_id: None,
        width: 320,
        height: 180,
        sent_at: began,
        answered_at: Some(began),
        deadline_at: began.plus_seconds(60),
        host_started_at: Some(began),
        clock_offset_us: Some(0),
        media_started_at: Some(began),
        zero_at: Some(began),
        basis: Some(epoch::Basis::StartedAt),
        delay_ms: Some(0),
        first_seen_at: Some(began),
        last_segment_at: Some(now),
        playlist_ended: true,
        stop_sent_at: None,
        ended_at: Some(now.plus_seconds(-120)),
        outcome: None,
        error: None,
    }
}

fn segment_row(id: &SessionId, number: i64, file_name: String, began: Timestamp) -> segment::Model {
    let pts = PTS_BASE + number * 180_000;
    let starts_at = began.plus_seconds(number * 2);
    segment::Model {
        session_id: id.clone(),
        epoch: 1,
        number,
        file_name,
        state: SegmentState::Usable,
        pts_start: pts,
        pts_end: pts + 180_000,
        starts_at,
        ends_at: starts_at.plus_seconds(2),
        label_at: starts_at,
        size_bytes: 188,
        key_frames: format!("[{pts}]"),
        frame_ticks: 3000,
        has_audio: false,
        width: Some(320),
        height: Some(180),
        condemned_at: None,
        indexed_at: starts_at,
        crc: None,
    }
}
