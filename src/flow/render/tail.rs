//! Waits until the window is complete: segments come one to two lengths late, and a capture that asks for "the last
//! seconds" asks for what is not on disk yet.

use std::{collections::BTreeSet, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Clip, cancelled};
use crate::{
    domain::{
        id::SessionId,
        lifecycle::ClipStatus,
        selection::{self, Coverage},
        time::{Timestamp, Window},
    },
    error::Result,
    flow::{
        Deps, index,
        material::{self, Material},
    },
    store::{clip, epoch},
};

/// Between two looks when no bell rings and segments are due.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Between two looks while the window's end lies in the future.
const LOOK_AHEAD: Duration = Duration::from_secs(1);

/// Waits for a clip's window; calls `idle` if that takes time.
///
/// # Errors
/// `cancelled` when asked to stop or when the clip is not wanted any more.
pub(super) async fn wait(
    deps: &Deps,
    clip: &Clip,
    idle: impl FnMut() + Send,
    cancel: &CancellationToken,
) -> Result<Material> {
    let window = Window::new(clip.requested_from, clip.requested_to);
    let since = clip.created_at;
    let (db, id) = (&deps.db, &clip.id);
    let wanted = move || async move {
        let still = clip::find(db.conn(), id).await?;
        Ok(still.is_some_and(|clip| clip.status == ClipStatus::Processing))
    };
    wait_for(deps, &clip.session_id, (window, since), wanted, idle, cancel).await
}

/// Brings the index up to date until nothing more can come for the window, or `capture.tail_wait` after the later of
/// its end and `since` has passed; answers what is there then. Calls `idle` before it waits.
///
/// # Errors
/// `cancelled` when asked to stop or when it is not wanted any more.
pub(in crate::flow) async fn wait_for<W, F>(
    deps: &Deps,
    session: &SessionId,
    (window, since): (Window, Timestamp),
    wanted: W,
    mut idle: impl FnMut() + Send,
    cancel: &CancellationToken,
) -> Result<Material>
where
    W: Fn() -> F + Send + Sync,
    F: Future<Output = Result<bool>> + Send,
{
    let until = window.to.max(since).plus(deps.config.capture.tail_wait);
    loop {
        let bell = deps.wake.jobs.notified();
        tokio::pin!(bell);
        bell.as_mut().enable();
        let over = epochs_over(deps, session).await?;
        let indexed = index::index_session(deps, session).await;
        if !wanted().await? {
            return Err(cancelled());
        }
        let mut material = Material::load(deps.db.conn(), session).await?;
        for epoch in &mut material.epochs {
            // only an epoch that was over before we looked at its directory has all its segments indexed now
            epoch.complete &= over.contains(&epoch.number);
        }
        let now = deps.clock.now();
        match indexed {
            Ok(_) if is_covered(&material, window, now) || now >= until => return Ok(material),
            Ok(_) => {}
            Err(error) if now >= until => return Err(error),
            Err(error) => tracing::warn!(
                session.id = %session, error = error.chain(), "indexing failed, trying on"
            ),
        }
        idle();
        let pause = if now < window.to { LOOK_AHEAD } else { LOOK_AGAIN };
        tokio::select! {
            () = bell => {}
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return Err(cancelled()),
        }
    }
}

async fn epochs_over(deps: &Deps, session: &SessionId) -> Result<BTreeSet<u32>> {
    let rows = epoch::list(deps.db.conn(), session).await?;
    let over = rows.iter().filter(|row| material::is_complete(row));
    Ok(over.filter_map(|row| u32::try_from(row.number).ok()).collect())
}

fn is_covered(material: &Material, window: Window, now: Timestamp) -> bool {
    let over = material.session_over();
    let (epochs, segments) = (&material.epochs, &material.segments);
    selection::coverage(window, epochs, segments, now, over) == Coverage::Covered
}
