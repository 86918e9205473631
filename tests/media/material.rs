//! Recordings whose every picture carries its number and whose every second begins with a beep, made by the real
//! FFmpeg; and the reading back of what a clip shows.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use livekit_replay::media::{
    compose::{CutPart, SegmentFile},
    ts::{SegmentFacts, inspect, unwrap_pts},
};
use rand::{Rng, SeedableRng};

use crate::picture::{self, RATE};

pub const FPS: i64 = 30;
pub const FRAME: i64 = 90_000 / FPS;

/// A directory of this test alone.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a recording is like.
#[derive(Clone, Copy)]
pub struct Kind {
    pub size: (usize, usize),
    pub segment_seconds: i64,
    pub seconds: i64,
    pub audio: bool,
    /// Number of the first picture: a whole second.
    pub first_number: i64,
    /// Where the time stamps begin, in seconds.
    pub offset_seconds: i64,
    /// Further options of the encoder, between spaces.
    pub options: &'static str,
    /// A soft noise besides the beeps: no two frames of sound are alike.
    pub hiss: bool,
}

pub const TWO_SECONDS: Kind = Kind {
    size: (320, 180),
    segment_seconds: 2,
    seconds: 16,
    audio: true,
    first_number: 0,
    offset_seconds: 3600,
    options: "",
    hiss: false,
};

/// A recording on disk.
pub struct Recording {
    pub segments: Vec<(PathBuf, SegmentFacts, i64)>,
    pub kind: Kind,
}

impl Recording {
    /// Made once and kept for all tests: the name says all that decides its bytes.
    pub fn make(kind: Kind) -> Recording {
        let Kind { size, segment_seconds, seconds, audio, first_number, offset_seconds, .. } = kind;
        let more: String = kind.options.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!(
            "recording-{}x{}-{segment_seconds}-{seconds}-{audio}-{first_number}-{offset_seconds}{}{more}",
            size.0,
            size.1,
            if kind.hiss { "-hiss" } else { "" }
        );
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !place.exists() {
            let draft = Scratch::new();
            encode(kind, &draft.0);
            // another test may have been faster
            let _ = fs::rename(&draft.0, &place);
        }
        let recording = Recording::read(&place, kind, |index| format!("{index:03}.ts"));
        assert_eq!(recording.segments.len() as i64, seconds / segment_seconds);
        recording
    }

    /// One of `tests/fixtures/material`, made by egress's own muxer.
    pub fn fixture(name: &str, segment_seconds: i64, audio: bool, first_number: i64) -> Recording {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/material");
        let kind = Kind { segment_seconds, seconds: 32, audio, first_number, ..TWO_SECONDS };
        Recording::read(&root.join(name), kind, |index| format!("seg_{index:05}.ts"))
    }

    fn read(place: &Path, kind: Kind, name: impl Fn(usize) -> String) -> Recording {
        let mut segments = Vec::new();
        let mut reference = kind.offset_seconds * 90_000;
        for index in 0.. {
            let path = place.join(name(index));
            let Ok(bytes) = fs::read(&path) else { break };
            let facts = inspect(&bytes).unwrap();
            let start = unwrap_pts(facts.pts_first, reference);
            reference = start + (facts.pts_end - facts.pts_first);
            segments.push((path, facts, start));
        }
        assert!(!segments.is_empty(), "no segment in {}", place.display());
        Recording { segments, kind }
    }

    /// When the picture of this number is shown.
    pub fn pts_of(&self, number: i64) -> i64 {
        self.segments[0].2 + (number - self.kind.first_number) * FRAME
    }

    /// The number of the picture that begins then; time stamps are a tick beside the grid here and there.
    pub fn number_at(&self, pts: i64) -> i64 {
        (pts - self.segments[0].2 + FRAME / 2).div_euclid(FRAME) + self.kind.first_number
    }

    /// Numbers of all key frames.
    pub fn keys(&self) -> Vec<i64> {
        let of = |(_, facts, start): &(PathBuf, SegmentFacts, i64)| {
            let keys = facts.key_frames.iter().map(|key| key.pts - facts.pts_first + start);
            keys.map(|pts| self.number_at(pts)).collect::<Vec<_>>()
        };
        self.segments.iter().flat_map(of).collect()
    }

    pub fn part(&self, segments: std::ops::Range<usize>, from_pts: i64, to_pts: i64) -> CutPart {
        let file = |(path, _, start): &(PathBuf, SegmentFacts, i64)| SegmentFile {
            path: path.clone(),
            pts_start_unwrapped: *start,
            checksum: None,
        };
        CutPart { segments: self.segments[segments].iter().map(file).collect(), from_pts, to_pts }
    }
}

fn encode(kind: Kind, out: &Path) {
    let (width, height) = kind.size;
    let frames = kind.seconds * FPS;
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray"]);
    command.args(["-s", &format!("{width}x{height}"), "-r", &FPS.to_string(), "-i", "pipe:0"]);
    if kind.audio {
        let sound = out.join("sound.raw");
        fs::write(&sound, beeps(kind)).unwrap();
        command.args(["-f", "s16le", "-ar", "48000", "-ac", "2", "-i"]).arg(sound);
        command.args(["-c:a", "aac", "-b:a", "128k"]);
    }
    command.args(["-pix_fmt", "yuv420p", "-c:v", "libx264", "-profile:v", "main"]);
    command.args(["-preset", "superfast", "-bf", "3", "-crf", "23"]);
    // as the egress does: a key frame where a segment begins, else x264's own maximum
    command.args(["-x264-params", "keyint=250:scenecut=0:b-pyramid=normal"]);
    command.args(kind.options.split_whitespace());
    let seconds = kind.segment_seconds;
    command.args(["-force_key_frames", &format!("expr:gte(t,n_forced*{seconds})")]);
    let cuts: Vec<_> =
        (1..kind.seconds / seconds).map(|at| (at * seconds * FPS).to_string()).collect();
    command.args(["-f", "segment", "-segment_frames", &cuts.join(",")]);
    command.args(["-segment_format", "mpegts", "-muxdelay", "0", "-muxpreload", "0"]);
    command.args(["-output_ts_offset", &kind.offset_seconds.to_string()]);
    let mut child = command.arg(out.join("%03d.ts")).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for number in kind.first_number..kind.first_number + frames {
        stdin.write_all(&picture::picture(number, width, height, 0)).unwrap();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn beeps(kind: Kind) -> Vec<u8> {
    let mut noise = rand::rngs::StdRng::seed_from_u64(1);
    let mut hiss = || if kind.hiss { noise.random_range(-900..900) } else { 0 };
    let samples = (0..kind.seconds as usize * RATE).map(|at| picture::sample(at) + hiss());
    samples.flat_map(|value| [value, value]).flat_map(i16::to_le_bytes).collect()
}

/// What a clip shows.
#[derive(Debug)]
pub struct Seen {
    /// Number and time in seconds of every picture.
    pub pictures: Vec<(i64, f64)>,
    /// When each beep begins, in seconds.
    pub beeps: Vec<f64>,
    /// Length of the decoded sound in seconds.
    pub sound_seconds: f64,
}

impl Seen {
    pub fn numbers(&self) -> Vec<i64> {
        self.pictures.iter().map(|(number, _)| *number).collect()
    }

    /// Longest distance of two pictures, in seconds.
    pub fn longest_gap(&self) -> f64 {
        let gaps = self.pictures.windows(2).map(|pair| pair[1].1 - pair[0].1);
        gaps.fold(0.0, f64::max)
    }

    /// Worst distance between a beep and its picture, in seconds; beeps cut by a join or the start do not count.
    pub fn worst_sync(&self) -> f64 {
        let seconds = self.pictures.iter().filter(|(number, _)| number % FPS == 0);
        let mut worst = 0.0f64;
        for (number, time) in seconds {
            // the picture before must be there too, else the beep may have begun outside
            if !self.pictures.iter().any(|(other, _)| *other == number - 1) {
                continue;
            }
            if time + 0.1 > self.sound_seconds {
                continue;
            }
            let nearest = self
                .beeps
                .iter()
                .map(|beep| beep - time)
                .min_by(|a, b| a.abs().total_cmp(&b.abs()));
            let off = nearest.expect("there is sound");
            worst = if off.abs() > worst.abs() { off } else { worst };
        }
        worst
    }
}

const CELLS_ONLY: &str = "crop=iw:ih/9:0:0,scale=20:1:flags=area,format=gray,showinfo";
const SOUND_ON_ITS_TIME: &str = "aresample=48000:async=1:min_hard_comp=0.01:first_pts=0";

/// Decodes a whole clip, which may have sound or not.
pub fn watch(file: &Path, input: &[&str]) -> Seen {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-copyts"]).args(input).arg("-i").arg(file);
    command.args(["-map", "0:a:0?", "-af", SOUND_ON_ITS_TIME, "-ac", "1", "-f", "s16le", "-"]);
    let sound = command.output().unwrap().stdout;
    watch_pictures(file, input, &[], || sound)
}

/// The same in one pass, for those who know whether there is sound.
pub fn watch_once(file: &Path, input: &[&str], audio: bool) -> Seen {
    if !audio {
        return watch_pictures(file, input, &[], Vec::new);
    }
    let raw = file.with_extension(format!("{}.raw", uuid::Uuid::new_v4().simple()));
    let name = raw.to_str().unwrap();
    let sound = ["-map", "0:a:0", "-af", SOUND_ON_ITS_TIME, "-ac", "1", "-f", "s16le", "-y", name];
    watch_pictures(file, input, &sound, || {
        let bytes = fs::read(&raw).unwrap();
        fs::remove_file(&raw).unwrap();
        bytes
    })
}

fn watch_pictures(
    file: &Path,
    input: &[&str],
    more: &[&str],
    sound: impl FnOnce() -> Vec<u8>,
) -> Seen {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-copyts"]).args(input).arg("-i").arg(file);
    command.args(["-map", "0:v:0", "-vf", CELLS_ONLY, "-fps_mode", "passthrough"]);
    let video = command.args(["-f", "rawvideo", "-"]).args(more).output().unwrap();
    let log = String::from_utf8_lossy(&video.stderr).into_owned();
    assert!(video.status.success(), "{log}");
    for bad in ["error while decoding", "concealing", "Invalid data", "non monoton"] {
        assert!(!log.contains(bad), "{log}");
    }
    // only the filter's lines of pictures have both
    let lines = log.lines().filter(|line| line.contains("showinfo") && line.contains(" n:"));
    let times = lines.filter_map(|line| line.split_once("pts_time:"));
    let times = times.map(|(_, rest)| rest.split_whitespace().next().unwrap().parse().unwrap());
    let pictures = video.stdout.chunks(20).map(number_of).zip(times).collect();
    let sound = sound();
    let levels: Vec<_> = sound.chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
    Seen { pictures, beeps: beginnings(&levels), sound_seconds: levels.len() as f64 / RATE as f64 }
}

/// Where it gets loud after a silence, in seconds.
fn beginnings(levels: &[i16]) -> Vec<f64> {
    let mut beeps = Vec::new();
    let mut quiet = RATE;
    for (at, level) in levels.iter().enumerate() {
        if level.unsigned_abs() > 4000 {
            if quiet > RATE / 50 {
                beeps.push(at as f64 / RATE as f64);
            }
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    beeps
}

fn number_of(cells: &[u8]) -> i64 {
    picture::number_of(cells).unwrap_or_else(|| panic!("unreadable: {cells:?}"))
}

/// Ids of processes whose command line names this.
pub fn processes_naming(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let named = entries.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    });
    named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
