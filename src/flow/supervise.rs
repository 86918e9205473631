//! Keep running sessions true to what happens: carries out what `domain::supervision` plans, for every session that
//! is not over, every second or when a fact comes in. Several replicas may do it at once: whoever inserts an epoch's
//! number starts it, everything else is compare-and-set or harmless twice.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use futures::{StreamExt, stream};

use super::{
    Deps, egress_fact, epoch as epoch_flow, index, outbox, place, probe,
    stores::{self, Which},
};
use crate::{
    domain::{
        id::{RoomName, SessionId},
        lifecycle::{EndReason, SessionStatus},
        share,
        supervision::{self, OpenEpoch, Patience, Share, Step, Watched},
        time::Timestamp,
    },
    error::{Code, Result},
    livekit::Stopped,
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        segment, session,
    },
};

/// How often every session is looked at when nothing rings.
const PERIOD: Duration = Duration::from_secs(1);
/// Sessions looked at together.
const AT_ONCE: usize = 16;
/// How long a stopped egress may flush without a sign of life.
const FLUSH: Duration = Duration::from_secs(20);

/// Every state that is not over.
const NOT_OVER: &[SessionStatus] = &[
    SessionStatus::Starting,
    SessionStatus::Active,
    SessionStatus::Degraded,
    SessionStatus::Stopping,
];

/// Supervises until told to stop.
pub async fn run(deps: Deps) {
    while !deps.stop.is_cancelled() {
        if let Err(error) = pass(&deps).await {
            tracing::warn!(error = ?error, "supervision pass failed");
        }
        tokio::select! {
            () = deps.stop.cancelled() => {}
            () = deps.wake.supervisor.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Looks at every session that is not over.
pub async fn pass(deps: &Deps) -> Result<()> {
    let sessions = session::list_in(deps.db.conn(), NOT_OVER).await?;
    let mut open: HashMap<SessionId, Vec<epoch::Model>> = HashMap::new();
    for row in epoch::list_open(deps.db.conn()).await? {
        open.entry(row.session_id.clone()).or_default().push(row);
    }
    let work = sessions.into_iter().map(|session| {
        let epochs = open.remove(&session.id).unwrap_or_default();
        async move {
            if let Err(error) = supervise(deps, &session, epochs, Look::IfNeeded).await {
                tracing::warn!(session.id = %session.id, error = ?error, "supervision failed");
            }
        }
    });
    stream::iter(work).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    Ok(())
}

/// Whether the room is asked even when nothing looks wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Something happened there, or it is time to compare.
    Now,
    /// Only when the plan needs it.
    IfNeeded,
}

/// Looks at one session, asking LiveKit what its user shares.
pub async fn look_at(deps: &Deps, id: &SessionId) -> Result<()> {
    let Some(session) = session::find(deps.db.conn(), id).await? else { return Ok(()) };
    if session.status.is_final() {
        return Ok(());
    }
    let mut epochs = epoch::list(deps.db.conn(), id).await?;
    epochs.retain(|row| row.status != EpochStatus::Ended);
    supervise(deps, &session, epochs, Look::Now).await
}

async fn supervise(
    deps: &Deps,
    session: &session::Model,
    epochs: Vec<epoch::Model>,
    look: Look,
) -> Result<()> {
    let patience = patience(deps);
    let mut watched = watch(deps, session, &epochs).await?;
    let mut steps = supervision::plan(&watched, &Share::Unknown, &patience, deps.clock.now());
    let (mut session, mut epochs) = (Cow::Borrowed(session), epochs);
    if steps.iter().any(|step| step.is_silence(session.status)) {
        // Rows that are silent may only be old: after a pause of ours, or of the store, nobody looked at the disk.
        let Some(now) = look_at_disk(deps, &session).await? else {
            return stop_at_least(deps, &session, &epochs, &steps).await;
        };
        (session, epochs) = (Cow::Owned(now.0), now.1);
        watched = watch(deps, &session, &epochs).await?;
        steps = supervision::plan(&watched, &Share::Unknown, &patience, deps.clock.now());
    }
    let session = session.as_ref();
    let mut found = None;
    let wants_look =
        steps.contains(&Step::LookAtRoom) || (look == Look::Now && session.status.holds_place());
    if wants_look {
        if let Some(newest) = watched.open.last_mut() {
            newest.media_end =
                segment::find_end(deps.db.conn(), &session.id, newest.number).await?;
        }
        match find_share(deps, session).await {
            Ok((share, chosen)) => {
                steps = supervision::plan(&watched, &share, &patience, deps.clock.now());
                found = chosen;
            }
            // LiveKit does not answer: nothing is concluded from silence
            Err(error) => {
                tracing::debug!(session.id = %session.id, error = ?error, "could not look at the room");
            }
        }
    }
    for step in steps {
        carry_out(deps, session, &epochs, &step, found.as_ref()).await?;
    }
    Ok(())
}

/// Nothing is concluded from a silence that cannot be looked into; but what its user has stopped is not recorded on.
async fn stop_at_least(
    deps: &Deps,
    session: &session::Model,
    epochs: &[epoch::Model],
    steps: &[Step],
) -> Result<()> {
    if session.status != SessionStatus::Stopping {
        return Ok(());
    }
    for step in steps.iter().filter(|step| matches!(step, Step::StopEgress(_))) {
        carry_out(deps, session, epochs, step, None).await?;
    }
    Ok(())
}

/// The session and its open epochs after what is on disk was indexed; `None` when the disk cannot be read or the
/// session is gone: nothing is concluded from silence then.
async fn look_at_disk(
    deps: &Deps,
    session: &session::Model,
) -> Result<Option<(session::Model, Vec<epoch::Model>)>> {
    // where nothing is mounted every egress seems to be dead
    let indexed = async {
        stores::demand_ours(deps, Which::Buffer).await?;
        index::index_session(deps, &session.id).await
    };
    if let Err(error) = indexed.await {
        tracing::warn!(session.id = %session.id, error = ?error, "could not look for segments");
        return Ok(None);
    }
    let Some(session) = session::find(deps.db.conn(), &session.id).await? else { return Ok(None) };
    let mut epochs = epoch::list(deps.db.conn(), &session.id).await?;
    epochs.retain(|row| row.status != EpochStatus::Ended);
    Ok(Some((session, epochs)))
}

fn patience(deps: &Deps) -> Patience {
    Patience {
        no_segment: deps.config.buffer.no_segment,
        rejoin: deps.config.sessions.rejoin,
        max_epoch: deps.config.buffer.max_epoch,
        flush: FLUSH,
    }
}

async fn watch(deps: &Deps, session: &session::Model, epochs: &[epoch::Model]) -> Result<Watched> {
    let starting = session.status == SessionStatus::Starting;
    let gives_up = session.restart_attempts >= supervision::MAX_RESTARTS;
    // those that are over matter in two cases only
    let all = match starting || gives_up {
        true => epoch::list(deps.db.conn(), &session.id).await?,
        false => Vec::new(),
    };
    let hit = |row: &epoch::Model| row.outcome.as_deref() == Some("limit_reached");
    Ok(Watched {
        status: session.status,
        open: epochs.iter().map(open_epoch).collect(),
        accepted: !starting || all.iter().any(|row| row.answered_at.is_some()),
        share_lost_at: session.share_lost_at,
        restart_attempts: session.restart_attempts,
        restart_at: session.restart_at,
        last_hit_limit: gives_up && all.last().is_some_and(hit),
    })
}

fn open_epoch(row: &epoch::Model) -> OpenEpoch {
    OpenEpoch {
        number: row.number,
        video: row.video_track_id.clone(),
        has_audio: row.audio_track_id.is_some(),
        sent_at: row.sent_at,
        answered_at: row.answered_at,
        egress_known: row.egress_id.is_some(),
        deadline_at: row.deadline_at,
        last_segment_at: row.last_segment_at,
        media_end: None,
        stop_sent_at: row.stop_sent_at,
    }
}

/// What the session's user shares in the room now: what is recorded as long as it is there, whatever else he shares;
/// otherwise the newest share of any of his identities.
async fn find_share(
    deps: &Deps,
    session: &session::Model,
) -> Result<(Share, Option<share::Share>)> {
    let Some(participants) = deps.livekit.list_participants(&session.room_name).await? else {
        return Ok((Share::RoomGone, None));
    };
    let rule = &deps.config.livekit.identity_pattern;
    let epoch = epoch::find(deps.db.conn(), &session.id, session.current_epoch).await?;
    let request = epoch.map_or_else(share::ShareRequest::default, |epoch| {
        let recorded = (&epoch.video_track_id, epoch.audio_track_id.as_ref());
        share::same_again(&participants, recorded, &session.user_id, rule)
    });
    match share::find_share(&participants, &request, &session.user_id, rule, false) {
        Ok(found) => {
            let share =
                Share::Present { video: found.video.sid.clone(), has_audio: found.audio.is_some() };
            Ok((share, Some(found)))
        }
        Err(error) if error.code() == Code::ScreenShareNotFound => Ok((Share::Absent, None)),
        Err(error) => Err(error),
    }
}

async fn carry_out(
    deps: &Deps,
    session: &session::Model,
    epochs: &[epoch::Model],
    step: &Step,
    found: Option<&share::Share>,
) -> Result<()> {
    let row = |number: i32| epochs.iter().find(|row| row.number == number);
    match step {
        Step::LookAtRoom => Ok(()),
        Step::Adopt(number) => match row(*number) {
            Some(row) => epoch_flow::adopt(deps, row).await,
            None => Ok(()),
        },
        Step::StopEgress(number) => match row(*number) {
            Some(row) => stop_egress(deps, row).await,
            None => Ok(()),
        },
        Step::EndEpoch { number, outcome } => match row(*number) {
            Some(row) => {
                egress_fact::index_quietly(deps, row).await;
                epoch_flow::end(deps, row, outcome, None).await?;
                deps.wake.jobs.notify_waiters();
                Ok(())
            }
            None => Ok(()),
        },
        Step::StartEpoch => match found {
            // one that replaces another waits for the store: no attempt is spent on a disk without room
            Some(_)
                if session.restart_attempts > 0
                    && !probe::is_writable(deps, Which::Buffer).await =>
            {
                Ok(())
            }
            Some(found) => epoch_flow::start_next(deps, session, found).await,
            None => Ok(()),
        },
        Step::ShareLost => mark_share(deps, session, Some(deps.clock.now())).await,
        Step::ShareBack => mark_share(deps, session, None).await,
        Step::Activate => set_status(deps, session, SessionStatus::Active).await,
        Step::Degrade => set_status(deps, session, SessionStatus::Degraded).await,
        Step::End(reason) => end(deps, session, *reason).await,
        Step::Finish => {
            index::index_session(deps, &session.id).await?;
            place::finish(deps, session).await.map(drop)
        }
    }
}

/// Tells an epoch's egress to stop. The first time is remembered: flushing is counted from there.
async fn stop_egress(deps: &Deps, row: &epoch::Model) -> Result<()> {
    let Some(egress) = &row.egress_id else { return Ok(()) };
    if row.stop_sent_at.is_none() {
        let change = epoch::ActiveModel {
            status: Set(EpochStatus::Ending),
            stop_sent_at: Set(Some(deps.clock.now())),
            ..Default::default()
        };
        let open = [EpochStatus::Starting, EpochStatus::Active];
        epoch::update_if(deps.db.conn(), &row.session_id, row.number, &open, change).await?;
    }
    match deps.livekit.stop_egress(egress).await {
        Ok(Stopped::Ending) => Ok(()),
        Ok(Stopped::AlreadyOver) => {
            egress_fact::index_quietly(deps, row).await;
            epoch_flow::end(deps, row, "stopped", None).await?;
            deps.wake.supervisor.notify_one();
            deps.wake.jobs.notify_waiters();
            Ok(())
        }
        // a dead egress answers nothing; the stop is repeated until the flush time is over
        Err(error) => {
            tracing::debug!(egress.id = %egress, error = ?error, "stop was not answered");
            Ok(())
        }
    }
}

async fn mark_share(
    deps: &Deps,
    session: &session::Model,
    lost_at: Option<Timestamp>,
) -> Result<()> {
    let change = session::ActiveModel {
        share_lost_at: Set(lost_at),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    session::update_if(deps.db.conn(), &session.id, SessionStatus::HOLDING, change).await.map(drop)
}

async fn set_status(deps: &Deps, session: &session::Model, status: SessionStatus) -> Result<()> {
    let mut change = session::ActiveModel {
        status: Set(status),
        updated_at: Set(deps.clock.now()),
        ..Default::default()
    };
    if status == SessionStatus::Active {
        change.restart_attempts = Set(0);
        change.restart_at = Set(None);
    }
    let tx = deps.db.begin().await?;
    // locked before it is read: which change this is depends on how the row really was
    let Some(before) = session::lock(&tx, &session.id).await? else {
        return store::rollback(tx).await;
    };
    // somebody changed it since this was planned: the next pass plans anew
    if before.status != session.status {
        return store::rollback(tx).await;
    }
    let changed = session::update_if(&tx, &session.id, status.follows(), change).await?;
    if changed {
        let now = deps.clock.now();
        outbox::session_changed(&tx, &session.id, before.status, status, now).await?;
    }
    outbox::commit(deps, tx).await?;
    if changed {
        tracing::info!(session.id = %session.id, status = %status, "session status changed");
    }
    Ok(())
}

/// A session that ends by itself ends where its share was lost.
async fn end(deps: &Deps, session: &session::Model, reason: EndReason) -> Result<()> {
    let ended_at = session.share_lost_at.unwrap_or_else(|| deps.clock.now());
    place::end(deps, session, reason, ended_at).await.map(drop)
}

/// Looks at every session of a room whose share a webhook spoke of.
pub async fn look_at_room(deps: &Deps, room: &RoomName) -> Result<()> {
    for session in session::list_holding_in_room(deps.db.conn(), room).await? {
        look_at(deps, &session.id).await?;
    }
    Ok(())
}
