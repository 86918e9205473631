//! The real program in a process of its own, with the simulated LiveKit in this one, and recordings laid into its
//! sessions' directories as an egress does it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use livekit_replay::{
    access::token::{self, Claims},
    clock::{Clock, SystemClock},
    config::{Config, Demand, Sources, load},
    domain::{
        id::{CommunityId, UserId},
        playlist::segment_file_name,
        time::Timestamp,
    },
    simulator::{Media, Share, SimConfig, Simulator},
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(700);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Between two looks at a session that is indexed: many are looked at at once.
const INDEXING: Duration = Duration::from_millis(250);
const NEVER: &str = "0 0 0 1 1 *";
/// Length of a recording below which nothing is deleted.
const MINUTES: &str = "60";

/// A run's own directory; it goes with the run, however that ends.
pub struct Place(PathBuf);

impl std::ops::Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // a process that was killed in a panic may still write: what is left is the next `cargo clean`'s
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Service {
    pub dir: Place,
    pub sim: Simulator,
    pub config: Config,
    http: reqwest::Client,
    child: Option<Child>,
    base: String,
    /// Settings besides those that all have here, for the next start.
    pub more: Vec<(&'static str, String)>,
}

/// A session that records nothing but what is laid into it.
pub struct Session {
    pub id: String,
    pub user: String,
    pub directory: PathBuf,
    /// The first picture's moment.
    pub zero: Timestamp,
}

impl Service {
    /// A fresh service; `more` are settings besides those that all have here.
    pub async fn start(more: Vec<(&'static str, String)>) -> Service {
        let dir = crate::cache().join(format!("run-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).unwrap();
        let dir = Place(dir);
        let sim = Simulator::start(SimConfig::default()).await.unwrap();
        let place = |name: &str| dir.join(name).display().to_string();
        let flags = [
            ("data_dir", place("data")),
            ("database.url", format!("sqlite://{}", place("replay.db"))),
            ("storage.buffer", place("buffer")),
            ("storage.clips", place("clips")),
            ("auth.jwt_secret", "a-secret-that-the-bench-alone-knows".to_owned()),
            ("livekit.url", sim.url()),
            ("livekit.api_key", sim.api_key().to_owned()),
            ("livekit.api_secret", sim.api_secret().to_owned()),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value, "bench".to_owned())).to_vec();
        let sources = Sources { flags, cwd: dir.to_path_buf(), ..Sources::default() };
        let config = load(&sources, Demand::Service).expect("valid settings");
        let mut service = Service {
            dir,
            sim,
            config,
            http: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            child: None,
            base: String::new(),
            more,
        };
        service.spawn().await;
        service
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let text = |text: &str| text.to_owned();
        let place = |name: &str| self.dir.join(name).display().to_string();
        let mut settings = vec![
            ("PATH", std::env::var("PATH").unwrap()),
            ("RUST_LOG", text("info")),
            ("REPLAY__DATA_DIR", place("data")),
            ("DATABASE_URL", format!("sqlite://{}", place("replay.db"))),
            ("JWT_SECRET", text("a-secret-that-the-bench-alone-knows")),
            ("PORT", text("0")),
            ("LIVEKIT_URL", self.sim.url()),
            ("LIVEKIT_API_KEY", self.sim.api_key().to_owned()),
            ("LIVEKIT_API_SECRET", self.sim.api_secret().to_owned()),
            ("REPLAY__LIVEKIT__IDENTITY_PATTERN", text("^(?<user>[^:]+)")),
            ("REPLAY__ROOMS__COMMUNITY_PATTERN", text("^(?<community>[a-z]+)-")),
            ("REPLAY_BUFFER_PATH", place("buffer")),
            ("REPLAY_STORAGE_PATH", place("clips")),
            ("REPLAY__STORAGE__MIN_FREE_BYTES", text("0")),
            ("REPLAY__STORAGE__HIGH_PERCENT", text("98")),
            ("REPLAY__STORAGE__CRITICAL_PERCENT", text("99")),
            ("REPLAY__BUFFER__MINUTES", text(MINUTES)),
            ("REPLAY__BUFFER__NO_SEGMENT_SECONDS", text("3600")),
            ("REPLAY__CAPTURE__WORKERS", text("8")),
            ("REPLAY__CAPTURE__DEADLINE_FACTOR", text("20")),
            ("REPLAY__LIMITS__USER_QUOTA_BYTES", text("100 GiB")),
            ("REPLAY__LIMITS__COMMUNITY_MAX_CONCURRENT", text("5000")),
            ("REPLAY__LIMITS__COMMUNITY_CEILING", text("5000")),
            ("REPLAY__RATE_LIMITS__START_PER_MINUTE", text("0")),
            ("REPLAY__RATE_LIMITS__CAPTURE_PER_MINUTE", text("0")),
            ("REPLAY__RATE_LIMITS__DELETE_PER_MINUTE", text("0")),
            ("REPLAY__SERVER__MAX_WAIT_SECONDS", text("600")),
            ("REPLAY__JOBS__SEGMENT_CLEANUP", text(NEVER)),
            ("REPLAY__JOBS__ORPHAN_REAPER", text(NEVER)),
            ("REPLAY__JOBS__QUOTA_AUDIT", text(NEVER)),
        ];
        settings.extend(self.more.iter().cloned());
        settings
    }

    /// Starts the process on what is there, and waits until it serves.
    pub async fn spawn(&mut self) {
        let log = self.dir.join("service.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_livekit-replay"));
        command.arg("serve").current_dir(&*self.dir).env_clear().envs(self.settings());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let ready = async {
            loop {
                if let Some(address) = address(&log) {
                    return address;
                }
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "{}", std::fs::read_to_string(&log).unwrap());
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let address = tokio::time::timeout(PATIENCE, ready).await.expect("it starts");
        self.base = format!("http://{address}/livekit-replay");
        self.sim.set_webhook_urls(vec![format!("{}/webhooks/livekit", self.base)]);
        self.child = Some(child);
    }

    /// SIGTERM, and waits for the end.
    pub async fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id().expect("it runs")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it stops");
        assert!(ended.unwrap().success());
    }

    /// Ends everything and removes what was made.
    pub async fn close(mut self) {
        self.end().await;
        self.sim.shutdown().await;
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("it runs")
    }

    /// A moderator of the community `bench`; `root` is an instance admin.
    pub fn token(&self, user: &str) -> String {
        let communities =
            BTreeMap::from([(CommunityId::new("bench"), vec!["moderator".to_owned()])]);
        let roles = if user == "root" { vec!["instance_admin".to_owned()] } else { Vec::new() };
        let claims = Claims {
            user_id: &UserId::new(user),
            name: None,
            communities: &communities,
            roles: &roles,
            lifetime: Duration::from_secs(86_400),
        };
        token::mint(&self.config.auth, &claims, SystemClock.now()).unwrap()
    }

    /// Asks; gives status and body.
    pub async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        request = request.bearer_auth(token).header("Prefer", "wait=600");
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// One of the figures without labels.
    pub async fn figure(&self, name: &str) -> f64 {
        let root = self.base.trim_end_matches("/livekit-replay");
        let response = self.http.get(format!("{root}/metrics")).send().await.unwrap();
        let text = response.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the figure is there").trim().parse().unwrap()
    }

    /// Starts a session whose egress writes nothing; its media begins `age` ago.
    pub async fn session(&self, user: &str, age: Duration, audio: bool) -> Session {
        let room = format!("bench-{user}");
        let share = Share { width: 1920, height: 1080, audio, media: Media::None };
        self.sim.publish_share(&room, user, share).unwrap();
        let token = self.token(user);
        let (status, session) =
            self.ask(&token, "POST", "/start", json!({ "roomName": room })).await;
        assert_eq!(status, 201, "{session:#}");
        let id = session["id"].as_str().unwrap().to_owned();
        let directory = loop {
            let views = self.sim.egresses();
            if let Some(view) = views.iter().find(|view| view.directory.contains(&id)) {
                break PathBuf::from(&view.directory);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        std::fs::create_dir_all(&directory).unwrap();
        let now = SystemClock.now().as_millis();
        let zero = Timestamp::from_micros(now * 1000).minus(age);
        Session { id, user: user.to_owned(), directory, zero }
    }

    /// Waits until a session's buffer holds its first so many seconds.
    pub async fn indexed(&self, session: &Session, seconds: f64) {
        let token = self.token(&session.user);
        let path = format!("/sessions/{}", session.id);
        let waiting = async {
            loop {
                let (_, shown) = self.ask(&token, "GET", &path, Value::Null).await;
                let ends = shown["buffer"]["endsAt"].as_str().and_then(Timestamp::parse_rfc3339);
                let held = ends.map_or(0, |ends| ends.micros_since(session.zero));
                if held as f64 >= (seconds - 0.1) * 1e6 {
                    return;
                }
                tokio::time::sleep(INDEXING).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{seconds} s were never indexed");
    }
}

fn address(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ready = lines.filter(|line| line["message"] == "ready");
    ready.find_map(|line| line["address"].as_str().map(str::to_owned))
}

impl Session {
    /// Lays segments into the session's directory and lists all up to them, as an egress does: first the files.
    pub fn lay(&self, segments: &[PathBuf], numbers: std::ops::Range<usize>, seconds: u64) {
        for number in numbers.clone() {
            let to = self.directory.join(segment_file_name(number as u64));
            if std::fs::hard_link(&segments[number], &to).is_err() {
                std::fs::copy(&segments[number], &to).unwrap();
            }
        }
        let list = |from: usize, kind: &str| {
            let mut text = format!(
                "#EXTM3U\n#EXT-X-VERSION:4\n{kind}#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:{seconds}\n\
                 #EXT-X-MEDIA-SEQUENCE:{from}\n"
            );
            for number in from..numbers.end {
                let label = self.zero.plus_seconds((number as u64 * seconds) as i64);
                let name = segment_file_name(number as u64);
                let _ = write!(
                    text,
                    "#EXT-X-PROGRAM-DATE-TIME:{label}\n#EXTINF:{seconds}.000,\n{name}\n"
                );
            }
            text
        };
        let write = |name: &str, text: String| {
            std::fs::write(self.directory.join(name), text).unwrap();
        };
        write("index.m3u8", list(0, "#EXT-X-PLAYLIST-TYPE:EVENT\n"));
        write("live.m3u8", list(numbers.end.saturating_sub(5), ""));
    }

    /// The body of a capture of a window in seconds since the first picture.
    pub fn window(&self, from: f64, to: f64, precision: &str) -> Value {
        let at = |seconds: f64| self.zero.plus_micros((seconds * 1e6) as i64);
        json!({ "sessionId": self.id, "from": at(from), "to": at(to), "precision": precision })
    }
}

/// What the system says of a process.
pub struct Usage {
    /// Resident memory in KiB.
    pub resident: u64,
    /// Processor time so far, its ended children's not counted.
    pub cpu: Duration,
}

pub fn usage(pid: u32) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // user and system time, in hundredths of a second on every Linux
    Usage { resident, cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10) }
}

/// Resident memory of a process and of its children, in KiB.
pub fn with_children(pid: u32) -> (u64, u64) {
    let own = usage(pid).resident;
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|child| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parent == Some(pid.to_string().as_str())
    });
    (own, children.map(|child| usage(child).resident).sum())
}
