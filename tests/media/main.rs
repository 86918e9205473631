//! Cuts of real material by the real FFmpeg, judged by decoding every picture of the result.
//!
//! Windows are chosen by a fixed seed; each prints its worst errors (`--nocapture` shows the table).
#![allow(missing_docs, clippy::unwrap_used)]

mod cuts;
mod damage;
mod edges;
mod exactness;
mod fallback;
mod files;
mod joins;
mod material;
mod native;
mod picture;
mod processes;
mod recorded;

use std::{path::Path, time::Duration};

use livekit_replay::{
    config::Muxer,
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

/// How a clip is cut and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    precision: Precision,
    muxer: Muxer,
}

const NATIVE: Way = Way { precision: Precision::Keyframe, muxer: Muxer::Native };
const FFMPEG: Way = Way { precision: Precision::Keyframe, muxer: Muxer::Ffmpeg };
const EXACT: Way = Way { precision: Precision::Exact, muxer: Muxer::Auto };
/// Both muxers make the same clips.
const COPIES: [Way; 2] = [NATIVE, FFMPEG];
const WAYS: [Way; 3] = [NATIVE, FFMPEG, EXACT];

fn request(parts: Vec<CutPart>, way: Way, work_dir: &Path) -> CutRequest {
    let Way { precision, muxer } = way;
    CutRequest {
        parts,
        precision,
        muxer,
        work_dir: work_dir.to_owned(),
        title: None,
        started_at: None,
        deadline: limits().deadline,
        stall: limits().stall,
        max_bytes: None,
        cancel: CancellationToken::new(),
    }
}

async fn make(parts: Vec<CutPart>, way: Way, dir: &Path) -> Result<CutOutcome> {
    cut(&ffmpeg(), request(parts, way, dir)).await
}
