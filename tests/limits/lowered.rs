//! A limit lowered below what is in use is taken and shown, stops what is new, and nothing that is there.

use super::*;

on_both_engines!(places_lowered_below_use, a_quota_lowered_below_use);

const CONFIG: &str = "/admin/community/app/config";

async fn places_lowered_below_use(engine: Engine) {
    let app = patient(engine).start("lowered").await;
    let users = ["alice", "bob", "cem", "dea"];
    for user in users {
        app.sim.publish_share("app-l", user, SILENT).expect("a share");
    }
    let mut ids = Vec::new();
    for user in &users[..3] {
        ids.push(app.start_session(user, "app-l").await);
    }
    let set = app.patch_as(&app.admin(), CONFIG, json!({ "maxConcurrent": 1 })).await;
    assert_eq!(
        (set.0, &set.1["maxConcurrent"], &set.1["activeSessions"]),
        (200, &json!(1), &json!(3))
    );
    let (_, shown) = app.get_as(&app.admin(), CONFIG).await;
    assert_eq!((&shown["maxConcurrent"], &shown["activeSessions"]), (&json!(1), &json!(3)));
    let (_, own) = app.get("alice", "/me/limits?communityId=app").await;
    let place = json!({ "communityId": "app", "maxConcurrent": 1, "active": 3, "enabled": true });
    assert_eq!(own["community"], place);

    // new ones wait until as many have gone as it takes; those that run go on
    for left in (1..=3).rev() {
        let refused = app.post("dea", "/start", json!({ "roomName": "app-l" })).await;
        assert_eq!((refused.0, &refused.1["code"]), (429, &json!("community_limit_reached")));
        assert_eq!((&refused.1["maxConcurrent"], &refused.1["active"]), (&json!(1), &json!(left)));
        assert_eq!(active(&app).await, i64::from(left));
        let (user, id) = (users[left as usize - 1], &ids[left as usize - 1]);
        let (_, session) = app.get(user, &format!("/sessions/{id}")).await;
        assert!(
            ["starting", "active"].contains(&session["status"].as_str().expect("a status")),
            "{session:#}"
        );
        assert!(running(&app).len() >= left as usize);
        assert_eq!(app.post(user, &format!("/stop/{id}"), json!({})).await.0, 200);
    }
    let id = app.start_session("dea", "app-l").await;

    // switched off is a limit of none
    let set = app.patch_as(&app.admin(), CONFIG, json!({ "enabled": false })).await;
    assert_eq!((set.0, &set.1["activeSessions"]), (200, &json!(1)));
    let refused = app.post("alice", "/start", json!({ "roomName": "app-l" })).await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("community_disabled")));
    let (_, session) = app.get("dea", &format!("/sessions/{id}")).await;
    assert!(
        ["starting", "active"].contains(&session["status"].as_str().expect("a status")),
        "{session:#}"
    );
    app.stop().await;
}

async fn a_quota_lowered_below_use(engine: Engine) {
    let app = Setup::on(engine).loops(Loops::NoJobs).start("lowered").await;
    let share = Share { width: 320, height: 180, audio: false, ..Share::default() };
    app.sim.publish_share("app-l", "alice", share).expect("a share");
    let id = app.start_session("alice", "app-l").await;
    app.wait_for_buffer("alice", &id, 6.0).await;
    let press = async || {
        let body = json!({ "sessionId": id, "durationSeconds": 4 });
        app.post_async("alice", "/capture", body).await
    };
    let (status, accepted) = press().await;
    assert_eq!(status, 202, "{accepted:#}");

    let path = "/admin/users/alice/quota";
    let (status, set) = app.patch_as(&app.admin(), path, json!({ "quotaBytes": 1 })).await;
    assert_eq!((status, &set["quotaBytes"]), (200, &json!(1)), "{set:#}");
    let reserved = set["reservedBytes"].clone();
    assert!(reserved.as_i64() > Some(1), "{set:#}");
    let (status, refused) = press().await;
    assert_eq!((status, &refused["code"]), (507, &json!("quota_exceeded")));
    assert_eq!((&refused["quotaBytes"], &refused["reservedBytes"]), (&json!(1), &reserved));

    // what was accepted is made all the same
    app.run_jobs();
    let clip = format!("/clips/{}", accepted["clipId"].as_str().expect("an id"));
    app.until("the clip is ready", async || {
        let (_, shown) = app.get("alice", &clip).await;
        assert_ne!(shown["status"], "failed", "{shown:#}");
        shown["status"] == "ready"
    })
    .await;
    let on_disk = bytes_of_clips(&app.dir.join("clips"));
    let (_, account) = app.get_as(&app.admin(), path).await;
    assert_eq!((&account["usedBytes"], &account["reservedBytes"]), (&json!(on_disk), &json!(0)));
    assert_eq!(account["percentUsed"].as_f64(), Some(on_disk as f64 * 100.0), "{account:#}");
    let (_, own) = app.get("alice", "/me/quota").await;
    assert_eq!((&own["quotaBytes"], &own["usedBytes"]), (&json!(1), &json!(on_disk)), "{own:#}");
    let (_, limits) = app.get("alice", "/me/limits").await;
    assert_eq!(limits["quota"], own);

    // full as it is, nothing new comes in; room that comes back lets it in again
    assert_eq!(press().await.0, 507);
    let gone = app.http.delete(format!("{}{clip}", app.base)).bearer_auth(app.token("alice"));
    let gone: Value = gone.send().await.expect("an answer").json().await.expect("a body");
    assert_eq!((&gone["freedBytes"], &gone["remainingQuotaBytes"]), (&json!(on_disk), &json!(1)));
    assert_eq!(press().await.0, 507);
    let (status, _) = app.patch_as(&app.admin(), path, json!({ "quotaBytes": 1_i64 << 30 })).await;
    assert_eq!((status, press().await.0), (200, 202));
    app.stop().await;
}
