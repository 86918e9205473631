//! Whether a clip is what was asked for: what the service says of it against what ffprobe finds in the file.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;

use super::Person;
use crate::app::Failure;

/// Two clocks of the same thing may differ by this: a frame at 30 a second, and rounding.
const TOLERANCE: f64 = 0.1;
/// The longest segment's worth of picture before the window that a quick cut brings along, and a frame.
const PREROLL: f64 = 8.5;

/// Prints the clip; answers what is wrong with it.
pub(super) async fn judge(
    person: &Person,
    clip: &Value,
    file: &Path,
    seconds: u32,
) -> Result<Vec<String>, Failure> {
    let found = probe(file).await?;
    let of = |kind: &str| {
        let streams = found["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
        streams.iter().find(|stream| stream["codec_type"] == kind).cloned()
    };
    let (video, audio) = (of("video"), of("audio"));
    let length =
        found["format"]["duration"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    print(clip, &video, &audio, length);

    let mut faults = Vec::new();
    let mut demand = |fits: bool, fault: String| {
        if !fits {
            faults.push(format!("  {}: {fault}", person.name));
        }
    };
    let asked = f64::from(seconds);
    let told = clip["durationSeconds"].as_f64().unwrap_or(0.0);
    demand((length - told).abs() <= TOLERANCE, format!("told {told} s, the file has {length} s"));
    demand(
        told >= asked - TOLERANCE && told <= asked + PREROLL,
        format!("{told} s are not the last {asked} s"),
    );
    let shortfall = clip["shortfallMs"].as_i64().unwrap_or(i64::MAX);
    demand(shortfall <= 100, format!("{shortfall} ms are missing at the end"));
    let gaps = clip["gaps"].as_array().map_or(0, Vec::len);
    demand(gaps == 0, format!("{gaps} gaps"));
    // video sizes are even: an odd window loses its last line or column
    let even = |pixels: u32| u64::from(pixels - pixels % 2);
    let size = video.as_ref().map(|video| (video["width"].as_u64(), video["height"].as_u64()));
    let expected = (Some(even(person.share.width)), Some(even(person.share.height)));
    demand(size == Some(expected), format!("the picture is {size:?}, not {expected:?}"));
    demand(
        audio.is_some() == person.share.audio,
        if person.share.audio {
            "the sound is missing".into()
        } else {
            "sound from nowhere".into()
        },
    );
    Ok(faults)
}

fn print(clip: &Value, video: &Option<Value>, audio: &Option<Value>, length: f64) {
    println!(
        "  service: {} s from {} to {}, preroll {} ms, shortfall {} ms, {} bytes, timings {}",
        clip["durationSeconds"],
        clip["startsAt"].as_str().unwrap_or("-"),
        clip["endsAt"].as_str().unwrap_or("-"),
        clip["prerollMs"],
        clip["shortfallMs"],
        clip["sizeBytes"],
        clip["timings"],
    );
    let picture = video.as_ref().map_or("no picture".to_owned(), |video| {
        format!(
            "{} {}x{} {}",
            video["codec_name"].as_str().unwrap_or("-"),
            video["width"],
            video["height"],
            video["avg_frame_rate"].as_str().unwrap_or("-"),
        )
    });
    let sound = audio.as_ref().and_then(|audio| audio["codec_name"].as_str()).unwrap_or("no sound");
    println!("  ffprobe: {length:.3} s, {picture}, {sound}");
}

async fn probe(file: &Path) -> Result<Value, Failure> {
    let mut command = tokio::process::Command::new("ffprobe");
    command
        .args(["-v", "error", "-show_format", "-show_streams", "-of", "json"])
        .arg(file)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let failed = |text: String| Failure::Failed(format!("demo: ffprobe: {text}"));
    let output = tokio::time::timeout(Duration::from_secs(30), command.output())
        .await
        .map_err(|_| failed("does not end".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}
