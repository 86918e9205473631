//! The commands that ask the administrators' API: each is a question and a way to print the answer.

mod ask;
mod communities;
mod recordings;
mod told;
mod upkeep;
mod users;

use clap::Subcommand;

use self::{
    ask::{Ask, Json, Show, get, of_community, show},
    communities::{Community, Permissions},
    recordings::{Clips, Sessions},
    told::{Audit, Events},
    upkeep::{Jobs, Maintenance, Quota},
    users::Users,
};
use super::reach::Reach;
use crate::{app::Failure, clock::SharedClock, config::Config};

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

/// Runs one command.
pub(super) async fn run(
    config: Config,
    clock: SharedClock,
    command: AdminCommand,
) -> Result<(), Failure> {
    let command = match command {
        AdminCommand::Users(Users::Export { user, out, json }) => {
            return crate::cli::users::export(config, clock, user, out, json.json).await;
        }
        AdminCommand::Clips(Clips::Verify(options)) => {
            return crate::cli::verify::run(config, clock, options).await;
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

fn ask(command: AdminCommand) -> Ask {
    match command {
        AdminCommand::Sessions(command) => recordings::ask_sessions(command),
        AdminCommand::Clips(command) => recordings::ask_clips(command),
        AdminCommand::Jobs(command) => upkeep::ask_jobs(command),
        AdminCommand::Maintenance(command) => upkeep::ask_maintenance(command),
        AdminCommand::Quota(command) => upkeep::ask_quota(command),
        AdminCommand::Community(command) => communities::ask_community(command),
        AdminCommand::Permissions(command) => communities::ask_permissions(command),
        AdminCommand::Usage { community, limit, json } => {
            let show = Show::Table("users", USAGE_COLUMNS);
            let mut ask = of_community(get(&["admin", "usage"], show, json), community);
            ask.call.query.extend(limit.map(|limit| ("limit", limit.to_string())));
            ask
        }
        AdminCommand::Audit(command) => told::ask_audit(command),
        AdminCommand::Events(command) => told::ask_events(command),
        AdminCommand::Users(command) => users::ask_users(command),
    }
}

const USAGE_COLUMNS: &[&str] =
    &["userId", "clipBytes", "reservedBytes", "clips", "sessions", "activeSessions", "bufferBytes"];
