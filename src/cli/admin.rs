//! The commands that ask the administrators' API: each is a question and a way to print the answer.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{
    print,
    reach::{Call, Reach},
};
use crate::{access::Permission, app::Failure, clock::SharedClock, config::Config, error::Error};

/// Prints JSON instead of columns.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Only says what would be done.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct DryRun {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Buffers
    #[command(subcommand)]
    Sessions(Sessions),
    /// Clips
    #[command(subcommand)]
    Clips(Clips),
    /// Durable work
    #[command(subcommand)]
    Jobs(Jobs),
    /// Scheduled work
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// Users' room for clips
    #[command(subcommand)]
    Quota(Quota),
    /// Communities' settings
    #[command(subcommand)]
    Community(Community),
    /// Roles and rights
    #[command(subcommand)]
    Permissions(Permissions),
    /// What users and communities take, the largest first
    Usage {
        /// Of this community alone
        #[arg(long)]
        community: Option<String>,
        /// How many are named, 1 to 200
        #[arg(long)]
        limit: Option<u64>,
        #[command(flatten)]
        json: Json,
    },
    /// Who did what
    #[command(subcommand)]
    Audit(Audit),
    /// Events on their way to the app
    #[command(subcommand)]
    Events(Events),
    /// A person as a whole
    #[command(subcommand)]
    Users(Users),
}

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// Deliveries of events to the configured endpoints, newest first
    List {
        /// Only those that were given up
        #[arg(long, conflicts_with = "pending")]
        dead: bool,
        /// Only those that wait
        #[arg(long)]
        pending: bool,
        /// To this endpoint: its name, as listed
        #[arg(long)]
        endpoint: Option<String>,
        /// How many, 1 to 200
        #[arg(long)]
        limit: Option<u64>,
        /// How many to pass over
        #[arg(long)]
        offset: Option<u64>,
        #[command(flatten)]
        json: Json,
    },
    /// Deliver an event again, or all deliveries that were given up
    Redeliver {
        /// The event's id
        #[arg(required_unless_present = "dead", conflicts_with = "dead")]
        id: Option<String>,
        /// Everything that was given up
        #[arg(long)]
        dead: bool,
        /// Of these, not older than this, RFC 3339
        #[arg(long, requires = "dead")]
        since: Option<String>,
        /// To this endpoint alone: its name, as listed
        #[arg(long)]
        endpoint: Option<String>,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Lines of the audit log, newest first
    List {
        /// Of this community alone
        #[arg(long)]
        community: Option<String>,
        /// What this user did or was refused
        #[arg(long)]
        actor: Option<String>,
        /// One kind of act: community.change, clip.delete, …
        #[arg(long)]
        action: Option<String>,
        /// done or refused
        #[arg(long)]
        outcome: Option<String>,
        /// Not before, RFC 3339
        #[arg(long)]
        from: Option<String>,
        /// Before, RFC 3339
        #[arg(long)]
        to: Option<String>,
        /// How many, 1 to 200
        #[arg(long)]
        limit: Option<u64>,
        /// How many to pass over
        #[arg(long)]
        offset: Option<u64>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Users {
    /// Write what is kept of a user: rows as JSON, clips with their records
    Export {
        /// The user's id
        user: String,
        /// A directory that is not there yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        json: Json,
    },
    /// Erase a user: recordings, buffers, clips and rows; safe to repeat
    Erase {
        /// The user's id
        user: String,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// Sessions, newest first
    List {
        /// Of this community alone
        #[arg(long)]
        community: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// One session with its buffer
    Show {
        /// The session's id
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// Stop one; its buffer stays capturable for a while
    Stop {
        /// The session's id
        id: String,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
    /// Stop every session
    StopAll {
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
    /// Reap recordings, directories and sessions that nobody owns, now
    Reap {
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Clips {
    /// Clips, newest first
    List {
        /// Of this community alone
        #[arg(long)]
        community: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// One clip
    Show {
        /// The clip's id
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// Compare clips with their files: exit code 1 when something is wrong
    Verify(super::verify::Options),
    /// Delete a clip; its owner gets the room back
    Delete {
        /// The clip's id
        id: String,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    /// Work that waits, runs or failed
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Try a failed job again
    Retry {
        /// The job's id
        id: String,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Maintenance {
    /// Scheduled jobs with their last run
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Run one now
    Run {
        /// Its name: segment-cleanup, orphan-reaper, reconcile, …
        job: String,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Quota {
    /// A user's quota and what is used of it
    Get {
        /// The user's id
        user: String,
        #[command(flatten)]
        json: Json,
    },
    /// Change a user's quota
    Set {
        /// The user's id
        user: String,
        /// Bytes
        bytes: u64,
        #[command(flatten)]
        json: Json,
    },
    /// Compare the accounts with the clips and put them right
    Verify {
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Community {
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
pub(super) enum Permissions {
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

/// A question with the way its answer is printed.
struct Ask {
    call: Call,
    show: Show,
    json: bool,
}

/// How an answer is shown to people.
#[derive(Clone, Copy)]
enum Show {
    Fields,
    /// The list under this name, these columns.
    Table(&'static str, &'static [&'static str]),
    /// The only thing in the list under this name, which is not found if there is none.
    Only(&'static str, &'static str),
    /// One of the decisions.
    Permission(Permission),
    /// A line instead of the answer.
    Says(&'static str),
}

/// Runs one command.
pub(super) async fn run(
    config: Config,
    clock: SharedClock,
    command: AdminCommand,
) -> Result<(), Failure> {
    let command = match command {
        AdminCommand::Users(Users::Export { user, out, json }) => {
            return super::users::export(config, clock, user, out, json.json).await;
        }
        AdminCommand::Clips(Clips::Verify(options)) => {
            return super::verify::run(config, clock, options).await;
        }
        command => command,
    };
    let ask = ask(command);
    let reach = Reach::find(config, clock).await?;
    let answer = reach.call(&ask.call).await;
    let closed = reach.close().await;
    show(&answer?, &ask)?;
    closed
}

fn show(answer: &Value, ask: &Ask) -> Result<(), Failure> {
    let answer = match ask.show {
        Show::Only(list, thing) => match &answer[list][0] {
            Value::Null => return Err(Error::not_found(thing).into()),
            found => found,
        },
        Show::Permission(permission) => decision(answer, permission)?,
        _ => answer,
    };
    if ask.json {
        return print::json(answer);
    }
    match ask.show {
        Show::Fields | Show::Only(..) | Show::Permission(_) => print::fields(answer),
        Show::Table(list, columns) => {
            let rows = answer[list].as_array().map(Vec::as_slice).unwrap_or_default();
            print::table(rows, columns);
            if let Some(total) = answer["total"].as_u64() {
                print::line(&format!("{total} in all"));
            }
        }
        Show::Says(text) => print::line(text),
    }
    Ok(())
}

fn decision(answer: &Value, permission: Permission) -> Result<&Value, Failure> {
    let decisions = answer["permissions"].as_array().map(Vec::as_slice).unwrap_or_default();
    decisions
        .iter()
        .find(|decision| decision["name"] == permission.as_str())
        .ok_or_else(|| Error::not_found("permission").into())
}

/// A right by its name.
fn permission(name: &str) -> Result<Permission, String> {
    Permission::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Permission::ALL.iter().map(|one| one.as_str()).collect();
        format!("is one of {}", names.join(", "))
    })
}

fn call(method: Method, path: &[&str]) -> Call {
    Call {
        method,
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        query: Vec::new(),
        body: None,
        as_user: None,
    }
}

fn get(path: &[&str], show: Show, json: Json) -> Ask {
    Ask { call: call(Method::GET, path), show, json: json.json }
}

fn change(method: Method, path: &[&str], body: Option<Value>, json: Json) -> Ask {
    Ask { call: Call { body, ..call(method, path) }, show: Show::Fields, json: json.json }
}

/// A run of scheduled work.
fn maintenance(job: &str, dry_run: DryRun, json: Json) -> Ask {
    let mut ask = change(Method::POST, &["admin", "maintenance", job, "run"], None, json);
    ask.call.query.push(("dryRun", dry_run.dry_run.to_string()));
    ask
}

fn ask(command: AdminCommand) -> Ask {
    match command {
        AdminCommand::Sessions(command) => ask_sessions(command),
        AdminCommand::Clips(command) => ask_clips(command),
        AdminCommand::Jobs(Jobs::List { json }) => {
            get(&["admin", "jobs"], Show::Table("jobs", JOB_COLUMNS), json)
        }
        AdminCommand::Jobs(Jobs::Retry { id, json }) => {
            change(Method::POST, &["admin", "jobs", &id, "retry"], None, json)
        }
        AdminCommand::Maintenance(Maintenance::List { json }) => {
            get(&["admin", "maintenance"], Show::Table("jobs", MAINTENANCE_COLUMNS), json)
        }
        AdminCommand::Maintenance(Maintenance::Run { job, dry_run, json }) => {
            maintenance(&job, dry_run, json)
        }
        AdminCommand::Quota(Quota::Get { user, json }) => {
            get(&["admin", "users", &user, "quota"], Show::Fields, json)
        }
        AdminCommand::Quota(Quota::Set { user, bytes, json }) => {
            let body = json!({ "quotaBytes": bytes });
            change(Method::PATCH, &["admin", "users", &user, "quota"], Some(body), json)
        }
        AdminCommand::Quota(Quota::Verify { dry_run, json }) => {
            maintenance("quota-audit", dry_run, json)
        }
        AdminCommand::Community(command) => ask_community(command),
        AdminCommand::Permissions(command) => ask_permissions(command),
        AdminCommand::Usage { community, limit, json } => {
            let show = Show::Table("users", USAGE_COLUMNS);
            let mut ask = of_community(get(&["admin", "usage"], show, json), community);
            ask.call.query.extend(limit.map(|limit| ("limit", limit.to_string())));
            ask
        }
        AdminCommand::Audit(command) => ask_audit(command),
        AdminCommand::Events(command) => ask_events(command),
        AdminCommand::Users(command) => ask_users(command),
    }
}

const USAGE_COLUMNS: &[&str] =
    &["userId", "clipBytes", "reservedBytes", "clips", "sessions", "activeSessions", "bufferBytes"];
const AUDIT_COLUMNS: &[&str] = &[
    "at",
    "outcome",
    "action",
    "actor",
    "subject",
    "communityId",
    "sessionId",
    "clipId",
    "before",
    "after",
];

fn ask_audit(command: Audit) -> Ask {
    let Audit::List { community, actor, action, outcome, from, to, limit, offset, json } = command;
    let show = Show::Table("entries", AUDIT_COLUMNS);
    let mut ask = of_community(get(&["admin", "audit"], show, json), community);
    let (limit, offset) = (limit.map(|n| n.to_string()), offset.map(|n| n.to_string()));
    for (name, value) in [
        ("actor", actor),
        ("action", action),
        ("outcome", outcome),
        ("from", from),
        ("to", to),
        ("limit", limit),
        ("offset", offset),
    ] {
        ask.call.query.extend(value.map(|value| (name, value)));
    }
    ask
}

const DELIVERY_COLUMNS: &[&str] = &[
    "eventId",
    "type",
    "endpoint",
    "state",
    "attempts",
    "lastStatus",
    "nextAttemptAt",
    "createdAt",
    "lastError",
];

fn ask_events(command: Events) -> Ask {
    match command {
        Events::List { dead, pending, endpoint, limit, offset, json } => {
            let show = Show::Table("deliveries", DELIVERY_COLUMNS);
            let mut ask = get(&["admin", "events"], show, json);
            let state = if dead { Some("dead") } else { pending.then_some("pending") };
            for (name, value) in [
                ("state", state.map(str::to_owned)),
                ("endpoint", endpoint),
                ("limit", limit.map(|n| n.to_string())),
                ("offset", offset.map(|n| n.to_string())),
            ] {
                ask.call.query.extend(value.map(|value| (name, value)));
            }
            ask
        }
        Events::Redeliver { id, since, endpoint, dry_run, json, .. } => {
            let one = id.as_deref().map(|id| vec!["admin", "events", id, "redeliver"]);
            let path = one.unwrap_or_else(|| vec!["admin", "events", "redeliver"]);
            let mut ask = change(Method::POST, &path, None, json);
            ask.call.query.push(("dryRun", dry_run.dry_run.to_string()));
            ask.call.query.extend(since.map(|since| ("since", since)));
            ask.call.query.extend(endpoint.map(|endpoint| ("endpoint", endpoint)));
            ask
        }
    }
}

fn ask_users(command: Users) -> Ask {
    let (user, dry_run, json) = match command {
        Users::Erase { user, dry_run, json } => (user, dry_run, json),
        // `run` has its own way of writing it
        Users::Export { user, json, .. } => {
            return get(&["admin", "users", &user, "export"], Show::Fields, json);
        }
    };
    let mut ask = change(Method::DELETE, &["admin", "users", &user], None, json);
    ask.call.query.push(("dryRun", dry_run.dry_run.to_string()));
    ask
}

const SESSION_COLUMNS: &[&str] =
    &["id", "status", "userId", "communityId", "roomName", "quality", "epoch", "startedAt"];
const CLIP_COLUMNS: &[&str] = &[
    "clipId",
    "status",
    "userId",
    "communityId",
    "durationSeconds",
    "sizeBytes",
    "createdAt",
    "title",
];
const JOB_COLUMNS: &[&str] =
    &["id", "kind", "state", "attempts", "clipId", "createdAt", "leaseUntil", "lastError"];
const MAINTENANCE_COLUMNS: &[&str] = &["name", "schedule", "lastRun", "nextRunAt", "overdue"];

fn of_community(mut ask: Ask, community: Option<String>) -> Ask {
    ask.call.query.extend(community.map(|id| ("communityId", id)));
    ask
}

fn ask_sessions(command: Sessions) -> Ask {
    match command {
        Sessions::List { community, json } => {
            let show = Show::Table("sessions", SESSION_COLUMNS);
            of_community(get(&["admin", "sessions"], show, json), community)
        }
        Sessions::Show { id, json } => get(&["sessions", &id], Show::Fields, json),
        // what would be stopped is what is shown
        Sessions::Stop { id, dry_run: DryRun { dry_run: true }, json } => {
            get(&["sessions", &id], Show::Fields, json)
        }
        Sessions::Stop { id, json, .. } => {
            change(Method::POST, &["admin", "sessions", &id, "stop"], None, json)
        }
        Sessions::StopAll { dry_run: DryRun { dry_run: true }, json } => {
            get(&["admin", "sessions"], Show::Table("sessions", SESSION_COLUMNS), json)
        }
        Sessions::StopAll { json, .. } => {
            change(Method::POST, &["admin", "sessions", "stop-all"], None, json)
        }
        Sessions::Reap { dry_run, json } => maintenance("orphan-reaper", dry_run, json),
    }
}

fn ask_clips(command: Clips) -> Ask {
    match command {
        Clips::List { community, json } => {
            let show = Show::Table("clips", CLIP_COLUMNS);
            of_community(get(&["admin", "clips"], show, json), community)
        }
        Clips::Show { id, json }
        | Clips::Delete { id, dry_run: DryRun { dry_run: true }, json } => {
            // not by GET clips/{id}: whose private clips they are does not matter to who runs the service
            let mut ask = get(&["admin", "clips"], Show::Only("clips", "clip"), json);
            ask.call.query.push(("clipId", id));
            ask
        }
        // `run` has its own way of asking page by page
        Clips::Verify(_) => get(&["admin", "clips"], Show::Fields, Json { json: false }),
        Clips::Delete { id, json, .. } => change(Method::DELETE, &["clips", &id], None, json),
    }
}

fn ask_community(command: Community) -> Ask {
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

fn ask_permissions(command: Permissions) -> Ask {
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
