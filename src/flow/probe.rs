//! Asks both stores whether they can be used: writes, reads and deletes a small file, under a deadline. The answer is
//! kept in memory for health and for refusing captures; every replica asks for itself.

use std::{
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

use super::{
    Deps,
    stores::{MARKER, Probed, Space, Which, space_of, unavailable},
};
use crate::{
    domain::forecast::Watermark,
    error::{Code, Error, Result},
    media::files::{Found, Trouble, read_plain, remove_plain},
};

/// How long a store may take to answer.
pub const LIMIT: Duration = Duration::from_secs(3);

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Stores that can be used.
    pub usable: u64,
    /// Stores that cannot.
    pub unusable: u64,
}

/// Asks both stores, at once. A dry run asks in the same manner: nothing is left behind.
pub async fn run(deps: &Deps) -> Counts {
    let (buffer, clips) = futures::join!(ask(deps, Which::Buffer), ask(deps, Which::Clips));
    let usable = u64::from(buffer.trouble.is_none()) + u64::from(clips.trouble.is_none());
    Counts { usable, unusable: 2 - usable }
}

/// Asks one store and keeps the answer.
pub async fn ask(deps: &Deps, which: Which) -> Probed {
    let store = deps.stores.get(which);
    let before = store.last();
    let began = tokio::time::Instant::now();
    // two may ask at once: each has a file of its own
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let count = ASKED.fetch_add(1, Ordering::Relaxed);
    let (root, name) = (which.root(&deps.config), format!(".probe-{}-{count}", deps.replica));
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
    // a probe that hangs keeps one place of the gate; once all are gone, later probes fail without a thread
    let answer = store.gate.run(LIMIT, move || try_out(&root, &name)).await;
    let (space, readable, trouble) = match answer {
        Ok(TriedOut { space, unwritable }) => (Some(space), true, unwritable),
        Err(trouble) => (None, false, Some(words(&trouble))),
    };
    let usable = trouble.is_none();
    let was_usable = before.as_ref().is_none_or(|before| before.trouble.is_none());
    if usable != was_usable {
        tracing::warn!(
            store = which.as_str(),
            usable,
            trouble = trouble.as_deref(),
            "a store changed"
        );
    }
    metrics::gauge!("livekit_replay_store_usable", "store" => which.as_str()).set(if usable {
        1.0
    } else {
        0.0
    });
    let probed = Probed { at: deps.clock.now(), took: began.elapsed(), trouble, readable, space };
    store.keep(probed.clone());
    if let Some(space) = space {
        tell_room(deps, which, space, before.and_then(|before| before.space));
    }
    probed
}

/// How long trouble is believed without asking again.
const RECENT: Duration = Duration::from_secs(2);

/// What is wrong with a store as far as is known; trouble that may have passed is asked for again.
async fn known_trouble(deps: &Deps, which: Which) -> Option<Probed> {
    let last = deps.stores.get(which).last().filter(|probed| probed.trouble.is_some())?;
    let recent = last.at >= deps.clock.now().minus(RECENT);
    let now = if recent { last } else { ask(deps, which).await };
    now.trouble.is_some().then_some(now)
}

/// Refuses what needs the store while it is known to be unusable.
///
/// # Errors
/// [`Code::StorageUnavailable`], or [`Code::InsufficientDisk`] of one that is full.
pub async fn demand(deps: &Deps, which: Which) -> Result<()> {
    let Some(probed) = known_trouble(deps, which).await else { return Ok(()) };
    let trouble = probed.trouble.unwrap_or_default();
    if says_full(&trouble) {
        let detail = format!("The {} store is full.", which.as_str());
        return Err(Error::new(Code::InsufficientDisk, detail).because(trouble));
    }
    Err(unavailable(which, trouble))
}

/// Refuses what only reads from the store while it is known that it cannot be read.
///
/// # Errors
/// [`Code::StorageUnavailable`].
pub async fn demand_readable(deps: &Deps, which: Which) -> Result<()> {
    match known_trouble(deps, which).await.filter(|probed| !probed.readable) {
        Some(probed) => Err(unavailable(which, probed.trouble.unwrap_or_default())),
        None => Ok(()),
    }
}

/// Whether a store can be written now; an answer of a moment ago will do.
pub async fn is_writable(deps: &Deps, which: Which) -> bool {
    let recent = deps.clock.now().minus(RECENT);
    let last = deps.stores.get(which).last().filter(|probed| probed.at >= recent);
    match last {
        Some(probed) => probed.trouble.is_none(),
        None => ask(deps, which).await.trouble.is_none(),
    }
}

/// The system's words for a full disk or quota, also out of FFmpeg's mouth.
pub fn says_full(words: &str) -> bool {
    ["No space left on device", "os error 28", "Disk quota exceeded"]
        .iter()
        .any(|full| words.contains(full))
}

/// How much room there is and how long it lasts: as figures, and as a warning when a watermark is reached.
fn tell_room(deps: &Deps, which: Which, space: Space, before: Option<Space>) {
    let name = which.as_str();
    let (now, config) = (space.watermark(&deps.config), &deps.config);
    let forecast = deps.stores.get(which).forecast(config.storage.min_free_bytes);
    metrics::gauge!("livekit_replay_store_free_bytes", "store" => name).set(space.free as f64);
    let level = match now {
        Watermark::Fine => 0.0,
        Watermark::High => 1.0,
        Watermark::Critical => 2.0,
    };
    metrics::gauge!("livekit_replay_store_watermark", "store" => name).set(level);
    if let Some(forecast) = forecast {
        let hours = forecast.hours_left.unwrap_or(f64::INFINITY);
        metrics::gauge!("livekit_replay_store_hours_left", "store" => name).set(hours);
    }
    let was = before.map_or(Watermark::Fine, |space| space.watermark(config));
    let hours_left = forecast.and_then(|forecast| forecast.hours_left);
    let used_percent = space.used_percent();
    match (was == now, now) {
        (true, _) => {}
        (false, Watermark::Fine) => {
            tracing::info!(store = name, used_percent, "a store has room again");
        }
        (false, _) => {
            tracing::warn!(
                store = name,
                used_percent,
                watermark = now.as_str(),
                hours_left,
                "a store is filling up"
            );
        }
    }
}

fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Hung => format!("no answer within {} s (a hung mount?)", LIMIT.as_secs()),
        Trouble::Io(error) => error.to_string(),
    }
}

/// How a store that can be read was found.
struct TriedOut {
    space: Space,
    /// Why nothing can be written.
    unwritable: Option<String>,
}

fn try_out(root: &Path, name: &str) -> io::Result<TriedOut> {
    if !root.join(MARKER).is_file() {
        return Err(io::Error::other("its marker is not there: nothing is mounted"));
    }
    let written = try_to_write(&root.join(name), name);
    Ok(TriedOut {
        space: space_of(root)?,
        unwritable: written.err().map(|error| error.to_string()),
    })
}

fn try_to_write(path: &Path, name: &str) -> io::Result<()> {
    remove_plain(path)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    let wrote = file.write_all(name.as_bytes()).and_then(|()| file.sync_all());
    let read = read_plain(path, 4096);
    remove_plain(path)?;
    wrote?;
    if read? != Found::Bytes(name.as_bytes().to_vec()) {
        return Err(io::Error::other("what was read back is not what was written"));
    }
    Ok(())
}
