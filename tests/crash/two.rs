//! Two processes of the program on one PostgreSQL, asked in turns, and what is read from answers and disk.

use std::{collections::BTreeMap, path::Path, time::Duration};

use livekit_replay::{
    domain::{id::UserId, keys},
    store::{Connect, Db},
};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::{
    history,
    process::Process,
    service::{Answer, Service},
    support::On,
};

pub struct Two {
    pub first: Service,
    pub second: Process,
}

impl Two {
    pub async fn start() -> Two {
        // egresses that write nothing are not to be replaced, nor given up where the machine is slow
        let settings = [
            ("REPLAY__BUFFER__NO_SEGMENT_SECONDS", "3600"),
            ("REPLAY__LIVEKIT__START_TIMEOUT_SECONDS", "60"),
        ];
        Two::with(&settings).await
    }

    /// With these further environment variables.
    pub async fn with(settings: &[(&'static str, &'static str)]) -> Two {
        let first = Service::with(On::Postgres, settings).await;
        first.start(None).await;
        let second = first.replica("second").await;
        Two { first, second }
    }

    /// The one or the other, in turns.
    pub fn process(&self, turn: usize) -> &Process {
        if turn.is_multiple_of(2) { &self.first.process } else { &self.second }
    }

    /// Asks the one or the other; no answer is a failure, and so is one that is the service's fault.
    pub async fn ask(
        &self,
        turn: usize,
        method: Method,
        user: &str,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> (u16, Value) {
        let named = format!("{method} {path} by {user}");
        match self.first.ask_of(self.process(turn), method, user, path, shape).await {
            Answer::Said(status, body) => {
                let ours = (500..600).contains(&status) && status != 507;
                assert!(!ours, "{named}: {status} {body:#}\n{}", self.logs());
                (status, body)
            }
            other => panic!("{named}: {other:?}\n{}", self.logs()),
        }
    }

    /// POST that does not wait for a clip.
    pub async fn post(&self, turn: usize, user: &str, path: &str, body: Value) -> (u16, Value) {
        let shape = |request: RequestBuilder| request.header("Prefer", "respond-async").json(&body);
        self.ask(turn, Method::POST, user, path, shape).await
    }

    /// An administrator's change, which must be taken.
    pub async fn change(&self, turn: usize, path: &str, body: Value) -> Value {
        let (status, shown) =
            self.ask(turn, Method::PATCH, "root", path, |request| request.json(&body)).await;
        assert_eq!(status, 200, "{path} {body}: {shown:#}");
        shown
    }

    pub async fn get(&self, user: &str, path: &str) -> Value {
        self.first.must(Method::GET, user, path, None).await
    }

    pub async fn active(&self) -> Value {
        self.get("root", "/admin/community/red/config").await["activeSessions"].clone()
    }

    /// Asks until it is so, and answers the last answer.
    pub async fn settled(&self, user: &str, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let shown = self.get(user, path).await;
                if is_so(&shown) {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(120), asking).await;
        asked.unwrap_or_else(|_| panic!("{path} does not become so\n{}", self.logs()))
    }

    /// A connection of the test's own.
    pub async fn database(&self) -> Db {
        let url = &self.first.place.database_url;
        Db::connect(Connect { url, max_connections: 1, create: false }).await.unwrap()
    }

    fn logs(&self) -> String {
        format!("{}\n-- second:\n{}", self.first.log(), self.second.log())
    }

    /// LiveKit tells both, as far as they run.
    pub fn hear_webhooks(&self) {
        let bases = [self.first.process.base(), self.second.base()].into_iter().flatten();
        let hooks = bases.map(|base| format!("{base}/webhooks/livekit")).collect();
        self.first.sim.set_webhook_urls(hooks);
    }

    /// Ends both, and sees that they never waited for each other in a circle.
    pub async fn close(self, db: Db) {
        self.second.end().await;
        self.first.process.end().await;
        history::no_deadlock(&db).await;
        db.close().await.unwrap();
        self.first.sim.shutdown().await;
        self.first.place.remove().await;
    }
}

/// How often each answer came: status and, of a refusal, its code.
pub fn count(answers: &[(u16, Value)]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (status, body) in answers {
        let code = body["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
        *counts.entry(format!("{status}{code}")).or_default() += 1;
    }
    counts
}

pub fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(answer, times)| ((*answer).to_owned(), *times)).collect()
}

pub fn bytes_of_videos(store: &Path, user: &str) -> u64 {
    let own = store.join(keys::user_key(&UserId::new(user)));
    let files = std::fs::read_dir(own).into_iter().flatten().flatten();
    let videos = files.filter(|file| file.path().extension().is_some_and(|end| end == "mp4"));
    videos.map(|file| file.metadata().unwrap().len()).sum()
}
