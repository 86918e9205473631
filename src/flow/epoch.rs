//! Begin an epoch: its row is there, now its directory and its egress. Used by the first start and by every
//! replacement.

mod directory;

use std::time::Duration;

use super::{
    Deps, crash,
    idempotency::{self, Held, Kept},
    outbox,
};
use crate::{
    domain::{
        keys,
        lifecycle::SessionStatus,
        share::Share,
        sizes::{self, Quality},
        time::Timestamp,
        timeline,
    },
    error::{Code, Error, Result},
    livekit::{EgressFact, EgressOrder},
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        session,
    },
};

/// Past StartEgress's own deadline before an unanswered epoch counts as failed.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// What a repeat of the request is told, and the key that it has.
pub type Told = (Held, Kept);

/// The row of epoch `number`, to be inserted before anything happens.
pub fn new_row(
    deps: &Deps,
    session: &session::Model,
    number: i32,
    chosen: &Share,
    now: Timestamp,
) -> Result<epoch::Model> {
    let quality = Quality::from_name(&session.quality).unwrap_or_default();
    let size = sizes::encoding(quality, chosen.video.width, chosen.video.height);
    let pixels = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    Ok(epoch::Model {
        session_id: session.id.clone(),
        number,
        status: EpochStatus::Starting,
        egress_id: None,
        path: keys::buffer_path(
            &deps.instance,
            &session.room_name,
            &session.user_id,
            &session.id,
            u32::try_from(number).unwrap_or(0),
        )?,
        video_track_id: chosen.video.sid.clone(),
        audio_track_id: chosen.audio.as_ref().map(|audio| audio.sid.clone()),
        width: pixels(size.width),
        height: pixels(size.height),
        sent_at: now,
        answered_at: None,
        deadline_at: now.plus(deps.config.livekit.start_timeout).plus(ANSWER_MARGIN),
        host_started_at: None,
        clock_offset_us: None,
        media_started_at: None,
        zero_at: None,
        basis: None,
        delay_ms: None,
        first_seen_at: None,
        last_segment_at: None,
        playlist_ended: false,
        stop_sent_at: None,
        ended_at: None,
        outcome: None,
        error: None,
    })
}

/// Makes the directory and starts the egress of an epoch whose row was just inserted. On an error the row is ended;
/// whatever LiveKit starts all the same is found by its path and stopped. `told` is kept in the transaction that accepts.
pub async fn launch(
    deps: &Deps,
    session: &session::Model,
    row: epoch::Model,
    told: Option<Told>,
) -> Result<()> {
    match try_launch(deps, session, &row, told).await {
        Ok(()) => Ok(()),
        Err(error) => {
            end(deps, &row, "start_failed", Some(error.chain())).await?;
            Err(error)
        }
    }
}

async fn try_launch(
    deps: &Deps,
    session: &session::Model,
    row: &epoch::Model,
    told: Option<Told>,
) -> Result<()> {
    directory::make(deps, &row.path).await?;
    crash::point("after-directory");
    let sent_at = deps.clock.now();
    let fact = match deps.livekit.start_egress(&order(deps, session, row)).await {
        Ok(fact) => fact,
        Err(error) => find_started(deps, session, row, &error).await.ok_or(error)?,
    };
    let answered_at = deps.clock.now();
    crash::point("after-start-egress");
    keep_answer(deps, row, &fact, (sent_at, answered_at), told).await
}

/// What LiveKit started of a replacement although it did not say so in time. Of a session's first epoch that is not asked:
/// whoever started it is told that it failed, and must not be recorded then.
async fn find_started(
    deps: &Deps,
    session: &session::Model,
    row: &epoch::Model,
    error: &Error,
) -> Option<EgressFact> {
    if error.code() != Code::EgressStartTimeout || row.number == 1 {
        return None;
    }
    let listed = deps.livekit.list_active_egress(Some(&session.room_name)).await.ok()?;
    listed.into_iter().find(|fact| {
        let path = fact.directory.as_deref().and_then(|directory| deps.own_path(directory));
        path == Some(row.path.as_str()) && !fact.state.is_over()
    })
}

fn order(deps: &Deps, session: &session::Model, row: &epoch::Model) -> EgressOrder {
    let pixels = |value: i32| u32::try_from(value).unwrap_or(16);
    // the row's size is a fixed point: encoding it again gives itself and its rates
    let rate = sizes::encoding(Quality::Source, pixels(row.width), pixels(row.height));
    EgressOrder {
        room: session.room_name.clone(),
        video: row.video_track_id.clone(),
        audio: row.audio_track_id.clone(),
        directory: deps.egress_directory(&row.path),
        width: pixels(row.width),
        height: pixels(row.height),
        frame_rate: rate.frame_rate,
        video_kbps: rate.video_kbit,
        audio_kbps: rate.audio_kbit,
        segment_seconds: u32::try_from(deps.config.buffer.segment.as_secs()).unwrap_or(2),
    }
}

/// Writes the answer into the row, unless the session ended meanwhile: then the egress is stopped at once.
async fn keep_answer(
    deps: &Deps,
    row: &epoch::Model,
    fact: &EgressFact,
    (sent_at, answered_at): (Timestamp, Timestamp),
    told: Option<Told>,
) -> Result<()> {
    let offset = fact.requested_at.map(|host| timeline::clock_offset(sent_at, answered_at, host));
    let change = epoch::ActiveModel {
        egress_id: Set(Some(fact.id.clone())),
        sent_at: Set(sent_at),
        answered_at: Set(Some(answered_at)),
        host_started_at: Set(fact.requested_at),
        clock_offset_us: Set(offset),
        ..Default::default()
    };
    let kept = keep_in_row(deps, row, change, told).await;
    if matches!(kept, Ok(true)) {
        return Ok(());
    }
    // Best effort: if this stop is lost, the reconcile pass finds the egress under our path.
    if let Err(error) = deps.livekit.stop_egress(&fact.id).await {
        tracing::warn!(egress.id = %fact.id, error = ?error, "could not stop an unwanted egress");
    }
    kept?;
    Err(Error::new(Code::SessionNotActive, "The session was ended while it was being started."))
}

/// Whether the epoch was still open and its session still holds its place.
async fn keep_in_row(
    deps: &Deps,
    row: &epoch::Model,
    change: epoch::ActiveModel,
    told: Option<Told>,
) -> Result<bool> {
    let open = [EpochStatus::Starting, EpochStatus::Active, EpochStatus::Ending];
    let tx = deps.db.begin().await?;
    // the session first: whoever indexes its first media waits here, or came before
    let locked = session::lock(&tx, &row.session_id).await?;
    let unheard = is_unheard(&tx, row).await?;
    let kept = epoch::update_if(&tx, &row.session_id, row.number, &open, change).await?;
    let held = locked.filter(|session| kept && session.status.holds_place());
    if let Some(session) = &held {
        // who waits for the answer may hear it after others have concluded it
        if unheard {
            outbox::epoch_accepted(&tx, session, row.number, deps.clock.now()).await?;
        }
        if let Some((key, kept)) = told {
            idempotency::keep_in(&tx, &key, kept).await?;
        }
    }
    outbox::commit(deps, tx).await?;
    Ok(held.is_some())
}

async fn is_unheard(tx: &store::Tx, row: &epoch::Model) -> Result<bool> {
    let now = epoch::find(tx, &row.session_id, row.number).await?;
    Ok(now.is_some_and(|now| now.answered_at.is_none()))
}

/// Takes an epoch whose answer nobody heard for accepted: its egress is known and brings media. Between its host's clock
/// and ours nothing was measured then.
pub async fn adopt(deps: &Deps, row: &epoch::Model) -> Result<()> {
    let now = deps.clock.now();
    let open = [EpochStatus::Starting, EpochStatus::Active, EpochStatus::Ending];
    let tx = deps.db.begin().await?;
    let Some(session) = session::lock(&tx, &row.session_id).await? else {
        return store::rollback(tx).await;
    };
    let change = epoch::ActiveModel { answered_at: Set(Some(now)), ..Default::default() };
    // the answer may have come since
    let adopted = is_unheard(&tx, row).await?
        && epoch::update_if(&tx, &row.session_id, row.number, &open, change).await?;
    if adopted {
        outbox::epoch_accepted(&tx, &session, row.number, now).await?;
        tracing::info!(session.id = %row.session_id, epoch = row.number, "an epoch was adopted");
    }
    outbox::commit(deps, tx).await
}

/// Ends an epoch's row.
pub async fn end(
    deps: &Deps,
    row: &epoch::Model,
    outcome: &str,
    error: Option<String>,
) -> Result<bool> {
    let change = epoch::ActiveModel {
        status: Set(EpochStatus::Ended),
        ended_at: Set(Some(deps.clock.now())),
        outcome: Set(Some(outcome.to_owned())),
        error: Set(error),
        ..Default::default()
    };
    let open = [EpochStatus::Starting, EpochStatus::Active, EpochStatus::Ending];
    let ended =
        epoch::update_if(deps.db.conn(), &row.session_id, row.number, &open, change).await?;
    if ended {
        tracing::info!(session.id = %row.session_id, epoch = row.number, outcome, "epoch ended");
    }
    Ok(ended)
}

/// Starts the next epoch of a session that goes on: whoever inserts the number does it, once. LiveKit's answer may take a
/// minute, in which others have to be looked after: it is awaited in a task of its own.
pub async fn start_next(deps: &Deps, session: &session::Model, chosen: &Share) -> Result<()> {
    let now = deps.clock.now();
    let number = session.current_epoch + 1;
    let row = new_row(deps, session, number, chosen, now)?;
    let tx = deps.db.begin().await?;
    let change = session::ActiveModel {
        current_epoch: Set(number),
        identity: Set(chosen.identity.clone()),
        video_track_id: Set(Some(chosen.video.sid.clone())),
        restart_attempts: Set(session.restart_attempts + 1),
        restart_at: Set(Some(
            now.plus(crate::domain::supervision::back_off(session.restart_attempts + 1)),
        )),
        updated_at: Set(now),
        ..Default::default()
    };
    let holding = session::update_if(&tx, &session.id, SessionStatus::HOLDING, change).await?;
    if !holding || !epoch::insert(&tx, row.clone()).await? {
        return store::rollback(tx).await;
    }
    store::commit(tx).await?;
    crash::point("after-row");
    metrics::counter!("livekit_replay_epochs_restarted_total").increment(1);
    let (own, session) = (deps.clone(), session.clone());
    deps.tasks.spawn(async move {
        // the row says when to try again
        if let Err(error) = launch(&own, &session, row, None).await {
            tracing::warn!(session.id = %session.id, error = ?error, "the next epoch did not start");
        }
    });
    Ok(())
}
