//! From recorded segments to somebody who reads: composed into FFmpeg, out of it in pieces, nothing kept.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    compose::{self, CutPart, Precision, Stop},
    ffmpeg::{Ffmpeg, Limits, Metadata, failed},
};
use crate::error::{Error, Result};

/// Pieces of the stream that wait for FFmpeg at most.
const PIECES_AHEAD: usize = 4;

/// Sends the parts, joined at key frames, as a fragmented MP4. An error after the first piece means that what was sent
/// is no whole video: the caller must not end it as if it were.
///
/// # Errors
/// `no_usable_segments`, `storage_unavailable`, `ffmpeg_failed`, `cancelled` (also when nobody takes the pieces).
pub async fn send(
    ffmpeg: &Ffmpeg,
    parts: Vec<CutPart>,
    meta: &Metadata,
    out: &mpsc::Sender<Result<Bytes>>,
    limits: &Limits,
) -> Result<()> {
    let parts = Arc::new(parts);
    let looked_at = Arc::clone(&parts);
    let look = move || compose::plan(&looked_at, Precision::Keyframe, false);
    let plan = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| Error::internal("planning a stream", error))??;
    let mut command = ffmpeg.fragments_command(&plan, meta);
    let (send, feed) = mpsc::channel::<Vec<u8>>(PIECES_AHEAD);
    let composing = tokio::task::spawn_blocking(move || {
        compose::write(&parts, &plan, &mut |piece| send.blocking_send(piece).is_ok())
    });
    let ran = ffmpeg.run_to(&mut command, Some(feed), out, limits).await;
    // the feed is gone now, so composing ends at its next piece
    let composed = composing.await.map_err(|error| Error::internal("composing a stream", error))?;
    match composed {
        Ok(_) => ran,
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Changed) => {
            Err(failed("This recording cannot be streamed; capture it.", "its parameters change"))
        }
        Err(Stop::Closed) => Err(ran.err().unwrap_or_else(|| {
            failed("Making the video failed.", "FFmpeg ended before its input")
        })),
    }
}
