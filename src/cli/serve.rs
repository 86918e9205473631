//! `serve`: the service until a signal. A second signal ends it at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    app::{self, Failure},
    clock::SystemClock,
    config::Config,
    telemetry,
};

/// Runs the service.
pub(super) fn serve(config: Config) -> Result<(), Failure> {
    telemetry::install_log(&config.log);
    telemetry::log_panics();
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(run(config));
    // blocking work on a hung mount must not keep the process
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn run(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let address = std::net::SocketAddr::from((config.server.host, config.server.port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {address}: {error}")))?;
    let running = tokio::select! {
        started = app::start(config, Arc::new(SystemClock), listener) => started?,
        // nothing runs yet that would have to be handed back
        () = signals.next() => return Ok(()),
    };
    let broken = tokio::select! {
        () = signals.next() => false,
        () = running.broken() => true,
    };
    tokio::select! {
        stopped = running.stop() => stopped?,
        () = signals.next() => {
            return Err(Failure::Failed("ended by a second signal; leases run out by themselves".to_owned()));
        }
    }
    if broken {
        Err(Failure::Failed("a part of the service ended by itself".to_owned()))
    } else {
        Ok(())
    }
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::Failed(format!("listening for signals: {error}")))
        };
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
