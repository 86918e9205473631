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
    service::{Service, Session, usage},
};

/// Between two segments laid down.
const PACE: Duration = Duration::from_millis(250);
/// Sessions, and segments for each of them, by which the cost among many is measured, and the time between two.
const PROBES: usize = 10;
const PROBE_SEGMENTS: usize = 10;
const PROBE_PACE: Duration = Duration::from_millis(100);
/// How often that is measured.
const PROBE_ROUNDS: usize = 5;
/// Segments that a session has from the start.
const FIRST: usize = 4;
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

/// A session that records, with its first segments in the index.
async fn recording(service: &Service, user: String, segments: &[PathBuf]) -> Session {
    let age = Duration::from_secs(segments.len() as u64 * 2 + 1);
    let session = service.session(&user, age, true).await;
    session.lay(segments, 0..FIRST, 2);
    // its rate is known from now on, until then it counts as a large one
    service.indexed(&session, FIRST as f64 * 2.0).await;
    session
}

/// What segments cost that arrive for a few sessions while `among` others record: a row. What the others cost meanwhile is
/// many times as much, so it is measured before and after each time, and the middle of several is taken.
async fn arriving_among(service: &Service, among: usize, segments: &[PathBuf]) -> Vec<String> {
    let (mut each, mut idles) = (Vec::new(), Vec::new());
    for round in 0..PROBE_ROUNDS {
        let mut probes = Vec::new();
        for number in 0..PROBES {
            let user = format!("probe{among}-{round}-{number}");
            probes.push(recording(service, user, segments).await);
        }
        let before = idle(service).await;
        let busy = spent(service, arrive(service, &probes, segments)).await;
        let after = idle(service).await;
        let between = (before + after) / 2;
        each.push(busy.saturating_sub(between) / (PROBES * PROBE_SEGMENTS) as u32);
        idles.push(between);
        for probe in &probes {
            let (token, path) = (service.token(&probe.user), format!("/sessions/{}", probe.id));
            let (status, answer) = service.ask(&token, "DELETE", &path, Value::Null).await;
            assert_eq!(status, 200, "{answer:#}");
        }
    }
    let a_minute = median(&idles).mul_f64(60.0 / probe_span().as_secs_f64());
    let a_session = a_minute / (among + PROBES) as u32;
    let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
    let each = [millis(median(&each)), millis(*least), millis(*most)];
    [vec![among.to_string()], each.to_vec(), vec![millis(a_session)]].concat()
}

fn probe_span() -> Duration {
    PROBE_PACE * (PROBES * PROBE_SEGMENTS) as u32
}

async fn idle(service: &Service) -> Duration {
    spent(service, async { tokio::time::sleep(probe_span()).await }).await
}

async fn arrive(service: &Service, probes: &[Session], segments: &[PathBuf]) {
    let mut tick = tokio::time::interval(PROBE_PACE);
    for number in FIRST..FIRST + PROBE_SEGMENTS {
        for probe in probes {
            tick.tick().await;
            probe.lay(segments, number..number + 1, 2);
        }
    }
    for probe in probes {
        service.indexed(probe, (FIRST + PROBE_SEGMENTS) as f64 * 2.0).await;
    }
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
    let mut sessions = Vec::new();
    let mut started = Duration::ZERO;
    let head = [
        "sessions that record",
        "processor time per segment",
        "least",
        "most",
        "per session and minute, idle",
    ];
    let mut growth = vec![row(head)];
    for reach in [10, 100, 1000, count] {
        if reach > count || reach <= sessions.len() {
            continue;
        }
        let began = Instant::now();
        let more: Vec<_> = stream::iter(sessions.len()..reach)
            .map(|number| recording(&service, format!("user{number}"), &segments))
            .buffer_unordered(STARTS_AT_ONCE)
            .collect()
            .await;
        started += began.elapsed();
        sessions.extend(more);
        growth.push(arriving_among(&service, reach, &segments).await);
    }
    let said = format!(
        "{} small segments (320x180, 2 s), one every {} ms, for {PROBES} sessions among all that record; what the \
         service spends before and after it is taken off, and shown beside. Median of {PROBE_ROUNDS}.",
        PROBES * PROBE_SEGMENTS,
        PROBE_PACE.as_millis()
    );
    report.table("Arriving segments among many sessions", &said, &growth);
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
