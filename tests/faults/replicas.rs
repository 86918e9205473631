//! Three processes of the program on one PostgreSQL and the same stores: who starts first, who makes what another had
//! begun, who runs a tick, and who hears of what another did.

use std::{collections::BTreeSet, time::Duration};

use livekit_replay::{
    simulator::{CallAction, CallFault},
    store::{Connect, Db},
};
use reqwest::Method;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};

use crate::{
    house::{SMALL, until},
    process::Process,
    service::{Answer, Service},
    support::{On, postgres_url::postgres_url},
};

struct Three {
    first: Service,
    others: [Process; 2],
    db: Db,
}

impl Three {
    /// All three at once, on an empty database.
    async fn start() -> Option<Three> {
        postgres_url()?;
        let first = Service::new(On::Postgres).await;
        let ((), second, third) =
            tokio::join!(first.start(None), first.replica("second"), first.replica("third"));
        let how = Connect { url: &first.place.database_url, max_connections: 1, create: false };
        let db = Db::connect(how).await.expect("the database");
        Some(Three { first, others: [second, third], db })
    }

    fn all(&self) -> [&Process; 3] {
        [&self.first.process, &self.others[0], &self.others[1]]
    }

    /// The only row of a query with one column `v`, as text.
    async fn text(&self, query: &str) -> Option<String> {
        let statement = Statement::from_string(self.db.conn().get_database_backend(), query);
        let row = self.db.conn().query_one_raw(statement).await.expect("a query")?;
        row.try_get("", "v").expect("text")
    }

    async fn ask(&self, of: &Process, user: &str, path: &str, body: Option<Value>) -> Value {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let shape = |request: reqwest::RequestBuilder| match &body {
            Some(body) => request.header("Prefer", "respond-async").json(body),
            None => request,
        };
        match self.first.ask_of(of, method, user, path, shape).await {
            Answer::Said(status, value) if (200..300).contains(&status) => value,
            other => panic!("{path}: {other:?}\n{}", of.log()),
        }
    }

    /// A recording of some seconds, begun by the second process.
    async fn recording(&self, user: &str) -> Value {
        let room = format!("red-{user}");
        self.first.sim.publish_share(&room, user, SMALL).expect("shared");
        let by = &self.others[0];
        let session = self.ask(by, user, "/start", Some(json!({ "roomName": room }))).await;
        let path = format!("/sessions/{}", session["id"].as_str().expect("an id"));
        until("some seconds are held", async || {
            let shown = self.ask(by, user, &path, None).await;
            shown["buffer"]["durationSeconds"].as_f64() >= Some(4.0)
        })
        .await;
        self.ask(by, user, &path, None).await
    }

    /// A capture whose last second has not come yet and does not come for a while; answers its clip and which of the
    /// processes has the job in hand.
    async fn waiting_capture(&self, user: &str) -> (String, usize) {
        let session = self.recording(user).await;
        let egress = session["egressId"].as_str().expect("an egress");
        self.first.sim.pause_sink(egress, Duration::from_secs(8)).expect("paused");
        let body = json!({ "sessionId": session["id"], "durationSeconds": 3 });
        let clip = self.ask(&self.others[0], user, "/capture", Some(body)).await;
        let id = clip["id"].as_str().expect("an id").to_owned();
        let query = format!(
            "SELECT lease_owner AS v FROM job WHERE clip_id = '{id}' AND state = 'running'"
        );
        until("somebody has the job in hand", async || self.text(&query).await.is_some()).await;
        let owner = self.text(&query).await.expect("still in hand");
        let logs = self.logs();
        // the line `ready` names the process as leases do
        let replica = |log: &String| {
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut named = lines.filter_map(|line| line["replica"].as_str().map(str::to_owned));
            named.next().is_some_and(|name| owner.starts_with(&name))
        };
        (id, logs.iter().position(replica).expect("one of the three"))
    }

    /// What each of the three wrote, in their order.
    fn logs(&self) -> [String; 3] {
        ["service", "second", "third"].map(|name| {
            std::fs::read_to_string(self.first.place.dir.join(format!("{name}.log")))
                .expect("a log")
        })
    }

    async fn ask_root(&self, of: &Process) -> Value {
        // beside the API, at the root
        self.ask(of, "root", "/../health/detailed", None).await
    }

    async fn ready(&self, by: &Process, user: &str, clip: &str) -> Value {
        let path = format!("/clips/{clip}");
        until("the clip is there", async || {
            let shown = self.ask(by, user, &path, None).await;
            assert_ne!(shown["status"], "failed", "{shown}");
            shown["status"] == "ready"
        })
        .await;
        self.ask(by, user, &path, None).await
    }

    /// All three must end well by SIGTERM.
    async fn close(self) {
        self.db.close().await.expect("closed");
        for other in &self.others {
            other.end().await;
        }
        self.first.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_raced_by_three_on_an_empty_database() {
    let Some(three) = Three::start().await else { return };
    let changes =
        "SELECT count(*)::text || ' ' || count(DISTINCT version)::text AS v FROM seaql_migrations";
    let changes = three.text(changes).await.expect("counted");
    let (all, distinct) = changes.split_once(' ').expect("two");
    assert_eq!(all, distinct, "each change once");
    assert_ne!(all, "0");
    let mut instances = BTreeSet::new();
    for process in three.all() {
        let base = process.base().expect("runs").replace("/livekit-replay", "");
        let ready = reqwest::get(format!("{base}/health/ready")).await.expect("an answer");
        assert_eq!(ready.status(), 200);
        let health = three.ask_root(process).await;
        assert_eq!(health["schema"]["status"], "ok");
        instances.insert(health["instanceId"].to_string());
    }
    assert_eq!(instances.len(), 1, "one instance: {instances:?}");
    three.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leased_by_one_that_dies_is_made_by_another() {
    let Some(three) = Three::start().await else { return };
    let (clip, holder) = three.waiting_capture("ann").await;
    let all = three.all();
    all[holder].kill().await;
    let alive = all[(holder + 1) % 3];
    let ready = three.ready(alive, "ann", &clip).await;
    assert_eq!(ready["gaps"], json!([]), "{ready:#}");
    let clips = three.ask(alive, "ann", "/my-clips", None).await;
    assert_eq!(clips["total"], 1, "made once: {clips}");
    // it comes back and takes part
    all[holder].start(None).await;
    assert_eq!(
        three.ask(all[holder], "ann", &format!("/clips/{clip}"), None).await["status"],
        "ready"
    );
    three.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_gives_a_job_back_and_loses_none() {
    let Some(three) = Three::start().await else { return };
    let (clip, holder) = three.waiting_capture("ann").await;
    let all = three.all();
    // must end well, and in time
    all[holder].end().await;
    let row =
        format!("SELECT state || ' ' || attempts::text AS v FROM job WHERE clip_id = '{clip}'");
    let row = three.text(&row).await.expect("the job");
    assert!(["queued 0", "running 0", "running 1", "done 1"].contains(&row.as_str()), "{row}");
    let alive = all[(holder + 1) % 3];
    let ready = three.ready(alive, "ann", &clip).await;
    assert_eq!(ready["gaps"], json!([]), "{ready:#}");
    all[holder].start(None).await;
    three.close().await;
}

/// LiveKit accepts a replacement, and whoever asked for it dies before he hears so.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_starter_died_is_adopted_by_the_others() {
    let Some(three) = Three::start().await else { return };
    let session = three.recording("ann").await;
    let (id, egress) = (session["id"].as_str().expect("an id"), &session["egressId"]);
    let sim = &three.first.sim;
    let method = "StartTrackCompositeEgress".to_owned();
    let action = CallAction::HangAfter;
    sim.add_call_fault(CallFault { method, action, times: Some(1), for_ms: None });
    sim.fail_egress(egress.as_str().expect("an egress"), "broken", 500).expect("failed");
    until("another egress records", async || sim.egresses().len() == 2).await;
    let begins = |log: &String| log.contains("starting the next epoch");
    let starter = three.logs().iter().position(begins).expect("one of the three");
    let all = three.all();
    all[starter].kill().await;
    let answered = format!(
        "SELECT answered_at::text AS v FROM epoch WHERE session_id = '{id}' AND number = 2 AND answered_at IS NOT NULL"
    );
    until("the recording is adopted", async || three.text(&answered).await.is_some()).await;
    let alive = all[(starter + 1) % 3];
    let path = format!("/sessions/{id}");
    let adopts = |log: &String| log.contains("an epoch was adopted");
    assert!(three.logs().iter().any(adopts), "by one of the others");
    until("the session goes on", async || {
        three.ask(alive, "ann", &path, None).await["status"] == "active"
    })
    .await;
    let body = json!({ "sessionId": id, "durationSeconds": 2 });
    let clip = three.ask(alive, "ann", "/capture", Some(body)).await;
    three.ready(alive, "ann", clip["id"].as_str().expect("an id")).await;
    let shown = three.ask(alive, "ann", &path, None).await;
    assert_eq!(shown["epoch"], 2, "{shown:#}");
    assert_eq!(sim.egresses().len(), 2, "the one that failed and the adopted one");
    all[starter].start(None).await;
    three.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_are_claimed_once_by_three() {
    let Some(three) = Three::start().await else { return };
    let runs = "SELECT count(*)::text AS v FROM maintenance_run WHERE job = 'reconcile' AND outcome IS NOT NULL";
    let count = async || three.text(runs).await.and_then(|text| text.parse::<usize>().ok());
    until("some ticks have passed", async || count().await >= Some(6)).await;
    for process in three.all() {
        process.end().await;
    }
    let ran = count().await.expect("counted");
    let calls = three.first.sim.calls();
    let asked = calls.iter().filter(|call| call.method == "ListEgress").count();
    // every pass asks once, and so does each process when it starts; a pass that was cut short is no run
    println!("{ran} ticks, LiveKit was asked {asked} times");
    assert!((ran..=ran + 3 + 3).contains(&asked), "{ran} runs, {asked} questions");
    for process in three.all() {
        process.start(None).await;
    }
    three.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_written_by_one_reach_a_client_on_another() {
    let Some(three) = Three::start().await else { return };
    let stream = async |process: &Process| {
        let shape = |request: reqwest::RequestBuilder| request.header("last-event-id", "0");
        let opened = three.first.send(process, Method::GET, "ann", "/events", shape).await;
        opened.expect("a stream")
    };
    // all three listen; the second one acts
    let [one, two, other] = three.all();
    let mut streams = [stream(one).await, stream(two).await, stream(other).await];
    let session = three.recording("ann").await;
    let body = json!({ "sessionId": session["id"], "durationSeconds": 2 });
    let clip = three.ask(two, "ann", "/capture", Some(body)).await;
    three.ready(other, "ann", clip["id"].as_str().expect("an id")).await;
    let mut heard: Vec<Vec<String>> = Vec::new();
    for stream in &mut streams {
        let mut text = String::new();
        let read = async {
            while !text.contains("event: clip_ready") {
                let bytes = stream.chunk().await.expect("open").expect("no end");
                text += std::str::from_utf8(&bytes).expect("whole characters");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("told in a minute");
        let kinds = text.lines().filter_map(|line| line.strip_prefix("event: "));
        heard.push(kinds.map(str::to_owned).collect());
    }
    let expected = ["replay_buffer_started", "segments_ready", "clip_processing", "clip_ready"];
    assert_eq!(heard[0], expected);
    assert_eq!(heard[1], expected);
    assert_eq!(heard[2], expected);
    drop(streams);
    three.close().await;
}
