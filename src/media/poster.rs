//! One picture that stands for a clip.

use std::path::Path;

use super::{
    ffmpeg::{Ffmpeg, Limits, failed},
    files::{beside, remove_aside},
    verify::key_frame_at,
};
use crate::error::Result;

/// Widest poster, in pixels.
pub const MAX_WIDTH: u32 = 640;

/// Writes a JPEG of the last key frame before the middle of a clip of `duration_us`. A clip without poster is a good clip: the caller logs
/// the error and goes on.
///
/// # Errors
/// `ffmpeg_failed`, `cancelled`; no file is left then.
pub async fn poster(
    ffmpeg: &Ffmpeg,
    clip: &Path,
    duration_us: i64,
    out: &Path,
    limits: &Limits,
) -> Result<()> {
    let mut command = ffmpeg.command();
    command.arg("-nostdin").args(key_frame_at((duration_us / 2).max(0))).arg("-i").arg(clip);
    command.args(["-map", "0:v:0", "-frames:v", "1", "-q:v", "4", "-map_metadata", "-1"]);
    command.args(["-vf", &format!("scale=w='min({MAX_WIDTH},iw)':h=-2")]);
    command.args(["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-update", "1", "-f", "image2"]);
    command.overwrite().arg(out);
    let done = ffmpeg.run(&mut command, None, limits).await;
    let picture = out.to_owned();
    let size = beside(limits.deadline, move || Ok(std::fs::metadata(picture)?.len())).await;
    let written = size.is_ok_and(|size| size > 0);
    match done {
        Ok(_) if written => Ok(()),
        other => {
            // nothing of a failed attempt stays
            remove_aside(out);
            other.and(Err(failed("No preview picture could be made.", "no picture came out")))
        }
    }
}
