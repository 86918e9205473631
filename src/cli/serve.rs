//! `serve`: the service until a signal. A second signal ends it at once.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    app::{self, Failure, lock},
    clock,
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
    let address = SocketAddr::from((config.server.host, config.server.port));
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return Err(cannot_listen(&config, address, &error)),
    };
    let running = tokio::select! {
        started = app::start(config, clock::of_program(), listener) => started?,
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

/// Most often it is another service of this very place that has the port: then its process is named.
fn cannot_listen(config: &Config, address: SocketAddr, error: &std::io::Error) -> Failure {
    let holder = lock::share(config).ok().and_then(Result::err);
    let named = holder.map(|pid| format!("; another livekit-replay (pid {pid}) runs here"));
    Failure::Failed(format!("cannot listen on {address}: {error}{}", named.unwrap_or_default()))
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
