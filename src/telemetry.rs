//! What the service tells those who run it: the log, and figures. How to write a log line is in `docs/logging.md`.
//!
//! [`FIGURES`] names every figure there is; a test compares it with the code.

use std::{io::IsTerminal, sync::OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Bounds of the histograms of durations, seconds.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Every figure by name, with what it says. Labels are bounded sets: never a name or an id of somebody's.
pub const FIGURES: &[(&str, &str)] = &[
    ("livekit_replay_info", "1; the label version says which program this is"),
    ("livekit_replay_panics_total", "panics caught; each is a defect and stands in the log"),
    ("livekit_replay_http_requests_total", "requests answered, by route, method and status"),
    ("livekit_replay_http_request_seconds", "time to the answer's head, by route and method"),
];

/// Names of fields in log lines: one name per thing, units in names.
pub const FIELDS: &[(&str, &str)] = &[
    ("error", "the whole chain of causes"),
    ("session.id", "a session"),
    ("clip.id", "a clip"),
    ("egress.id", "LiveKit's name of a recording"),
    ("epoch", "number of the recording in its session"),
    ("job.id", "a durable piece of work"),
    ("job.kind", "what it is"),
    ("request_id", "the request that caused the line; x-request-id of its answer"),
    ("latency_ms", "time to the answer"),
];

/// Installs the log: readable on a terminal, JSON lines otherwise; to standard error, so that what a command prints
/// stays clean. Does nothing if a log is installed already (tests).
pub fn install_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = if std::io::stderr().is_terminal() {
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).boxed()
    } else {
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed()
    };
    // somebody else's subscriber (a test's) is as good
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}

/// The recorder of figures, installed once per process.
pub fn figures() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| tracing::warn!(%error, "figures are not recorded"))
                .ok();
            for (name, says) in FIGURES {
                describe(name, says);
            }
            metrics::gauge!("livekit_replay_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            handle
        })
        .clone()
}

fn describe(name: &'static str, says: &'static str) {
    if name.ends_with("_total") {
        metrics::describe_counter!(name, says);
    } else if name.ends_with("_seconds") {
        metrics::describe_histogram!(name, says);
    } else {
        metrics::describe_gauge!(name, says);
    }
}

/// Logs every panic with its place and backtrace, and counts it. The part that panicked answers for itself.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("a panic without a text");
        let place = panic.location().map(ToString::to_string);
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(place, %backtrace, "panic: {text}");
        metrics::counter!("livekit_replay_panics_total").increment(1);
    }));
}
