//! An MP4 in fragments on standard output, for somebody who reads while it is made. Such a file has no index in front
//! and no edit list: it begins with its first picture, and a copy may end a few pictures late.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use ffmpeg_sidecar::command::FfmpegCommand;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::{
    Feed, Ffmpeg, Limits, Metadata, Target,
    recipes::{describe, encode_options, input},
    run::{Pulse, Watched},
};
use crate::{
    error::{Code, Error, Result},
    media::{
        TICKS,
        compose::{BASE, Plan},
    },
};

/// Bytes handed on at once.
const PIECE: usize = 32 * 1024;

impl Ffmpeg {
    /// Turns a composed stream on standard input into fragments on standard output: copied where the plan lets it.
    pub(crate) fn fragments_command(&self, plan: &Plan, meta: &Metadata) -> FfmpegCommand {
        let mut command = self.quiet_command();
        input(&mut command);
        if plan.encode {
            encode_options(&mut command, plan, Target::Quality);
        } else {
            command.args(["-c", "copy"]);
            if plan.audio.is_some() {
                // done by itself only where the head is written last
                command.args(["-bsf:a", "aac_adtstoasc"]);
            }
            // an encode begins at zero by itself
            command.args(["-output_ts_offset", &format!("-{}", BASE / TICKS)]);
        }
        describe(&mut command, meta);
        // the sound says only in its first packet what it is: the head waits for that
        command.args(["-movflags", "frag_keyframe+empty_moov+delay_moov+default_base_moof"]);
        command.args(["-video_track_timescale", "90000", "-max_muxing_queue_size", "4096"]);
        command.args(["-flush_packets", "1", "-f", "mp4", "pipe:1"]);
        command
    }

    /// Runs a command whose standard output is handed on in pieces. However this ends, no process of it is left. Who
    /// takes no piece for the limits' stall time ends it.
    ///
    /// # Errors
    /// As [`Ffmpeg::run`]; `cancelled` also when nobody takes the pieces any more.
    pub(crate) async fn run_to(
        &self,
        command: &mut FfmpegCommand,
        feed: Option<Feed>,
        out: &mpsc::Sender<Result<Bytes>>,
        limits: &Limits,
    ) -> Result<()> {
        let mut gone = false;
        let mut tail = VecDeque::new();
        let watched = Watched::spawn(command, feed)?;
        watched
            .finish(limits, &mut tail, |stdout, pulse| hand_on(stdout, out, pulse, &mut gone))
            .await?;
        if gone {
            return Err(Error::new(Code::Cancelled, "Nobody takes the video any more."));
        }
        Ok(())
    }
}

/// Sets `gone` if nobody takes the pieces any more; the program then ends at its next write.
async fn hand_on(
    stdout: impl AsyncRead + Unpin,
    out: &mpsc::Sender<Result<Bytes>>,
    pulse: Arc<Pulse>,
    gone: &mut bool,
) {
    let mut stdout = stdout;
    loop {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        match stdout.read_buf(&mut piece).await {
            // an error is the end too: the status tells what it was
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        pulse.beat();
        if out.send(Ok(piece.freeze())).await.is_err() {
            *gone = true;
            return;
        }
        pulse.beat();
    }
}
