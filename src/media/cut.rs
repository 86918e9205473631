//! The whole way from recorded segments to a checked file: plan, compose into FFmpeg, correct the edges, verify.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    TICKS,
    compose::{self, Composed, CutPart, Plan, Precision, Stop},
    draft::Draft,
    edges::EdgeCheck,
    exact::{self, Refusal, Unfit},
    ffmpeg::{CAPPED_AUDIO_BITS, Ffmpeg, Limits, Metadata, Target, failed},
    mp4::{self, Track, TrackEdit},
    native::{self, Copied, Ended, Written},
    verify::{self, Expected, Verified},
};
use crate::{
    config::Muxer,
    domain::time::Timestamp,
    error::{Code, Error, Result},
};

/// Pieces of the stream that wait for FFmpeg at most.
const PIECES_AHEAD: usize = 4;
/// Share of the allowance that the pictures are planned to fill, attempt by attempt.
const SHARES: [u64; 3] = [90, 75, 50];

/// What is wanted.
#[derive(Debug, Clone)]
pub struct CutRequest {
    /// In the clip's order.
    pub parts: Vec<CutPart>,
    /// How sharp the edges are.
    pub precision: Precision,
    /// Who writes a copy.
    pub muxer: Muxer,
    /// An existing directory of ours; files made there have names of their own.
    pub work_dir: PathBuf,
    /// By the user; any text.
    pub title: Option<String>,
    /// When the clip's first picture was on the screen, for the file's metadata.
    pub started_at: Option<Timestamp>,
    /// For all of it.
    pub deadline: Duration,
    /// Without any progress of FFmpeg.
    pub stall: Duration,
    /// An encode that gets larger is repeated with a bitrate cap; copies are as large as they are.
    pub max_bytes: Option<u64>,
    /// Ends the work with `cancelled`.
    pub cancel: CancellationToken,
}

/// A finished, checked file.
#[derive(Debug)]
pub struct CutOutcome {
    /// In the work directory; the caller publishes or removes it.
    pub file: PathBuf,
    /// What it is.
    pub facts: Verified,
    /// What of each part is in it; parts without a picture in their window are missing.
    pub parts: Vec<CutSpan>,
    /// Whether pictures were encoded again.
    pub encoded: bool,
    /// Pictures taken over as they were recorded.
    pub pictures_copied: u64,
    /// Pictures encoded again.
    pub pictures_encoded: u64,
    /// Why more than the edges of an exact cut was encoded, if that was tried.
    pub unfit: Option<Unfit>,
    /// An encoder's input did not decode cleanly: it shows what the decoder made of it.
    pub suspect: bool,
    /// How long it took.
    pub timings: CutTimings,
}

/// The true edges of one part, in its epoch's unwrapped ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutSpan {
    /// Index among the parts asked for.
    pub part: usize,
    /// First picture shown.
    pub first_pts: i64,
    /// End of the last picture shown.
    pub end_pts: i64,
    /// Pictures shown.
    pub frames: u64,
}

/// Durations of the phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutTimings {
    /// Looking at the edges of the parts.
    pub plan: Duration,
    /// Composing and FFmpeg, all attempts.
    pub mux: Duration,
    /// Correcting the edit lists, verifying, hashing.
    pub finalize: Duration,
}

/// Makes the file. Nothing of it is left behind on failure, cancellation, or when the future is dropped.
///
/// # Errors
/// `no_usable_segments` (nothing in the window, or a damaged segment), `storage_unavailable` (retryable; a segment
/// cannot be read), `ffmpeg_failed`, `quota_exceeded` (not even a capped encode fits `max_bytes`), `cancelled`.
pub async fn cut(ffmpeg: &Ffmpeg, request: CutRequest) -> Result<CutOutcome> {
    let began = Instant::now();
    let parts = Arc::new(request.parts.clone());
    let job = Job { ffmpeg, request: &request, parts: &parts, began };
    let mut plan = job.planned(false).await?;
    let mut timings = CutTimings { plan: began.elapsed(), ..CutTimings::default() };
    let mux = Instant::now();
    let unfit = match job.encode_edges(&plan).await? {
        Ok((done, plan)) => {
            timings.mux = mux.elapsed();
            return Ok(exact_outcome(done, &plan, timings));
        }
        Err(unfit) => unfit,
    };
    let made = match job.make(&plan).await? {
        Some(made) => made,
        None => {
            plan = job.planned(true).await?;
            job.make(&plan)
                .await?
                .ok_or_else(|| Error::internal("composing", "parameters changed in an encode"))?
        }
    };
    timings.mux = mux.elapsed();
    let finalize = Instant::now();
    let suspect = made.suspect;
    let (draft, composed, facts) = job.finish(&plan, made).await?;
    timings.finalize = finalize.elapsed();
    let parts = spans(&plan, &composed.window_pictures);
    let (copied, encoded) = if plan.encode { (0, facts.frames) } else { (facts.frames, 0) };
    Ok(CutOutcome {
        file: draft.keep(),
        facts,
        parts,
        encoded: plan.encode,
        pictures_copied: copied,
        pictures_encoded: encoded,
        unfit,
        suspect,
        timings,
    })
}

fn exact_outcome(done: exact::Done, plan: &Plan, timings: CutTimings) -> CutOutcome {
    tracing::info!(
        pictures_copied = done.copied,
        pictures_encoded = done.encoded,
        "only the edges were encoded"
    );
    CutOutcome {
        file: done.draft.keep(),
        facts: done.facts,
        parts: spans(plan, &done.window_pictures),
        encoded: done.encoded > 0,
        pictures_copied: done.copied,
        pictures_encoded: done.encoded,
        unfit: None,
        suspect: false,
        timings,
    }
}

fn spans(plan: &Plan, pictures: &[u64]) -> Vec<CutSpan> {
    let spans = plan.parts.iter().zip(pictures).map(|(part, &frames)| CutSpan {
        part: part.part,
        first_pts: part.start,
        end_pts: part.end,
        frames,
    });
    spans.collect()
}

fn expected(plan: &Plan, composed: &Composed) -> Expected {
    let presented = composed.window_pictures.iter().sum();
    Expected {
        duration: plan.duration,
        frame_duration: plan.frame_duration,
        presented,
        stored: if plan.encode { presented } else { composed.pictures },
        audio: plan.audio.is_some(),
    }
}

struct Job<'a> {
    ffmpeg: &'a Ffmpeg,
    request: &'a CutRequest,
    parts: &'a Arc<Vec<CutPart>>,
    began: Instant,
}

impl Job<'_> {
    fn limits(&self) -> Limits {
        Limits {
            deadline: self.request.deadline.saturating_sub(self.began.elapsed()),
            stall: self.request.stall,
            cancel: self.request.cancel.clone(),
        }
    }

    /// An exact cut that copies all but its edges, and what it holds; else why not (nothing, if that is not wanted).
    ///
    /// A copy whose parts meet where pictures cannot be taken apart is cut exactly from its key frames on: else some
    /// pictures would be shown twice, by the old epoch and by the new one.
    async fn encode_edges(
        &self,
        plan: &Plan,
    ) -> Result<std::result::Result<(exact::Done, Plan), Option<Unfit>>> {
        if self.request.muxer == Muxer::Ffmpeg {
            return Ok(Err(None));
        }
        let (parts, plan) = match self.request.precision {
            Precision::Exact => (Arc::clone(self.parts), plan.clone()),
            Precision::Keyframe if plan.lengthened => self.planned_from_keys(plan).await?,
            Precision::Keyframe => return Ok(Err(None)),
        };
        let request = exact::Request {
            ffmpeg: self.ffmpeg,
            parts: &parts,
            plan: &plan,
            work_dir: &self.request.work_dir,
            meta: self.metadata(),
            max_bytes: self.request.max_bytes,
            limits: &|| self.limits(),
        };
        match exact::make(&request).await {
            Ok(done) => Ok(Ok((done, plan))),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Unfit(unfit)) => {
                tracing::info!(reason = %unfit, "the edges alone cannot be encoded");
                Ok(Err(Some(unfit)))
            }
        }
    }

    /// The parts of a copy as exact ones that begin at its key frames.
    async fn planned_from_keys(&self, plan: &Plan) -> Result<(Arc<Vec<CutPart>>, Plan)> {
        let mut parts = self.request.parts.clone();
        for planned in &plan.parts {
            if let Some(part) = parts.get_mut(planned.part) {
                part.from_pts = planned.start;
            }
        }
        let parts = Arc::new(parts);
        let planning = Arc::clone(&parts);
        let work = move |_: &_| compose::plan(&planning, Precision::Exact, false);
        let plan = native::run(&self.limits(), work).await??;
        Ok((parts, plan))
    }

    fn metadata(&self) -> Metadata {
        Metadata { title: self.request.title.clone(), started_at: self.request.started_at }
    }

    async fn planned(&self, encode: bool) -> Result<Plan> {
        let (parts, precision) = (Arc::clone(self.parts), self.request.precision);
        native::run(&self.limits(), move |_| compose::plan(&parts, precision, encode)).await?
    }

    /// None if copying turned out to be impossible.
    async fn make(&self, plan: &Plan) -> Result<Option<Made>> {
        if !plan.encode && self.request.muxer != Muxer::Ffmpeg {
            match self.copy(plan).await? {
                Ok(made) => return Ok(Some(made)),
                Err(Ended::Changed) => return Ok(None),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Stopped) => return Err(Error::internal("copying", "stopped by nobody")),
                Err(Ended::Unfit(why)) if self.request.muxer == Muxer::Native => {
                    return Err(failed("Making the video failed.", why));
                }
                Err(Ended::Unfit(why)) => {
                    tracing::info!(reason = why, "the native muxer does not take it, FFmpeg does");
                }
            }
        }
        let made = self.attempt(plan, Target::Quality).await?;
        let (Some(max), true, Some(first)) = (self.request.max_bytes, plan.encode, &made) else {
            return Ok(made);
        };
        if first.draft.size().await? <= max {
            return Ok(made);
        }
        drop(made);
        for share in SHARES {
            let made = self.attempt(plan, Target::Bitrate(bitrate(plan, max, share))).await?;
            if let Some(made) = made
                && made.draft.size().await? <= max
            {
                return Ok(Some(made));
            }
        }
        Err(Error::new(
            Code::QuotaExceeded,
            "The clip does not fit into the space reserved for it.",
        )
        .with("neededBytes", max.saturating_add(1)))
    }

    /// A copy by our own muxer.
    async fn copy(&self, plan: &Plan) -> Result<std::result::Result<Made, Ended>> {
        let draft = Draft::new(&self.request.work_dir, "mp4");
        let (parts, plan, meta) = (Arc::clone(self.parts), plan.clone(), self.metadata());
        let path = draft.path().to_owned();
        let limits = self.limits();
        let edges = EdgeCheck::begin(self.ffmpeg, draft.path(), plan.duration)?;
        let copied =
            native::run(&limits, move |control| native::copy(&parts, &plan, &meta, &path, control));
        Ok(copied.await?.map(|Copied { written, composed }| {
            let Written { file, blake3, .. } = written;
            Made { draft, composed, native: Some(Native { file, blake3, edges }), suspect: false }
        }))
    }

    /// One run of FFmpeg, fed with the composed stream.
    async fn attempt(&self, plan: &Plan, target: Target) -> Result<Option<Made>> {
        let draft = Draft::new(&self.request.work_dir, "mp4");
        let meta = self.metadata();
        let mut command = if plan.encode {
            self.ffmpeg.encode_command(plan, target, &meta, draft.path())
        } else {
            self.ffmpeg.copy_command(&meta, draft.path())
        };
        let (send, feed) = mpsc::channel::<Vec<u8>>(PIECES_AHEAD);
        let (parts, planned) = (Arc::clone(self.parts), plan.clone());
        let limits = self.limits();
        // of the two it is FFmpeg whose progress counts; a file system that hangs is left behind at the deadline
        let patient = Limits { stall: limits.deadline, ..limits.clone() };
        let composing = native::run(&patient, move |control| {
            let mut sink = |piece| control.go_on().is_ok() && send.blocking_send(piece).is_ok();
            compose::write(&parts, &planned, &mut sink)
        });
        // where FFmpeg ends early the feed is gone, and composing ends at its next piece
        let (ran, composed) =
            tokio::join!(self.ffmpeg.run(&mut command, Some(feed), &limits), composing);
        let composed = match composed {
            Ok(composed) => composed,
            Err(error) => return Err(ran.err().unwrap_or(error)),
        };
        match composed {
            Ok(composed) => ran.map(|ran| {
                let suspect = plan.encode && verify::complains(&ran.complaints);
                Some(Made { draft, composed, native: None, suspect })
            }),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Changed) if !plan.encode => Ok(None),
            Err(Stop::Changed | Stop::Closed) => Err(ran.err().unwrap_or_else(|| {
                failed("Making the video failed.", "FFmpeg ended before its input")
            })),
        }
    }

    /// Nothing leaves unchecked.
    async fn finish(&self, plan: &Plan, made: Made) -> Result<(Draft, Composed, Verified)> {
        let Made { draft, composed, native, .. } = made;
        let (expected, limits) = (expected(plan, &composed), self.limits());
        let facts = match native {
            // the disk and the decoder do not wait for each other
            Some(Native { file, blake3, edges }) => {
                let check = verify::verify_hashed(edges, draft.path(), blake3, &expected, &limits);
                let (synced, facts) = tokio::join!(self.sync(file), check);
                synced?;
                facts?
            }
            None => {
                self.correct_edges(&draft, plan, &composed).await?;
                verify::verify(self.ffmpeg, draft.path(), &expected, &limits).await?
            }
        };
        Ok((draft, composed, facts))
    }

    /// Whoever publishes the file syncs it too; begun here, that takes less time.
    async fn sync(&self, file: Arc<File>) -> Result<()> {
        let limits = self.limits();
        // a slow disk says nothing while it works
        let patient = Limits { stall: limits.deadline, ..limits };
        native::run(&patient, move |_| file.sync_all()).await?.map_err(|error| {
            Error::new(Code::StorageUnavailable, "The clip store cannot be used right now.")
                .retryable()
                .because(error)
        })
    }

    /// Makes the presentation begin and end where the window does, whatever else is stored.
    async fn correct_edges(&self, draft: &Draft, plan: &Plan, composed: &Composed) -> Result<()> {
        let path = draft.path().to_owned();
        let (encode, duration) = (plan.encode, plan.duration);
        let sound_lead = composed.sound_lead;
        let patient = verify::patient(&self.limits());
        let work = native::run(&patient, move |_| {
            let read = mp4::read(&path)?;
            let edits: Vec<_> = read
                .tracks
                .iter()
                .map(|track| edit_of(track, encode, duration, sound_lead))
                .collect();
            mp4::patch(&path, &edits)
        });
        work.await?.map_err(|error| failed("The finished video is not as expected.", error))
    }
}

/// A copy begins with its first picture, which is the first one stored; its sound begins `sound_lead` ticks before
/// that. What an encoder says of its own lead-in is right as it is.
fn edit_of(track: &Track, encode: bool, duration: i64, sound_lead: i64) -> TrackEdit {
    let video = &track.kind == b"vide";
    let media_time = match (encode, video) {
        (true, _) => None,
        (false, true) => Some(track.first_sample_pts),
        (false, false) => Some(sound_lead.max(0) * i64::from(track.timescale) / TICKS),
    };
    // an encoder's sound may end a little before the pictures do
    let own: u64 =
        track.edits.iter().filter(|edit| edit.media_time >= 0).map(|edit| edit.duration).sum();
    let own = i64::try_from(own).unwrap_or(i64::MAX);
    let duration = if encode && !video && own > 0 { duration.min(own) } else { duration };
    TrackEdit { kind: track.kind, media_time, duration }
}

fn bitrate(plan: &Plan, max: u64, share: u64) -> u64 {
    let ticks = u64::try_from(plan.duration).unwrap_or(1).max(1);
    let ticks_a_second = u64::try_from(TICKS).unwrap_or(1);
    let whole = max.saturating_mul(8).saturating_mul(ticks_a_second) / ticks;
    let sound = if plan.audio.is_some() { CAPPED_AUDIO_BITS } else { 0 };
    (whole.saturating_mul(share) / 100).saturating_sub(sound).max(20_000)
}

/// A file that waits for its check.
struct Made {
    draft: Draft,
    composed: Composed,
    /// Where our own muxer wrote it.
    native: Option<Native>,
    /// See [`CutOutcome::suspect`].
    suspect: bool,
}

/// What is at hand of a file that was written here.
struct Native {
    /// Open, complete, not synced.
    file: Arc<File>,
    blake3: String,
    edges: EdgeCheck,
}
