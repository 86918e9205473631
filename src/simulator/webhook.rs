//! Webhooks out: LiveKit's encoding, signature, queues, retries, and their misbehaviour on command.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::Engine;
use livekit_api::access_token::AccessToken;
use livekit_protocol as proto;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::id;

/// Events older than this when their turn comes are dropped without a word, as LiveKit does.
const MAX_AGE: Duration = Duration::from_secs(30);
/// Events waiting under one key; more are dropped.
const MAX_DEPTH: usize = 200;
/// Pauses before the retries.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// LiveKit has no deadline here; ours only bounds a shutdown that nobody asked for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// What to do wrong with coming webhooks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookFault {
    /// Name of the event (`egress_ended`), or `*` for each.
    pub event: String,
    /// What happens to it.
    pub action: HookAction,
    /// How many events it hits; `None`: until cleared.
    #[serde(default)]
    pub times: Option<u32>,
}

/// How a webhook goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HookAction {
    /// Never sent.
    Lose,
    /// Sent twice with the same id.
    Double,
    /// Joins its queue so many milliseconds late, so that others overtake it.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Sent after the next event of the same queue.
    SwapWithNext,
}

/// One delivered (or given up) webhook, for assertions.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    /// Name of the event.
    pub event: String,
    /// `EV_…`.
    pub id: String,
    /// Where it went.
    pub url: String,
    /// Status of the last answer; `None`: no answer, or dropped for its age.
    pub status: Option<u16>,
    /// How often it was tried.
    pub attempts: u32,
}

#[derive(Clone)]
struct Letter {
    event: String,
    id: String,
    body: String,
    token: String,
    queued: Instant,
}

type QueueKey = (String, String);

#[derive(Default)]
struct Queues {
    urls: Vec<String>,
    waiting: HashMap<QueueKey, VecDeque<Letter>>,
    held: HashMap<QueueKey, Letter>,
    faults: Vec<HookFault>,
    hits: u64,
    deliveries: Vec<Delivery>,
}

/// Sends webhooks; cheap to clone.
#[derive(Clone)]
pub(super) struct Webhooks {
    queues: std::sync::Arc<Mutex<Queues>>,
    key: (String, String),
    client: reqwest::Client,
    runtime: Handle,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Webhooks {
    pub(super) fn new(
        key: (String, String),
        urls: Vec<String>,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> reqwest::Result<Webhooks> {
        let client = reqwest::Client::builder()
            .user_agent("LiveKit")
            .timeout(ANSWER_DEADLINE)
            .no_proxy()
            .build()?;
        let queues = Queues { urls, ..Queues::default() };
        let queues = std::sync::Arc::new(Mutex::new(queues));
        Ok(Webhooks { queues, key, client, runtime: Handle::current(), tasks, cancel })
    }

    pub(super) fn set_urls(&self, urls: Vec<String>) {
        self.lock().urls = urls;
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.lock().urls.clone()
    }

    pub(super) fn add_fault(&self, fault: HookFault) {
        self.lock().faults.push(fault);
    }

    pub(super) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// How many webhooks (one to each address) a rule was applied to.
    pub(super) fn hits(&self) -> u64 {
        self.lock().hits
    }

    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        self.lock().deliveries.clone()
    }

    /// Queues an event for every address, those of the request included. Encoded and signed once.
    pub(super) fn send(
        &self,
        key: &str,
        mut event: proto::WebhookEvent,
        now_ms: u64,
        more: &[String],
    ) {
        event.id = id::new("EV");
        event.created_at = (now_ms / 1000) as i64;
        // the messages serialise into strings and numbers only, signing wants a non-empty key: neither fails
        let Ok(body) = serde_json::to_string(&event) else { return };
        let Ok(token) = self.sign(&body) else { return };
        let letter =
            Letter { event: event.event, id: event.id, body, token, queued: Instant::now() };
        let mut queues = self.lock();
        let mut urls = queues.urls.clone();
        urls.extend(more.iter().cloned());
        for url in urls {
            let key = (url, key.to_owned());
            match queues.fault_for(&letter.event) {
                Some(HookAction::Lose) => {}
                Some(HookAction::Double) => {
                    self.enqueue(&mut queues, &key, letter.clone());
                    self.enqueue(&mut queues, &key, letter.clone());
                }
                Some(HookAction::Delay { ms }) => self.enqueue_later(key, letter.clone(), ms),
                Some(HookAction::SwapWithNext) => {
                    queues.held.insert(key, letter.clone());
                }
                None => self.enqueue(&mut queues, &key, letter.clone()),
            }
        }
    }

    fn enqueue(&self, queues: &mut Queues, key: &QueueKey, letter: Letter) {
        let held = queues.held.remove(key);
        let idle = !queues.waiting.contains_key(key);
        let queue = queues.waiting.entry(key.clone()).or_default();
        for letter in [Some(letter), held].into_iter().flatten() {
            if queue.len() < MAX_DEPTH {
                queue.push_back(letter);
            }
        }
        if idle {
            let (worker, key) = (self.clone(), key.clone());
            self.tasks.spawn_on(async move { worker.work(key).await }, &self.runtime);
        }
    }

    fn enqueue_later(&self, key: QueueKey, letter: Letter, ms: u64) {
        let this = self.clone();
        let later = async move {
            tokio::select! {
                () = this.cancel.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(ms)) => {
                    let letter = Letter { queued: Instant::now(), ..letter };
                    this.enqueue(&mut this.lock(), &key, letter);
                }
            }
        };
        self.tasks.spawn_on(later, &self.runtime);
    }

    /// Empties one queue in order, then ends; the next event starts another worker.
    async fn work(&self, key: QueueKey) {
        loop {
            let letter = {
                let mut queues = self.lock();
                match queues.waiting.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(letter) => letter,
                    None => {
                        queues.waiting.remove(&key);
                        return;
                    }
                }
            };
            let delivery = tokio::select! {
                () = self.cancel.cancelled() => return,
                delivery = self.deliver(&key.0, &letter) => delivery,
            };
            self.lock().deliveries.push(delivery);
        }
    }

    async fn deliver(&self, url: &str, letter: &Letter) -> Delivery {
        let mut delivery = Delivery {
            event: letter.event.clone(),
            id: letter.id.clone(),
            url: url.to_owned(),
            status: None,
            attempts: 0,
        };
        if letter.queued.elapsed() > MAX_AGE {
            return delivery;
        }
        let mut pauses = RETRIES.into_iter();
        loop {
            delivery.attempts += 1;
            delivery.status = self.post(url, letter).await;
            let again = delivery
                .status
                .and_then(|code| StatusCode::from_u16(code).ok())
                .is_none_or(|status| {
                    status == StatusCode::TOO_MANY_REQUESTS
                        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
                });
            match pauses.next().filter(|_| again) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return delivery,
            }
        }
    }

    async fn post(&self, url: &str, letter: &Letter) -> Option<u16> {
        let request = self
            .client
            .post(url)
            .header(http::header::CONTENT_TYPE, "application/webhook+json")
            .header(http::header::AUTHORIZATION, &letter.token)
            .body(letter.body.clone());
        request.send().await.ok().map(|answer| answer.status().as_u16())
    }

    fn sign(&self, body: &str) -> Result<String, livekit_api::access_token::AccessTokenError> {
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body));
        AccessToken::with_api_key(&self.key.0, &self.key.1)
            .with_ttl(Duration::from_secs(300))
            .with_sha256(&hash)
            .to_jwt()
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // a panic elsewhere leaves the queues usable
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    /// The first fault that fits; used-up ones disappear.
    fn fault_for(&mut self, event: &str) -> Option<HookAction> {
        let index =
            self.faults.iter().position(|fault| fault.event == "*" || fault.event == event)?;
        let fault = &mut self.faults[index];
        let action = fault.action;
        self.hits += 1;
        match &mut fault.times {
            Some(0 | 1) => drop(self.faults.remove(index)),
            Some(times) => *times -= 1,
            None => {}
        }
        Some(action)
    }
}
