//! The service in this process on a free port, with the simulator as its LiveKit.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use livekit_replay::{
    access::token::{self, Verifier},
    clock::{SharedClock, ShiftedClock},
    config::*,
    domain::{
        id::InstanceId,
        names::{CommunityRule, CommunitySource, IdentityRule},
    },
    flow::{self, Deps, Wake},
    http, jobs,
    livekit::{client::Client, webhook::Receiver},
    simulator::{SimConfig, Simulator},
    store::{Connect, Db, schema},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct App {
    pub deps: Deps,
    pub base: String,
    pub sim: Simulator,
    pub http: reqwest::Client,
    pub dir: PathBuf,
    pub clock: Arc<ShiftedClock>,
    tasks: TaskTracker,
}

pub fn temp_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lkr-{name}-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    dir
}

impl App {
    pub async fn start(name: &str) -> App {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = temp_dir(name);
        let (buffer, clips) = (dir.join("buffer"), dir.join("clips"));
        std::fs::create_dir_all(&buffer).expect("buffer");
        std::fs::create_dir_all(&clips).expect("clips");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}/livekit-replay", listener.local_addr().expect("bound"));
        let sim = Simulator::start(SimConfig {
            webhook_urls: vec![format!("{base}/webhooks/livekit")],
            ..SimConfig::default()
        })
        .await
        .expect("the simulator starts");
        let url = match std::env::var("TEST_POSTGRES_URL") {
            Ok(url) if std::env::var("HARNESS_PG").is_ok() => url,
            _ => format!("sqlite://{}", dir.join("db.sqlite").display()),
        };
        let db =
            Db::connect(Connect { url: &url, max_connections: 8, create: true }).await.expect("db");
        schema::migrate_up(&url, &db).await.expect("schema");
        let config = config(&dir, &sim, url);
        let clock = Arc::new(ShiftedClock::default());
        let deps = Deps {
            livekit: Arc::new(Client::new(&config.livekit)),
            config: Arc::new(config),
            clock: clock.clone() as SharedClock,
            db,
            instance: InstanceId::new("0a1b2c3d"),
            replica: "r1".to_owned(),
            link_key: Arc::from(&b"0123456789abcdef0123456789abcdef"[..]),
            policy: Arc::default(),
            wake: Arc::new(Wake::default()),
            presence: Arc::default(),
            stores: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        flow::authorize::seed_default_rules(&deps).await.expect("rules");
        let state = http::AppState {
            webhooks: Arc::new(Receiver::new(&deps.config.livekit)),
            verifier: Arc::new(Verifier::new(&deps.config.auth).expect("auth")),
            figures: None,
            maintenance: Arc::new(flow::upkeep::Jobs),
            deps: deps.clone(),
        };
        let tasks = TaskTracker::new();
        let stop = deps.stop.clone();
        tasks.spawn(async move {
            axum::serve(listener, http::router(state))
                .with_graceful_shutdown(stop.cancelled_owned())
                .await
                .expect("serving");
        });
        tasks.spawn(jobs::run(deps.clone()));
        tasks.spawn(flow::index::run(deps.clone()));
        tasks.spawn(flow::supervise::run(deps.clone()));
        App { deps, base, sim, http: reqwest::Client::new(), dir, clock, tasks }
    }

    pub fn token(&self, user: &str) -> String {
        let claims = json!({ "app": ["moderator"], "red": ["moderator"] });
        let communities = serde_json::from_value(claims).expect("roles");
        let claims = token::Claims {
            user_id: &livekit_replay::domain::id::UserId::new(user),
            name: Some(user),
            communities: &communities,
            roles: &[],
            lifetime: Duration::from_secs(86_400),
        };
        token::mint(&self.deps.config.auth, &claims, self.deps.clock.now()).expect("a token")
    }

    pub async fn post(&self, user: &str, path: &str, body: Value) -> (u16, Value) {
        let sent = self
            .http
            .post(format!("{}{path}", self.base))
            .bearer_auth(self.token(user))
            .json(&body);
        answer(sent).await
    }

    pub async fn get(&self, user: &str, path: &str) -> (u16, Value) {
        answer(self.http.get(format!("{}{path}", self.base)).bearer_auth(self.token(user))).await
    }

    /// POST that waits for the outcome as long as the service lets it.
    pub async fn post_waiting(&self, user: &str, path: &str, body: Value) -> (u16, Value) {
        let sent = self.http.post(format!("{}{path}", self.base)).header("Prefer", "wait=60");
        answer(sent.bearer_auth(self.token(user)).json(&body)).await
    }

    /// The bytes behind a signed link.
    pub async fn download(&self, link: &str) -> bytes::Bytes {
        let root = self.base.trim_end_matches("/livekit-replay");
        let response = self.http.get(format!("{root}{link}")).send().await.expect("an answer");
        assert!(response.status().is_success(), "{link}: {}", response.status());
        response.bytes().await.expect("the bytes")
    }

    /// Starts a buffer and answers its id.
    pub async fn start_session(&self, user: &str, room: &str) -> String {
        let (status, session) = self.post(user, "/start", json!({"roomName": room})).await;
        assert_eq!(status, 201, "{session:#}");
        session["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until a session's buffer holds that many seconds.
    pub async fn wait_for_buffer(&self, user: &str, session: &str, seconds: f64) {
        self.until("the buffer is long enough", async || {
            let (_, shown) = self.get(user, &format!("/sessions/{session}")).await;
            shown["buffer"]["durationSeconds"].as_f64().is_some_and(|held| held >= seconds)
        })
        .await;
    }

    /// Waits until something is so; fails after three minutes.
    pub async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let waiting = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(180), waiting).await;
        assert!(waited.is_ok(), "still not: {what}");
    }

    pub async fn stop(self) {
        self.deps.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.deps.tasks.close();
        self.deps.tasks.wait().await;
        self.sim.shutdown().await;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

fn config(dir: &std::path::Path, sim: &Simulator, url: String) -> Config {
    let secs = Duration::from_secs;
    Config {
        data_dir: dir.to_owned(),
        database: Database { url: SecretString::from(url), max_connections: 8 },
        server: Server {
            host: "127.0.0.1".parse().expect("ip"),
            port: 0,
            public_url: None,
            trusted_proxies: vec![],
            cors_origins: vec![],
            shutdown: secs(30),
            max_wait: secs(60),
            link_secret: None,
        },
        auth: Auth {
            jwt_secret: Some(SecretString::from("0123456789abcdef0123456789abcdef-app")),
            issuer: None,
            audience: None,
            leeway: secs(10),
            claim_communities: true,
            claim_roles: true,
        },
        livekit: Livekit {
            url: sim.url(),
            api_key: sim.api_key().to_owned(),
            api_secret: SecretString::from(sim.api_secret().to_owned()),
            webhook_keys: vec![],
            egress_output_path: dir.join("buffer"),
            start_timeout: secs(60),
            pipeline_delay: None,
            identity_pattern: IdentityRule::new("^(?<user>[^:]+)").expect("pattern"),
        },
        rooms: CommunityRule::new(
            Some("^(?<community>[a-z]+)-"),
            vec![CommunitySource::Pattern, CommunitySource::Metadata],
        )
        .expect("rule"),
        buffer: Buffer {
            length: secs(600),
            cleanup: secs(720),
            segment: secs(2),
            grace: secs(600),
            no_segment: secs(21),
            max_epoch: secs(12 * 3600),
        },
        sessions: Sessions { rejoin: secs(20), audio_wait: secs(2), orphan_max: secs(3 * 3600) },
        capture: Capture {
            wait: secs(15),
            tail_wait: secs(16),
            workers: 2,
            deadline_factor: 2.0,
            stall: secs(30),
            failed_keep: secs(3600),
        },
        clips: Clips { link_ttl: secs(3600) },
        limits: Limits {
            user_quota_bytes: 5 << 30,
            community_max_concurrent: 5,
            community_ceiling: 25,
            clip_max: secs(600),
        },
        rate_limits: RateLimits {
            start_per_minute: 0,
            capture_per_minute: 0,
            delete_per_minute: 0,
        },
        storage: Storage {
            buffer: dir.join("buffer"),
            clips: dir.join("clips"),
            buffer_dir_mode: 0o2770,
            buffer_gid: None,
            min_free_bytes: 256 << 20,
            high_percent: 85,
            critical_percent: 98,
        },
        jobs: Jobs {
            segment_cleanup: "0 */5 * * * *".into(),
            orphan_reaper: "30 * * * * *".into(),
            reconcile: "0 * * * * *".into(),
            workdir_sweep: "15 * * * * *".into(),
            quota_audit: "0 0 3 * * *".into(),
            storage_probe: "*/30 * * * * *".into(),
        },
        log: "info".into(),
    }
}

/// The real clock, milliseconds.
pub fn now_ms() -> i64 {
    use livekit_replay::clock::Clock;
    livekit_replay::clock::SystemClock.now().as_millis()
}
