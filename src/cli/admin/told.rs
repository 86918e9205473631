//! Questions about what was written down of people's acts, and what is told to the app.

use clap::Subcommand;
use http::Method;

use super::ask::{Ask, DryRun, Json, Show, change, get, of_community};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Audit {
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
pub(in crate::cli) enum Events {
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

pub(super) fn ask_audit(command: Audit) -> Ask {
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

pub(super) fn ask_events(command: Events) -> Ask {
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
