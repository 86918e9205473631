//! The command line: a door like the others. `serve` and `demo` run the service; the commands ask its API, so that
//! each has one implementation (`reach`).

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::Failure,
    clock::SystemClock,
    config::{self, Config, Demand, Sources},
};

mod admin;
mod db;
mod demo;
mod print;
mod reach;
mod serve;
mod simulator;
mod token;
mod users;
mod verify;

/// Instant replay for any app on LiveKit.
#[derive(Debug, Parser)]
#[command(name = "livekit-replay", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings on the command line: the highest layer.
#[derive(Debug, Clone, Args)]
struct Settings {
    /// A TOML file; every key is explained in config/default.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings, report every fault at once, and end
    #[arg(long, global = true)]
    validate: bool,
    /// Any setting: section.key=value
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where database, lock and control socket live
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (the default)
    Serve {
        /// Address to listen on
        #[arg(long)]
        host: Option<String>,
        /// Port; 0 takes a free one
        #[arg(long)]
        port: Option<String>,
    },
    /// Run the service with a simulated LiveKit, share two screens and make a clip
    Demo(demo::Options),
    /// Run the simulated LiveKit alone
    Simulator(simulator::Options),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI document
    Openapi,
    /// Bring the database up to this program, check it, copy it, put a copy back
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Make a token for development, or explain one
    #[command(subcommand)]
    Token(token::TokenCommand),
    #[command(flatten)]
    Admin(admin::AdminCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings and report every fault at once
    Validate,
}

/// Runs the command line; answers the exit code: 0 fine, 1 the thing asked for failed, 2 usage or settings.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // help and version come this way too, with code 0
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    match dispatch(cli) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let mut settings = cli.settings;
    if settings.validate {
        return validate(&settings);
    }
    match cli.command.unwrap_or(Command::Serve { host: None, port: None }) {
        Command::Serve { host, port } => {
            settings.set.extend(host.map(|host| format!("server.host={host}")));
            settings.set.extend(port.map(|port| format!("server.port={port}")));
            serve::serve(settings.load(Demand::Service)?)
        }
        Command::Demo(options) => demo::run(options),
        Command::Simulator(options) => simulator::run(options),
        Command::Config(ConfigCommand::Validate) => validate(&settings),
        Command::Openapi => print::json(&crate::http::document()),
        Command::Db(command) => {
            quietly(db::run(settings.load(Demand::Database)?, Arc::new(SystemClock), command))
        }
        Command::Token(command) => quietly(token::run(settings.load(Demand::Database)?, command)),
        Command::Admin(command) => {
            let config = settings.load(Demand::Database)?;
            quietly(admin::run(config, Arc::new(SystemClock), command))
        }
    }
}

fn validate(settings: &Settings) -> Result<(), Failure> {
    settings.load(Demand::Service)?;
    println!("the settings are valid");
    Ok(())
}

/// How long a command that is done waits for what still runs in its threads.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Runs a command's work; only warnings are logged beside what it prints.
fn quietly(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    crate::telemetry::install_log("warn");
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    // what a hung store holds on to must not hold on to the command
    runtime.shutdown_timeout(LEFT_BEHIND);
    done
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("starting the run time: {error}")))
}

impl Settings {
    fn load(&self, demand: Demand) -> Result<Config, Failure> {
        let mut flags = Vec::new();
        if let Some(dir) = &self.data_dir {
            flags.push(("data_dir".to_owned(), dir.clone(), "--data-dir".to_owned()));
        }
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(Failure::Setup(format!("--set {assignment}: expected key=value")));
            };
            flags.push((key.trim().to_owned(), value.to_owned(), "--set".to_owned()));
        }
        // what is not UTF-8 is none of our variables
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let cwd = std::env::current_dir()
            .map_err(|error| Failure::Setup(format!("the working directory: {error}")))?;
        let sources = Sources { file: self.config.clone(), env, flags, cwd };
        Ok(config::load(&sources, demand)?)
    }
}
