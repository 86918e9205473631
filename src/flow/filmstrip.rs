//! Small pictures of a session along its time, for whoever looks for a moment: cues that name a part of one image, and
//! the image. Images are kept in memory for a while, few of them; one that is not there any more, or was made by
//! another replica, is made again, as long as it would show the same.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    Deps, capture,
    links::{self, Link, Scope, SignedQuery, Viewer},
    material::Material,
    preview, probe, render,
    stores::{self, Which},
    turns::Turns,
    work::busy,
};
use crate::{
    access::Caller,
    domain::{
        id::SessionId,
        playlist::segment_file_name,
        time::{Timestamp, Window},
    },
    error::{Code, Error, Result},
    media::{
        compose::SegmentFile,
        ffmpeg::Limits,
        filmstrip::{self, COLUMNS, Picture, WIDTH},
    },
    store::session,
};

/// Pictures at most.
pub const MOST: u32 = 60;
/// Pictures unless said.
const USUAL: u32 = 20;
/// Images kept at most.
const KEPT: usize = 64;
/// Their bytes at most.
const KEPT_BYTES: usize = 16 << 20;
/// How long the making may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long somebody waits for a free place at most.
const WAIT_FOR_PLACE: Duration = Duration::from_secs(10);

/// Which part of a session, in how many pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Screen time.
    pub window: Window,
    /// 1 to [`MOST`].
    pub count: u32,
}

/// What the address of an image says. Anybody can write one: it means nothing before its signature is found to be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The window's start, microseconds since the Unix epoch.
    pub from: i64,
    /// Its end.
    pub to: i64,
    /// Pictures.
    pub count: u32,
    /// The session's link generation when it was made.
    pub generation: i32,
    /// Names the pictures that it shows.
    pub shows: String,
}

impl Address {
    /// What is signed, and by what the image is kept. A session's id holds no `/`, nor do the numbers.
    fn name(&self, session: &SessionId) -> String {
        let Address { from, to, count, generation, shows } = self;
        format!("{session}/{from}/{to}/{count}/{generation}/{shows}")
    }

    fn query(&self) -> String {
        let Address { from, to, count, generation, shows } = self;
        format!("f={from}&t={to}&n={count}&g={generation}&h={shows}")
    }
}

/// A filmstrip: its cues as WebVTT, without the image's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// What it shows.
    pub span: Span,
    /// The image's query: what it shows, and the signature.
    pub query: String,
    /// Milliseconds from the window's start to a cue's begin and end, and the part of the image: x, y, width, height.
    pub cues: Vec<(i64, i64, [u32; 4])>,
}

/// The filmstrip of a part of the caller's session; all that is kept of it unless said.
///
/// # Errors
/// `not_found`, `not_owner`, `window_invalid`, `validation_failed`, `no_segments_in_range`, `overloaded`,
/// `storage_unavailable`, `ffmpeg_failed`.
pub async fn filmstrip(
    deps: &Deps,
    caller: &Caller,
    id: &SessionId,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    count: Option<u32>,
) -> Result<Strip> {
    let session = capture::load_own(deps, caller, id).await?;
    probe::demand_readable(deps, Which::Buffer).await?;
    let count = count.unwrap_or(USUAL);
    if !(1..=MOST).contains(&count) {
        return Err(Error::invalid_field("count", format!("must be from 1 to {MOST}")));
    }
    let material = Material::load(deps.db.conn(), id).await?;
    let first = material.rows.iter().map(|row| row.starts_at).min();
    let last = material.rows.iter().map(|row| row.ends_at).max();
    let (Some(from), Some(to)) = (from.or(first), to.or(last)) else { return Err(nothing()) };
    if to <= from {
        return Err(Error::new(Code::WindowInvalid, "The window ends before it begins."));
    }
    let span = Span { window: Window::new(from, to), count };
    let chosen = Chosen::of(deps, &material, span)?;
    let now = deps.clock.now();
    let expires = links::expiry(now, deps.config.clips.link_ttl);
    let (from, to) = (from.as_micros(), to.as_micros());
    let generation = session.link_generation;
    let address = Address { from, to, count, generation, shows: chosen.hash() };
    let name = address.name(id);
    let cues = chosen.cues(span);
    made(deps, id, &address, Some(chosen), expires).await?;
    let viewer = Viewer { user: session.user_id, member_since: None };
    let link = Link { scope: Scope::Filmstrip, id: &name, generation };
    let signature = links::sign(&deps.link_key, link, &viewer, expires);
    Ok(Strip { span, query: format!("{}&{signature}", address.query()), cues })
}

/// The image of a filmstrip, by its signed query. Nothing is looked up before the signature is found to be ours.
///
/// # Errors
/// As [`filmstrip`], `unauthenticated` (also once the recording was discarded); `not_found` once it would not show the
/// same any more.
pub async fn image(
    deps: &Deps,
    query: &SignedQuery,
    id: &SessionId,
    address: &Address,
) -> Result<Bytes> {
    let now = deps.clock.now();
    let (name, generation) = (address.name(id), address.generation);
    let link = Link { scope: Scope::Filmstrip, id: &name, generation };
    let viewer = links::verify(&deps.link_key, link, query, now)?;
    let session = session::load(deps.db.conn(), id).await?;
    if viewer.user != session.user_id {
        return Err(Error::not_found("session"));
    }
    if session.link_generation != generation {
        return Err(links::bad_link());
    }
    if !preview::is_promised(&session, now) {
        deps.filmstrips.forget(id);
        return Err(gone());
    }
    let expires = Timestamp::from_micros(query.e.unwrap_or(0).saturating_mul(1_000_000));
    made(deps, id, address, None, expires).await
}

/// The image as it is kept, or made now: whoever asks for one that is being made waits for that.
async fn made(
    deps: &Deps,
    session: &SessionId,
    address: &Address,
    chosen: Option<Chosen>,
    expires: Timestamp,
) -> Result<Bytes> {
    let name = address.name(session);
    if let Some(image) = deps.filmstrips.find(&name, deps.clock.now()) {
        return Ok(image);
    }
    let longest = deps.config.capture.wait.min(WAIT_FOR_PLACE);
    let turn = deps.filmstrips.turns.of(&name);
    let _turn = tokio::time::timeout(longest, turn.lock())
        .await
        .map_err(|_| busy("This filmstrip is being made; try again."))?;
    // whoever had the turn before may have made it
    if let Some(image) = deps.filmstrips.find(&name, deps.clock.now()) {
        return Ok(image);
    }
    let chosen = match chosen {
        Some(chosen) => chosen,
        None => chosen_by(deps, session, address).await?,
    };
    let _place = deps.places.take(&deps.config, longest).await?;
    let limits = Limits { deadline: DEADLINE, stall: DEADLINE, cancel: deps.stop.child_token() };
    let pictures = chosen.pictures.into_iter().map(|(_, picture)| picture).collect();
    deps.filmstrips.runs.fetch_add(1, Ordering::Relaxed);
    let image = filmstrip::sprite(&render::ffmpeg(), pictures, chosen.height, &limits).await?;
    deps.filmstrips.keep(session, &name, &image, expires);
    Ok(image)
}

/// What an address that is ours shows, as long as that is what it showed when it was made.
async fn chosen_by(deps: &Deps, session: &SessionId, address: &Address) -> Result<Chosen> {
    let material = Material::load(deps.db.conn(), session).await?;
    let micros = Timestamp::from_micros;
    let window = Window::new(micros(address.from), micros(address.to));
    let chosen = Chosen::of(deps, &material, Span { window, count: address.count })?;
    if chosen.hash() == address.shows { Ok(chosen) } else { Err(gone()) }
}

fn gone() -> Error {
    Error::not_found("filmstrip")
}

fn nothing() -> Error {
    Error::new(Code::NoSegmentsInRange, "Nothing was recorded in this window.")
        .with("available", serde_json::Value::Null)
}

/// Which key frames are shown.
struct Chosen {
    /// Each once: its name, and where it is.
    pictures: Vec<(String, Picture)>,
    /// For each of the span's parts the picture, if there is any.
    tiles: Vec<Option<usize>>,
    height: u32,
}

impl Chosen {
    /// For the middle of each part the key frame at or before it, where something was recorded.
    fn of(deps: &Deps, material: &Material, span: Span) -> Result<Chosen> {
        let mut chosen = Chosen { pictures: Vec::new(), tiles: Vec::new(), height: 0 };
        let mut longest = 0;
        for part in 0..span.count {
            let (from, to) = part_of(span, part);
            let middle = from.plus_micros(to.micros_since(from) / 2);
            let found = picture_at(deps, material, middle)?;
            let tile = found.map(|(name, picture, width, height)| {
                if longest < width {
                    longest = width;
                    chosen.height = filmstrip::height_of(width, height);
                }
                let known = chosen.pictures.iter().position(|(known, _)| *known == name);
                known.unwrap_or_else(|| {
                    chosen.pictures.push((name, picture));
                    chosen.pictures.len() - 1
                })
            });
            chosen.tiles.push(tile);
        }
        if chosen.pictures.is_empty() { Err(nothing()) } else { Ok(chosen) }
    }

    /// Names every picture.
    fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for (name, _) in &self.pictures {
            hash.update(name.as_bytes()).update(b"/");
        }
        hash.finalize().to_hex().to_string()
    }

    fn cues(&self, span: Span) -> Vec<(i64, i64, [u32; 4])> {
        let millis = |at: Timestamp| at.micros_since(span.window.from) / 1000;
        let cue = |(part, tile): (usize, &Option<usize>)| {
            let (from, to) = part_of(span, u32::try_from(part).ok()?);
            let tile = u32::try_from((*tile)?).ok()?;
            let (x, y) = (tile % COLUMNS * WIDTH, tile / COLUMNS * self.height);
            Some((millis(from), millis(to), [x, y, WIDTH, self.height]))
        };
        self.tiles.iter().enumerate().filter_map(cue).collect()
    }
}

/// One of the span's equal parts.
fn part_of(span: Span, part: u32) -> (Timestamp, Timestamp) {
    let at = |part: u32| {
        let length = i128::from(span.window.micros());
        let micros = length * i128::from(part) / i128::from(span.count.max(1));
        span.window.from.plus_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    };
    (at(part), at(part + 1))
}

type Found = (String, Picture, u32, u32);

/// The key frame at or before a moment, in the newest epoch's segment that covers it.
fn picture_at(deps: &Deps, material: &Material, at: Timestamp) -> Result<Option<Found>> {
    let all = material.rows.iter().zip(&material.segments);
    let covering =
        all.filter(|(row, segment)| segment.usable() && row.starts_at <= at && at < row.ends_at);
    let Some((row, segment)) = covering.max_by_key(|(row, _)| (row.epoch, row.number)) else {
        return Ok(None);
    };
    let clock = material.epochs.iter().find(|epoch| epoch.number == segment.epoch);
    let epoch = material.epoch_rows.iter().find(|epoch| epoch.number == row.epoch);
    let (Some(clock), Some(epoch)) = (clock.and_then(|epoch| epoch.clock), epoch) else {
        return Ok(None);
    };
    let by = clock.pts_at(at);
    let keys = &segment.key_frames;
    let Some(&pts) = keys.iter().rfind(|key| **key <= by).or(keys.first()) else {
        return Ok(None);
    };
    let directory = stores::in_buffer(&deps.config, &epoch.path)?;
    let picture = Picture {
        segment: SegmentFile {
            path: directory.join(segment_file_name(row.number.unsigned_abs())),
            pts_start_unwrapped: row.pts_start,
            checksum: None,
        },
        pts,
    };
    let name = format!("{}-{}-{pts}", row.epoch, row.number);
    Ok(Some((name, picture, segment.width, segment.height)))
}

/// The images of this process.
#[derive(Debug, Default)]
pub struct Cache {
    /// Oldest first.
    entries: Mutex<VecDeque<Entry>>,
    /// Held by whoever makes an image.
    turns: Turns,
    runs: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    name: String,
    image: Bytes,
    expires: Timestamp,
}

impl Cache {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// How often an image was made since the process began.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    fn find(&self, name: &str, now: Timestamp) -> Option<Bytes> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.expires > now);
        entries.iter().find(|entry| entry.name == name).map(|entry| entry.image.clone())
    }

    fn keep(&self, session: &SessionId, name: &str, image: &Bytes, expires: Timestamp) {
        let mut entries = self.entries();
        entries.retain(|entry| entry.name != name);
        let (session, name, image) = (session.clone(), name.to_owned(), image.clone());
        entries.push_back(Entry { session, name, image, expires });
        let bytes = |entries: &VecDeque<Entry>| -> usize {
            entries.iter().map(|entry| entry.image.len()).sum()
        };
        while entries.len() > KEPT || bytes(&entries) > KEPT_BYTES {
            entries.pop_front();
        }
    }

    /// Lets the images of a session go.
    pub fn forget(&self, session: &SessionId) {
        self.entries().retain(|entry| entry.session != *session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_kept_are_bounded_in_number_and_bytes_and_end() {
        let cache = Cache::default();
        let (session, end) = (SessionId::new("s"), Timestamp::from_micros(10));
        for n in 0..KEPT + 5 {
            cache.keep(&session, &n.to_string(), &Bytes::from_static(b"x"), end);
        }
        assert_eq!(cache.entries().len(), KEPT);
        let large = Bytes::from(vec![0; KEPT_BYTES - 1]);
        cache.keep(&SessionId::new("t"), "large", &large, end);
        cache.keep(&session, "last", &Bytes::from_static(b"xx"), end);
        assert_eq!(cache.find("large", Timestamp::from_micros(9)), None);
        assert!(cache.find("last", Timestamp::from_micros(9)).is_some());
        assert!(cache.find("last", end).is_none());
        cache.keep(&session, "again", &Bytes::from_static(b"x"), end);
        cache.forget(&session);
        assert!(cache.entries().is_empty());
    }
}
