//! One test per fault that the world may do to the service: what is answered, which part of the health says so, which
//! event tells of it, and that everything goes on when the fault is over, without a restart. docs/faults.md is the table.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "../support/faulty_store.rs"]
mod faulty_store;
mod faulty_store_itself;
