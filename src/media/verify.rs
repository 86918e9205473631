//! Nothing becomes visible unchecked: a finished file is read back and its edges are decoded.

use std::{fs, io, path::Path};

use super::{
    TICKS,
    edges::EdgeCheck,
    ffmpeg::{Ffmpeg, Limits, failed},
    mp4::{self, Mp4, Track},
    native, ticks_to_micros,
};
use crate::error::{Code, Error, Result};

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Presented length in ticks.
    pub duration: i64,
    /// Length of a picture in ticks: how far the length may be off.
    pub frame_duration: i64,
    /// Pictures shown.
    pub presented: u64,
    /// Pictures stored.
    pub stored: u64,
    /// Whether there must be sound.
    pub audio: bool,
}

/// What a checked file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Presented length.
    pub duration_us: i64,
    /// First picture, from the presentation's start: zero but for rounding.
    pub first_pts_us: i64,
    /// Last picture, from the presentation's start.
    pub last_pts_us: i64,
    /// Pictures shown.
    pub frames: u64,
    /// Of the file.
    pub size_bytes: u64,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `h264`.
    pub video_codec: String,
    /// `aac`, or none without sound.
    pub audio_codec: Option<String>,
    /// Hash of the whole file, hex.
    pub blake3: String,
}

/// Checks a finished file.
///
/// # Errors
/// `ffmpeg_failed` with what is wrong as the private cause.
pub async fn verify(
    ffmpeg: &Ffmpeg,
    path: &Path,
    expected: &Expected,
    limits: &Limits,
) -> Result<Verified> {
    let file = path.to_owned();
    let hashed = native::run(&patient(limits), move |_| hash(&file))
        .await?
        .map_err(|error| unfit(format!("it cannot be read: {error}")))?;
    let edges = EdgeCheck::begin(ffmpeg, path, expected.duration)?;
    verify_hashed(edges, path, hashed, expected, limits).await
}

/// Checks a file whose hash is known from writing it, with a decoder that waits for it: of the file itself only the
/// index and the edges are read.
///
/// # Errors
/// As [`verify`].
pub(super) async fn verify_hashed(
    edges: EdgeCheck,
    path: &Path,
    blake3: String,
    expected: &Expected,
    limits: &Limits,
) -> Result<Verified> {
    let (examined, decoded) =
        tokio::join!(examine(path, blake3, expected, limits), edges.end(limits));
    // what the index says is the plainer reason
    let (_, verified) = examined?;
    decoded.map(|()| verified)
}

/// Reads a file's index and compares what it says with what is expected; nothing is decoded.
///
/// # Errors
/// As [`verify`].
pub(super) async fn examine(
    path: &Path,
    blake3: String,
    expected: &Expected,
    limits: &Limits,
) -> Result<(Mp4, Verified)> {
    let file = path.to_owned();
    let read = native::run(&patient(limits), move |_| mp4::read(&file))
        .await?
        .map_err(|error| unfit(format!("it cannot be read: {error}")))?;
    let verified = judge(&read, expected, blake3)?;
    Ok((read, verified))
}

/// A file system says nothing while it works.
pub(super) fn patient(limits: &Limits) -> Limits {
    Limits { stall: limits.deadline, ..limits.clone() }
}

pub(super) fn unfit(why: String) -> Error {
    failed("The finished video did not pass its check.", why)
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn judge(read: &Mp4, expected: &Expected, blake3: String) -> Result<Verified> {
    let say = |why: &str| Err(unfit(why.to_owned()));
    let Some(video) = read.track(b"vide") else { return say("it has no pictures") };
    let audio = read.track(b"soun");
    if !read.index_in_front {
        return say("its index is not in front");
    }
    if &video.codec != b"avc1" || video.sample_entries != 1 {
        return say("its pictures are not plain H.264");
    }
    if audio.is_none_or(|track| track.samples == 0) && expected.audio {
        return say("it has no sound");
    }
    if video.sync_samples.as_ref().is_some_and(|sync| sync.first() != Some(&1)) {
        return say("its first picture is not marked as a key frame");
    }
    let (stored, presented) = (u64::from(video.samples), u64::from(video.presented));
    if stored != expected.stored || presented != expected.presented {
        return Err(unfit(format!(
            "{stored} pictures stored and {presented} shown instead of {} and {}",
            expected.stored, expected.presented
        )));
    }
    let duration = scaled(i64::try_from(read.duration).unwrap_or(0), read.timescale);
    if (duration - expected.duration).abs() > expected.frame_duration {
        return Err(unfit(format!("it lasts {duration} ticks instead of {}", expected.duration)));
    }
    let first = scaled(video.first_pts, video.timescale);
    if first.abs() > expected.frame_duration {
        return Err(unfit(format!("its first picture comes {first} ticks late")));
    }
    Ok(Verified {
        duration_us: ticks_to_micros(duration),
        first_pts_us: ticks_to_micros(first),
        last_pts_us: ticks_to_micros(scaled(video.last_pts, video.timescale)),
        frames: presented,
        size_bytes: read.size_bytes,
        width: video.width,
        height: video.height,
        video_codec: "h264".to_owned(),
        audio_codec: audio.map(codec_name),
        blake3,
    })
}

fn codec_name(track: &Track) -> String {
    match &track.codec {
        b"mp4a" => "aac".to_owned(),
        other => other.iter().map(|byte| char::from(byte & 0x7f)).collect(),
    }
}

fn scaled(time: i64, timescale: u32) -> i64 {
    let ticks = i128::from(time) * i128::from(TICKS) / i128::from(timescale.max(1));
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

/// Whether every picture of a segment decodes without a complaint. Costs a whole decode: for when something went wrong.
///
/// # Errors
/// `cancelled`; that FFmpeg fails is an answer.
pub async fn decodes(ffmpeg: &Ffmpeg, segment: &Path, limits: &Limits) -> Result<bool> {
    let mut command = ffmpeg.command();
    command.args(["-nostdin", "-xerror", "-err_detect", "explode", "-an"]).arg("-i").arg(segment);
    command.args(["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "null", "-"]);
    match ffmpeg.run(&mut command, None, limits).await {
        Ok(done) => Ok(!complains(&done.complaints)),
        Err(error) if error.code() == Code::Cancelled => Err(error),
        Err(_) => Ok(false),
    }
}

/// Whether FFmpeg said of any picture that it does not decode.
pub(super) fn complains(said: &[String]) -> bool {
    said.iter().any(|line| is_complaint(line))
}

/// Options of an input that make FFmpeg begin at the key frame at or before this moment, and with it. It goes 3/23 s
/// back by itself where pictures are reordered, which would find the key frame before.
pub(super) fn key_frame_at(micros: i64) -> [String; 3] {
    const BACK_US: i64 = 3_000_000 / 23 + 1_000;
    let at = micros.saturating_add(BACK_US);
    ["-noaccurate_seek".to_owned(), "-ss".to_owned(), format!("{at}us")]
}

/// FFmpeg's own words for pictures that do not decode.
fn is_complaint(line: &str) -> bool {
    ["error while decoding", "concealing", "Invalid data", "corrupt", "non-existing"]
        .iter()
        .any(|words| line.contains(words))
}
