//! From recorded segments to somebody who reads: composed into FFmpeg, out of it in pieces, nothing kept.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    compose::{self, CutPart, Precision, Stop},
    ffmpeg::{Ffmpeg, Limits, Metadata, failed},
    native, verify,
};
use crate::error::Result;

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
    let plan = native::run(limits, move |_| look()).await??;
    let mut command = ffmpeg.fragments_command(&plan, meta);
    let (send, feed) = mpsc::channel::<Vec<u8>>(PIECES_AHEAD);
    // of the two it is FFmpeg whose progress counts; a store that hangs is left behind
    let over = limits.cancel.child_token();
    let patient = Limits { cancel: over.clone(), ..verify::patient(limits) };
    let composing = native::run(&patient, move |control| {
        let mut sink = |piece| control.go_on().is_ok() && send.blocking_send(piece).is_ok();
        compose::write(&parts, &plan, &mut sink)
    });
    let run = async {
        let ran = ffmpeg.run_to(&mut command, Some(feed), out, limits).await;
        if ran.is_err() {
            // the feed is gone, so composing ends at its next piece, if the store gives it one
            over.cancel();
        }
        ran
    };
    let (ran, composed) = tokio::join!(run, composing);
    let composed = match composed {
        Ok(composed) => composed,
        Err(error) => return Err(ran.err().unwrap_or(error)),
    };
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
