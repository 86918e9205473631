//! Shares that start by themselves, although something stood in their way.

use std::sync::Arc;

use livekit_replay::{
    clock::Clock,
    domain::{
        id::{CommunityId, UserId},
        lifecycle::EndReason,
    },
    flow::{Deps, auto_start},
    simulator::{CallAction, HookAction, HookFault},
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
    an_announcement_of_a_share_that_was_lost_is_made_up_for,
    a_start_that_failed_is_made_up_for,
    who_goes_on_in_another_room_is_recorded_there,
);

/// Where shares in the community `c1` start by themselves, and ann may.
async fn open(on: On) -> House {
    let settings =
        [("rooms.community_pattern", "^(?<community>[^:]+):"), ("sessions.rejoin_seconds", "3")];
    let house = House::with_settings(on, &settings).await;
    let wanted = json!({ "autoStart": true });
    let path = "/admin/community/c1/config";
    assert_eq!(house.ask(Method::PATCH, "root", path, Some(wanted)).await.status, 200);
    let (community, now) = (CommunityId::new("c1"), house.app.clock.now());
    let db = house.app.running.deps.db.conn();
    member::grant(db, &community, &UserId::new("ann"), "moderator", now).await.expect("granted");
    house
}

/// The user's newest session.
async fn newest(deps: &Deps, user: &str) -> Option<session::Model> {
    session::find_newest_of_user(deps.db.conn(), &UserId::new(user)).await.expect("rows")
}

/// Where shares start by themselves, one whose announcement never came does too. One that was stopped does not, also when
/// nothing of it is left but its row and the process that stopped it is gone.
async fn an_announcement_of_a_share_that_was_lost_is_made_up_for(on: On) {
    let house = open(on).await;
    let deps = &house.app.running.deps;
    let (event, action) = ("*".to_owned(), HookAction::Lose);
    house.app.sim.add_webhook_fault(HookFault { event, action, times: None });
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

/// LiveKit had nobody to record when the share was announced: it is tried again after a while, and then recorded.
async fn a_start_that_failed_is_made_up_for(on: On) {
    let house = open(on).await;
    let deps = &house.app.running.deps;
    house.call_fault("StartTrackCompositeEgress", CallAction::Http { status: 500 }, Some(1));
    house.app.sim.publish_share("c1:a", "ann", SMALL).expect("shared");
    until("it fails", async || {
        newest(deps, "ann").await.is_some_and(|row| row.end_reason == Some(EndReason::StartFailed))
    })
    .await;
    assert_eq!(auto_start::catch_up(deps).await.expect("a pass"), 0, "not at once");
    house.app.clock.advance_micros(31 * 1_000_000);
    until("it starts", async || newest(deps, "ann").await.is_some_and(|row| row.holds_place)).await;
    let started = newest(deps, "ann").await.expect("it was there");
    assert!(started.auto_started, "{started:?}");
    house.holds("ann", started.id.as_str(), 2.0).await;
    house.close().await;
}

/// The first recording still waits for its share to come back. Who then stops recording does not want a share recorded
/// that he had published before.
async fn who_goes_on_in_another_room_is_recorded_there(on: On) {
    let house = open(on).await;
    let deps = &house.app.running.deps;
    let share = house.app.sim.publish_share("c1:a", "ann", SMALL).expect("shared");
    until("it starts", async || newest(deps, "ann").await.is_some()).await;
    let first = newest(deps, "ann").await.expect("it was there");
    house.holds("ann", first.id.as_str(), 2.0).await;
    house.app.sim.unpublish_share(&share).expect("gone");
    house.app.sim.publish_share("c1:b", "ann", SMALL).expect("shared");
    let room = async || newest(deps, "ann").await.map(|row| row.room_name.into_string());
    until("it goes on there", async || room().await.as_deref() == Some("c1:b")).await;
    let second = newest(deps, "ann").await.expect("it was there");
    house.holds("ann", second.id.as_str(), 2.0).await;

    house.app.sim.publish_share("c1:c", "ann", SMALL).expect("shared");
    assert_eq!(auto_start::catch_up(deps).await.expect("a pass"), 0, "behind the other");
    assert_eq!(house.post("ann", "/stop", json!({})).await.status, 200);
    until("it is over", async || {
        newest(deps, "ann").await.is_some_and(|row| row.status.is_final())
    })
    .await;
    assert_eq!(auto_start::catch_up(deps).await.expect("a pass"), 0, "against the user's will");
    assert_eq!(newest(deps, "ann").await.map(|row| row.id), Some(second.id));
    house.close().await;
}
