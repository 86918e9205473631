//! Reads the next segment while the last one is being used.

use std::{sync::mpsc::sync_channel, thread};

use super::{SegmentFile, Stop, load};
use crate::{
    error::{Error, Result},
    media::ts::Demuxed,
};

/// Hands every segment on, in order, with its index.
///
/// # Errors
/// The first one of `take`.
pub(super) fn each(
    segments: &[&SegmentFile],
    mut take: impl FnMut(usize, Result<Demuxed>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    thread::scope(|scope| {
        // with one that waits, one being read and one in use, memory holds three
        let (send, loaded) = sync_channel(1);
        let read = move || {
            for segment in segments {
                if send.send(load(segment)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("mux-read".to_owned())
            .spawn_scoped(scope, read)
            .map_err(|error| Error::internal("starting a thread", error))?;
        for index in 0..segments.len() {
            let loaded = loaded.recv();
            take(
                index,
                loaded.unwrap_or_else(|error| Err(Error::internal("reading ahead", error))),
            )?;
        }
        Ok(())
    })
}
