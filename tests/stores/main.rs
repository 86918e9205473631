//! One test per fault of a store, on a file system of the test's own (FUSE) that hangs, fills up, becomes read-only, fails
//! or vanishes at command: what is answered, which part of the health says so, which event tells of it, and that everything
//! goes on when it is over, without a restart. `docs/faults.md` is the table.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod faulty_store_itself;
mod full;
mod ground;
#[path = "../harness/mod.rs"]
mod harness;
mod hung;
#[allow(dead_code, unused_imports, reason = "shared with the tests of events")]
#[path = "../events/reader.rs"]
mod reader;
mod unwell;
