//! Egress's sink: makes closed segments visible when the real one would, and the playlists after them.
//!
//! Nothing here is atomic, on purpose: a segment is created under its final name and grows, a playlist is cut to
//! nothing and written again, as egress does on local disks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{fs::File, io::AsyncWriteExt, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Corruption,
    egress_state::Control,
    encoder::Closed,
    playlist::{self, Entry},
    request::Spec,
};

/// Bytes copied at once; a reader can see a segment between two of them.
const COPY_CHUNK: usize = 64 * 1024;
/// Length of a transport packet.
const PACKET: usize = 188;
/// The service description table, which egress's muxer does not write and FFmpeg's does.
const SERVICE_TABLE: u16 = 0x11;

/// Where, when and under which names segments come out.
pub(super) struct Sink {
    /// What stands for `/` of the egress host.
    pub(super) root: PathBuf,
    pub(super) spec: Spec,
    pub(super) egress_id: String,
    pub(super) control: Arc<Control>,
    /// When the muxer got the first frame, by the egress host's clock.
    pub(super) label_ns: i64,
    /// The same moment, monotonic.
    pub(super) started: Instant,
    /// Segment n comes out `lag_segments + n` segments and `lag` after that.
    pub(super) lag_segments: u32,
    pub(super) lag: Duration,
}

/// Releases segments until the encoder has no more. Ends with the manifest's place, or egress's error text.
pub(super) async fn run(
    sink: Sink,
    mut closed: mpsc::UnboundedReceiver<Closed>,
    finish: CancellationToken,
    abort: CancellationToken,
) -> Result<Option<String>, String> {
    let mut book = Book { sink, entries: Vec::new(), event_written: None };
    let work = async {
        while let Some(segment) = closed.recv().await {
            book.sink.wait_for(segment.index, &finish).await;
            book.publish(segment).await?;
        }
        if !finish.is_cancelled() {
            // the encoder broke: its own error is the one that counts, and no playlist is closed
            return std::future::pending().await;
        }
        book.close().await
    };
    let result: std::io::Result<Option<String>> = tokio::select! {
        result = work => result,
        () = abort.cancelled() => Ok(None),
    };
    result.map_err(|error| format!("Local upload failed: {error}"))
}

impl Sink {
    /// Waits until a segment is due; a stop flushes at once.
    async fn wait_for(&self, index: u32, finish: &CancellationToken) {
        let segments = f64::from(index + self.lag_segments) * f64::from(self.spec.segment_seconds);
        let due = self.started + Duration::from_secs_f64(segments) + self.lag;
        let timely = async {
            tokio::time::sleep_until(due).await;
            self.control.unpaused().await;
        };
        tokio::select! {
            () = finish.cancelled() => {}
            () = timely => {}
        }
    }

    /// A path of the egress host on this machine.
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(self.spec.paths.absolute(name).trim_start_matches('/'))
    }
}

struct Book {
    sink: Sink,
    entries: Vec<Entry>,
    /// When the EVENT playlist was last written, and how many entries it had.
    event_written: Option<(Instant, usize)>,
}

impl Book {
    async fn publish(&mut self, segment: Closed) -> std::io::Result<()> {
        let label_ns = self.sink.label_ns + (segment.start * 1e9).round() as i64;
        let seconds = segment.end - segment.start;
        let timestamp = self.sink.spec.timestamp_names.then(|| timestamp(label_ns));
        let name = self.sink.spec.paths.segment(segment.index, timestamp.as_deref());
        let bytes = without_service_table(tokio::fs::read(&segment.file).await?);
        let bytes = match self.sink.control.take_corruption() {
            Some(how) => corrupt(bytes, how),
            None => bytes,
        };
        copy(&self.sink.path(&name), &bytes).await?;
        tokio::fs::remove_file(&segment.file).await?;
        let control = &self.sink.control;
        control.bytes.fetch_add(bytes.len() as i64, Ordering::Relaxed);
        control.recorded_ns.fetch_add((seconds * 1e9) as i64, Ordering::Relaxed);
        self.entries.push(Entry { name, label_ns, seconds });
        if self.event_is_due() {
            self.write_event(false).await?;
        }
        self.write_live(false).await?;
        // counted last: who sees the count sees files and playlists
        self.sink.control.segments.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// After the first segment, then every (full hours + 1)-th, or when a minute has passed.
    fn event_is_due(&self) -> bool {
        let Some((at, entries)) = self.event_written else { return true };
        let every = 1 + self.sink.started.elapsed().as_secs() / 3600;
        (self.entries.len() - entries) as u64 >= every || at.elapsed() > Duration::from_secs(60)
    }

    async fn write_event(&mut self, ended: bool) -> std::io::Result<()> {
        let text = playlist::event(self.sink.spec.segment_seconds, &self.entries, ended);
        copy(&self.sink.path(&self.sink.spec.paths.playlist), text.as_bytes()).await?;
        self.event_written = Some((Instant::now(), self.entries.len()));
        Ok(())
    }

    async fn write_live(&self, ended: bool) -> std::io::Result<()> {
        let Some(live) = &self.sink.spec.paths.live else { return Ok(()) };
        let text = playlist::live(self.sink.spec.segment_seconds, &self.entries, ended);
        copy(&self.sink.path(live), text.as_bytes()).await
    }

    /// A good end: both playlists closed, the manifest written if it was not forbidden.
    async fn close(&mut self) -> std::io::Result<Option<String>> {
        self.write_event(true).await?;
        self.write_live(true).await?;
        if !self.sink.spec.manifest {
            return Ok(None);
        }
        let name = format!("{}.json", self.sink.egress_id);
        copy(&self.sink.path(&name), self.manifest().to_string().as_bytes()).await?;
        Ok(Some(self.sink.spec.paths.absolute(&name)))
    }

    fn manifest(&self) -> serde_json::Value {
        let paths = &self.sink.spec.paths;
        let segments: Vec<_> = self
            .entries
            .iter()
            .map(|entry| serde_json::json!({ "filename": entry.name, "location": paths.absolute(&entry.name) }))
            .collect();
        serde_json::json!({
            "egress_id": self.sink.egress_id,
            "room_name": self.sink.spec.room,
            "playlists": [{ "location": paths.absolute(&paths.playlist), "segments": segments }],
        })
    }
}

/// Creates or truncates a file under its final name and fills it piece by piece.
async fn copy(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        tokio::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).await?;
    }
    let mut file = File::create(path).await?;
    for chunk in bytes.chunks(COPY_CHUNK) {
        file.write_all(chunk).await?;
        file.flush().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn without_service_table(bytes: Vec<u8>) -> Vec<u8> {
    let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
    let kept =
        bytes.chunks(PACKET).filter(|packet| packet.len() < PACKET || pid(packet) != SERVICE_TABLE);
    kept.flatten().copied().collect()
}

fn corrupt(mut bytes: Vec<u8>, how: Corruption) -> Vec<u8> {
    match how {
        Corruption::Empty => bytes.clear(),
        // not on a packet's boundary
        Corruption::Truncated => bytes.truncate(bytes.len() / 2 / PACKET * PACKET + 100),
        Corruption::Garbage => rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes),
    }
    bytes
}

/// Seventeen digits, egress's local time (UTC in stock images).
fn timestamp(nanoseconds: i64) -> String {
    let moment = chrono::DateTime::from_timestamp_nanos(nanoseconds);
    moment.format("%Y%m%d%H%M%S%3f").to_string()
}
