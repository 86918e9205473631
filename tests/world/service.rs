//! The program with places of its own, as a process that can die and be started again; and what asks it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use livekit_replay::{
    access::token::{self, Claims},
    clock::{Clock, SystemClock},
    config::Config,
    domain::id::{CommunityId, UserId},
    simulator::{EgressConfig, SimConfig, Simulator},
};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::{
    process::Process,
    support::{On, Place},
};

/// Communities that rooms belong to by their names (`red-…`).
pub const COMMUNITIES: [&str; 2] = ["red", "blue"];

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    /// The service answered.
    Said(u16, Value),
    /// It was not there: the request never arrived.
    Absent,
    /// The connection broke: nobody knows.
    Broken,
}

pub struct Service {
    pub place: Place,
    pub sim: Simulator,
    pub config: Config,
    pub on: On,
    /// Checksums of clips that were decoded.
    pub decoded: std::sync::Mutex<BTreeSet<String>>,
    pub process: Process,
    more: Vec<(&'static str, &'static str)>,
    http: reqwest::Client,
}

impl Service {
    /// The places and LiveKit; nothing runs yet.
    pub async fn new(on: On) -> Service {
        Service::with(on, &[]).await
    }

    /// With further environment variables.
    pub async fn with(on: On, more: &[(&'static str, &'static str)]) -> Service {
        Service::at(Place::new(on).await, on, more).await
    }

    /// In that place.
    pub async fn at(place: Place, on: On, more: &[(&'static str, &'static str)]) -> Service {
        let egress = EgressConfig::measured();
        let sim = Simulator::start(SimConfig { egress, ..SimConfig::default() }).await.unwrap();
        let config = place.config(&sim, &[]);
        let process = Process::new(&place.dir, "service", settings(&place, &sim, &config, more));
        Service {
            place,
            sim,
            config,
            on,
            decoded: std::sync::Mutex::default(),
            process,
            more: more.to_vec(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
        }
    }

    /// Starts the process; `drill` is the place where it is to die.
    pub async fn spawn(&self, drill: Option<&str>) {
        self.process.spawn(drill).await;
    }

    /// Waits until the process says where it listens.
    pub async fn ready(&self) {
        let base = self.process.ready().await;
        self.sim.set_webhook_urls(vec![format!("{base}/webhooks/livekit")]);
    }

    /// [`spawn`](Self::spawn) and [`ready`](Self::ready).
    pub async fn start(&self, drill: Option<&str>) {
        let base = self.process.start(drill).await;
        self.sim.set_webhook_urls(vec![format!("{base}/webhooks/livekit")]);
    }

    /// `kill -9`, at once.
    pub async fn kill(&self) {
        self.process.kill().await;
    }

    /// Waits until the process has died of its drill.
    pub async fn dies_of(&self, drill: &str) {
        self.process.dies_of(drill).await;
    }

    /// One more process on the same database, stores and LiveKit; webhooks go to the first.
    pub async fn replica(&self, name: &str) -> Process {
        let process = self.replica_at_rest(name);
        process.start(None).await;
        process
    }

    /// The same, not started yet.
    pub fn replica_at_rest(&self, name: &str) -> Process {
        let mut settings = settings(&self.place, &self.sim, &self.config, &self.more);
        let data = self.place.dir.join(name).display().to_string();
        settings.iter_mut().filter(|(key, _)| *key == "REPLAY__DATA_DIR").for_each(|(_, dir)| {
            dir.clone_from(&data);
        });
        Process::new(&self.place.dir, name, settings)
    }

    /// The end of the log, for those who look into a failure.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits while nobody listens.
    pub async fn up(&self) {
        self.process.up().await;
    }

    pub async fn ask(
        &self,
        method: Method,
        user: &str,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        self.ask_of(&self.process, method, user, path, shape).await
    }

    /// [`ask`](Self::ask) of a certain process.
    pub async fn ask_of(
        &self,
        process: &Process,
        method: Method,
        user: &str,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        if process.base().is_none() {
            return Answer::Absent;
        }
        match self.send(process, method, user, path, shape).await {
            Ok(response) => {
                let status = response.status().as_u16();
                // the status line has been seen: the answer counts, even if the rest of it is lost
                Answer::Said(status, response.json().await.unwrap_or(Value::Null))
            }
            Err(error) if error.is_connect() => Answer::Absent,
            Err(_) => Answer::Broken,
        }
    }

    /// The answer with its headers.
    pub async fn send(
        &self,
        process: &Process,
        method: Method,
        user: &str,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> reqwest::Result<reqwest::Response> {
        // one that was killed a moment ago is asked where nobody listens
        let base = process.base().unwrap_or_else(|| "http://127.0.0.1:1".to_owned());
        let request = self.http.request(method, format!("{base}{path}"));
        shape(request.bearer_auth(self.token(user))).send().await
    }

    /// Asks what must be answered with 2xx.
    pub async fn must(&self, method: Method, user: &str, path: &str, body: Option<Value>) -> Value {
        let named = format!("{method} {path} by {user}");
        let shape = |request: RequestBuilder| match &body {
            Some(body) => request.json(body),
            None => request,
        };
        match self.ask(method, user, path, shape).await {
            Answer::Said(status, value) if (200..300).contains(&status) => value,
            other => panic!("{named}: {other:?}\n{}", self.log()),
        }
    }

    /// A moderator of both communities; `root` is an instance admin, `watch` an admin of both communities.
    fn token(&self, user: &str) -> String {
        let roles: Vec<String> =
            if user == "root" { vec!["instance_admin".to_owned()] } else { Vec::new() };
        let role = if user == "watch" { "admin" } else { "moderator" };
        let communities: BTreeMap<CommunityId, Vec<String>> = COMMUNITIES
            .iter()
            .map(|name| (CommunityId::new(*name), vec![role.to_owned()]))
            .collect();
        let claims = Claims {
            user_id: &UserId::new(user),
            name: Some(user),
            communities: &communities,
            roles: &roles,
            lifetime: Duration::from_secs(3600),
        };
        token::mint(&self.config.auth, &claims, SystemClock.now()).unwrap()
    }

    /// Ends the process by SIGTERM, which must go well, and removes everything.
    pub async fn close(self) {
        self.process.end().await;
        self.sim.shutdown().await;
        self.place.remove().await;
    }
}

/// The environment of a process.
fn settings(
    place: &Place,
    sim: &Simulator,
    config: &Config,
    more: &[(&'static str, &'static str)],
) -> Vec<(&'static str, String)> {
    let text = |text: &str| text.to_owned();
    let path = |path: &std::path::Path| path.display().to_string();
    let own = vec![
        ("PATH", std::env::var("PATH").unwrap()),
        ("RUST_LOG", text("info")),
        ("REPLAY__DATA_DIR", path(&config.data_dir)),
        ("DATABASE_URL", place.database_url.clone()),
        ("JWT_SECRET", text("a-secret-that-tests-alone-know-of")),
        ("PORT", text("0")),
        ("LIVEKIT_URL", sim.url()),
        ("LIVEKIT_API_KEY", sim.api_key().to_owned()),
        ("LIVEKIT_API_SECRET", sim.api_secret().to_owned()),
        ("REPLAY__LIVEKIT__START_TIMEOUT_SECONDS", text("5")),
        ("REPLAY__LIVEKIT__IDENTITY_PATTERN", text("^(?<user>[^:]+)")),
        ("REPLAY__ROOMS__COMMUNITY_PATTERN", text("^(?<community>[a-z]+)-")),
        ("REPLAY_BUFFER_PATH", path(&config.storage.buffer)),
        ("REPLAY_STORAGE_PATH", path(&config.storage.clips)),
        ("REPLAY__STORAGE__MIN_FREE_BYTES", text("0")),
        ("REPLAY_SEGMENT_DURATION_SECONDS", text("1")),
        ("REPLAY__RATE_LIMITS__START_PER_MINUTE", text("0")),
        ("REPLAY__RATE_LIMITS__CAPTURE_PER_MINUTE", text("0")),
        ("REPLAY__RATE_LIMITS__DELETE_PER_MINUTE", text("0")),
        ("REPLAY__JOBS__RECONCILE", text("*/2 * * * * *")),
        ("REPLAY__JOBS__ORPHAN_REAPER", text("*/2 * * * * *")),
        ("REPLAY__JOBS__WORKDIR_SWEEP", text("*/2 * * * * *")),
        // when a test says so, and never: accounts have to be right without being corrected
        ("REPLAY__JOBS__SEGMENT_CLEANUP", text("0 0 0 1 1 *")),
        ("REPLAY__JOBS__QUOTA_AUDIT", text("0 0 0 1 1 *")),
    ];
    let changed = |name: &str| more.iter().any(|(other, _)| *other == name);
    let mut all: Vec<_> = own.into_iter().filter(|(name, _)| !changed(name)).collect();
    all.extend(more.iter().map(|(name, value)| (*name, text(value))));
    all
}
