//! Sends a window of a session as a video while it is made; nothing of it is kept and no quota is touched. The window is
//! pinned like a capture's, but by a lease: if this process dies, the pin lets go by itself within a minute.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Deps, authorize,
    capture::{self, GapPolicy},
    index,
    material::Material,
    probe, render,
    stores::{self, Which},
    work,
};
use crate::{
    access::{Caller, Permission},
    domain::{
        id::{ClipId, SessionId},
        playlist::segment_file_name,
        selection,
        time::{Timestamp, Window},
        window::{Precision, ResolvedWindow, WindowRequest},
    },
    error::{Code, Error, Result},
    media::{
        compose::{CutPart, SegmentFile},
        ffmpeg::{Limits, Metadata},
        fragments,
    },
    store::{self, pin, session},
};

/// Pieces that wait for the reader at most.
const PIECES_AHEAD: usize = 4;
/// How long a pin holds without renewal.
const LEASE: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(20);
/// How long somebody waits for a free place at most.
const WAIT_FOR_PLACE: Duration = Duration::from_secs(10);
/// Between two looks at whether the reader is the slower one.
const LOOK_AT_READER: Duration = Duration::from_millis(50);
/// No stream is given less time than this.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);

/// A video on its way.
#[derive(Debug)]
pub struct Streaming {
    /// A name for it.
    pub title: String,
    /// The first bytes.
    pub first: Bytes,
    /// The rest.
    pub rest: Rest,
}

/// What comes after the first bytes.
#[derive(Debug)]
pub struct Rest {
    pieces: mpsc::Receiver<Result<Bytes>>,
    whole: Arc<AtomicBool>,
}

impl Rest {
    /// The next bytes; `None` = that was all of it. After an error the video is not whole.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        match self.pieces.recv().await {
            Some(piece) => Some(piece),
            None if self.whole.load(Ordering::Acquire) => None,
            // whoever made it is gone without a word
            None => {
                // said once: the one who hears it asks no more
                self.whole.store(true, Ordering::Release);
                Some(Err(Error::internal("streaming", "it broke off")))
            }
        }
    }
}

/// Streams a window of the caller's session, from the key frame at or before its start. Answers with the first bytes.
///
/// # Errors
/// `not_found`, `not_owner`, `permission_denied`, `window_invalid` (also one that ends in the future),
/// `no_segments_in_range`, `no_usable_segments`, `overloaded` (no place, or the caller streams already), `storage_unavailable`, `ffmpeg_failed`.
pub async fn stream(
    deps: &Deps,
    caller: &Caller,
    id: &SessionId,
    request: &WindowRequest,
    arrived_at: Timestamp,
) -> Result<Streaming> {
    let session = capture::load_own(deps, caller, id).await?;
    let community = session.community_id.as_ref();
    authorize::require(deps, caller, Permission::CaptureReplay, community).await?;
    probe::demand_readable(deps, Which::Buffer).await?;
    let turn = deps.places.begin_stream(&caller.user_id)?;
    index::index_session(deps, id).await?;
    // whoever asked may leave at any moment; once pinned there is somebody who lets go again
    let (owned, id, request) = (deps.clone(), id.clone(), request.clone());
    let begin = async move { begin(owned, id, &request, arrived_at, turn).await };
    let (title, mut rest) = deps.to_the_end(begin).await?;
    match rest.next().await {
        Some(first) => Ok(Streaming { title, first: first?, rest }),
        None => Err(Error::internal("streaming", "there is neither a video nor an error")),
    }
}

/// Pins the window and starts the work.
async fn begin(
    deps: Deps,
    session: SessionId,
    request: &WindowRequest,
    arrived_at: Timestamp,
    turn: work::Streaming,
) -> Result<(String, Rest)> {
    let (window, pinned) = pin_it(&deps, &session, request, arrived_at).await?;
    let title = format!("Replay {}", window.from.to_rfc3339().replace(['T', ':'], " "));
    let (out, pieces) = mpsc::channel(PIECES_AHEAD);
    let whole = Arc::new(AtomicBool::new(false));
    let rest = Rest { pieces, whole: Arc::clone(&whole) };
    let tasks = deps.tasks.clone();
    let job = Job { deps, session, window, pinned, arrived_at, turn, whole };
    let meta = Metadata { title: Some(title.clone()), started_at: Some(window.from) };
    tasks.spawn(job.run(meta, out));
    Ok((title, rest))
}

/// Judges the window and pins it, in one transaction.
async fn pin_it(
    deps: &Deps,
    id: &SessionId,
    request: &WindowRequest,
    arrived_at: Timestamp,
) -> Result<(Window, ClipId)> {
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    if !session::lock_for_pins(&tx, id).await? {
        return Err(Error::not_found("session"));
    }
    let material = Material::load(&tx, id).await?;
    let resolved = capture::resolve(deps, &material.session, request, arrived_at)?;
    if resolved.window.to > arrived_at {
        return Err(Error::new(Code::WindowInvalid, "A stream cannot end in the future."));
    }
    let resolved = ResolvedWindow { precision: Precision::Keyframe, ..resolved };
    let found = capture::judge(&material, &resolved, GapPolicy::Skip, now)?;
    let window = capture::pin_window(deps, found.plan.as_ref(), &material, resolved.window);
    let owner = ClipId::generate();
    pin::insert_lease(&tx, id, &owner, window, now.plus(LEASE), now).await?;
    store::commit(tx).await?;
    Ok((resolved.window, owner))
}

/// One stream.
struct Job {
    deps: Deps,
    session: SessionId,
    window: Window,
    pinned: ClipId,
    arrived_at: Timestamp,
    turn: work::Streaming,
    /// Set when everything was handed out.
    whole: Arc<AtomicBool>,
}

impl Job {
    /// Runs to its end: sent, failed, nobody reads any more, or shutting down. The pin goes in any case.
    async fn run(self, meta: Metadata, out: mpsc::Sender<Result<Bytes>>) {
        let cancel = self.deps.stop.child_token();
        let (done, over) = oneshot::channel::<()>();
        let work = async {
            let outcome = tokio::select! {
                // a reader who left is noticed also while there is nothing to send
                () = closed(&out, &cancel) => None,
                outcome = self.send(&meta, &out, &cancel) => Some(outcome),
            };
            drop(done);
            outcome
        };
        let (outcome, ()) = tokio::join!(work, self.keep_pin(over));
        let word = match &outcome {
            Some(Ok(())) => "sent",
            None => "abandoned",
            Some(Err(_)) if out.is_closed() => "abandoned",
            Some(Err(error)) => error.code().as_str(),
        };
        metrics::counter!("livekit_replay_streams_total", "outcome" => word).increment(1);
        tracing::info!(session.id = %self.session, outcome = word, "stream over");
        drop(self.turn);
        if let Err(error) = pin::delete_of_clip(self.deps.db.conn(), &self.pinned).await {
            tracing::warn!(error = error.chain(), "a stream's pin stays until it runs out");
        }
        match outcome {
            Some(Ok(())) => self.whole.store(true, Ordering::Release),
            Some(Err(error)) => {
                // somebody who does not read is not waited for; without a word it is broken off as well
                let stall = self.deps.config.capture.stall;
                let _ = tokio::time::timeout(stall, out.send(Err(error))).await;
            }
            None => {}
        }
    }

    async fn send(
        &self,
        meta: &Metadata,
        out: &mpsc::Sender<Result<Bytes>>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let deps = &self.deps;
        let wanted = move || std::future::ready(Ok(!out.is_closed()));
        let (session, since) = (&self.session, self.arrived_at);
        let asked = (self.window, since);
        let material = render::wait_for(deps, session, asked, wanted, || {}, cancel).await?;
        let precision = Precision::Keyframe;
        let plan = selection::plan(&capture::select(&material, self.window, precision))?;
        let parts = parts(deps, &material, &plan)?;
        let longest = deps.config.capture.wait.min(WAIT_FOR_PLACE);
        let (_seat, place) = deps.places.take_for_stream(&deps.config, longest).await?;
        let seconds = self.window.micros() as f64 / 1e6;
        let factor = deps.config.capture.deadline_factor;
        let deadline = Duration::from_secs_f64((seconds * factor).clamp(0.0, 1e6));
        let limits = Limits {
            deadline: deadline.max(SHORTEST_DEADLINE),
            stall: deps.config.capture.stall,
            cancel: cancel.clone(),
        };
        let ffmpeg = render::ffmpeg();
        let work = fragments::send(&ffmpeg, parts, meta, out, &limits);
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => return outcome,
            () = paced_by_reader(out) => {}
        }
        // from here on FFmpeg mostly waits: it copies no faster than somebody reads, and nobody else must wait for that
        drop(place);
        work.await
    }

    /// Renews the pin until the work is over.
    async fn keep_pin(&self, mut over: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut over => return,
                () = tokio::time::sleep(RENEW) => {}
            }
            let until = Some(self.deps.clock.now().plus(LEASE));
            let renewed = pin::set_expiry(self.deps.db.conn(), &self.pinned, until).await;
            if let Err(error) = renewed {
                tracing::warn!(error = error.chain(), "a stream's pin was not renewed");
            }
        }
    }
}

/// Ends when all that may wait for the reader does.
async fn paced_by_reader(out: &mpsc::Sender<Result<Bytes>>) {
    let mut look = tokio::time::interval(LOOK_AT_READER);
    loop {
        look.tick().await;
        if out.capacity() == 0 {
            return;
        }
    }
}

/// Ends when the reader has left or we are shutting down.
async fn closed(out: &mpsc::Sender<Result<Bytes>>, cancel: &CancellationToken) {
    tokio::select! {
        () = out.closed() => {}
        // the work itself ends by it, with an error for the reader
        () = cancel.cancelled() => std::future::pending().await,
    }
}

/// The plan's segments where they lie: the pin keeps them there.
pub(super) fn parts(
    deps: &Deps,
    material: &Material,
    plan: &selection::Plan,
) -> Result<Vec<CutPart>> {
    let mut parts = Vec::new();
    for part in &plan.parts {
        let mut segments = Vec::new();
        for index in &part.segments {
            let row = material.rows.get(*index);
            let epoch = row
                .and_then(|row| material.epoch_rows.iter().find(|epoch| epoch.number == row.epoch));
            let (Some(row), Some(epoch)) = (row, epoch) else {
                return Err(Error::internal("streaming", "a segment without its epoch"));
            };
            let directory = stores::in_buffer(&deps.config, &epoch.path)?;
            segments.push(SegmentFile {
                path: directory.join(segment_file_name(row.number.unsigned_abs())),
                pts_start_unwrapped: row.pts_start,
                checksum: None,
            });
        }
        parts.push(CutPart { segments, from_pts: part.from_pts, to_pts: part.to_pts });
    }
    Ok(parts)
}
