//! A copy: the samples of a joined plan, as they were recorded.

use std::{io, path::Path, sync::Arc};

use super::{Control, Halt, Head, Payload, Sample, Shown, Writer, Written};
use crate::{
    error::{Code, Error},
    media::{
        TICKS,
        compose::{self, BASE, Composed, CutPart, Plan, Sink, Stop},
        ffmpeg::Metadata,
        ts::AccessUnit,
    },
};

/// Guesses of the number of samples are made larger by these, one after the other, until the index has room.
const LARGER: [u64; 3] = [1, 4, 32];

/// A file that was written.
#[derive(Debug)]
pub struct Copied {
    /// What it is.
    pub written: Written,
    /// What is in it.
    pub composed: Composed,
}

/// Why there is none.
#[derive(Debug)]
pub enum Ended {
    /// Not what this muxer takes with certainty, and why: let FFmpeg do it.
    Unfit(String),
    /// Parameters change inside a part: copying is not possible, plan again for encoding.
    Changed,
    /// It was to stop.
    Stopped,
    /// Segments cannot be read, or the file not written.
    Failed(Error),
}

impl From<Halt> for Ended {
    fn from(halt: Halt) -> Ended {
        match halt {
            Halt::Unfit(why) => Ended::Unfit(why),
            Halt::NoRoom => Ended::Unfit("the index has no room".to_owned()),
            Halt::Stopped => Ended::Stopped,
            Halt::Io(error) => Ended::Failed(unwritable(error)),
        }
    }
}

fn unwritable(error: io::Error) -> Error {
    Error::new(Code::StorageUnavailable, "The clip store cannot be used right now.")
        .retryable()
        .because(error)
}

/// Writes the planned clip to `path`, which must not exist. Blocking. A file that was begun is left to the caller.
///
/// # Errors
/// See [`Ended`].
pub fn copy(
    parts: &[CutPart],
    plan: &Plan,
    meta: &Metadata,
    path: &Path,
    control: &Arc<Control>,
) -> Result<Copied, Ended> {
    for factor in LARGER {
        let head = head(plan, meta, factor);
        let writer = Writer::create(path, head, Arc::clone(control))?;
        let mut sink = Samples { writer, halted: None };
        let composed = match compose::order(parts, plan, &mut sink) {
            Ok(composed) => composed,
            Err(Stop::Changed) => return Err(Ended::Changed),
            Err(Stop::Failed(error)) => return Err(Ended::Failed(error)),
            Err(Stop::Closed) => return Err(sink.halted.unwrap_or(Halt::Stopped).into()),
        };
        let shown = Shown { start: BASE, duration: plan.duration };
        match sink.writer.finish(shown) {
            Ok(written) => return Ok(Copied { written, composed }),
            Err(Halt::NoRoom) => std::fs::remove_file(path).map_err(Halt::Io)?,
            Err(halt) => return Err(halt.into()),
        }
    }
    Err(Halt::NoRoom.into())
}

fn head(plan: &Plan, meta: &Metadata, factor: u64) -> Head {
    let ticks = u64::try_from(plan.duration).unwrap_or(0);
    let every = u64::try_from(plan.frame_duration).unwrap_or(0).max(1);
    let rate = plan.audio.map_or(0, |format| u64::from(format.rate));
    let frames = ticks * rate / 1024 / TICKS.unsigned_abs();
    Head {
        sets: plan.sets.units().to_vec(),
        audio: plan.audio,
        meta: meta.clone(),
        // an eighth more than there should be
        pictures: (ticks / every * 9 / 8 + 100) * factor,
        frames: (frames * 9 / 8 + 100) * factor,
        frame_duration: plan.frame_duration,
    }
}

struct Samples {
    writer: Writer,
    halted: Option<Halt>,
}

impl Samples {
    fn keep(&mut self, result: Result<(), Halt>) -> Result<(), Stop> {
        result.map_err(|halt| {
            self.halted = Some(halt);
            Stop::Closed
        })
    }
}

impl Sink for Samples {
    fn picture(&mut self, pts: i64, dts: i64, unit: &AccessUnit) -> Result<(), Stop> {
        let data = Payload::AnnexB(&unit.data);
        let result = self.writer.picture(Sample { pts, dts, key: unit.key, data });
        self.keep(result)
    }

    fn sound(&mut self, pts: i64, adts: &[u8]) -> Result<(), Stop> {
        let result = self.writer.sound(pts, adts);
        self.keep(result)
    }
}
