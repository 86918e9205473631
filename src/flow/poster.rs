//! The picture that stands for a clip. A clip is ready without it: it is made right afterwards by the worker that made
//! the clip, or by the first who asks for it if that comes earlier or the worker died.

use std::{path::Path, time::Duration};

use super::{Deps, capture::Clip, clip_files::ClipFiles, probe, render, stores::Which, work::busy};
use crate::{
    domain::{id::ClipId, lifecycle::ClipStatus},
    error::{Code, Error, Result},
    media::{ffmpeg::Limits, files::remove_aside, poster, publish},
    store::{self, clip},
};

/// How long the making may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long the worker waits for a free place: somebody who asks makes the picture anyway.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long somebody who asks waits for it to be made at most.
const WAIT: Duration = Duration::from_secs(10);

/// Makes the poster of a clip that has just become ready. What cannot be made now is made for whoever asks.
pub async fn follow(deps: &Deps, id: &ClipId) {
    let done = async {
        match clip::find(deps.db.conn(), id).await? {
            Some(clip) if clip.status == ClipStatus::Ready => made(deps, &clip, PATIENCE).await,
            // deleted meanwhile, or it was not to become ready
            _ => Ok(()),
        }
    };
    match done.await {
        Ok(()) => {}
        // whoever asks for it finds another process
        Err(_) if deps.stop.is_cancelled() => {}
        Err(error) => {
            tracing::warn!(clip.id = %id, error = error.chain(), "no poster for now");
        }
    }
}

/// Makes the poster of a ready clip unless there is one, for somebody who waits for it; also when he hangs up, because
/// half a making would leave its file, or put it into place after a deletion.
///
/// # Errors
/// `ffmpeg_failed` where no picture comes out, `file_missing`, `overloaded`, `storage_unavailable`, `draining`,
/// `cancelled`.
pub async fn demand(deps: &Deps, clip: &Clip) -> Result<()> {
    if clip.has_poster {
        return Ok(());
    }
    probe::demand(deps, Which::Clips).await?;
    // without a video nobody has to wait for a place
    let files = ClipFiles::of(deps, &clip.user_id, &clip.id)?;
    if publish::size(&deps.stores.clips.gate, &files.video).await?.is_none() {
        return Err(Error::new(Code::FileMissing, "The clip's file is not there."));
    }
    let (owned, clip) = (deps.clone(), clip.clone());
    let longest = deps.config.capture.wait.min(WAIT);
    deps.to_the_end(async move { made(&owned, &clip, longest).await }).await
}

async fn made(deps: &Deps, clip: &Clip, longest: Duration) -> Result<()> {
    if clip.has_poster {
        return Ok(());
    }
    let turn = deps.posters.of(clip.id.as_str());
    let _turn = tokio::time::timeout(longest, turn.lock())
        .await
        .map_err(|_| busy("This picture is being made; try again."))?;
    // whoever had the turn before may have made it
    let clip = clip::load(deps.db.conn(), &clip.id).await?;
    if clip.has_poster {
        return Ok(());
    }
    let _place = deps.places.take(&deps.config, longest).await?;
    let files = ClipFiles::of(deps, &clip.user_id, &clip.id)?;
    // a name of its own: another replica may be at the same picture
    let name = format!("{}-{}.jpg", clip.id, uuid::Uuid::new_v4().simple());
    let draft = deps.work_dir().join(name);
    let limits = Limits { deadline: DEADLINE, stall: DEADLINE, cancel: deps.stop.child_token() };
    let length = clip.duration_us.unwrap_or(0);
    poster::poster(&render::ffmpeg(), &files.video, length, &draft, &limits).await?;
    let kept = keep(deps, &clip.id, &draft, &files.poster).await;
    if kept.is_err() {
        // the sweep of the work directory finds what stays
        remove_aside(&draft);
    }
    kept
}

/// Under the row's lock, so that a deletion that comes meanwhile takes the picture with it.
async fn keep(deps: &Deps, id: &ClipId, draft: &Path, place: &Path) -> Result<()> {
    let tx = deps.db.begin().await?;
    if !clip::set_poster(&tx, id).await? {
        store::rollback(tx).await?;
        return publish::remove(&deps.stores.clips.gate, draft).await.map(drop);
    }
    publish::publish(&deps.stores.clips.gate, draft, place).await?;
    store::commit(tx).await
}
