//! A whole service under a fault, and what is asked of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use livekit_replay::{
    access::token::{self, Claims},
    clock::{Clock, ShiftedClock},
    domain::id::{CommunityId, UserId},
    simulator::{CallAction, CallFault, EgressView, Share, ShareHandle, SimConfig, Simulator},
    store::event::{self, Scope},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{self, On, Place, TestApp};

/// What is looked at often in life is looked at very often here.
const QUICK: [(&str, &str); 7] = [
    ("jobs.reconcile", "*/2 * * * * *"),
    ("jobs.orphan_reaper", "*/2 * * * * *"),
    ("livekit.start_timeout_seconds", "5"),
    ("buffer.segment_seconds", "1"),
    ("buffer.no_segment_seconds", "12"),
    ("rate_limits.start_per_minute", "0"),
    ("rate_limits.capture_per_minute", "0"),
];

pub const SMALL: Share =
    Share { width: 160, height: 90, audio: false, media: livekit_replay::simulator::Media::Live };

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
}

impl Answer {
    /// Status and code.
    pub fn told(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or(""))
    }

    /// A refusal of that kind that says when to come again.
    #[track_caller]
    pub fn is_for_later(&self, code: &str) {
        assert_eq!(self.told(), (503, code), "{self:?}");
        assert!(self.retry_after.is_some_and(|seconds| seconds > 0), "{self:?}");
    }
}

pub struct House {
    pub app: TestApp,
}

impl House {
    pub async fn open(on: On) -> House {
        House::with(Place::new(on).await, SimConfig::default(), &[]).await
    }

    pub async fn with_settings(on: On, more: &[(&str, &str)]) -> House {
        House::with(Place::new(on).await, SimConfig::default(), more).await
    }

    pub async fn with(place: Place, sim: SimConfig, more: &[(&str, &str)]) -> House {
        let sim = Simulator::start(sim).await.expect("the simulator starts");
        House::around(place, sim, more).await
    }

    /// With a LiveKit that runs already.
    pub async fn around(place: Place, sim: Simulator, more: &[(&str, &str)]) -> House {
        let clock = Arc::new(ShiftedClock::default());
        let settings: Vec<_> = QUICK.iter().chain(more).copied().collect();
        let config = place.config(&sim, &settings);
        let running = support::start(config, Arc::clone(&clock)).await.expect("starts");
        sim.set_webhook_urls(vec![format!("{}/livekit-replay/webhooks/livekit", running.url())]);
        House { app: TestApp { running, sim, clock, place, http: reqwest::Client::new() } }
    }

    fn token(&self, user: &str) -> String {
        let roles = if user == "root" { vec!["instance_admin".to_owned()] } else { vec![] };
        let communities: BTreeMap<CommunityId, Vec<String>> =
            BTreeMap::from([(CommunityId::new("c1"), vec!["moderator".to_owned()])]);
        let claims = Claims {
            user_id: &UserId::new(user),
            name: Some(user),
            communities: &communities,
            roles: &roles,
            lifetime: Duration::from_secs(86_400),
        };
        let deps = &self.app.running.deps;
        token::mint(&deps.config.auth, &claims, self.app.clock.now()).expect("a token")
    }

    /// Asks below the API's base, or at the root what begins with `/health`.
    pub async fn ask(&self, method: Method, user: &str, path: &str, body: Option<Value>) -> Answer {
        let base = if path.starts_with("/health") { "" } else { "/livekit-replay" };
        let url = format!("{}{base}{path}", self.app.running.url());
        let mut request = self.app.http.request(method, url).bearer_auth(self.token(user));
        if let Some(body) = body {
            request = request.json(&body);
        }
        // longer than any deadline of the service: what hangs for ever fails here
        let answer = request.timeout(Duration::from_secs(60)).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().expect("text").parse().expect("whole seconds"));
        Answer { status, retry_after, body: answer.json().await.unwrap_or(Value::Null) }
    }

    pub async fn get(&self, user: &str, path: &str) -> Answer {
        self.ask(Method::GET, user, path, None).await
    }

    pub async fn post(&self, user: &str, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, user, path, Some(body)).await
    }

    /// Shares a screen in a room of the user's own.
    pub fn shares(&self, user: &str) -> ShareHandle {
        self.app.sim.publish_share(&format!("r-{user}"), user, SMALL).expect("shared")
    }

    pub async fn start(&self, user: &str) -> Answer {
        let body = json!({ "roomName": format!("r-{user}"), "communityId": "c1" });
        self.post(user, "/start", body).await
    }

    /// Shares, starts, and waits until some seconds are held; the session's id and the share.
    pub async fn recording(&self, user: &str) -> (String, ShareHandle) {
        let share = self.shares(user);
        let started = self.start(user).await;
        assert_eq!(started.status, 201, "{started:?}");
        let id = started.body["id"].as_str().expect("an id").to_owned();
        self.holds(user, &id, 4.0).await;
        (id, share)
    }

    pub async fn session(&self, user: &str, id: &str) -> Value {
        let answer = self.get(user, &format!("/sessions/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    pub async fn holds(&self, user: &str, id: &str, seconds: f64) {
        until("the buffer is long enough", async || {
            let shown = self.session(user, id).await;
            shown["buffer"]["durationSeconds"].as_f64() >= Some(seconds)
        })
        .await;
    }

    /// Waits for a status, and an epoch at least that high.
    pub async fn until_session(&self, user: &str, id: &str, status: &str, epoch: u64) {
        let last = std::sync::Mutex::new(Value::Null);
        let is_so = async || {
            let shown = self.session(user, id).await;
            let so = shown["status"] == status && shown["epoch"].as_u64() >= Some(epoch);
            *last.lock().expect("whole") = shown;
            so
        };
        if !holds_in_time(is_so).await {
            panic!("not {status} in epoch {epoch}: {:#}", last.lock().expect("whole"));
        }
    }

    /// Captures what was on the screen in the last seconds and waits for the clip.
    pub async fn clip(&self, user: &str, id: &str, seconds: u32) -> Value {
        let body = json!({ "sessionId": id, "durationSeconds": seconds });
        let accepted = self.post(user, "/capture", body).await;
        assert!(matches!(accepted.status, 200..=202), "{accepted:?}");
        self.ready(user, accepted.body["id"].as_str().expect("an id")).await
    }

    /// Waits until a clip is ready, and takes it.
    pub async fn ready(&self, user: &str, clip: &str) -> Value {
        let path = format!("/clips/{clip}");
        until("the clip is there", async || {
            let shown = self.get(user, &path).await;
            assert_ne!(shown.body["status"], "failed", "{shown:?}");
            shown.body["status"] == "ready"
        })
        .await;
        let clip = self.get(user, &path).await.body;
        let link = clip["downloadUrl"].as_str().expect("a link");
        let taken = self.app.http.get(format!("{}{link}", self.app.running.url()));
        let taken = taken.send().await.expect("an answer");
        assert_eq!(taken.status(), 200);
        let bytes = taken.bytes().await.expect("the clip");
        assert_eq!(clip["sizeBytes"].as_u64(), Some(bytes.len() as u64));
        clip
    }

    /// The kinds of all events of a user, in their order.
    pub async fn told(&self, user: &str) -> Vec<&'static str> {
        let scope = Scope::Of(UserId::new(user));
        let rows = event::list_after(self.app.running.deps.db.conn(), &scope, 0, 1000).await;
        rows.expect("events").iter().map(|row| row.kind.as_str()).collect()
    }

    /// Waits until such an event was told.
    pub async fn until_told(&self, user: &str, kind: &str) {
        until(&format!("{kind} is told"), async || self.told(user).await.contains(&kind)).await;
    }

    pub async fn health(&self) -> Value {
        self.get("root", "/health/detailed").await.body
    }

    /// Waits until a part of the health answer says that, and gives the whole answer.
    pub async fn until_health(&self, part: &str, status: &str) -> Value {
        until(&format!("{part} is {status}"), async || {
            self.health().await[part]["status"] == status
        })
        .await;
        self.health().await
    }

    pub fn call_fault(&self, method: &str, action: CallAction, times: Option<u32>) {
        let method = method.to_owned();
        self.app.sim.add_call_fault(CallFault { method, action, times, for_ms: None });
    }

    /// The egress that records for a session now.
    pub async fn egress(&self, user: &str, id: &str) -> String {
        self.session(user, id).await["egressId"].as_str().expect("an egress").to_owned()
    }

    pub fn running_egresses(&self) -> Vec<EgressView> {
        const OVER: [&str; 4] =
            ["EGRESS_COMPLETE", "EGRESS_FAILED", "EGRESS_ABORTED", "EGRESS_LIMIT_REACHED"];
        let all = self.app.sim.egresses().into_iter();
        all.filter(|one| !one.dead && !OVER.contains(&one.status.as_str())).collect()
    }

    pub async fn close(self) {
        self.app.stop().await;
    }
}

/// Waits until something is so; the limit only ends a test that has failed.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    assert!(holds_in_time(is_so).await, "waited in vain until {what}");
}

async fn holds_in_time(is_so: impl AsyncFn() -> bool) -> bool {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.is_ok()
}
