//! Builds every real part, opens the doors, and stops it all in order: take no more, finish or hand back, close the
//! pool. [`start`] is also how tests and the demo run a whole service inside their own process.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::token::Verifier,
    clock::SharedClock,
    config::Config,
    domain::id::InstanceId,
    flow::{self, Deps},
    http::{self, AppState},
    jobs,
    livekit::{client::Client, webhook::Receiver},
    schedule,
    store::{self, Db, schema, setting},
    telemetry,
};

pub mod backup;
mod connections;
pub mod control;
mod failure;
pub mod lock;
pub mod places;

pub use failure::Failure;

/// Whether a database that is not there is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// Made, and brought up to this program's schema.
    Make,
    /// Must be there with this program's schema.
    Find,
}

/// A running service.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What its flows reach.
    pub deps: Deps,
    doors: TaskTracker,
    broken: CancellationToken,
    /// The last thing to let go of.
    locks: lock::Locks,
}

/// Opens the database and builds what flows reach; starts nothing.
///
/// # Errors
/// [`Failure::Failed`] naming the database that is not there or not of this program's schema.
pub async fn build(
    config: Config,
    clock: SharedClock,
    database: Database,
) -> Result<Deps, Failure> {
    let db = open_database(&config, database).await?;
    let fresh_id = hex::encode(rand::random::<[u8; 4]>());
    let instance = setting::load_or_make(db.conn(), setting::INSTANCE_ID, fresh_id).await?;
    flow::upkeep::born_at(db.conn(), clock.now()).await?;
    let fresh = hex::encode(rand::random::<[u8; 32]>());
    let kept = setting::load_or_make(db.conn(), setting::LINK_SECRET, fresh).await?;
    let link_key: Arc<[u8]> = match &config.server.link_secret {
        // with what the database keeps: a copy that is put back voids links, whoever chose the secret
        Some(secret) => blake3::derive_key(
            "livekit-replay signed links",
            format!("{kept}\n{}", secret.expose_secret()).as_bytes(),
        )
        .as_slice()
        .into(),
        None => kept.into_bytes().into(),
    };
    let deps = Deps {
        livekit: Arc::new(Client::new(&config.livekit)),
        config: Arc::new(config),
        clock,
        db,
        instance: InstanceId::new(instance),
        replica: uuid::Uuid::now_v7().to_string(),
        link_key,
        policy: Arc::default(),
        wake: Arc::default(),
        stores: Arc::default(),
        places: Arc::default(),
        filmstrips: Arc::default(),
        posters: Arc::default(),
        presence: Arc::default(),
        shares_seen: Arc::default(),
        walks: Arc::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    flow::authorize::seed_default_rules(&deps).await?;
    Ok(deps)
}

/// Opens the configured database.
///
/// # Errors
/// As [`build`].
pub async fn open_database(config: &Config, database: Database) -> Result<Db, Failure> {
    if database == Database::Find
        && let Some(path) = lock::sqlite_file(config)
        && !path.is_file()
    {
        return Err(Failure::Failed(format!(
            "there is no database at {}; `livekit-replay serve` or `livekit-replay db migrate` makes one",
            path.display()
        )));
    }
    let url = config.database.url.expose_secret();
    let how = store::Connect {
        url,
        max_connections: config.database.max_connections,
        create: database == Database::Make,
    };
    let db = Db::connect(how).await?;
    if database == Database::Make {
        schema::migrate_up(url, &db).await?;
    } else {
        let pending = schema::pending(&db).await?;
        if !pending.is_empty() {
            return Err(Failure::Failed(format!(
                "the database lacks {} of this program's schema; `livekit-replay db migrate` adds it",
                pending.join(", ")
            )));
        }
    }
    Ok(db)
}

/// What of the schema is missing; `None`: there is no database at all.
///
/// # Errors
/// [`Failure::Failed`] when the database does not answer.
pub async fn missing_schema(config: &Config) -> Result<Option<Vec<String>>, Failure> {
    if lock::sqlite_file(config).is_some_and(|path| !path.is_file()) {
        return Ok(None);
    }
    let url = config.database.url.expose_secret();
    let db = Db::connect(store::Connect { url, max_connections: 1, create: false }).await?;
    let missing = schema::pending(&db).await?;
    db.close().await?;
    Ok(Some(missing))
}

/// What the HTTP door and the control socket serve.
///
/// # Errors
/// [`Failure::Setup`] when the tokens' settings cannot be used.
fn door_state(deps: &Deps) -> Result<AppState, Failure> {
    let verifier = Verifier::new(&deps.config.auth);
    let verifier = verifier.map_err(|error| Failure::Setup(error.detail().to_owned()))?;
    Ok(AppState { verifier: Arc::new(verifier), ..operators_state(deps) })
}

/// What a command serves itself when no service runs: it knows who asks, and needs no settings of tokens.
pub fn operators_state(deps: &Deps) -> AppState {
    AppState {
        deps: deps.clone(),
        webhooks: Arc::new(Receiver::new(&deps.config.livekit)),
        verifier: Arc::new(Verifier::without_keys()),
        maintenance: Arc::new(flow::upkeep::Jobs),
        figures: telemetry::figures(),
    }
}

/// Starts the whole service on a listener that is open already.
///
/// # Errors
/// [`Failure::Setup`] when places, programs or stores are not fit; [`Failure::Failed`] when another service runs here.
pub async fn start(
    config: Config,
    clock: SharedClock,
    listener: TcpListener,
) -> Result<Running, Failure> {
    places::make_data_dir(&config)?;
    let locks = lock::acquire(&config).await?;
    places::check_ffmpeg().await?;
    let deps = build(config, clock, Database::Make).await?;
    let known = some_videos(&deps).await?;
    places::prepare_stores(&deps.config, &deps.instance, known).await?;
    let work_dir = deps.work_dir();
    tokio::fs::create_dir_all(&work_dir).await.map_err(|error| {
        Failure::Setup(format!("{} cannot be made: {error}", work_dir.display()))
    })?;
    take_over(&deps).await?;
    let addr = listener
        .local_addr()
        .map_err(|error| Failure::Failed(format!("asking for our own address: {error}")))?;

    let state = door_state(&deps)?;
    let verifier = Arc::clone(&state.verifier);
    let router = http::router(state);
    let socket = control::bind(&deps.config)?;
    let scheduled = schedule::start(&deps).await?;
    let limits = connections::Limits::of_this_process();
    let running =
        Running { addr, deps, doors: TaskTracker::new(), broken: CancellationToken::new(), locks };
    let deps = || running.deps.clone();
    running.open("control", control::serve(socket, router.clone(), deps()));
    running.open("supervisor", flow::supervise::run(deps()));
    running.open("jobs", jobs::run(deps()));
    running.open("index", flow::index::run(deps()));
    running.open("events", flow::events::run(deps()));
    running.open("webhooks", flow::events::webhooks::run(deps()));
    running.open("schedule", keep_schedule(scheduled, deps()));
    running.open("figures", keep_figures(deps()));
    running.open("keys", keep_keys(verifier, deps()));
    running.open("http", connections::serve(listener, router, limits, deps().stop));
    tracing::info!(address = %addr, instance = %running.deps.instance, replica = running.deps.replica, "ready");
    Ok(running)
}

/// Enough that a store which holds none of them is another, or none.
const SOME: u64 = 32;

/// Where the newest ready clips have their videos.
async fn some_videos(deps: &Deps) -> Result<Vec<PathBuf>, Failure> {
    let clips = store::clip::list_newest_ready(deps.db.conn(), SOME).await?;
    let videos = clips.iter().map(|clip| {
        let files = flow::clip_files::ClipFiles::of(deps, &clip.user_id, &clip.id)?;
        Ok(files.video)
    });
    videos.collect()
}

/// The schedule runs by itself; at the end its runs are awaited.
async fn keep_schedule(scheduled: schedule::Handle, deps: Deps) {
    deps.stop.cancelled().await;
    scheduled.stop().await;
}

async fn keep_keys(verifier: Arc<Verifier>, deps: Deps) {
    verifier.keep_fresh(Arc::clone(&deps.clock), deps.stop.clone()).await;
}

/// What a dead predecessor left is settled before any door opens. Only the embedded engine has a single process, so
/// only there everybody else is known to be dead; replicas' leases and deadlines run out by themselves.
async fn take_over(deps: &Deps) -> Result<(), Failure> {
    if deps.db.engine() == store::Engine::Sqlite {
        let now = deps.clock.now();
        let signs_until = now.plus(deps.config.buffer.no_segment);
        let expired = store::epoch::expire_unanswered(deps.db.conn(), now, signs_until).await?;
        if expired > 0 {
            tracing::info!(starts = expired, "giving up what the process before had begun");
        }
        // repeats of what it was doing need not wait until it counts as dead
        store::idempotency::release_open(deps.db.conn()).await?;
        // an FFmpeg that outlived its service may still write there; the sweep comes by again
        if let Err(error) = flow::sweep::run_at_start(deps).await {
            tracing::warn!(error = error.chain(), "work files of the process before stay for now");
        }
    }
    let deps = deps.clone();
    deps.tasks.clone().spawn(async move {
        let stop = deps.stop.clone();
        // both are repeated by the schedule, and cut short without harm
        stop.run_until_cancelled(look_around(&deps)).await;
    });
    Ok(())
}

/// An egress that nobody wants is stopped, and a deletion that was interrupted is finished, soon after a start, not
/// only at the next tick that does it.
async fn look_around(deps: &Deps) {
    if let Err(error) = flow::reconcile::run(deps).await {
        tracing::warn!(error = error.chain(), "could not compare with LiveKit at the start");
    }
    if let Err(error) = flow::reap::run(deps, true, false).await {
        tracing::warn!(error = error.chain(), "could not look through the stores at the start");
    }
}

/// Lets the recorder fold what it gathered, so that its memory stays bounded when nobody asks for figures.
async fn keep_figures(deps: Deps) {
    while !deps.stop.is_cancelled() {
        if let Some(figures) = telemetry::figures() {
            figures.run_upkeep();
        }
        tokio::select! {
            () = deps.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

impl Running {
    /// Runs a door. One that ends before it is told to takes the service down: half a service is worse than none.
    fn open(&self, name: &'static str, door: impl Future<Output = ()> + Send + 'static) {
        let (stop, broken) = (self.deps.stop.clone(), self.broken.clone());
        self.doors.spawn(async move {
            let outcome = tokio::spawn(door).await;
            if !stop.is_cancelled() {
                let error = outcome.err().map(|panic| panic.to_string());
                tracing::error!(door = name, error, "a door closed by itself; stopping");
                broken.cancel();
            } else {
                tracing::debug!(door = name, "closed");
            }
        });
    }

    /// Ends when a door closed by itself.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Where the service is reached: `http://127.0.0.1:…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops: no new requests, jobs handed back, loops ended, all of it awaited within `server.shutdown_seconds`;
    /// then the pool is closed and the locks go.
    ///
    /// # Errors
    /// [`Failure::Failed`] when work was still running at the deadline (its leases run out by themselves).
    pub async fn stop(self) -> Result<(), Failure> {
        let Running { deps, doors, locks, .. } = self;
        tracing::info!("stopping");
        deps.stop.cancel();
        deps.wake.jobs.notify_waiters();
        deps.wake.supervisor.notify_waiters();
        deps.wake.clips.notify_waiters();
        doors.close();
        let limit = deps.config.server.shutdown;
        let ended = tokio::time::timeout(limit, async {
            doors.wait().await;
            // requests and doors are over: nobody adds tasks any more
            deps.tasks.close();
            deps.tasks.wait().await;
        })
        .await;
        control::remove(&deps.config);
        let left = doors.len() + deps.tasks.len();
        let closed = tokio::time::timeout(Duration::from_secs(5), deps.db.close()).await;
        drop(locks);
        match (ended, closed) {
            (Err(_), _) => Err(Failure::Failed(format!(
                "{left} tasks were still running after {} s",
                limit.as_secs()
            ))),
            (Ok(()), Ok(outcome)) => {
                tracing::info!("stopped");
                outcome.map_err(Failure::from)
            }
            (Ok(()), Err(_)) => {
                Err(Failure::Failed("the database did not close in 5 s".to_owned()))
            }
        }
    }
}
