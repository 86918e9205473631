//! LiveKit's webhooks: lost, late, doubled, out of order, forged. Whatever happens to them, a story ends as without them.

use std::sync::Arc;

use livekit_replay::{
    clock::Clock,
    domain::id::{CommunityId, UserId},
    flow::{Deps, auto_start},
    simulator::{HookAction, HookFault},
    store::{member, session},
};
use reqwest::Method;
use serde_json::json;

use crate::{
    house::{House, SMALL, until},
    on_both_engines,
    support::On,
};

on_both_engines!(
    webhooks_lost,
    webhooks_late,
    webhooks_doubled,
    webhooks_reordered,
    webhooks_forged,
    an_announcement_of_a_share_that_was_lost_is_made_up_for,
);

/// A share that is recorded, captured, and goes; with everything that is told of it.
async fn story(on: On, action: Option<HookAction>) {
    let house = House::with_settings(on, &[("sessions.rejoin_seconds", "3")]).await;
    if let Some(action) = action {
        let event = "*".to_owned();
        house.app.sim.add_webhook_fault(HookFault { event, action, times: None });
    }
    let (ann, share) = house.recording("ann").await;
    house.clip("ann", &ann, 2).await;
    house.app.sim.unpublish_share(&share).expect("gone");
    house.until_session("ann", &ann, "stopped", 1).await;
    let shown = house.session("ann", &ann).await;
    assert_eq!((&shown["endReason"], &shown["epoch"]), (&json!("share_ended"), &json!(1)));
    until("its egress is over", async || house.running_egresses().is_empty()).await;
    let told = house.told("ann").await;
    let expected = [
        "replay_buffer_started",
        "segments_ready",
        "clip_processing",
        "clip_ready",
        "replay_buffer_degraded",
        "replay_buffer_stopped",
    ];
    assert_eq!(told, expected, "{action:?}");
    until("all is well", async || house.health().await["status"] == "ok").await;
    house.app.sim.clear_webhook_faults();
    house.close().await;
}

async fn webhooks_lost(on: On) {
    story(on, Some(HookAction::Lose)).await;
}

async fn webhooks_late(on: On) {
    story(on, Some(HookAction::Delay { ms: 6000 })).await;
}

async fn webhooks_doubled(on: On) {
    story(on, Some(HookAction::Double)).await;
}

async fn webhooks_reordered(on: On) {
    story(on, Some(HookAction::SwapWithNext)).await;
}

/// The end of a recording told by somebody who does not know the key. (What else is refused: `tests/webhooks.rs`.)
async fn webhooks_forged(on: On) {
    let house = House::open(on).await;
    let (ann, _share) = house.recording("ann").await;
    let egress = house.egress("ann", &ann).await;
    let body = json!({
        "event": "egress_ended", "id": "EV_forged", "createdAt": "1",
        "egressInfo": { "egressId": egress, "status": "EGRESS_FAILED", "error": "forged" },
    });
    let url = format!("{}/livekit-replay/webhooks/livekit", house.app.running.url());
    let forged = [None, Some("nonsense"), Some("eyJhbGciOiJub25lIn0.e30.")];
    for authorization in forged {
        let mut request = house.app.http.post(&url).body(body.to_string());
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 401);
        let problem: serde_json::Value = answer.json().await.expect("a problem");
        assert_eq!(problem["code"], "unauthenticated");
    }
    house.clip("ann", &ann, 2).await;
    let shown = house.session("ann", &ann).await;
    assert_eq!((&shown["status"], &shown["epoch"]), (&json!("active"), &json!(1)));
    assert!(!house.told("ann").await.contains(&"replay_buffer_degraded"));
    house.close().await;
}

/// The user's newest session.
async fn newest(deps: &Deps, user: &str) -> Option<session::Model> {
    session::find_newest_of_user(deps.db.conn(), &UserId::new(user)).await.expect("rows")
}

/// Where shares start by themselves, one whose announcement never came does too. One that was stopped does not, also when
/// nothing of it is left but its row and the process that stopped it is gone.
async fn an_announcement_of_a_share_that_was_lost_is_made_up_for(on: On) {
    let house =
        House::with_settings(on, &[("rooms.community_pattern", "^(?<community>[^:]+):")]).await;
    let deps = &house.app.running.deps;
    let (event, action) = ("*".to_owned(), HookAction::Lose);
    house.app.sim.add_webhook_fault(HookFault { event, action, times: None });
    let wanted = json!({ "autoStart": true });
    let path = "/admin/community/c1/config";
    assert_eq!(house.ask(Method::PATCH, "root", path, Some(wanted)).await.status, 200);
    let (community, now) = (CommunityId::new("c1"), house.app.clock.now());
    let ann = UserId::new("ann");
    member::grant(deps.db.conn(), &community, &ann, "moderator", now).await.expect("granted");
    // bob may not, in the same room; ann shares elsewhere as well
    for (room, user) in [("c1:a", "bob"), ("c2:b", "cid"), ("c1:a", "ann")] {
        house.app.sim.publish_share(room, user, SMALL).expect("shared");
    }
    until("it starts", async || newest(deps, "ann").await.is_some()).await;
    let started = newest(deps, "ann").await.expect("it was there");
    assert!(started.auto_started && started.room_name.as_str() == "c1:a", "{started:?}");
    house.holds("ann", started.id.as_str(), 2.0).await;
    assert_eq!(auto_start::catch_up(deps).await.expect("a pass"), 0, "once");

    assert_eq!(house.post("ann", "/stop", json!({})).await.status, 200);
    until("it is over", async || {
        newest(deps, "ann").await.is_some_and(|row| row.status.is_final())
    })
    .await;
    house.app.clock.advance_micros(7200 * 1_000_000);
    until("its buffer is gone", async || {
        newest(deps, "ann").await.is_some_and(|row| row.buffer_gone_at.is_some())
    })
    .await;
    let another = Deps { shares_seen: Arc::default(), ..deps.clone() };
    assert_eq!(auto_start::catch_up(&another).await.expect("a pass"), 0, "against the user's will");
    assert_eq!(newest(deps, "ann").await.map(|row| row.id), Some(started.id));
    for user in ["bob", "cid"] {
        assert_eq!(newest(deps, user).await, None, "{user}");
    }
    house.close().await;
}
