//! What a segment costs that arrives: alone, and among many sessions that all record.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::{
    Scale,
    input::Input,
    report::{Report, median, millis, row},
    service::{Service, Session, usage},
};

/// Between two segments laid down.
const PACE: Duration = Duration::from_millis(250);
/// Segments that a session has from the start.
const FIRST: usize = 4;
/// Segments that each session gets while the cost among many is measured.
const MORE: usize = 12;
/// Length of the small segments, and so the time between two of one session.
const LENGTH: Duration = Duration::from_secs(2);
/// How often that is measured.
const ROUNDS: usize = 3;
/// Starts asked for at once.
pub const STARTS_AT_ONCE: usize = 48;
/// How long the index may take for the last ones.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processor time per segment that arrives, less what the service does anyhow.
pub async fn alone(scale: Scale, report: &mut Report) {
    let mut rows = vec![row(["segments", "there already", "processor time per segment"])];
    let count = scale.count("BENCH_ARRIVALS", 40, 200);
    let small = fixture();
    let large = Input::prepare(2, scale.seconds).segments;
    for (name, segments) in [("1080p, 2 s", large), ("320x180, 2 s", small)] {
        let service = Service::start(Vec::new()).await;
        let before = segments.len() / 2;
        let count = count.min(segments.len() - before);
        let age = LENGTH * segments.len() as u32 + Duration::from_secs(5);
        let session = service.session("one", age, true).await;
        session.lay(&segments, 0..before, 2);
        service.indexed(&session, before as f64 * 2.0).await;
        let span = PACE * count as u32;
        let idle = spent(&service, async { tokio::time::sleep(span).await }).await;
        let busy = spent(&service, async {
            let mut tick = tokio::time::interval(PACE);
            for number in before..before + count {
                tick.tick().await;
                session.lay(&segments, number..number + 1, 2);
            }
            service.indexed(&session, (before + count) as f64 * 2.0).await;
        });
        let each = busy.await.saturating_sub(idle) / count as u32;
        rows.push(vec![name.to_owned(), before.to_string(), millis(each)]);
        service.close().await;
    }
    let said = "Found, read, checked and indexed; what the service spends without any is taken off (the system \
                counts in steps of 10 ms; 0.00 says that it was lost in what was taken off).";
    report.table("An arriving segment", said, &rows);
}

/// The committed small recordings.
pub fn fixture() -> Vec<PathBuf> {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/material/2s");
    (0..16).map(|number| place.join(format!("seg_{number:05}.ts"))).collect()
}

async fn spent(service: &Service, work: impl Future<Output = ()>) -> Duration {
    let before = usage(service.pid()).cpu;
    work.await;
    usage(service.pid()).cpu.saturating_sub(before)
}

/// A disk must have room for all that is promised: with many sessions little is promised.
pub fn little_promised() -> Vec<(&'static str, String)> {
    vec![
        ("REPLAY__BUFFER__MINUTES", "1".to_owned()),
        ("REPLAY__BUFFER__CLEANUP_MINUTES", "2".to_owned()),
    ]
}

/// So many sessions that record, with their first segments in the index.
pub async fn recording(service: &Service, count: usize, segments: &[PathBuf]) -> Vec<Session> {
    let one = async |number: usize| {
        let age = LENGTH * FIRST as u32 + Duration::from_secs(1);
        let session = service.session(&format!("user{number}"), age, true).await;
        session.lay(segments, 0..FIRST, LENGTH.as_secs());
        // its rate is known from now on, until then it counts as a large one
        service.indexed(&session, (LENGTH * FIRST as u32).as_secs_f64()).await;
        session
    };
    stream::iter(0..count).map(one).buffer_unordered(STARTS_AT_ONCE).collect().await
}

/// The whole processor time of the service while every session gets a segment each 2 s, shared among the segments:
/// nothing is taken off, so looking for segments and all else a running service does is in it.
pub async fn among(scale: Scale, report: &mut Report) {
    let most = scale.count("BENCH_SESSIONS", 1000, 1000);
    let mut counts = vec![10, 100, 1000];
    counts.retain(|count| *count <= most);
    let head =
        ["sessions", "segments", "processor time per segment", "least", "most", "index behind"];
    let mut rows = vec![row(head)];
    let rounds = scale.count("BENCH_ARRIVAL_ROUNDS", 1, ROUNDS);
    let mut measured = vec![Vec::new(); counts.len()];
    for _ in 0..rounds {
        for (count, measured) in counts.iter().zip(&mut measured) {
            measured.push(each_among(*count).await);
        }
    }
    for (count, measured) in counts.iter().zip(&measured) {
        let (each, behind): (Vec<_>, Vec<_>) = measured.iter().copied().unzip();
        let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
        let times = [median(&each), *least, *most, median(&behind)].map(millis);
        rows.push([vec![count.to_string(), (count * MORE).to_string()], times.to_vec()].concat());
    }
    let said = format!(
        "Every session gets {MORE} small segments (320x180), one each {} s, evenly spread. The service's whole processor \
         time, divided by the segments; nothing is taken off. Index behind: from the last segment laid down to all \
         counted by `/metrics`. Medians of {rounds}.",
        LENGTH.as_secs()
    );
    report.table("Arriving segments among many sessions", &said, &rows);
}

/// One measurement: time per segment, and how far behind the index was in the end.
async fn each_among(count: usize) -> (Duration, Duration) {
    let service = Service::start(little_promised()).await;
    let segments = fixture();
    let sessions = recording(&service, count, &segments).await;
    let total = (count * MORE) as u32;
    let mut behind = Duration::ZERO;
    let busy = spent(&service, async {
        let mut tick = interval(LENGTH / count as u32);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in FIRST..FIRST + MORE {
            for session in &sessions {
                tick.tick().await;
                session.lay(&segments, number..number + 1, LENGTH.as_secs());
            }
        }
        let laid = Instant::now();
        let all = (count * (FIRST + MORE)) as f64;
        let counted = async {
            while service.figure("livekit_replay_segments").await < all {
                sleep(PACE).await;
            }
        };
        timeout(PATIENCE, counted).await.expect("everything is indexed");
        behind = laid.elapsed();
    });
    let each = busy.await / total;
    service.close().await;
    (each, behind)
}
