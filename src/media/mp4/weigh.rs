//! How many bytes a part of a file takes.

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
    let mut file = File::open(path)?;
    let layout = layout(&mut file)?;
    let moov = read_range(&mut file, layout.moov)?;
    let inner = moov.get(8..).unwrap_or_default();
    let tracks = Boxes::new(inner).filter(|(name, _)| name == b"trak").take(16);
    let mut bytes = 0u64;
    for (_, trak) in tracks {
        let track = weigh_track(trak, from, to).ok_or_else(|| invalid("the index makes no sense"));
        bytes = bytes.saturating_add(track?);
    }
    Ok(bytes)
}

fn weigh_track(trak: &[u8], from: i64, to: i64) -> Option<u64> {
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
    let (mut dts, mut number, mut bytes) = (0i64, 0u32, 0u64);
    while let Some(step) = steps.next() {
        number += 1;
        if number > MAX_SAMPLES {
            return None;
        }
        let shift = shifts.as_mut().and_then(Runs::next).unwrap_or(0);
        let time = dts.checked_add(i64::from(shift.cast_signed()))?.checked_sub(begin)?;
        let ticks = i128::from(time) * i128::from(TICKS) / i128::from(track.timescale.max(1));
        let key = track.sync_samples.is_none() || sync.next_if_eq(&number).is_some();
        if key && ticks <= i128::from(from) {
            bytes = 0;
        }
        if ticks < i128::from(to) {
            let at = usize::try_from(number - 1).ok()?.checked_mul(4)?.checked_add(8)?;
            let size = if even > 0 { even } else { u32_at(sizes, at)? };
            bytes = bytes.saturating_add(u64::from(size));
        }
        dts = dts.checked_add(i64::from(step))?;
    }
    Some(bytes)
}
