//! A session whose epochs a case lays down: real segments under egress's names, labels as its host's clock has them.

use std::{ops::Range, path::PathBuf};

use axum::http::StatusCode;
use livekit_replay::{
    domain::{
        id::{RoomName, UserId},
        keys,
        playlist::segment_file_name,
        time::Timestamp,
        timeline::{PTS_BASE, pts_to_micros},
    },
    flow::index,
    store::{self, epoch},
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Recorded, Reply, epoch_row},
    material::{FRAME, Kind, Recording, TWO_SECONDS},
};

/// Who shares.
pub const USER: &str = "ann";
/// From the screen to egress's label, milliseconds.
const DELAY_MS: i64 = 2_500;

/// What most cases record: eight segments of two seconds.
pub const PLAIN: Kind = TWO_SECONDS;
/// The same without sound.
pub const SILENT: Kind = Kind { audio: false, ..TWO_SECONDS };

/// A session on a bench.
pub struct Set<'a> {
    pub session: Recorded<'a>,
    pub epochs: Vec<Laid>,
}

/// One epoch on disk.
pub struct Laid {
    pub recording: Recording,
    pub directory: PathBuf,
    /// When time stamp 3600 s was on the screen.
    pub zero: Timestamp,
    /// Ticks from one picture to the next.
    pub step: i64,
    /// Numbers of pictures without sound.
    pub silent: Range<i64>,
    /// Of the playlist, one per segment.
    pub lines: Vec<String>,
}

impl Laid {
    pub fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(segment_file_name(segment))
    }

    /// Whether a picture of this number is of this epoch.
    pub fn holds(&self, number: i64) -> bool {
        let Kind { first_number, seconds, .. } = self.recording.kind;
        (first_number..first_number + seconds * 30).contains(&number)
    }

    /// When a picture was on the screen.
    pub fn screen(&self, number: i64) -> Timestamp {
        let place = number - self.recording.kind.first_number;
        let pts = self.recording.segments[0].2 + place * self.step;
        self.zero.plus_micros(pts_to_micros(pts - PTS_BASE))
    }

    /// Changes the bytes of a segment.
    pub fn change(&self, segment: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(segment)).unwrap();
        change(&mut bytes);
        std::fs::write(self.path(segment), bytes).unwrap();
    }

    /// Writes the playlist as it ends.
    pub fn list(&self) {
        let mut text = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n".to_owned();
        text += &self.lines.concat();
        text += "#EXT-X-ENDLIST\n";
        std::fs::write(self.directory.join("index.m3u8"), text).unwrap();
    }
}

impl<'a> Set<'a> {
    /// A session that began `age` seconds ago.
    pub async fn new(bench: &'a mut Bench, age: i64) -> Set<'a> {
        bench.run_jobs();
        Set { session: bench.session(USER, age).await, epochs: Vec::new() }
    }

    /// One epoch of [`PLAIN`] from the session's beginning.
    pub async fn plain(bench: &'a mut Bench) -> Set<'a> {
        let mut set = Set::new(bench, 20).await;
        set.lay(PLAIN, 0, 0).await;
        set
    }

    /// Lays an epoch that begins `at_ms` after the session, on a host whose clock is ahead by `skew` seconds. The
    /// first one's clock is fixed already; of the others the index has to find it.
    pub async fn lay(&mut self, kind: Kind, at_ms: i64, skew: i64) -> &mut Laid {
        let number = self.epochs.len() + 1;
        let zero = self.session.began.plus_millis(at_ms);
        let (directory, delay_ms) = if number == 1 {
            assert_eq!((at_ms, skew), (0, 0), "the bench's own epoch");
            (self.session.directory.clone(), 0)
        } else {
            (self.add_epoch(number, zero, skew).await, DELAY_MS)
        };
        let recording = Recording::make(kind);
        let mut lines = Vec::new();
        for (at, (from, facts, start)) in recording.segments.iter().enumerate() {
            let name = segment_file_name(at as u64);
            std::fs::copy(from, directory.join(&name)).unwrap();
            let label = zero.plus_micros(pts_to_micros(start - PTS_BASE));
            let label = label.plus_seconds(skew).plus_millis(delay_ms);
            let seconds = (facts.pts_end - facts.pts_first) as f64 / 90_000.0;
            lines
                .push(format!("#EXT-X-PROGRAM-DATE-TIME:{label}\n#EXTINF:{seconds:.3},\n{name}\n"));
        }
        let silent = if kind.audio { 0..0 } else { 0..i64::MAX };
        let laid = Laid { recording, directory, zero, step: FRAME, silent, lines };
        laid.list();
        self.epochs.push(laid);
        self.epochs.last_mut().unwrap()
    }

    async fn add_epoch(&self, number: usize, zero: Timestamp, skew: i64) -> PathBuf {
        let (bench, id) = (self.session.bench, &self.session.id);
        let (room, user) = (RoomName::new("room of the bench"), UserId::new(USER));
        let of = number as u32;
        let path = keys::buffer_path(&bench.deps.instance, &room, &user, id, of).unwrap();
        let directory = bench.deps.config.storage.buffer.join(&path);
        std::fs::create_dir_all(&directory).unwrap();
        let on_host = zero.plus_seconds(skew);
        let row = epoch::Model {
            number: number as i32,
            egress_id: Some(livekit_replay::domain::id::EgressId::new(format!("EG_{number}_{id}"))),
            host_started_at: Some(on_host),
            media_started_at: Some(on_host),
            zero_at: None,
            basis: None,
            delay_ms: None,
            clock_offset_us: None,
            ..epoch_row(id, path, zero)
        };
        let tx = bench.deps.db.begin().await.unwrap();
        epoch::insert(&tx, row).await.unwrap();
        store::commit(tx).await.unwrap();
        directory
    }

    pub fn first(&self) -> &Laid {
        &self.epochs[0]
    }

    /// Looks at what is on disk now, without an end of the session.
    pub async fn index(&self) {
        index::index_session(&self.session.bench.deps, &self.session.id).await.unwrap();
    }

    /// The session ends; all that is there is indexed.
    pub async fn end(&self) {
        self.session.end(8).await;
    }

    /// Milliseconds from the session's beginning.
    pub fn ms(&self, time: &Value) -> i64 {
        let time = Timestamp::parse_rfc3339(time.as_str().expect("a time")).unwrap();
        time.as_millis() - self.session.began.as_millis()
    }

    /// Asks for a clip of a window in milliseconds from the session's beginning, by key frames unless `more` says else.
    pub async fn ask(&self, (from, to): (i64, i64), more: &[(&str, &str)]) -> Reply {
        let at = |ms: i64| self.session.began.plus_millis(ms);
        let mut body = json!({ "sessionId": self.session.id, "from": at(from), "to": at(to) });
        body["precision"] = json!("keyframe");
        for (name, value) in more {
            body[*name] = json!(value);
        }
        self.session.bench.ask(USER, "POST", "/capture", Some(body)).await
    }

    /// A clip of a window; it must come out well.
    pub async fn clip(&self, window: (i64, i64), more: &[(&str, &str)]) -> Value {
        let reply = self.ask(window, more).await;
        let clip = reply.json();
        assert_eq!(reply.status, StatusCode::CREATED, "{clip:#}");
        assert_eq!(clip["status"], "ready", "{clip:#}");
        clip
    }
}
