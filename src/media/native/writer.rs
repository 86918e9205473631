//! Puts samples into chunks, chunks into the file, and the index in front of them.

use std::{io, path::Path, sync::Arc};

use super::Sample;
use crate::media::{ffmpeg::Metadata, ts::AudioFormat};

/// What is known before the first sample.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// All sequence and picture parameter sets that the pictures refer to, each with its header byte and without
    /// start code, ids unambiguous. The first sequence parameter set gives the size and the colours.
    pub sets: Vec<Vec<u8>>,
    /// Sound, if there shall be any: AAC-LC with one or two channels.
    pub audio: Option<AudioFormat>,
    /// What the file says about itself.
    pub meta: Metadata,
    /// Pictures that will come, as a guess: decides the space reserved for the index.
    pub pictures: u64,
    /// Sound frames that will come, as a guess.
    pub frames: u64,
    /// Ticks that the last picture is shown.
    pub frame_duration: i64,
}

/// What of the samples is shown: `[start, start + duration)` in the samples' ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// First tick.
    pub start: i64,
    /// Number of ticks.
    pub duration: i64,
}

/// Shared with whoever waits for a writer: tells it to stop, and whether it still gets on.
#[derive(Debug, Default)]
pub struct Control {}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Of the file.
    pub size_bytes: u64,
    /// Of the whole file, hex.
    pub blake3: String,
    /// Pictures.
    pub pictures: u64,
    /// Frames of sound.
    pub frames: u64,
}

/// Why a file cannot be written (by this writer).
#[derive(Debug)]
pub enum Halt {
    /// Not what this writer takes with certainty: let FFmpeg do it.
    Unfit(String),
    /// The space in front does not suffice; that many pictures and sound frames need more. Begin again.
    NoRoom,
    /// [`Control`] asked for it.
    Stopped,
    /// What the disk says.
    Io(io::Error),
}

/// Writes one MP4. Blocking. Dropped before [`Writer::finish`], it leaves an unusable file, which its owner removes.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Creates the file (which must not exist) and reserves the space in front.
    ///
    /// # Errors
    /// `Unfit` for parameter sets or sound that the writer does not take, `Io`.
    pub fn create(_path: &Path, _head: Head, _control: Arc<Control>) -> Result<Writer, Halt> {
        Err(Halt::Unfit("not written yet".to_owned()))
    }

    /// The next picture in decode order. Sound and pictures should come about as they are played.
    ///
    /// # Errors
    /// `Unfit` for an access unit that makes no sense, or with parameter sets that were not given in front; `Io`,
    /// `Stopped`.
    pub fn picture(&mut self, _sample: Sample<'_>) -> Result<(), Halt> {
        Ok(())
    }

    /// The next frame of sound with its ADTS header, in order and without overlap.
    ///
    /// # Errors
    /// `Unfit` for a frame of another format or with several blocks; `Io`, `Stopped`.
    pub fn sound(&mut self, _pts: i64, _adts: &[u8]) -> Result<(), Halt> {
        Ok(())
    }

    /// Writes what is left, and the index. The file is complete but not synced when this returns.
    ///
    /// # Errors
    /// `NoRoom`, `Io`, `Stopped`; `Unfit` if there is no picture, or the first one is no key frame.
    pub fn finish(self, _shown: Shown) -> Result<Written, Halt> {
        Err(Halt::Unfit("not written yet".to_owned()))
    }
}
