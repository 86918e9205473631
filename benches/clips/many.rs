//! Many sessions that record: how fast the door answers, what memory is held.

use std::time::Instant;

use serde_json::Value;

use crate::{
    Scale,
    arriving::{STARTS_AT_ONCE, fixture, little_promised, recording},
    report::{Report, mebibytes, median, millis, quantile, row},
    service::{Service, usage},
};

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
    let service = Service::start(little_promised()).await;
    let idle = usage(service.pid()).resident;
    let segments = fixture();
    let began = Instant::now();
    let sessions = recording(&service, count, &segments).await;
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
