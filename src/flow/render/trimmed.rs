//! A clip cut out of another one: the part is taken apart into segments, and from there on it is made like any clip.

use tokio::time::Instant;

use super::{Attempt, elapsed_ms, ffmpeg};
use crate::{
    domain::trim::{Part, Plan},
    error::{Error, Result},
    flow::{
        capture::Clip,
        clip_files::ClipFiles,
        crash,
        trim::plan_of,
        work::{self, Place},
    },
    media::{
        compose::CutPart,
        cut::CutOutcome,
        ffmpeg::Limits,
        micros_to_ticks,
        reopen::{self, Opened, reopen},
        ticks_to_micros,
    },
    store::clip::Finished,
};

impl Attempt<'_> {
    /// The whole of an attempt at a trim.
    pub(super) async fn run_trim(&mut self, place: Place) -> Result<()> {
        let plan = plan_of(&self.clip)?;
        let part = plan.part();
        work::count_attempt(self.deps, self.leased).await?;
        let began = Instant::now();
        let mut opened = self.take_apart(part).await?;
        self.phases.pin_ms = elapsed_ms(began);
        let began = Instant::now();
        let cut = CutPart {
            segments: std::mem::take(&mut opened.segments),
            from_pts: reopen::OFFSET + micros_to_ticks(part.from_us),
            to_pts: reopen::OFFSET + micros_to_ticks(part.to_us),
        };
        let shown_from = plan.line().on_screen(part).from;
        let outcome = self.cut(vec![cut], shown_from).await?;
        self.phases.mux_ms = elapsed_ms(began);
        demand_whole(&opened, &outcome)?;
        crash::point("during-mux");
        drop(place);
        let began = Instant::now();
        let done = finished(&self.clip, &plan, &outcome)?;
        self.phases.finalize_ms = elapsed_ms(began);
        self.settle(&done, &outcome.file).await
    }

    async fn take_apart(&self, part: Part) -> Result<Opened> {
        self.make_work_dir().await?;
        let limits = Limits {
            deadline: self.deadline(),
            stall: self.deps.config.capture.stall,
            cancel: self.cancel.clone(),
        };
        let source = ClipFiles::of(self.deps, &self.clip.user_id, &self.clip.id)?.source;
        let (from, to) = (micros_to_ticks(part.from_us), micros_to_ticks(part.to_us));
        reopen(&ffmpeg(), &source, from, to, &self.work_dir, &limits).await
    }
}

/// A source that lost some of its pictures makes no clip.
fn demand_whole(opened: &Opened, outcome: &CutOutcome) -> Result<()> {
    let (Some(first), Some(last)) = (outcome.parts.first(), outcome.parts.last()) else {
        return Err(Error::internal("settling a clip", "a file without a part"));
    };
    let pictures: u64 = outcome.parts.iter().map(|part| part.frames).sum();
    let length = last.end_pts - first.first_pts;
    let frame = length / i64::try_from(pictures).unwrap_or(i64::MAX).max(1);
    opened.demand_whole(first.first_pts, last.end_pts, pictures, frame)
}

/// What the finished file is, in screen time.
fn finished(clip: &Clip, plan: &Plan, outcome: &CutOutcome) -> Result<Finished> {
    let (Some(first), Some(last)) = (outcome.parts.first(), outcome.parts.last()) else {
        return Err(Error::internal("settling a clip", "a file without a part"));
    };
    let micros = |pts: i64| ticks_to_micros(pts - reopen::OFFSET);
    let shown = Part { from_us: micros(first.first_pts), to_us: micros(last.end_pts) };
    let window = plan.line().on_screen(shown);
    let gaps = serde_json::to_string(&plan.line().gaps_within(window))
        .map_err(|error| Error::internal("writing a clip's gaps", error))?;
    let facts = &outcome.facts;
    Ok(Finished {
        starts_at: window.from,
        ends_at: window.to,
        duration_us: facts.duration_us,
        preroll_ms: clip.requested_from.micros_since(window.from).max(0) / 1000,
        shortfall_ms: 0,
        gaps,
        size_bytes: i64::try_from(facts.size_bytes).unwrap_or(i64::MAX),
        checksum: format!("blake3:{}", facts.blake3),
        width: i32::try_from(facts.width).unwrap_or(0),
        height: i32::try_from(facts.height).unwrap_or(0),
        video_codec: facts.video_codec.clone(),
        audio_codec: facts.audio_codec.clone(),
    })
}
