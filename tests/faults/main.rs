//! One test per fault that the world may do to the service: what is answered, which part of the health says so, which
//! event tells of it, and that everything goes on when the fault is over, without a restart. `docs/faults.md` is the table.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(
    clippy::duplicate_mod,
    reason = "both grounds ask for the address of the PostgreSQL server"
)]

mod bounds;
mod clock;
mod cuttable;
mod database;
mod egress;
#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod faulty_store_itself;
mod ffmpeg;
mod full;
mod ground;
#[path = "../harness/mod.rs"]
mod harness;
mod hooks;
mod house;
mod hung;
mod livekit;
#[allow(dead_code, reason = "shared with the tests of crashes")]
#[path = "../world/process.rs"]
mod process;
#[allow(dead_code, unused_imports, reason = "shared with the tests of events")]
#[path = "../events/reader.rs"]
mod reader;
mod replicas;
mod room;
mod schedule;
mod server;
#[allow(dead_code, reason = "shared with the tests of crashes")]
#[path = "../world/service.rs"]
mod service;
#[path = "../support/mod.rs"]
mod support;
mod unwell;
