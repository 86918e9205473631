//! Takes a part of a finished clip apart into transport stream segments, so that it is cut like a recording: same
//! edges, same checks, same cap on its size. Nothing is decoded, and no time changes but by [`OFFSET`].

use std::{io, path::Path};

use super::{
    TICKS,
    compose::SegmentFile,
    ffmpeg::{Ffmpeg, Limits, failed},
    mp4, native, ticks_to_micros,
    ts::{inspect, unwrap_pts},
};
use crate::error::{Code, Error, Result};

/// Where the clip's presentation begins on the time line of the segments.
pub const OFFSET: i64 = 3600 * TICKS;
/// Taken beyond the part's end: pictures are stored in another order than they are shown.
const BEYOND: i64 = TICKS;
/// Segments are about this long, so that none is large in memory.
const SEGMENT_SECONDS: &str = "2";
/// Two moments closer than this are the same: the part is given in microseconds, pictures lie on other grids.
const SAME: i64 = TICKS / 2000;

/// A part of a clip, taken apart.
#[derive(Debug)]
pub struct Opened {
    /// In order.
    pub segments: Vec<SegmentFile>,
    /// What the clip's own index promises of the part.
    promised: mp4::Pictures,
}

impl Opened {
    /// Refuses what does not show all pictures of the part: `first` and `end` are ticks of the segments' time line,
    /// `frame` is the usual length of a picture.
    ///
    /// # Errors
    /// `ffmpeg_failed`.
    pub fn demand_whole(&self, first: i64, end: i64, pictures: u64, frame: i64) -> Result<()> {
        let mp4::Pictures { first: from, last, count } = self.promised;
        let late = first > from + OFFSET + frame + SAME;
        // a picture at either edge may be taken for one that lies outside
        if late || end <= last + OFFSET - frame - SAME || pictures + 2 < count {
            let shown = format!("{pictures} of {count} pictures, from {first} to {end}");
            return Err(failed("The clip is not whole.", shown));
        }
        Ok(())
    }
}

/// Writes the segments that `[from, to)` (ticks of the presentation) needs into `dir`, which exists and is ours alone.
///
/// # Errors
/// `ffmpeg_failed` (also where FFmpeg complains about the clip, or a piece of the part is missing), `cancelled`,
/// `storage_unavailable` (retryable; a piece cannot be read).
pub async fn reopen(
    ffmpeg: &Ffmpeg,
    clip: &Path,
    from: i64,
    to: i64,
    dir: &Path,
    limits: &Limits,
) -> Result<Opened> {
    // the name is a pattern
    let pattern = dir.to_string_lossy().replace('%', "%%") + "/part-%05d.ts";
    let mut command = ffmpeg.command();
    let until = to.saturating_add(BEYOND);
    command.args(["-nostdin", "-copyts", "-ss", &micros(from), "-to", &micros(until)]);
    command.arg("-i").arg(clip).args(["-map", "0:v:0", "-map", "0:a:0?", "-map_metadata", "-1"]);
    command.args(["-c", "copy", "-output_ts_offset", &micros(OFFSET)]);
    command.args(["-muxdelay", "0", "-muxpreload", "0", "-f", "segment"]);
    command.args(["-segment_time", SEGMENT_SECONDS, "-segment_format", "mpegts"]);
    // damage and files that end early do not change the exit status
    command.args(["-v", "error"]);
    command.overwrite().arg(pattern);
    let ran = ffmpeg.run(&mut command, None, limits).await?;
    if !ran.complaints.is_empty() {
        return Err(failed("The clip cannot be taken apart.", ran.complaints.join(" | ")));
    }
    let (dir, clip) = (dir.to_owned(), clip.to_owned());
    // the file system says nothing while it works
    let patient = Limits { stall: limits.deadline, ..limits.clone() };
    native::run(&patient, move |_| {
        let promised = promised(&clip, from, to)?;
        let segments = found(&dir, promised.last + OFFSET)?;
        Ok(Opened { segments, promised })
    })
    .await?
}

fn promised(clip: &Path, from: i64, to: i64) -> Result<mp4::Pictures> {
    let pictures =
        mp4::pictures(clip, from - SAME, to - SAME).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                failed("The clip cannot be taken apart.", error)
            }
            _ => unreadable(error),
        })?;
    pictures.ok_or_else(|| Error::new(Code::NoUsableSegments, "The part holds no picture."))
}

fn unreadable(error: io::Error) -> Error {
    Error::new(Code::StorageUnavailable, "The clip store cannot be used right now.")
        .retryable()
        .because(error)
}

fn micros(ticks: i64) -> String {
    format!("{}us", ticks_to_micros(ticks).max(0))
}

/// The pieces, which must reach beyond `last`, the time of the part's last picture.
fn found(dir: &Path, last: i64) -> Result<Vec<SegmentFile>> {
    let failed = |cause: String| failed("The clip cannot be taken apart.", cause);
    let (mut segments, mut near, mut reached) = (Vec::new(), OFFSET, i64::MIN);
    for number in 0.. {
        let path = dir.join(format!("part-{number:05}.ts"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(unreadable(error)),
        };
        let facts = match inspect(&bytes) {
            Ok(facts) => facts,
            // beyond the part, or sound without a picture; another piece behind it is judged the same way
            Err(_) if reached > last => continue,
            Err(damage) => return Err(failed(format!("piece {number}: {damage}"))),
        };
        near = unwrap_pts(facts.pts_first, near);
        reached = reached.max(near + (facts.pts_end - facts.pts_first));
        segments.push(SegmentFile { path, pts_start_unwrapped: near, checksum: None });
    }
    if reached <= last {
        return Err(failed(format!("{} pieces end before {last}", segments.len())));
    }
    Ok(segments)
}
