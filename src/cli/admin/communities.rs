//! Questions about communities: their settings, roles and rights.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::ask::{Ask, DryRun, Json, Show, call, change, get, of_community};
use crate::access::Permission;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Community {
    /// A community's settings
    Get {
        /// The community's id
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// Change a community's settings
    Set {
        /// The community's id
        id: String,
        /// Buffers at once
        #[arg(long)]
        max_concurrent: Option<u32>,
        /// Whether buffers may be started
        #[arg(long)]
        enabled: Option<bool>,
        /// Whether a screen share starts a buffer by itself
        #[arg(long)]
        auto_start: Option<bool>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Permissions {
    /// What a user may do in a community, and why, by the roles in the database
    Check {
        /// The user's id
        user: String,
        /// The community's id
        community: String,
        /// Only this right: ENABLE_REPLAY_BUFFER, CAPTURE_REPLAY, MANAGE_REPLAY_LIMITS
        #[arg(value_parser = permission)]
        permission: Option<Permission>,
        #[command(flatten)]
        json: Json,
    },
    /// Give a user a role in a community
    Grant {
        /// The user's id
        user: String,
        /// The community's id
        community: String,
        /// The role
        role: String,
    },
    /// Take a role away
    Revoke {
        /// The user's id
        user: String,
        /// The community's id
        community: String,
        /// The role
        role: String,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// A role's rights in a community, or with --set what they become
    Roles {
        /// The community's id
        community: String,
        /// The role
        role: String,
        /// ENABLE_REPLAY_BUFFER, CAPTURE_REPLAY, MANAGE_REPLAY_LIMITS
        #[arg(long, value_delimiter = ',')]
        set: Option<Vec<String>>,
        #[command(flatten)]
        json: Json,
    },
}

/// A right by its name.
fn permission(name: &str) -> Result<Permission, String> {
    Permission::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Permission::ALL.iter().map(|one| one.as_str()).collect();
        format!("is one of {}", names.join(", "))
    })
}

pub(super) fn ask_community(command: Community) -> Ask {
    match command {
        Community::Get { id, json } => {
            get(&["admin", "community", &id, "config"], Show::Fields, json)
        }
        Community::Set { id, max_concurrent, enabled, auto_start, json } => {
            let mut body = serde_json::Map::new();
            body.extend(max_concurrent.map(|value| ("maxConcurrent".to_owned(), value.into())));
            body.extend(enabled.map(|value| ("enabled".to_owned(), value.into())));
            body.extend(auto_start.map(|value| ("autoStart".to_owned(), value.into())));
            let path = ["admin", "community", &id, "config"];
            change(Method::PATCH, &path, Some(Value::Object(body)), json)
        }
    }
}

pub(super) fn ask_permissions(command: Permissions) -> Ask {
    const PERMISSIONS: Show = Show::Table("permissions", &["name", "allowed", "because"]);
    match command {
        Permissions::Check { user, community, permission, json } => {
            let show = permission.map_or(PERMISSIONS, Show::Permission);
            let mut ask = of_community(get(&["me", "permissions"], show, json), Some(community));
            ask.call.as_user = Some(user);
            ask
        }
        Permissions::Grant { user, community, role } => {
            member(Method::PUT, &community, &user, &role, Show::Says("granted"))
        }
        Permissions::Revoke { user, community, dry_run, .. } if dry_run.dry_run => {
            let json = Json { json: false };
            let mut ask =
                of_community(get(&["me", "permissions"], PERMISSIONS, json), Some(community));
            ask.call.as_user = Some(user);
            ask
        }
        Permissions::Revoke { user, community, role, .. } => {
            member(Method::DELETE, &community, &user, &role, Show::Says("revoked"))
        }
        Permissions::Roles { community, role, set, json } => {
            let path = ["admin", "community", &community, "roles", &role];
            match set {
                None => get(&path, Show::Fields, json),
                Some(rights) => {
                    let rights: Vec<String> =
                        rights.into_iter().filter(|right| !right.is_empty()).collect();
                    change(Method::PUT, &path, Some(json!({ "permissions": rights })), json)
                }
            }
        }
    }
}

fn member(method: Method, community: &str, user: &str, role: &str, show: Show) -> Ask {
    let path = ["admin", "community", community, "members", user, "roles", role];
    Ask { call: call(method, &path), show, json: false }
}
