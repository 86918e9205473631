//! What the world does to the service from outside, one test per fault: what a caller is told, which part of the health
//! answer shows it, what is told of it, and that everything goes on by itself when it is over. The table of all faults
//! is in `docs/faults.md`.

#[path = "../crash/process.rs"]
#[allow(dead_code, reason = "its other half is for kills")]
mod process;
#[path = "../crash/service.rs"]
#[allow(dead_code, reason = "its other half is for kills")]
mod service;
#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod clock;
mod cuttable;
mod database;
mod egress;
mod hooks;
mod house;
mod livekit;
mod replicas;
mod room;
mod schedule;
mod server;
