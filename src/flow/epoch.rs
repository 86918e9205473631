//! Begin an epoch: its row is there, now its directory and its egress. Used by the first start and by every
//! replacement.

mod answer;
mod directory;

use std::time::Duration;

pub use self::answer::adopt;
use super::{
    Deps, crash,
    idempotency::{Held, Kept},
};
use crate::{
    domain::{
        keys,
        lifecycle::SessionStatus,
        share::Share,
        sizes::{self, Quality},
        supervision,
        time::Timestamp,
    },
    error::{Error, Result},
    livekit::EgressOrder,
    store::{
        self, Set,
        epoch::{self, EpochStatus},
        session,
    },
};

/// Past StartEgress's own deadline before an unanswered epoch counts as failed.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Those that are not over.
const OPEN: &[EpochStatus] = &[EpochStatus::Starting, EpochStatus::Active, EpochStatus::Ending];

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

/// Makes the directory and starts the egress of an epoch whose row was just inserted. On an error the row is ended, and
/// whatever LiveKit starts all the same is found by its path and stopped; only where a replacement may run, its row waits a
/// little for a sign of it. `told` is kept in the transaction that accepts.
pub async fn launch(
    deps: &Deps,
    session: &session::Model,
    row: epoch::Model,
    told: Option<Told>,
) -> Result<()> {
    match try_launch(deps, session, &row, told).await {
        Ok(()) => Ok(()),
        Err(Failed::Surely(error)) => {
            end(deps, &row, "start_failed", Some(error.chain())).await?;
            Err(error)
        }
        Err(Failed::Perhaps(error)) => {
            answer::await_signs(deps, &row).await?;
            Err(error)
        }
    }
}

/// How a start failed.
enum Failed {
    /// Nothing is recorded for the row, or may be.
    Surely(Error),
    /// An egress may be running, and may go on: it replaces one of which its user was told.
    Perhaps(Error),
}

async fn try_launch(
    deps: &Deps,
    session: &session::Model,
    row: &epoch::Model,
    told: Option<Told>,
) -> std::result::Result<(), Failed> {
    directory::make(deps, &row.path).await.map_err(Failed::Surely)?;
    crash::point("after-directory");
    let sent_at = deps.clock.now();
    let fact = match deps.livekit.start_egress(&order(deps, session, row)).await {
        Ok(fact) => fact,
        Err(error) => answer::find_started(deps, session, row, error).await?,
    };
    let answered_at = deps.clock.now();
    crash::point("after-start-egress");
    answer::keep(deps, row, &fact, (sent_at, answered_at), told).await
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
    let ended = epoch::update_if(deps.db.conn(), &row.session_id, row.number, OPEN, change).await?;
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
    let attempts = attempts_with_this(deps, session, chosen).await?;
    let tx = deps.db.begin().await?;
    let change = session::ActiveModel {
        current_epoch: Set(number),
        identity: Set(chosen.identity.clone()),
        video_track_id: Set(Some(chosen.video.sid.clone())),
        restart_attempts: Set(attempts),
        restart_at: Set(Some(now.plus(supervision::back_off(attempts)))),
        updated_at: Set(now),
        ..Default::default()
    };
    let holding = session::update_if(&tx, &session.id, SessionStatus::HOLDING, change).await?;
    if !holding || !epoch::insert(&tx, row.clone()).await? {
        return store::rollback(tx).await;
    }
    store::commit(tx).await?;
    crash::point("after-row");
    tracing::info!(session.id = %session.id, epoch = number, "starting the next epoch");
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

async fn attempts_with_this(deps: &Deps, session: &session::Model, chosen: &Share) -> Result<i32> {
    let records =
        |row: &epoch::Model| matches!(row.status, EpochStatus::Starting | EpochStatus::Active);
    let over_a_recording = epoch::list(deps.db.conn(), &session.id).await?.iter().any(records);
    let same_track = session.video_track_id.as_ref() == Some(&chosen.video.sid);
    Ok(supervision::attempts_with(session.restart_attempts, same_track, over_a_recording))
}
