//! Shares asked for with a capture: kept beside the clip that is being made, delivered once when it is ready. A
//! delivery that a crash interrupted is not repeated, because nobody knows whether it arrived: its link is void.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use super::{Order, Shared, check, deliver, endpoint_of, new_share};
use crate::{
    access::Caller,
    config,
    domain::{id::ClipId, lifecycle::ClipStatus, time::Timestamp},
    error::{Code, Error, Result},
    flow::{Deps, capture::Clip, outbox},
    store::{
        self, Tx, clip, share,
        share::Destination,
        wish::{self, Model as Wish},
    },
};

/// A delivery that takes longer was interrupted.
const INTERRUPTED_SECONDS: i64 = 60;
/// How long it is tried to write down what became of a delivery; well within [`INTERRUPTED_SECONDS`].
const INSIST: Duration = Duration::from_secs(30);
/// Between two tries.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Wishes looked at in one pass: each may take as long as a delivery.
const BATCH: u64 = 8;

/// Refuses an order that cannot be carried out, before anything happens.
pub(in crate::flow) fn check_order(deps: &Deps, order: &Order, now: Timestamp) -> Result<()> {
    check(order, now)?;
    endpoint_of(deps, order.destination).map(drop)
}

/// Keeps the order with its clip, in the transaction that accepts the capture. A link is made at once and works from
/// the moment the clip is ready; it is answered with its secret part.
pub(in crate::flow) async fn keep(
    tx: &Tx,
    deps: &Deps,
    caller: &Caller,
    clip: &Clip,
    order: Order,
) -> Result<Option<Shared>> {
    let made = new_share(deps, clip, order);
    if made.share.destination == Destination::Link {
        share::insert(tx, made.share.clone()).await?;
        outbox::shared(tx, clip, &made.share, made.share.created_at).await?;
        return Ok(Some(made));
    }
    let row = Wish {
        clip_id: clip.id.clone(),
        share_id: made.share.id,
        destination: made.share.destination,
        target_id: made.share.target_id,
        username: caller.name.clone(),
        claimed_at: None,
        created_at: made.share.created_at,
    };
    wish::insert(tx, row).await?;
    Ok(None)
}

/// Whether a clip that is ready still waits for its share.
pub(in crate::flow) async fn is_open(deps: &Deps, id: &ClipId) -> Result<bool> {
    Ok(wish::find(deps.db.conn(), id).await?.is_some())
}

/// Delivers what waits for this clip, if it is ready and nobody else does.
///
/// # Errors
/// Those of the database; what the app says is written into the clip.
pub async fn fulfil(deps: &Deps, id: &ClipId) -> Result<()> {
    let db = deps.db.conn();
    let Some(wish) = wish::find(db, id).await? else { return Ok(()) };
    let Some(clip) = clip::find(db, id).await? else { return Ok(()) };
    if clip.status != ClipStatus::Ready || !wish::claim(db, id, deps.clock.now()).await? {
        return Ok(());
    }
    let made = match prepare(deps, &clip, &wish).await {
        // nothing was sent: it is delivered when the database lets us
        Err(error) if error.is_retryable() => {
            insist(deps, || wish::let_go(db, id)).await?;
            return Err(error);
        }
        made => made,
    };
    let outcome = match made {
        Ok((endpoint, made)) => hand_over(deps, &endpoint, &clip, &wish, made).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        tracing::warn!(clip.id = %id, error = error.chain(), "a capture's share was not delivered");
    }
    let outcome = outcome.map_err(|error| error.code());
    insist(deps, || settle(deps, &wish, &outcome)).await
}

/// Tries again what has to be written down before the delivery counts as interrupted.
pub(super) async fn insist<F>(deps: &Deps, write: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let began = Instant::now();
    loop {
        match write().await {
            Err(error)
                if error.is_retryable()
                    && began.elapsed() < INSIST
                    && !deps.stop.is_cancelled() =>
            {
                tracing::debug!(error = error.chain(), "a share's outcome is written down later");
                tokio::time::sleep(WRITE_AGAIN).await;
            }
            written => return written,
        }
    }
}

/// The share's row, and where it is delivered to.
async fn prepare(deps: &Deps, clip: &Clip, wish: &Wish) -> Result<(config::Share, Shared)> {
    let order =
        Order { destination: wish.destination, target: wish.target_id.clone(), expires_at: None };
    // the settings may have changed since
    let endpoint = endpoint_of(deps, wish.destination)?
        .ok_or_else(|| Error::internal("delivering a share", "a link waits for a delivery"))?;
    let mut made = new_share(deps, clip, order);
    made.share.id = wish.share_id.clone();
    super::make(deps, &made.share, true).await?;
    Ok((endpoint, made))
}

async fn hand_over(
    deps: &Deps,
    endpoint: &config::Share,
    clip: &Clip,
    wish: &Wish,
    mut made: Shared,
) -> Result<share::Model> {
    deliver(deps, endpoint, clip, wish.username.as_deref(), &mut made).await?;
    super::count(&made.share);
    Ok(made.share)
}

/// Writes down what came of it, once; the link of what failed is void already, or voided here. A wish that is gone was
/// settled by somebody else, or taken back: nothing more is said of it.
async fn settle(deps: &Deps, wish: &Wish, outcome: &Result<share::Model, Code>) -> Result<()> {
    let tx = deps.db.begin().await?;
    let now = deps.clock.now();
    // in the order of locks: clip, what belongs to it
    clip::lock(&tx, &wish.clip_id).await?;
    if !wish::delete(&tx, &wish.clip_id).await? {
        return store::rollback(tx).await;
    }
    let (message, fault) = match outcome {
        Ok(share) => (share.message_id.clone(), None),
        Err(code) => {
            share::delete(&tx, &wish.clip_id, &wish.share_id).await?;
            (None, Some(code.as_str().to_owned()))
        }
    };
    if let Some(message) = &message {
        share::set_message(&tx, &wish.share_id, message).await?;
    }
    clip::set_share_outcome(&tx, &wish.clip_id, message, fault, now).await?;
    if let Ok(share) = outcome
        && let Some(clip) = clip::find(&tx, &wish.clip_id).await?
    {
        outbox::shared(&tx, &clip, share, now).await?;
    }
    outbox::commit(deps, tx).await?;
    deps.wake.clips.notify_waiters();
    Ok(())
}

/// Takes up what a process left behind that died or stopped: what was not begun is delivered, what was interrupted
/// has failed.
///
/// # Errors
/// Those of the database, where nothing can be listed.
pub async fn catch_up(deps: &Deps) -> Result<()> {
    for wish in wish::list_due(deps.db.conn(), BATCH).await? {
        let done = match wish.claimed_at {
            // to its end: a delivery that is torn apart has failed, and its link is void
            None => {
                let (own, id) = (deps.clone(), wish.clip_id.clone());
                deps.to_the_end(async move { fulfil(&own, &id).await }).await
            }
            Some(at) if at.plus_seconds(INTERRUPTED_SECONDS) <= deps.clock.now() => {
                settle(deps, &wish, &Err(Code::ShareFailed)).await
            }
            Some(_) => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(clip.id = %wish.clip_id, error = error.chain(), "a share waits on");
        }
    }
    Ok(())
}
