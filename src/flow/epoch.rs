//! Begin an epoch: its row is there, now its directory and its egress. Used by the first start and by every
//! replacement.

use std::{os::unix::fs::DirBuilderExt, path::Path, time::Duration};

use super::{
    Deps, crash,
    idempotency::{self, Held, Kept},
    outbox,
    stores::{self, Which},
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
/// A directory on a hung mount must not hang a start.
const DIRECTORY_DEADLINE: Duration = Duration::from_secs(5);
/// A path of ours has five levels, and each may be tidied away once while it is empty.
const LEVELS_LOST: usize = 5;

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
    make_directory(deps, &row.path).await?;
    crash::point("after-directory");
    let sent_at = deps.clock.now();
    let fact = deps.livekit.start_egress(&order(deps, session, row)).await?;
    let answered_at = deps.clock.now();
    crash::point("after-start-egress");
    keep_answer(deps, row, &fact, (sent_at, answered_at), told).await
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
    let kept = epoch::update_if(&tx, &row.session_id, row.number, &open, change).await?;
    let held = locked.filter(|session| kept && session.status.holds_place());
    if let Some(session) = &held {
        outbox::epoch_accepted(&tx, session, row.number, deps.clock.now()).await?;
        if let Some((key, kept)) = told {
            idempotency::keep_in(&tx, &key, kept).await?;
        }
    }
    outbox::commit(deps, tx).await?;
    Ok(held.is_some())
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

/// Our own directories before the egress starts: both sides can write, and we can delete.
async fn make_directory(deps: &Deps, path: &str) -> Result<()> {
    // what nothing is mounted on must not be filled up
    stores::demand_ours(deps, Which::Buffer).await?;
    let root = deps.config.storage.buffer.clone();
    let target = root.join(path);
    let mode = deps.config.storage.buffer_dir_mode;
    let gid = deps.config.storage.buffer_gid;
    let work = move || {
        let mut made = make_tree(&root, &target, mode, gid);
        // a level that was empty for a moment may have been tidied away under our hands
        for _ in 0..LEVELS_LOST {
            match &made {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && root.is_dir() => {
                    made = make_tree(&root, &target, mode, gid);
                }
                _ => break,
            }
        }
        made
    };
    let made = deps.stores.buffer.gate.run(DIRECTORY_DEADLINE, work).await;
    made.map_err(|trouble| unavailable().because(trouble))
}

fn unavailable() -> Error {
    Error::new(Code::StorageUnavailable, "The buffer store cannot be written.")
        .retry_after(Duration::from_secs(10))
        .retryable()
}

/// Makes each missing level with exactly the mode and group configured, whatever our umask is. The root itself must
/// exist: a missing mount point must not be filled up.
fn make_tree(root: &Path, target: &Path, mode: u32, gid: Option<u32>) -> std::io::Result<()> {
    use rustix::fs::{CWD, Gid, Mode, chownat};
    let group = match gid {
        Some(gid) => gid,
        None => std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(root)?),
    };
    let relative = target.strip_prefix(root).map_err(std::io::Error::other)?;
    let mut level = root.to_owned();
    for part in relative.components() {
        level.push(part);
        match std::fs::DirBuilder::new().mode(0o700).create(&level) {
            Ok(()) => {
                let own = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&level)?);
                if own != group {
                    chownat(
                        CWD,
                        &level,
                        None,
                        Some(Gid::from_raw(group)),
                        rustix::fs::AtFlags::empty(),
                    )?;
                }
                // after the group: a change of group may clear the set-group-id bit
                rustix::fs::chmod(&level, Mode::from_raw_mode(mode))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
