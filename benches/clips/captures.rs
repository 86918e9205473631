//! Captures through the HTTP API, against a plain copy of their result and against the predecessor's pipeline.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Scale, disk,
    input::Input,
    report::{Report, mebibytes, median, ratio, row, seconds},
    service::{Service, Session, usage, with_children},
};

/// Of a clip that waits for no late segment.
const PHASES: [&str; 4] = ["queueMs", "pinMs", "muxMs", "finalizeMs"];

/// A service with two recorded sessions: segments of 2 s and of 10 s.
pub struct Stage {
    scale: Scale,
    service: Service,
    recorded: Vec<(Session, Input)>,
    /// A directory on the clips' disk.
    beside: PathBuf,
}

impl Stage {
    pub async fn set(scale: Scale) -> Stage {
        let service = Service::start(Vec::new()).await;
        let mut recorded = Vec::new();
        for segment_seconds in [2, 10] {
            let input = Input::prepare(segment_seconds, scale.seconds);
            let age = Duration::from_secs(input.seconds() + 5);
            let session = service.session(&format!("user{segment_seconds}"), age, true).await;
            session.lay(&input.segments, 0..input.segments.len(), segment_seconds);
            service.indexed(&session, input.seconds() as f64).await;
            recorded.push((session, input));
        }
        let beside = service.dir.join("beside");
        std::fs::create_dir_all(&beside).unwrap();
        Stage { scale, service, recorded, beside }
    }

    pub async fn close(self) {
        self.service.close().await;
    }

    /// One capture, from the request to the clip that is ready.
    async fn capture(&self, session: &Session, window: Value) -> (Duration, Clip) {
        let token = self.service.token(&session.user);
        let began = Instant::now();
        let (status, answer) = self.service.ask(&token, "POST", "/capture", window).await;
        let clip = if answer["clip"].is_object() { &answer["clip"] } else { &answer };
        let id = clip["id"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned();
        assert!(status == 201 || status == 202, "{status}: {answer:#}");
        if status == 202 {
            self.until_ready(&token, &id).await;
        }
        let took = began.elapsed();
        let file = find(&self.service.dir.join("clips"), &format!("{id}.mp4")).expect("a clip");
        (took, Clip { id, file })
    }

    /// For encodes that take longer than the longest wait that the service allows.
    async fn until_ready(&self, token: &str, id: &str) {
        loop {
            let path = format!("/clips/{id}");
            let (_, clip) = self.service.ask(token, "GET", &path, Value::Null).await;
            match clip["status"].as_str() {
                Some("ready") => return,
                Some("processing") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => panic!("{clip:#}"),
            }
        }
    }

    async fn timings(&self, session: &Session, clip: &Clip) -> Value {
        let token = self.service.token(&session.user);
        let path = format!("/clips/{}", clip.id);
        let (_, mut answer) = self.service.ask(&token, "GET", &path, Value::Null).await;
        answer["timings"].take()
    }

    async fn delete(&self, session: &Session, clip: Clip) {
        let token = self.service.token(&session.user);
        let path = format!("/clips/{}", clip.id);
        let (status, answer) = self.service.ask(&token, "DELETE", &path, Value::Null).await;
        assert!((200..300).contains(&status), "{answer:#}");
    }

    pub async fn clips(&self, report: &mut Report) {
        let head = ["segments", "way", "runs", "median", "least", "most", "cp = 1", "ours = 1"];
        let mut rows = vec![row(head)];
        let mut within = vec![row(["segments", "queue", "pin", "mux", "finalize"])];
        for (session, input) in &self.recorded {
            let length = input.seconds() as f64;
            let (mut ours, mut theirs, mut copies) = (Vec::new(), Vec::new(), Vec::new());
            let mut phases: Vec<Vec<Duration>> = vec![Vec::new(); PHASES.len()];
            let mut size = 0;
            // the first of each only fills the page cache
            for round in 0..=self.scale.rounds {
                let window = session.window(0.0, length, "keyframe");
                let (own, clip) = self.capture(session, window).await;
                // it takes longer than all the rest: every third round will do
                if self.scale.full || self.scale.rounds < 3 || round % 3 == 1 {
                    let old = disk::predecessor(&input.segments, &self.beside);
                    if round > 0 {
                        theirs.push(old);
                    }
                }
                let copy = disk::copy(&clip.file, &self.beside);
                size = std::fs::metadata(&clip.file).unwrap().len();
                if round > 0 {
                    let told = self.timings(session, &clip).await;
                    for (all, name) in phases.iter_mut().zip(PHASES) {
                        all.push(Duration::from_millis(told[name].as_u64().unwrap()));
                    }
                }
                self.delete(session, clip).await;
                if round > 0 {
                    ours.push(own);
                    copies.push(copy);
                }
            }
            let copy = median(&copies);
            let kind = format!("{} of {} s", input.segments.len(), input.segment_seconds);
            let mebi = size as f64 / 1_048_576.0;
            let named = [
                ("`POST /capture`, keyframe, until ready".to_owned(), &ours),
                ("predecessor's pipeline".to_owned(), &theirs),
                (format!("`cp` and fsync, {mebi:.0} MiB"), &copies),
            ];
            for (way, times) in named {
                let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
                let of = median(times);
                rows.push(vec![
                    kind.clone(),
                    way,
                    times.len().to_string(),
                    seconds(of),
                    seconds(*least),
                    seconds(*most),
                    ratio(of, copy),
                    ratio(of, median(&ours)),
                ]);
            }
            let mut own = vec![kind];
            own.extend(phases.iter().map(|all| seconds(median(all))));
            within.push(own);
        }
        let said = "The whole recording as one clip, asked for by `from` and `to`. The predecessor: FFmpeg's concat \
                    demuxer with `-c copy -movflags +faststart -avoid_negative_ts make_zero`, ffprobe, sha256sum.";
        report.table("A clip", said, &rows);
        let said = "Medians of what the clip's `timings` say: waiting for a worker, linking the segments, planning, \
                    writing and checking, publishing.";
        report.table("Where the time of a clip goes", said, &within);
    }

    pub async fn exact(&self, report: &mut Report) {
        let head =
            ["segments", "window", "keyframe", "exact", "two groups alone", "added / two groups"];
        let mut rows = vec![row(head)];
        let short = self.scale.count("BENCH_EXACT_SECONDS", 20, 30) as f64;
        for (session, input) in &self.recorded {
            let all = input.seconds() as f64;
            let mut lengths = vec![all.min(short) - 2.0];
            if self.scale.full {
                lengths.push(all - 2.0);
            }
            for length in lengths {
                let (mut quick, mut exact, mut groups) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..self.scale.rounds.min(3) {
                    for (precision, times) in [("keyframe", &mut quick), ("exact", &mut exact)] {
                        // neither end on a key frame
                        let window = session.window(0.7, 0.7 + length, precision);
                        let (took, clip) = self.capture(session, window).await;
                        self.delete(session, clip).await;
                        times.push(took);
                    }
                    // a segment is a group
                    let at = (0.7 + length) as usize / input.segment_seconds as usize;
                    let edges = [&*input.segments[0], &*input.segments[at]];
                    groups.push(disk::encode(edges, &self.beside));
                }
                let added = median(&exact).saturating_sub(median(&quick));
                rows.push(vec![
                    format!("{} s", input.segment_seconds),
                    format!("{length:.0} s"),
                    seconds(median(&quick)),
                    seconds(median(&exact)),
                    seconds(median(&groups)),
                    ratio(added, median(&groups)),
                ]);
            }
        }
        let said = "Until ready; medians of three at most. Beside it what FFmpeg takes to encode the two groups of pictures at \
                    the edges and nothing else, with the same preset and quality.";
        report.table("Exact cuts", said, &rows);
    }

    pub async fn eight(&self, report: &mut Report) {
        let (session, input) = &self.recorded[0];
        let length = input.seconds() as f64;
        let (mut ours, mut copies) = (Vec::new(), Vec::new());
        let (mut own, mut children) = (0, 0);
        for _ in 0..self.scale.rounds.min(3) {
            let asked =
                (0..8).map(|_| self.capture(session, session.window(0.0, length, "keyframe")));
            let all = futures::future::join_all(asked);
            let done = tokio_util::sync::CancellationToken::new();
            let watched = watch(self.service.pid(), done.clone());
            let (clips, peak) = tokio::join!(
                async {
                    let clips = all.await;
                    done.cancel();
                    clips
                },
                watched
            );
            (own, children) = (peak.0.max(own), peak.1.max(children));
            ours.push(clips.iter().map(|(took, _)| *took).max().unwrap());
            let file = clips[0].1.file.clone();
            copies.push(eight_copies(&file, &self.beside));
            for (_, clip) in clips {
                self.delete(session, clip).await;
            }
        }
        let rows = vec![
            row(["", "median", "eight cp = 1"]),
            row([
                "eight captures",
                &seconds(median(&ours)),
                &ratio(median(&ours), median(&copies)),
            ]),
            row(["eight `cp` and fsync", &seconds(median(&copies)), "1.00"]),
        ];
        let said = format!(
            "Until the last is ready; segments of 2 s. Most memory meanwhile: the service {}, its children {}.",
            mebibytes(own),
            mebibytes(children)
        );
        report.table("Eight captures at once", &said, &rows);
    }

    pub async fn growth(&self, report: &mut Report) {
        let mut rows = vec![row(["window", "median", "per minute of clip"])];
        let mut recorded = None;
        if self.scale.full && self.scale.seconds < 1800 {
            let input = Input::prepare(2, 1800);
            let age = Duration::from_secs(input.seconds() + 5);
            let session = self.service.session("long", age, true).await;
            session.lay(&input.segments, 0..input.segments.len(), 2);
            self.service.indexed(&session, input.seconds() as f64).await;
            recorded = Some((session, input));
        }
        let (session, input) = recorded.as_ref().unwrap_or(&self.recorded[0]);
        let all = input.seconds() as f64;
        let lengths = [60.0, 120.0, 300.0, 600.0, 1800.0];
        let mut lengths: Vec<_> = lengths.into_iter().filter(|length| *length <= all).collect();
        if lengths.len() < 2 {
            lengths = vec![all / 10.0, all / 5.0, all / 2.0, all];
        }
        for length in lengths {
            let mut times = Vec::new();
            for _ in 0..self.scale.rounds.min(5) {
                let window = session.window(0.0, length, "keyframe");
                let (took, clip) = self.capture(session, window).await;
                self.delete(session, clip).await;
                times.push(took);
            }
            let took = median(&times);
            let minute = took.mul_f64(60.0 / length);
            rows.push(vec![format!("{length:.0} s"), seconds(took), seconds(minute)]);
        }
        report.table("Length of the window", "Keyframe cuts, segments of 2 s.", &rows);
    }

    pub async fn memory(&self, report: &mut Report) {
        let (session, input) = &self.recorded[0];
        let count = self.scale.count("BENCH_CAPTURES", 50, 500);
        let mut rows = vec![row(["after captures", "resident memory of the service"])];
        let length = (input.seconds() as f64).min(20.0);
        for done in 0..=count {
            if done % (count / 5).max(1) == 0 {
                let resident = usage(self.service.pid()).resident;
                rows.push(vec![done.to_string(), mebibytes(resident)]);
            }
            let (_, clip) = self.capture(session, session.window(0.0, length, "keyframe")).await;
            self.delete(session, clip).await;
        }
        report.table("Memory over many captures", "One after the other.", &rows);
    }
}

/// The most memory of a process and of its children until told to end, in KiB.
async fn watch(pid: u32, done: tokio_util::sync::CancellationToken) -> (u64, u64) {
    let mut most = (0, 0);
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while done.run_until_cancelled(tick.tick()).await.is_some() {
        let (own, children) = with_children(pid);
        most = (most.0.max(own), most.1.max(children));
    }
    most
}

struct Clip {
    id: String,
    file: PathBuf,
}

fn eight_copies(file: &Path, dir: &Path) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| disk::copy(file, dir));
        }
    });
    began.elapsed()
}

/// A file of this name below a directory.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut inner = Vec::new();
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            return Some(path);
        }
        if path.is_dir() {
            inner.push(path);
        }
    }
    inner.iter().find_map(|dir| find(dir, name))
}
