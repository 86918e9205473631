//! One egress's media: draws the screen in real time, pipes it through the real FFmpeg and reports closed segments.
//!
//! The transport streams look like those of egress's muxer: time stamps from 3600 s up without a break, video on PID
//! 0x41 and audio on 0x42, the program table on 0x20, two B-frames, no scene cuts, a key frame at each segment's
//! start and otherwise only x264's 250-frame maximum. Segments are written into a private directory; `release` copies
//! them out when egress would.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{FileType, Mode},
    process::{Pid, Signal, kill_process_group, setpriority_process},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{egress_state::Control, marker::Marker, screen::Screen, world::Track};

/// What to encode.
pub(super) struct Plan {
    pub(super) ffmpeg: PathBuf,
    pub(super) preset: String,
    /// Private directory for growing segments; exists.
    pub(super) scratch: PathBuf,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frames_per_second: u32,
    pub(super) video_kbps: u32,
    pub(super) audio_kbps: u32,
    pub(super) audio_rate: u32,
    pub(super) segment_seconds: u32,
    pub(super) video: Arc<Track>,
    /// `None`: the stream has no audio at all.
    pub(super) audio: Option<Vec<Arc<Track>>>,
    /// The first frame's moment: screen clock and monotonic clock.
    pub(super) start_ms: u64,
    pub(super) start: Instant,
    /// Where it is noted how well this machine keeps up.
    pub(super) control: Arc<Control>,
}

impl Plan {
    /// Whether any sound is still published.
    fn has_sound(&self) -> bool {
        self.audio.iter().flatten().any(|track| !track.is_gone())
    }
}

/// How long an encoder that was told to end may take (a real egress gives its pipeline 30 s).
const FROZEN: Duration = Duration::from_secs(10);

/// A segment that FFmpeg has closed; times in seconds since the first frame.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Closed {
    pub(super) index: u32,
    pub(super) file: PathBuf,
    pub(super) start: f64,
    pub(super) end: f64,
}

/// Encodes until `finish` (flushes, all segments reported) or `abort` (killed at once). The error is FFmpeg's text.
pub(super) async fn run(
    plan: Plan,
    closed: mpsc::UnboundedSender<Closed>,
    finish: CancellationToken,
    abort: CancellationToken,
) -> Result<(), String> {
    let sound = match &plan.audio {
        Some(_) => Some(Sound::open(&plan).map_err(|error| format!("audio pipe: {error}"))?),
        None => None,
    };
    let mut child = spawn(&plan).map_err(|error| format!("starting ffmpeg: {error}"))?;
    let group = child.id();
    let (stdin, stdout, stderr) = pipes(&mut child)?;
    let work = async {
        let (_, (), reported, complaints) = tokio::join!(
            feed_video(&plan, stdin, &finish),
            feed_audio(&plan, sound, &finish),
            report(&plan.scratch, stdout, closed),
            read_complaints(stderr),
        );
        let status = child.wait().await.map_err(|error| error.to_string())?;
        match (status.success(), reported, finish.is_cancelled()) {
            (true, Ok(()), true) => Ok(()),
            (true, Err(error), _) => Err(error.to_string()),
            _ => Err(format!("ffmpeg ended with {status}: {complaints}")),
        }
    };
    let frozen = async {
        finish.cancelled().await;
        tokio::time::sleep(FROZEN).await;
    };
    tokio::select! {
        result = work => result,
        // told to end before it had opened its second input, it waits for ever; a real pipeline does so too
        () = frozen => {
            kill_group(group);
            child.wait().await.map_err(|error| error.to_string())?;
            Err("pipeline frozen".to_owned())
        }
        () = abort.cancelled() => {
            kill_group(group);
            // the zombie is collected here; the kill above leaves nothing to wait for
            child.wait().await.map(|_| ()).map_err(|error| error.to_string())
        }
    }
}

/// Egress has a machine of its own; here it must not take the time of a service under test, nor come before the FFmpeg
/// of that service, which has this niceness too.
const NICENESS: i32 = 10;

fn spawn(plan: &Plan) -> std::io::Result<Child> {
    let child = Command::new(&plan.ffmpeg)
        .args(arguments(plan))
        .current_dir(&plan.scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // a courtesy: it works without
        let _ = setpriority_process(Some(pid), NICENESS);
    }
    Ok(child)
}

fn pipes(child: &mut Child) -> Result<(ChildStdin, ChildStdout, ChildStderr), String> {
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok((stdin, stdout, stderr)),
        _ => Err("ffmpeg's pipes are missing".to_owned()),
    }
}

fn arguments(plan: &Plan) -> Vec<String> {
    let mut list = Vec::new();
    let mut add = |text: String| list.extend(text.split(' ').map(str::to_owned));
    add("-v error -nostdin -y".to_owned());
    add(format!(
        "-thread_queue_size 8 -probesize 32 -f rawvideo -pix_fmt yuv420p -video_size {}x{} -framerate {} -i pipe:0",
        plan.width, plan.height, plan.frames_per_second
    ));
    if plan.audio.is_some() {
        add(format!(
            "-thread_queue_size 64 -probesize 32 -f s16le -ar {} -ac 2 -i {AUDIO_PIPE}",
            plan.audio_rate
        ));
    }
    add("-map 0:v".to_owned());
    add(format!(
        "-c:v libx264 -preset {} -profile:v main -bf 2 -threads 1 -b:v {rate}k -maxrate {rate}k -bufsize {buffer}k",
        plan.preset,
        rate = plan.video_kbps,
        buffer = plan.video_kbps * plan.segment_seconds.clamp(1, 10),
    ));
    add("-x264-params keyint=250:scenecut=0:b-adapt=0:b-pyramid=none:rc-lookahead=0:repeat-headers=1".to_owned());
    add(format!("-forced-idr 1 -force_key_frames expr:gte(t,n_forced*{})", plan.segment_seconds));
    if plan.audio.is_some() {
        add(format!("-map 1:a -c:a aac -b:a {}k", plan.audio_kbps));
    }
    add("-avoid_negative_ts disabled -muxdelay 0 -muxpreload 0 -f segment -segment_format mpegts"
        .to_owned());
    add("-segment_format_options mpegts_start_pid=0x41:mpegts_pmt_start_pid=0x20:mpegts_copyts=1"
        .to_owned());
    add(format!(
        "-segment_time {} -segment_time_delta 0.005 -initial_offset 3600",
        plan.segment_seconds
    ));
    add("-segment_list pipe:1 -segment_list_type csv %d.ts".to_owned());
    list
}

/// Draws and writes one frame after the other, each at its time; late ones follow at once with their own times, so
/// the picture never lies about when it was taken. Returns the number of frames written.
///
/// When the picture goes while the sound stays, measured egresses get no frame any more and close no segment until
/// they are stopped; so does this one.
async fn feed_video(plan: &Plan, mut stdin: ChildStdin, finish: &CancellationToken) -> u32 {
    let mut screen = Screen::new(plan.width, plan.height);
    let rate = u64::from(plan.frames_per_second);
    for counter in 0u32.. {
        let due = plan.start + Duration::from_nanos(u64::from(counter) * 1_000_000_000 / rate);
        plan.control.note_pace(due);
        tokio::select! {
            biased;
            () = finish.cancelled() => return counter,
            () = tokio::time::sleep_until(due) => {}
        }
        if plan.video.is_gone() && plan.has_sound() {
            finish.cancelled().await;
            return counter;
        }
        if plan.video.is_silent() {
            screen.black();
        } else {
            let since_ms = (u64::from(counter) * 1000 + rate / 2) / rate;
            let marker = Marker { counter, screen_ms: plan.start_ms + since_ms };
            screen.draw(plan.video.size(), marker);
        }
        // a broken pipe means that ffmpeg is gone: its status tells the rest
        if stdin.write_all(screen.pixels()).await.is_err() {
            return counter;
        }
    }
    u32::MAX
}

const AUDIO_PIPE: &str = "audio";
const BEEP_HERTZ: f64 = 1000.0;
const BEEP_SECONDS: f64 = 0.06;

/// The named pipe through which FFmpeg reads the sound.
struct Sound {
    sender: pipe::Sender,
}

impl Sound {
    fn open(plan: &Plan) -> std::io::Result<Sound> {
        let path = plan.scratch.join(AUDIO_PIPE);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // opened for reading too: then opening does not wait for ffmpeg, and ffmpeg's opening not for us
        let sender = pipe::OpenOptions::new().read_write(true).open_sender(&path)?;
        Ok(Sound { sender })
    }
}

/// Writes silence with a beep at each whole second of the screen's clock, a fiftieth of a second at a time.
async fn feed_audio(plan: &Plan, sound: Option<Sound>, finish: &CancellationToken) {
    let (Some(mut sound), Some(tracks)) = (sound, &plan.audio) else { return };
    let chunk = u64::from(plan.audio_rate / 50);
    let mut bytes = Vec::with_capacity(chunk as usize * 4);
    for number in 0u64.. {
        let due = plan.start
            + Duration::from_nanos(number * chunk * 1_000_000_000 / u64::from(plan.audio_rate));
        tokio::select! {
            biased;
            () = finish.cancelled() => return,
            () = tokio::time::sleep_until(due) => {}
        }
        let silent = tracks.iter().all(|track| track.is_silent());
        bytes.clear();
        for sample in number * chunk..(number + 1) * chunk {
            let value = if silent { 0 } else { beep(plan.start_ms, plan.audio_rate, sample) };
            bytes.extend_from_slice(&value.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        // as a reader of our own pipe we never see it break: `finish` must be able to end a stuck write
        tokio::select! {
            () = finish.cancelled() => return,
            written = sound.sender.write_all(&bytes) => if written.is_err() { return },
        }
    }
}

/// The value of a sample, counted from the first frame's moment.
fn beep(start_ms: u64, rate: u32, sample: u64) -> i16 {
    let into_second = (start_ms % 1000 * u64::from(rate) + 500) / 1000;
    let phase = ((into_second + sample) % u64::from(rate)) as f64 / f64::from(rate);
    if phase >= BEEP_SECONDS {
        return 0;
    }
    ((std::f64::consts::TAU * BEEP_HERTZ * phase).sin() * 16_000.0) as i16
}

/// Reads FFmpeg's list of closed segments: `name,start,end` per line.
async fn report(
    scratch: &Path,
    stdout: ChildStdout,
    closed: mpsc::UnboundedSender<Closed>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stdout).lines();
    let mut index = 0;
    while let Some(line) = lines.next_line().await? {
        let mut fields = line.split(',');
        let name = fields.next().unwrap_or_default();
        let mut number = || fields.next().and_then(|field| field.parse::<f64>().ok());
        let (Some(start), Some(end)) = (number(), number()) else {
            return Err(std::io::Error::other(format!("odd line in the segment list: {line}")));
        };
        let file = scratch.join(name);
        // nobody listens any more only when the egress is being torn down
        if closed.send(Closed { index, file, start, end }).is_err() {
            return Ok(());
        }
        index += 1;
    }
    Ok(())
}

/// FFmpeg's last words, at most a few kilobytes of them.
async fn read_complaints(stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    let mut stderr = stderr.take(64 * 1024);
    match stderr.read_to_end(&mut text).await {
        Ok(_) => String::from_utf8_lossy(&text[text.len().saturating_sub(2048)..]).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn kill_group(group: Option<u32>) {
    let pid = group.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // already gone is as good
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beep_begins_at_each_whole_second_of_the_screen_clock() {
        let rate = 44_100;
        let start_ms = 1_790_000_000_250;
        let first_second = u64::from(rate) * 750 / 1000;
        for second in 0..5u64 {
            let at = first_second + second * u64::from(rate);
            let loudest = |from: u64, to: u64| {
                (from..to).map(|i| beep(start_ms, rate, i).unsigned_abs()).max()
            };
            assert!(loudest(at, at + 20) > Some(2000));
            assert_eq!(loudest(at - 500, at), Some(0));
            assert_eq!(loudest(at + 2700, at + 3000), Some(0));
        }
    }
}
