//! Questions about buffers and clips.

use clap::Subcommand;
use http::Method;

use super::ask::{Ask, DryRun, Json, Show, change, get, maintenance, of_community};
use crate::cli::verify;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Sessions {
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
pub(in crate::cli) enum Clips {
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
    Verify(verify::Options),
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

pub(super) fn ask_sessions(command: Sessions) -> Ask {
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

pub(super) fn ask_clips(command: Clips) -> Ask {
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
