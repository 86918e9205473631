//! Writes MP4 files in our own process, as fast as a file is copied.
//!
//! [`Writer`] takes pictures and sound in decode order and writes one MP4 with its index in front: the payload goes
//! straight into the file behind a reserved space, the index is put into that space at the end, and what is left of
//! it becomes a `free` box. Nothing is decoded or encoded. Figures and reasons: `docs/decisions/0005-native-muxer.md`.

mod boxes;
mod control;
mod copy;
mod entry;
mod output;
mod sample;
mod tables;
mod tree;
mod writer;

pub use control::{Control, run};
pub use copy::{Copied, Ended, copy};
pub use sample::{Payload, Sample};
pub use writer::{Halt, Head, Shown, Writer, Written};
