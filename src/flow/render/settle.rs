//! The end of a good attempt: files get their names and the rows say so, in an order that a crash at any point
//! leaves either "still being made" or "ready, whole". See `docs/invariants.md`.

use std::{path::Path, time::Duration};

use super::{Attempt, Planned, elapsed_ms};
use crate::{
    domain::{
        event::EventKind,
        selection::{self, Gap, GapReason, Plan},
        time::{Timestamp, Window},
    },
    error::{Error, Result},
    flow::{
        Deps,
        capture::{Clip, quota_exceeded},
        clip_files::{ClipFiles, write_record},
        crash,
        material::Material,
        outbox,
        stores::{self, Which},
    },
    media::{
        cut::{CutOutcome, CutSpan},
        publish,
    },
    store::{
        self, Tx,
        clip::{self, Finished},
        job, pin, quota,
    },
};

/// A span shorter or longer than planned by more than this was cut differently, and the plan's edges do not hold.
const EDGE_TOLERANCE_US: i64 = 50_000;

/// What the finished file is, in screen time.
pub(super) fn finished(clip: &Clip, planned: &Planned, outcome: &CutOutcome) -> Result<Finished> {
    let Planned { material, plan } = planned;
    let spans: Vec<(Timestamp, Timestamp)> =
        outcome.parts.iter().filter_map(|span| on_screen(material, plan, span)).collect();
    let (Some((starts_at, _)), Some((_, ends_at))) = (spans.first(), spans.last()) else {
        return Err(Error::internal("settling a clip", "a file without a part"));
    };
    let gaps = gaps(plan, outcome, &spans);
    let gaps = serde_json::to_string(&gaps)
        .map_err(|error| Error::internal("writing a clip's gaps", error))?;
    let shortfall_us = if ends_at.micros_since(plan.ends_at).abs() <= EDGE_TOLERANCE_US {
        plan.shortfall_us
    } else {
        let window = Window::new(clip.requested_from, clip.requested_to);
        let last = plan.parts.last();
        last.map_or(0, |last| selection::shortfall(window, *ends_at, last, &material.segments))
    };
    let facts = &outcome.facts;
    Ok(Finished {
        starts_at: *starts_at,
        ends_at: *ends_at,
        duration_us: facts.duration_us,
        preroll_ms: clip.requested_from.micros_since(*starts_at).max(0) / 1000,
        shortfall_ms: shortfall_us / 1000,
        gaps,
        size_bytes: i64::try_from(facts.size_bytes).unwrap_or(i64::MAX),
        checksum: format!("blake3:{}", facts.blake3),
        width: i32::try_from(facts.width).unwrap_or(0),
        height: i32::try_from(facts.height).unwrap_or(0),
        video_codec: facts.video_codec.clone(),
        audio_codec: facts.audio_codec.clone(),
    })
}

fn on_screen(material: &Material, plan: &Plan, span: &CutSpan) -> Option<(Timestamp, Timestamp)> {
    let epoch = plan.parts.get(span.part)?.epoch;
    let clock = material.epochs.iter().find(|known| known.number == epoch)?.clock?;
    Some((clock.screen_time(span.first_pts), clock.screen_time(span.end_pts)))
}

/// The plan's gaps, and a further one for each planned part that turned out to hold no picture.
fn gaps(plan: &Plan, outcome: &CutOutcome, spans: &[(Timestamp, Timestamp)]) -> Vec<Gap> {
    let mut gaps = plan.gaps.clone();
    for (pair, times) in outcome.parts.windows(2).zip(spans.windows(2)) {
        if pair[1].part == pair[0].part + 1 {
            continue;
        }
        let (from, to) = (times[0].1, times[1].0);
        gaps.retain(|gap| gap.to <= from || gap.from >= to);
        gaps.push(Gap { from, to, reason: GapReason::Missing });
    }
    gaps.sort_by_key(|gap| gap.from);
    gaps
}

/// For the bytes of a whole clip on a slow disk; most of them are on it already.
const SYNC_LIMIT: Duration = Duration::from_secs(120);

impl Attempt<'_> {
    /// Publishes `file` as the clip and settles its bytes, once, if the clip is still wanted and the lease still ours.
    pub(super) async fn settle(&self, done: &Finished, file: &Path) -> Result<()> {
        let (deps, id) = (self.deps, &self.clip.id);
        let began = tokio::time::Instant::now();
        // the slow part of making it last through a power cut, before any row is locked
        sync(deps, file).await?;
        let now = deps.clock.now();
        let tx = deps.db.begin().await?;
        // whoever lost the lease stops here: from now on the job's row is locked, and only its owner renames
        if !job::finish(&tx, &self.leased.job.id, &self.leased.owner, now).await? {
            tracing::info!(clip.id = %id, "lease lost before publishing");
            return store::rollback(tx).await;
        }
        let mut phases = self.phases;
        phases.finalize_ms += elapsed_ms(began);
        if !clip::make_ready(&tx, id, done, phases, now).await? {
            // cancelled meanwhile: the job is done, the files go with the work directory
            return store::commit(tx).await;
        }
        crash::point("during-settle");
        self.settle_bytes(&tx, done.size_bytes, now).await?;
        pin::delete_of_clip(&tx, id).await?;
        let row = clip::load(&tx, id).await?;
        outbox::clip(&tx, EventKind::ClipReady, &row, now).await?;
        outbox::bytes_taken(&tx, deps, &row.user_id, done.size_bytes, now).await?;
        self.name_files(&row, file).await?;
        crash::point("between-rename-and-commit");
        // a commit whose answer got lost may have happened: then nobody but a walk lets go of a trim's source
        outbox::commit(deps, tx).await.inspect_err(|_| deps.walks.want())?;
        crash::point("before-release");
        if row.trim_of.is_some() {
            ClipFiles::of(deps, &row.user_id, id)?.release_source(deps).await;
        }
        report(&row);
        deps.wake.clips.notify_waiters();
        Ok(())
    }

    /// A copy can come out larger than was reserved; it is taken if the account has room for the rest.
    async fn settle_bytes(&self, tx: &Tx, size_bytes: i64, now: Timestamp) -> Result<()> {
        let user = &self.clip.user_id;
        let mut reserved = self.clip.reserved_bytes;
        if size_bytes > reserved {
            let more = size_bytes - reserved;
            let default = self.deps.config.limits.user_quota_bytes;
            if let Err(account) = quota::reserve(tx, user, more, default, now).await? {
                return Err(quota_exceeded(&account, default, more));
            }
            reserved = size_bytes;
        }
        quota::settle(tx, user, reserved, size_bytes).await
    }

    /// The record comes last: with it a video can get its row back.
    async fn name_files(&self, row: &Clip, file: &Path) -> Result<()> {
        let files = ClipFiles::of(self.deps, &row.user_id, &row.id)?;
        publish::publish(&self.deps.stores.clips.gate, file, &files.video).await?;
        write_record(self.deps, row).await
    }
}

async fn sync(deps: &Deps, file: &Path) -> Result<()> {
    let file = file.to_owned();
    let sync = move || std::fs::File::open(file)?.sync_all();
    let synced = deps.stores.clips.gate.run(SYNC_LIMIT, sync).await;
    synced.map_err(|trouble| stores::unavailable(Which::Clips, trouble))
}

fn report(clip: &Clip) {
    metrics::counter!("livekit_replay_clips_total", "outcome" => "ready").increment(1);
    metrics::counter!("livekit_replay_clip_bytes_total")
        .increment(u64::try_from(clip.size_bytes).unwrap_or(0));
    for (phase, ms) in [
        ("queue", clip.queue_ms),
        ("wait", clip.wait_ms),
        ("pin", clip.pin_ms),
        ("mux", clip.mux_ms),
        ("finalize", clip.finalize_ms),
    ] {
        metrics::histogram!("livekit_replay_capture_phase_seconds", "phase" => phase)
            .record(ms as f64 / 1000.0);
    }
    tracing::info!(
        clip.id = %clip.id, session.id = %clip.session_id, size_bytes = clip.size_bytes,
        wait_ms = clip.wait_ms, mux_ms = clip.mux_ms, shortfall_ms = clip.shortfall_ms,
        "clip ready"
    );
}
