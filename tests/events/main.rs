//! Events from end to end: what is told of a story, to streams that come and go, and to endpoints of the app that fail.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../access/receiver.rs"]
#[allow(dead_code, reason = "shares need more of it")]
mod receiver;

mod deliver;
mod doors;
mod reader;
mod resume;
mod story;
