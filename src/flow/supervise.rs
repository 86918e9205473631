//! Keep running sessions true to what happens: carries out what `domain::supervision` plans, for every session that
//! is not over, every second or when a fact comes in. Several replicas may do it at once: whoever inserts an epoch's
//! number starts it, everything else is compare-and-set or harmless twice.

mod steps;

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, stream};

use self::steps::carry_out;
use super::{
    Deps, index,
    stores::{self, Which},
};
use crate::{
    domain::{
        id::{RoomName, SessionId},
        lifecycle::SessionStatus,
        share,
        supervision::{self, OpenEpoch, Patience, Share, Step, Watched},
    },
    error::{Code, Result},
    store::{
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
            let id = session.id.clone();
            let case = Case { session, epochs };
            if let Err(error) = supervise(deps, case, Look::IfNeeded).await {
                tracing::warn!(session.id = %id, error = ?error, "supervision failed");
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
    match Case::load(deps, id).await? {
        Some(case) if !case.session.status.is_final() => supervise(deps, case, Look::Now).await,
        _ => Ok(()),
    }
}

/// A session as its rows are.
struct Case {
    session: session::Model,
    /// Those that are not over.
    epochs: Vec<epoch::Model>,
}

impl Case {
    async fn load(deps: &Deps, id: &SessionId) -> Result<Option<Case>> {
        let Some(session) = session::find(deps.db.conn(), id).await? else { return Ok(None) };
        let mut epochs = epoch::list(deps.db.conn(), id).await?;
        epochs.retain(|row| row.status != EpochStatus::Ended);
        Ok(Some(Case { session, epochs }))
    }
}

/// What to do, and whether that is certain.
enum Planned {
    Surely(Case, Vec<Step>),
    /// Nothing came, as far as rows know, and the disk cannot be read.
    Silent(Case, Vec<Step>),
    /// The session is gone.
    Gone,
}

async fn supervise(deps: &Deps, case: Case, look: Look) -> Result<()> {
    let (mut case, mut steps) = match plan(deps, case, &Share::Unknown).await? {
        Planned::Surely(case, steps) => (case, steps),
        Planned::Silent(case, steps) => return stop_at_least(deps, &case, &steps).await,
        Planned::Gone => return Ok(()),
    };
    let mut found = None;
    let must_look = look == Look::Now && case.session.status.holds_place();
    if must_look || steps.contains(&Step::LookAtRoom) {
        match find_share(deps, &case.session).await {
            Ok((share, chosen)) => {
                // the answer may have taken seconds, and others went on meanwhile
                let Some(now) = Case::load(deps, &case.session.id).await? else { return Ok(()) };
                // the room that they saw was younger
                if now.session.current_epoch != case.session.current_epoch {
                    return Ok(());
                }
                let Planned::Surely(now, planned) = plan(deps, now, &share).await? else {
                    return Ok(());
                };
                (case, steps, found) = (now, planned, chosen);
            }
            // LiveKit does not answer: nothing is concluded from silence
            Err(error) => {
                tracing::debug!(session.id = %case.session.id, error = ?error, "could not look at the room");
            }
        }
    }
    for step in steps {
        carry_out(deps, &case, &step, found.as_ref()).await?;
    }
    Ok(())
}

/// What to do. Rows that are silent may only be old: after a pause of ours, or of the store, nobody looked at the disk.
async fn plan(deps: &Deps, case: Case, share: &Share) -> Result<Planned> {
    let steps = plan_by_rows(deps, &case, share).await?;
    if !steps.iter().any(|step| step.is_silence(case.session.status)) {
        return Ok(Planned::Surely(case, steps));
    }
    if let Err(error) = look_at_disk(deps, &case.session.id).await {
        tracing::warn!(session.id = %case.session.id, error = ?error, "could not look for segments");
        return Ok(Planned::Silent(case, steps));
    }
    let Some(case) = Case::load(deps, &case.session.id).await? else { return Ok(Planned::Gone) };
    let steps = plan_by_rows(deps, &case, share).await?;
    Ok(Planned::Surely(case, steps))
}

async fn plan_by_rows(deps: &Deps, case: &Case, share: &Share) -> Result<Vec<Step>> {
    let mut watched = watch(deps, case).await?;
    if *share != Share::Unknown
        && let Some(newest) = watched.open.last_mut()
    {
        newest.media_end =
            segment::find_end(deps.db.conn(), &case.session.id, newest.number).await?;
    }
    Ok(supervision::plan(&watched, share, &patience(deps), deps.clock.now()))
}

/// Nothing is concluded from a silence that cannot be looked into; but what its user has stopped is not recorded on.
async fn stop_at_least(deps: &Deps, case: &Case, steps: &[Step]) -> Result<()> {
    if case.session.status != SessionStatus::Stopping {
        return Ok(());
    }
    for step in steps.iter().filter(|step| matches!(step, Step::StopEgress(_))) {
        carry_out(deps, case, step, None).await?;
    }
    Ok(())
}

/// Indexes what is on disk.
async fn look_at_disk(deps: &Deps, id: &SessionId) -> Result<()> {
    // where nothing is mounted every egress seems to be dead
    stores::demand_ours(deps, Which::Buffer).await?;
    index::index_session(deps, id).await.map(drop)
}

fn patience(deps: &Deps) -> Patience {
    Patience {
        no_segment: deps.config.buffer.no_segment,
        rejoin: deps.config.sessions.rejoin,
        max_epoch: deps.config.buffer.max_epoch,
        flush: FLUSH,
    }
}

async fn watch(deps: &Deps, Case { session, epochs }: &Case) -> Result<Watched> {
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
        current_epoch: session.current_epoch,
        wanted: session.video_track_id.clone(),
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

/// Looks at every session of a room whose share a webhook spoke of.
pub async fn look_at_room(deps: &Deps, room: &RoomName) -> Result<()> {
    for session in session::list_holding_in_room(deps.db.conn(), room).await? {
        look_at(deps, &session.id).await?;
    }
    Ok(())
}
