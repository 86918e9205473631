//! Roles: what they permit in a community, who holds them there, and who is no member any more.

use serde_json::json;

use super::require_manager;
use crate::{
    access::{Caller, EVERYWHERE, INSTANCE_ADMIN, MEMBER, Permission, policy},
    domain::{
        audit::Action,
        id::{CommunityId, UserId},
        names,
    },
    error::{Error, Result},
    flow::{
        Deps,
        audit_log::{self, Line},
        authorize,
    },
    store,
};

/// What a role may in a community.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleReport {
    /// The role.
    pub role: String,
    /// Where; `*` = everywhere.
    pub community: CommunityId,
    /// What it permits there.
    pub permissions: Vec<Permission>,
    /// Whether the community defines it itself.
    pub defined_here: bool,
}

/// What a role may in a community.
pub async fn show_role(
    deps: &Deps,
    caller: &Caller,
    community: &CommunityId,
    role: &str,
) -> Result<RoleReport> {
    names::check_name("role", role)?;
    require_manager(deps, caller, Some(community)).await?;
    let (permissions, defined_here) =
        authorize::permissions_of(deps, role, Some(community)).await?;
    if permissions.is_empty() && !defined_here && role != MEMBER {
        return Err(Error::not_found("role"));
    }
    Ok(RoleReport {
        role: role.to_owned(),
        community: community.clone(),
        permissions,
        defined_here,
    })
}

/// Defines what a role may in a community, in place of what it may everywhere.
pub async fn define_role(
    deps: &Deps,
    caller: &Caller,
    community: &CommunityId,
    role: &str,
    permissions: &[Permission],
) -> Result<RoleReport> {
    names::check_name("role", role)?;
    refuse_instance_admin(role)?;
    require_manager(deps, caller, Some(community)).await?;
    let (subject, domain) = (policy::subject(role), policy::domain(Some(community)));
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let before = store::policy::list_of(&tx, &subject, &domain).await?;
    store::policy::delete_of(&tx, &subject, &domain).await?;
    for permission in permissions {
        store::policy::add(&tx, &subject, &domain, permission.as_str()).await?;
    }
    if permissions.is_empty() {
        store::policy::add(&tx, &subject, &domain, policy::NOTHING).await?;
    }
    store::policy::bump_version(&tx).await?;
    let after: Vec<_> = permissions.iter().map(|permission| permission.as_str()).collect();
    let line = Line::new(Action::RoleDefine)
        .community(Some(community))
        .before(json!({ "role": role, "permissions": defined(&before) }))
        .after(json!({ "role": role, "permissions": after }));
    audit_log::done(&tx, caller, line, now).await?;
    store::commit(tx).await?;
    tracing::info!(community.id = %community, role, by = %caller.user_id, "role defined");
    show_role(deps, caller, community, role).await
}

/// The permissions of a definition; null where there was none.
fn defined(rules: &[String]) -> Option<Vec<&str>> {
    let named = rules.iter().map(String::as_str).filter(|rule| *rule != policy::NOTHING);
    (!rules.is_empty()).then(|| named.collect())
}

/// Drops a community's own definition of a role. A role that then is defined nowhere is taken from its holders there,
/// so that nobody has it by surprise when the name is used again.
pub async fn drop_role(
    deps: &Deps,
    caller: &Caller,
    community: &CommunityId,
    role: &str,
) -> Result<()> {
    names::check_name("role", role)?;
    refuse_instance_admin(role)?;
    require_manager(deps, caller, Some(community)).await?;
    let subject = policy::subject(role);
    let tx = deps.db.begin().await?;
    let before = store::policy::list_of(&tx, &subject, &policy::domain(Some(community))).await?;
    let dropped = store::policy::delete_of(&tx, &subject, &policy::domain(Some(community))).await?;
    if dropped == 0 {
        store::rollback(tx).await?;
        return Err(Error::not_found("role"));
    }
    let mut taken_from = 0;
    if !store::policy::is_defined(&tx, &subject, EVERYWHERE).await? {
        taken_from = store::member::revoke_from_all(&tx, community, role).await?;
    }
    store::policy::bump_version(&tx).await?;
    let line = Line::new(Action::RoleDrop)
        .community(Some(community))
        .before(json!({ "role": role, "permissions": defined(&before) }))
        .after(json!({ "role": role, "takenFrom": taken_from }));
    audit_log::done(&tx, caller, line, deps.clock.now()).await?;
    store::commit(tx).await?;
    tracing::info!(community.id = %community, role, by = %caller.user_id, "role dropped");
    Ok(())
}

/// Gives a user a role in a community (everywhere with `*`).
pub async fn grant_role(
    deps: &Deps,
    caller: &Caller,
    community: &CommunityId,
    user: &UserId,
    role: &str,
) -> Result<()> {
    names::check_name("userId", user.as_str())?;
    names::check_name("role", role)?;
    if community.as_str() != EVERYWHERE {
        refuse_instance_admin(role)?;
    }
    require_manager(deps, caller, Some(community)).await?;
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let had = store::member::has(&tx, community, user, role).await?;
    store::member::grant(&tx, community, user, role, now).await?;
    let line = held(Action::RoleGrant, community, user, role, had, true);
    audit_log::done(&tx, caller, line, now).await?;
    store::commit(tx).await?;
    tracing::info!(community.id = %community, user.id = %user, role, by = %caller.user_id, "role granted");
    Ok(())
}

/// The line of a role given or taken.
fn held(
    action: Action,
    community: &CommunityId,
    user: &UserId,
    role: &str,
    before: bool,
    after: bool,
) -> Line {
    Line::new(action)
        .community(Some(community))
        .user(user)
        .before(json!({ "role": role, "held": before }))
        .after(json!({ "role": role, "held": after }))
}

/// Takes a role from a user; not having had it is fine.
pub async fn revoke_role(
    deps: &Deps,
    caller: &Caller,
    community: &CommunityId,
    user: &UserId,
    role: &str,
) -> Result<()> {
    names::check_name("userId", user.as_str())?;
    names::check_name("role", role)?;
    require_manager(deps, caller, Some(community)).await?;
    let tx = deps.db.begin().await?;
    let had = store::member::revoke(&tx, community, user, role).await?;
    let line = held(Action::RoleRevoke, community, user, role, had, false);
    audit_log::done(&tx, caller, line, deps.clock.now()).await?;
    store::commit(tx).await?;
    tracing::info!(community.id = %community, user.id = %user, role, by = %caller.user_id, "role revoked");
    Ok(())
}

/// Removes a member: roles in rows go, and roles in tokens issued until now count no more.
pub async fn remove_member(
    deps: &Deps,
    caller: &Caller,
    community: &CommunityId,
    user: &UserId,
) -> Result<()> {
    names::check_name("userId", user.as_str())?;
    require_manager(deps, caller, Some(community)).await?;
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let roles = store::member::list_of_user(&tx, user).await?;
    let roles = roles.iter().filter(|row| row.community_id == *community);
    let roles: Vec<_> = roles.map(|row| row.role.as_str()).collect();
    store::member::remove(&tx, community, user, now).await?;
    let line = Line::new(Action::MemberRemove)
        .community(Some(community))
        .user(user)
        .before(json!({ "roles": roles }));
    audit_log::done(&tx, caller, line, now).await?;
    store::commit(tx).await?;
    tracing::info!(community.id = %community, user.id = %user, by = %caller.user_id, "member removed");
    Ok(())
}

/// The role is held everywhere or not at all, and needs no rules.
fn refuse_instance_admin(role: &str) -> Result<()> {
    if role != INSTANCE_ADMIN {
        return Ok(());
    }
    let message = "instance_admin is held everywhere or not at all, and may everything";
    Err(Error::invalid_field("role", message))
}
