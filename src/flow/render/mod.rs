//! Makes a clip: wait for the tail, plan, link the segments, cut, publish and settle. A job may run twice, or be run
//! by two workers for a moment; whatever happens, one transaction decides once ([`settle`]), and nothing becomes
//! visible before it.

mod damage;
mod settle;
mod tail;
mod trimmed;

pub(super) use tail::wait_for;

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Deps,
    capture::{Clip, GapPolicy, gap_policy_of, has_gaps, precision_of, select},
    crash,
    material::Material,
    stores::{self, Which},
    work::{self, Leased, Place},
};
use crate::{
    domain::{
        lifecycle::ClipStatus,
        selection,
        time::{Timestamp, Window},
        window::Precision,
    },
    error::{Code, Error, Result},
    media::{
        compose::{self, CutPart, SegmentFile},
        cut::{self, CutOutcome, CutRequest},
        ffmpeg::Ffmpeg,
        files::remove_tree,
    },
    store::{
        clip::{self, Phases},
        job, segment,
    },
};

/// A clip is never given less time than this.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);
/// For the names of all segments of a long window.
const LINK_LIMIT: Duration = Duration::from_secs(30);
/// A process is killed for many reasons that are not the clip it was at; a clip that kills its process each time must
/// not do so for ever.
const MOST_DEATHS: i32 = 10;

/// One attempt at one clip.
struct Attempt<'a> {
    deps: &'a Deps,
    leased: &'a Leased,
    clip: Clip,
    cancel: &'a CancellationToken,
    work_dir: PathBuf,
    phases: Phases,
}

/// What an attempt has to cut.
struct Planned {
    material: Material,
    plan: selection::Plan,
}

/// Runs a render job. `Ok` also when there was nothing to do (deleted meanwhile, or done by an earlier attempt).
/// FFmpeg runs only while the place is held; while late segments are waited for, it is let go, and if there is none
/// afterwards the job is given back to the queue.
///
/// # Errors
/// What the attempt failed with; whether it is worth another one, the error says. `cancelled` if `cancel` was.
pub async fn render(
    deps: &Deps,
    leased: &Leased,
    place: Place,
    cancel: &CancellationToken,
) -> Result<()> {
    let now = deps.clock.now();
    let found = match &leased.job.clip_id {
        Some(id) => clip::find(deps.db.conn(), id).await?,
        None => None,
    };
    let Some(clip) = found.filter(|clip| clip.status == ClipStatus::Processing) else {
        return job::finish(deps.db.conn(), &leased.job.id, &leased.owner, now).await.map(drop);
    };
    if leased.job.attempts >= MOST_DEATHS {
        // its workers died every time: a further attempt would only kill one more
        return Err(Error::internal("making a clip", "every attempt so far ended with its worker"));
    }
    let queue_ms = millis(leased.job.created_at.max(clip.created_at), now);
    // of this lease alone: whoever lost his may still be at work in another one
    let lease = leased.owner.rsplit('/').next().unwrap_or_default();
    let name = format!("{}-{lease}", clip.id);
    let work_dir = deps.work_dir().join(name);
    let phases = Phases { queue_ms, ..Phases::default() };
    // nobody waits for late segments in vain
    stores::demand_ours(deps, Which::Clips).await?;
    let mut attempt = Attempt { deps, leased, clip, cancel, work_dir, phases };
    let outcome = match attempt.clip.trim_of {
        None => attempt.run(place).await,
        Some(_) => attempt.run_trim(place).await,
    };
    attempt.clean_up().await;
    outcome
}

impl Attempt<'_> {
    async fn run(&mut self, mut place: Place) -> Result<()> {
        let began = Instant::now();
        let idle = || place.let_go();
        let material = tail::wait(self.deps, &self.clip, idle, self.cancel).await?;
        self.phases.wait_ms = elapsed_ms(began);
        if !place.regain() {
            // whoever is next is not necessarily the one who waits here
            work::hand_back(self.deps, self.leased).await?;
            self.deps.wake.jobs.notify_waiters();
            return Ok(());
        }
        let mut planned = self.plan(material)?;

        let began = Instant::now();
        let linked = self.link(&planned).await;
        self.phases.pin_ms = elapsed_ms(began);

        work::count_attempt(self.deps, self.leased).await?;
        let began = Instant::now();
        let outcome = self.cut_around_damage(linked, &mut planned).await?;
        self.phases.mux_ms = elapsed_ms(began);
        crash::point("during-mux");
        drop(place);
        let began = Instant::now();
        let done = settle::finished(&self.clip, &planned, &outcome)?;
        self.phases.finalize_ms = elapsed_ms(began);
        self.settle(&done, &outcome.file).await
    }

    fn plan(&self, material: Material) -> Result<Planned> {
        let window = Window::new(self.clip.requested_from, self.clip.requested_to);
        let plan = selection::plan(&select(&material, window, precision_of(&self.clip)))?;
        if gap_policy_of(&self.clip) == GapPolicy::Refuse && !plan.gaps.is_empty() {
            return Err(has_gaps(&plan.gaps));
        }
        Ok(Planned { material, plan })
    }

    /// Hard links of the segments under names of ours: the second belt beside the pin. Where the stores are different
    /// file systems the pin alone holds, and the originals are read.
    async fn link(&self, planned: &Planned) -> Result<Vec<CutPart>> {
        let mut wanted: Vec<(PathBuf, PathBuf)> = Vec::new();
        let mut parts = Vec::new();
        for part in &planned.plan.parts {
            let mut segments = Vec::new();
            for index in &part.segments {
                let row = &planned.material.rows[*index];
                let (ours, original) = self.places(&planned.material, row)?;
                segments.push(SegmentFile {
                    path: ours.clone(),
                    pts_start_unwrapped: row.pts_start,
                    checksum: row.crc,
                });
                wanted.push((original, ours));
            }
            parts.push(CutPart { segments, from_pts: part.from_pts, to_pts: part.to_pts });
        }
        self.make_work_dir().await?;
        let link = move || Ok(link_all(&wanted));
        let linked = self.deps.stores.clips.gate.run(LINK_LIMIT, link).await;
        let linked = linked.map_err(|trouble| stores::unavailable(Which::Clips, trouble))??;
        if !linked {
            for (part, planned_part) in parts.iter_mut().zip(&planned.plan.parts) {
                for (file, index) in part.segments.iter_mut().zip(&planned_part.segments) {
                    let row = &planned.material.rows[*index];
                    file.path = self.places(&planned.material, row)?.1;
                }
            }
        }
        Ok(parts)
    }

    /// Where our link to a segment is, and where the segment itself.
    fn places(&self, material: &Material, row: &segment::Model) -> Result<(PathBuf, PathBuf)> {
        let epoch = material.epoch_rows.iter().find(|epoch| epoch.number == row.epoch);
        let epoch = epoch
            .ok_or_else(|| Error::internal("linking segments", "a segment without its epoch"))?;
        let ours = self.work_dir.join(format!("{}-{}.ts", row.epoch, row.number));
        let buffer = &self.deps.config.storage.buffer;
        Ok((ours, buffer.join(&epoch.path).join(&row.file_name)))
    }

    async fn cut(&self, parts: Vec<CutPart>, starts_at: Timestamp) -> Result<CutOutcome> {
        let request = CutRequest {
            parts,
            precision: match precision_of(&self.clip) {
                Precision::Keyframe => compose::Precision::Keyframe,
                Precision::Exact => compose::Precision::Exact,
            },
            muxer: self.deps.config.capture.muxer,
            work_dir: self.work_dir.clone(),
            title: Some(self.clip.title.clone()),
            started_at: Some(starts_at),
            deadline: self.deadline(),
            stall: self.deps.config.capture.stall,
            max_bytes: u64::try_from(self.clip.reserved_bytes).ok(),
            cancel: self.cancel.clone(),
        };
        cut::cut(&ffmpeg(), request).await
    }

    fn deadline(&self) -> Duration {
        let window = Window::new(self.clip.requested_from, self.clip.requested_to);
        let seconds = window.micros() as f64 / 1e6;
        let factor = self.deps.config.capture.deadline_factor;
        Duration::from_secs_f64((seconds * factor).clamp(0.0, 1e6)).max(SHORTEST_DEADLINE)
    }

    /// Work files go whatever came of the attempt; what a crash leaves, the sweep of the work directory finds.
    async fn clean_up(&self) {
        let work_dir = self.work_dir.clone();
        let remove = move || remove_tree(&work_dir);
        if let Err(error) = stores::work(&self.deps.stores, Which::Clips, remove).await {
            tracing::warn!(
                clip.id = %self.clip.id, error = error.chain(), "work files stay for now"
            );
        }
    }

    /// The first touch of the clip store: one that hangs is found here. A clip made where nothing is mounted would be
    /// lost with the next mount, and minutes may have gone by since the attempt began; a directory that is in the store
    /// leads nowhere without it.
    async fn make_work_dir(&self) -> Result<()> {
        stores::demand_ours(self.deps, Which::Clips).await?;
        let work_dir = self.work_dir.clone();
        let make = move || std::fs::create_dir_all(work_dir);
        stores::work(&self.deps.stores, Which::Clips, make).await?;
        // it may have gone just before the directory was made
        stores::demand_ours(self.deps, Which::Clips).await
    }
}

/// The FFmpeg on the search path.
pub(super) fn ffmpeg() -> Ffmpeg {
    Ffmpeg::new("ffmpeg")
}

/// Links every file; false if they cannot be linked (another file system, or one without links).
fn link_all(wanted: &[(PathBuf, PathBuf)]) -> Result<bool> {
    for (original, ours) in wanted {
        match std::fs::hard_link(original, ours) {
            Ok(()) => {}
            // two parts may share a segment
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(
                    Code::StorageUnavailable,
                    "A recorded segment cannot be read right now.",
                )
                .retryable()
                .because(error));
            }
            Err(error) => {
                tracing::debug!(error = %error, "segments cannot be linked, reading the originals");
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn cancelled() -> Error {
    Error::new(Code::Cancelled, "The capture was cancelled.")
}

fn elapsed_ms(began: Instant) -> i64 {
    i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)
}

fn millis(from: Timestamp, to: Timestamp) -> i64 {
    (to.micros_since(from) / 1000).max(0)
}
