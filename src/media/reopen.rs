//! Takes a part of a finished clip apart into transport stream segments, so that it is cut like a recording: same
//! edges, same checks, same cap on its size. Nothing is decoded, and no time changes but by [`OFFSET`].

use std::path::Path;

use super::{
    TICKS,
    compose::SegmentFile,
    ffmpeg::{Ffmpeg, Limits, failed},
    ticks_to_micros,
    ts::{inspect, unwrap_pts},
};
use crate::error::{Error, Result};

/// Where the clip's presentation begins on the time line of the segments.
pub const OFFSET: i64 = 3600 * TICKS;
/// Taken beyond the part's end: pictures are stored in another order than they are shown.
const BEYOND: i64 = TICKS;
/// Segments are about this long, so that none is large in memory.
const SEGMENT_SECONDS: &str = "2";

/// Writes the segments that `[from, to)` (ticks of the presentation) needs into `dir`, which exists and is ours alone.
///
/// # Errors
/// `ffmpeg_failed`, `cancelled`.
pub async fn reopen(
    ffmpeg: &Ffmpeg,
    clip: &Path,
    from: i64,
    to: i64,
    dir: &Path,
    limits: &Limits,
) -> Result<Vec<SegmentFile>> {
    // the name is a pattern
    let pattern = dir.to_string_lossy().replace('%', "%%") + "/part-%05d.ts";
    let mut command = ffmpeg.command();
    let until = to.saturating_add(BEYOND);
    command.args(["-nostdin", "-copyts", "-ss", &micros(from), "-to", &micros(until)]);
    command.arg("-i").arg(clip).args(["-map", "0:v:0", "-map", "0:a:0?", "-map_metadata", "-1"]);
    command.args(["-c", "copy", "-output_ts_offset", &micros(OFFSET)]);
    command.args(["-muxdelay", "0", "-muxpreload", "0", "-f", "segment"]);
    command.args(["-segment_time", SEGMENT_SECONDS, "-segment_format", "mpegts"]);
    command.overwrite().arg(pattern);
    ffmpeg.run(&mut command, None, limits).await?;
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || found(&dir))
        .await
        .map_err(|error| Error::internal("reading a clip's parts", error))?
}

fn micros(ticks: i64) -> String {
    format!("{}us", ticks_to_micros(ticks).max(0))
}

fn found(dir: &Path) -> Result<Vec<SegmentFile>> {
    let mut segments = Vec::new();
    let mut near = OFFSET;
    for number in 0.. {
        let path = dir.join(format!("part-{number:05}.ts"));
        let Ok(bytes) = std::fs::read(&path) else { break };
        let facts = match inspect(&bytes) {
            Ok(facts) => facts,
            // a last piece of sound without a picture
            Err(_) if number > 0 => break,
            Err(damage) => return Err(failed("The clip cannot be taken apart.", damage)),
        };
        near = unwrap_pts(facts.pts_first, near);
        segments.push(SegmentFile { path, pts_start_unwrapped: near, checksum: None });
    }
    Ok(segments)
}
