//! `db migrate|check`: the schema.

use clap::Subcommand;

use crate::{
    app::{self, Database, Failure, places},
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
    /// Whether the database is there with this program's schema: exit code 0 or 1
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: Config, command: DbCommand) -> Result<(), Failure> {
    match command {
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
        DbCommand::Check { json } => {
            let missing = app::missing_schema(&config).await?;
            if json {
                super::print::json(&serde_json::json!({
                    "status": if missing.as_ref().is_some_and(Vec::is_empty) { "ok" } else { "fail" },
                    "exists": missing.is_some(),
                    "missing": missing.clone().unwrap_or_default(),
                }))?;
            }
            match missing {
                Some(missing) if missing.is_empty() => {
                    if !json {
                        println!("the database has this program's schema");
                    }
                    Ok(())
                }
                _ => app::open_database(&config, Database::Find).await.map(drop),
            }
        }
    }
}
