//! LiveKit's webhooks: lost, late, doubled, out of order, forged. Whatever happens to them, a story ends as without them.

use livekit_replay::simulator::{HookAction, HookFault};
use serde_json::json;

use crate::{
    house::{House, until},
    on_both_engines,
    support::On,
};

on_both_engines!(
    webhooks_lost,
    webhooks_late,
    webhooks_doubled,
    webhooks_reordered,
    webhooks_forged,
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
