//! A whole service inside the test's process: a free port, a clock that can be moved, directories and a database of
//! its own, the simulator as its LiveKit. [`on_both_engines!`] runs a test on SQLite and, where `TEST_POSTGRES_URL`
//! names a server, on PostgreSQL.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use livekit_replay::{
    access::token::{self, Claims},
    app::{self, Failure, Running},
    clock::{Clock, ShiftedClock},
    config::{self, Config, Demand, Sources},
    domain::id::{CommunityId, UserId},
    simulator::{SimConfig, Simulator},
};
use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, Database};
use serde_json::Value;
use tokio::net::TcpListener;

pub mod postgres_url;

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Sqlite,
    Postgres,
}

/// Makes `sqlite::name` and `postgres::name` of `async fn name(on: On)`.
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::On::Sqlite).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if $crate::support::postgres_url::postgres_url().is_none() {
                    return;
                }
                super::$name($crate::support::On::Postgres).await;
            })+
        }
    };
}

/// A database and directories of a test's own. Gone when [`Place::remove`] is called; the directories also when dropped.
pub struct Place {
    pub dir: PathBuf,
    pub database_url: String,
    postgres: Option<(String, String)>,
}

impl Place {
    pub async fn new(on: On) -> Place {
        let server = (on == On::Postgres)
            .then(|| std::env::var("TEST_POSTGRES_URL").expect("looked at before"));
        Place::on(server).await
    }

    /// On a PostgreSQL server, or on SQLite.
    pub async fn on(server: Option<String>) -> Place {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let name = format!("lkr_test_{}", uuid::Uuid::new_v4().simple());
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&dir).expect("a directory for the test");
        let (database_url, postgres) = match server {
            None => (format!("sqlite://{}", dir.join("replay.db").display()), None),
            Some(server) => {
                run_on(&server, &format!("CREATE DATABASE {name}")).await;
                let (host, _) = server.rsplit_once('/').expect("a URL with a database");
                (format!("{host}/{name}"), Some((server, name)))
            }
        };
        Place { dir, database_url, postgres }
    }

    /// The settings of a service that lives here; `more` are further ones.
    pub fn config(&self, sim: &Simulator, more: &[(&str, &str)]) -> Config {
        let dir = |name: &str| self.dir.join(name).display().to_string();
        let own = [
            ("data_dir", dir("data")),
            ("database.url", self.database_url.clone()),
            ("storage.buffer", dir("buffer")),
            ("storage.clips", dir("clips")),
            ("auth.jwt_secret", "a-secret-that-tests-alone-know-of".to_owned()),
            ("livekit.url", sim.url()),
            ("livekit.api_key", sim.api_key().to_owned()),
            ("livekit.api_secret", sim.api_secret().to_owned()),
            ("storage.min_free_bytes", "0".to_owned()),
        ];
        let flag = |key: &str, value: String| (key.to_owned(), value, "test".to_owned());
        let flags = own
            .into_iter()
            .map(|(key, value)| flag(key, value))
            .chain(more.iter().map(|(key, value)| flag(key, (*value).to_owned())))
            .collect();
        let sources = Sources { flags, cwd: self.dir.clone(), ..Sources::default() };
        config::load(&sources, Demand::Service).expect("valid settings")
    }

    pub async fn remove(mut self) {
        if let Some((server, name)) = self.postgres.take() {
            run_on(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn run_on(server: &str, statement: &str) {
    let db = Database::connect(server).await.expect("the test's PostgreSQL");
    db.execute_unprepared(statement).await.expect("a database of the test's own");
    db.close().await.expect("closed");
}

/// A running service with its LiveKit.
pub struct TestApp {
    pub running: Running,
    pub sim: Simulator,
    pub clock: Arc<ShiftedClock>,
    pub place: Place,
    pub http: reqwest::Client,
}

impl TestApp {
    pub async fn start(on: On) -> TestApp {
        TestApp::start_with(on, &[]).await
    }

    pub async fn start_with(on: On, settings: &[(&str, &str)]) -> TestApp {
        let place = Place::new(on).await;
        let sim = Simulator::start(SimConfig::default()).await.expect("the simulator starts");
        let clock = Arc::new(ShiftedClock::default());
        let config = place.config(&sim, settings);
        let running = start(config, Arc::clone(&clock)).await.expect("the service starts");
        let hooks = format!("{}/livekit-replay/webhooks/livekit", running.url());
        sim.set_webhook_urls(vec![hooks]);
        TestApp { running, sim, clock, place, http: reqwest::Client::new() }
    }

    /// A token of `user` with roles in communities.
    pub fn token_for(&self, user: &str, roles: &[(&str, &str)]) -> String {
        let mut communities: BTreeMap<CommunityId, Vec<String>> = BTreeMap::new();
        for (community, role) in roles {
            communities.entry(CommunityId::new(*community)).or_default().push((*role).to_owned());
        }
        let claims = Claims {
            user_id: &UserId::new(user),
            name: Some(user),
            communities: &communities,
            roles: &[],
            lifetime: Duration::from_secs(3600),
        };
        token::mint(&self.running.deps.config.auth, &claims, self.clock.now()).expect("a token")
    }

    /// Asks `path` below the API's base.
    pub async fn ask(
        &self,
        method: Method,
        token: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let url = format!("{}/livekit-replay{path}", self.running.url());
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Stops everything and removes what it made.
    pub async fn stop(self) {
        self.running.stop().await.expect("the service stops in time");
        self.sim.shutdown().await;
        self.place.remove().await;
    }
}

/// Starts a service on a free port.
pub async fn start(config: Config, clock: Arc<ShiftedClock>) -> Result<Running, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    app::start(config, clock, listener).await
}
