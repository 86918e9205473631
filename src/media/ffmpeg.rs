//! FFmpeg as a child process: started in its own group, watched, ended for certain, its words kept for the log.
//!
//! FFmpeg's exit status says little (it is 0 on every kind of damaged input): outputs are checked in `verify`.

mod fragments;
mod recipes;
mod run;

use std::{path::PathBuf, time::Duration};

use ffmpeg_sidecar::command::FfmpegCommand;
use tokio_util::sync::CancellationToken;

pub(crate) use recipes::CAPPED_AUDIO_BITS;
pub use recipes::{Metadata, Target};
pub(super) use run::Running;
pub use run::{Feed, Finished};
pub(super) use run::{make_way, stalled};

use crate::error::{Code, Error, Result};

/// The program, and nothing else: it keeps no state between runs.
#[derive(Debug, Clone)]
pub struct Ffmpeg {
    program: PathBuf,
}

/// How long a run may take, and who may end it early.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For the whole run.
    pub deadline: Duration,
    /// Without any progress: no byte taken, none written, no time passed in the output.
    pub stall: Duration,
    /// Ends the run with `cancelled`.
    pub cancel: CancellationToken,
}

/// What [`Ffmpeg::check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// As FFmpeg tells it, for instance `5.1.9-0+deb12u1`.
    pub version: String,
    /// What we need and this build lacks, for instance `encoder libx264`; empty is good.
    pub missing: Vec<String>,
}

/// List option, word before the name in messages, names.
const NEEDED: [(&str, &str, &[&str]); 5] = [
    ("-demuxers", "demuxer", &["mpegts", "mov"]),
    ("-muxers", "muxer", &["mp4", "null", "image2"]),
    ("-decoders", "decoder", &["h264", "aac"]),
    ("-encoders", "encoder", &["libx264", "aac", "mjpeg"]),
    ("-filters", "filter", &["select", "setpts", "scale", "pad", "atrim", "aresample"]),
];

impl Ffmpeg {
    /// The program at this path, or of this name on the search path.
    pub fn new(program: impl Into<PathBuf>) -> Ffmpeg {
        Ffmpeg { program: program.into() }
    }

    /// A command with the options that every run has.
    pub(super) fn command(&self) -> FfmpegCommand {
        let mut command = FfmpegCommand::new_with_path(&self.program);
        command.hide_banner().args(["-nostats", "-v", "warning", "-progress", "pipe:1"]);
        command
    }

    /// The same for one whose standard output is the file itself.
    pub(super) fn quiet_command(&self) -> FfmpegCommand {
        let mut command = FfmpegCommand::new_with_path(&self.program);
        command.hide_banner().args(["-nostats", "-v", "warning"]);
        command
    }

    /// Asks the program who it is and what it can do.
    ///
    /// # Errors
    /// `ffmpeg_failed` if it cannot be run at all.
    pub async fn check(&self, limits: &Limits) -> Result<Installed> {
        let first = self.ask("-version", limits).await?;
        let line = first.lines().next().unwrap_or_default();
        let version = line.split_whitespace().nth(2).unwrap_or("unknown").to_owned();
        let mut missing = Vec::new();
        for (option, word, names) in NEEDED {
            let list = self.ask(option, limits).await?;
            for name in names {
                let has = |line: &str| {
                    let mut words = line.split_whitespace();
                    let found = words.nth(1).unwrap_or_default();
                    found.split(',').any(|found| found == *name)
                };
                if !list.lines().any(has) {
                    missing.push(format!("{word} {name}"));
                }
            }
        }
        let help = self.ask_all(&["-h", "muxer=mp4"], limits).await?;
        if !help.contains("movie_timescale") {
            missing.push("option movie_timescale".to_owned());
        }
        Ok(Installed { version, missing })
    }

    /// Whether the program does what it is for: it is given one picture and must tell its checksum. One that is missing,
    /// hangs, crashes or answers rubbish is found in the time of its start.
    ///
    /// # Errors
    /// `ffmpeg_failed` with what is wrong as the private cause, `cancelled`.
    pub async fn prove(&self, limits: &Limits) -> Result<()> {
        const PICTURE: [u8; 64] = [0x5a; 64];
        let mut command = FfmpegCommand::new_with_path(&self.program);
        command.args(["-hide_banner", "-nostats", "-v", "error", "-f", "rawvideo"]);
        command.args(["-pixel_format", "gray", "-video_size", "8x8"]).input("pipe:0");
        command.args(["-c", "copy", "-f", "framecrc", "pipe:1"]);
        let (send, feed) = tokio::sync::mpsc::channel(1);
        // there is room for one
        let _ = send.try_send(PICTURE.to_vec());
        drop(send);
        let done = self.run(&mut command, Some(feed), limits).await?;
        // FFmpeg's own format for checksums: stream, decoding time, time, duration, bytes, Adler-32
        let told = format!("0,0,0,1,64,0x{:08x}", adler32(&PICTURE));
        if done.stdout.lines().any(|line| line.replace(' ', "") == told) {
            return Ok(());
        }
        Err(failed(
            "FFmpeg does not work.",
            format!("of a known picture it said {:?}", done.stdout),
        ))
    }

    async fn ask(&self, option: &str, limits: &Limits) -> Result<String> {
        self.ask_all(&[option], limits).await
    }

    async fn ask_all(&self, options: &[&str], limits: &Limits) -> Result<String> {
        let mut command = FfmpegCommand::new_with_path(&self.program);
        command.args(["-hide_banner", "-nostdin"]).args(options);
        Ok(self.run(&mut command, None, limits).await?.stdout)
    }
}

/// As FFmpeg counts it, from zero.
fn adler32(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 65_521;
    let (low, high) = bytes.iter().fold((0, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % PRIME;
        (low, (high + low) % PRIME)
    });
    high << 16 | low
}

/// The public face of every failure of FFmpeg; the cause stays private.
pub(super) fn failed(
    detail: &'static str,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(Code::FfmpegFailed, detail).because(cause)
}
