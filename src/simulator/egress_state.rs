//! The egresses the simulated server remembers, their states, and the webhooks of each change.
//!
//! The stored record changes only when the state does, as on a server: counts of segments are of that moment.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use livekit_protocol as proto;
use proto::{EgressStatus, SegmentsInfo};
use tokio::{sync::watch, time::Instant};

use super::{
    Corruption, EgressView, id,
    request::Spec,
    world::{State, World},
};

/// Why a recording ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// StopEgress was called.
    Stopped,
    /// All that was recorded is gone.
    SourceClosed,
    /// The session limit.
    Limit,
    /// Something broke: text and code.
    Failed(String, i32),
    /// Aborted while it ran.
    Aborted,
    /// The egress host is gone and nobody was told.
    Died,
}

impl End {
    /// Final state, details, error and its code.
    pub(super) fn outcome(&self) -> (EgressStatus, &'static str, String, i32) {
        match self {
            End::Stopped => {
                (EgressStatus::EgressComplete, "End reason: StopEgress API", String::new(), 0)
            }
            End::SourceClosed => {
                (EgressStatus::EgressComplete, "End reason: Source closed", String::new(), 0)
            }
            End::Limit => (
                EgressStatus::EgressLimitReached,
                "End reason: Session limit reached",
                "Session limit reached".to_owned(),
                413,
            ),
            End::Failed(text, code) => {
                (EgressStatus::EgressFailed, "End reason: Failure", text.clone(), *code)
            }
            End::Aborted => {
                (EgressStatus::EgressAborted, "End reason: Aborted", "Aborted".to_owned(), 412)
            }
            End::Died => (EgressStatus::EgressActive, "", String::new(), 0),
        }
    }
}

/// The strings by which a running egress is pulled, and the figures it leaves.
#[derive(Debug)]
pub(super) struct Control {
    end: watch::Sender<Option<End>>,
    pub(super) dead: AtomicBool,
    pub(super) encoding: AtomicBool,
    recording: AtomicBool,
    /// Joined, and a track is still missing.
    waiting: watch::Sender<bool>,
    pub(super) segments: AtomicU32,
    pub(super) bytes: AtomicI64,
    pub(super) recorded_ns: AtomicI64,
    /// How far its encoder was behind its screen at worst (milliseconds).
    pub(super) behind_ms: AtomicU64,
    pause: watch::Sender<Option<Instant>>,
    corrupt: Mutex<Vec<Corruption>>,
}

impl Control {
    fn new() -> Control {
        Control {
            end: watch::Sender::new(None),
            dead: AtomicBool::new(false),
            encoding: AtomicBool::new(false),
            recording: AtomicBool::new(false),
            waiting: watch::Sender::new(false),
            segments: AtomicU32::new(0),
            bytes: AtomicI64::new(0),
            recorded_ns: AtomicI64::new(0),
            behind_ms: AtomicU64::new(0),
            pause: watch::Sender::new(None),
            corrupt: Mutex::new(Vec::new()),
        }
    }

    /// Ends the egress; the first reason stays.
    pub(super) fn end(&self, end: End) {
        self.end.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(end);
            }
            first
        });
    }

    /// The first packet has come; from here on the recording itself watches for its end.
    pub(super) fn set_recording(&self) {
        self.recording.store(true, Ordering::Relaxed);
    }

    pub(super) fn recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    pub(super) fn set_waiting(&self, waiting: bool) {
        self.waiting.send_replace(waiting);
    }

    /// Returns once the egress does not wait for tracks.
    pub(super) async fn settled(&self) {
        // the sender is ours: it cannot be gone
        let _ = self.waiting.subscribe().wait_for(|waiting| !waiting).await;
    }

    /// Waits for the reason to end.
    pub(super) async fn ended(&self) -> End {
        let mut receiver = self.end.subscribe();
        let end = receiver.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End::Died)
    }

    /// The picture that was due then is drawn now.
    pub(super) fn note_pace(&self, due: Instant) {
        let behind = Instant::now().saturating_duration_since(due).as_millis();
        self.behind_ms.fetch_max(u64::try_from(behind).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn pause_until(&self, until: Instant) {
        self.pause.send_replace(Some(until));
    }

    /// Waits while the sink is told to pause.
    pub(super) async fn unpaused(&self) {
        loop {
            let until = *self.pause.borrow();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    pub(super) fn corrupt_next(&self, how: Corruption) {
        self.corrupt.lock().unwrap_or_else(PoisonError::into_inner).push(how);
    }

    pub(super) fn take_corruption(&self) -> Option<Corruption> {
        let mut list = self.corrupt.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_empty() { None } else { Some(list.remove(0)) }
    }
}

/// One egress as the server remembers it.
pub(super) struct Egress {
    info: proto::EgressInfo,
    pub(super) control: Arc<Control>,
    webhooks: Vec<String>,
    directory: String,
}

impl Egress {
    pub(super) fn status(&self) -> EgressStatus {
        EgressStatus::try_from(self.info.status).unwrap_or(EgressStatus::EgressFailed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.info.status >= EgressStatus::EgressComplete as i32
    }

    pub(super) fn info(&self) -> &proto::EgressInfo {
        &self.info
    }

    fn count(&mut self) {
        if let Some(result) = self.info.segment_results.first_mut() {
            result.segment_count = i64::from(self.control.segments.load(Ordering::Relaxed));
            result.size = self.control.bytes.load(Ordering::Relaxed);
            if result.segment_count > 0 {
                result.playlist_location.clone_from(&result.playlist_name);
                result.live_playlist_location.clone_from(&result.live_playlist_name);
            }
        }
    }
}

impl World {
    /// Remembers a new egress and tells of it.
    pub(super) fn add_egress(
        &self,
        egress_id: &str,
        spec: &Spec,
    ) -> (proto::EgressInfo, Arc<Control>) {
        let now_ms = id::now_ms();
        let room_id = self.room(&spec.room).map(|room| room.sid).unwrap_or_default();
        let now_ns = self.egress_clock_ns(now_ms);
        let mut info = proto::EgressInfo {
            egress_id: egress_id.to_owned(),
            room_id,
            room_name: spec.room.clone(),
            source_type: proto::EgressSourceType::Sdk as i32,
            started_at: now_ns,
            updated_at: now_ns,
            segment_results: vec![SegmentsInfo {
                playlist_name: spec.paths.absolute(&spec.paths.playlist),
                live_playlist_name: spec
                    .paths
                    .live
                    .as_ref()
                    .map(|live| spec.paths.absolute(live))
                    .unwrap_or_default(),
                ..SegmentsInfo::default()
            }],
            request: Some(spec.echo.clone()),
            ..proto::EgressInfo::default()
        };
        mirror(&mut info);
        let control = Arc::new(Control::new());
        let egress = Egress {
            info: info.clone(),
            control: control.clone(),
            webhooks: spec.webhooks.clone(),
            directory: spec.paths.directory.clone(),
        };
        let mut state = self.lock();
        self.tell("egress_started", &egress);
        state.egresses.insert(egress_id.to_owned(), egress);
        (info, control)
    }

    /// The worker's process took over: from here on its own start counts, a little later than in the first answer.
    pub(super) fn egress_joined(&self, egress_id: &str) {
        self.change(egress_id, |egress, now| {
            egress.info.started_at = now;
            None
        });
    }

    /// The first packet came; nothing happens if the egress was aborted meanwhile.
    pub(super) fn egress_active(&self, egress_id: &str, first_packet_ns: i64) {
        self.change(egress_id, |egress, now| {
            if egress.status() != EgressStatus::EgressStarting {
                return None;
            }
            egress.info.status = EgressStatus::EgressActive as i32;
            egress.info.updated_at = now;
            if let Some(result) = egress.info.segment_results.first_mut() {
                result.started_at = first_packet_ns;
            }
            Some("egress_updated")
        });
    }

    /// The egress is on its way out; told once.
    pub(super) fn egress_ending(&self, egress_id: &str, end: &End) {
        let (.., details, _, _) = end.outcome();
        self.change(egress_id, |egress, now| {
            if egress.status() != EgressStatus::EgressActive {
                return None;
            }
            egress.info.status = EgressStatus::EgressEnding as i32;
            egress.info.details = details.to_owned();
            egress.info.updated_at = now;
            egress.count();
            Some("egress_updated")
        });
    }

    /// The last word.
    pub(super) fn egress_over(
        &self,
        egress_id: &str,
        (status, details, error, error_code): (EgressStatus, &str, String, i32),
        manifest: Option<String>,
    ) {
        self.change(egress_id, |egress, now| {
            if egress.is_over() {
                return None;
            }
            egress.info.status = status as i32;
            egress.info.details = details.to_owned();
            egress.info.error = error;
            egress.info.error_code = error_code;
            egress.info.updated_at = now;
            egress.info.ended_at = now;
            egress.info.manifest_location = manifest.unwrap_or_default();
            egress.count();
            if let Some(result) = egress.info.segment_results.first_mut() {
                result.ended_at = now;
                result.duration = egress.control.recorded_ns.load(Ordering::Relaxed);
            }
            Some("egress_ended")
        });
    }

    fn change(
        &self,
        egress_id: &str,
        apply: impl FnOnce(&mut Egress, i64) -> Option<&'static str>,
    ) {
        let now_ns = self.egress_clock_ns(id::now_ms());
        let mut state = self.lock();
        let Some(egress) = state.egresses.get_mut(egress_id) else { return };
        if egress.control.dead.load(Ordering::Relaxed) {
            return;
        }
        let event = apply(egress, now_ns);
        mirror(&mut egress.info);
        if let Some(event) = event {
            self.tell(event, egress);
        }
    }

    fn tell(&self, name: &str, egress: &Egress) {
        let room = (name == "egress_started").then(|| proto::Room {
            sid: egress.info.room_id.clone(),
            name: egress.info.room_name.clone(),
            ..proto::Room::default()
        });
        let event = proto::WebhookEvent {
            event: name.to_owned(),
            egress_info: Some(egress.info.clone()),
            room,
            ..proto::WebhookEvent::default()
        };
        self.hooks.send(&egress.info.egress_id, event, id::now_ms(), &egress.webhooks);
    }

    pub(super) fn control(&self, egress_id: &str) -> Option<Arc<Control>> {
        self.lock().egresses.get(egress_id).map(|egress| egress.control.clone())
    }

    /// All egresses, for assertions.
    pub(super) fn egress_views(&self) -> Vec<EgressView> {
        self.lock().egresses.values().map(view).collect()
    }

    pub(super) fn running_encoders(&self) -> usize {
        let encoding = |egress: &&Egress| egress.control.encoding.load(Ordering::Relaxed);
        self.lock().egresses.values().filter(encoding).count()
    }
}

impl State {
    pub(super) fn busy_workers(&self) -> usize {
        self.egresses.values().filter(|egress| !egress.is_over()).count()
    }
}

/// Servers still fill the old single result beside the list.
#[expect(deprecated, reason = "measured servers send it")]
fn mirror(info: &mut proto::EgressInfo) {
    info.result = info.segment_results.first().cloned().map(proto::egress_info::Result::Segments);
}

fn view(egress: &Egress) -> EgressView {
    let control = &egress.control;
    EgressView {
        egress_id: egress.info.egress_id.clone(),
        room: egress.info.room_name.clone(),
        status: egress.status().as_str_name().to_owned(),
        directory: egress.directory.clone(),
        encoding: control.encoding.load(Ordering::Relaxed),
        dead: control.dead.load(Ordering::Relaxed),
        segments: control.segments.load(Ordering::Relaxed),
        behind_ms: control.behind_ms.load(Ordering::Relaxed),
        started_at_ns: egress.info.started_at,
        first_packet_ns: egress.info.segment_results.first().map_or(0, |result| result.started_at),
        error: egress.info.error.clone(),
        error_code: egress.info.error_code,
        details: egress.info.details.clone(),
    }
}
