//! A community's limits, a user's allowance, lists, scheduled work.

use axum::http::Method;

use crate::on_both_engines;
use crate::support::House;

on_both_engines!(a_community_is_configured_within_its_ceiling an_allowance_is_set lists_and_scheduled_work_answer);

const CONFIG: &str = "/livekit-replay/admin/community/c1/config";

async fn a_community_is_configured_within_its_ceiling(house: &House) {
    let manager = house.token_with("boss", &[("c1", &["admin"])], &[]);
    let moderator = house.token_with("mod", &[("c1", &["moderator"])], &[]);
    let fresh = house.get(CONFIG, &manager).await.ok();
    assert_eq!((&fresh["id"], &fresh["communityId"]), (&"c1".into(), &"c1".into()));
    assert_eq!(fresh["maxConcurrent"], 5);
    assert_eq!((&fresh["enabled"], &fresh["autoStart"]), (&true.into(), &false.into()));
    assert_eq!(fresh["activeSessions"], 0);
    assert_eq!(fresh["createdAt"], "2027-01-15T08:00:00.000Z");

    let patch =
        async |token: &str, body: &str| house.ask(Method::PATCH, CONFIG, token, Some(body)).await;
    house.clock.advance_micros(1_000_000);
    let changed = patch(&manager, r#"{"maxConcurrent":25,"autoStart":true}"#).await.ok();
    assert_eq!((&changed["maxConcurrent"], &changed["autoStart"]), (&25.into(), &true.into()));
    assert_eq!(changed["enabled"], true);
    assert_eq!(changed["updatedAt"], "2027-01-15T08:00:01.000Z");
    let above = patch(&manager, r#"{"maxConcurrent":26}"#).await.problem(403, "permission_denied");
    assert_eq!(above["permission"], "instance_admin");
    assert_eq!(house.get(CONFIG, &manager).await.ok()["maxConcurrent"], 25);
    assert_eq!(patch(&house.admin(), r#"{"maxConcurrent":26}"#).await.ok()["maxConcurrent"], 26);
    for bad in [
        r#"{"maxConcurrent":0}"#,
        r#"{"maxConcurrent":-1}"#,
        r#"{"enabled":"no"}"#,
        r#"{"id":"c2"}"#,
    ] {
        patch(&manager, bad).await.problem(422, "validation_failed");
    }
    patch(&moderator, r#"{"enabled":false}"#).await.problem(403, "permission_denied");
    house.get(CONFIG, &moderator).await.problem(403, "permission_denied");
    house
        .get("/livekit-replay/admin/community/c2/config", &manager)
        .await
        .problem(403, "permission_denied");
    assert_eq!(patch(&manager, r#"{"enabled":false}"#).await.ok()["enabled"], false);
}

async fn an_allowance_is_set(house: &House) {
    let path = "/livekit-replay/admin/users/u%2F1/quota";
    let admin = house.admin();
    let account = house.get(path, &admin).await.ok();
    assert_eq!(account["userId"], "u/1");
    assert_eq!((&account["quotaBytes"], &account["usedBytes"]), (&1000.into(), &0.into()));
    assert_eq!(account["percentUsed"], 0.0);
    let changed =
        house.ask(Method::PATCH, path, &admin, Some(r#"{"quotaBytes":5368709120}"#)).await.ok();
    assert_eq!(changed["quotaBytes"], 5_368_709_120_i64);
    let manager = house.token_with("boss", &[("c1", &["admin"])], &[]);
    house.get(path, &manager).await.problem(403, "permission_denied");
}

async fn lists_and_scheduled_work_answer(house: &House) {
    // a mistyped word must not turn a dry run into a real one, nor one community's list into everybody's
    let run = "/livekit-replay/admin/maintenance/quota-audit/run?dryrun=true";
    house.ask(Method::POST, run, &house.admin(), None).await.problem(422, "validation_failed");
    let list = "/livekit-replay/admin/sessions?communityID=c1";
    house.get(list, &house.admin()).await.problem(422, "validation_failed");
    let admin = house.admin();
    for (list, member) in [("sessions", "sessions"), ("clips", "clips"), ("jobs", "jobs")] {
        let body = house.get(&format!("/livekit-replay/admin/{list}"), &admin).await.ok();
        assert_eq!(body["total"], 0, "{body}");
        assert!(body[member].is_array());
        house
            .get(&format!("/livekit-replay/admin/{list}"), &house.token("u1"))
            .await
            .problem(403, "permission_denied");
    }
    house
        .ask(Method::POST, "/livekit-replay/admin/jobs/none/retry", &admin, None)
        .await
        .problem(404, "not_found");
    house
        .ask(Method::POST, "/livekit-replay/admin/jobs/none/retry", &house.token("u1"), None)
        .await
        .problem(403, "permission_denied");
    let jobs = house.get("/livekit-replay/admin/maintenance", &admin).await.ok();
    assert_eq!(jobs["jobs"][0]["name"], "reconcile");
    let run = |query: &str| format!("/livekit-replay/admin/maintenance/reconcile/run{query}");
    for (query, dry) in
        [("", false), ("?dryRun", true), ("?dryRun=true", true), ("?dryRun=false", false)]
    {
        let ran = house.ask(Method::POST, &run(query), &admin, None).await.ok();
        assert_eq!(ran["counts"]["dryRun"], dry, "{query}");
        assert_eq!(ran["outcome"], "ok");
    }
    house
        .ask(Method::POST, &run("?dryRun=perhaps"), &admin, None)
        .await
        .problem(422, "validation_failed");
    house
        .ask(Method::POST, "/livekit-replay/admin/maintenance/none/run", &admin, None)
        .await
        .problem(404, "not_found");
}
