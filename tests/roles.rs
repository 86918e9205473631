//! Roles count on every replica at once, whichever was told; and without an answer of the database nothing is decided,
//! rather than by fewer rules.

mod harness;

use harness::{App, Engine, Loops, Setup, on_both_engines};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

on_both_engines!(
    a_change_of_roles_counts_on_the_other_replica_with_the_next_request,
    without_the_database_nobody_is_judged_by_fewer_rules,
    roles_held_elsewhere_neither_help_nor_harm,
);

const CONFIG: &str = "/admin/community/red/config";

async fn quiet(engine: Engine, name: &str) -> App {
    Setup::on(engine).loops(Loops::None).start(name).await
}

fn nobody(app: &App, user: &str) -> String {
    app.token_of(user, &json!({}), &[])
}

async fn tell(app: &App, method: &str, path: &str, body: Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = app.http.request(method, format!("{}{path}", app.base));
    if !body.is_null() {
        request = request.json(&body);
    }
    let answer = request.bearer_auth(app.admin()).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.expect("text"));
}

async fn status(app: &App, token: &str) -> u16 {
    app.get_as(token, CONFIG).await.0
}

async fn a_change_of_roles_counts_on_the_other_replica_with_the_next_request(engine: Engine) {
    let here = quiet(engine, "roles").await;
    let there = here.replica().await;
    let token = nobody(&here, "zoe");
    // both have decided before: whatever is remembered is remembered now
    assert_eq!((status(&here, &token).await, status(&there, &token).await), (403, 403));
    let role = "/admin/community/red/roles/keeper";
    let held = "/admin/community/red/members/zoe/roles/keeper";
    let member = "/admin/community/red/members/zoe";
    let may = json!({ "permissions": ["MANAGE_REPLAY_LIMITS"] });
    let none = json!({ "permissions": [] });
    for round in 0..5 {
        let steps = [
            ("PUT", role, may.clone(), 403),
            ("PUT", held, Value::Null, 200),
            ("PUT", role, none.clone(), 403),
            ("PUT", role, may.clone(), 200),
            ("DELETE", held, Value::Null, 403),
            ("PUT", held, Value::Null, 200),
            ("DELETE", member, Value::Null, 403),
            ("PUT", held, Value::Null, 200),
            // defined nowhere any more, so taken from its holders
            ("DELETE", role, Value::Null, 403),
        ];
        for (step, (method, path, body, expected)) in steps.into_iter().enumerate() {
            // told to one, asked of the other, in turns
            let (one, other) =
                if (round + step) % 2 == 0 { (&here, &there) } else { (&there, &here) };
            tell(one, method, path, body).await;
            assert_eq!(status(other, &token).await, expected, "{round}: {method} {path}");
        }
    }
    there.stop().await;
    here.stop().await;
}

async fn without_the_database_nobody_is_judged_by_fewer_rules(engine: Engine) {
    let app = quiet(engine, "rules-away").await;
    let token = app.token_of("zoe", &json!({ "red": ["admin"] }), &[]);
    assert_eq!(status(&app, &token).await, 200);
    for table in ["setting", "casbin_rule", "member_role", "member_removal"] {
        let rename = async |from: &str, to: &str| {
            let sql = format!("ALTER TABLE {from} RENAME TO {to}");
            app.deps.db.conn().execute_unprepared(&sql).await.expect("renamed");
        };
        if table == "casbin_rule" {
            // so that the rules have to be read again
            let newer = "UPDATE setting SET value = 'newer' WHERE key = 'policy_version'";
            app.deps.db.conn().execute_unprepared(newer).await.expect("changed");
        }
        rename(table, "away").await;
        for _ in 0..2 {
            let (status, problem) = app.get_as(&token, CONFIG).await;
            assert!(status >= 500, "{table}: {status} {problem:#}");
        }
        rename("away", table).await;
        assert_eq!(status(&app, &token).await, 200, "{table}");
    }
    app.stop().await;
}

async fn roles_held_elsewhere_neither_help_nor_harm(engine: Engine) {
    let app = quiet(engine, "roles-elsewhere").await;
    let token = nobody(&app, "busy");
    for number in 0..20 {
        let path = format!("/admin/community/other{number}/members/busy/roles/admin");
        tell(&app, "PUT", &path, Value::Null).await;
    }
    assert_eq!(status(&app, &token).await, 403);
    // removed there: says nothing about here
    tell(&app, "DELETE", "/admin/community/other3/members/busy", Value::Null).await;
    tell(&app, "PUT", "/admin/community/red/members/busy/roles/admin", Value::Null).await;
    assert_eq!(status(&app, &token).await, 200);
    let of_token = app.token_of("busy", &json!({ "red": ["admin"] }), &[]);
    tell(&app, "DELETE", "/admin/community/red/members/busy", Value::Null).await;
    assert_eq!(status(&app, &of_token).await, 403);
    // everywhere is read with every place
    tell(&app, "PUT", "/admin/community/*/members/busy/roles/instance_admin", Value::Null).await;
    assert_eq!(status(&app, &token).await, 200);
    app.stop().await;
}
