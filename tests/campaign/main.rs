//! A campaign: people start, stop, capture, trim, delete and download on the real program while everything around it goes
//! wrong, one fault after the other, all of it decided by a seed. Then the faults stop, and what is there is held
//! against what people were told (`docs/campaign.md`).
//!
//! `make test` runs a small one on each ground. The long ones are `make campaign` with SEED, OPERATIONS and ENGINE.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "each test program uses its own part of the world")]

mod cluster;
mod faults;
#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod ffmpeg;
mod field;
mod gate;
mod inject;
#[path = "../world/ledger.rs"]
mod ledger;
mod listeners;
mod people;
mod plan;
#[path = "../world/process.rs"]
mod process;
#[path = "../access/receiver.rs"]
mod receiver;
#[path = "../world/service.rs"]
mod service;
mod soak;
mod stores;
#[path = "../world/stream.rs"]
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod tally;
#[path = "../world/truth.rs"]
mod truth;
mod verdict;

use std::{collections::BTreeMap, sync::Arc};

use faults::Fault;
use field::{Field, Ground};
use futures::future::join_all;
use inject::Injection;
use listeners::Listeners;
use plan::{Operation, Phase, Plan};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Operations to each fault of a long campaign.
const PER_PHASE: usize = 16;

/// What is run, and by what it is repeated.
struct Campaign {
    ground: Ground,
    replicas: usize,
    seed: u64,
    operations: usize,
    per_phase: usize,
    /// Of those that can happen; all of them when empty.
    faults: Vec<Fault>,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seed() -> u64 {
    number("SEED").or_else(|| number("REPLAY_SEED")).unwrap_or_else(rand::random)
}

/// One campaign after the other: each has an encoder for everybody who shares, and four services at most.
static FIELD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A few faults of each kind; every run of the tests can afford it.
async fn small(ground: Ground, replicas: usize) {
    let _alone = FIELD.lock().await;
    let mut faults = vec![
        Fault::StartTimesOut,
        Fault::HooksLost,
        Fault::HostDies,
        Fault::FfmpegCrashes,
        Fault::ClipsFull,
    ];
    faults.push(if ground == Ground::Sqlite { Fault::Kill } else { Fault::DatabaseCut });
    let seed = seed();
    Campaign { ground, replicas, seed, operations: 90, per_phase: 10, faults }.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_campaign_on_sqlite() {
    small(Ground::Sqlite, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_campaign_on_postgres_with_three_replicas() {
    if support::postgres_url::postgres_url().is_some() {
        small(Ground::Replicas, 3).await;
    }
}

fn count(name: &str) -> Option<usize> {
    number(name).and_then(|count| usize::try_from(count).ok())
}

/// What ENGINE and REPLICAS name.
fn grounds() -> (Ground, usize) {
    let engine = std::env::var("ENGINE").unwrap_or_default();
    let (ground, replicas) = match engine.as_str() {
        "" | "sqlite" => (Ground::Sqlite, 1),
        "postgres" => (Ground::Postgres, 1),
        "replicas" => (Ground::Replicas, 3),
        other => panic!("ENGINE={other}: sqlite, postgres or replicas"),
    };
    (ground, count("REPLICAS").unwrap_or(replicas))
}

/// ENGINE (sqlite, postgres, replicas), SEED, OPERATIONS, REPLICAS, FAULTS (their names in the source, by commas).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: run by scripts/campaign.sh"]
async fn the_campaign() {
    let (ground, replicas) = grounds();
    let operations = count("OPERATIONS").unwrap_or(2000);
    let per_phase = count("PER_PHASE").unwrap_or(PER_PHASE);
    let seed = seed();
    Campaign { ground, replicas, seed, operations, per_phase, faults: Vec::new() }.run().await;
}

/// ENGINE, SEED, REPLICAS, SOAK_MINUTES.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: run by scripts/campaign.sh"]
async fn the_soak() {
    let (ground, replicas) = grounds();
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok());
    soak::run(ground, replicas, seed(), minutes.unwrap_or(30.0)).await;
}

impl Campaign {
    /// How to run the very same again.
    fn command(&self) -> String {
        let Campaign { ground, replicas, seed, operations, per_phase, .. } = self;
        format!(
            "SEED={seed} OPERATIONS={operations} PER_PHASE={per_phase} ENGINE={} REPLICAS={replicas} scripts/campaign.sh",
            ground.name()
        )
    }

    async fn run(self) {
        let field = Arc::new(Field::make(self.ground, self.replicas).await);
        let mut faults = field.faults();
        if !self.faults.is_empty() {
            faults.retain(|fault| self.faults.contains(fault));
        }
        let plan = Plan::new(self.seed, &faults, self.operations, self.per_phase);
        let begun = format!("{}\nplan {}", self.command(), plan.fingerprint());
        println!("{begun}: {} operations, {} phases", plan.operations(), plan.phases.len());
        let began = Instant::now();
        field.begin().await;
        let listeners = Listeners::begin(&field).await;
        self.fight(&field, &plan).await;
        let fought = began.elapsed().as_secs_f64();
        println!("{}", field.tally.table(&faults));
        println!("{} operations in {fought:.0} s", plan.operations());
        let told = verdict::judge(&field, &plan, &listeners.heard).await;
        let again = listeners.end().await;
        for line in told {
            println!("* {line}");
        }
        println!("* streams had to come again {again} times");
        let wrong = field.all_wrong();
        println!("* {} things wrong", wrong.len());
        let logs = if wrong.is_empty() { String::new() } else { field.logs() };
        let field = Arc::into_inner(field).expect("nobody else");
        field.close().await;
        assert!(wrong.is_empty(), "{begun}\n{}\n{logs}", wrong.join("\n"));
    }

    async fn fight(&self, field: &Arc<Field>, plan: &Plan) {
        let mut first = 0;
        for (number, phase) in plan.phases.iter().enumerate() {
            let name = phase.fault.map_or("no fault", Fault::name);
            let began = Instant::now();
            pass(field, phase, first).await;
            first += phase.operations.len();
            let (hurt, late) = field.tally.hurt_and_late();
            println!(
                "{number:3} {name}: {:.1} s (so far {hurt} hurt, {late} late)",
                began.elapsed().as_secs_f64()
            );
            if phase.pick.is_multiple_of(7) {
                field.receiver.next(receiver::Says::Status(500));
            }
        }
    }
}

/// One phase: everybody presses, and meanwhile the fault comes and goes.
async fn pass(field: &Arc<Field>, phase: &Phase, first: usize) {
    let mut lanes: BTreeMap<usize, Vec<(usize, Operation)>> = BTreeMap::new();
    for (number, one) in (first..).zip(&phase.operations) {
        lanes.entry(one.person).or_default().push((number, *one));
    }
    let quiet = CancellationToken::new();
    let injection = Injection::new(field, phase, quiet.clone());
    let pressing = async {
        join_all(lanes.into_values().map(|lane| people::press_all(field, lane))).await;
        quiet.cancel();
    };
    let fault = async {
        if let Some(injection) = injection {
            injection.run().await;
        }
    };
    tokio::join!(pressing, fault);
}
