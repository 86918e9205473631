//! The real program dies, by its own drill or by `kill -9`, and is started again on what it left. What it promised over
//! HTTP is kept and nothing else is left: the simulated LiveKit runs here, so its egresses outlive the service. And two
//! of it on one database keep every limit between them, also while an administrator changes the limits.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod allowed;
mod history;
mod kills;
#[allow(dead_code, reason = "the campaign uses more of it")]
#[path = "../world/ledger.rs"]
mod ledger;
mod mix;
mod points;
mod presses;
#[allow(dead_code, reason = "the campaign uses more of it")]
#[path = "../world/process.rs"]
mod process;
mod rates;
mod replicas;
mod rolling;
mod schema;
#[allow(dead_code, reason = "the campaign uses more of it")]
#[path = "../world/service.rs"]
mod service;
mod storms;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "the campaign uses more of it")]
#[path = "../world/truth.rs"]
mod truth;
mod two;

use rand::{SeedableRng, rngs::StdRng};

/// `REPLAY_SEED`, or one by chance; printed, so that a run can be repeated.
fn seeded(what: &str) -> (u64, StdRng) {
    let given = std::env::var("REPLAY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("{what}: seed {seed} (set REPLAY_SEED to repeat)");
    (seed, StdRng::seed_from_u64(seed))
}
