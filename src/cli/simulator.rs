//! `simulator`: the LiveKit stand-in alone, for trying a service or an app against it.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::serve::Signals;
use crate::{
    app::Failure,
    simulator::{SimConfig, Simulator},
};

/// How it is set up.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:7880")]
    listen: SocketAddr,
    /// API key and secret
    #[arg(
        long,
        default_value = "devkey:a-secret-for-simulated-servers-only",
        value_name = "KEY:SECRET"
    )]
    key: String,
    /// Where webhooks go; may be repeated
    #[arg(long = "webhook", value_name = "URL")]
    webhooks: Vec<String>,
    /// What stands for the root directory of the egress host
    #[arg(long, default_value = "/")]
    root: PathBuf,
}

pub(super) fn run(options: Options) -> Result<(), Failure> {
    crate::telemetry::install_log("info");
    let (key, secret) = options
        .key
        .split_once(':')
        .ok_or_else(|| Failure::Setup("--key: expected KEY:SECRET".to_owned()))?;
    let config = SimConfig {
        listen: options.listen,
        keys: vec![(key.to_owned(), secret.to_owned())],
        webhook_urls: options.webhooks,
        root: options.root,
        ..SimConfig::default()
    };
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let simulator = Simulator::start(config).await?;
        println!("simulated LiveKit at {} (its controls are under /sim/)", simulator.url());
        signals.next().await;
        simulator.shutdown().await;
        Ok(())
    })
}
