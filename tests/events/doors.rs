//! Who gets in, how often, and for how long.

use livekit_replay::{
    domain::{
        event::EventKind,
        id::{CommunityId, UserId},
    },
    store::{self, event},
};
use serde_json::json;

use crate::{
    harness::{App, Engine, Loops, Setup, on_both_engines},
    reader::Reader,
};

on_both_engines!(
    a_ticket_opens_one_stream_once_on_whatever_replica,
    a_manager_sees_his_community_as_long_as_he_manages_it,
    a_stream_ends_with_its_token,
    a_user_has_a_bounded_number_of_streams,
);

async fn ticket(app: &App, token: &str) -> String {
    let (status, body) = app.post_as(token, "/events/ticket", json!({})).await;
    assert_eq!(status, 201, "{body:#}");
    let ticket = body["ticket"].as_str().expect("a ticket").to_owned();
    assert!(ticket.len() >= 22, "128 bits: {ticket}");
    ticket
}

async fn a_ticket_opens_one_stream_once_on_whatever_replica(engine: Engine) {
    let app = Setup::on(engine.clone()).loops(Loops::None).start("ticket").await;
    let other = if engine == Engine::Sqlite { None } else { Some(app.replica().await) };
    for _ in 0..5 {
        let ticket = ticket(&app, &app.token("ann")).await;
        let path = format!("/events?ticket={ticket}");
        let tries = (0..8).map(|at| {
            let app = if at % 2 == 0 { &app } else { other.as_ref().unwrap_or(&app) };
            Reader::try_open(app, None, &path, None)
        });
        let tries = futures::future::join_all(tries).await;
        assert_eq!(tries.iter().filter(|opened| opened.is_ok()).count(), 1, "one of eight");
        for (status, problem) in tries.into_iter().filter_map(Result::err) {
            assert_eq!((status, &problem["reason"]), (401, &json!("bad_ticket")));
        }
    }
    // nobody can read tickets out of the database
    let late = ticket(&app, &app.token("ann")).await;
    let rows = crate::harness::dump(&app.deps.db, &[]).await;
    assert!(!rows["event_ticket"].concat().contains(&late));
    app.clock.advance_micros(61 * 1_000_000);
    let opened = Reader::try_open(&app, None, &format!("/events?ticket={late}"), None).await;
    assert_eq!(opened.err().expect("refused").0, 401);
    if let Some(other) = other {
        other.stop().await;
    }
    app.stop().await;
}

/// Says that something happened to `user` in `red`.
async fn happens(app: &App, user: &str, kind: EventKind, data: serde_json::Value) {
    let tx = app.deps.db.begin().await.expect("a transaction");
    let new = event::New {
        kind,
        user_id: UserId::new(user),
        community_id: Some(CommunityId::new("red")),
        data: data.to_string(),
        created_at: app.deps.clock.now(),
    };
    event::insert(&tx, new).await.expect("written");
    store::commit(tx).await.expect("committed");
}

async fn a_manager_sees_his_community_as_long_as_he_manages_it(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::None).start("manager").await;
    app.run_events();
    let grant = format!("{}/admin/community/red/members/boss/roles/admin", app.base);
    let granted = app.http.put(&grant).bearer_auth(app.admin()).send().await.expect("an answer");
    assert_eq!(granted.status().as_u16(), 204);
    let boss = app.token_of("boss", &json!({}), &[]);
    // by a ticket, which carries the rights of its token
    let path = format!("/events?communityId=red&ticket={}", ticket(&app, &boss).await);
    let mut stream = Reader::open(&app, None, &path, None).await;
    stream.placed().await;
    let clip = |visibility: &str, status: &str| json!({ "id": "c", "visibility": visibility, "status": status, "messageId": "m", "share": {} });
    happens(&app, "ann", EventKind::ClipReady, clip("private", "ready")).await;
    happens(&app, "ann", EventKind::ClipReady, clip("unlisted", "ready")).await;
    happens(&app, "ann", EventKind::ClipProcessing, clip("public", "processing")).await;
    // there is no such clip any more: nobody knows who might have seen it in the end, only that it went, and as what
    happens(&app, "ann", EventKind::ClipReady, clip("community", "ready")).await;
    happens(&app, "ann", EventKind::ClipDeleted, clip("private", "ready")).await;
    happens(&app, "ann", EventKind::ClipDeleted, clip("community", "ready")).await;
    happens(&app, "ann", EventKind::Stopped, json!({ "id": "s", "status": "stopping" })).await;
    let seen = stream.next().await.expect("an event");
    assert_eq!(seen.kind, "clip_deleted");
    assert_eq!(seen.body["data"]["visibility"], "community", "the first that he may see");
    assert!(seen.body["data"].get("messageId").is_none(), "its owner's: {seen:?}");
    assert!(seen.body["data"].get("share").is_none(), "its owner's: {seen:?}");
    assert_eq!(stream.next().await.expect("an event").kind, "replay_buffer_stopped");
    let removed = format!("{}/admin/community/red/members/boss", app.base);
    let removed =
        app.http.delete(removed).bearer_auth(app.admin()).send().await.expect("an answer");
    assert_eq!(removed.status().as_u16(), 204);
    happens(&app, "ann", EventKind::Stopped, json!({ "id": "s2", "status": "stopping" })).await;
    assert!(stream.next().await.is_none(), "who was removed hears nothing more");
    let opened = Reader::try_open(&app, Some(&boss), "/events?communityId=red", None).await;
    assert_eq!(opened.err().expect("refused").0, 403);
    app.stop().await;
}

async fn a_stream_ends_with_its_token(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::None).start("expiry").await;
    let token = app.token("ann");
    let by_ticket = format!("/events?ticket={}", ticket(&app, &token).await);
    let mut streams = [
        Reader::open(&app, Some(&token), "/events", None).await,
        Reader::open(&app, None, &by_ticket, None).await,
    ];
    for stream in &mut streams {
        stream.placed().await;
    }
    app.clock.advance_micros((86_400 + 60) * 1_000_000);
    for stream in &mut streams {
        assert!(stream.next().await.is_none());
    }
    app.stop().await;
}

async fn a_user_has_a_bounded_number_of_streams(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::None).start("bounded").await;
    let token = app.token("ann");
    let mut open = Vec::new();
    let refused = loop {
        match Reader::try_open(&app, Some(&token), "/events", None).await {
            Ok(stream) => open.push(stream),
            Err(refused) => break refused,
        }
        assert!(open.len() <= 64, "no bound");
    };
    assert_eq!((refused.0, &refused.1["code"]), (429, &json!("rate_limited")));
    // others are not concerned, and a place is free again when its stream is left
    Reader::of(&app, "bob", None).await.placed().await;
    open.pop();
    app.until("a place is free", async || {
        Reader::try_open(&app, Some(&token), "/events", None).await.is_ok()
    })
    .await;
    app.stop().await;
}
