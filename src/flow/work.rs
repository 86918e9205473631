//! Leases of jobs: taken, kept, given back, and what becomes of a clip whose job is given up.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Deps,
    capture::Clip,
    clip_files::ClipFiles,
    crash, health, kept, outbox, probe,
    stores::{self, Which},
};
use crate::{
    config::Config,
    domain::{
        event::EventKind,
        id::{ClipId, UserId},
        time::Timestamp,
    },
    error::{Code, Error, Result},
    store::{self, Engine, Tx, clip, job, job::Back, pin, quota},
};

pub use crate::store::job::Model as Job;

/// How long a lease lasts without renewal: what a job waits at most after its worker died.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long a clip that was accepted waits until the machine is well again, from its acceptance.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How soon it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Clips up to this length are short: a place is kept for them.
const SHORT: Duration = Duration::from_secs(120);
/// Who may wait for a place to stream or to look, a few seconds each.
const WAITING: usize = 64;
/// Webhooks of LiveKit that are being applied; LiveKit sends one that is refused again.
const INTAKE: usize = 256;
/// Repeats of requests that wait for the first one's answer.
const REPEATS: usize = 128;
/// How often a lease is renewed.
pub const RENEW: Duration = Duration::from_secs(10);

/// Places for FFmpeg in this process, `capture.workers` of them: jobs take them, and whoever streams or looks.
///
/// Streams depend on how fast somebody reads, so they have seats of their own, one fewer than places (at least one):
/// however many there are, they leave a place for captures.
#[derive(Debug, Default)]
pub struct Places {
    all: OnceLock<Arc<Semaphore>>,
    seats: OnceLock<Arc<Semaphore>>,
    long: OnceLock<Arc<Semaphore>>,
    waiting: OnceLock<Arc<Semaphore>>,
    intake: OnceLock<Arc<Semaphore>>,
    repeats: OnceLock<Arc<Semaphore>>,
    streaming: Arc<Mutex<HashSet<UserId>>>,
}

/// A user's turn to stream: he has one at most.
#[derive(Debug)]
pub struct Streaming {
    user: UserId,
    among: Arc<Mutex<HashSet<UserId>>>,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        among(&self.among).remove(&self.user);
    }
}

fn among(users: &Mutex<HashSet<UserId>>) -> MutexGuard<'_, HashSet<UserId>> {
    users.lock().unwrap_or_else(|broken| broken.into_inner())
}

impl Places {
    /// The places; made when first asked for.
    pub fn get(&self, config: &Config) -> Arc<Semaphore> {
        let made = || Arc::new(Semaphore::new(config.capture.workers.max(1)));
        Arc::clone(self.all.get_or_init(made))
    }

    /// Seats of streams.
    pub fn seats(&self, config: &Config) -> Arc<Semaphore> {
        let made = || Arc::new(Semaphore::new(config.capture.workers.saturating_sub(1).max(1)));
        Arc::clone(self.seats.get_or_init(made))
    }

    /// Places that long clips may have: one fewer than there are (at least one).
    fn long(&self, config: &Config) -> Arc<Semaphore> {
        let made = || Arc::new(Semaphore::new(config.capture.workers.saturating_sub(1).max(1)));
        Arc::clone(self.long.get_or_init(made))
    }

    /// Seats of those who wait for a place to stream or to look.
    pub fn waiting(&self) -> Arc<Semaphore> {
        Arc::clone(self.waiting.get_or_init(|| Arc::new(Semaphore::new(WAITING))))
    }

    /// Places of LiveKit's webhooks that were answered and are being applied.
    pub fn intake(&self) -> Arc<Semaphore> {
        Arc::clone(self.intake.get_or_init(|| Arc::new(Semaphore::new(INTAKE))))
    }

    /// Seats of repeated requests that wait for the first one's answer.
    pub fn repeats(&self) -> Arc<Semaphore> {
        Arc::clone(self.repeats.get_or_init(|| Arc::new(Semaphore::new(REPEATS))))
    }

    /// The user's turn to stream.
    ///
    /// # Errors
    /// [`Code::Overloaded`] while he streams already.
    pub fn begin_stream(&self, user: &UserId) -> Result<Streaming> {
        if !among(&self.streaming).insert(user.clone()) {
            return Err(busy("Another stream of yours is still being sent."));
        }
        Ok(Streaming { user: user.clone(), among: Arc::clone(&self.streaming) })
    }

    /// A seat and a place within `longest`, for a stream.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub async fn take_for_stream(
        &self,
        config: &Config,
        longest: Duration,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let _waiting = seat(&self.waiting(), "looks")?;
        let both = async {
            let seat = self.seats(config).acquire_owned().await;
            (seat, self.get(config).acquire_owned().await)
        };
        let (seat, place) = tokio::time::timeout(longest, both)
            .await
            .map_err(|_| busy("Too many videos are being sent at the moment; try again."))?;
        let lost = |error| Error::internal("taking a place", error);
        Ok((seat.map_err(lost)?, place.map_err(lost)?))
    }

    /// A place within `longest`, for somebody who waits for the answer.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub async fn take(&self, config: &Config, longest: Duration) -> Result<OwnedSemaphorePermit> {
        let _waiting = seat(&self.waiting(), "looks")?;
        let taken = tokio::time::timeout(longest, self.get(config).acquire_owned()).await;
        taken
            .map_err(|_| busy("Too many videos are being made at the moment; try again."))?
            .map_err(|error| Error::internal("taking a place", error))
    }
}

/// A job's place: held while it works, let go while it waits for its window.
#[derive(Debug)]
pub struct Place {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    /// Of a long clip: where it has its place among the long ones, too.
    among_long: Option<Arc<Semaphore>>,
    long: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits for one of these.
    ///
    /// # Errors
    /// If there are none any more.
    pub async fn take(all: &Arc<Semaphore>) -> Result<Place> {
        let held = Arc::clone(all).acquire_owned().await;
        let held = held.map_err(|error| Error::internal("taking a place", error))?;
        Ok(Place { all: Arc::clone(all), held: Some(held), among_long: None, long: None })
    }

    /// Somebody else may have it.
    pub fn let_go(&mut self) {
        self.held = None;
        self.long = None;
    }

    /// Whether there is one, now.
    pub fn regain(&mut self) -> bool {
        if self.held.is_some() {
            return true;
        }
        if let Some(among) = &self.among_long {
            self.long = Arc::clone(among).try_acquire_owned().ok();
            if self.long.is_none() {
                return false;
            }
        }
        self.held = Arc::clone(&self.all).try_acquire_owned().ok();
        if self.held.is_none() {
            self.long = None;
        }
        self.held.is_some()
    }
}

/// One of these seats, at once.
///
/// # Errors
/// [`Code::Overloaded`].
pub fn seat(among: &Arc<Semaphore>, queue: &'static str) -> Result<OwnedSemaphorePermit> {
    Arc::clone(among).try_acquire_owned().map_err(|_| {
        metrics::counter!("livekit_replay_refused_total", "queue" => queue).increment(1);
        busy("Too much is waiting at the moment; try again.")
    })
}

/// Somebody found no place.
pub(super) fn busy(detail: &'static str) -> Error {
    Error::new(Code::Overloaded, detail).retry_after(BUSY_FOR)
}

/// When somebody who found no place may try again.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// A job that is ours for now.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The row as it was when leased.
    pub job: Job,
    /// Who we are; new with every lease, so that a lease which ran out here and was taken again here counts as lost.
    pub owner: String,
}

/// Whether somebody waits to be leased.
pub async fn any_due(deps: &Deps) -> Result<bool> {
    job::any_due(deps.db.conn(), deps.clock.now()).await
}

/// Leases up to `count` due jobs, of users in turn.
pub async fn lease(deps: &Deps, count: u64) -> Result<Vec<Leased>> {
    lease_of(deps, count, None).await
}

/// [`lease`], of clips of at most that length.
async fn lease_of(deps: &Deps, count: u64, longest: Option<Duration>) -> Result<Vec<Leased>> {
    let now = deps.clock.now();
    if !job::any_due(deps.db.conn(), now).await? {
        return Ok(Vec::new());
    }
    let owner = format!("{}/{}", deps.replica, uuid::Uuid::now_v7().simple());
    let jobs = job::lease(&deps.db, &owner, count, longest, now, now.plus(LEASE)).await?;
    Ok(jobs.into_iter().map(|job| Leased { job, owner: owner.clone() }).collect())
}

/// Leases a job for a place. Long clips never take all places: while they have theirs, only a short one is taken up.
///
/// # Errors
/// Those of the database.
pub async fn lease_for(deps: &Deps, mut place: Place) -> Result<Option<(Leased, Place)>> {
    let among_long = deps.places.long(&deps.config);
    place.long = Arc::clone(&among_long).try_acquire_owned().ok();
    let longest = place.long.is_none().then_some(SHORT);
    let Some(leased) = lease_of(deps, 1, longest).await?.pop() else { return Ok(None) };
    let found = match &leased.job.clip_id {
        // a lease that is ours is worked off, even if nobody can say how long it is
        Some(id) => clip::find(deps.db.conn(), id).await.ok().flatten(),
        None => None,
    };
    if found.is_some_and(|clip| is_long(&clip)) {
        place.among_long = Some(among_long);
    } else {
        place.long = None;
    }
    Ok(Some((leased, place)))
}

fn is_long(clip: &Clip) -> bool {
    clip.requested_to.since(clip.requested_from) > SHORT
}

/// Makes the leases of a process that died here run out at once. Only where this process is the only one.
pub async fn take_over(deps: &Deps) -> Result<u64> {
    match deps.db.engine() {
        Engine::Sqlite => job::expire_leases(deps.db.conn(), deps.clock.now()).await,
        Engine::Postgres => Ok(0),
    }
}

/// Keeps the lease; false if it is lost.
pub async fn renew(deps: &Deps, leased: &Leased) -> Result<bool> {
    let until = deps.clock.now().plus(LEASE);
    job::renew(deps.db.conn(), &leased.job.id, &leased.owner, until).await
}

/// Says that this attempt begins its work: from here on a death of this process counts. A lost lease counts nothing
/// and ends nothing here; publishing checks it.
pub async fn count_attempt(deps: &Deps, leased: &Leased) -> Result<()> {
    job::count_attempt(deps.db.conn(), &leased.job, &leased.owner).await.map(drop)
}

/// Whether the lease still is ours.
pub async fn is_ours(deps: &Deps, leased: &Leased) -> Result<bool> {
    job::is_ours(deps.db.conn(), &leased.job.id, &leased.owner).await
}

/// Gives the job back because we stop or have no place for it; it is due at once and keeps its attempts.
pub async fn hand_back(deps: &Deps, leased: &Leased) -> Result<()> {
    let now = deps.clock.now();
    job::give_back(deps.db.conn(), &leased.job, &leased.owner, now, Back::Unfinished, now)
        .await
        .map(drop)
}

/// After a failed attempt: another one later, or the end of the clip.
pub async fn failed(deps: &Deps, leased: &Leased, error: &Error) -> Result<()> {
    let job = &leased.job;
    if hindered(deps, leased, error).await? {
        return Ok(());
    }
    let attempts = job.attempts + 1;
    // what ends a process or breaks off a call once need not do so twice
    let may_pass = matches!(error.code(), Code::FfmpegFailed | Code::Internal);
    if (error.is_retryable() || may_pass) && attempts < job.max_attempts {
        let now = deps.clock.now();
        let due = now.plus(back_off(attempts));
        let back = Back::Failed(error.chain());
        let given = job::give_back(deps.db.conn(), job, &leased.owner, due, back, now).await?;
        tracing::warn!(
            job.id = %job.id, attempts, given, error = error.chain(),
            "attempt failed, will be repeated"
        );
        return Ok(());
    }
    give_up(deps, leased, error).await
}

/// What an attempt was hindered by.
struct Hindrance {
    /// Shown with the clip while it waits.
    code: Code,
    /// For people, without secrets.
    detail: &'static str,
    /// For the log.
    reason: String,
}

/// Whether the attempt failed while the machine was at fault: a store that cannot be used or has no room for what was
/// promised, an FFmpeg that does not work, a database that does not let us write. Whatever it said of itself, the clip is not to blame, and what was accepted is
/// made when the machine is well again. The job waits then, and nothing counts.
async fn hindered(deps: &Deps, leased: &Leased, error: &Error) -> Result<bool> {
    let (job, now) = (&leased.job, deps.clock.now());
    let may_be = is_of_the_database(error)
        || matches!(error.code(), Code::StorageUnavailable | Code::FfmpegFailed | Code::Internal);
    if !may_be || now > job.created_at.plus(PATIENCE) {
        return Ok(false);
    }
    let promised = match &job.clip_id {
        Some(id) => clip::find(deps.db.conn(), id).await?.map_or(0, |clip| clip.reserved_bytes),
        None => 0,
    };
    let Some(hindrance) = hindrance(deps, promised.unsigned_abs(), error).await else {
        return Ok(false);
    };
    let Hindrance { code, detail, reason } = hindrance;
    let due = now.plus(TRY_AGAIN);
    let back = Back::Hindered(format!("{reason}; {}", error.chain()));
    let given = job::give_back(deps.db.conn(), job, &leased.owner, due, back, now).await?;
    if let Some(id) = job.clip_id.as_ref().filter(|_| given) {
        // for people to see; the row may be the one that nobody lets us write
        if let Err(error) = say_waits(deps, id, code, detail, now).await {
            tracing::debug!(clip.id = %id, error = error.chain(), "what a clip waits for is not said");
        }
    }
    tracing::warn!(
        job.id = %job.id, given, code = code.as_str(), reason, error = error.chain(),
        "a capture waits until the machine is well again"
    );
    Ok(given)
}

async fn say_waits(
    deps: &Deps,
    id: &ClipId,
    code: Code,
    detail: &str,
    now: Timestamp,
) -> Result<()> {
    let tx = deps.db.begin().await?;
    clip::set_waits_for(&tx, id, code.as_str(), detail, now).await?;
    store::commit(tx).await
}

/// Nothing else that an attempt does is answered so: a lock that somebody holds, a server that goes away.
fn is_of_the_database(error: &Error) -> bool {
    error.code() == Code::Overloaded && error.is_retryable()
}

/// What is wrong with the machine now, if anything is.
async fn hindrance(deps: &Deps, promised: u64, error: &Error) -> Option<Hindrance> {
    if is_of_the_database(error) {
        return Some(Hindrance {
            code: Code::Overloaded,
            detail: "The database is busy; the clip is made when it answers.",
            reason: "the database is busy".to_owned(),
        });
    }
    let (buffer, clips) =
        futures::join!(probe::ask(deps, Which::Buffer), probe::ask(deps, Which::Clips));
    // what is recorded is only read
    let mut trouble = buffer.trouble.filter(|_| !buffer.readable).or(clips.trouble);
    if trouble.is_none() {
        let work_dir = deps.work_dir();
        let made = move || std::fs::create_dir_all(work_dir);
        let made = stores::work(&deps.stores, Which::Clips, made).await;
        trouble = made.err().map(|error| error.chain());
    }
    let small = clips.space.is_some_and(|space| space.free < promised);
    if small || probe::says_full(trouble.as_deref().unwrap_or(&error.chain())) {
        return Some(Hindrance {
            code: Code::InsufficientDisk,
            detail: "The clip store is full; the clip is made when there is room.",
            reason: trouble.unwrap_or_else(|| "no room for the clip".to_owned()),
        });
    }
    if let Some(reason) = trouble {
        return Some(Hindrance {
            code: Code::StorageUnavailable,
            detail: "A store cannot be used at the moment; the clip is made when it is back.",
            reason,
        });
    }
    if error.code() != Code::FfmpegFailed {
        return None;
    }
    let proof = health::prove_ffmpeg(deps).await.err()?;
    Some(Hindrance {
        code: Code::FfmpegFailed,
        detail: "FFmpeg does not work at the moment; the clip is made when it does.",
        reason: proof.chain(),
    })
}

/// 1 s, 4 s, 9 s, …
fn back_off(attempts: i32) -> Duration {
    let attempts = u64::try_from(attempts.clamp(1, 10)).unwrap_or(1);
    Duration::from_secs(attempts * attempts)
}

/// The end of a capture that could not be made: clip `failed`, reservation returned, pin with an end, in one
/// transaction.
async fn give_up(deps: &Deps, leased: &Leased, error: &Error) -> Result<()> {
    let now = deps.clock.now();
    if let Some(id) = &leased.job.clip_id
        && let Some(clip) = clip::find(deps.db.conn(), id).await?
        && kept::bring_back(deps, &clip, Some(leased)).await?
    {
        return Ok(());
    }
    let tx = deps.db.begin().await?;
    if !job::fail(&tx, &leased.job.id, &leased.owner, error.chain(), now).await? {
        return store::rollback(tx).await;
    }
    if let Some(id) = &leased.job.clip_id
        && let Some(clip) = clip::find(&tx, id).await?
    {
        fail_clip(&tx, deps, &clip, error).await?;
    }
    outbox::commit(deps, tx).await?;
    tracing::error!(
        job.id = %leased.job.id, clip.id = leased.job.clip_id.as_ref().map(ClipId::as_str),
        code = error.code().as_str(), error = error.chain(), "capture failed"
    );
    metrics::counter!("livekit_replay_clips_total", "outcome" => error.code().as_str())
        .increment(1);
    deps.wake.clips.notify_waiters();
    Ok(())
}

async fn fail_clip(tx: &Tx, deps: &Deps, clip: &Clip, error: &Error) -> Result<()> {
    let now = deps.clock.now();
    // a cancelled attempt that nobody cancelled is our own fault
    let code = if error.code() == Code::Cancelled { Code::Internal } else { error.code() };
    let gaps = error.fields().get("gaps").map(ToString::to_string);
    if !clip::make_failed(tx, &clip.id, code.as_str(), error.detail(), gaps, now).await? {
        return Ok(());
    }
    crash::point("during-settle");
    quota::settle(tx, &clip.user_id, clip.reserved_bytes, 0).await?;
    outbox::clip(tx, EventKind::ClipFailed, &clip::load(tx, &clip.id).await?, now).await?;
    let kept_until = now.plus(deps.config.capture.failed_keep);
    pin::set_expiry(tx, &clip.id, Some(kept_until)).await?;
    // an earlier attempt may have died between its rename and its commit; under the row's lock nobody publishes;
    // what a trim holds of its source stays for another attempt, until the reaper lets go of it
    if let Err(error) = ClipFiles::of(deps, &clip.user_id, &clip.id)?.remove_made().await {
        tracing::warn!(clip.id = %clip.id, error = error.chain(), "files of a failed clip stay");
    }
    Ok(())
}
