//! Looking at what is recorded before it is a clip: HLS of a session's promised minutes, and of the window of a clip
//! that is being made. What a player may see and which numbers it has are rules of `domain::preview`; here rows are
//! read, what was listed is kept, and addresses are signed.
//!
//! For its owner only, by token or by a link made for him. A playlist's segments are opened by links of their own,
//! which end when the link of the playlist does, so their addresses do not change while somebody plays.

use std::time::Duration;

use super::{
    Deps, capture,
    links::{self, Link, Scope, SignedQuery, Viewer},
    material::Material,
    reading::Readable,
    stores::{self, Which},
};
use crate::{
    access::Caller,
    domain::{
        id::{ClipId, SessionId},
        lifecycle::ClipStatus,
        playlist::segment_file_name,
        preview::{self, Item, Recorded, Shape, Stretch},
        selection::{self, Coverage},
        time::{Timestamp, Window},
    },
    error::{Code, Error, Result},
    media::files::{Opened, open_plain},
    store::{self, clip, epoch, pin, preview as rows, segment, session},
};

/// By what somebody asks.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// A signed link.
    Link(&'a SignedQuery),
    /// A token.
    Token(&'a Caller),
}

/// A segment that may be sent.
#[derive(Debug)]
pub struct Segment {
    /// The file, open.
    pub file: Readable,
    /// Names these bytes.
    pub tag: String,
}

/// The signed query of a session's preview, for its owner, while there is something promised.
pub fn session_query(deps: &Deps, caller: &Caller, session: &session::Model) -> Option<String> {
    let now = deps.clock.now();
    let own = caller.user_id == session.user_id;
    (own && is_promised(session, now)).then(|| {
        let expires = links::expiry(now, deps.config.clips.link_ttl);
        let generation = session.link_generation;
        let link = Link { scope: Scope::SessionPreview, id: session.id.as_str(), generation };
        sign(deps, link, session, expires)
    })
}

/// Whether the promised minutes of a session are kept.
pub(super) fn is_promised(session: &session::Model, now: Timestamp) -> bool {
    let kept = session.capturable_until.is_some_and(|until| until > now);
    let there = session.buffer_gone_at.is_none() && !session.discard;
    session.status.holds_place() || (there && kept)
}

fn sign(deps: &Deps, link: Link<'_>, session: &session::Model, expires: Timestamp) -> String {
    let viewer = Viewer { user: session.user_id.clone(), member_since: None };
    links::sign(&deps.link_key, link, &viewer, expires)
}

/// The playlist of a session's promised minutes.
///
/// # Errors
/// `not_found`, `not_owner`, `unauthenticated` (a link that does not work), `no_segments_in_range` once nothing of it
/// is kept.
pub async fn of_session(deps: &Deps, access: Access<'_>, id: &SessionId) -> Result<String> {
    let session = session::load(deps.db.conn(), id).await?;
    let generation = session.link_generation;
    let link = Link { scope: Scope::SessionPreview, id: id.as_str(), generation };
    let expires = admit(deps, access, link, &session).await?;
    if !is_promised(&session, deps.clock.now()) {
        return Err(nothing());
    }
    let material = Material::load(deps.db.conn(), id).await?;
    let view = View { name: id.as_str(), within: None };
    let settled = is_settled(&material);
    let listed = advance(deps, &view, &material, settled).await?;
    let recorded = view.recorded(&material, settled);
    let length = i64::try_from(deps.config.buffer.length.as_micros()).unwrap_or(i64::MAX);
    let items = preview::items(&listed, &recorded, Some(length));
    if items.is_empty() && settled {
        return Err(nothing());
    }
    let shape = shape(deps, false, settled);
    Ok(preview::write_playlist(&listed, &items, shape, |item| {
        let name = preview::name_of(item.epoch, item.number);
        format!("segments/{name}?{}", segment_query(deps, &session, item, expires))
    }))
}

/// The playlist of the window of a clip that is being made: it only grows, and ends when nothing more can come. A
/// player that is in the middle when the clip gets ready finds the end here, as long as the segments are kept.
///
/// # Errors
/// As [`of_session`].
pub async fn of_clip(deps: &Deps, access: Access<'_>, id: &ClipId) -> Result<String> {
    let clip = clip::load(deps.db.conn(), id).await?;
    let session = session::find(deps.db.conn(), &clip.session_id).await?;
    // a part of another clip is not looked for among segments
    let session = session.filter(|one| one.user_id == clip.user_id && clip.trim_of.is_none());
    let session = session.ok_or_else(|| Error::not_found("clip"))?;
    let scope = Scope::ClipPreview;
    let link = Link { scope, id: id.as_str(), generation: clip.link_generation };
    let expires = match access {
        Access::Link(_) => admit(deps, access, link, &session).await?,
        // a clip in the making is seen by nobody else
        Access::Token(caller) if caller.user_id != clip.user_id => {
            return Err(Error::not_found("clip"));
        }
        Access::Token(_) => lasting(deps),
    };
    let material = Material::load(deps.db.conn(), &clip.session_id).await?;
    let within = Window::new(clip.requested_from, clip.requested_to);
    let view = View { name: id.as_str(), within: Some(within) };
    let settled = clip.status != ClipStatus::Processing || is_covered(deps, &material, within);
    let listed = advance(deps, &view, &material, settled).await?;
    let items = preview::items(&listed, &view.recorded(&material, settled), None);
    if items.is_empty() && settled {
        return Err(nothing());
    }
    let up = format!("../../sessions/{}", material.session.id);
    Ok(preview::write_playlist(&listed, &items, shape(deps, true, settled), |item| {
        let name = preview::name_of(item.epoch, item.number);
        let query = segment_query_of_clip(deps, &session, &clip, item, expires);
        format!("{up}/segments/{name}?{query}")
    }))
}

/// The signed query of a clip's preview while it is being made, for its owner.
pub fn clip_query(deps: &Deps, caller: &Caller, clip: &clip::Model) -> Option<String> {
    let own = caller.user_id == clip.user_id;
    let recorded = clip.trim_of.is_none();
    (own && recorded && clip.status == ClipStatus::Processing).then(|| {
        let expires = links::expiry(deps.clock.now(), deps.config.clips.link_ttl);
        let viewer = Viewer { user: clip.user_id.clone(), member_since: None };
        let generation = clip.link_generation;
        let link = Link { scope: Scope::ClipPreview, id: clip.id.as_str(), generation };
        links::sign(&deps.link_key, link, &viewer, expires)
    })
}

/// One segment, named as in a playlist; `of` is the clip in whose playlist a link stood. It is sent while it is promised
/// or pinned.
///
/// # Errors
/// As [`of_session`]; `not_found` for one that is condemned, not usable, or gone; `storage_unavailable`.
pub async fn segment(
    deps: &Deps,
    access: Access<'_>,
    id: &SessionId,
    name: &str,
    of: Option<&ClipId>,
) -> Result<Segment> {
    let (epoch, number) = preview::parse_name(name).ok_or_else(absent)?;
    let session = session::load(deps.db.conn(), id).await?;
    match of {
        Some(clip) => {
            let clip = clip::load(deps.db.conn(), clip).await?;
            let signed = signed_name(clip.id.as_str(), &session.id, name);
            let generation = clip.link_generation;
            let link = Link { scope: Scope::ClipSegment, id: &signed, generation };
            admit(deps, access, link, &session).await?;
        }
        None => {
            let signed = signed_name("", &session.id, name);
            let generation = session.link_generation;
            let link = Link { scope: Scope::Segment, id: &signed, generation };
            admit(deps, access, link, &session).await?;
        }
    }
    let key = i32::try_from(epoch).ok().zip(i64::try_from(number).ok());
    let (epoch, key_number) = key.ok_or_else(absent)?;
    let found = segment::find(deps.db.conn(), id, epoch, key_number).await?;
    let usable = segment::SegmentState::Usable;
    let row = found.filter(|row| row.state == usable && row.condemned_at.is_none());
    let row = row.ok_or_else(absent)?;
    let now = deps.clock.now();
    if !is_promised(&session, now) {
        let pins = pin::list_holding(deps.db.conn(), id, now).await?;
        if !pins.iter().any(|pin| pin.window().overlaps(&row.window())) {
            return Err(absent());
        }
    }
    let directory = epoch::find(deps.db.conn(), id, epoch).await?.ok_or_else(absent)?;
    // spelt from the number, never from a row's text
    let file = segment_file_name(number);
    let path = stores::in_buffer(&deps.config, &directory.path)?.join(file);
    let open = move || open_plain(&path);
    match stores::work(&deps.stores, Which::Buffer, open).await? {
        Opened::File(file, size) => {
            // a file never changes once it is indexed
            let tag = format!("{id}-{epoch}-{number}-{size}");
            Ok(Segment { file: Readable::new(deps, Which::Buffer, file, size), tag })
        }
        Opened::Absent | Opened::NotOurs => Err(absent()),
    }
}

/// What is listed together.
struct View<'a> {
    /// A session's id, or a clip's.
    name: &'a str,
    within: Option<Window>,
}

impl View<'_> {
    fn recorded<'m>(&self, material: &'m Material, settled: bool) -> Recorded<'m> {
        let (epochs, segments) = (&material.epochs, &material.segments);
        Recorded { epochs, segments, within: self.within, settled }
    }
}

/// Lists what has come since the last time, and keeps it if there is anything. Under the session's lock, so that two
/// players at once are told the same.
async fn advance(
    deps: &Deps,
    view: &View<'_>,
    material: &Material,
    settled: bool,
) -> Result<Vec<Stretch>> {
    let recorded = view.recorded(material, settled);
    let known = stretches(rows::list(deps.db.conn(), view.name).await?);
    if preview::advance(&known, &recorded) == known {
        return Ok(known);
    }
    let tx = deps.db.begin().await?;
    if !session::lock_for_pins(&tx, &material.session.id).await? {
        return Err(Error::not_found("session"));
    }
    let known = stretches(rows::list(&tx, view.name).await?);
    let listed = preview::advance(&known, &recorded);
    // the last one may have grown, the ones behind it are new
    for stretch in listed.iter().skip(known.len().saturating_sub(1)) {
        rows::put(&tx, row_of(view.name, stretch)).await?;
    }
    store::commit(tx).await?;
    Ok(listed)
}

fn stretches(rows: Vec<rows::Model>) -> Vec<Stretch> {
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    let stretch = |row: rows::Model| Stretch {
        run: whole(row.run),
        epoch: u32::try_from(row.epoch).unwrap_or(0),
        first_number: whole(row.first_number),
        last_number: whole(row.last_number),
        first_sequence: whole(row.first_sequence),
        longest_us: row.longest_us,
    };
    rows.into_iter().map(stretch).collect()
}

fn row_of(view: &str, stretch: &Stretch) -> rows::Model {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    rows::Model {
        view_id: view.to_owned(),
        run: whole(stretch.run),
        epoch: i32::try_from(stretch.epoch).unwrap_or(i32::MAX),
        first_number: whole(stretch.first_number),
        last_number: whole(stretch.last_number),
        first_sequence: whole(stretch.first_sequence),
        longest_us: stretch.longest_us,
    }
}

/// The session ended, and so did all its epochs.
fn is_settled(material: &Material) -> bool {
    material.session_over() && material.epochs.iter().all(|epoch| epoch.complete)
}

/// All that can come for the window is there, or so late that the clip is made without it.
fn is_covered(deps: &Deps, material: &Material, window: Window) -> bool {
    let now = deps.clock.now();
    let (epochs, segments) = (&material.epochs, &material.segments);
    let coverage = selection::coverage(window, epochs, segments, now, material.session_over());
    coverage == Coverage::Covered || now > window.to.plus(deps.config.capture.tail_wait)
}

fn shape(deps: &Deps, grows_only: bool, ended: bool) -> Shape {
    let segment_us = i64::try_from(deps.config.buffer.segment.as_micros()).unwrap_or(i64::MAX);
    Shape { segment_us, grows_only, ended }
}

/// Lets the owner in; answers until when the links of what he asked for shall work.
async fn admit(
    deps: &Deps,
    access: Access<'_>,
    link: Link<'_>,
    session: &session::Model,
) -> Result<Timestamp> {
    match access {
        Access::Link(query) => {
            let viewer = links::verify(&deps.link_key, link, query, deps.clock.now())?;
            if viewer.user != session.user_id {
                return Err(Error::not_found("session"));
            }
            Ok(Timestamp::from_micros(query.e.unwrap_or(0).saturating_mul(1_000_000)))
        }
        Access::Token(caller) => {
            capture::check_own(deps, caller, session).await?;
            Ok(lasting(deps))
        }
    }
}

/// An expiry that stays the same for a long while: a player that comes with its token every time must find the same
/// addresses.
fn lasting(deps: &Deps) -> Timestamp {
    let ttl = deps.config.clips.link_ttl.max(Duration::from_secs(60));
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let now = deps.clock.now().as_micros();
    Timestamp::from_micros((now / ttl).saturating_add(2).saturating_mul(ttl))
}

fn segment_query(deps: &Deps, session: &session::Model, item: &Item, expires: Timestamp) -> String {
    let name = signed_name("", &session.id, &preview::name_of(item.epoch, item.number));
    let link = Link { scope: Scope::Segment, id: &name, generation: session.link_generation };
    sign(deps, link, session, expires)
}

/// The same in a clip's playlist: what voids the clip's links voids these.
fn segment_query_of_clip(
    deps: &Deps,
    session: &session::Model,
    clip: &clip::Model,
    item: &Item,
    expires: Timestamp,
) -> String {
    let name = preview::name_of(item.epoch, item.number);
    let name = signed_name(clip.id.as_str(), &session.id, &name);
    let link = Link { scope: Scope::ClipSegment, id: &name, generation: clip.link_generation };
    format!("c={}&{}", clip.id, sign(deps, link, session, expires))
}

/// A segment as it is signed, in the playlist of a clip or (empty) of its session: ids hold no `/`.
fn signed_name(clip: &str, session: &SessionId, name: &str) -> String {
    format!("{clip}/{session}/{name}")
}

fn absent() -> Error {
    Error::not_found("segment")
}

fn nothing() -> Error {
    Error::new(Code::NoSegmentsInRange, "Nothing of this recording is kept.")
        .with("available", serde_json::Value::Null)
}
