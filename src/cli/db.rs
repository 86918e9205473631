//! `db migrate|check|backup|restore|rebuild`: the schema, copies of the database, and a new one after a loss.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{
    app::{self, Database, Failure, backup, places},
    clock::SharedClock,
    config::Config,
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Make the database if it is not there, and bring its schema up to this program
    Migrate {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Write a copy of the database as of now; the service may run. Clips are files: copy the clip store besides
    Backup {
        /// A file that is not there yet
        file: PathBuf,
    },
    /// Put a copy in the database's place; no service may run. What was there is kept beside it (SQLite)
    Restore {
        /// A copy that `db backup` wrote
        file: PathBuf,
        /// Only look at the copy
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a new database for the clip store that is there: every clip with a record gets its row back, private
    Rebuild {
        /// Only count the clips
        #[arg(long)]
        dry_run: bool,
    },
    /// Whether the database is whole and has this program's schema: exit code 0 or 1
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(
    config: Config,
    clock: SharedClock,
    command: DbCommand,
) -> Result<(), Failure> {
    match command {
        DbCommand::Backup { file } => {
            backup::backup(&config, &file).await?;
            println!("the database was copied to {}", file.display());
            Ok(())
        }
        DbCommand::Restore { file, dry_run } => {
            let changed = backup::restore(&config, &clock, &file, dry_run).await?;
            let said = if dry_run { "would be restored" } else { "was restored" };
            println!("the database {said} from {}", file.display());
            match changed {
                _ if dry_run => {}
                Some(0) => {}
                Some(clips) => println!("{clips} clips were changed to what their records say"),
                None => eprintln!(
                    "the clip store was not there to be asked: what owners changed of their clips since the copy is as \
                     it was before; to have it, repeat this with the clip store in its place"
                ),
            }
            Ok(())
        }
        DbCommand::Rebuild { dry_run } => {
            let (clips, failed) = backup::rebuild(config, clock, dry_run).await?;
            println!("{clips} clips {} their rows back", if dry_run { "would get" } else { "got" });
            match failed {
                0 => Ok(()),
                _ => Err(Failure::Failed(format!(
                    "{failed} things in the clip store could not be looked at (the log says which); when they can be, \
                     start the service and run `clips verify --repair`"
                ))),
            }
        }
        DbCommand::Migrate { dry_run: false } => {
            places::make_data_dir(&config)?;
            app::open_database(&config, Database::Make).await?.close().await?;
            println!("the database has this program's schema");
            Ok(())
        }
        DbCommand::Migrate { dry_run: true } => {
            match app::missing_schema(&config).await? {
                None => println!("would make the database and its whole schema"),
                Some(missing) if missing.is_empty() => println!("nothing to do"),
                Some(missing) => println!("would add {}", missing.join(", ")),
            }
            Ok(())
        }
        DbCommand::Check { json } => check(config, json).await,
    }
}

async fn check(config: Config, json: bool) -> Result<(), Failure> {
    let missing = app::missing_schema(&config).await?;
    let complete = missing.as_ref().is_some_and(Vec::is_empty);
    let faults = if missing.is_some() { backup::faults(&config).await? } else { Vec::new() };
    if json {
        super::print::json(&serde_json::json!({
            "status": if complete && faults.is_empty() { "ok" } else { "fail" },
            "exists": missing.is_some(),
            "missing": missing.clone().unwrap_or_default(),
            "faults": faults,
        }))?;
    }
    if !faults.is_empty() {
        return Err(Failure::Failed(format!("the database is damaged: {}", faults.join("; "))));
    }
    if !complete {
        // says what is missing
        return app::open_database(&config, Database::Find).await.map(drop);
    }
    if !json {
        println!("the database is whole and has this program's schema");
    }
    Ok(())
}
