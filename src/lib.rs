//! livekit-replay: a rolling replay buffer of every screen share on LiveKit, and permanent clips on request.
//!
//! # The house
//!
//! | room | what lives there |
//! |---|---|
//! | [`error`], [`clock`], `config`, `telemetry` | the ground everybody stands on |
//! | [`domain`] | rules: time, segments, selection, retention, limits, life cycles. No effects |
//! | `store` | rows (sea-orm lives here and nowhere else) |
//! | `media` | bytes: files, transport streams, FFmpeg |
//! | `livekit` | the only room that speaks to LiveKit |
//! | `access` | tokens, roles, decisions |
//! | `outbound` | signed requests to the app |
//! | `flow` | one verb per file: orders the steps and opens the transactions |
//! | `http`, `jobs`, `schedule`, `cli` | doors |
//! | `simulator` | a LiveKit stand-in on the wire, for tests and the demo; no product code imports it |
//! | `app` | builds all of it and stops it in order |
//!
//! # Who may import whom
//!
//! Arrows only point up this table; `tests/house.rs` checks it.
//!
//! | module | may use |
//! |---|---|
//! | `error`, `clock`, `config`, `telemetry` | each other and the value types of `domain` |
//! | `domain` | `error` |
//! | `store`, `media`, `livekit`, `access`, `outbound` | `domain` and the first row; never each other |
//! | `flow` | all of the above |
//! | `http`, `jobs`, `schedule` | `flow`, `domain`, the first row; `http` also `access` and `livekit::webhook` |
//! | `cli` | the same, and `access`, `http`, `app`, `simulator` (for `demo` and `simulator`) |
//! | `simulator` | `error` and the foreign crates it needs |
//! | `app` | everything, and only `cli` and tests use it |

pub mod access;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod error;
pub mod flow;
pub mod http;
pub mod jobs;
pub mod livekit;
pub mod media;
pub mod outbound;
pub mod schedule;
pub mod simulator;
pub mod store;
pub mod telemetry;
