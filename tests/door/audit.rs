//! The audit log: a line with every act, in its transaction; one with every refused attempt; none ever changed.

use axum::http::Method;
use livekit_replay::{
    domain::id::CommunityId,
    store::{self, Db, Page, audit},
};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde_json::{Value, json};

use super::support::House;

crate::on_both_engines!(
    every_act_leaves_a_line_with_before_and_after
    no_act_is_done_without_its_line
    every_refusal_leaves_a_line_and_a_flood_of_them_few
    no_line_can_be_changed_or_deleted
    a_manager_reads_the_lines_of_his_community_alone
    the_log_is_narrowed_and_paged
);

const API: &str = "/livekit-replay";

struct Done {
    method: Method,
    path: &'static str,
    body: Option<&'static str>,
    action: &'static str,
    subject: Option<&'static str>,
    before: Value,
    after: Value,
}

/// Every act of an administrator that needs no session and no clip, in an order in which each changes something.
fn acts() -> Vec<Done> {
    let done = |method: Method, path, body, action, before, after| Done {
        method,
        path,
        body,
        action,
        subject: None,
        before,
        after,
    };
    let member = |act: Done| Done { subject: Some("eve"), ..act };
    let fresh = json!({ "maxConcurrent": null, "enabled": true, "autoStart": false });
    vec![
        done(
            Method::PATCH,
            "/admin/community/c1/config",
            Some(r#"{"maxConcurrent":7,"enabled":false}"#),
            "community.change",
            fresh,
            json!({ "maxConcurrent": 7, "enabled": false, "autoStart": false }),
        ),
        member(done(
            Method::PATCH,
            "/admin/users/eve/quota",
            Some(r#"{"quotaBytes":77}"#),
            "quota.set",
            json!({ "quotaBytes": null }),
            json!({ "quotaBytes": 77 }),
        )),
        done(
            Method::PUT,
            "/admin/community/c1/roles/guest",
            Some(r#"{"permissions":["CAPTURE_REPLAY"]}"#),
            "role.define",
            json!({ "role": "guest", "permissions": null }),
            json!({ "role": "guest", "permissions": ["CAPTURE_REPLAY"] }),
        ),
        member(done(
            Method::PUT,
            "/admin/community/c1/members/eve/roles/guest",
            None,
            "role.grant",
            json!({ "role": "guest", "held": false }),
            json!({ "role": "guest", "held": true }),
        )),
        done(
            Method::PUT,
            "/admin/community/c1/roles/guest",
            Some(r#"{"permissions":[]}"#),
            "role.define",
            json!({ "role": "guest", "permissions": ["CAPTURE_REPLAY"] }),
            json!({ "role": "guest", "permissions": [] }),
        ),
        member(done(
            Method::DELETE,
            "/admin/community/c1/members/eve/roles/guest",
            None,
            "role.revoke",
            json!({ "role": "guest", "held": true }),
            json!({ "role": "guest", "held": false }),
        )),
        done(
            Method::DELETE,
            "/admin/community/c1/roles/guest",
            None,
            "role.drop",
            json!({ "role": "guest", "permissions": [] }),
            json!({ "role": "guest", "takenFrom": 0 }),
        ),
        member(done(
            Method::DELETE,
            "/admin/community/c1/members/eve",
            None,
            "member.remove",
            json!({ "roles": [] }),
            Value::Null,
        )),
        done(
            Method::POST,
            "/admin/maintenance/reconcile/run",
            None,
            "maintenance.run",
            Value::Null,
            json!({ "job": "reconcile" }),
        ),
        done(
            Method::POST,
            "/admin/sessions/stop-all",
            None,
            "session.stop_all",
            Value::Null,
            json!({ "running": 0 }),
        ),
        member(done(
            Method::GET,
            "/admin/users/eve/export",
            None,
            "user.export",
            Value::Null,
            Value::Null,
        )),
    ]
}

async fn log(house: &House, query: &str) -> Value {
    house.get(&format!("{API}/admin/audit?limit=200{query}"), &house.admin()).await.ok()
}

async fn every_act_leaves_a_line_with_before_and_after(house: &House) {
    for act in acts() {
        let path = format!("{API}{}", act.path);
        let answer = house.ask(act.method.clone(), &path, &house.admin(), act.body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        let line = &log(house, "").await["entries"][0];
        assert_eq!(line["action"], act.action, "{line}");
        assert_eq!((&line["outcome"], &line["actor"]["kind"]), (&"done".into(), &"user".into()));
        assert_eq!(line["actor"]["userId"], "root");
        assert_eq!(line["subject"]["userId"].as_str(), act.subject, "{line}");
        assert_eq!((&line["before"], &line["after"]), (&act.before, &act.after), "{line}");
        let in_community = act.path.starts_with("/admin/community/c1");
        assert_eq!(line["communityId"].as_str(), in_community.then_some("c1"), "{line}");
        assert_eq!(line["requestId"], answer.headers["x-request-id"].to_str().unwrap());
        assert_eq!(line["at"], "2027-01-15T08:00:00.000Z");
    }
    assert_eq!(log(house, "").await["total"], acts().len());
    // a look changes nothing, and a dry run neither
    let dry = format!("{API}/admin/maintenance/reconcile/run?dryRun");
    house.ask(Method::POST, &dry, &house.admin(), None).await.ok();
    house.get(&format!("{API}/admin/sessions"), &house.admin()).await.ok();
    assert_eq!(log(house, "").await["total"], acts().len());
}

async fn no_act_is_done_without_its_line(house: &House) {
    let (db, admin) = (&house.state.deps.db, house.admin());
    let ask = async |act: Done| {
        let path = format!("{API}{}", act.path);
        house.ask(act.method, &path, &admin, act.body).await.status.as_u16()
    };
    // first without, then with a role to take away
    for made in [0..3, 3..4] {
        for act in acts().drain(made) {
            assert!(ask(act).await < 300);
        }
        let rename = async |from: &str, to: &str| {
            let rename = format!("ALTER TABLE {from} RENAME TO {to}");
            db.conn().execute_unprepared(&rename).await.expect("renamed");
        };
        rename("audit_entry", "audit_away").await;
        // whatever is written now differs from what is there by its time
        house.clock.advance_micros(1_000_000);
        let before = everything(db).await;
        assert!(before.len() >= 8, "{before:?}");
        let erase = Done { method: Method::DELETE, path: "/admin/users/eve", ..acts().remove(0) };
        for act in acts().into_iter().chain([Done { body: None, ..erase }]) {
            let path = act.path;
            assert_eq!(ask(act).await, 500, "{path}");
            assert_eq!(everything(db).await, before, "{path}");
        }
        rename("audit_away", "audit_entry").await;
    }
}

/// The tables that acts change, as text.
async fn everything(db: &Db) -> Vec<String> {
    let mut rows = Vec::new();
    for table in ["community", "user_account", "casbin_rule", "member_role", "member_removal"] {
        let query = sea_orm::Statement::from_string(
            db.conn().get_database_backend(),
            format!("SELECT * FROM {table}"),
        );
        let found = sea_orm::JsonValue::find_by_statement(query).all(db.conn()).await;
        rows.extend(found.expect("a query").iter().map(|row| format!("{table} {row}")));
    }
    rows.sort();
    rows
}

async fn every_refusal_leaves_a_line_and_a_flood_of_them_few(house: &House) {
    let nobody = house.token("mallory");
    let mut expected = 0;
    let mut looks = vec![
        (Method::DELETE, "/admin/users/eve", None, "user.erase", Some("eve")),
        (Method::GET, "/admin/users/eve/quota", None, "quota.show", Some("eve")),
        (Method::GET, "/admin/community/c1/config", None, "community.show", None),
        (Method::GET, "/admin/sessions", None, "session.list", None),
        (Method::GET, "/admin/clips", None, "clip.list", None),
        (Method::GET, "/admin/jobs", None, "job.list", None),
        (Method::GET, "/admin/maintenance", None, "maintenance.list", None),
        (Method::GET, "/admin/usage", None, "usage.show", None),
        (Method::GET, "/admin/audit", None, "audit.list", None),
        (Method::POST, "/admin/jobs/none/retry", None, "job.retry", None),
        (Method::POST, "/admin/sessions/none/stop", None, "session.stop", None),
    ];
    let acts: Vec<_> = acts().into_iter().filter(|act| act.action != "role.define").collect();
    looks.extend(
        acts.iter().map(|act| (act.method.clone(), act.path, act.body, act.action, act.subject)),
    );
    for (method, path, body, action, subject) in looks {
        let path = format!("{API}{path}");
        let answer = house.ask(method, &path, &nobody, body).await;
        assert!(matches!(answer.status.as_u16(), 403 | 404), "{path}: {}", answer.text);
        let log = log(house, "").await;
        expected += 1;
        assert_eq!(log["total"], expected, "{path}");
        let line = &log["entries"][0];
        assert_eq!((&line["action"], &line["outcome"]), (&action.into(), &"refused".into()));
        assert_eq!(line["actor"]["userId"], "mallory");
        assert_eq!(line["subject"]["userId"].as_str(), subject, "{line}");
        assert_eq!(line["after"], json!({ "code": answer.json()["code"], "times": 1 }));
        // a community that nobody has is a stranger's text
        assert_eq!(line["communityId"], Value::Null);
    }
    house.get("/health/detailed", &nobody).await.problem(403, "permission_denied");
    assert_eq!(log(house, "").await["entries"][0]["action"], "health.show");
    let path = format!("{API}/admin/jobs");
    for _ in 0..98 {
        house.get(&path, &nobody).await.problem(403, "permission_denied");
    }
    let flood = log(house, "&action=job.list").await;
    let times: Vec<_> = flood["entries"].as_array().unwrap().iter().collect();
    let times: Vec<_> = times.iter().map(|line| line["after"]["times"].as_u64().unwrap()).collect();
    assert_eq!(times, [64, 32, 16, 8, 4, 2, 1]);
    // a clip that is not there is nobody's, and looking for one's own is no privilege
    let all = log(house, "").await["total"].clone();
    house
        .ask(Method::DELETE, &format!("{API}/clips/none"), &nobody, None)
        .await
        .problem(404, "not_found");
    house.get(&path, "").await.problem(401, "unauthenticated");
    assert_eq!(log(house, "").await["total"], all);
}

async fn no_line_can_be_changed_or_deleted(house: &House) {
    let path = format!("{API}/admin/users/eve/quota");
    house.ask(Method::PATCH, &path, &house.admin(), Some(r#"{"quotaBytes":7}"#)).await.ok();
    let db = &house.state.deps.db;
    let page = Page { limit: 10, offset: 0 };
    let (before, _) = audit::list(db.conn(), &audit::Filter::default(), page).await.unwrap();
    let mut attacks = vec![
        "UPDATE audit_entry SET outcome = 'refused'",
        "UPDATE audit_entry SET at = 0",
        "DELETE FROM audit_entry",
    ];
    match db.engine() {
        store::Engine::Sqlite => {
            attacks.push("INSERT OR REPLACE INTO audit_entry SELECT * FROM audit_entry");
            attacks.push("UPDATE OR REPLACE audit_entry SET id = 'x'");
        }
        store::Engine::Postgres => attacks.push("TRUNCATE audit_entry"),
    }
    for attack in attacks {
        let refused = db.conn().execute_unprepared(attack).await.expect_err(attack);
        assert!(refused.to_string().contains("append-only"), "{attack}: {refused}");
    }
    let (after, _) = audit::list(db.conn(), &audit::Filter::default(), page).await.unwrap();
    assert_eq!((before.len(), &before), (1, &after));
}

async fn a_manager_reads_the_lines_of_his_community_alone(house: &House) {
    let patch = async |id: &str| {
        let path = format!("{API}/admin/community/{id}/config");
        house.ask(Method::PATCH, &path, &house.admin(), Some(r#"{"autoStart":true}"#)).await.ok();
    };
    patch("c1").await;
    patch("c2").await;
    let manager = house.token_with("boss", &[("c1", &["admin"])], &[]);
    let own = house.get(&format!("{API}/admin/audit?communityId=c1"), &manager).await.ok();
    assert_eq!((&own["total"], &own["entries"][0]["communityId"]), (&1.into(), &"c1".into()));
    for other in ["", "?communityId=c2", "?communityId=*"] {
        let path = format!("{API}/admin/audit{other}");
        house.get(&path, &manager).await.problem(403, "permission_denied");
    }
    // who was refused in a community is seen there
    let member = house.token_with("mallory", &[("c1", &["member"])], &[]);
    let path = format!("{API}/admin/sessions?communityId=c1");
    house.get(&path, &member).await.problem(403, "permission_denied");
    let own = house.get(&format!("{API}/admin/audit?communityId=c1"), &manager).await.ok();
    assert_eq!(own["entries"][0]["action"], "session.list", "{own:#}");
    assert_eq!(own["total"], 2);
    assert!(
        store::community::find(house.state.deps.db.conn(), &CommunityId::new("c1")).await.is_ok()
    );
}

async fn the_log_is_narrowed_and_paged(house: &House) {
    let set = async |user: &str, by: &str| {
        let path = format!("{API}/admin/users/{user}/quota");
        let token = house.token_with(by, &[], &["instance_admin"]);
        house.ask(Method::PATCH, &path, &token, Some(r#"{"quotaBytes":7}"#)).await.ok();
        house.clock.advance_micros(1_000_000);
    };
    set("u1", "ann").await;
    set("u2", "bob").await;
    set("u3", "ann").await;
    let subjects = async |query: &str| {
        let found = log(house, query).await;
        let lines = found["entries"].as_array().unwrap().clone();
        let subjects: Vec<_> = lines
            .iter()
            .map(|line| line["subject"]["userId"].as_str().unwrap().to_owned())
            .collect();
        (found["total"].as_u64().unwrap(), subjects.join(" "))
    };
    assert_eq!(subjects("").await, (3, "u3 u2 u1".to_owned()));
    assert_eq!(subjects("&actor=ann").await, (2, "u3 u1".to_owned()));
    assert_eq!(subjects("&actor=nobody").await, (0, String::new()));
    assert_eq!(subjects("&action=clip.delete").await.0, 0);
    assert_eq!(subjects("&outcome=refused").await.0, 0);
    let second = "2027-01-15T08:00:01Z";
    assert_eq!(subjects(&format!("&from={second}")).await, (2, "u3 u2".to_owned()));
    assert_eq!(subjects(&format!("&to={second}")).await, (1, "u1".to_owned()));
    let page = house.get(&format!("{API}/admin/audit?limit=1&offset=1"), &house.admin()).await.ok();
    assert_eq!(
        (&page["total"], &page["entries"][0]["subject"]["userId"]),
        (&3.into(), &"u2".into())
    );
    for bad in ["action=nothing", "outcome=maybe", "from=yesterday", "limit=0", "unknown=1"] {
        let path = format!("{API}/admin/audit?{bad}");
        house.get(&path, &house.admin()).await.problem(422, "validation_failed");
    }
    // a client's own request id could be anybody's name
    let request = axum::http::Request::builder()
        .method(Method::PATCH)
        .uri(format!("{API}/admin/users/u4/quota"))
        .header("authorization", format!("Bearer {}", house.admin()))
        .header("content-type", "application/json")
        .header("x-request-id", "for-u4-of-course")
        .body(axum::body::Body::from(r#"{"quotaBytes":7}"#))
        .unwrap();
    super::support::send(&house.router, request).await.ok();
    let id = log(house, "").await["entries"][0]["requestId"].as_str().unwrap().to_owned();
    assert!(id.starts_with("blake3:") && !id.contains("u4"), "{id}");
}
