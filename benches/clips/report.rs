//! What is printed while measuring, and the page that is kept of it.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use livekit_replay::clock::{Clock, SystemClock};

use crate::Scale;

pub struct Report {
    scale: Scale,
    sections: Vec<String>,
}

impl Report {
    pub fn new(scale: Scale) -> Report {
        Report { scale, sections: Vec::new() }
    }

    /// A section with one table; the first row is its head.
    pub fn table(&mut self, title: &str, said: &str, rows: &[Vec<String>]) {
        let day = SystemClock.now().to_string();
        let day = day.split('T').next().unwrap_or_default();
        let full = if self.scale.full { ", `FULL=1`" } else { "" };
        let (length, rounds) = (self.scale.seconds, self.scale.rounds);
        let mut text = format!(
            "## {title}\n\n*{day}{full}, a recording of {length} s, medians of {rounds} unless said otherwise.*\n\n"
        );
        if !said.is_empty() {
            let _ = writeln!(text, "{said}\n");
        }
        for (at, row) in rows.iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if at == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        println!("{text}");
        self.sections.push(text);
    }

    /// Writes `docs/performance.md`: all of it, or the sections that were run into what is there.
    pub fn write(&self, whole: bool) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let mut sections: Vec<String> = match whole {
            true => Vec::new(),
            false => {
                before.split("\n## ").skip(1).map(|text| format!("## {}\n", text.trim())).collect()
            }
        };
        for own in &self.sections {
            let title = own.lines().next();
            match sections.iter_mut().find(|known| known.lines().next() == title) {
                Some(known) => known.clone_from(own),
                None => sections.push(own.clone()),
            }
        }
        let build =
            if cfg!(debug_assertions) { "a build without optimization" } else { "release build" };
        let mut text = format!(
            "# Performance\n\nWritten by `make bench` ({build}); every section says when and how it was measured. Ratios \
             compare with `cp` of the finished clip and `fsync` of the copy and its directory, taken in turns with what \
             is measured.\n\n| | |\n|---|---|\n",
        );
        for (name, value) in machine() {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        for section in &sections {
            text += "\n";
            text += section;
        }
        std::fs::write(&path, text).unwrap();
        println!("written: {}", path.display());
    }
}

/// What it ran on.
fn machine() -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
        value.unwrap_or("unknown").to_owned()
    };
    let first = |program: &str, argument: &str| {
        let said = Command::new(program).arg(argument).output();
        let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        said.unwrap_or_default().lines().next().unwrap_or("not installed").to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let ffmpeg = first("ffmpeg", "-version");
    vec![
        ("processor", format!("{}, {cores} cores", after(&read("/proc/cpuinfo"), "model name"))),
        ("memory", after(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("FFmpeg", ffmpeg.split(" Copyright").next().unwrap_or_default().to_owned()),
        ("GStreamer", first("gst-launch-1.0", "--version")),
        ("compiler", first("rustc", "--version")),
        ("livekit-replay", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

pub fn median(times: &[Duration]) -> Duration {
    quantile(times, 0.5)
}

pub fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[at]
}

pub fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

pub fn ratio(time: Duration, of: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() / of.as_secs_f64())
}

pub fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// A row of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
