//! Whether the first picture of a finished file and its last key frame decode, asked of FFmpeg.
//!
//! Half of the time that such a look takes is FFmpeg's start. So it is started while the file is still being written,
//! and waits: its first input is an empty one, which it is given when the file is there; the others it opens after it.

use std::path::Path;

use tokio::sync::mpsc;

use super::{
    ffmpeg::{Ffmpeg, Finished, Limits, Running},
    ticks_to_micros,
    verify::{complains, key_frame_at, unfit},
};
use crate::error::{Error, Result};

/// All that FFmpeg's own format for metadata needs.
const NOTHING: &[u8] = b";FFMETADATA1\n";
/// Options of an input whose pictures are judged: one thread (for one picture more only cost memory), no look at the
/// streams in advance (it would decode the picture twice), nobody sees the picture, every error counts.
const STRICT: [&str; 7] =
    ["-threads", "1", "-nofind_stream_info", "-skip_loop_filter", "all", "-err_detect", "explode"];

/// An FFmpeg that waits for a file. Dropped, it is killed.
pub(super) struct EdgeCheck {
    running: Running,
    go: mpsc::Sender<Vec<u8>>,
}

impl EdgeCheck {
    /// Gets ready for `path`, of which nothing is looked at yet, and of which `duration` ticks will be shown.
    ///
    /// # Errors
    /// `ffmpeg_failed` if it cannot be started.
    pub fn begin(ffmpeg: &Ffmpeg, path: &Path, duration: i64) -> Result<EdgeCheck> {
        let mut command = ffmpeg.command();
        command.args(["-xerror", "-f", "ffmetadata", "-i", "pipe:0"]);
        command.args(STRICT).arg("-i").arg(path);
        // the last key frame itself, not all pictures from the one before it
        command.args(STRICT).args(key_frame_at(ticks_to_micros(duration))).arg("-i").arg(path);
        for input in ["1:v:0", "2:v:0"] {
            command.args(["-map", input, "-frames:v", "1", "-fps_mode", "passthrough"]);
            // a line for each picture, on standard output
            command.args(["-f", "framecrc", "pipe:1"]);
        }
        let (go, feed) = mpsc::channel(1);
        Ok(EdgeCheck { running: ffmpeg.begin(&mut command, Some(feed))?, go })
    }

    /// Looks at the file, which is complete.
    ///
    /// # Errors
    /// `ffmpeg_failed` with what is wrong as the private cause, `cancelled`.
    pub async fn end(self, limits: &Limits) -> Result<()> {
        // one that is gone already says why when its end is awaited
        let _ = self.go.try_send(NOTHING.to_vec());
        drop(self.go);
        let done = self.running.end(limits).await?;
        match pictures(&done) {
            2 if !complains(&done.complaints) => Ok(()),
            pictures => Err(odd(pictures, &done)),
        }
    }
}

fn pictures(done: &Finished) -> usize {
    done.stdout.lines().filter(|line| line.starts_with("0,")).count()
}

fn odd(pictures: usize, done: &Finished) -> Error {
    let said = done.complaints.join(" | ");
    unfit(format!("its edges do not decode ({pictures} of 2 pictures): {said}"))
}
