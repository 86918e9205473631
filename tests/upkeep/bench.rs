//! One service without LiveKit's media: a database, two stores, sessions whose segments a test writes as egress would.
//! The clock stands still until a test moves it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use livekit_replay::{
    clock::ManualClock,
    config,
    domain::{
        id::{EgressId, Identity, InstanceId, RoomName, SessionId, TrackId, UserId},
        keys,
        lifecycle::SessionStatus,
        names::{CommunityRule, CommunitySource, IdentityRule},
        playlist::segment_file_name,
        share::Participant,
        time::Timestamp,
        timeline::PTS_BASE,
    },
    error::{Error, Result},
    flow::{Deps, Wake},
    livekit::{EgressFact, EgressOrder, EgressState, LiveKit, Stopped},
    media::ts::{TsWriter, demux},
    store::{self, Connect, Db, Set, epoch, schema, segment, session},
};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "../support/postgres_url.rs"]
mod postgres_url;

/// Seconds of one segment.
pub const SEGMENT: i64 = 2;
const TICKS: i64 = 180_000;
/// From the first packet to the muxer's label.
pub const DELAY_MS: i64 = 2750;
pub const INSTANCE: &str = "0123abcd";

/// One real segment as FFmpeg makes it, taken apart: 60 pictures with B-frames.
fn recorded() -> &'static livekit_replay::media::ts::Demuxed {
    static RECORDED: OnceLock<livekit_replay::media::ts::Demuxed> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let done = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-f", "lavfi"])
            .args(["-i", "testsrc2=size=128x72:rate=30:duration=2", "-c:v", "libx264"])
            .args(["-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "60", "-sc_threshold", "0"])
            .args(["-f", "mpegts", "-"])
            .output()
            .expect("ffmpeg runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        demux(&done.stdout).expect("a whole segment")
    })
}

/// The segment of that number: the real pictures, moved to their place on the time line.
pub fn segment_bytes(number: u64) -> Vec<u8> {
    let video = &recorded().video;
    let first = video.iter().map(|unit| unit.pts_raw).min().expect("pictures");
    let shift = PTS_BASE + i64::try_from(number).expect("small") * TICKS - first;
    let mut writer = TsWriter::new(false);
    for unit in video {
        writer.video(unit.pts_raw + shift, unit.dts_raw + shift, unit.key, &unit.data);
    }
    writer.take()
}

/// A LiveKit that can be told when the first packet of every egress came, and counts who asks.
#[derive(Debug, Default)]
pub struct ToldLiveKit {
    pub media_started_at: Mutex<Option<Timestamp>>,
    pub asked: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl LiveKit for ToldLiveKit {
    async fn start_egress(&self, _: &EgressOrder) -> Result<EgressFact> {
        Err(Error::not_found("egress"))
    }
    async fn stop_egress(&self, _: &EgressId) -> Result<Stopped> {
        Ok(Stopped::AlreadyOver)
    }
    async fn find_egress(&self, id: &EgressId) -> Result<Option<EgressFact>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Some(EgressFact {
            id: id.clone(),
            room: RoomName::new("room"),
            state: EgressState::Active,
            directory: None,
            requested_at: None,
            media_started_at: *self.media_started_at.lock().unwrap(),
            details: String::new(),
            error: String::new(),
            error_code: 0,
        }))
    }
    async fn list_active_egress(&self, _: Option<&RoomName>) -> Result<Vec<EgressFact>> {
        Ok(Vec::new())
    }
    async fn list_participants(&self, _: &RoomName) -> Result<Option<Vec<Participant>>> {
        Ok(None)
    }
    async fn list_rooms(&self) -> Result<Vec<livekit_replay::livekit::Room>> {
        Ok(Vec::new())
    }
    async fn find_room_metadata(&self, _: &RoomName) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Which engine a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Sqlite,
    Postgres,
}

pub struct Bench {
    pub deps: Deps,
    pub clock: Arc<ManualClock>,
    pub livekit: Arc<ToldLiveKit>,
    dir: PathBuf,
    server: Option<(String, String)>,
}

impl Bench {
    /// `None` where the engine is not at hand.
    pub async fn on(engine: On) -> Option<Bench> {
        let dir = std::env::temp_dir().join(format!("lkr-test-{}", uuid::Uuid::new_v4().simple()));
        for part in ["buffer", "clips"] {
            std::fs::create_dir_all(dir.join(part)).expect("a store");
            let marker = format!("{{\"instanceId\":\"{INSTANCE}\"}}");
            std::fs::write(dir.join(part).join(".livekit-replay.json"), marker).expect("a marker");
        }
        let (url, server) = match engine {
            On::Sqlite => (format!("sqlite://{}/test.db", dir.display()), None),
            On::Postgres => {
                let server = postgres_url::postgres_url()?;
                let name = format!("lkr_test_{}", uuid::Uuid::new_v4().simple());
                on_server(&server, &format!("CREATE DATABASE {name}")).await;
                let (root, _) = server.rsplit_once('/').expect("postgres://…/name");
                (format!("{root}/{name}"), Some((server.clone(), name)))
            }
        };
        let connect = Connect { url: &url, max_connections: 8, create: true };
        let db = Db::connect(connect).await.expect("the database opens");
        schema::migrate_up(&url, &db).await.expect("the schema comes up");
        // near the machine's time, for the ages of files; standing still
        let start = livekit_replay::clock::Clock::now(&livekit_replay::clock::SystemClock);
        // whole seconds: labels have milliseconds only
        let start = Timestamp::from_micros((start.as_micros() / 1_000_000 + 60) * 1_000_000);
        let clock = Arc::new(ManualClock::at(start));
        let livekit = Arc::new(ToldLiveKit::default());
        let deps = Deps {
            config: Arc::new(config(&dir, &url)),
            clock: clock.clone(),
            db,
            livekit: livekit.clone(),
            instance: InstanceId::new(INSTANCE),
            replica: "one".to_owned(),
            link_key: Arc::from(b"a key for the links of a test".as_slice()),
            policy: Arc::default(),
            wake: Arc::new(Wake::default()),
            presence: Arc::default(),
            shares_seen: Arc::default(),
            walks: Arc::default(),
            stores: Arc::default(),
            places: Arc::default(),
            filmstrips: Arc::default(),
            posters: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Some(Bench { deps, clock, livekit, dir, server })
    }

    /// The same service once more, as another replica on the same database and stores.
    pub fn replica(&self, name: &str) -> Deps {
        let (stores, walks) = (Arc::default(), Arc::default());
        Deps { replica: name.to_owned(), stores, walks, ..self.deps.clone() }
    }

    pub async fn close(self) {
        self.deps.stop.cancel();
        self.deps.tasks.close();
        self.deps.tasks.wait().await;
        self.deps.db.clone().close().await.expect("the pool closes");
        if let Some((server, name)) = &self.server {
            on_server(server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
        std::fs::remove_dir_all(&self.dir).expect("the test's directory goes");
    }

    /// PostgreSQL lets writers in side by side until they meet at a row; on SQLite they wait at the door.
    pub async fn until_somebody_waits_for_a_row(&self) {
        if self.server.is_none() {
            return;
        }
        let waiting = Statement::from_string(
            DatabaseBackend::Postgres,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        );
        let ask = async {
            while self.deps.db.conn().query_one_raw(waiting.clone()).await.expect("asked").is_none()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), ask).await;
        in_time.expect("somebody waits for a row");
    }

    pub fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }

    pub fn pass_seconds(&self, seconds: i64) {
        self.clock.advance_micros(seconds * 1_000_000);
    }

    pub fn buffer(&self) -> PathBuf {
        self.deps.config.storage.buffer.clone()
    }

    pub fn clips(&self) -> PathBuf {
        self.deps.config.storage.clips.clone()
    }

    /// A session that was accepted now, with its first epoch and nothing on disk but its directory.
    pub async fn session(&self, user: &str, room: &str) -> Recorded<'_> {
        let now = self.now();
        let id = SessionId::generate();
        let row = session::Model {
            id: id.clone(),
            user_id: UserId::new(user),
            started_by: UserId::new(user),
            username: None,
            community_id: None,
            room_name: RoomName::new(room),
            identity: Identity::new(user),
            video_track_id: None,
            quality: "1080p".to_owned(),
            status: SessionStatus::Starting,
            holds_place: true,
            auto_started: false,
            current_epoch: 1,
            source_width: 128,
            source_height: 72,
            started_at: now,
            ended_at: None,
            end_reason: None,
            capturable_until: None,
            media_starts_at: None,
            media_ends_at: None,
            share_lost_at: None,
            restart_attempts: 0,
            restart_at: None,
            highest_rate: 0,
            pin_seq: 0,
            discard: false,
            stop_requested_at: None,
            link_generation: 0,
            buffer_gone_at: None,
            created_at: now,
            updated_at: now,
        };
        let tx = self.deps.db.begin().await.expect("a transaction");
        session::insert(&tx, row).await.expect("the session's row");
        store::commit(tx).await.expect("committed");
        let mut recorded = Recorded {
            bench: self,
            id,
            user: UserId::new(user),
            room: RoomName::new(room),
            epoch: 0,
            began: now,
            directory: PathBuf::new(),
        };
        recorded.next_epoch().await;
        recorded
    }
}

/// A session whose recording a test feeds.
pub struct Recorded<'a> {
    pub bench: &'a Bench,
    pub id: SessionId,
    pub user: UserId,
    pub room: RoomName,
    pub epoch: i32,
    /// When the first packet of the newest epoch came, egress host clock.
    pub began: Timestamp,
    pub directory: PathBuf,
}

impl Recorded<'_> {
    /// Begins another epoch: a directory of its own, numbers from 00000 and PTS from 3600 s again.
    pub async fn next_epoch(&mut self) {
        self.epoch += 1;
        self.began = self.bench.now();
        let number = u32::try_from(self.epoch).expect("small");
        let path =
            keys::buffer_path(&self.bench.deps.instance, &self.room, &self.user, &self.id, number)
                .expect("a path of ours");
        self.directory = self.bench.buffer().join(&path);
        std::fs::create_dir_all(&self.directory).expect("the epoch's directory");
        let row = epoch_row(&self.id, self.epoch, path, self.began);
        assert!(epoch::insert(self.bench.deps.db.conn(), row).await.expect("the epoch's row"));
    }

    /// Writes one segment's file.
    pub fn write(&self, number: u64) {
        std::fs::write(self.path(number), segment_bytes(number)).expect("a segment");
    }

    pub fn path(&self, number: u64) -> PathBuf {
        self.directory.join(segment_file_name(number))
    }

    /// The label of a segment, egress host clock.
    pub fn label(&self, number: u64) -> Timestamp {
        self.screen(number).plus_millis(DELAY_MS)
    }

    /// When a segment's first picture was on the screen, if the host's clock is ours.
    pub fn screen(&self, number: u64) -> Timestamp {
        self.began.plus_seconds(SEGMENT * i64::try_from(number).expect("small"))
    }

    /// A playlist as egress writes it.
    pub fn playlist(&self, numbers: impl IntoIterator<Item = u64>, ended: bool) -> String {
        let mut text =
            "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:2\n\
                        #EXT-X-MEDIA-SEQUENCE:0\n"
                .to_owned();
        for number in numbers {
            let (at, name) = (self.label(number), segment_file_name(number));
            text += &format!("#EXT-X-PROGRAM-DATE-TIME:{at}\n#EXTINF:2.000,\n{name}\n");
        }
        if ended {
            text += "#EXT-X-ENDLIST\n";
        }
        text
    }

    pub fn put(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).expect("a file");
    }

    /// What egress has done once segment `newest` is closed: the file, then the live playlist of five.
    pub fn record(&self, newest: u64) {
        self.write(newest);
        self.put("live.m3u8", &self.playlist(newest.saturating_sub(4)..=newest, false));
    }

    pub async fn index(&self) -> livekit_replay::flow::index::Indexed {
        livekit_replay::flow::index::index_session(&self.bench.deps, &self.id)
            .await
            .expect("indexed")
    }

    pub async fn segments(&self) -> Vec<segment::Model> {
        segment::list(self.bench.deps.db.conn(), &self.id).await.expect("listed")
    }

    pub async fn row(&self) -> session::Model {
        session::load(self.bench.deps.db.conn(), &self.id).await.expect("the session")
    }

    pub async fn epoch_row(&self) -> epoch::Model {
        let found = epoch::find(self.bench.deps.db.conn(), &self.id, self.epoch).await;
        found.expect("read").expect("the epoch")
    }

    /// Ends the session and its epoch now.
    pub async fn end(&self, capturable_seconds: i64) {
        self.end_as_of(self.bench.now(), capturable_seconds).await;
    }

    /// Ends the epoch now, and the session as of a moment before.
    pub async fn end_as_of(&self, ended_at: Timestamp, capturable_seconds: i64) {
        let (db, now) = (&self.bench.deps.db, self.bench.now());
        let change = epoch::ActiveModel {
            status: Set(epoch::EpochStatus::Ended),
            ended_at: Set(Some(now)),
            ..Default::default()
        };
        epoch::update_if(db.conn(), &self.id, self.epoch, epoch::EpochStatus::ALL, change)
            .await
            .expect("the epoch ends");
        let change = session::ActiveModel {
            status: Set(SessionStatus::Stopped),
            ended_at: Set(Some(ended_at)),
            capturable_until: Set(Some(now.plus_seconds(capturable_seconds))),
            ..Default::default()
        };
        let tx = db.begin().await.expect("a transaction");
        let row = session::load(&tx, &self.id).await.expect("the session");
        assert!(session::give_up_place(&tx, &row, change).await.expect("the session ends"));
        store::commit(tx).await.expect("ended");
    }
}

fn epoch_row(session: &SessionId, number: i32, path: String, began: Timestamp) -> epoch::Model {
    epoch::Model {
        session_id: session.clone(),
        number,
        status: epoch::EpochStatus::Starting,
        egress_id: Some(EgressId::new(format!("EG_{session}_{number}"))),
        path,
        video_track_id: TrackId::new("TR_video"),
        audio_track_id: None,
        width: 128,
        height: 72,
        sent_at: began,
        answered_at: Some(began),
        deadline_at: began.plus_seconds(60),
        host_started_at: Some(began),
        clock_offset_us: None,
        media_started_at: None,
        zero_at: None,
        basis: None,
        delay_ms: None,
        first_seen_at: None,
        last_segment_at: None,
        playlist_ended: false,
        stop_sent_at: None,
        ended_at: None,
        outcome: None,
        error: None,
    }
}

/// Runs a statement on the server's own database.
async fn on_server(server: &str, statement: &str) {
    let connect = Connect { url: server, max_connections: 1, create: false };
    let db = Db::connect(connect).await.expect("the server answers");
    db.conn().execute_unprepared(statement).await.expect("the statement runs");
    db.close().await.expect("the pool closes");
}

fn config(dir: &Path, url: &str) -> config::Config {
    let seconds = Duration::from_secs;
    config::Config {
        data_dir: dir.to_owned(),
        database: config::Database { url: url.to_owned().into(), max_connections: 8 },
        server: config::Server {
            host: "127.0.0.1".parse().expect("an address"),
            port: 0,
            public_url: None,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            shutdown: seconds(30),
            max_wait: seconds(60),
            link_secret: None,
        },
        auth: config::Auth::with_secret("a secret of at least thirty-two bytes"),
        livekit: config::Livekit {
            url: "http://127.0.0.1:9".to_owned(),
            api_key: "key".to_owned(),
            api_secret: "another secret".to_owned().into(),
            webhook_keys: Vec::new(),
            egress_output_path: dir.join("buffer"),
            start_timeout: seconds(5),
            pipeline_delay: None,
            identity_pattern: IdentityRule::new("^(?<user>.+)$").expect("a pattern"),
        },
        rooms: CommunityRule::new(None, vec![CommunitySource::Metadata]).expect("a rule"),
        buffer: config::Buffer {
            length: seconds(600),
            cleanup: seconds(720),
            segment: seconds(2),
            grace: seconds(600),
            no_segment: seconds(21),
            max_epoch: seconds(43_200),
        },
        sessions: config::Sessions {
            rejoin: seconds(20),
            audio_wait: seconds(2),
            orphan_max: seconds(10_800),
        },
        capture: config::Capture {
            muxer: config::Muxer::Auto,
            wait: seconds(40),
            tail_wait: seconds(16),
            workers: 2,
            queue: 1000,
            queue_per_user: 100,
            deadline_factor: 2.0,
            stall: seconds(30),
            failed_keep: seconds(3600),
        },
        clips: config::Clips { link_ttl: seconds(3600) },
        limits: config::Limits {
            user_quota_bytes: 5 << 30,
            community_max_concurrent: 5,
            community_ceiling: 25,
            clip_max: seconds(600),
        },
        rate_limits: config::RateLimits {
            start_per_minute: 0,
            capture_per_minute: 0,
            delete_per_minute: 0,
            filmstrip_per_minute: 0,
        },
        storage: config::Storage {
            buffer: dir.join("buffer"),
            clips: dir.join("clips"),
            buffer_dir_mode: 0o2770,
            buffer_gid: None,
            min_free_bytes: 1 << 20,
            high_percent: 85,
            critical_percent: 98,
        },
        share: None,
        webhooks: vec![],
        jobs: config::Jobs {
            segment_cleanup: "0 */5 * * * *".to_owned(),
            orphan_reaper: "30 * * * * *".to_owned(),
            reconcile: "0 * * * * *".to_owned(),
            workdir_sweep: "15 * * * * *".to_owned(),
            quota_audit: "0 0 3 * * *".to_owned(),
            storage_probe: "*/30 * * * * *".to_owned(),
        },
        log: "warn".to_owned(),
    }
}
