//! One service without LiveKit: a database, two stores, sessions whose segments a test writes as egress would.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use livekit_replay::{
    access::{
        Caller,
        token::{self, Verifier},
    },
    clock::ShiftedClock,
    config,
    domain::{
        id::{CommunityId, EgressId, Identity, InstanceId, RoomName, SessionId, TrackId, UserId},
        keys,
        lifecycle::SessionStatus,
        names::{CommunityRule, CommunitySource, IdentityRule},
        playlist::segment_file_name,
        share::Participant,
        time::Timestamp,
    },
    error::{Error, Result},
    flow::{
        Deps, Wake, authorize,
        maintenance::{JobReport, Maintenance, Run},
        stores,
    },
    http::{self, AppState},
    jobs,
    livekit::{EgressFact, EgressOrder, LiveKit, Stopped, webhook::Receiver},
    store::{self, Connect, Db, epoch, quota, schema, session},
};
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

#[path = "../support/postgres_url.rs"]
mod postgres_url;

const INSTANCE: &str = "0123abcd";
/// Seconds of one segment.
pub const SEGMENT: i64 = 2;
/// Segments in the recording that tests are fed with.
pub const RECORDED: u64 = 10;

/// Segments in the long recording.
pub const RECORDED_LONG: u64 = 400;

/// Real segments, recorded once per build directory: 320x180, 30 frames a second, B-frames, a 440 Hz tone.
fn recording() -> &'static Path {
    static RECORDING: OnceLock<PathBuf> = OnceLock::new();
    RECORDING.get_or_init(|| recorded("clips-recording", RECORDED, "320x180", 30))
}

/// Many minutes of very small pictures, for tests that outlast a buffer.
pub fn long_recording() -> &'static Path {
    static RECORDING: OnceLock<PathBuf> = OnceLock::new();
    RECORDING.get_or_init(|| recorded("clips-recording-long", RECORDED_LONG, "64x36", 10))
}

fn recorded(name: &str, segments: u64, size: &str, rate: i64) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = root.join(name);
    if !done.exists() {
        let draft = root.join(uuid::Uuid::new_v4().simple().to_string());
        record(&draft, segments, size, rate);
        // somebody else may have been first: theirs is as good
        if std::fs::rename(&draft, &done).is_err() {
            std::fs::remove_dir_all(&draft).expect("the second recording goes");
        }
    }
    done
}

fn record(dir: &Path, segments: u64, size: &str, rate: i64) {
    std::fs::create_dir_all(dir).expect("a directory for the recording");
    let seconds = SEGMENT * i64::try_from(segments).expect("small");
    let video = format!("testsrc2=size={size}:rate={rate}:duration={seconds}");
    let group = (SEGMENT * rate).to_string();
    let audio = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let done = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", &video])
        .args(["-f", "lavfi", "-i", &audio, "-c:v", "libx264", "-preset", "veryfast"])
        .args(["-pix_fmt", "yuv420p", "-g", &group, "-keyint_min", &group, "-sc_threshold", "0"])
        .args(["-c:a", "aac", "-b:a", "96k", "-output_ts_offset", "3600"])
        .args(["-muxdelay", "0", "-muxpreload", "0", "-f", "segment", "-segment_time", "2"])
        .args(["-segment_format", "mpegts"])
        .arg(dir.join("seg_%05d.ts"))
        .output()
        .expect("ffmpeg runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A LiveKit that knows nothing: what these tests are about never asks it.
#[derive(Debug)]
struct NoLiveKit;

#[async_trait]
impl LiveKit for NoLiveKit {
    async fn start_egress(&self, _: &EgressOrder) -> Result<EgressFact> {
        Err(Error::not_found("egress"))
    }
    async fn stop_egress(&self, _: &EgressId) -> Result<Stopped> {
        Ok(Stopped::AlreadyOver)
    }
    async fn find_egress(&self, _: &EgressId) -> Result<Option<EgressFact>> {
        Ok(None)
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

/// No scheduled work: these tests start none.
#[derive(Debug)]
pub struct NoMaintenance;

#[async_trait]
impl Maintenance for NoMaintenance {
    async fn list(&self, _: &Deps) -> Result<Vec<JobReport>> {
        Ok(Vec::new())
    }
    async fn run(&self, _: &Deps, _: &str, _: bool) -> Result<Run> {
        Err(Error::not_found("job"))
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
    pub clock: Arc<ShiftedClock>,
    pub app: Router,
    dir: PathBuf,
    server: Option<(String, String)>,
    jobs: Option<tokio::task::JoinHandle<()>>,
}

/// An answer as a test looks at it.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: bytes::Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("a JSON body")
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

impl Bench {
    /// `None` where the engine is not at hand.
    pub async fn on(engine: On) -> Option<Bench> {
        Bench::changed(engine, |_| {}).await
    }

    /// The same with other settings.
    pub async fn changed(engine: On, change: fn(&mut config::Config)) -> Option<Bench> {
        let dir = std::env::temp_dir().join(format!("lkr-test-{}", uuid::Uuid::new_v4().simple()));
        let (url, server) = match engine {
            On::Sqlite => (format!("sqlite://{}/test.db", dir.display()), None),
            On::Postgres => {
                let server = postgres_url::postgres_url()?;
                let name = format!("lkr_test_{}", uuid::Uuid::new_v4().simple());
                on_server(&server, &format!("CREATE DATABASE {name}")).await;
                let (root, _) = server.rsplit_once('/').expect("postgres://…/name");
                let root = root.to_owned();
                (format!("{root}/{name}"), Some((server, name)))
            }
        };
        Some(Bench::with(dir, &url, server, change).await)
    }

    /// On SQLite in a directory that may hold what a bench before left there.
    pub async fn in_dir(dir: PathBuf) -> Bench {
        let url = format!("sqlite://{}/test.db", dir.display());
        Bench::with(dir, &url, None, |_| {}).await
    }

    async fn with(
        dir: PathBuf,
        url: &str,
        server: Option<(String, String)>,
        change: fn(&mut config::Config),
    ) -> Bench {
        for part in ["buffer", "clips"] {
            std::fs::create_dir_all(dir.join(part)).expect("a store");
            let marker = dir.join(part).join(stores::MARKER);
            std::fs::write(marker, format!("{{\"instanceId\":\"{INSTANCE}\"}}")).expect("a marker");
        }
        let connect = Connect { url, max_connections: 8, create: true };
        let db = Db::connect(connect).await.expect("the database opens");
        schema::migrate_up(url, &db).await.expect("the schema comes up");
        let clock = Arc::new(ShiftedClock::default());
        let mut config = config(&dir, url);
        change(&mut config);
        let deps = Deps {
            config: Arc::new(config),
            clock: clock.clone(),
            db,
            livekit: Arc::new(NoLiveKit),
            instance: InstanceId::new(INSTANCE),
            replica: "bench".to_owned(),
            link_key: Arc::from(b"a key for the links of a test".as_slice()),
            policy: Arc::default(),
            wake: Arc::new(Wake::default()),
            stores: Arc::default(),
            places: Arc::default(),
            filmstrips: Arc::default(),
            posters: Arc::default(),
            presence: Arc::default(),
            shares_seen: Arc::default(),
            walks: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        authorize::seed_default_rules(&deps).await.expect("the rules are written");
        let state = AppState {
            deps: deps.clone(),
            webhooks: Arc::new(Receiver::new(&deps.config.livekit)),
            verifier: Arc::new(Verifier::new(&deps.config.auth).expect("a secret")),
            maintenance: Arc::new(NoMaintenance),
            figures: None,
        };
        Bench { app: http::router(state), deps, clock, dir, server, jobs: None }
    }

    /// Starts the door of jobs.
    pub fn run_jobs(&mut self) {
        self.jobs = Some(tokio::spawn(jobs::run(self.deps.clone())));
    }

    /// Stops the door of jobs and waits until every attempt has let go.
    pub async fn close_jobs(&mut self) {
        self.deps.stop.cancel();
        if let Some(jobs) = self.jobs.take() {
            jobs.await.expect("the door of jobs ends well");
        }
    }

    /// Stops everything and removes what was made.
    pub async fn close(mut self) {
        self.close_jobs().await;
        self.deps.tasks.close();
        self.deps.tasks.wait().await;
        drop(self.app);
        self.deps.db.clone().close().await.expect("the pool closes");
        if let Some((server, name)) = &self.server {
            on_server(server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
        std::fs::remove_dir_all(&self.dir).expect("the test's directory goes");
    }

    pub fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }

    pub fn caller(&self, user: &str) -> Caller {
        let community = CommunityId::new("guild");
        Caller {
            user_id: UserId::new(user),
            name: None,
            issued_at: Some(self.now()),
            communities: BTreeMap::from([(community, vec!["moderator".to_owned()])]),
            roles: Vec::new(),
            origin: Default::default(),
        }
    }

    /// A token of a user with a role in the community `guild`.
    pub fn token_as(&self, user: &str, role: Option<&str>) -> String {
        let communities: BTreeMap<_, _> = role
            .map(|role| (CommunityId::new("guild"), vec![role.to_owned()]))
            .into_iter()
            .collect();
        let claims = token::Claims {
            user_id: &UserId::new(user),
            name: None,
            communities: &communities,
            roles: &[],
            lifetime: Duration::from_secs(24 * 3600),
        };
        token::mint(&self.deps.config.auth, &claims, self.now()).expect("a token")
    }

    /// A request with the token of a moderator of `guild`.
    pub async fn ask(&self, user: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.ask_with(user, method, path, body, &[]).await
    }

    pub async fn ask_with(
        &self,
        user: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let bearer = format!("Bearer {}", self.token_as(user, Some("moderator")));
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        self.raw(method, path, body, &all).await
    }

    /// A request with exactly these headers.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let path = if path.starts_with("/livekit-replay") {
            path.to_owned()
        } else {
            format!("/livekit-replay{path}")
        };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(json) => {
                request = request.header("content-type", "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        let request = request.body(body).expect("a request");
        let response = self.app.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        Reply { status: parts.status, headers: parts.headers, bytes }
    }

    /// A session that began to record `age` seconds ago in `guild`, with nothing on disk yet.
    pub async fn session(&self, user: &str, age: i64) -> Recorded<'_> {
        // whole milliseconds, as a caller can name them
        let began = Timestamp::from_micros(self.now().as_millis() * 1000).plus_seconds(-age);
        let id = SessionId::generate();
        let (user, room) = (UserId::new(user), RoomName::new("room of the bench"));
        let row = session::Model {
            id: id.clone(),
            user_id: user.clone(),
            started_by: user.clone(),
            username: None,
            community_id: Some(CommunityId::new("guild")),
            room_name: room.clone(),
            identity: Identity::new(user.as_str()),
            video_track_id: None,
            quality: "1080p".to_owned(),
            status: SessionStatus::Active,
            holds_place: true,
            auto_started: false,
            current_epoch: 1,
            source_width: 320,
            source_height: 180,
            started_at: began,
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
            created_at: began,
            updated_at: began,
        };
        let path =
            keys::buffer_path(&self.deps.instance, &room, &user, &id, 1).expect("a path of ours");
        let directory = self.deps.config.storage.buffer.join(&path);
        std::fs::create_dir_all(&directory).expect("the epoch's directory");
        let tx = self.deps.db.begin().await.expect("a transaction");
        session::insert(&tx, row).await.expect("the session's row");
        epoch::insert(&tx, epoch_row(&id, path, began)).await.expect("the epoch's row");
        store::commit(tx).await.expect("both rows");
        Recorded { bench: self, id, began, directory }
    }

    pub async fn account(&self, user: &str) -> quota::Model {
        let user = UserId::new(user);
        quota::load_or_make(self.deps.db.conn(), &user, self.now()).await.expect("an account")
    }

    /// Every account agrees with its clips.
    pub async fn assert_accounts_are_true(&self) {
        let tx = self.deps.db.begin().await.expect("a transaction");
        for audited in quota::audit(&tx).await.expect("an audit") {
            assert!(audited.is_true(), "{audited:?}");
        }
    }

    /// Files in the work directory.
    pub fn work_files(&self) -> usize {
        std::fs::read_dir(self.deps.work_dir()).map_or(0, Iterator::count)
    }
}

/// A session whose recording a test feeds.
pub struct Recorded<'a> {
    pub bench: &'a Bench,
    pub id: SessionId,
    pub began: Timestamp,
    pub directory: PathBuf,
}

impl Recorded<'_> {
    /// Writes segments `numbers` as egress does: the file first, then its line in the playlist.
    pub fn write(&self, numbers: std::ops::Range<u64>) {
        for number in numbers.clone() {
            let name = segment_file_name(number);
            std::fs::copy(recording().join(&name), self.directory.join(&name)).expect("a copy");
        }
        self.list(numbers.end);
    }

    /// What egress has done once a segment of the [`long_recording`] is closed: the file, then the live playlist of
    /// five.
    pub fn record(&self, number: u64) {
        let name = segment_file_name(number);
        let from = long_recording().join(&name);
        // in one go: workers whose clock is ahead would take a half written file for a truncated one
        let draft = self.directory.join("draft");
        std::fs::copy(from, &draft).expect("a copy");
        std::fs::rename(draft, self.directory.join(&name)).expect("its name");
        let text = self.playlist(number.saturating_sub(4)..number + 1);
        std::fs::write(self.directory.join("live.m3u8"), text).expect("the playlist");
    }

    /// Overwrites a segment with bytes that are no transport stream.
    pub fn spoil(&self, number: u64) {
        let path = self.directory.join(segment_file_name(number));
        std::fs::write(path, vec![7_u8; 188 * 40]).expect("a spoilt segment");
    }

    /// The event playlist with the first `count` segments.
    pub fn list(&self, count: u64) {
        std::fs::write(self.directory.join("index.m3u8"), self.playlist(0..count))
            .expect("the playlist");
    }

    fn playlist(&self, numbers: std::ops::Range<u64>) -> String {
        let mut text = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n".to_owned();
        for number in numbers {
            let at = self.began.plus_seconds(SEGMENT * i64::try_from(number).expect("small"));
            let name = segment_file_name(number);
            text += &format!("#EXT-X-PROGRAM-DATE-TIME:{at}\n#EXTINF:2.000,\n{name}\n");
        }
        text
    }

    /// Ends the session at the end of what is there.
    pub async fn end(&self, count: u64) {
        use livekit_replay::{domain::lifecycle::EndReason, store::Set};
        livekit_replay::flow::index::index_session(&self.bench.deps, &self.id)
            .await
            .expect("indexed");
        let db = &self.bench.deps.db;
        let at = self.began.plus_seconds(SEGMENT * i64::try_from(count).expect("small"));
        let change = epoch::ActiveModel {
            status: Set(epoch::EpochStatus::Ended),
            ended_at: Set(Some(at)),
            ..Default::default()
        };
        for epoch in epoch::list(db.conn(), &self.id).await.expect("the epochs") {
            let all = epoch::EpochStatus::ALL;
            epoch::update_if(db.conn(), &self.id, epoch.number, all, change.clone())
                .await
                .expect("the epoch ends");
        }
        let change = session::ActiveModel {
            status: Set(SessionStatus::Stopped),
            ended_at: Set(Some(at)),
            end_reason: Set(Some(EndReason::StoppedByUser)),
            capturable_until: Set(Some(self.bench.now().plus_seconds(600))),
            ..Default::default()
        };
        let tx = db.begin().await.expect("a transaction");
        let row = session::load(&tx, &self.id).await.expect("the session");
        session::give_up_place(&tx, &row, change).await.expect("the session ends");
        store::commit(tx).await.expect("ended");
    }

    /// A window of the recording, seconds from its begin.
    pub fn window(&self, from: i64, to: i64) -> Value {
        serde_json::json!({
            "sessionId": self.id,
            "from": self.began.plus_seconds(from),
            "to": self.began.plus_seconds(to),
        })
    }
}

/// The first epoch of a session that began to record then, its clock fixed.
pub fn epoch_row(session: &SessionId, path: String, began: Timestamp) -> epoch::Model {
    epoch::Model {
        session_id: session.clone(),
        number: 1,
        status: epoch::EpochStatus::Active,
        egress_id: Some(EgressId::new(format!("EG_{session}"))),
        path,
        video_track_id: TrackId::new("TR_video"),
        audio_track_id: Some(TrackId::new("TR_audio")),
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
    use sea_orm::ConnectionTrait;
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
