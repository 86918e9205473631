//! The service on stores that fail at command. LiveKit's egress writes behind the mounts, where nothing ever fails, but
//! for tests that want it otherwise.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use livekit_replay::{config::Config, domain::time::Timestamp, media::files, simulator::Share};
use serde_json::{Value, json};

use crate::{
    faulty_store::{FaultyStore, Mode},
    harness::{App, Engine, Setup, temp_dir},
};

pub const ROOM: &str = "red-room";
pub const USER: &str = "alice";

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Buffer,
    Clips,
}

impl Which {
    pub fn other(self) -> Which {
        match self {
            Which::Buffer => Which::Clips,
            Which::Clips => Which::Buffer,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Which::Buffer => "buffer",
            Which::Clips => "clips",
        }
    }
}

pub struct Ground {
    pub app: App,
    pub buffer: FaultyStore,
    pub clips: FaultyStore,
    dir: PathBuf,
}

impl Ground {
    /// `None`, and says so, where nothing can be mounted.
    pub async fn new(name: &str, engine: Engine) -> Option<Ground> {
        Ground::with(name, engine, |_| {}).await
    }

    /// With settings changed.
    pub async fn with(
        name: &str,
        engine: Engine,
        change: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Option<Ground> {
        let dir = temp_dir(name);
        let mount =
            |store: &str| FaultyStore::mount(&dir.join(format!("real-{store}")), &dir.join(store));
        let (Some(buffer), Some(clips)) = (mount("buffer"), mount("clips")) else {
            let _ = std::fs::remove_dir_all(&dir);
            return None;
        };
        let behind = buffer.real().to_owned();
        let setup = Setup::on(engine).change(move |config| {
            config.livekit.egress_output_path.clone_from(&behind);
            config.storage.min_free_bytes = 0;
            config.buffer.segment = Duration::from_secs(1);
            config.capture.stall = Duration::from_secs(5);
            change(config);
        });
        let app = setup.start_in(dir.clone()).await;
        let share = Share { width: 320, height: 180, ..Share::default() };
        app.sim.publish_share(ROOM, &format!("{USER}:tab"), share).unwrap();
        Some(Ground { app, buffer, clips, dir })
    }

    pub fn store(&self, which: Which) -> &FaultyStore {
        match which {
            Which::Buffer => &self.buffer,
            Which::Clips => &self.clips,
        }
    }

    /// The way of the service into a store.
    pub fn gate(&self, which: Which) -> &files::Gate {
        match which {
            Which::Buffer => &self.app.deps.stores.buffer.gate,
            Which::Clips => &self.app.deps.stores.clips.gate,
        }
    }

    /// What an instance admin is told of the health.
    pub async fn health(&self) -> Value {
        let root = self.app.base.trim_end_matches("/livekit-replay");
        let sent = self.app.http.get(format!("{root}/health/detailed"));
        let answer = sent.bearer_auth(self.app.admin()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Waits until the health says that of a store.
    #[track_caller]
    pub fn until_store_is(&self, which: Which, status: &str) -> impl Future<Output = ()> {
        let what = format!("the {} store is {status}", which.name());
        async move {
            let is_so = async || self.health().await["storage"][which.name()]["status"] == status;
            self.app.until(&what, is_so).await;
        }
    }

    /// From three seconds before the end of what is recorded; to there, or to a second from now.
    async fn window(&self, session: &str, goes_on: bool) -> Value {
        let (_, shown) = self.app.get(USER, &format!("/sessions/{session}")).await;
        let ends_at = shown["buffer"]["endsAt"].as_str().expect("something is recorded");
        let ends_at = Timestamp::parse_rfc3339(ends_at).expect("a time");
        let from = ends_at.plus_seconds(-3).to_rfc3339();
        let to = if goes_on { self.app.deps.clock.now().plus_seconds(1) } else { ends_at };
        json!({ "sessionId": session, "from": from, "to": to.to_rfc3339() })
    }

    /// A clip of the last recorded seconds, made.
    pub async fn ready_clip(&self, session: &str) -> Value {
        let body = self.window(session, false).await;
        let (status, clip) = self.app.post_waiting(USER, "/capture", body).await;
        assert_eq!(status, 201, "{clip:#}");
        clip
    }

    /// A capture that is accepted, waits for the end of its window, and is not waited for.
    pub async fn accepted_clip(&self, session: &str) -> String {
        let body = self.window(session, true).await;
        let (status, clip) = self.app.post_async(USER, "/capture", body).await;
        assert_eq!(status, 202, "{clip:#}");
        clip["clipId"].as_str().unwrap().to_owned()
    }

    pub async fn clip(&self, id: &str) -> Value {
        self.app.get(USER, &format!("/clips/{id}")).await.1
    }

    /// Waits until a clip is ready; it must not fail.
    #[track_caller]
    pub fn until_ready(&self, id: &str) -> impl Future<Output = Value> {
        let id = id.to_owned();
        async move {
            let ready = async || {
                let clip = self.clip(&id).await;
                assert_ne!(clip["status"], "failed", "{clip:#}");
                clip["status"] == "ready"
            };
            self.app.until("the clip is ready", ready).await;
            self.clip(&id).await
        }
    }

    /// A clip that is ready is whole: its bytes are those that were promised, and a power cut could not take them.
    pub async fn assert_whole(&self, clip: &Value) {
        let bytes = self.app.download(clip["downloadUrl"].as_str().unwrap()).await;
        assert_eq!(Some(bytes.len() as u64), clip["sizeBytes"].as_u64(), "{clip:#}");
        let sum = format!("blake3:{}", blake3::hash(&bytes).to_hex());
        assert_eq!(clip["checksum"], sum, "{clip:#}");
        let found = self.files().into_iter().find(|path| {
            let name = format!("{}.mp4", clip["clipId"].as_str().unwrap());
            path.file_name().is_some_and(|file| file == name.as_str())
        });
        let found = found.expect("its file");
        assert_eq!(self.clips.at_risk(&found), None, "{}", found.display());
        assert_eq!(self.clips.at_risk(&found.with_extension("json")), None);
    }

    /// Plain files in the clip store behind the mount, relative to it, but for our marker.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.clips.real().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                match entry.file_type().unwrap().is_dir() {
                    true => open.push(path),
                    false => found.push(path.strip_prefix(self.clips.real()).unwrap().to_owned()),
                }
            }
        }
        found.retain(|path| path.as_os_str() != livekit_replay::flow::stores::MARKER);
        found.sort();
        found
    }

    /// What the clip store holds is what the rows say: videos, records and posters of ready clips, no work files; the
    /// account holds their bytes and nothing is reserved.
    pub async fn assert_settled(&self) {
        let (_, clips) = self.app.get(USER, "/my-clips?limit=100").await;
        let ready: Vec<&Value> = clips["clips"]
            .as_array()
            .unwrap_or_else(|| panic!("{clips:#}"))
            .iter()
            .filter(|clip| clip["status"] == "ready")
            .collect();
        let ids: Vec<&str> = ready.iter().map(|clip| clip["clipId"].as_str().unwrap()).collect();
        self.until_posters_are_there(&ids).await;
        self.until_work_is_done().await;
        let bytes: u64 = ready.iter().map(|clip| clip["sizeBytes"].as_u64().unwrap()).sum();
        let (_, quota) = self.app.get(USER, "/me/quota").await;
        assert_eq!(quota["usedBytes"].as_u64(), Some(bytes), "{quota:#}");
        assert_eq!(quota["reservedBytes"].as_u64(), Some(0), "{quota:#}");
        for file in self.files() {
            let id = file.file_stem().unwrap().to_str().unwrap();
            assert!(ids.contains(&id), "{} is nobody's", file.display());
        }
    }

    /// Posters follow their clips: while one is being made its draft is there, rightly.
    async fn until_posters_are_there(&self, ids: &[&str]) {
        for id in ids {
            let poster = format!("/clips/{id}/thumbnail.jpg");
            let made = async || self.app.get(USER, &poster).await.0 == 200;
            self.app.until("the clip has its poster", made).await;
        }
    }

    async fn until_work_is_done(&self) {
        let told = Mutex::new(Vec::new());
        let is_done = async || {
            let mut left = self.files();
            left.retain(|path| path.starts_with(".work"));
            let before = std::mem::replace(&mut *told.lock().unwrap(), left.clone());
            if before != left {
                println!("work files: {left:?}");
            }
            // a poster's draft that the store went away under is left to the sweep, which takes what is a minute old;
            // anything else has to go by itself
            if left.iter().all(|path| path.extension().is_some_and(|is| is == "jpg")) {
                livekit_replay::flow::sweep::run(&self.app.deps, false).await.unwrap();
            }
            left.is_empty()
        };
        self.app.until("work files are gone", is_done).await;
    }

    /// Ends the service and takes everything away.
    pub async fn close(self) {
        for store in [&self.buffer, &self.clips] {
            store.set(Mode::Pass);
        }
        self.app.stop().await;
        drop((self.buffer, self.clips));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Threads of this process.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}
