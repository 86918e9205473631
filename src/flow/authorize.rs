//! Who may do this: roles from rows and token, rules from rows, one decision. Asked when a right is used, never
//! remembered from before.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use super::Deps;
use crate::{
    access::{
        Caller, EVERYWHERE, Permission,
        policy::{self, Decision, Policy, Roles, Rule},
        rulebook::Rulebook,
    },
    domain::{
        id::{CommunityId, UserId},
        time::Timestamp,
    },
    error::{Code, Error, Result},
    store,
};

/// The rules as last read. Kept as they are while the database does not answer: a decision then fails rather than
/// being made by fewer rules.
#[derive(Debug, Default)]
pub struct PolicyCache {
    current: ArcSwapOption<Versioned>,
    /// One reload at a time.
    reload: Mutex<()>,
}

#[derive(Debug)]
struct Versioned {
    version: Option<String>,
    rules: Rulebook,
}

/// Writes the rules a fresh database begins with, once: a rule that an administrator removes stays removed. Called at
/// start-up, by every replica.
pub async fn seed_default_rules(deps: &Deps) -> Result<()> {
    if store::setting::find(deps.db.conn(), store::setting::POLICY_SEEDED).await?.is_some() {
        return Ok(());
    }
    let tx = deps.db.begin().await?;
    let ours = uuid::Uuid::now_v7().to_string();
    let first =
        store::setting::load_or_make(&tx, store::setting::POLICY_SEEDED, ours.clone()).await?;
    if first == ours {
        for rule in policy::default_rules() {
            store::policy::add(&tx, &rule.subject, &rule.domain, &rule.permission).await?;
        }
        store::policy::bump_version(&tx).await?;
    }
    store::commit(tx).await
}

/// The caller's roles everywhere and in `community`: rows, and the token's where it was issued after the last
/// removal.
pub async fn roles_of(
    deps: &Deps,
    caller: &Caller,
    community: Option<&CommunityId>,
) -> Result<Roles> {
    let held = held_by(deps, &caller.user_id, community).await?;
    let places = places(community);
    let removals = store::member::list_removals(deps.db.conn(), &caller.user_id, &places).await?;
    let removed_at = |place: &str| -> Option<Timestamp> {
        removals
            .iter()
            .find(|removal| removal.community_id.as_str() == place)
            .map(|removal| removal.removed_at)
    };
    let counts = |place: &str| match (removed_at(place), caller.issued_at) {
        (None, _) => true,
        (Some(removed), Some(issued)) => issued > removed,
        (Some(_), None) => false,
    };
    let mut everywhere = held.everywhere;
    if counts(EVERYWHERE) {
        everywhere.extend(caller.roles.iter().cloned());
    }
    let mut here = held.here;
    let claimed = community
        .filter(|community| counts(community.as_str()))
        .and_then(|community| caller.communities.get(community));
    let belongs = held.belongs || claimed.is_some();
    here.extend(claimed.into_iter().flatten().cloned());
    Ok(Roles::new(everywhere, here, belongs))
}

/// Where roles are held that count in `community`: whoever belongs to a thousand others is not read with them.
fn places(community: Option<&CommunityId>) -> Vec<CommunityId> {
    let mut places = vec![CommunityId::new(EVERYWHERE)];
    places.extend(community.cloned());
    places
}

/// What rows alone say.
struct Held {
    everywhere: Vec<String>,
    here: Vec<String>,
    belongs: bool,
}

async fn held_by(deps: &Deps, user: &UserId, community: Option<&CommunityId>) -> Result<Held> {
    let rows = store::member::list_held(deps.db.conn(), user, &places(community)).await?;
    // the name of everywhere is nobody's community
    let community = community.filter(|community| community.as_str() != EVERYWHERE);
    let mut held = Held { everywhere: Vec::new(), here: Vec::new(), belongs: false };
    for row in rows {
        if row.community_id.as_str() == EVERYWHERE {
            held.everywhere.push(row.role);
        } else if Some(&row.community_id) == community {
            held.here.push(row.role);
            held.belongs = true;
        }
    }
    Ok(held)
}

/// The decision with its reason.
pub async fn explain(
    deps: &Deps,
    caller: &Caller,
    permission: Permission,
    community: Option<&CommunityId>,
) -> Result<Decision> {
    let roles = roles_of(deps, caller, community).await?;
    policy_in(deps, community).await?.explain(&roles, community, permission)
}

/// Whether the caller has this right in `community`; without a community an instance-wide role decides.
pub async fn allowed(
    deps: &Deps,
    caller: &Caller,
    permission: Permission,
    community: Option<&CommunityId>,
) -> Result<bool> {
    explain(deps, caller, permission, community).await.map(|decision| decision.allowed)
}

/// [`allowed`], as a failure when it is not.
///
/// # Errors
/// [`Code::PermissionDenied`] with `permission` and `communityId`.
pub async fn require(
    deps: &Deps,
    caller: &Caller,
    permission: Permission,
    community: Option<&CommunityId>,
) -> Result<()> {
    let decision = explain(deps, caller, permission, community).await?;
    if decision.allowed { Ok(()) } else { Err(denied(permission, community, &decision.because)) }
}

/// Whether the user has this right by rows alone: for work that no token stands behind (auto start).
pub async fn allowed_for_user(
    deps: &Deps,
    user: &UserId,
    permission: Permission,
    community: Option<&CommunityId>,
) -> Result<bool> {
    let held = held_by(deps, user, community).await?;
    let roles = Roles::new(held.everywhere, held.here, held.belongs);
    policy_in(deps, community).await?.allows(&roles, community, permission)
}

/// Whether the caller is an instance admin.
pub async fn is_instance_admin(deps: &Deps, caller: &Caller) -> Result<bool> {
    Ok(roles_of(deps, caller, None).await?.is_instance_admin())
}

/// [`is_instance_admin`], as a failure when not.
///
/// # Errors
/// [`Code::PermissionDenied`] with `permission: "instance_admin"`.
pub async fn require_instance_admin(deps: &Deps, caller: &Caller) -> Result<()> {
    if is_instance_admin(deps, caller).await? {
        return Ok(());
    }
    Err(Error::new(Code::PermissionDenied, "Only an instance admin may do this.")
        .with("permission", crate::access::INSTANCE_ADMIN)
        .with("communityId", serde_json::Value::Null))
}

/// Whether the caller belongs to the community, by row or token. Instance-wide roles do not make a member.
pub async fn is_member(deps: &Deps, caller: &Caller, community: &CommunityId) -> Result<bool> {
    Ok(roles_of(deps, caller, Some(community)).await?.is_member())
}

/// What a role may in a community, and whether the community defines that itself.
pub(super) async fn permissions_of(
    deps: &Deps,
    role: &str,
    community: Option<&CommunityId>,
) -> Result<(Vec<Permission>, bool)> {
    policy_in(deps, community).await?.permissions_of(role, community)
}

fn denied(permission: Permission, community: Option<&CommunityId>, because: &str) -> Error {
    Error::new(Code::PermissionDenied, format!("{permission} is not permitted. {because}"))
        .with("permission", permission.as_str())
        .with("communityId", community.map(CommunityId::as_str))
}

/// What decides in `community`, by the rules that the database has now.
async fn policy_in(deps: &Deps, community: Option<&CommunityId>) -> Result<Arc<Policy>> {
    current(deps).await?.rules.policy_in(community).await
}

/// The rules of the version that the database has now.
async fn current(deps: &Deps) -> Result<Arc<Versioned>> {
    let version = store::setting::find(deps.db.conn(), store::setting::POLICY_VERSION).await?;
    let fits = |held: &Arc<Versioned>| held.version == version;
    if let Some(held) = deps.policy.current.load_full().filter(fits) {
        return Ok(held);
    }
    let _one_at_a_time = deps.policy.reload.lock().await;
    if let Some(held) = deps.policy.current.load_full().filter(fits) {
        return Ok(held);
    }
    // The version was read before the rules: rules that are newer than it are read again with the next decision.
    let rows = store::policy::list(deps.db.conn()).await?;
    let rules = rows
        .into_iter()
        .filter(|row| row.ptype == "p")
        .map(|row| Rule { subject: row.v0, domain: row.v1, permission: row.v2 })
        .collect();
    let fresh = Arc::new(Versioned { version, rules: Rulebook::read(rules).await? });
    deps.policy.current.store(Some(Arc::clone(&fresh)));
    tracing::info!(version = fresh.version, "access rules read");
    Ok(fresh)
}
