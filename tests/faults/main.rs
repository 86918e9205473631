//! One test per fault that the world may do to the service: what is answered, which part of the health says so, which
//! event tells of it, and that everything goes on when the fault is over, without a restart. `docs/faults.md` is the table.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod auto_start;
mod bounds;
mod clock;
mod cuttable;
mod database;
mod egress;
mod ffmpeg;
mod hooks;
mod house;
mod livekit;
#[allow(dead_code, reason = "shared with the tests of crashes")]
#[path = "../world/process.rs"]
mod process;
mod replicas;
mod room;
mod schedule;
mod server;
#[allow(dead_code, reason = "shared with the tests of crashes")]
#[path = "../world/service.rs"]
mod service;
#[path = "../support/mod.rs"]
mod support;
