//! No loss, under concurrency: transactions of two replicas that commit in any order, and readers on both who come and
//! go. What they received is compared with the table.

use std::{sync::Arc, time::Duration};

use livekit_replay::{
    domain::{
        event::EventKind,
        id::{CommunityId, UserId},
    },
    flow::events,
    store::{self, event},
};
use rand::Rng;
use serde_json::json;

use crate::{
    harness::{App, Engine, Loops, Setup, on_both_engines},
    reader::Reader,
};

on_both_engines!(
    a_reader_who_comes_and_goes_gets_every_event_once_in_order,
    what_is_no_longer_kept_is_said,
    an_event_of_a_change_that_was_rolled_back_is_told_to_nobody,
    whoever_was_erased_leaves_no_event,
);

/// Writers, and events that each writes.
const WRITERS: usize = 12;
const EACH: usize = 40;

/// Writes an event as a change does, in a transaction that takes its time before it commits.
async fn write(app: &App, user: &str, text: &str, pause: Duration, commits: bool) {
    let tx = app.deps.db.begin().await.expect("a transaction");
    let new = event::New {
        kind: EventKind::ClipDeleted,
        user_id: UserId::new(user),
        community_id: Some(CommunityId::new("red")),
        data: json!({ "id": text, "userId": user, "visibility": "private" }).to_string(),
        created_at: app.deps.clock.now(),
    };
    event::insert(&tx, new).await.expect("written");
    tokio::time::sleep(pause).await;
    if commits {
        store::commit(tx).await.expect("committed");
    } else {
        store::rollback(tx).await.expect("rolled back");
    }
}

async fn a_reader_who_comes_and_goes_gets_every_event_once_in_order(engine: Engine) {
    let replicas = if engine == Engine::Sqlite { 1 } else { 2 };
    let first = Setup::on(engine).loops(Loops::None).start("resume").await;
    let mut apps = vec![Arc::new(first)];
    for _ in 1..replicas {
        let more = apps[0].replica().await;
        apps.push(Arc::new(more));
    }
    for app in &apps {
        app.run_events();
    }
    let beginning = Reader::of(&apps[0], "ann", None).await.placed().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let app = Arc::clone(&apps[writer % apps.len()]);
            tokio::spawn(async move {
                for at in 0..EACH {
                    // long and short transactions side by side: what is written first commits late
                    let pause = Duration::from_millis(rand::rng().random_range(0..25));
                    let commits = (writer + at) % 7 != 0;
                    write(&app, "ann", &format!("{writer}-{at}"), pause, commits).await;
                }
            })
        })
        .collect();
    let expected = (0..WRITERS)
        .flat_map(|writer| (0..EACH).map(move |at| (writer + at) % 7 != 0))
        .filter(|commits| *commits)
        .count();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (apps, beginning) = (apps.clone(), beginning.clone());
            tokio::spawn(async move { read_all(&apps, beginning, expected).await })
        })
        .collect();
    for writer in writers {
        writer.await.expect("written");
    }
    let rows = {
        let app = &apps[0];
        app.until("everything has its place", async || {
            !event::any_unnumbered(app.deps.db.conn()).await.expect("a look")
        })
        .await;
        let all = event::Scope::Of(UserId::new("ann"));
        event::list_after(app.deps.db.conn(), &all, 0, 10_000).await.expect("rows")
    };
    let rows: Vec<String> = rows.into_iter().map(|row| row.id.into_string()).collect();
    assert_eq!(rows.len(), expected);
    for reader in readers {
        let got = reader.await.expect("a reader");
        assert_eq!(got, rows, "every event once, in the order of the table");
    }
    for app in apps.into_iter().rev() {
        Arc::into_inner(app).expect("the only one").stop().await;
    }
}

/// Reads on any replica, leaves after a few events, resumes on any replica where it left.
async fn read_all(apps: &[Arc<App>], beginning: String, expected: usize) -> Vec<String> {
    let mut got = Vec::new();
    let mut last = beginning;
    while got.len() < expected {
        let app = &apps[rand::rng().random_range(0..apps.len())];
        let mut reader = Reader::of(app, "ann", Some(&last)).await;
        let many = rand::rng().random_range(0..40);
        for _ in 0..many {
            if got.len() == expected {
                break;
            }
            let event = reader.next().await.expect("an event");
            assert_eq!(event.kind, "clip_deleted", "{event:?}");
            got.push(event.id);
        }
        last = reader.last.clone().expect("a place");
    }
    got
}

async fn what_is_no_longer_kept_is_said(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::None).start("kept").await;
    app.run_events();
    let mut reader = Reader::of(&app, "ann", None).await;
    let beginning = reader.placed().await;
    for text in ["one", "two"] {
        write(&app, "ann", text, Duration::ZERO, true).await;
    }
    let one = reader.next().await.expect("an event").id;
    let two = reader.next().await.expect("an event").id;
    // fifty minutes later everything is there
    app.clock.advance_micros((50 * 60) * 1_000_000);
    sweep(&app).await;
    let mut back = Reader::of(&app, "ann", Some(&one)).await;
    assert_eq!(back.next().await.expect("an event").id, two);
    // in the next hour the first goes; the newest stays, as the place where readers are
    app.clock.advance_micros((60 * 60) * 1_000_000);
    sweep(&app).await;
    for lost in [&beginning, &one] {
        let mut back = Reader::of(&app, "ann", Some(lost)).await;
        assert_eq!(back.next().await.expect("an event").kind, "reset", "{lost}");
        assert_eq!(back.next().await.expect("an event").id, two, "all that is left follows");
    }
    // whoever has had the newest has missed nothing, however long ago that was
    let mut back = Reader::of(&app, "ann", Some(&two)).await;
    write(&app, "ann", "three", Duration::ZERO, true).await;
    assert_eq!(back.next().await.expect("an event").body["data"]["id"], "three");
    // also if it is the newest no more by the time he comes
    sweep(&app).await;
    let mut back = Reader::of(&app, "ann", Some(&two)).await;
    assert_eq!(back.next().await.expect("an event").body["data"]["id"], "three");
    let stranger = uuid::Uuid::new_v4().to_string();
    let mut back = Reader::of(&app, "ann", Some(&stranger)).await;
    assert_eq!(back.next().await.expect("an event").kind, "reset");
    for odd in ["1", "two", "0x", "-1", "00000000-0000-0000-0000-00000000000g"] {
        let opened = Reader::try_open(&app, Some(&app.token("ann")), "/events", Some(odd)).await;
        let (status, problem) = opened.err().expect("refused");
        assert_eq!((status, &problem["code"]), (422, &json!("validation_failed")), "{odd}");
    }
    app.stop().await;
}

async fn sweep(app: &App) {
    livekit_replay::flow::reap::run(&app.deps, false, false).await.expect("swept");
}

async fn an_event_of_a_change_that_was_rolled_back_is_told_to_nobody(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::None).start("rolled-back").await;
    let mut told = None;
    events::pass(&app.deps, &mut told).await.expect("a pass");
    write(&app, "ann", "never", Duration::ZERO, false).await;
    write(&app, "ann", "was", Duration::ZERO, true).await;
    events::pass(&app.deps, &mut told).await.expect("a pass");
    let rows = event::list_after(app.deps.db.conn(), &event::Scope::All, 0, 10).await;
    let rows = rows.expect("rows");
    assert_eq!(rows.len(), 1);
    assert!(rows[0].data.contains("was"));
    assert_eq!(rows[0].seq, Some(1), "places have no gap");
    app.stop().await;
}

async fn whoever_was_erased_leaves_no_event(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::None).start("erased").await;
    app.run_events();
    write(&app, "ann", "hers", Duration::ZERO, true).await;
    let tx = app.deps.db.begin().await.expect("a transaction");
    let new = event::New {
        kind: EventKind::Started,
        user_id: UserId::new("bob"),
        community_id: None,
        data: json!({ "id": "his", "startedBy": "ann", "roomName": "\"startedBy\":\"ann\"" })
            .to_string(),
        created_at: app.deps.clock.now(),
    };
    event::insert(&tx, new).await.expect("written");
    store::commit(tx).await.expect("committed");
    let (status, _) = app.post("ann", "/events/ticket", json!({})).await;
    assert_eq!(status, 201);
    app.until("both have their places", async || {
        !event::any_unnumbered(app.deps.db.conn()).await.expect("a look")
    })
    .await;
    let erase = app.http.delete(format!("{}/admin/users/ann", app.base)).bearer_auth(app.admin());
    let answer = erase.send().await.expect("an answer");
    let status = answer.status().as_u16();
    assert_eq!(status, 200, "{}", answer.text().await.expect("text"));
    let rows = event::list_after(app.deps.db.conn(), &event::Scope::All, 0, 10).await;
    let rows = rows.expect("rows");
    assert_eq!(rows.len(), 1, "{rows:?}");
    let data: serde_json::Value = serde_json::from_str(&rows[0].data).expect("JSON");
    assert_eq!(data["startedBy"], "");
    assert_eq!(data["roomName"], "\"startedBy\":\"ann\"", "what others wrote stays");
    app.stop().await;
}
