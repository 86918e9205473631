//! The command lines: what we ask of FFmpeg, and why each option is there.

use std::path::Path;

use ffmpeg_sidecar::command::FfmpegCommand;

use super::Ffmpeg;
use crate::{
    domain::time::Timestamp,
    media::{
        TICKS,
        compose::{BASE, Plan},
    },
};

/// Bits per second of the sound where the file's size is limited.
pub(crate) const CAPPED_AUDIO_BITS: u64 = 96_000;

/// What is written into the file about itself.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// By the user; any text.
    pub title: Option<String>,
    /// When the first picture was on the screen.
    pub started_at: Option<Timestamp>,
}

/// What an encode aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Even quality, whatever it takes.
    Quality,
    /// A picture bitrate in bits per second that may not be exceeded.
    Bitrate(u64),
}

impl Ffmpeg {
    /// Copies a joined stream on standard input into an MP4.
    pub(crate) fn copy_command(&self, meta: &Metadata, out: &Path) -> FfmpegCommand {
        let mut command = self.command();
        input(&mut command);
        command.args(["-c", "copy"]);
        output(&mut command, meta, out);
        command
    }

    /// Encodes a spaced stream on standard input into an MP4.
    ///
    /// All filters work with constants only: a change of picture size in the middle builds the filter chain anew,
    /// and anything that counts or remembers would begin again.
    pub(crate) fn encode_command(
        &self,
        plan: &Plan,
        target: Target,
        meta: &Metadata,
        out: &Path,
    ) -> FfmpegCommand {
        let mut command = self.command();
        input(&mut command);
        encode_options(&mut command, plan, target);
        output(&mut command, meta, out);
        command
    }
}

pub(super) fn encode_options(command: &mut FfmpegCommand, plan: &Plan, target: Target) {
    command.args(["-vf", &picture_filter(plan)]);
    // every picture once, at its own time: no rate is forced, and times are not rounded to one
    command.args(["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
    command.codec_video("libx264").preset("veryfast").pix_fmt("yuv420p");
    command.args(["-profile:v", "high", "-g", "120"]);
    match target {
        Target::Quality => command.crf(18),
        Target::Bitrate(bits) => {
            let rate = bits.to_string();
            command.args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate])
        }
    };
    if let Some(format) = plan.audio {
        command.args(["-af", &sound_filter(plan)]);
        let rate = if target == Target::Quality { 160_000 } else { CAPPED_AUDIO_BITS };
        command.codec_audio("aac").args(["-b:a", &rate.to_string()]);
        let channels = if format.channels == 1 { "1" } else { "2" };
        command.args(["-ar", &format.rate.to_string(), "-ac", channels]);
    }
}

pub(super) fn input(command: &mut FfmpegCommand) {
    // the stream is ours: its times are to be taken as they are, jumps included
    command.args(["-copyts", "-f", "mpegts"]).input("pipe:0");
    command.args(["-map", "0:v:0", "-map", "0:a:0?", "-map_metadata", "-1"]);
}

/// What the file says of itself.
pub(super) fn describe(command: &mut FfmpegCommand, meta: &Metadata) {
    if let Some(time) = meta.started_at {
        let time = time.to_rfc3339();
        command.args(["-metadata", &format!("creation_time={time}")]);
        command.args(["-metadata", &format!("date={time}")]);
    }
    if let Some(title) = &meta.title {
        // a single argument behind a fixed prefix: never an option, never a shell word
        let title: String = title.chars().filter(|letter| !letter.is_control()).collect();
        command.args(["-metadata", &format!("title={title}")]);
    }
}

fn output(command: &mut FfmpegCommand, meta: &Metadata, out: &Path) {
    describe(command, meta);
    command.args(["-movflags", "+faststart", "-use_editlist", "1"]);
    command.args(["-movie_timescale", "90000", "-video_track_timescale", "90000"]);
    // sound may lie behind the pictures by more than the muxer's queue holds by default
    command.args(["-max_muxing_queue_size", "4096"]);
    command.args(["-f", "mp4"]).overwrite().arg(out);
}

/// Keeps the window's pictures, puts them where they belong, and gives all the same size.
fn picture_filter(plan: &Plan) -> String {
    let moves = plan.picture_moves();
    let keep: Vec<_> =
        moves.iter().map(|m| format!("gte(pts,{})*lt(pts,{})", m.from, m.to)).collect();
    let back: Vec<_> =
        moves.iter().map(|m| format!("{}*gte(PTS,{})*lt(PTS,{})", m.back, m.from, m.to)).collect();
    let (width, height) = plan.size;
    format!(
        "select='{}',setpts='PTS-({})',scale=w={width}:h={height}:force_original_aspect_ratio=decrease,\
         pad=w={width}:h={height}:x=(ow-iw)/2:y=(oh-ih)/2,setsar=1",
        keep.join("+"),
        back.join("+")
    )
}

/// The sound is on the clip's time line already: cut to its length, holes filled.
fn sound_filter(plan: &Plan) -> String {
    let seconds = BASE / TICKS;
    let end = ticks_as_seconds(plan.duration);
    format!(
        "asetpts=PTS-{seconds}/TB,atrim=start=0:end={end},aresample=async=1:min_hard_comp=0.005:first_pts=0"
    )
}

/// Ticks as decimal seconds with microseconds.
fn ticks_as_seconds(ticks: i64) -> String {
    let micros = crate::media::ticks_to_micros(ticks).max(0);
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
