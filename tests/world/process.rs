//! One process of the program: started, listened to, killed, ended.

use std::{
    io::{Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    process::{Child, Command},
    sync::{Mutex, watch},
};

/// SIGABRT and SIGKILL.
const ABORTED: i32 = 6;
const KILLED: i32 = 9;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

/// `livekit-replay serve`, now and then running. It goes with its owner.
pub struct Process {
    program: std::sync::Mutex<PathBuf>,
    settings: Vec<(&'static str, String)>,
    dir: PathBuf,
    child: Mutex<Option<Child>>,
    base: watch::Sender<Option<String>>,
    log: PathBuf,
    /// Where in the log the running process began.
    log_from: AtomicU64,
}

/// The program as it is built with the tests.
pub fn this_release() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_livekit-replay"))
}

impl Process {
    /// One that will run in `dir` with these environment variables and no others; its log is `<name>.log` there.
    pub fn new(dir: &Path, name: &str, settings: Vec<(&'static str, String)>) -> Process {
        let log = dir.join(format!("{name}.log"));
        std::fs::write(&log, "").unwrap();
        Process {
            program: std::sync::Mutex::new(this_release()),
            settings,
            dir: dir.to_owned(),
            child: Mutex::new(None),
            base: watch::Sender::new(None),
            log,
            log_from: AtomicU64::new(0),
        }
    }

    /// Another build of the program, from its next start on.
    pub fn becomes(&self, program: &Path) {
        program.clone_into(&mut self.program.lock().unwrap());
    }

    /// Starts it; `drill` is the place where it is to die.
    pub async fn spawn(&self, drill: Option<&str>) {
        let log = std::fs::OpenOptions::new().append(true).open(&self.log).unwrap();
        let from = log.metadata().unwrap().len();
        self.log_from.store(from, Ordering::SeqCst);
        let program = self.program.lock().unwrap().clone();
        let mut command = Command::new(program);
        command.arg("serve").current_dir(&self.dir).env_clear();
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        if let Some(drill) = drill {
            command.env("REPLAY_CRASH_AT", drill);
        }
        let mut child = self.child.lock().await;
        assert!(child.is_none(), "the one before still runs");
        *child = Some(command.spawn().unwrap());
    }

    /// Waits until it says where it listens, and answers the API's base.
    pub async fn ready(&self) -> String {
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
        self.base.send_replace(Some(base.clone()));
        base
    }

    /// [`spawn`](Self::spawn) and [`ready`](Self::ready).
    pub async fn start(&self, drill: Option<&str>) -> String {
        self.spawn(drill).await;
        let started = tokio::time::timeout(PATIENCE, self.ready()).await;
        started.unwrap_or_else(|_| panic!("does not start\n{}", self.log()))
    }

    fn address_in_log(&self) -> Option<String> {
        let mut file = std::fs::File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.log_from.load(Ordering::SeqCst))).unwrap();
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

    /// Waits until it has died of its drill.
    pub async fn dies_of(&self, drill: &str) {
        let mut child = self.child.lock().await.take().expect("a process");
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        self.base.send_replace(None);
        let Ok(status) = ended else { panic!("{drill} was never reached\n{}", self.log()) };
        let status = status.unwrap();
        assert_eq!(status.signal(), Some(ABORTED), "{drill}: {status}\n{}", self.log());
    }

    /// Starts it with a drill, and has it killed if it does not die of that in time; whether it did. `listens` is
    /// called once it can be asked something.
    pub async fn tries_drill(&self, drill: &str, within: Duration, listens: impl Fn()) -> bool {
        self.spawn(Some(drill)).await;
        let began = tokio::time::Instant::now();
        let status = loop {
            let mut held = self.child.lock().await;
            let child = held.as_mut().expect("a process");
            if began.elapsed() > within {
                child.start_kill().unwrap();
                break child.wait().await.unwrap();
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            drop(held);
            if self.base().is_none()
                && let Some(address) = self.address_in_log()
            {
                self.base.send_replace(Some(format!("http://{address}/livekit-replay")));
                listens();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        self.base.send_replace(None);
        *self.child.lock().await = None;
        let signal = status.signal();
        assert!(matches!(signal, Some(ABORTED | KILLED)), "{status}\n{}", self.log());
        signal == Some(ABORTED)
    }

    /// Its process id, while it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Where its log ends now, for [`lines_since`](Self::lines_since).
    pub fn log_mark(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |about| about.len())
    }

    /// What its log says since a mark.
    pub fn log_since(&self, mark: u64) -> String {
        let Ok(mut file) = std::fs::File::open(&self.log) else { return String::new() };
        let mut text = Vec::new();
        let read = file.seek(SeekFrom::Start(mark)).and_then(|_| file.read_to_end(&mut text));
        read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&text).into_owned())
    }

    /// How many lines of its log since a mark hold one of these words.
    pub fn lines_since(&self, mark: u64, words: &[&str]) -> usize {
        let has = |line: &&str| words.iter().any(|word| line.contains(word));
        self.log_since(mark).lines().filter(has).count()
    }

    /// Ends it by SIGTERM, which must go well.
    pub async fn end(&self) {
        let mut child = self.child.lock().await.take().expect("a process");
        let pid = i32::try_from(child.id().expect("runs")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        let status = ended.expect("stops in time").unwrap();
        self.base.send_replace(None);
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Where it listens, while it does.
    pub fn base(&self) -> Option<String> {
        self.base.borrow().clone()
    }

    /// Waits while nobody listens.
    pub async fn up(&self) {
        self.base.subscribe().wait_for(Option::is_some).await.expect("the sender is ours");
    }

    /// The end of the log, for those who look into a failure.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}
