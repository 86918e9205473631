//! What an epoch's directory shows at this moment. Blocking; called behind the store's gate.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use crate::{
    domain::playlist::{
        EVENT_PLAYLIST, EgressPlaylist, LIVE_PLAYLIST, parse_segment_file_name, read_playlist,
        segment_file_name,
    },
    media::{
        files::{Found, list_names, read_plain},
        ts::{Damage, SegmentFacts, inspect},
    },
    store::segment::SegmentState,
};

/// The event playlist of a day with segments of a second is 9 MB.
const MOST_PLAYLIST: u64 = 64 << 20;
/// 20 s at 100 Mbit/s are 250 MB.
const MOST_SEGMENT: u64 = 1 << 30;

/// A segment as found.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// Whole.
    Good(Box<SegmentFacts>),
    /// There, but not fit.
    Bad(SegmentState, u64),
    /// Not there, although its directory is.
    Missing,
    /// The whole directory is not there: nothing can be said of the file.
    NoDirectory,
}

/// Both playlists and the numbers in the directory, if there is a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub event: EgressPlaylist,
    pub numbers: BTreeSet<u64>,
}

/// The live playlist as it is now; an unreadable or absent one names nothing.
pub(super) fn live(directory: &Path) -> io::Result<EgressPlaylist> {
    playlist(directory.join(LIVE_PLAYLIST))
}

/// The event playlist and the directory; `None` when there is no directory.
pub(super) fn listing(directory: &Path) -> io::Result<Option<Listing>> {
    let Some(names) = list_names(directory)? else { return Ok(None) };
    // a number may be spelt in several ways; only egress's own spelling is the file we would open
    let own = |name: &String| {
        parse_segment_file_name(name).filter(|number| segment_file_name(*number) == *name)
    };
    let numbers = names.iter().filter_map(own).collect();
    Ok(Some(Listing { event: playlist(directory.join(EVENT_PLAYLIST))?, numbers }))
}

fn playlist(path: PathBuf) -> io::Result<EgressPlaylist> {
    Ok(match read_plain(&path, MOST_PLAYLIST)? {
        Found::Bytes(bytes) => read_playlist(&bytes),
        Found::Absent | Found::NotOurs => EgressPlaylist::default(),
    })
}

/// Reads and inspects one segment.
pub(super) fn segment(directory: &Path, number: u64) -> io::Result<Seen> {
    match read_plain(&directory.join(segment_file_name(number)), MOST_SEGMENT)? {
        Found::NotOurs => Ok(Seen::Bad(SegmentState::Foreign, 0)),
        Found::Absent if directory.is_dir() => Ok(Seen::Missing),
        Found::Absent => Ok(Seen::NoDirectory),
        Found::Bytes(bytes) => Ok(judged(&bytes)),
    }
}

fn state_of(damage: &Damage) -> SegmentState {
    match damage {
        Damage::Empty => SegmentState::Empty,
        Damage::Truncated => SegmentState::Truncated,
        Damage::Corrupt { .. } => SegmentState::Corrupt,
        Damage::Foreign => SegmentState::Foreign,
    }
}

/// Looks at an indexed segment again, at our link to it or where it was found.
pub(super) fn again(ours: &Path, original: &Path) -> io::Result<Seen> {
    let found = match read_plain(ours, MOST_SEGMENT)? {
        Found::Absent => read_plain(original, MOST_SEGMENT)?,
        found => found,
    };
    Ok(match found {
        Found::NotOurs => Seen::Bad(SegmentState::Foreign, 0),
        Found::Absent if original.parent().is_some_and(Path::is_dir) => Seen::Missing,
        Found::Absent => Seen::NoDirectory,
        Found::Bytes(bytes) => judged(&bytes),
    })
}

fn judged(bytes: &[u8]) -> Seen {
    match inspect(bytes) {
        Ok(facts) => Seen::Good(Box::new(facts)),
        Err(damage) => Seen::Bad(state_of(&damage), bytes.len() as u64),
    }
}
