//! Reads a media file back with FFmpeg: each frame's time and marker, each beep's time.
//!
//! Times are those of the file as a player would show them: seconds from the file's zero (3600 and up in egress's
//! transport streams, 0 and up in most MP4s; edit lists are obeyed).

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use super::marker::{self, Marker, Rect};
use crate::error::{Error, Result};

/// How long one decoding may take.
const DEADLINE: Duration = Duration::from_secs(300);
/// A beep begins where the loudness first passes this part of its peak …
const ONSET_PART: i32 = 4;
/// … and counts only if it gets this loud at all.
const LOUD: i32 = 3000;
/// Quiet that must precede a beep, in seconds.
const QUIET_SECONDS: f64 = 0.2;

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// Picture size.
    pub width: u32,
    /// Picture size.
    pub height: u32,
    /// All frames in the order of presentation.
    pub frames: Vec<Frame>,
    /// Sound, if there is any.
    pub audio: Option<Audio>,
}

/// One picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// When it is shown, in seconds.
    pub pts: f64,
    /// What it says; `None` when black or destroyed.
    pub marker: Option<Marker>,
    /// Mean brightness of the whole picture, 0–255 (16 is black).
    pub brightness: u8,
}

/// The sound of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// First sample, in seconds.
    pub start: f64,
    /// End of the last sample, in seconds.
    pub end: f64,
    /// Where beeps begin, in seconds.
    pub beeps: Vec<f64>,
}

impl Decoded {
    /// Markers with their times, frames without one left out.
    pub fn markers(&self) -> impl Iterator<Item = (f64, Marker)> + '_ {
        self.frames.iter().filter_map(|frame| frame.marker.map(|marker| (frame.pts, marker)))
    }

    /// Screen clock (milliseconds, with fraction) minus time in the file (milliseconds), from the first marker.
    pub fn screen_offset_ms(&self) -> Option<f64> {
        self.markers().next().map(|(pts, marker)| marker.screen_ms as f64 - pts * 1000.0)
    }
}

/// Decodes a file whose markers fill the whole picture.
pub async fn decode_file(path: &Path) -> Result<Decoded> {
    decode_sources(path, &[]).await
}

/// Decodes a file whose source had one of these sizes (letterboxed into the picture); none: the whole picture.
pub async fn decode_sources(path: &Path, sources: &[(u32, u32)]) -> Result<Decoded> {
    // one slow decode must not hold a test for ever
    match tokio::time::timeout(DEADLINE, decode(path, sources)).await {
        Ok(result) => result,
        Err(elapsed) => Err(Error::internal("decoding a file", elapsed)),
    }
}

async fn decode(path: &Path, sources: &[(u32, u32)]) -> Result<Decoded> {
    let streams = probe(path).await?;
    let mut decoded =
        Decoded { width: streams.width, height: streams.height, ..Decoded::default() };
    if streams.width > 0 {
        let size = (streams.width, streams.height);
        let mut areas: Vec<Rect> =
            sources.iter().map(|source| Rect::letterbox(*source, size)).collect();
        if areas.is_empty() {
            areas.push(Rect::full(size.0, size.1));
        }
        decoded.frames = frames(path, size, &areas).await?;
    }
    if streams.audio {
        decoded.audio = audio(path).await?;
    }
    Ok(decoded)
}

struct Streams {
    width: u32,
    height: u32,
    audio: bool,
}

async fn probe(path: &Path) -> Result<Streams> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_type,width,height", "-of", "json"])
        .arg(input(path))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Error::internal("starting ffprobe", error))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::internal("reading ffprobe's report", error))?;
    let streams = report["streams"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| streams.iter().find(|stream| stream["codec_type"] == kind);
    let size = |name: &str| of("video").and_then(|video| video[name].as_u64()).unwrap_or(0) as u32;
    Ok(Streams { width: size("width"), height: size("height"), audio: of("audio").is_some() })
}

/// `file:` keeps hostile names from being read as a protocol or an option.
fn input(path: &Path) -> std::ffi::OsString {
    let mut name = OsStr::new("file:").to_owned();
    name.push(path);
    name
}

fn ffmpeg(path: &Path, arguments: &[&str]) -> Result<Child> {
    Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-nostats", "-v", "info", "-copyts", "-i"])
        .arg(input(path))
        .args(arguments)
        .arg("pipe:1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::internal("starting ffmpeg", error))
}

async fn frames(path: &Path, (width, height): (u32, u32), areas: &[Rect]) -> Result<Vec<Frame>> {
    let child = ffmpeg(
        path,
        &[
            "-map",
            "0:v:0",
            "-vf",
            "showinfo=checksum=0,extractplanes=y",
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "gray",
        ],
    )?;
    let (stride, length) = (width as usize, width as usize * height as usize);
    let mut read = Vec::new();
    let mut picture = Vec::with_capacity(length);
    let lines = run(child, "showinfo", |bytes| {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let part = bytes.len().min(length - picture.len());
            picture.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            if picture.len() == length {
                let marker = areas.iter().find_map(|area| marker::decode(&picture, stride, *area));
                read.push((marker, brightness(&picture)));
                picture.clear();
            }
        }
    })
    .await?;
    let times = times(&lines, "config in time_base: ");
    Ok(times
        .into_iter()
        .zip(read)
        .map(|((pts, _), (marker, brightness))| Frame { pts, marker, brightness })
        .collect())
}

fn brightness(picture: &[u8]) -> u8 {
    // every 31st pixel tells enough and costs nothing
    let (mut sum, mut count) = (0u64, 0u64);
    for pixel in picture.iter().step_by(31) {
        sum += u64::from(*pixel);
        count += 1;
    }
    (sum / count.max(1)) as u8
}

async fn audio(path: &Path) -> Result<Option<Audio>> {
    let child = ffmpeg(
        path,
        &[
            "-map",
            "0:a:0",
            "-af",
            "aformat=sample_fmts=s16:channel_layouts=mono,ashowinfo",
            "-f",
            "s16le",
            "-c:a",
            "pcm_s16le",
        ],
    )?;
    let mut bytes = Vec::new();
    let lines = run(child, "ashowinfo", |part| bytes.extend_from_slice(part)).await?;
    let samples: Vec<i16> =
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let mut position = 0;
    let mut timed = Vec::with_capacity(samples.len());
    let mut end = 0.0;
    for line in &lines {
        let (Some(pts), Some(rate), Some(count)) =
            (field(line, "pts:"), field(line, "rate:"), field(line, "nb_samples:"))
        else {
            continue;
        };
        for offset in 0..count as usize {
            let Some(sample) = samples.get(position) else { break };
            timed.push(((pts + offset as f64) / rate, i32::from(*sample).abs()));
            position += 1;
        }
        end = (pts + count) / rate;
    }
    Ok(timed.first().map(|first| Audio { start: first.0, end, beeps: beeps(&timed) }))
}

/// Where loudness begins after quiet.
fn beeps(samples: &[(f64, i32)]) -> Vec<f64> {
    let mut onsets = Vec::new();
    let mut last_loud = f64::NEG_INFINITY;
    for (index, (time, level)) in samples.iter().enumerate() {
        if *level < LOUD {
            continue;
        }
        if time - last_loud > QUIET_SECONDS {
            onsets.push(onset(samples, index));
        }
        last_loud = *time;
    }
    onsets
}

/// The first sample near a loud one that passes a quarter of the peak that follows it.
fn onset(samples: &[(f64, i32)], loud: usize) -> f64 {
    let around = &samples[loud.saturating_sub(500)..(loud + 1000).min(samples.len())];
    let peak = around.iter().map(|(_, level)| *level).max().unwrap_or(0);
    let first = around.iter().find(|(_, level)| *level >= peak / ONSET_PART);
    first.map_or(samples[loud].0, |(time, _)| *time)
}

/// Time (seconds) and line of each frame that `showinfo` told of.
fn times<'l>(lines: &'l [String], base: &str) -> Vec<(f64, &'l str)> {
    let unit = lines.iter().find_map(|line| {
        let (numerator, denominator) = line.split_once(base)?.1.split_once('/')?;
        let digits: String = denominator.chars().take_while(char::is_ascii_digit).collect();
        Some(numerator.trim().parse::<f64>().ok()? / digits.parse::<f64>().ok()?)
    });
    let Some(unit) = unit else { return Vec::new() };
    let pts = |line: &'l String| field(line, "pts:").map(|pts| (pts * unit, line.as_str()));
    lines.iter().filter_map(pts).collect()
}

/// The number after a name in a line of `showinfo`.
fn field(line: &str, name: &str) -> Option<f64> {
    let (_, rest) = line.split_once(&format!(" {name}"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Reads both pipes to their ends; gives the lines of one filter. A decoder that fails is an error, damage is not.
async fn run(mut child: Child, filter: &str, mut take: impl FnMut(&[u8])) -> Result<Vec<String>> {
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::internal("decoding a file", "pipes are missing"));
    };
    let mark = format!("Parsed_{filter}_");
    let pictures = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match stdout.read(&mut buffer).await? {
                0 => return std::io::Result::Ok(()),
                count => take(&buffer[..count]),
            }
        }
    };
    let told = async {
        // bytes: FFmpeg cuts long titles off anywhere, also inside a letter
        let mut lines = BufReader::new(stderr).split(b'\n');
        let mut kept = Vec::new();
        while let Some(line) = lines.next_segment().await? {
            let line = String::from_utf8_lossy(&line);
            if line.contains(&mark) {
                kept.push(line.into_owned());
            }
        }
        std::io::Result::Ok(kept)
    };
    let (read, lines) = tokio::join!(pictures, told);
    let failed = |error: std::io::Error| Error::internal("decoding a file", error);
    read.map_err(failed)?;
    child.wait().await.map_err(failed)?;
    lines.map_err(failed)
}
