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
    (
        "livekit_replay_scrape_errors",
        "questions to the database that failed while the figures were gathered",
    ),
    ("livekit_replay_process_resident_bytes", "memory of this process"),
    ("livekit_replay_http_requests_total", "requests answered, by route, method and status"),
    ("livekit_replay_http_request_seconds", "time to the answer's head, by route and method"),
    ("livekit_replay_jwks_reads_total", "readings of the keys of tokens, by outcome"),
    ("livekit_replay_webhooks_total", "webhooks of LiveKit, by outcome"),
    ("livekit_replay_sessions", "sessions by status"),
    ("livekit_replay_sessions_started_total", "starts that LiveKit accepted"),
    ("livekit_replay_sessions_ended_total", "sessions that ended, by reason"),
    ("livekit_replay_epochs_restarted_total", "recordings that replaced another"),
    (
        "livekit_replay_orphan_egress_stopped_total",
        "recordings of ours without session that were stopped",
    ),
    ("livekit_replay_segments", "segments in the index"),
    ("livekit_replay_segment_bytes", "their bytes"),
    ("livekit_replay_segments_deleted_total", "segments deleted by cleanup"),
    ("livekit_replay_segment_bytes_deleted_total", "their bytes"),
    ("livekit_replay_captures_total", "captures accepted"),
    ("livekit_replay_capture_phase_seconds", "time of making a clip, by phase"),
    ("livekit_replay_clips_total", "clips that left processing, by outcome"),
    ("livekit_replay_clip_bytes_total", "bytes of clips made"),
    ("livekit_replay_clips_deleted_total", "clips deleted"),
    ("livekit_replay_clips_shared_total", "shares of clips, by destination"),
    ("livekit_replay_events_total", "events written down, by type"),
    ("livekit_replay_event_streams", "streams of events that are open in this process"),
    ("livekit_replay_event_deliveries", "deliveries of events, by state"),
    ("livekit_replay_event_deliveries_total", "attempts at deliveries of events, by outcome"),
    ("livekit_replay_streams_total", "windows streamed, by outcome"),
    ("livekit_replay_jobs_open", "durable work that is not done"),
    ("livekit_replay_job_runs_total", "runs of scheduled jobs, by job and outcome"),
    ("livekit_replay_job_seconds", "time of those runs, by job"),
    (
        "livekit_replay_quota_drift_bytes",
        "what the last audit found wrong in the accounts; 0 is right",
    ),
    ("livekit_replay_store_free_bytes", "free bytes, by store"),
    ("livekit_replay_store_total_bytes", "size, by store"),
    (
        "livekit_replay_store_hours_left",
        "hours until a store is down to the reserve at the rate of the last half hour; +Inf: it is not filling, by store",
    ),
    ("livekit_replay_store_watermark", "0 fine, 1 high, 2 critical, by store"),
    (
        "livekit_replay_evictions_total",
        "segments beyond the promised minutes that went because the disk was critically full",
    ),
    ("livekit_replay_refused_total", "refusals because a queue was full, by queue"),
    ("livekit_replay_store_usable", "1 if the store answered when last asked, by store"),
];

/// Names of fields in log lines: one name per thing, units in names.
pub const FIELDS: &[(&str, &str)] = &[
    ("error", "the whole chain of causes"),
    ("session.id", "a session"),
    ("clip.id", "a clip"),
    ("user.id", "a user, by the app's id"),
    ("egress.id", "LiveKit's name of a recording"),
    ("epoch", "number of the recording in its session"),
    ("job.id", "a durable piece of work"),
    ("job.kind", "what it is"),
    ("request_id", "the request that caused the line; x-request-id of its answer"),
    ("client", "the address a request came from, or that a trusted proxy names"),
    ("latency_ms", "time to the answer"),
    ("pictures_copied", "pictures of a clip that are as they were recorded"),
    ("pictures_encoded", "pictures of a clip that were encoded again"),
    ("reason", "why"),
    ("watermark", "how full a store is: fine, high or critical"),
    ("hours_left", "until a store is down to the reserve at the rate measured"),
    ("keys", "public keys of tokens, by id and algorithm"),
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use regex::Regex;

    use super::*;

    fn sources(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a directory of the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(fs::read_to_string(&path).expect("a source file"));
            }
        }
    }

    #[test]
    fn every_figure_of_the_code_is_listed_and_every_listed_one_is_in_the_code() {
        let mut texts = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        let macros = Regex::new(r#"metrics::(?:counter|gauge|histogram)!\(\s*"([a-z_]+)""#);
        let macros = macros.expect("a constant pattern");
        let used: BTreeSet<&str> = texts
            .iter()
            .flat_map(|text| macros.captures_iter(text))
            .filter_map(|found| found.get(1).map(|name| name.as_str()))
            .collect();
        let listed: BTreeSet<&str> = FIGURES.iter().map(|(name, _)| *name).collect();
        assert_eq!(used, listed);
        let page = include_str!("../docs/logging.md");
        for (name, _) in FIELDS {
            assert!(page.contains(&format!("`{name}`")), "docs/logging.md does not name {name}");
        }
    }
}
