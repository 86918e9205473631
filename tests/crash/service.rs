//! The program as a child process with places of its own, which can die and be started again; and what asks it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Stdio,
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
use tokio::{
    process::{Child, Command},
    sync::{Mutex, watch},
};

use crate::support::{On, Place};

/// SIGABRT and SIGKILL.
const ABORTED: i32 = 6;
const KILLED: i32 = 9;
/// Communities that rooms belong to by their names (`red-…`).
pub const COMMUNITIES: [&str; 2] = ["red", "blue"];
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    http: reqwest::Client,
    child: Mutex<Option<Child>>,
    base: watch::Sender<Option<String>>,
    log: PathBuf,
    /// Where in the log the running process began.
    log_from: std::sync::atomic::AtomicU64,
}

impl Service {
    /// The places and LiveKit; nothing runs yet.
    pub async fn new(on: On) -> Service {
        let place = Place::new(on).await;
        let egress = EgressConfig::measured();
        let sim = Simulator::start(SimConfig { egress, ..SimConfig::default() }).await.unwrap();
        let config = place.config(&sim, &[]);
        let log = place.dir.join("service.log");
        std::fs::write(&log, "").unwrap();
        Service {
            place,
            sim,
            config,
            on,
            decoded: std::sync::Mutex::default(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
            child: Mutex::new(None),
            base: watch::Sender::new(None),
            log,
            log_from: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let text = |text: &str| text.to_owned();
        let path = |path: &std::path::Path| path.display().to_string();
        vec![
            ("PATH", std::env::var("PATH").unwrap()),
            ("RUST_LOG", text("info")),
            ("REPLAY__DATA_DIR", path(&config.data_dir)),
            ("DATABASE_URL", self.place.database_url.clone()),
            ("JWT_SECRET", text("a-secret-that-tests-alone-know-of")),
            ("PORT", text("0")),
            ("LIVEKIT_URL", self.sim.url()),
            ("LIVEKIT_API_KEY", self.sim.api_key().to_owned()),
            ("LIVEKIT_API_SECRET", self.sim.api_secret().to_owned()),
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
        ]
    }

    /// Starts the process; `drill` is the place where it is to die.
    pub async fn spawn(&self, drill: Option<&str>) {
        let log = std::fs::OpenOptions::new().append(true).open(&self.log).unwrap();
        let from = log.metadata().unwrap().len();
        self.log_from.store(from, std::sync::atomic::Ordering::SeqCst);
        let mut command = Command::new(env!("CARGO_BIN_EXE_livekit-replay"));
        command.arg("serve").current_dir(&self.place.dir).env_clear().envs(self.settings());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        if let Some(drill) = drill {
            command.env("REPLAY_CRASH_AT", drill);
        }
        let mut child = self.child.lock().await;
        assert!(child.is_none(), "the one before still runs");
        *child = Some(command.spawn().unwrap());
    }

    /// Waits until the process says where it listens.
    pub async fn ready(&self) {
        let address = loop {
            if let Some(address) = self.address_in_log() {
                break address;
            }
            if let Some(child) = self.child.lock().await.as_mut() {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "did not start: {ended:?}\n{}", self.log());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let base = format!("http://{address}/livekit-replay");
        self.sim.set_webhook_urls(vec![format!("{base}/webhooks/livekit")]);
        self.base.send_replace(Some(base));
    }

    /// [`spawn`](Self::spawn) and [`ready`](Self::ready).
    pub async fn start(&self, drill: Option<&str>) {
        self.spawn(drill).await;
        let started = tokio::time::timeout(Duration::from_secs(60), self.ready()).await;
        assert!(started.is_ok(), "does not start\n{}", self.log());
    }

    fn address_in_log(&self) -> Option<String> {
        let mut file = std::fs::File::open(&self.log).unwrap();
        let from = self.log_from.load(std::sync::atomic::Ordering::SeqCst);
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ready = lines.filter(|line| line["message"] == "ready");
        ready.find_map(|line| line["address"].as_str().map(str::to_owned))
    }

    /// `kill -9`, at once.
    pub async fn kill(&self) {
        let mut child = self.child.lock().await.take().expect("a process");
        child.start_kill().unwrap();
        self.base.send_replace(None);
        let status = child.wait().await.unwrap();
        assert_eq!(status.signal(), Some(KILLED), "{status}\n{}", self.log());
    }

    /// Waits until the process has died of its drill.
    pub async fn dies_of(&self, drill: &str) {
        let mut child = self.child.lock().await.take().expect("a process");
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
        self.base.send_replace(None);
        let Ok(status) = ended else { panic!("{drill} was never reached\n{}", self.log()) };
        let status = status.unwrap();
        assert_eq!(status.signal(), Some(ABORTED), "{drill}: {status}\n{}", self.log());
    }

    /// The end of the log, for those who look into a failure.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Waits while nobody listens.
    pub async fn up(&self) {
        self.base.subscribe().wait_for(Option::is_some).await.expect("the sender is ours");
    }

    pub async fn ask(
        &self,
        method: Method,
        user: &str,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let Some(base) = self.base.borrow().clone() else { return Answer::Absent };
        let request = self.http.request(method, format!("{base}{path}"));
        match shape(request.bearer_auth(self.token(user))).send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                // the status line has been seen: the answer counts, even if the rest of it is lost
                Answer::Said(status, response.json().await.unwrap_or(Value::Null))
            }
            Err(error) if error.is_connect() => Answer::Absent,
            Err(_) => Answer::Broken,
        }
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

    /// A moderator of both communities; `root` is an instance admin.
    fn token(&self, user: &str) -> String {
        let roles: Vec<String> =
            if user == "root" { vec!["instance_admin".to_owned()] } else { Vec::new() };
        let communities: BTreeMap<CommunityId, Vec<String>> = COMMUNITIES
            .iter()
            .map(|name| (CommunityId::new(*name), vec!["moderator".to_owned()]))
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
        let mut child = self.child.lock().await.take().expect("a process");
        let pid = i32::try_from(child.id().expect("runs")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
        let status = ended.expect("stops in time").unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
        self.sim.shutdown().await;
        self.place.remove().await;
    }
}
