//! What the index of a file says about a part of it.

use std::{fs::File, io, path::Path};

use super::{
    MAX_SAMPLES, Runs,
    boxes::{Boxes, full_box, u32_at},
    invalid, layout, parse_track, read_range,
};
use crate::media::TICKS;

/// Bytes of the samples that showing `[from, to)` needs (ticks of the presentation): from the last sync sample at or
/// before `from` on. Blocking.
///
/// # Errors
/// As [`super::read`].
pub fn weigh(path: &Path, from: i64, to: i64) -> io::Result<u64> {
    let mut bytes = 0u64;
    each_track(path, |trak| {
        let mut track = 0u64;
        each_sample(trak, |sample| {
            if sample.key && sample.time <= from {
                track = 0;
            }
            if sample.time < to {
                track = track.saturating_add(u64::from(sample.size));
            }
        })?;
        bytes = bytes.saturating_add(track);
        Some(())
    })?;
    Ok(bytes)
}

/// Pictures of a part, ticks of the presentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pictures {
    /// Time of the first one.
    pub first: i64,
    /// Time of the last one.
    pub last: i64,
    /// How many there are.
    pub count: u64,
}

/// The pictures whose time lies in `[from, to)`; none if there are none. Blocking.
///
/// # Errors
/// As [`super::read`].
pub fn pictures(path: &Path, from: i64, to: i64) -> io::Result<Option<Pictures>> {
    let mut found: Option<Pictures> = None;
    each_track(path, |trak| {
        if parse_track(trak, 1)?.kind != *b"vide" {
            return Some(());
        }
        each_sample(trak, |Sample { time, .. }| {
            if time < from || time >= to {
                return;
            }
            let Pictures { first, last, count } =
                found.unwrap_or(Pictures { first: time, last: time, count: 0 });
            let (first, last) = (first.min(time), last.max(time));
            found = Some(Pictures { first, last, count: count + 1 });
        })
    })?;
    Ok(found)
}

/// `visit` answers nothing where a track makes no sense.
fn each_track(path: &Path, mut visit: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let layout = layout(&mut file)?;
    let moov = read_range(&mut file, layout.moov)?;
    let inner = moov.get(8..).unwrap_or_default();
    let tracks = Boxes::new(inner).filter(|(name, _)| name == b"trak").take(16);
    for (_, trak) in tracks {
        visit(trak).ok_or_else(|| invalid("the index makes no sense"))?;
    }
    Ok(())
}

struct Sample {
    /// Ticks of the presentation.
    time: i64,
    key: bool,
    /// Bytes.
    size: u32,
}

fn each_sample(trak: &[u8], mut visit: impl FnMut(Sample)) -> Option<()> {
    let track = parse_track(trak, 1)?;
    let begin = track.edits.iter().find(|edit| edit.media_time >= 0);
    let begin = begin.map_or(0, |edit| edit.media_time);
    let stbl = Boxes::find(Boxes::find(Boxes::find(trak, b"mdia")?, b"minf")?, b"stbl")?;
    let (_, steps) = full_box(Boxes::find(stbl, b"stts")?)?;
    let mut steps = Runs::new(steps.get(4..)?);
    let shifts = Boxes::find(stbl, b"ctts").and_then(full_box);
    let mut shifts = shifts.and_then(|(_, body)| Some(Runs::new(body.get(4..)?)));
    let (_, sizes) = full_box(Boxes::find(stbl, b"stsz")?)?;
    let even = u32_at(sizes, 0)?;
    let mut sync = track.sync_samples.iter().flatten().copied().peekable();
    let (mut dts, mut number) = (0i64, 0u32);
    while let Some(step) = steps.next() {
        number += 1;
        if number > MAX_SAMPLES {
            return None;
        }
        let shift = shifts.as_mut().and_then(Runs::next).unwrap_or(0);
        let time = dts.checked_add(i64::from(shift.cast_signed()))?.checked_sub(begin)?;
        let ticks = i128::from(time) * i128::from(TICKS) / i128::from(track.timescale.max(1));
        let time = i64::try_from(ticks).ok()?;
        let key = track.sync_samples.is_none() || sync.next_if_eq(&number).is_some();
        let at = usize::try_from(number - 1).ok()?.checked_mul(4)?.checked_add(8)?;
        let size = if even > 0 { even } else { u32_at(sizes, at)? };
        visit(Sample { time, key, size });
        dts = dts.checked_add(i64::from(step))?;
    }
    Some(())
}
