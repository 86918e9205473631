//! Cuts of real material by the real FFmpeg, judged by decoding every picture of the result.
//!
//! Windows are chosen by a fixed seed; each prints its worst errors (`--nocapture` shows the table).
#![allow(missing_docs, clippy::unwrap_used)]

mod cuts;
mod damage;
mod edges;
mod fallback;
mod files;
mod joins;
mod material;
mod processes;

use std::{path::Path, time::Duration};

use livekit_replay::{
    error::Result,
    media::{
        compose::{CutPart, Precision},
        cut::{CutOutcome, CutRequest, cut},
        ffmpeg::{Ffmpeg, Limits},
    },
};
use tokio_util::sync::CancellationToken;

fn ffmpeg() -> Ffmpeg {
    Ffmpeg::new("ffmpeg")
}

fn limits() -> Limits {
    Limits {
        deadline: Duration::from_secs(120),
        stall: Duration::from_secs(60),
        cancel: CancellationToken::new(),
    }
}

fn request(parts: Vec<CutPart>, precision: Precision, work_dir: &Path) -> CutRequest {
    CutRequest {
        parts,
        precision,
        work_dir: work_dir.to_owned(),
        title: None,
        started_at: None,
        deadline: limits().deadline,
        stall: limits().stall,
        max_bytes: None,
        cancel: CancellationToken::new(),
    }
}

async fn make(parts: Vec<CutPart>, precision: Precision, dir: &Path) -> Result<CutOutcome> {
    cut(&ffmpeg(), request(parts, precision, dir)).await
}
