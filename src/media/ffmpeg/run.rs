//! One run of the program.

use std::{
    collections::VecDeque,
    fmt, io,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ffmpeg_sidecar::command::FfmpegCommand;
use rustix::process::{Pid, Signal, getpriority_process, kill_process_group, setpriority_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Ffmpeg, Limits, failed};
use crate::error::{Code, Error, Result};

/// Lines of FFmpeg's complaints that are kept.
const TAIL_LINES: usize = 50;
/// Characters of a line that are kept: names inside are hostile and may be long.
const LINE_CHARS: usize = 500;
/// Standard output that is kept (lists of encoders are 20 kB).
const STDOUT_BYTES: usize = 1 << 20;
/// A killed process ends so soon, unless the kernel keeps it.
const KILLED: Duration = Duration::from_secs(5);
/// Making clips must not disturb what else the machine does.
const NICENESS: i32 = 10;

/// Lowers the priority of a process of one thread, or of a thread; those it starts later inherit it. Only a courtesy:
/// without it the work is done as well.
pub(in crate::media) fn make_way(pid: Pid) {
    // one that is lower already stays so
    if getpriority_process(Some(pid)).is_ok_and(|own| own < NICENESS) {
        let _ = setpriority_process(Some(pid), NICENESS);
    }
}

/// Bytes for the program's standard input, in pieces; the end of the channel is the end of the input.
pub type Feed = mpsc::Receiver<Vec<u8>>;

/// A run that ended with status 0.
#[derive(Debug)]
pub struct Finished {
    /// Standard output that was not progress.
    pub stdout: String,
    /// The last lines of standard error.
    pub complaints: Vec<String>,
}

/// The private cause of a failed run.
#[derive(Debug)]
struct RunFailure {
    what: String,
    complaints: Vec<String>,
}

impl fmt::Display for RunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; it said: {}", self.what, self.complaints.join(" | "))
    }
}

impl std::error::Error for RunFailure {}

impl Ffmpeg {
    /// Runs a command to its end. However this ends (also when the future is dropped), no process of it is left.
    ///
    /// # Errors
    /// `ffmpeg_failed` (not started, bad status, deadline, no progress) with the last lines of standard error as
    /// the private cause; `cancelled`.
    pub async fn run(
        &self,
        command: &mut FfmpegCommand,
        feed: Option<Feed>,
        limits: &Limits,
    ) -> Result<Finished> {
        self.begin(command, feed)?.end(limits).await
    }

    /// Starts a command; dropped before its end, it is killed.
    ///
    /// # Errors
    /// `ffmpeg_failed` if it cannot be started.
    pub(in crate::media) fn begin(
        &self,
        command: &mut FfmpegCommand,
        feed: Option<Feed>,
    ) -> Result<Running> {
        Watched::spawn(command, feed).map(Running)
    }
}

/// A run that has begun.
pub(in crate::media) struct Running(Watched);

impl Running {
    /// Watches the run to its end, as [`Ffmpeg::run`] does.
    pub async fn end(self, limits: &Limits) -> Result<Finished> {
        let mut report = Report::default();
        let mut tail = VecDeque::new();
        self.0
            .finish(limits, &mut tail, |stdout, pulse| read_report(stdout, &mut report, pulse))
            .await?;
        Ok(Finished { stdout: report.text, complaints: tail.into() })
    }
}

/// Signs of life.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A program that runs, with what it is fed.
pub(super) struct Watched {
    child: Child,
    group: Group,
    feed: Option<Feed>,
}

impl Watched {
    pub(super) fn spawn(command: &mut FfmpegCommand, feed: Option<Feed>) -> Result<Watched> {
        let child = spawn(command, feed.is_some())?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        if let Some(pid) = group.0 {
            make_way(pid);
        }
        Ok(Watched { child, group, feed })
    }

    /// Feeds it, lets `read` take its standard output, and waits for its end, within the limits.
    pub(super) async fn finish<R, F>(
        self,
        limits: &Limits,
        tail: &mut VecDeque<String>,
        read: R,
    ) -> Result<()>
    where
        R: FnOnce(ChildStdout, Arc<Pulse>) -> F,
        F: Future<Output = ()>,
    {
        let Watched { mut child, group, feed } = self;
        let pulse = Arc::new(Pulse::default());
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let end = {
            let work = async {
                let reading = async {
                    if let Some(stdout) = stdout {
                        read(stdout, Arc::clone(&pulse)).await;
                    }
                };
                tokio::join!(write_all(stdin, feed, &pulse), reading, read_tail(stderr, tail));
                child.wait().await
            };
            tokio::select! {
                biased;
                () = limits.cancel.cancelled() => End::Cancelled,
                end = work => End::Exited(end),
                () = tokio::time::sleep(limits.deadline) => End::TooLong,
                () = stalled(&pulse.0, limits) => End::Stalled,
            }
        };
        let exited = matches!(end, End::Exited(_));
        let cancelled = matches!(end, End::Cancelled);
        if exited {
            group.forget();
        } else {
            drop(group);
            // killed just now, so this does not take long, but for one that is stuck in a store that hangs: it ends when
            // the store answers, and whoever drops the child sees to it
            let _ = tokio::time::timeout(KILLED, child.wait()).await;
        }
        let what = match end {
            End::Exited(Ok(status)) if status.success() => return Ok(()),
            End::Exited(Ok(status)) => format!("FFmpeg ended with {status}"),
            End::Exited(Err(error)) => format!("FFmpeg's status is unknown: {error}"),
            End::Cancelled => "cancelled".to_owned(),
            End::TooLong => format!("no end within {:?}", limits.deadline),
            End::Stalled => format!("no progress for {:?}", limits.stall),
        };
        if cancelled {
            return Err(Error::new(Code::Cancelled, "The work was cancelled."));
        }
        let complaints = std::mem::take(tail).into();
        Err(failed("Making the video failed.", RunFailure { what, complaints }))
    }
}

enum End {
    Exited(io::Result<std::process::ExitStatus>),
    Cancelled,
    TooLong,
    Stalled,
}

/// Kills the whole process group when it is dropped, unless the program ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            // it may be gone already
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn spawn(command: &mut FfmpegCommand, fed: bool) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let inner = command.as_inner();
    let mut plain = std::process::Command::new(inner.get_program());
    // the builder's own first argument asks for `level+` prefixes, ours come later and win
    plain.args(inner.get_args());
    plain.stdin(if fed { Stdio::piped() } else { Stdio::null() });
    plain.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    tokio::process::Command::from(plain)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("FFmpeg cannot be started.", error))
}

/// Hands the feed on; a program that takes no more ends it (its exit status will say why).
async fn write_all(stdin: Option<ChildStdin>, feed: Option<Feed>, pulse: &Pulse) {
    let (Some(mut stdin), Some(mut feed)) = (stdin, feed) else { return };
    while let Some(piece) = feed.recv().await {
        for part in piece.chunks(64 * 1024) {
            if stdin.write_all(part).await.is_err() {
                return;
            }
            pulse.beat();
        }
    }
}

#[derive(Default)]
struct Report {
    text: String,
    last: [String; 3],
}

/// Reads `key=value` progress; anything else is kept as text.
async fn read_report(out: impl AsyncRead + Unpin, report: &mut Report, pulse: Arc<Pulse>) {
    let mut lines = BufReader::new(out).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let (key, value) = line.split_once('=').unwrap_or((&line, ""));
        let place = match key {
            "frame" => 0,
            "out_time_us" => 1,
            "total_size" => 2,
            _ => {
                if report.text.len() + line.len() < STDOUT_BYTES {
                    report.text.push_str(&line);
                    report.text.push('\n');
                }
                continue;
            }
        };
        if let Some(last) = report.last.get_mut(place)
            && last != value
        {
            value.clone_into(last);
            pulse.beat();
        }
    }
}

async fn read_tail(err: Option<impl AsyncRead + Unpin>, tail: &mut VecDeque<String>) {
    let Some(err) = err else { return };
    let mut lines = BufReader::new(err).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line).chars().take(LINE_CHARS).collect());
    }
}

/// Ends when the pulse has not changed for the allowed time.
pub(in crate::media) async fn stalled(pulse: &AtomicU64, limits: &Limits) {
    let mut seen = pulse.load(Ordering::Relaxed);
    let mut since = Instant::now();
    loop {
        sleep_until(since + limits.stall).await;
        let now = pulse.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
        since = Instant::now();
    }
}
