//! Corrects when a file's presentation begins and ends, in place.

use std::{
    fs::OpenOptions,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    boxes::{Boxes, full_box, u32_at, u64_at},
    invalid, layout, read_range,
};

/// The one edit that a track shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackEdit {
    /// Handler of the track: `vide` or `soun`.
    pub kind: [u8; 4],
    /// First shown moment in the track's timescale; none keeps that of the file's own first real edit.
    pub media_time: Option<i64>,
    /// Shown length in 90 kHz ticks.
    pub duration: i64,
}

/// Writes one edit per named track and the lengths that follow from it (`tkhd`, `mvhd`). The index keeps its size:
/// what an edit list no longer needs becomes a `free` box. Blocking.
///
/// # Errors
/// `InvalidData` if the file has no edit list to write into, or a length does not fit.
pub fn patch(path: &Path, edits: &[TrackEdit]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let layout = layout(&mut file)?;
    let mut moov = read_range(&mut file, layout.moov)?;
    apply(&mut moov, edits).ok_or_else(|| invalid("the edit list cannot be written"))?;
    file.seek(SeekFrom::Start(layout.moov.0))?;
    file.write_all(&moov)
}

fn apply(moov: &mut [u8], edits: &[TrackEdit]) -> Option<()> {
    let mvhd = find(moov, 8, moov.len(), b"mvhd")?;
    let (version, body) = full_box(moov.get(mvhd.0..mvhd.1)?)?;
    let scale = u32_at(body, if version == 1 { 16 } else { 8 })?;
    let mut at = 8;
    let mut longest = 0;
    while let Some(trak) = find(moov, at, moov.len(), b"trak") {
        let mdia = Boxes::find(moov.get(trak.0..trak.1)?, b"mdia")?;
        let kind = Boxes::find(mdia, b"hdlr")?.get(8..12)?;
        if let Some(edit) = edits.iter().find(|edit| edit.kind == kind) {
            let length = u64::try_from(edit.duration).ok()?.checked_mul(u64::from(scale))? / 90_000;
            longest = longest.max(length);
            write_edit(moov, trak, edit.media_time, length)?;
            let tkhd = find(moov, trak.0, trak.1, b"tkhd")?;
            write_length(moov, tkhd, length, 20, 28)?;
        }
        at = trak.1;
    }
    write_length(moov, mvhd, longest, 16, 24)
}

fn write_edit(moov: &mut [u8], trak: (usize, usize), time: Option<i64>, length: u64) -> Option<()> {
    let edts = find(moov, trak.0, trak.1, b"edts")?;
    let own = super::parse_edits(Boxes::find(moov.get(edts.0..edts.1)?, b"elst")?);
    let own = own.iter().find(|edit| edit.media_time >= 0).map(|edit| edit.media_time);
    let time = u32::try_from(time.or(own)?).ok().filter(|&time| time <= i32::MAX as u32)?;
    let mut elst = Vec::with_capacity(edts.1 - edts.0);
    for number in [28, u32::from_be_bytes(*b"elst"), 0, 1, u32::try_from(length).ok()?, time] {
        elst.extend_from_slice(&number.to_be_bytes());
    }
    elst.extend_from_slice(&0x0001_0000u32.to_be_bytes());
    let room = (edts.1 - edts.0).checked_sub(elst.len())?;
    if room >= 8 {
        elst.extend_from_slice(&u32::try_from(room).ok()?.to_be_bytes());
        elst.extend_from_slice(b"free");
    } else if room > 0 {
        return None;
    }
    elst.resize(edts.1 - edts.0, 0);
    moov.get_mut(edts.0..edts.1)?.copy_from_slice(&elst);
    Some(())
}

/// Writes a duration at its place for version 0 or 1 of the box.
fn write_length(
    moov: &mut [u8],
    place: (usize, usize),
    length: u64,
    v0: usize,
    v1: usize,
) -> Option<()> {
    let body = moov.get_mut(place.0..place.1)?;
    if body.first() == Some(&1) {
        body.get_mut(v1..v1 + 8)?.copy_from_slice(&length.to_be_bytes());
    } else {
        let length = u32::try_from(length).ok()?;
        body.get_mut(v0..v0 + 4)?.copy_from_slice(&length.to_be_bytes());
    }
    Some(())
}

/// Body range of the first box of that name between two places.
fn find(bytes: &[u8], mut at: usize, end: usize, name: &[u8; 4]) -> Option<(usize, usize)> {
    while at.checked_add(8)? <= end {
        let (head, length) = match u32_at(bytes, at)? {
            1 => (16, usize::try_from(u64_at(bytes, at + 8)?).ok()?),
            0 => (8, end - at),
            length => (8, usize::try_from(length).ok()?),
        };
        let next = at.checked_add(length)?;
        if length < head || next > end {
            return None;
        }
        if bytes.get(at + 4..at + 8)? == name {
            return Some((at + head, next));
        }
        at = next;
    }
    None
}
