//! Entry point: arguments in, exit code out; everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two TLS back ends are linked; one must be chosen before anybody builds a connection (docs/decisions/0001).
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ExitCode::from(livekit_replay::cli::run(std::env::args_os()))
}
