//! What a caller may know and choose for himself.

use axum::http::Method;
use serde_json::json;

use crate::on_both_engines;
use crate::support::House;

on_both_engines!(limits_are_the_callers_own wishes_are_kept decisions_are_explained);

async fn limits_are_the_callers_own(house: &House) {
    let member = house.token_with("ann", &[("c1", &["member"])], &[]);
    let path = "/livekit-replay/me/limits";
    let usual = house.get(path, &member).await.ok();
    assert_eq!(
        usual["quota"],
        json!({"quotaBytes": 1000, "usedBytes": 0, "reservedBytes": 0, "clipsCount": 0})
    );
    assert_eq!(usual["community"], json!({"maxConcurrent": 5}));
    assert_eq!(usual["rate"]["start"]["limit"], 3);
    assert_eq!(usual["rate"]["start"]["remaining"], 3);
    assert!(usual["rate"]["start"]["resetSeconds"].as_u64().unwrap() >= 1);
    assert!(usual["rate"]["capture"].is_null() && usual["rate"]["filmstrip"].is_null(), "{usual}");

    // what was used and set shows, and looking uses nothing
    let boss = house.token_with("boss", &[("c1", &["admin"])], &[]);
    let config = "/livekit-replay/admin/community/c1/config";
    let body = r#"{"maxConcurrent":7,"enabled":false}"#;
    house.ask(Method::PATCH, config, &boss, Some(body)).await.ok();
    let quota = "/livekit-replay/admin/users/ann/quota";
    house.ask(Method::PATCH, quota, &house.admin(), Some(r#"{"quotaBytes":77}"#)).await.ok();
    house.ask(Method::DELETE, "/livekit-replay/clips/none", &member, None).await;
    for _ in 0..2 {
        let own = house.get("/livekit-replay/me/limits?communityId=c1", &member).await.ok();
        let place = json!({"communityId": "c1", "maxConcurrent": 7, "active": 0, "enabled": false});
        assert_eq!(own["community"], place);
        assert_eq!(own["quota"]["quotaBytes"], 77);
        assert_eq!(own["rate"]["delete"]["limit"], 2);
        assert_eq!(own["rate"]["delete"]["remaining"], 1);
    }
    // a stranger learns nothing of the community
    let stranger = house.token("oz");
    let seen = house.get("/livekit-replay/me/limits?communityId=c1", &stranger).await.ok();
    assert_eq!(seen["community"], json!({"maxConcurrent": 5}));
    house.get("/livekit-replay/me/limits?zap=1", &member).await.problem(422, "validation_failed");
}

async fn wishes_are_kept(house: &House) {
    let path = "/livekit-replay/me/preferences";
    let (ann, ben) = (house.token("ann"), house.token("ben"));
    let change = async |body: &str| house.ask(Method::PATCH, path, &ann, Some(body)).await;
    assert_eq!(house.get(path, &ann).await.ok(), json!({"autoStart": true}));
    assert_eq!(change(r#"{"autoStart":false}"#).await.ok(), json!({"autoStart": false}));
    assert_eq!(change("{}").await.ok(), json!({"autoStart": false}));
    assert_eq!(house.get(path, &ann).await.ok(), json!({"autoStart": false}));
    assert_eq!(house.get(path, &ben).await.ok(), json!({"autoStart": true}));
    assert_eq!(change(r#"{"autoStart":true}"#).await.ok(), json!({"autoStart": true}));
    for bad in [r#"{"autoStart":"no"}"#, r#"{"autostart":true}"#, "[]"] {
        change(bad).await.problem(422, "validation_failed");
    }
}

async fn decisions_are_explained(house: &House) {
    let ann = house.token_with("ann", &[("c1", &["moderator"])], &[]);
    let path = "/livekit-replay/me/permissions?communityId=c1";
    let because = async |at: usize| {
        let shown = house.get(path, &ann).await.ok();
        shown["permissions"][at]["because"].as_str().unwrap().to_owned()
    };
    let text = because(0).await;
    assert!(text.contains("rule r:moderator, *, ENABLE_REPLAY_BUFFER"), "{text}");
    let text = because(2).await;
    assert!(text.ends_with("It would take one of these: admin."), "{text}");
    // the community's own rules are told as they are now
    let role = "/livekit-replay/admin/community/c1/roles/moderator";
    let rights = r#"{"permissions":["MANAGE_REPLAY_LIMITS"]}"#;
    house.ask(Method::PUT, role, &house.admin(), Some(rights)).await.ok();
    let text = because(0).await;
    assert!(text.ends_with("It would take one of these: admin."), "{text}");
    let text = because(2).await;
    assert!(text.contains("rule r:moderator, c:c1, MANAGE_REPLAY_LIMITS"), "{text}");
}
