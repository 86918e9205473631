//! Many sessions: what an arriving segment costs, how fast the door answers, what memory is held.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use serde_json::Value;

use crate::{
    Scale,
    input::Input,
    report::{Report, mebibytes, median, millis, quantile, row},
    service::{Service, usage},
};

/// Between two segments laid down.
const PACE: Duration = Duration::from_millis(250);
/// Starts asked for at once.
const STARTS_AT_ONCE: usize = 48;

/// Processor time per segment that arrives, less what the service does anyhow.
pub async fn arrival(scale: Scale, report: &mut Report) {
    let mut rows = vec![row(["segments", "there already", "processor time per segment"])];
    let count = scale.count("BENCH_ARRIVALS", 40, 200);
    let small = fixture();
    let large = Input::prepare(2, scale.seconds).segments;
    for (name, segments) in [("1080p, 2 s", large), ("320x180, 2 s", small)] {
        let service = Service::start(Vec::new()).await;
        let before = segments.len() / 2;
        let count = count.min(segments.len() - before);
        let age = Duration::from_secs(segments.len() as u64 * 2 + 5);
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
                counts in steps of 10 ms).";
    report.table("An arriving segment", said, &rows);
}

/// The committed small recordings.
fn fixture() -> Vec<PathBuf> {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/material/2s");
    (0..16).map(|number| place.join(format!("seg_{number:05}.ts"))).collect()
}

async fn spent(service: &Service, work: impl Future<Output = ()>) -> Duration {
    let before = usage(service.pid()).cpu;
    work.await;
    usage(service.pid()).cpu.saturating_sub(before)
}

#[derive(Clone, Copy)]
enum Kind {
    Session,
    List,
    /// A window before the first picture: refused after everything was looked at.
    Refused,
}

/// Answers' times and memory with many sessions that record.
pub async fn sessions(scale: Scale, report: &mut Report) {
    let count = scale.count("BENCH_SESSIONS", 1000, 1000);
    let asked = scale.count("BENCH_REQUESTS", 1000, 5000);
    // a disk must have room for all that is promised: little is promised
    let minutes = vec![
        ("REPLAY__BUFFER__MINUTES", "1".to_owned()),
        ("REPLAY__BUFFER__CLEANUP_MINUTES", "2".to_owned()),
    ];
    let service = Service::start(minutes).await;
    let idle = usage(service.pid()).resident;
    let segments = fixture();
    let began = Instant::now();
    let sessions: Vec<_> = stream::iter(0..count)
        .map(async |number| {
            let age = Duration::from_secs(40);
            let session = service.session(&format!("user{number}"), age, true).await;
            session.lay(&segments, 0..4, 2);
            // its rate is known from now on, until then it counts as a large one
            service.indexed(&session, 8.0).await;
            session
        })
        .buffer_unordered(STARTS_AT_ONCE)
        .collect()
        .await;
    let started = began.elapsed();
    let held = usage(service.pid()).resident;
    let mut rows = vec![row(["request", "status", "median", "p99"])];
    let kinds = [
        ("`GET /sessions/{id}`", Kind::Session),
        ("`GET /sessions`", Kind::List),
        ("`POST /capture`, refused", Kind::Refused),
    ];
    let mut worst = 0;
    for (name, kind) in kinds {
        let mut times = Vec::new();
        let mut seen = 0;
        for number in 0..asked {
            let session = &sessions[number * 7 % sessions.len()];
            let token = service.token(&session.user);
            let (method, path, body) = match kind {
                Kind::Session => ("GET", format!("/sessions/{}", session.id), Value::Null),
                Kind::List => ("GET", "/sessions".to_owned(), Value::Null),
                Kind::Refused => {
                    ("POST", "/capture".to_owned(), session.window(-30.0, -20.0, "keyframe"))
                }
            };
            let began = Instant::now();
            let (status, _) = service.ask(&token, method, &path, body).await;
            times.push(began.elapsed());
            seen = status;
            assert!(status < 500, "{path}: {status}");
            worst = worst.max(usage(service.pid()).resident);
        }
        let (middle, late) = (median(&times), quantile(&times, 0.99));
        rows.push(vec![name.to_owned(), seen.to_string(), millis(middle), millis(late)]);
    }
    let said = format!(
        "{count} sessions record, started and first indexed in {:.1} s, {STARTS_AT_ONCE} at once. {asked} requests of each kind, one after the other, \
         over loopback. Memory of the service: {} when idle, {} with the sessions, {} at most while asked.",
        started.as_secs_f64(),
        mebibytes(idle),
        mebibytes(held),
        mebibytes(worst)
    );
    report.table("Many sessions", &said, &rows);
    service.close().await;
}
