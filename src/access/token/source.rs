//! Where the public keys of tokens come from: one address or one file, kept in memory between questions.
//!
//! * Only the configured place is ever asked, whatever a token says; redirects are not followed.
//! * A key that is not known makes us ask, at most once per interval and once at a time, however many ask for it.
//! * An answer that cannot be used changes nothing: keys that are known stay.
//! * A question outlives the request that caused it: who hangs up cannot keep a new key away from others.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{io::AsyncReadExt, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Reason,
    jwks::{self, Key, KeySet},
    refusal::Refusal,
};
use crate::{
    clock::SharedClock,
    config::Jwks,
    domain::time::Timestamp,
    error::{Error, Result},
};

/// A larger set is not read.
const MAX_SET_BYTES: usize = 64 * 1024;
/// How long one question may take, to the last byte.
const DEADLINE: Duration = Duration::from_secs(3);
/// Between two questions to an address.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(10);
/// The same after one that failed.
const ADDRESS_RETRY: Duration = Duration::from_secs(5);
/// Between two readings of a file.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Between questions that no token causes.
const FRESH: Duration = Duration::from_secs(300);
/// The same after one that failed.
const FRESH_RETRY: Duration = Duration::from_secs(30);

/// The published keys.
pub(super) struct Source {
    shared: Arc<Shared>,
    /// Owns the questions that are under way.
    tasks: TaskTracker,
}

struct Shared {
    place: Place,
    /// `None` until they could be read for the first time.
    keys: ArcSwapOption<KeySet>,
    pace: Mutex<Pace>,
}

enum Place {
    Address { client: reqwest::Client, url: String },
    File(PathBuf),
}

/// When the place was asked last, and how that went.
#[derive(Debug, Default)]
struct Pace {
    asked: Option<Timestamp>,
    failure: Option<String>,
    /// Closed when the question is answered.
    running: Option<watch::Receiver<()>>,
}

impl Source {
    /// The source at that place. A file has to be there and usable now, an address need not.
    pub fn new(jwks: &Jwks) -> Result<Source> {
        let (place, keys) = match jwks {
            Jwks::Url(url) => (Place::Address { client: client(url)?, url: url.clone() }, None),
            Jwks::File(path) => {
                let keys = read_now(path).and_then(|bytes| KeySet::read(&bytes));
                let keys = keys.map_err(|why| {
                    Error::invalid_field("auth.jwks_file", format!("{} {why}", path.display()))
                })?;
                keys.log();
                (Place::File(path.clone()), Some(Arc::new(keys)))
            }
        };
        let shared =
            Shared { place, keys: ArcSwapOption::new(keys), pace: Mutex::new(Pace::default()) };
        Ok(Source { shared: Arc::new(shared), tasks: TaskTracker::new() })
    }

    /// The key for a token that says this of itself.
    pub async fn find(
        &self,
        algorithm: &str,
        kid: Option<&str>,
        now: Timestamp,
    ) -> Result<Arc<Key>, Refusal> {
        if !jwks::is_published(algorithm) {
            // no key of ours can be meant: nothing to ask for
            return Err(Reason::WrongAlgorithm.into());
        }
        if matches!(self.shared.place, Place::File(_)) {
            self.refresh(now).await;
        }
        match self.shared.find(algorithm, kid) {
            Err(Reason::UnknownKey | Reason::KeysUnavailable) => {
                self.refresh(now).await;
                Ok(self.shared.find(algorithm, kid)?)
            }
            found => Ok(found?),
        }
    }

    /// Asks, unless that was done a moment ago; a question that is under way is waited for instead.
    pub async fn refresh(&self, now: Timestamp) {
        let mut running = {
            let mut pace = self.shared.pace();
            match &pace.running {
                // an error says that the asking side is gone
                Some(running) if running.has_changed().is_ok() => running.clone(),
                _ if self.shared.is_too_soon(&pace, now) => return,
                _ => {
                    let (asking, running) = watch::channel(());
                    pace.asked = Some(now);
                    pace.running = Some(running.clone());
                    let shared = Arc::clone(&self.shared);
                    self.tasks.spawn(async move {
                        shared.ask().await;
                        drop(asking);
                    });
                    running
                }
            }
        };
        // nothing is ever sent: this ends when the question is answered, in whatever way
        let _ = running.changed().await;
    }

    /// As [`Verifier::keep_fresh`](super::Verifier::keep_fresh).
    pub async fn keep_fresh(&self, clock: SharedClock, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let asked = stop.run_until_cancelled(self.refresh(clock.now())).await;
            let wait = if self.failure().is_some() { FRESH_RETRY } else { FRESH };
            if asked.is_some() {
                stop.run_until_cancelled(tokio::time::sleep(wait)).await;
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What went wrong with the last question.
    pub fn failure(&self) -> Option<String> {
        self.shared.pace().failure.clone()
    }

    /// Every known key with its algorithm.
    pub fn names(&self) -> Vec<String> {
        self.shared.keys.load().as_ref().map(|keys| keys.names()).unwrap_or_default()
    }

    /// The setting that names the place.
    pub fn setting(&self) -> &'static str {
        match self.shared.place {
            Place::Address { .. } => "auth.jwks_url",
            Place::File(_) => "auth.jwks_file",
        }
    }
}

impl Shared {
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, algorithm: &str, kid: Option<&str>) -> Result<Arc<Key>, Reason> {
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(Reason::KeysUnavailable)?;
        keys.find(algorithm, kid).cloned()
    }

    fn is_too_soon(&self, pace: &Pace, now: Timestamp) -> bool {
        let interval = match (&self.place, &pace.failure) {
            (Place::File(_), _) => FILE_INTERVAL,
            (Place::Address { .. }, None) => ADDRESS_INTERVAL,
            (Place::Address { .. }, Some(_)) => ADDRESS_RETRY,
        };
        // a clock that was set back must not keep us from asking
        pace.asked.is_some_and(|asked| {
            u128::from(now.micros_since(asked).unsigned_abs()) < interval.as_micros()
        })
    }

    async fn ask(&self) {
        let read = tokio::time::timeout(DEADLINE, self.read()).await;
        let late = || Err(format!("did not answer within {} s", DEADLINE.as_secs()));
        let set = read.unwrap_or_else(|_| late()).and_then(|bytes| KeySet::read(&bytes));
        let outcome = if set.is_ok() { "ok" } else { "failed" };
        metrics::counter!("livekit_replay_jwks_reads_total", "outcome" => outcome).increment(1);
        let failed_before = self.pace().failure.take();
        match set {
            Ok(set) => {
                let before = self.keys.load().as_ref().map(|keys| keys.names());
                if before.as_ref() != Some(&set.names()) || failed_before.is_some() {
                    set.log();
                }
                self.keys.store(Some(Arc::new(set)));
            }
            Err(why) => {
                if failed_before.as_ref() == Some(&why) {
                    tracing::debug!(error = why, "the keys of tokens still cannot be read");
                } else {
                    tracing::warn!(
                        error = why,
                        "the keys of tokens cannot be read, known ones stay"
                    );
                }
                self.pace().failure = Some(why);
            }
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match &self.place {
            Place::Address { client, url } => download(client, url).await,
            Place::File(path) => {
                let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
                let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
                let mut bytes = Vec::new();
                let limit = MAX_SET_BYTES as u64 + 1;
                file.take(limit).read_to_end(&mut bytes).await.map_err(unreadable)?;
                not_too_large(bytes)
            }
        }
    }
}

impl KeySet {
    fn log(&self) {
        tracing::info!(keys = ?self.names(), "read the keys of tokens");
        if !self.ignored.is_empty() {
            tracing::warn!(reason = ?self.ignored, "some published keys are not used");
        }
    }
}

fn client(url: &str) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(DEADLINE)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("livekit-replay/", env!("CARGO_PKG_VERSION")));
    let builder = match url.starts_with("https://") {
        true => builder.https_only(true),
        // in clear only to this machine: not to a proxy
        false => builder.no_proxy(),
    };
    builder
        .build()
        .map_err(|error| Error::internal("preparing to ask for the keys of tokens", error))
}

async fn download(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, String> {
    let request = client.get(url).header(http::header::ACCEPT, "application/json");
    let mut answer = request.send().await.map_err(lost)?;
    match answer.status() {
        http::StatusCode::OK => {}
        other if other.is_redirection() => {
            return Err(format!("answered {other}, which is not followed"));
        }
        other => return Err(format!("answered {other}")),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(lost)? {
        bytes.extend_from_slice(&chunk);
        bytes = not_too_large(bytes)?;
    }
    Ok(bytes)
}

/// The whole chain, without the address: its query may hold a right.
fn lost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn not_too_large(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match bytes.len() > MAX_SET_BYTES {
        true => Err(format!("is larger than {} KiB", MAX_SET_BYTES / 1024)),
        false => Ok(bytes),
    }
}

/// At the start, before anything runs that could be held up.
fn read_now(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_SET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    not_too_large(bytes)
}
