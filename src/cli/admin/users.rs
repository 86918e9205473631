//! Questions about a person as a whole.

use std::path::PathBuf;

use clap::Subcommand;
use http::Method;

use super::ask::{Ask, DryRun, Json, Show, change, get};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Users {
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

pub(super) fn ask_users(command: Users) -> Ask {
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
