//! Who may what: rows, tokens, removals, a community's own rules.

use axum::http::Method;
use livekit_replay::{
    access::{Caller, Permission, token::Verifier},
    domain::id::{CommunityId, UserId},
    flow::authorize,
    store,
};

use crate::on_both_engines;
use crate::support::House;

on_both_engines!(
    roles_of_rows_and_tokens_add_up
    a_removal_ends_roles_of_tokens_issued_before
    a_community_defines_its_own_roles
    nobody_makes_himself_an_instance_admin
    default_rules_are_written_once
);

const BASE: &str = "/livekit-replay/admin/community";

async fn caller(house: &House, token: &str) -> Caller {
    let verifier = Verifier::new(&house.state.deps.config.auth).unwrap();
    verifier.verify(token, house.state.deps.clock.now()).await.unwrap()
}

async fn may(house: &House, token: &str, permission: Permission, community: Option<&str>) -> bool {
    let community = community.map(CommunityId::new);
    let caller = caller(house, token).await;
    authorize::allowed(&house.state.deps, &caller, permission, community.as_ref()).await.unwrap()
}

async fn roles_of_rows_and_tokens_add_up(house: &House) {
    let capture = Permission::CaptureReplay;
    let plain = house.token("u1");
    let moderator = house.token_with("u2", &[("c1", &["moderator"])], &[]);
    let member = house.token_with("u3", &[("c1", &[])], &[]);
    assert!(!may(house, &plain, capture, Some("c1")).await);
    assert!(may(house, &moderator, capture, Some("c1")).await);
    assert!(!may(house, &moderator, capture, Some("c2")).await);
    assert!(!may(house, &moderator, capture, None).await);
    assert!(!may(house, &moderator, Permission::ManageReplayLimits, Some("c1")).await);
    assert!(!may(house, &member, capture, Some("c1")).await);
    assert!(may(house, &house.admin(), capture, None).await);
    let everywhere = house.token_with("u4", &[], &["moderator"]);
    assert!(may(house, &everywhere, capture, Some("c1")).await);
    assert!(may(house, &everywhere, capture, None).await);

    let deps = &house.state.deps;
    let c1 = CommunityId::new("c1");
    let is_member = async |token: &str| {
        authorize::is_member(deps, &caller(house, token).await, &c1).await.unwrap()
    };
    assert!(is_member(&member).await);
    assert!(!is_member(&plain).await);
    assert!(!is_member(&house.admin()).await);

    // a row counts without a token's help, and for work that has no token
    let admin = house.admin();
    house
        .ask(Method::PUT, &format!("{BASE}/c1/members/u1/roles/moderator"), &admin, None)
        .await
        .no_content();
    assert!(may(house, &plain, capture, Some("c1")).await);
    let rows_alone = async |user: &str| {
        authorize::allowed_for_user(deps, &UserId::new(user), capture, Some(&c1)).await.unwrap()
    };
    assert!(rows_alone("u1").await);
    assert!(!rows_alone("u2").await);
    house
        .ask(Method::DELETE, &format!("{BASE}/c1/members/u1/roles/moderator"), &admin, None)
        .await
        .no_content();
    assert!(!may(house, &plain, capture, Some("c1")).await);

    // claims that the settings do not believe
    let mut auth = deps.config.auth.clone();
    (auth.claim_communities, auth.claim_roles) = (false, false);
    let strict = Verifier::new(&auth).unwrap();
    let caller = strict.verify(&house.admin(), deps.clock.now()).await.unwrap();
    assert!(!authorize::is_instance_admin(deps, &caller).await.unwrap());
    let caller = strict.verify(&moderator, deps.clock.now()).await.unwrap();
    assert!(!authorize::allowed(deps, &caller, capture, Some(&c1)).await.unwrap());
}

async fn a_removal_ends_roles_of_tokens_issued_before(house: &House) {
    let capture = Permission::CaptureReplay;
    let claims: [(&str, &[&str]); 2] = [("c1", &["moderator"]), ("c2", &["moderator"])];
    let before = house.token_with("u1", &claims, &[]);
    let admin = house.admin();
    assert!(may(house, &before, capture, Some("c1")).await);
    house.clock.advance_micros(500_000);
    house.ask(Method::DELETE, &format!("{BASE}/c1/members/u1"), &admin, None).await.no_content();
    assert!(!may(house, &before, capture, Some("c1")).await);
    assert!(may(house, &before, capture, Some("c2")).await);
    let same_second = house.token_with("u1", &claims, &[]);
    assert!(!may(house, &same_second, capture, Some("c1")).await);
    house.clock.advance_micros(1_000_000);
    let after = house.token_with("u1", &claims, &[]);
    assert!(may(house, &after, capture, Some("c1")).await);
    // instance-wide roles of a token end the same way
    let second = house.token_with("root2", &[], &["instance_admin"]);
    house.clock.advance_micros(1_000_000);
    house.ask(Method::DELETE, &format!("{BASE}/*/members/root2"), &admin, None).await.no_content();
    house.get("/livekit-replay/admin/sessions", &second).await.problem(403, "permission_denied");
}

async fn a_community_defines_its_own_roles(house: &House) {
    let start = Permission::EnableReplayBuffer;
    let manager = house.token_with("boss", &[("c1", &["admin"])], &[]);
    let member = house.token_with("u1", &[("c1", &[]), ("c2", &[])], &[]);
    let moderator = house.token_with("u2", &[("c1", &["moderator"]), ("c2", &["moderator"])], &[]);
    let role = |role: &str| format!("{BASE}/c1/roles/{role}");

    let shown = house.get(&role("moderator"), &manager).await.ok();
    assert_eq!(shown["permissions"].as_array().unwrap().len(), 2);
    assert_eq!(shown["definedHere"], false);
    house.get(&role("streamer"), &manager).await.problem(404, "not_found");

    let body = r#"{"permissions":["ENABLE_REPLAY_BUFFER"]}"#;
    let shown = house.ask(Method::PUT, &role("member"), &manager, Some(body)).await.ok();
    assert_eq!(shown["permissions"][0], "ENABLE_REPLAY_BUFFER");
    assert!(may(house, &member, start, Some("c1")).await);
    assert!(!may(house, &member, start, Some("c2")).await);

    house.ask(Method::PUT, &role("moderator"), &manager, Some(r#"{"permissions":[]}"#)).await.ok();
    house.ask(Method::DELETE, &role("member"), &manager, None).await.no_content();
    assert!(!may(house, &member, start, Some("c1")).await);
    assert!(!may(house, &moderator, start, Some("c1")).await);
    assert!(may(house, &moderator, start, Some("c2")).await);
    house.ask(Method::DELETE, &role("moderator"), &manager, None).await.no_content();
    assert!(may(house, &moderator, start, Some("c1")).await);
    house.ask(Method::DELETE, &role("moderator"), &manager, None).await.problem(404, "not_found");

    // a role of the community's own goes with its definition
    house.ask(Method::PUT, &role("streamer"), &manager, Some(body)).await.ok();
    house
        .ask(Method::PUT, &format!("{BASE}/c1/members/u9/roles/streamer"), &manager, None)
        .await
        .no_content();
    let streamer = house.token("u9");
    assert!(may(house, &streamer, start, Some("c1")).await);
    house.ask(Method::DELETE, &role("streamer"), &manager, None).await.no_content();
    house.ask(Method::PUT, &role("streamer"), &manager, Some(body)).await.ok();
    assert!(!may(house, &streamer, start, Some("c1")).await);

    house
        .ask(Method::PUT, &role("x"), &manager, Some(r#"{"permissions":["ALL"]}"#))
        .await
        .problem(422, "validation_failed");
    let denied =
        house.ask(Method::PUT, &format!("{BASE}/c2/roles/member"), &manager, Some(body)).await;
    let denied = denied.problem(403, "permission_denied");
    assert_eq!(denied["permission"], "MANAGE_REPLAY_LIMITS");
    assert_eq!(denied["communityId"], "c2");
}

async fn nobody_makes_himself_an_instance_admin(house: &House) {
    // a community's admin, and a token that claims the community of everywhere
    let manager =
        house.token_with("boss", &[("c1", &["admin"]), ("*", &["instance_admin", "admin"])], &[]);
    assert!(!may(house, &manager, Permission::CaptureReplay, None).await);
    let grant = |place: &str, role: &str| format!("{BASE}/{place}/members/boss/roles/{role}");
    for path in [grant("*", "instance_admin"), grant("%2A", "admin")] {
        house.ask(Method::PUT, &path, &manager, None).await.problem(403, "permission_denied");
    }
    house
        .ask(Method::PUT, &grant("c1", "instance_admin"), &manager, None)
        .await
        .problem(422, "validation_failed");
    let claims = house.token_with("u5", &[("c1", &["instance_admin"])], &[]);
    assert!(!may(house, &claims, Permission::CaptureReplay, Some("c1")).await);
    let all = r#"{"permissions":["MANAGE_REPLAY_LIMITS"]}"#;
    house
        .ask(Method::PUT, &format!("{BASE}/*/roles/member"), &manager, Some(all))
        .await
        .problem(403, "permission_denied");
    house.get("/livekit-replay/admin/sessions", &manager).await.problem(403, "permission_denied");
    house.get("/livekit-replay/admin/sessions?communityId=c1", &manager).await.ok();
    house
        .get("/livekit-replay/admin/sessions?communityId=*", &manager)
        .await
        .problem(403, "permission_denied");

    // an instance admin may make another
    house.ask(Method::PUT, &grant("*", "instance_admin"), &house.admin(), None).await.no_content();
    house.get("/livekit-replay/admin/sessions", &house.token("boss")).await.ok();
}

async fn default_rules_are_written_once(house: &House) {
    let deps = &house.state.deps;
    let moderator = house.token_with("u2", &[("c1", &["moderator"])], &[]);
    assert!(may(house, &moderator, Permission::CaptureReplay, Some("c1")).await);
    house
        .ask(Method::DELETE, &format!("{BASE}/*/roles/moderator"), &house.admin(), None)
        .await
        .no_content();
    assert!(!may(house, &moderator, Permission::CaptureReplay, Some("c1")).await);
    authorize::seed_default_rules(deps).await.unwrap();
    assert!(!may(house, &moderator, Permission::CaptureReplay, Some("c1")).await);
    let rules = store::policy::list(deps.db.conn()).await.unwrap();
    assert_eq!(rules.len(), 3, "{rules:?}");
}
