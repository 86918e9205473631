//! Exact cuts that encode only their edges: whole groups of pictures, and all sound, are the recording's own.
//!
//! What belongs here: which pictures are copied and which encoded ([`plan`]), the encoder's settings that make both
//! look alike to a decoder ([`settings`], [`sets`], [`encode`]), the sound at the edges ([`sound`]), putting it all
//! into one file ([`write`]) and not believing the result ([`check`]). Whatever is not certain is [`Unfit`], and the
//! caller encodes the whole window instead; reasons and figures: `docs/decisions/0006-exact-cuts.md`.

mod check;
mod encode;
mod plan;
mod scan;
mod sets;
mod settings;
mod sound;
mod unfit;
mod write;

use std::{path::Path, sync::Arc};

pub(super) use unfit::Refusal;
pub use unfit::Unfit;

use super::{
    compose::{CutPart, Plan},
    draft::Draft,
    ffmpeg::{Ffmpeg, Limits, Metadata},
    mp4, native,
    verify::{self, Expected, Verified},
};
use crate::error::Error;
use write::{Made, Task};

/// What is wanted, and what there is to do it with.
pub(super) struct Request<'a> {
    pub ffmpeg: &'a Ffmpeg,
    pub parts: &'a Arc<Vec<CutPart>>,
    /// For an exact cut of these parts.
    pub plan: &'a Plan,
    pub work_dir: &'a Path,
    pub meta: Metadata,
    pub max_bytes: Option<u64>,
    /// What is left of them at the moment.
    pub limits: &'a (dyn Fn() -> Limits + Sync),
}

/// A finished, checked file.
pub(super) struct Done {
    pub draft: Draft,
    pub facts: Verified,
    /// Pictures per part of the plan.
    pub window_pictures: Vec<u64>,
    /// Pictures taken over as they were.
    pub copied: u64,
    /// Pictures encoded again.
    pub encoded: u64,
}

/// Makes the clip.
///
/// # Errors
/// [`Refusal::Unfit`] if the whole window should be encoded instead; [`Refusal::Failed`] if that would fail as well.
pub(super) async fn make(request: &Request<'_>) -> Result<Done, Refusal> {
    let limits = request.limits;
    let (parts, plan) = (Arc::clone(request.parts), request.plan.clone());
    let mut edges = native::run(&limits(), move |_| scan::scan(&parts, &plan)).await??;
    let pieces = {
        let draft = Draft::new(request.work_dir, "ts");
        let frame = request.plan.frame_duration;
        let room = request.max_bytes.map(|bytes| encode::Room { bytes, frame });
        encode::encode(request.ffmpeg, &mut edges, room, draft.path(), &limits()).await?
    };
    let draft = Draft::new(request.work_dir, "mp4");
    let (parts, plan) = (Arc::clone(request.parts), request.plan.clone());
    let (meta, path) = (request.meta.clone(), draft.path().to_owned());
    let within = limits();
    let made = native::run(&within, move |control| {
        let task = Task {
            parts: &parts,
            plan: &plan,
            sets: &edges.sets,
            pieces: &pieces,
            meta,
            control: Arc::clone(control),
        };
        write::write(&task, &path)
    });
    let made = made.await??;
    if let Some(max) = request.max_bytes
        && draft.size().await? > max
    {
        return Err(Unfit::TooLarge.into());
    }
    let (facts, counts) = believe(request, &draft, made).await?;
    let Counts { window_pictures, copied, encoded } = counts;
    Ok(Done { draft, facts, window_pictures, copied, encoded })
}

struct Counts {
    window_pictures: Vec<u64>,
    copied: u64,
    encoded: u64,
}

impl Counts {
    fn of(made: &Made, parts: usize) -> Counts {
        let count = |wanted: &dyn Fn(&write::Picture) -> bool| {
            let count = made.pictures.iter().filter(|picture| wanted(picture)).count();
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        Counts {
            window_pictures: (0..parts).map(|part| count(&|one| one.part == part)).collect(),
            copied: count(&|one| one.copied),
            encoded: count(&|one| !one.copied),
        }
    }
}

/// Reads the file back, compares it with what was meant, decodes its edges.
async fn believe(
    request: &Request<'_>,
    draft: &Draft,
    made: Made,
) -> Result<(Verified, Counts), Refusal> {
    let plan = request.plan;
    let counts = Counts::of(&made, plan.parts.len());
    let expected = Expected {
        duration: plan.duration,
        frame_duration: plan.frame_duration,
        presented: counts.copied + counts.encoded,
        stored: counts.copied + counts.encoded,
        audio: plan.audio.is_some(),
    };
    let odd = |error: Error| Refusal::from(Unfit::Check(error.chain()));
    let hash = made.blake3.clone();
    let within = (request.limits)();
    let examined = verify::examine(draft.path(), hash, &expected, &within);
    let (read, facts) = examined.await.map_err(odd)?;
    let lead = lead(&read).ok_or_else(|| Unfit::Check("there is no edit list".to_owned()))?;
    let limits = (request.limits)();
    // the disk and the decoder do not disturb each other; a slow disk says nothing while it works
    let file = Arc::clone(&made.file);
    let patient = Limits { stall: limits.deadline, ..limits.clone() };
    let sync = native::run(&patient, move |_| file.sync_all());
    let check = check::check(request.ffmpeg, draft.path(), made, lead, request.work_dir, &limits);
    let (synced, checked) = tokio::join!(sync, check);
    checked?;
    synced?.map_err(write::unwritable)?;
    Ok((facts, counts))
}

/// Ticks before the shown part of the pictures' own time line.
fn lead(read: &mp4::Mp4) -> Option<i64> {
    let video = read.track(b"vide")?;
    let time = video.edits.iter().find(|edit| edit.media_time >= 0)?.media_time;
    time.checked_mul(super::TICKS).map(|time| time / i64::from(video.timescale.max(1)))
}
