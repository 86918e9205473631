//! A door with a real database behind it, on either engine, and a LiveKit that knows no room.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use livekit_replay::{
    access::token::{self, Claims, Verifier},
    clock::{Clock, ManualClock},
    config::{
        Auth, Buffer, Capture, Clips, Config, Database, Jobs, Limits, Livekit, Muxer, RateLimits,
        Server, Sessions, Storage,
    },
    domain::{
        id::{CommunityId, EgressId, InstanceId, RoomName, UserId},
        names::{CommunityRule, IdentityRule},
        share::Participant,
        time::Timestamp,
    },
    error::{Code, Error, Result},
    flow::{
        Deps, authorize,
        maintenance::{JobReport, Maintenance, Run},
    },
    http::{self, AppState},
    livekit::{EgressFact, EgressOrder, LiveKit, Stopped, webhook::Receiver},
    store::{Connect, Db, schema},
};
use sea_orm::ConnectionTrait;
use serde_json::Value;
use tower::ServiceExt;

#[path = "../support/postgres_url.rs"]
mod postgres_url;

pub const SECRET: &str = "a-test-secret-of-more-than-32-bytes!";

/// Names a test for each engine; the PostgreSQL one does nothing without `TEST_POSTGRES_URL`.
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let house = $crate::support::House::on_sqlite().await;
                super::$name(&house).await;
                house.tear_down().await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(house) = $crate::support::House::on_postgres().await else { return };
                super::$name(&house).await;
                house.tear_down().await;
            })+
        }
    };
}

pub struct House {
    pub state: AppState,
    pub router: Router,
    pub clock: Arc<ManualClock>,
    directory: PathBuf,
    server_and_name: Option<(String, String)>,
}

pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// Asserts that this is a problem of ours with that code, and gives its body.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let kind = self.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{}", self.text);
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        for member in ["type", "title", "detail", "requestId"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
        }
        assert_eq!(body["requestId"], self.headers["x-request-id"].to_str().unwrap());
        body
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    #[track_caller]
    pub fn no_content(&self) {
        assert_eq!(self.status, StatusCode::NO_CONTENT, "{}", self.text);
    }
}

impl House {
    pub async fn on_sqlite() -> House {
        let directory = fresh_directory();
        let url = format!("sqlite://{}", directory.join("test.db").display());
        House::build(directory, url, None).await
    }

    pub async fn on_postgres() -> Option<House> {
        let server = postgres_url::postgres_url()?;
        let name = format!("lkr_test_{}", uuid::Uuid::new_v4().simple());
        on_server(&server, &format!("CREATE DATABASE {name}")).await;
        let (base, _) = server.rsplit_once('/').expect("a server URL ends with a database");
        let url = format!("{base}/{name}");
        Some(House::build(fresh_directory(), url, Some((server, name))).await)
    }

    async fn build(
        directory: PathBuf,
        url: String,
        server_and_name: Option<(String, String)>,
    ) -> House {
        let db = Db::connect(Connect { url: &url, max_connections: 4, create: true })
            .await
            .expect("the database opens");
        schema::migrate_up(&url, &db).await.expect("the schema comes up");
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
        let deps = Deps {
            config: Arc::new(config(&directory, &url)),
            clock: clock.clone(),
            db,
            livekit: Arc::new(NoRooms),
            instance: InstanceId::new("0badcafe"),
            replica: "r1".to_owned(),
            link_key: Arc::from(&b"key"[..]),
            policy: Arc::default(),
            wake: Arc::default(),
            stores: Arc::default(),
            places: Arc::default(),
            filmstrips: Arc::default(),
            posters: Arc::default(),
            presence: Arc::default(),
            shares_seen: Arc::default(),
            walks: Arc::default(),
            tasks: Default::default(),
            stop: Default::default(),
        };
        authorize::seed_default_rules(&deps).await.expect("the default rules are written");
        let state = AppState {
            verifier: Arc::new(Verifier::new(&deps.config.auth).expect("a good secret")),
            webhooks: Arc::new(Receiver::new(&deps.config.livekit)),
            maintenance: Arc::new(OneJob),
            figures: Some(figures()),
            deps,
        };
        let router = http::router(state.clone());
        House { state, router, clock, directory, server_and_name }
    }

    pub async fn tear_down(self) {
        let House { state, router, directory, server_and_name, .. } = self;
        drop(router);
        state.deps.db.clone().close().await.expect("the pool closes");
        if let Some((server, name)) = server_and_name {
            on_server(&server, &format!("DROP DATABASE {name}")).await;
        }
        std::fs::remove_dir_all(directory).expect("our own directory goes");
    }

    /// The same house under other settings.
    pub fn with(&self, change: impl FnOnce(&mut Config)) -> Router {
        let mut state = self.state.clone();
        let mut config = (*state.deps.config).clone();
        change(&mut config);
        state.verifier = Arc::new(Verifier::new(&config.auth).expect("a good secret"));
        state.deps.config = Arc::new(config);
        http::router(state)
    }

    pub fn now_seconds(&self) -> i64 {
        self.clock.now().as_micros() / 1_000_000
    }

    /// A token of a user without roles.
    pub fn token(&self, user: &str) -> String {
        self.token_with(user, &[], &[])
    }

    pub fn admin(&self) -> String {
        self.token_with("root", &[], &["instance_admin"])
    }

    pub fn token_with(
        &self,
        user: &str,
        communities: &[(&str, &[&str])],
        roles: &[&str],
    ) -> String {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let communities: BTreeMap<CommunityId, Vec<String>> =
            communities.iter().map(|(id, names)| (CommunityId::new(*id), owned(names))).collect();
        let roles: Vec<String> = owned(roles);
        let claims = Claims {
            user_id: &UserId::new(user),
            name: None,
            communities: &communities,
            roles: &roles,
            lifetime: Duration::from_secs(3600),
        };
        token::mint(&self.state.deps.config.auth, &claims, self.clock.now()).expect("minted")
    }

    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&str>,
    ) -> Answered {
        ask(&self.router, method, path, token, body).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answered {
        self.ask(Method::GET, path, token, None).await
    }
}

pub async fn ask(
    router: &Router,
    method: Method,
    path: &str,
    token: &str,
    body: Option<&str>,
) -> Answered {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    send(router, request.body(Body::from(body.unwrap_or_default().to_owned())).unwrap()).await
}

pub async fn send(router: &Router, request: Request<Body>) -> Answered {
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 8 << 20).await.expect("the body is read");
    Answered {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn figures() -> metrics_exporter_prometheus::PrometheusHandle {
    static HANDLE: std::sync::OnceLock<metrics_exporter_prometheus::PrometheusHandle> =
        std::sync::OnceLock::new();
    let install = || metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder();
    HANDLE.get_or_init(|| install().expect("the recorder is installed once")).clone()
}

async fn on_server(url: &str, statement: &str) {
    let server = Db::connect(Connect { url, max_connections: 1, create: false })
        .await
        .expect("the server answers");
    server.conn().execute_unprepared(statement).await.expect("the statement runs");
    server.close().await.expect("the pool closes");
}

fn fresh_directory() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("lkr-door-{}", uuid::Uuid::new_v4()));
    for part in ["buffer", "clips"] {
        std::fs::create_dir_all(directory.join(part)).expect("a directory of our own");
        let marker = directory.join(part).join(".livekit-replay.json");
        std::fs::write(marker, r#"{"instanceId":"0badcafe"}"#).expect("a store is marked");
    }
    directory
}

fn config(directory: &std::path::Path, url: &str) -> Config {
    let seconds = Duration::from_secs;
    Config {
        data_dir: directory.to_owned(),
        database: Database { url: url.into(), max_connections: 4 },
        server: Server {
            host: [127, 0, 0, 1].into(),
            port: 0,
            public_url: None,
            trusted_proxies: Vec::new(),
            cors_origins: vec!["https://app.example".to_owned()],
            shutdown: seconds(1),
            max_wait: seconds(60),
            link_secret: None,
        },
        auth: Auth::with_secret(SECRET),
        livekit: Livekit {
            url: "http://127.0.0.1:1".to_owned(),
            api_key: "key".to_owned(),
            api_secret: "another-secret-of-more-than-32-bytes".into(),
            webhook_keys: Vec::new(),
            egress_output_path: "/out".into(),
            start_timeout: seconds(5),
            pipeline_delay: None,
            identity_pattern: IdentityRule::new("^(?<user>.+)$").expect("a good pattern"),
        },
        rooms: CommunityRule::new(None, Vec::new()).expect("no pattern is fine"),
        buffer: Buffer {
            length: seconds(600),
            cleanup: seconds(720),
            segment: seconds(2),
            grace: seconds(600),
            no_segment: seconds(21),
            max_epoch: seconds(43_200),
        },
        sessions: Sessions {
            rejoin: seconds(20),
            audio_wait: seconds(2),
            orphan_max: seconds(10_800),
        },
        capture: Capture {
            muxer: Muxer::Auto,
            wait: seconds(1),
            tail_wait: seconds(1),
            workers: 1,
            queue: 1000,
            queue_per_user: 100,
            deadline_factor: 2.0,
            stall: seconds(30),
            failed_keep: seconds(3600),
        },
        clips: Clips { link_ttl: seconds(3600) },
        limits: Limits {
            user_quota_bytes: 1000,
            community_max_concurrent: 5,
            community_ceiling: 25,
            clip_max: seconds(600),
        },
        rate_limits: RateLimits {
            start_per_minute: 3,
            capture_per_minute: 0,
            delete_per_minute: 2,
            filmstrip_per_minute: 0,
        },
        storage: Storage {
            buffer: directory.join("buffer"),
            clips: directory.join("clips"),
            buffer_dir_mode: 0o2770,
            buffer_gid: None,
            min_free_bytes: 0,
            high_percent: 85,
            critical_percent: 98,
        },
        share: None,
        webhooks: vec![],
        jobs: Jobs {
            segment_cleanup: "0 */5 * * * *".to_owned(),
            orphan_reaper: "30 * * * * *".to_owned(),
            reconcile: "0 * * * * *".to_owned(),
            workdir_sweep: "15 * * * * *".to_owned(),
            quota_audit: "0 0 3 * * *".to_owned(),
            storage_probe: "*/30 * * * * *".to_owned(),
        },
        log: "info".to_owned(),
    }
}

/// Answers, and knows no room.
#[derive(Debug)]
struct NoRooms;

#[async_trait]
impl LiveKit for NoRooms {
    async fn start_egress(&self, _: &EgressOrder) -> Result<EgressFact> {
        Err(Error::new(Code::LivekitUnreachable, "There is no room to record."))
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

/// A schedule of one job that counts what it was told.
#[derive(Debug)]
struct OneJob;

#[async_trait]
impl Maintenance for OneJob {
    async fn list(&self, _: &Deps) -> Result<Vec<JobReport>> {
        Ok(vec![JobReport {
            name: "reconcile".to_owned(),
            schedule: "0 * * * * *".to_owned(),
            last_run: None,
            next_run_at: None,
            overdue: false,
        }])
    }
    async fn run(&self, deps: &Deps, job: &str, dry_run: bool) -> Result<Run> {
        if job != "reconcile" {
            return Err(Error::not_found("job"));
        }
        let now = deps.clock.now();
        let counts = [("dryRun".to_owned(), dry_run.into())].into_iter().collect();
        Ok(Run { started_at: now, ended_at: Some(now), outcome: Some("ok".to_owned()), counts })
    }
}
