//! The HTTP door on the real router: refusals, tokens, roles, limits, administration.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod administration;
mod audit;
mod edge;
mod limits;
mod own;
mod refusals;
mod roles;
mod support;
mod tokens;
