//! The service in this process on a free port, with the simulator as its LiveKit.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use livekit_replay::{
    access::token::{self, Verifier},
    clock::{SharedClock, ShiftedClock},
    config::Config,
    domain::id::{CommunityId, InstanceId, UserId},
    flow::{self, Deps, Wake, stores, upkeep},
    http, jobs,
    livekit::{client::Client, webhook::Receiver},
    simulator::{EgressConfig, Sim, SimConfig, Simulator},
    store::schema,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub mod database;
pub mod hooks;
mod settings;

pub(crate) use database::on_both_engines;
pub use database::{Engine, dump};

/// The instance of every service under test, but for those that are to be another one.
pub const INSTANCE: &str = "0a1b2c3d";

/// A replica: the service with its loops.
pub struct App {
    pub deps: Deps,
    pub base: String,
    pub sim: Sim,
    pub http: reqwest::Client,
    pub dir: PathBuf,
    pub clock: Arc<ShiftedClock>,
    ground: Arc<Ground>,
    tasks: TaskTracker,
}

/// What replicas share.
struct Ground {
    dir: PathBuf,
    simulator: Simulator,
    database: database::Own,
    clock: Arc<ShiftedClock>,
    setup: Setup,
    replicas: AtomicU32,
}

/// How a test wants its service.
pub struct Setup {
    pub engine: Engine,
    pub instance: &'static str,
    /// Which loops run from the start.
    pub loops: Loops,
    /// Whether LiveKit's webhooks arrive.
    pub webhooks: bool,
    pub egress: EgressConfig,
    /// Applied to the settings of every replica.
    pub change: Box<dyn Fn(&mut Config) + Send + Sync>,
}

/// Which loops of a service run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    All,
    /// Segments are found and sessions supervised, but no clip is made.
    NoJobs,
    /// Nothing happens that is not asked for.
    None,
}

impl Setup {
    pub fn on(engine: Engine) -> Setup {
        Setup {
            engine,
            instance: INSTANCE,
            loops: Loops::All,
            webhooks: true,
            egress: EgressConfig::default(),
            change: Box::new(|_| {}),
        }
    }

    pub fn change(mut self, change: impl Fn(&mut Config) + Send + Sync + 'static) -> Setup {
        self.change = Box::new(change);
        self
    }

    pub fn loops(mut self, loops: Loops) -> Setup {
        self.loops = loops;
        self
    }

    pub fn without_webhooks(mut self) -> Setup {
        self.webhooks = false;
        self
    }

    pub async fn start(self, name: &str) -> App {
        let dir = temp_dir(name);
        self.start_in(dir).await
    }

    /// In a directory made by the caller; it goes with the service.
    pub async fn start_in(self, dir: PathBuf) -> App {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let sim = SimConfig { egress: self.egress.clone(), ..SimConfig::default() };
        let simulator = Simulator::start(sim).await.expect("the simulator starts");
        for store in ["buffer", "clips"] {
            std::fs::create_dir_all(dir.join(store)).expect("a store");
            mark(&dir.join(store), self.instance);
        }
        let database = database::Own::make(&self.engine, &dir).await;
        let db = database.open(1).await;
        schema::migrate_up(&database.url, &db).await.expect("schema");
        db.close().await.expect("closed");
        let webhooks = self.webhooks;
        let ground = Ground {
            dir,
            simulator,
            database,
            clock: Arc::new(ShiftedClock::default()),
            setup: self,
            replicas: AtomicU32::new(0),
        };
        let app = App::join(Arc::new(ground)).await;
        if webhooks {
            app.sim.set_webhook_urls(vec![format!("{}/webhooks/livekit", app.base)]);
        }
        app
    }
}

/// Writes the file that says whose a store is, as starting the service does.
pub fn mark(store: &Path, instance: &str) {
    let marker = json!({ "instanceId": instance }).to_string();
    std::fs::write(store.join(stores::MARKER), marker).expect("a marker");
}

pub fn temp_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lkr-{name}-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    dir
}

impl App {
    /// On SQLite, or on PostgreSQL with `HARNESS_PG`; all loops.
    pub async fn start(name: &str) -> App {
        let engine = match std::env::var("HARNESS_PG") {
            Ok(_) => Engine::postgres().expect("a server"),
            Err(_) => Engine::Sqlite,
        };
        Setup::on(engine).start(name).await
    }

    /// One more replica: same database, same stores, same LiveKit, same clock. Webhooks go to the first.
    pub async fn replica(&self) -> App {
        App::join(self.ground.clone()).await
    }

    async fn join(ground: Arc<Ground>) -> App {
        let sim = Sim::clone(&ground.simulator);
        let mut config = settings::settings(&ground.dir, &sim, ground.database.url.clone());
        (ground.setup.change)(&mut config);
        let number = ground.replicas.fetch_add(1, Ordering::Relaxed) + 1;
        let deps = Deps {
            livekit: Arc::new(Client::new(&config.livekit)),
            db: ground.database.open(config.database.max_connections).await,
            config: Arc::new(config),
            clock: ground.clock.clone() as SharedClock,
            instance: InstanceId::new(ground.setup.instance),
            replica: format!("r{number}"),
            link_key: Arc::from(&b"0123456789abcdef0123456789abcdef"[..]),
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
        flow::authorize::seed_default_rules(&deps).await.expect("rules");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}/livekit-replay", listener.local_addr().expect("bound"));
        let state = http::AppState {
            webhooks: Arc::new(Receiver::new(&deps.config.livekit)),
            verifier: Arc::new(Verifier::new(&deps.config.auth).expect("auth")),
            maintenance: Arc::new(upkeep::Jobs),
            figures: Some(figures()),
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
        let (dir, clock) = (ground.dir.clone(), ground.clock.clone());
        let loops = ground.setup.loops;
        let app = App { deps, base, sim, http: reqwest::Client::new(), dir, clock, ground, tasks };
        if loops == Loops::All {
            app.run_jobs();
        }
        if loops != Loops::None {
            app.run_loops();
        }
        app
    }

    /// From now on clips are made.
    pub fn run_jobs(&self) {
        self.tasks.spawn(jobs::run(self.deps.clone()));
    }

    /// From now on segments are found and sessions supervised.
    pub fn run_loops(&self) {
        self.tasks.spawn(flow::index::run(self.deps.clone()));
        self.tasks.spawn(flow::supervise::run(self.deps.clone()));
        self.run_events();
    }

    /// From now on events are told.
    pub fn run_events(&self) {
        self.tasks.spawn(flow::events::run(self.deps.clone()));
        self.tasks.spawn(flow::events::webhooks::run(self.deps.clone()));
    }

    /// A moderator of the communities `app` and `red`.
    pub fn token(&self, user: &str) -> String {
        self.token_of(user, &json!({ "app": ["moderator"], "red": ["moderator"] }), &[])
    }

    pub fn token_of(&self, user: &str, communities: &Value, roles: &[&str]) -> String {
        let communities: BTreeMap<CommunityId, Vec<String>> =
            serde_json::from_value(communities.clone()).expect("roles by community");
        let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
        let claims = token::Claims {
            user_id: &UserId::new(user),
            name: Some(user),
            communities: &communities,
            roles: &roles,
            lifetime: Duration::from_secs(86_400),
        };
        token::mint(&self.deps.config.auth, &claims, self.deps.clock.now()).expect("a token")
    }

    pub async fn post(&self, user: &str, path: &str, body: Value) -> (u16, Value) {
        self.post_as(&self.token(user), path, body).await
    }

    pub async fn post_as(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        let sent = self.http.post(format!("{}{path}", self.base)).bearer_auth(token);
        answer(sent.json(&body)).await
    }

    /// POST whose answer does not wait for the clip.
    pub async fn post_async(&self, user: &str, path: &str, body: Value) -> (u16, Value) {
        let sent = self.http.post(format!("{}{path}", self.base)).bearer_auth(self.token(user));
        answer(sent.header("Prefer", "respond-async").json(&body)).await
    }

    pub async fn patch_as(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        let sent = self.http.patch(format!("{}{path}", self.base)).bearer_auth(token).json(&body);
        answer(sent).await
    }

    pub async fn get(&self, user: &str, path: &str) -> (u16, Value) {
        self.get_as(&self.token(user), path).await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> (u16, Value) {
        answer(self.http.get(format!("{}{path}", self.base)).bearer_auth(token)).await
    }

    /// The token of an instance admin.
    pub fn admin(&self) -> String {
        self.token_of("root", &json!({}), &["instance_admin"])
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

    /// Waits until LiveKit says that of a session's newest egress.
    pub async fn wait_for_egress(&self, egress: &str, status: &str) {
        self.until(status, async || {
            self.sim.egresses().iter().any(|one| one.egress_id == egress && one.status == status)
        })
        .await;
    }

    /// Waits until something is so; fails after three minutes.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let waiting = async {
                while !is_so().await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(180), waiting).await;
            assert!(waited.is_ok(), "still not: {what} ({place})");
        }
    }

    /// How often LiveKit was called that way.
    pub fn calls(&self, method: &str) -> usize {
        self.sim.calls().iter().filter(|call| call.method == method).count()
    }

    /// Ends this replica; the last one takes database, directory and LiveKit with it.
    pub async fn stop(self) {
        self.deps.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.deps.tasks.close();
        self.deps.tasks.wait().await;
        self.deps.db.close().await.expect("closed");
        if let Some(ground) = Arc::into_inner(self.ground) {
            ground.simulator.shutdown().await;
            ground.database.drop_it().await;
            let _ = std::fs::remove_dir_all(&ground.dir);
        }
    }
}

/// The recorder of this process, installed once.
fn figures() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder();
    HANDLE.get_or_init(|| install().expect("the only recorder")).clone()
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// The real clock, milliseconds.
pub fn now_ms() -> i64 {
    use livekit_replay::clock::Clock;
    livekit_replay::clock::SystemClock.now().as_millis()
}
