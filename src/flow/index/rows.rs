//! From what was seen of files to rows, and their writing in one transaction per epoch.

use super::{Seen, clock::raw_bits};
use crate::{
    domain::{
        catalogue::{Candidate, LabelClock},
        playlist::segment_file_name,
        time::Timestamp,
        timeline::{PTS_BASE, PTS_PER_SECOND, unwrap_pts},
    },
    error::Result,
    flow::{Deps, outbox},
    media::ts::SegmentFacts,
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        segment::{self, Brief, SegmentState},
        session,
    },
};

/// How many rows came.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub new: u64,
    pub bad: u64,
}

/// A file between its neighbours.
struct Place<'a> {
    /// End of the newest usable segment before it, unwrapped.
    near: i64,
    /// Start of the segment that follows at once, unwrapped, if it is known.
    next: Option<i64>,
    /// Its row so far.
    old: Option<&'a Brief>,
}

/// The rows to write, by number. What is not there and older than `horizon` gets none: cleanup took it.
pub(super) fn rows_of(
    deps: &Deps,
    epoch: &epoch::Model,
    clock: &LabelClock,
    known: &[Brief],
    seen: &[(Candidate, Seen)],
    horizon: Timestamp,
) -> Vec<segment::Model> {
    let mut rows: Vec<segment::Model> = Vec::new();
    for (at, (candidate, file)) in seen.iter().enumerate() {
        let number = i64::try_from(candidate.number).unwrap_or(i64::MAX);
        let near = near(known, &rows, number);
        let next = next_start(known, seen.get(at + 1), number, near);
        let old = known.iter().find(|row| row.number == number);
        let place = Place { near, next, old };
        let row = match file {
            Seen::Good(facts) => good(deps, epoch, clock, candidate, facts, &place),
            Seen::Bad(state, bytes) => bad(deps, epoch, clock, candidate, (*state, *bytes), &place),
            Seen::Missing => {
                let row = bad(deps, epoch, clock, candidate, (SegmentState::Missing, 0), &place);
                if row.ends_at <= horizon {
                    continue;
                }
                row
            }
            Seen::NoDirectory => continue,
        };
        // still as bad as it was: nothing to write
        if old.is_none_or(|old| old.state != row.state) {
            rows.push(row);
        }
    }
    rows
}

/// The end of the newest usable segment before `number`; an epoch begins at the base.
fn near(known: &[Brief], rows: &[segment::Model], number: i64) -> i64 {
    let before = |row: &&Brief| row.number < number && row.state == SegmentState::Usable;
    let old = known.iter().rev().find(before).map(|row| (row.number, row.pts_end));
    let usable = |row: &&segment::Model| row.state == SegmentState::Usable;
    let new = rows.iter().rev().find(usable).map(|row| (row.number, row.pts_end));
    old.max(new).map_or(PTS_BASE, |(_, end)| end)
}

/// The start of the segment right after `number`, if that is whole.
fn next_start(
    known: &[Brief],
    seen_next: Option<&(Candidate, Seen)>,
    number: i64,
    near: i64,
) -> Option<i64> {
    let known = known.iter().find(|row| row.number == number + 1);
    let known = known.filter(|row| row.state == SegmentState::Usable).map(|row| row.pts_start);
    let seen = seen_next.and_then(|(candidate, seen)| match seen {
        Seen::Good(facts) if candidate.number == number.unsigned_abs() + 1 => {
            Some(unwrap_pts(raw_bits(facts.pts_first), near))
        }
        _ => None,
    });
    known.or(seen)
}

fn good(
    deps: &Deps,
    epoch: &epoch::Model,
    clock: &LabelClock,
    candidate: &Candidate,
    facts: &SegmentFacts,
    place: &Place<'_>,
) -> segment::Model {
    let start = unwrap_pts(raw_bits(facts.pts_first), place.near);
    let shift = start.saturating_sub(facts.pts_first);
    let end = facts.pts_end.saturating_add(shift);
    // a file no playlist names may still be growing: whole only if the next one goes on where it ends
    let short = candidate.entry.is_none()
        && place.next.is_some_and(|next| end.saturating_add(2 * facts.frame_duration) < next);
    let state = if short { SegmentState::Truncated } else { SegmentState::Usable };
    let keys: Vec<i64> = facts.key_frames.iter().map(|key| key.pts.saturating_add(shift)).collect();
    let starts_at = clock.clock.screen_time(start);
    segment::Model {
        state,
        pts_start: start,
        pts_end: end,
        starts_at,
        ends_at: clock.clock.screen_time(end),
        label_at: label(clock, candidate, place, starts_at),
        size_bytes: i64::try_from(facts.bytes).unwrap_or(i64::MAX),
        key_frames: serde_json::json!(keys).to_string(),
        frame_ticks: facts.frame_duration,
        has_audio: facts.audio.is_some(),
        width: i32::try_from(facts.width).ok(),
        height: i32::try_from(facts.height).ok(),
        crc: Some(facts.checksum),
        ..blank(deps, epoch, candidate, place)
    }
}

/// A file of which only its place is known: by its label, else right after the one before.
fn bad(
    deps: &Deps,
    epoch: &epoch::Model,
    clock: &LabelClock,
    candidate: &Candidate,
    (state, bytes): (SegmentState, u64),
    place: &Place<'_>,
) -> segment::Model {
    let named = candidate.entry.as_ref().map(|entry| entry.label);
    let start = match named.or(place.old.map(|row| row.label_at)) {
        Some(label) => clock.clock.pts_at(clock.screen_of_label(label)),
        None => place.near,
    };
    let told = candidate.entry.as_ref().map_or(0, |entry| entry.duration_us);
    let nominal = i64::try_from(deps.config.buffer.segment.as_micros()).unwrap_or(i64::MAX);
    let length = if told > 0 { told } else { nominal };
    let by_length = start.saturating_add(length.saturating_mul(PTS_PER_SECOND) / 1_000_000);
    let end = place.next.filter(|next| *next > start).map_or(by_length, |next| next.min(by_length));
    let starts_at = clock.clock.screen_time(start);
    segment::Model {
        state,
        pts_start: start,
        pts_end: end,
        starts_at,
        ends_at: clock.clock.screen_time(end),
        label_at: label(clock, candidate, place, starts_at),
        size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        ..blank(deps, epoch, candidate, place)
    }
}

/// Labels run with the media, so the one of a file that is not named follows from its screen time.
fn label(
    clock: &LabelClock,
    candidate: &Candidate,
    place: &Place<'_>,
    starts_at: Timestamp,
) -> Timestamp {
    let told = candidate.entry.as_ref().map(|entry| entry.label);
    told.or(place.old.map(|row| row.label_at)).unwrap_or_else(|| clock.label_of_screen(starts_at))
}

fn blank(
    deps: &Deps,
    epoch: &epoch::Model,
    candidate: &Candidate,
    place: &Place<'_>,
) -> segment::Model {
    segment::Model {
        session_id: epoch.session_id.clone(),
        epoch: epoch.number,
        number: i64::try_from(candidate.number).unwrap_or(i64::MAX),
        // spelt by us from the number, so it can be nothing but a bare name
        file_name: segment_file_name(candidate.number),
        state: SegmentState::Missing,
        pts_start: 0,
        pts_end: 0,
        starts_at: Timestamp::default(),
        ends_at: Timestamp::default(),
        label_at: Timestamp::default(),
        size_bytes: 0,
        key_frames: "[]".to_owned(),
        frame_ticks: 0,
        has_audio: false,
        width: None,
        height: None,
        crc: None,
        condemned_at: None,
        // the patience with a bad file counts from its first sight
        indexed_at: place.old.map_or_else(|| deps.clock.now(), |row| row.indexed_at),
    }
}

/// Writes rows and what follows from them: the session's media, the epoch's and the session's state.
pub(super) async fn write(
    deps: &Deps,
    session: &session::Model,
    epoch: &epoch::Model,
    rows: Vec<segment::Model>,
    ended: bool,
) -> Result<Written> {
    let mut written = Written::default();
    let mut media: Option<(Timestamp, Timestamp)> = None;
    let mut rate = 0;
    let tx = deps.db.begin().await?;
    for row in rows {
        let usable = row.state == SegmentState::Usable;
        let (window, bytes_per_second) = (row.window(), rate_of(&row));
        let fresh = segment::insert(&tx, row.clone()).await?;
        let better = !fresh && segment::replace_bad(&tx, row).await? && usable;
        if !fresh && !better {
            continue;
        }
        written.new += 1;
        if usable {
            let (from, to) = media.unwrap_or((window.from, window.to));
            media = Some((from.min(window.from), to.max(window.to)));
            rate = rate.max(bytes_per_second);
        } else {
            written.bad += 1;
        }
    }
    if let Some((from, to)) = media {
        let before = session::lock(&tx, &session.id).await?;
        session::widen_media(&tx, &session.id, from, to, rate).await?;
        if let Some(before) = before {
            super::media_came(&tx, deps, &before).await?;
        }
        note_media(&tx, deps, epoch).await?;
    }
    if ended && !epoch.playlist_ended {
        note_end_in(&tx, epoch).await?;
    }
    outbox::commit(deps, tx).await?;
    Ok(written)
}

/// Bytes per second; a scrap of a segment counts as a second, or its headers would look like a torrent.
fn rate_of(row: &segment::Model) -> i64 {
    let micros = row.window().micros().max(1_000_000);
    let rate = i128::from(row.size_bytes) * 1_000_000 / i128::from(micros);
    i64::try_from(rate).unwrap_or(i64::MAX)
}

async fn note_media(tx: &store::Tx, deps: &Deps, epoch: &epoch::Model) -> Result<()> {
    let change =
        epoch::ActiveModel { last_segment_at: Set(Some(deps.clock.now())), ..Default::default() };
    epoch::update_if(tx, &epoch.session_id, epoch.number, EpochStatus::ALL, change).await?;
    let active = epoch::ActiveModel { status: Set(EpochStatus::Active), ..Default::default() };
    let from = [EpochStatus::Starting];
    epoch::update_if(tx, &epoch.session_id, epoch.number, &from, active).await.map(drop)
}

/// Remembers that egress said it will add nothing.
pub(super) async fn note_end(deps: &Deps, epoch: &epoch::Model) -> Result<()> {
    note_end_in(deps.db.conn(), epoch).await
}

async fn note_end_in<C: store::Conn>(db: &C, epoch: &epoch::Model) -> Result<()> {
    let change = epoch::ActiveModel { playlist_ended: Set(true), ..Default::default() };
    epoch::update_if(db, &epoch.session_id, epoch.number, EpochStatus::ALL, change).await.map(drop)
}
