//! The database: away for a while, its connections cut, a row locked by somebody who does not let go, the file locked by
//! somebody else. Nobody waits for ever, nothing accepted is lost, and all goes on when it is back.

use livekit_replay::{
    simulator::SimConfig,
    store::{Connect, Db},
};
use reqwest::Method;
use sea_orm::ConnectionTrait;
use serde_json::json;

use crate::{
    house::{House, until},
    server::Server,
    support::{On, Place, postgres_url::postgres_url},
};

async fn connect(url: &str) -> Db {
    let how = Connect { url, max_connections: 1, create: false };
    Db::connect(how).await.expect("the database")
}

/// A place whose database is on that server.
async fn on_own(server: &Server) -> Place {
    let mut place = Place::new(On::Sqlite).await;
    place.database_url.clone_from(&server.url);
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn database_restarted() {
    let Some(server) = Server::start().await else { return };
    let house = House::with(on_own(&server).await, SimConfig::default(), &[]).await;
    let (ann, _share) = house.recording("ann").await;
    let egress = house.egress("ann", &ann).await;
    let before = house.session("ann", &ann).await["buffer"]["segments"].as_u64();
    let body = json!({ "sessionId": ann, "durationSeconds": 2 });
    let accepted = house.post("ann", "/capture", body).await.body["id"].clone();
    house.shares("bob");

    server.stop().await;
    house.get("ann", "/my-clips").await.is_for_later("overloaded");
    house.start("bob").await.is_for_later("overloaded");
    assert_eq!(house.get("ann", "/health").await.status, 200, "the process lives");
    let ready = house.get("ann", "/health/ready").await;
    ready.is_for_later("storage_unavailable");
    assert_eq!(ready.body["checks"]["database"], "fail");

    server.start_again().await;
    until("it is ready again", async || house.get("ann", "/health/ready").await.status == 200)
        .await;
    assert_eq!(house.until_health("database", "ok").await["status"], "ok");
    // the recording went on meanwhile, and what it wrote is indexed
    until("what came meanwhile is indexed", async || {
        let shown = house.session("ann", &ann).await;
        shown["status"] == "active" && shown["buffer"]["segments"].as_u64() > before
    })
    .await;
    assert_eq!(house.egress("ann", &ann).await, egress, "nobody replaced what works");
    house.ready("ann", accepted.as_str().expect("an id")).await;
    house.clip("ann", &ann, 2).await;
    house.until_told("ann", "clip_ready").await;
    house.recording("bob").await;
    house.close().await;
    server.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_connections_cut() {
    if postgres_url().is_none() {
        return;
    }
    let house = House::open(On::Postgres).await;
    let (ann, _share) = house.recording("ann").await;
    let outside = connect(&house.app.place.database_url).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut accepted = Vec::new();
    for _ in 0..10 {
        let body = json!({ "sessionId": ann, "durationSeconds": 2 });
        let (answer, cut) = tokio::join!(
            house.post("ann", "/capture", body),
            outside.conn().execute_unprepared(cut)
        );
        cut.expect("cut");
        match answer.status {
            200..=202 => accepted.push(answer.body["id"].as_str().expect("an id").to_owned()),
            _ => answer.is_for_later("overloaded"),
        }
    }
    for clip in &accepted {
        house.ready("ann", clip).await;
    }
    assert_eq!(house.until_health("database", "ok").await["status"], "ok");
    house.clip("ann", &ann, 2).await;
    let shown = house.session("ann", &ann).await;
    assert_eq!((&shown["status"], &shown["epoch"]), (&json!("active"), &json!(1)));
    println!("of 10 captures while connections were cut {} were accepted", accepted.len());
    outside.close().await.expect("closed");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_held_open_locks_a_row() {
    if postgres_url().is_none() {
        return;
    }
    let house = House::open(On::Postgres).await;
    let (ann, _share) = house.recording("ann").await;
    let holder = connect(&house.app.place.database_url).await;
    // we ourselves are thrown out after half a minute; others may stay as long as they like
    let for_ever = "SET idle_in_transaction_session_timeout = 0";
    holder.conn().execute_unprepared(for_ever).await.expect("set");
    let held = holder.begin().await.expect("a transaction");
    let lock = format!("SELECT id FROM session WHERE id = '{ann}' FOR UPDATE");
    held.execute_unprepared(&lock).await.expect("locked");
    let body = json!({ "sessionId": ann, "durationSeconds": 2 });
    house.post("ann", "/capture", body).await.is_for_later("overloaded");
    house.post("ann", &format!("/stop/{ann}"), json!({})).await.is_for_later("overloaded");
    // nobody else is held up
    let (bob, _share) = house.recording("bob").await;
    house.clip("bob", &bob, 2).await;
    assert_eq!(house.health().await["database"]["status"], "ok");
    livekit_replay::store::rollback(held).await.expect("let go");
    house.clip("ann", &ann, 2).await;
    let shown = house.session("ann", &ann).await;
    assert_eq!((&shown["status"], &shown["epoch"]), (&json!("active"), &json!(1)));
    holder.close().await.expect("closed");
    house.close().await;
}

/// Longer than the attempts of a clip last, had they been counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_clip_waits_for_an_account_that_somebody_holds() {
    if postgres_url().is_none() {
        return;
    }
    let house = House::open(On::Postgres).await;
    let (ann, _share) = house.recording("ann").await;
    let holder = connect(&house.app.place.database_url).await;
    let for_ever = "SET idle_in_transaction_session_timeout = 0";
    holder.conn().execute_unprepared(for_ever).await.expect("set");
    // its last seconds are yet to come
    let body = json!({ "sessionId": ann, "durationSeconds": 2, "postSeconds": 6 });
    let capture = house.post("ann", "/capture", body);
    let lock = async {
        until("it is accepted", async || house.get("ann", "/my-clips").await.body["total"] == 1)
            .await;
        let held = holder.begin().await.expect("a transaction");
        let lock = "SELECT user_id FROM user_account WHERE user_id = 'ann' FOR UPDATE";
        held.execute_unprepared(lock).await.expect("locked");
        held
    };
    let (accepted, held) = tokio::join!(capture, lock);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let id = accepted.body["id"].as_str().expect("an id");
    let mut seen = std::collections::BTreeSet::new();
    // more often than a clip may fail
    for times in 1..=4 {
        let again = async || {
            let shown = house.get("ann", &format!("/clips/{id}")).await.body;
            assert_eq!(shown["status"], "processing", "{shown:#}");
            let waits = shown["error"]["code"] == "overloaded";
            waits.then(|| shown["updatedAt"].to_string())
        };
        let last = std::cell::RefCell::new(None);
        until("the clip waits for the database", async || {
            let found = again().await.filter(|at| !seen.contains(at));
            let is_new = found.is_some();
            *last.borrow_mut() = found;
            is_new
        })
        .await;
        seen.extend(last.into_inner());
        assert_eq!(seen.len(), times);
    }
    livekit_replay::store::rollback(held).await.expect("let go");
    let clip = house.ready("ann", id).await;
    assert!(clip.get("error").is_none(), "{clip:#}");
    holder.close().await.expect("closed");
    house.close().await;
}

/// By a tool that somebody left open: readers go on, whoever writes is told to come again.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_locked_by_somebody_else() {
    let house = House::open(On::Sqlite).await;
    let (ann, _share) = house.recording("ann").await;
    let before = house.session("ann", &ann).await["buffer"]["segments"].as_u64();
    let tool = connect(&house.app.place.database_url).await;
    tool.conn().execute_unprepared("BEGIN IMMEDIATE").await.expect("locked");

    let body = json!({ "sessionId": ann, "durationSeconds": 2 });
    house.post("ann", "/capture", body).await.is_for_later("overloaded");
    assert_eq!(house.session("ann", &ann).await["status"], "active", "reading goes on");
    assert_eq!(house.get("ann", "/health/ready").await.status, 200);
    assert_eq!(house.ask(Method::GET, "ann", "/my-clips", None).await.body["total"], 0);

    tool.conn().execute_unprepared("ROLLBACK").await.expect("let go");
    tool.close().await.expect("closed");
    until("what came meanwhile is indexed", async || {
        house.session("ann", &ann).await["buffer"]["segments"].as_u64() > before
    })
    .await;
    house.clip("ann", &ann, 2).await;
    assert_eq!(house.session("ann", &ann).await["epoch"], 1);
    house.until_told("ann", "clip_ready").await;
    house.close().await;
}
