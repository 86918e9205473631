//! Events delivered to endpoints of the app: signed, repeated, given up, begun anew, and never held up by another's
//! endpoint.

use livekit_replay::{
    config::Webhook,
    domain::{event::EventKind, id::UserId},
    store::{self, delivery, event},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{
    harness::{App, Engine, Loops, Setup, on_both_engines},
    receiver::{Arrived, Receiver, Says, secret},
};

on_both_engines!(
    every_endpoint_gets_what_it_wants_signed_once,
    what_fails_is_repeated_later_under_the_same_id,
    what_waits_when_the_clock_is_set_back_does_not_wait_for_it,
    what_is_given_up_begins_anew_when_an_operator_says_so,
    an_endpoint_that_never_answers_holds_up_no_other,
);

fn endpoint(receiver: &Receiver, events: &[EventKind]) -> Webhook {
    let url = format!("{}?key=hidden", receiver.url);
    Webhook::new(url, SecretString::from(secret()), events.to_vec())
}

async fn service(engine: Engine, endpoints: Vec<Webhook>) -> App {
    let setup = Setup::on(engine).loops(Loops::None);
    setup.change(move |config| config.webhooks = endpoints.clone()).start("deliver").await
}

async fn happens(app: &App, kind: EventKind, name: &str) {
    let tx = app.deps.db.begin().await.expect("a transaction");
    let new = event::New {
        kind,
        user_id: UserId::new("ann"),
        community_id: None,
        data: json!({ "id": name, "userId": "ann" }).to_string(),
        created_at: app.deps.clock.now(),
    };
    event::insert(&tx, new).await.expect("written");
    store::commit(tx).await.expect("committed");
}

/// Waits until that many arrived.
async fn arrive(app: &App, receiver: &Receiver, count: usize) -> Vec<Arrived> {
    let arrived = std::sync::Mutex::new(Vec::new());
    app.until("deliveries arrive", async || {
        let mut arrived = arrived.lock().expect("whole");
        arrived.extend(receiver.take());
        assert!(arrived.len() <= count, "more than {count}");
        arrived.len() == count
    })
    .await;
    let arrived = arrived.into_inner().expect("whole");
    for one in &arrived {
        assert!(one.is_signed(), "{one:?}");
        let id = one.headers["webhook-id"].to_str().expect("text").to_owned();
        assert_eq!(one.json()["id"], id.as_str());
    }
    arrived
}

async fn listed(app: &App, query: &str) -> Vec<Value> {
    let (status, list) = app.get_as(&app.admin(), &format!("/admin/events{query}")).await;
    assert_eq!(status, 200, "{list:#}");
    assert!(!list.to_string().contains("hidden"), "an address's query is not shown: {list:#}");
    list["deliveries"].as_array().expect("a list").clone()
}

async fn until_settled(app: &App, state: &str, count: usize) {
    let query = format!("?state={state}");
    app.until(state, async || listed(app, &query).await.len() == count).await;
}

fn names(arrived: &[Arrived]) -> Vec<String> {
    let name = |one: &Arrived| one.json()["data"]["id"].as_str().expect("a name").to_owned();
    arrived.iter().map(name).collect()
}

async fn every_endpoint_gets_what_it_wants_signed_once(engine: Engine) {
    let (all, some) = (Receiver::start().await, Receiver::start().await);
    let endpoints = vec![
        endpoint(&all, &[]),
        endpoint(&some, &[EventKind::ClipReady, EventKind::QuotaWarning]),
    ];
    let app = service(engine.clone(), endpoints).await;
    let other = if engine == Engine::Sqlite { None } else { Some(app.replica().await) };
    app.run_events();
    if let Some(other) = &other {
        other.run_events();
    }
    let kinds = [EventKind::Started, EventKind::ClipReady, EventKind::QuotaWarning];
    for (at, kind) in kinds.iter().cycle().take(30).enumerate() {
        happens(&app, *kind, &format!("{at}")).await;
    }
    let mut got = names(&arrive(&app, &all, 30).await);
    got.sort_by_key(|name| name.parse::<u32>().expect("a number"));
    assert_eq!(got, (0..30).map(|at| at.to_string()).collect::<Vec<_>>());
    let wanted = arrive(&app, &some, 20).await;
    assert!(wanted.iter().all(|one| one.json()["type"] != "replay_buffer_started"));
    let ready = wanted.iter().find(|one| one.json()["type"] == "clip_ready").expect("one");
    let url = ready.json()["data"]["downloadUrl"].as_str().expect("an address").to_owned();
    assert!(!url.contains('?'), "no link that speaks for a person: {url}");
    until_settled(&app, "delivered", 50).await;
    assert!(all.take().is_empty() && some.take().is_empty(), "once");
    if let Some(other) = other {
        other.stop().await;
    }
    app.stop().await;
}

async fn what_fails_is_repeated_later_under_the_same_id(engine: Engine) {
    let receiver = Receiver::start().await;
    let app = service(engine, vec![endpoint(&receiver, &[])]).await;
    for says in [Says::Status(500), Says::Elsewhere, Says::Status(401)] {
        receiver.next(says);
    }
    app.run_events();
    happens(&app, EventKind::ClipReady, "a").await;
    let mut arrived = arrive(&app, &receiver, 1).await;
    // longer than the first three pauses, jitter included
    for pause in [7, 37, 150] {
        let tried = i64::try_from(arrived.len()).expect("few");
        app.until("the failure is written down", async || {
            let row = &listed(&app, "?state=pending").await[0];
            row["attempts"] == tried && row["lastError"].is_string()
        })
        .await;
        assert!(receiver.take().is_empty(), "nothing before its time");
        app.clock.advance_micros(pause * 1_000_000);
        arrived.extend(arrive(&app, &receiver, 1).await);
    }
    let ids: Vec<_> = arrived.iter().map(|one| one.headers["webhook-id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let times: Vec<_> =
        arrived.iter().map(|one| one.headers["webhook-timestamp"].clone()).collect();
    assert_ne!(times[0], times[3], "the time is that of the attempt");
    assert!(arrived.iter().all(|one| one.path == "/deliveries"), "redirects are not followed");
    until_settled(&app, "delivered", 1).await;
    assert_eq!(listed(&app, "").await[0]["attempts"], 4);
    app.stop().await;
}

/// A pause that was begun while the clock stood an hour ahead is over when the clock is set back.
async fn what_waits_when_the_clock_is_set_back_does_not_wait_for_it(engine: Engine) {
    const HOUR: i64 = 3600 * 1_000_000;
    let receiver = Receiver::start().await;
    let app = service(engine, vec![endpoint(&receiver, &[])]).await;
    app.clock.advance_micros(HOUR);
    app.run_events();
    receiver.next(Says::Status(500));
    happens(&app, EventKind::ClipReady, "a").await;
    let first = arrive(&app, &receiver, 1).await[0].json();
    let failed = async || listed(&app, "?state=pending").await[0]["lastError"].is_string();
    app.until("the failure is written down", failed).await;
    assert!(receiver.take().is_empty(), "it waits");
    app.clock.advance_micros(-HOUR);
    assert_eq!(arrive(&app, &receiver, 1).await[0].json()["id"], first["id"]);
    until_settled(&app, "delivered", 1).await;
    app.stop().await;
}

async fn what_is_given_up_begins_anew_when_an_operator_says_so(engine: Engine) {
    let (gone, fine) = (Receiver::start().await, Receiver::start().await);
    let app = service(engine, vec![endpoint(&gone, &[]), endpoint(&fine, &[])]).await;
    app.run_events();
    gone.next(Says::Status(410));
    happens(&app, EventKind::ClipReady, "a").await;
    arrive(&app, &gone, 1).await;
    arrive(&app, &fine, 1).await;
    until_settled(&app, "dead", 1).await;
    // the other kind of end: no attempt is left
    for _ in 0..9 {
        gone.next(Says::Status(500));
    }
    happens(&app, EventKind::ClipFailed, "b").await;
    arrive(&app, &fine, 1).await;
    for attempt in 1..=9 {
        arrive(&app, &gone, 1).await;
        app.until("it is written down", async || {
            listed(&app, "")
                .await
                .iter()
                .any(|row| row["attempts"] == attempt && row["lastStatus"] == 500)
        })
        .await;
        app.clock.advance_micros((15 * 3600) * 1_000_000);
    }
    until_settled(&app, "dead", 2).await;
    // and a third of an endpoint that is in no settings any more: it would wait for nobody
    dead_for(&app, "taken-out").await;
    until_settled(&app, "dead", 3).await;

    let (status, told) = again(&app, "/admin/events/redeliver?dryRun").await;
    assert_eq!((status, told), (200, json!({ "deliveries": 2, "dryRun": true })));
    until_settled(&app, "dead", 3).await;
    let (status, told) = again(&app, "/admin/events/redeliver").await;
    assert_eq!((status, told), (200, json!({ "deliveries": 2, "dryRun": false })));
    assert_eq!(names(&arrive(&app, &gone, 2).await), ["a", "b"], "the oldest first");
    until_settled(&app, "delivered", 4).await;
    // one event, to one endpoint, although it was delivered
    let row = &listed(&app, "").await[0];
    let (id, name) =
        (row["eventId"].as_str().expect("an id"), app.deps.config.webhooks[1].name.clone());
    let path = format!("/admin/events/{id}/redeliver?endpoint={name}");
    assert_eq!(again(&app, &path).await.1["deliveries"], 1);
    assert_eq!(arrive(&app, &fine, 1).await[0].json()["id"], id);
    assert!(gone.take().is_empty());
    let (status, _) = again(&app, "/admin/events/redeliver?endpoint=nobody").await;
    assert_eq!(status, 422);
    let (_, log) = app.get_as(&app.admin(), "/admin/audit?action=event.redeliver").await;
    let done: Vec<_> = log["entries"].as_array().expect("lines").iter().collect();
    assert_eq!(done.len(), 2, "a dry run did nothing: {log:#}");
    app.stop().await;
}

/// A delivery to an endpoint of that name that was given up.
async fn dead_for(app: &App, endpoint: &str) {
    let scope = event::Scope::Of(UserId::new("ann"));
    let events = event::list_after(app.deps.db.conn(), &scope, 0, 1).await.expect("events");
    let now = app.deps.clock.now();
    let event = (&events[0].id, &events[0].user_id, events[0].seq.expect("a place"));
    let tx = app.deps.db.begin().await.expect("a transaction");
    delivery::enqueue(&tx, event, endpoint, now).await.expect("queued");
    delivery::give_up_before(&tx, now.plus_seconds(1), now).await.expect("given up");
    store::commit(tx).await.expect("committed");
}

async fn again(app: &App, path: &str) -> (u16, Value) {
    app.post_as(&app.admin(), path, json!({})).await
}

async fn an_endpoint_that_never_answers_holds_up_no_other(engine: Engine) {
    let (silent, fine) = (Receiver::start().await, Receiver::start().await);
    let app = service(engine, vec![endpoint(&silent, &[]), endpoint(&fine, &[])]).await;
    for _ in 0..50 {
        silent.next(Says::Nothing);
    }
    app.run_events();
    for at in 0..20 {
        happens(&app, EventKind::ClipReady, &at.to_string()).await;
    }
    arrive(&app, &fine, 20).await;
    assert!(listed(&app, "?state=pending").await.len() >= 19, "the silent one's wait in the table");
    app.stop().await;
}
