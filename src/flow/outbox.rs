//! The outbox: what is worth telling is written down in the transaction of the change itself, so that neither is there
//! without the other, whatever dies when. Every event of the service is written by one of the functions here; telling
//! is `events`'.

mod data;

use serde_json::Value;

use super::{Deps, capture::Clip};
use crate::{
    domain::{
        event::{self, EventKind},
        id::{CommunityId, SessionId, UserId},
        lifecycle::SessionStatus,
        time::Timestamp,
    },
    error::Result,
    store::{
        self, Tx,
        epoch::{self, EpochStatus},
        event as rows, quota, session, share,
    },
};

/// Commits a transaction in which something was written down, and has it told at once.
pub(super) async fn commit(deps: &Deps, tx: Tx) -> Result<()> {
    store::commit(tx).await?;
    deps.wake.events.ring();
    Ok(())
}

/// What happened to a session, as the transaction sees it.
async fn session(tx: &Tx, kind: EventKind, id: &SessionId, now: Timestamp) -> Result<()> {
    let Some(row) = session::find(tx, id).await? else { return Ok(()) };
    let newest = epoch::find(tx, id, row.current_epoch).await?;
    let data = data::session(&row, newest.as_ref());
    write(tx, kind, &row.user_id, row.community_id.as_ref(), data, now).await
}

/// A session's status changed; the row was locked before `before` was read.
pub(super) async fn session_changed(
    tx: &Tx,
    id: &SessionId,
    before: SessionStatus,
    after: SessionStatus,
    now: Timestamp,
) -> Result<()> {
    match event::of_change(before, after) {
        Some(kind) => session(tx, kind, id, now).await,
        None => Ok(()),
    }
}

/// A session gave its place up.
pub(super) async fn session_ended(tx: &Tx, id: &SessionId, now: Timestamp) -> Result<()> {
    let reason = session::find(tx, id).await?.and_then(|row| row.end_reason);
    match reason {
        Some(reason) => session(tx, event::of_end(reason), id, now).await,
        None => Ok(()),
    }
}

/// LiveKit accepted an epoch: a session's first is its start, a later one of a session that goes on takes over. Call it
/// with the session's row locked, in the transaction that writes the answer: media that came before the answer have
/// told the start (`first_media`).
pub(super) async fn epoch_accepted(
    tx: &Tx,
    locked: &session::Model,
    number: i32,
    now: Timestamp,
) -> Result<()> {
    let kind = match (locked.status, number) {
        (SessionStatus::Starting, 1) => EventKind::Started,
        (SessionStatus::Active, 2..) => EventKind::Restarted,
        _ => return Ok(()),
    };
    session(tx, kind, &locked.id, now).await
}

/// The first media of a session came, in the transaction that indexes it. If nobody wrote LiveKit's answer down yet
/// (whoever waits for it may have died), this is its start, too.
pub(super) async fn first_media(tx: &Tx, id: &SessionId, now: Timestamp) -> Result<()> {
    let first = epoch::find(tx, id, 1).await?;
    if first.is_some_and(|row| row.answered_at.is_none() && row.status != EpochStatus::Ended) {
        session(tx, EventKind::Started, id, now).await?;
    }
    session(tx, EventKind::SegmentsReady, id, now).await
}

/// What happened to a clip; `clip` is its row as the transaction leaves it, or as it was if it goes.
pub(super) async fn clip(tx: &Tx, kind: EventKind, clip: &Clip, now: Timestamp) -> Result<()> {
    let data = data::clip(clip);
    write(tx, kind, &clip.user_id, clip.community_id.as_ref(), data, now).await
}

/// A clip was shared.
pub(super) async fn shared(
    tx: &Tx,
    clip: &Clip,
    share: &share::Model,
    now: Timestamp,
) -> Result<()> {
    let data = data::shared(clip, share);
    write(tx, EventKind::ClipShared, &clip.user_id, clip.community_id.as_ref(), data, now).await
}

/// A user's clips took `added` bytes more, in this transaction.
pub(super) async fn bytes_taken(
    tx: &Tx,
    deps: &Deps,
    user: &UserId,
    added: i64,
    now: Timestamp,
) -> Result<()> {
    let Some(account) = quota::find(tx, user).await? else { return Ok(()) };
    let allowed = account.quota_bytes.unwrap_or(deps.config.limits.user_quota_bytes);
    let before = (account.used_bytes.saturating_sub(added), allowed);
    account_changed(tx, &account, before, (account.used_bytes, allowed), now).await
}

/// A user's allowance was `before`, and is another in this transaction.
pub(super) async fn allowance_changed(
    tx: &Tx,
    account: &quota::Model,
    before: i64,
    after: i64,
    now: Timestamp,
) -> Result<()> {
    let used = account.used_bytes;
    account_changed(tx, account, (used, before), (used, after), now).await
}

async fn account_changed(
    tx: &Tx,
    account: &quota::Model,
    before: (i64, i64),
    after: (i64, i64),
    now: Timestamp,
) -> Result<()> {
    let Some(percent) = event::passed(before, after) else { return Ok(()) };
    let clips = store::clip::count_ready(tx, &account.user_id).await?;
    let data = data::quota(account, after.1, clips, percent);
    write(tx, EventKind::QuotaWarning, &account.user_id, None, data, now).await
}

async fn write(
    tx: &Tx,
    kind: EventKind,
    user: &UserId,
    community: Option<&CommunityId>,
    data: Value,
    now: Timestamp,
) -> Result<()> {
    let new = rows::New {
        kind,
        user_id: user.clone(),
        community_id: community.cloned(),
        data: data.to_string(),
        created_at: now,
    };
    rows::insert(tx, new).await?;
    metrics::counter!("livekit_replay_events_total", "type" => kind.as_str()).increment(1);
    Ok(())
}
