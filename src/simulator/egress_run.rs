//! The life of one egress: joins, waits for its tracks, records, ends for a reason, says so (or not).

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use livekit_protocol as proto;
use proto::{EgressStatus, participant_info::Kind};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    egress_state::{Control, End},
    encoder, id,
    release::{self, Sink},
    request::{Picture, Spec},
    world::{Track, World},
};

/// How long egress goes on, in black, after its tracks are unpublished (measured: 0.2 to 0.3 s; not when a room is
/// closed).
const TAIL: Duration = Duration::from_millis(250);

/// The tracks an egress records.
struct Source {
    video: Arc<Track>,
    sound: Vec<Arc<Track>>,
}

/// Runs an egress from the accepted request to its end.
pub(super) async fn run(world: Arc<World>, egress_id: String, spec: Spec, control: Arc<Control>) {
    let live = async {
        tokio::time::sleep(world.config.egress.start_delay).await;
        // a room that closed meanwhile is not opened again for its recorder
        if world.room(&spec.room).is_some() {
            world.join(&spec.room, &egress_id, "", Kind::Egress);
        }
        world.egress_joined(&egress_id);
        let found = find_source(&world, &spec, &control).await;
        control.set_waiting(false);
        match found {
            Ok(source) => record(&world, &egress_id, &spec, &control, source).await,
            Err(end) => world.egress_over(&egress_id, end.outcome(), None),
        }
    };
    // `record` watches the reasons to end by itself; before it, an end means that nothing was recorded
    tokio::select! {
        () = live => {}
        () = ended_before_start(&world, &egress_id, &control) => {}
    }
    control.set_waiting(false);
    if !control.dead.load(Ordering::Relaxed) {
        world.leave(&spec.room, &egress_id);
    }
}

/// Aborts what has not received its first packet yet.
pub(super) fn abort_start(world: &World, egress_id: &str) {
    let outcome = (
        EgressStatus::EgressAborted,
        "End reason: StopEgress API",
        "Stop called before pipeline could start".to_owned(),
        412,
    );
    world.egress_over(egress_id, outcome, None);
}

/// Resolves when the egress is to end while it is still starting; never once it is recording.
async fn ended_before_start(world: &World, egress_id: &str, control: &Control) {
    let end = tokio::select! {
        () = world.cancel.cancelled() => {
            // recording cleans up by itself
            if is_starting(world, egress_id) { return }
            return std::future::pending().await;
        }
        end = control.ended() => end,
    };
    if control.recording() {
        return std::future::pending().await;
    }
    match end {
        End::Stopped | End::SourceClosed => abort_start(world, egress_id),
        End::Died => control.dead.store(true, Ordering::Relaxed),
        end => world.egress_over(egress_id, end.outcome(), None),
    }
}

fn is_starting(world: &World, egress_id: &str) -> bool {
    world.control(egress_id).is_none_or(|control| !control.recording())
}

/// Waits until every track asked for is there, as long as egress would.
async fn find_source(world: &World, spec: &Spec, control: &Control) -> Result<Source, End> {
    let mut changes = world.changes();
    let deadline = Instant::now() + world.config.egress.track_wait;
    loop {
        let missing = match look(world, spec) {
            Ok(source) => return Ok(source),
            Err(missing) => missing,
        };
        control.set_waiting(true);
        tokio::select! {
            // the sender lives in `world`: it never fails
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Err(End::Failed(missing, 404)),
        }
    }
}

fn look(world: &World, spec: &Spec) -> Result<Source, String> {
    let video = match &spec.picture {
        Picture::Track(sid) => world.track_in(&spec.room, sid).ok_or(sid),
        Picture::ShareOf(identity) => world.share_of(&spec.room, identity).ok_or(identity),
    };
    let video = video.map_err(|missing| match &spec.picture {
        Picture::Track(_) => format!("track {missing} not found"),
        Picture::ShareOf(_) => format!("participant {missing} not found"),
    })?;
    let mut sound = Vec::new();
    for sid in &spec.sound {
        let track = world.track_in(&spec.room, sid);
        sound.push(track.ok_or_else(|| format!("track {sid} not found"))?);
    }
    Ok(Source { video, sound })
}

/// From the first packet to the last file.
async fn record(
    world: &Arc<World>,
    egress_id: &str,
    spec: &Spec,
    control: &Arc<Control>,
    source: Source,
) {
    let (start_ms, start) = (id::now_ms(), Instant::now());
    control.set_recording();
    world.egress_active(egress_id, world.egress_clock_ns(start_ms));
    let mut media = None;
    if source.video.live_media {
        match Media::start(world, egress_id, spec, control, &source, start_ms, start).await {
            Ok(started) => media = Some(started),
            Err(text) => {
                return world.egress_over(egress_id, End::Failed(text, 500).outcome(), None);
            }
        }
    }
    let broken = async {
        match &mut media {
            Some(media) => media.broken().await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        () = world.cancel.cancelled() => None,
        end = control.ended() => Some(end),
        end = broken => Some(end),
        () = source_gone(world, spec, &source) => {
            if world.room(&spec.room).is_some() {
                world.pause(TAIL).await;
            }
            Some(End::SourceClosed)
        }
        () = session_limit(world.config.egress.session_limit) => Some(End::Limit),
    };
    let graceful = matches!(end, Some(End::Stopped | End::SourceClosed | End::Limit));
    if let Some(end) = end.as_ref().filter(|_| graceful) {
        world.egress_ending(egress_id, end);
    }
    let closed = match media {
        Some(media) if graceful => media.finish(&world.cancel).await,
        Some(media) => {
            media.abort().await;
            Ok(None)
        }
        None => Ok(None),
    };
    control.encoding.store(false, Ordering::Relaxed);
    match (end, closed) {
        (None, _) => {}
        (Some(End::Died), _) => control.dead.store(true, Ordering::Relaxed),
        (Some(end), Ok(manifest)) => world.egress_over(egress_id, end.outcome(), manifest),
        (Some(_), Err(end)) => world.egress_over(egress_id, end.outcome(), None),
    }
}

/// A recording of tracks ends when the last of them is gone, one of a participant when the room is.
async fn source_gone(world: &World, spec: &Spec, source: &Source) {
    let mut changes = world.changes();
    loop {
        let gone = match spec.picture {
            Picture::Track(_) => {
                source.video.is_gone() && source.sound.iter().all(|track| track.is_gone())
            }
            Picture::ShareOf(_) => world.room(&spec.room).is_none(),
        };
        // only the simulator's end drops the sender, and that is watched elsewhere
        if gone || changes.changed().await.is_err() {
            return;
        }
    }
}

async fn session_limit(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// An encoder and the sink that releases its segments.
struct Media {
    encoder: tokio::task::JoinHandle<Result<(), String>>,
    sink: tokio::task::JoinHandle<Result<Option<String>, String>>,
    finish: CancellationToken,
    abort: CancellationToken,
    scratch: PathBuf,
}

impl Media {
    async fn start(
        world: &Arc<World>,
        egress_id: &str,
        spec: &Spec,
        control: &Arc<Control>,
        source: &Source,
        start_ms: u64,
        start: Instant,
    ) -> Result<Media, String> {
        let scratch = world.scratch.join(egress_id);
        tokio::fs::create_dir_all(&scratch).await.map_err(|error| error.to_string())?;
        let (finish, abort) = (CancellationToken::new(), CancellationToken::new());
        let (closed_sender, closed) = mpsc::unbounded_channel();
        let plan = encoder::Plan {
            ffmpeg: world.config.ffmpeg.clone(),
            preset: world.config.preset.clone(),
            scratch: scratch.clone(),
            width: spec.width,
            height: spec.height,
            frames_per_second: spec.frames_per_second,
            video_kbps: spec.video_kbps,
            audio_kbps: spec.audio_kbps,
            audio_rate: spec.audio_rate,
            segment_seconds: spec.segment_seconds,
            video: source.video.clone(),
            audio: spec.with_audio.then(|| source.sound.clone()),
            start_ms,
            start,
            control: control.clone(),
        };
        let egress = &world.config.egress;
        let sink = Sink {
            root: world.config.root.clone(),
            spec: spec.clone(),
            egress_id: egress_id.to_owned(),
            control: control.clone(),
            label_ns: world.egress_clock_ns(start_ms) + egress.inner_delay.as_nanos() as i64,
            started: start + egress.inner_delay,
            lag_segments: egress.release_segments,
            lag: egress.release_lag,
        };
        control.encoding.store(true, Ordering::Relaxed);
        Ok(Media {
            encoder: world.tasks.spawn(encoder::run(
                plan,
                closed_sender,
                finish.clone(),
                abort.clone(),
            )),
            sink: world.tasks.spawn(release::run(sink, closed, finish.clone(), abort.clone())),
            finish,
            abort,
            scratch,
        })
    }

    /// Resolves when encoder or sink end without having been told to.
    async fn broken(&mut self) -> End {
        let (text, code) = tokio::select! {
            ended = &mut self.encoder => (failure(ended), 500),
            ended = &mut self.sink => (failure(ended), 400),
        };
        End::Failed(text, code)
    }

    /// No more frames; everything is flushed and copied. Gives the place of the manifest, if there is one.
    async fn finish(self, cancel: &CancellationToken) -> Result<Option<String>, End> {
        self.finish.cancel();
        let ended = async { tokio::join!(self.encoder, self.sink) };
        let hurried = async {
            cancel.cancelled().await;
            self.abort.cancel();
            std::future::pending::<()>().await
        };
        let (encoded, sunk) = tokio::select! {
            ended = ended => ended,
            () = hurried => return Ok(None),
        };
        remove(&self.scratch).await;
        match (encoded, sunk) {
            (Ok(Ok(())), Ok(Ok(manifest))) => Ok(manifest),
            (Ok(Ok(())), Ok(Err(text))) => Err(End::Failed(text, 400)),
            (encoded, _) => Err(End::Failed(failure(encoded), 500)),
        }
    }

    async fn abort(self) {
        self.abort.cancel();
        // whichever broke has ended already, its result was taken: asking a finished handle twice would panic
        if !self.encoder.is_finished() {
            let _ = self.encoder.await;
        }
        if !self.sink.is_finished() {
            let _ = self.sink.await;
        }
        remove(&self.scratch).await;
    }
}

fn failure<T>(ended: Result<Result<T, String>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(_)) => "ended unexpectedly".to_owned(),
        Ok(Err(text)) => text,
        Err(error) => error.to_string(),
    }
}

/// What cannot be removed here goes with the simulator's whole scratch directory.
async fn remove(scratch: &PathBuf) {
    let _ = tokio::fs::remove_dir_all(scratch).await;
}
