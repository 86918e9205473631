//! `make bench`: what clips cost, measured on the real program, LiveKit simulated and everything else real.
//!
//! Arguments name the sections to run: `clips`, `exact`, `eight`, `growth`, `memory`, `arrival`, `sessions`, `sweep`;
//! without any, all run. `docs/performance.md` is written, or the sections in it that were run. `FULL=1` runs the long ones at full length,
//! `BENCH_SECONDS` changes the length of the recording (600), `BENCH_ROUNDS` that of the medians (7).
#![allow(missing_docs, clippy::unwrap_used)]

mod arriving;
mod captures;
mod disk;
mod input;
mod many;
mod report;
mod service;
mod sweep;

use std::path::{Path, PathBuf};

use captures::Stage;
use report::Report;

const SECTIONS: [&str; 8] =
    ["clips", "exact", "eight", "growth", "memory", "arrival", "sessions", "sweep"];

/// How much is run.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub full: bool,
    /// Of the recording.
    pub seconds: u64,
    pub rounds: usize,
}

impl Scale {
    fn given() -> Scale {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Scale {
            full: std::env::var("FULL").is_ok_and(|text| text == "1"),
            seconds: number("BENCH_SECONDS").unwrap_or(600),
            rounds: number("BENCH_ROUNDS").unwrap_or(7) as usize,
        }
    }

    /// A number of things that `name` overrules.
    pub fn count(&self, name: &str, short: usize, full: usize) -> usize {
        let given = std::env::var(name).ok().and_then(|text| text.parse().ok());
        given.unwrap_or(if self.full { full } else { short })
    }
}

/// Where inputs are kept between runs.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // cargo passes --bench
    let asked: Vec<_> = std::env::args().skip(1).filter(|one| !one.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|one| !SECTIONS.contains(&one.as_str())) {
        panic!("there is no section `{unknown}`; there are {}", SECTIONS.join(", "));
    }
    let wanted = |section: &str| asked.is_empty() || asked.iter().any(|one| one == section);
    let scale = Scale::given();
    let mut report = Report::new(scale);
    if ["clips", "exact", "eight", "growth", "memory"].into_iter().any(wanted) {
        let stage = Stage::set(scale).await;
        if wanted("clips") {
            stage.clips(&mut report).await;
        }
        if wanted("exact") {
            stage.exact(&mut report).await;
        }
        if wanted("eight") {
            stage.eight(&mut report).await;
        }
        if wanted("growth") {
            stage.growth(&mut report).await;
        }
        if wanted("memory") {
            stage.memory(&mut report).await;
        }
        stage.close().await;
    }
    if wanted("arrival") {
        arriving::alone(scale, &mut report).await;
        arriving::among(scale, &mut report).await;
    }
    if wanted("sessions") {
        many::sessions(scale, &mut report).await;
    }
    if wanted("sweep") {
        sweep::sweep(scale, &mut report).await;
    }
    report.write(asked.is_empty());
}
