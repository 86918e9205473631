//! Against a real LiveKit server and egress, named by the environment; visibly skipped without:
//!
//! | variable | what |
//! |---|---|
//! | `LIVEKIT_URL`, `LIVEKIT_API_KEY`, `LIVEKIT_API_SECRET` | the server |
//! | `REPLAY_LIVE_BUFFER` | a directory that this process and egress see under the same path and may both write to |
//! | `REPLAY_LIVE_ROOM`, `REPLAY_LIVE_USER` | a screen share that is running: its room, its participant's identity |
//!
//! Webhooks need not reach the test: what they would tell is asked for as well. Everything the test makes in the buffer
//! lies in one directory of its own, which it removes.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use livekit_replay::{
    access::token::{self, Claims},
    app::{self, Running},
    clock::{Clock, SystemClock},
    config::{self, Config, Demand, Sources},
    domain::{
        id::{CommunityId, EgressId, UserId},
        time::Timestamp,
    },
};
use serde_json::{Value, json};

const COMMUNITY: &str = "live";
/// Longer than any egress took to close its first segments.
const LIMIT: Duration = Duration::from_secs(120);

struct Stage {
    running: Running,
    http: reqwest::Client,
    token: String,
    room: String,
    /// In the shared buffer, and on our own disk.
    buffer: PathBuf,
    own: PathBuf,
}

/// The value of a variable, or the reason to skip.
fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("skipped: set {name}"))
}

fn environment() -> Result<BTreeMap<&'static str, String>, String> {
    let names = [
        "LIVEKIT_URL",
        "LIVEKIT_API_KEY",
        "LIVEKIT_API_SECRET",
        "REPLAY_LIVE_BUFFER",
        "REPLAY_LIVE_ROOM",
        "REPLAY_LIVE_USER",
    ];
    names.into_iter().map(|name| Ok((name, variable(name)?))).collect()
}

fn settings(env: &BTreeMap<&str, String>, buffer: &Path, own: &Path) -> Config {
    let own_dir = |name: &str| own.join(name).display().to_string();
    let flags = [
        ("data_dir", own_dir("data")),
        ("database.url", format!("sqlite://{}", own.join("replay.db").display())),
        ("storage.clips", own_dir("clips")),
        ("storage.buffer", buffer.display().to_string()),
        ("storage.min_free_bytes", "0".to_owned()),
        ("auth.jwt_secret", "a-secret-that-tests-alone-know-of".to_owned()),
        ("livekit.url", env["LIVEKIT_URL"].clone()),
        ("livekit.api_key", env["LIVEKIT_API_KEY"].clone()),
        ("livekit.api_secret", env["LIVEKIT_API_SECRET"].clone()),
        // whatever the room's metadata says, this session's community is the test's
        ("rooms.community_sources", "pattern".to_owned()),
    ];
    let flags =
        flags.into_iter().map(|(key, value)| (key.to_owned(), value, "test".to_owned())).collect();
    let sources = Sources { flags, cwd: own.to_path_buf(), ..Sources::default() };
    config::load(&sources, Demand::Service).expect("valid settings")
}

impl Stage {
    async fn new(env: &BTreeMap<&str, String>) -> Stage {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let name = format!("lkr-live-{}", uuid::Uuid::new_v4().simple());
        let buffer = PathBuf::from(&env["REPLAY_LIVE_BUFFER"]).join(&name);
        let own = std::env::temp_dir().join(&name);
        for directory in [&buffer, &own] {
            std::fs::create_dir_all(directory).expect("a directory of the test's own");
        }
        let config = settings(env, &buffer, &own);
        let communities =
            BTreeMap::from([(CommunityId::new(COMMUNITY), vec!["moderator".to_owned()])]);
        let claims = Claims {
            user_id: &UserId::new(env["REPLAY_LIVE_USER"].as_str()),
            name: None,
            communities: &communities,
            roles: &[],
            lifetime: Duration::from_secs(3600),
        };
        let token = token::mint(&config.auth, &claims, SystemClock.now()).expect("a token");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let running = app::start(config, Arc::new(SystemClock), listener).await.expect("starts");
        let room = env["REPLAY_LIVE_ROOM"].clone();
        Stage { running, http: reqwest::Client::new(), token, room, buffer, own }
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/livekit-replay{path}", self.running.url());
        let request = self.http.post(url).bearer_auth(&self.token).header("Prefer", "wait=60");
        answer(request.json(&body)).await
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}/livekit-replay{path}", self.running.url());
        answer(self.http.get(url).bearer_auth(&self.token)).await.1
    }

    /// Looks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let seen = self.get(path).await;
                if wanted(&seen) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("still not: {path}"))
    }

    async fn end(self) {
        self.running.stop().await.expect("stops in time");
        for directory in [&self.buffer, &self.own] {
            std::fs::remove_dir_all(directory).expect("removed");
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

fn time(clip: &Value, field: &str) -> Timestamp {
    let text = clip[field].as_str().unwrap_or_else(|| panic!("{field} in {clip:#}"));
    Timestamp::parse_rfc3339(text).expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_share_is_buffered_and_captured_up_to_the_press() {
    let env = match environment() {
        Ok(env) => env,
        Err(reason) => {
            // past the test runner, which keeps what passing tests print
            writeln!(std::io::stderr(), "{reason}").expect("a place to say so");
            return;
        }
    };
    let stage = Stage::new(&env).await;
    let (status, session) =
        stage.post("/start", json!({"roomName": stage.room, "communityId": COMMUNITY})).await;
    assert_eq!(status, 201, "{session:#}");
    let session = format!("/sessions/{}", session["id"].as_str().expect("an id"));
    let buffered = stage
        .until(&session, |seen| seen["buffer"]["durationSeconds"].as_f64() >= Some(12.0))
        .await;
    assert_eq!(buffered["status"], "active", "{buffered:#}");

    let id = buffered["id"].as_str().expect("an id");
    let (status, clip) =
        stage.post("/capture", json!({"sessionId": id, "durationSeconds": 10})).await;
    assert!(status == 201 || status == 202, "{status} {clip:#}");
    let path = format!("/clips/{}", clip["id"].as_str().expect("an id"));
    let clip = stage.until(&path, |clip| clip["status"] != "processing").await;
    assert_eq!(clip["status"], "ready", "{clip:#}");
    println!("{clip:#}");
    assert_eq!(clip["gaps"], json!([]), "{clip:#}");
    let (asked, ends) = (time(&clip, "requestedTo"), time(&clip, "endsAt"));
    assert!(asked.micros_since(ends) <= 67_000, "the pressed moment is missing: {clip:#}");
    assert!(time(&clip, "startsAt") <= time(&clip, "requestedFrom"), "{clip:#}");
    let link = clip["downloadUrl"].as_str().expect("a link");
    let file = stage.http.get(format!("{}{link}", stage.running.url())).send().await;
    let file = file.expect("an answer").bytes().await.expect("the clip");
    assert_eq!(clip["sizeBytes"], json!(file.len()));
    assert_eq!(clip["checksum"], json!(format!("blake3:{}", blake3::hash(&file).to_hex())));

    let (status, stopped) = stage.post(&format!("/stop/{id}"), json!({})).await;
    assert_eq!(status, 200, "{stopped:#}");
    let over = stage.until(&session, |seen| seen["status"] == "stopped").await;
    let egress = EgressId::new(over["egressId"].as_str().expect("an id"));
    let egress = stage.running.deps.livekit.find_egress(&egress).await.expect("LiveKit answers");
    assert!(egress.is_none_or(|fact| fact.state.is_over()), "nothing records any more");
    stage.end().await;
}
