//! Whether the service can do its work: what makes it ready, and the details for an administrator. Every question
//! has a deadline of its own, so one hung part does not hide the others.

use std::time::Duration;

use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

use super::{
    Deps, probe, render,
    stores::{Space, Which},
};
use crate::{
    domain::text_enum::text_enum,
    error::{Error, Result},
    media::ffmpeg::{Installed, Limits},
    store::{self, Engine},
};

const DEADLINE: Duration = Duration::from_secs(3);
/// How old an answer of a store may be.
const RECENT: Duration = Duration::from_secs(2);

text_enum!(
    /// How a part is.
    Status {
        /// Works.
        Ok = "ok",
        /// Does not, and the service goes on without it.
        Degraded = "degraded",
        /// Does not, and the service cannot do without it.
        Fail = "fail",
    }
);

/// How one part was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How it is.
    pub status: Status,
    /// How long it took to answer.
    pub latency: Duration,
    /// What is wrong, without secrets.
    pub trouble: Option<String>,
}

/// A store: how it is, and its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStore {
    /// Whether a small file can be written, read and deleted.
    pub found: Found,
    /// Free and total bytes, where the file system answered.
    pub space: Option<Space>,
}

/// Asks what readiness rests on: the database, its schema, the clip store. LiveKit is not among it: clips are served
/// without it.
pub async fn readiness(deps: &Deps) -> Vec<(&'static str, Found)> {
    let (database, schema, clips) =
        tokio::join!(database(deps), schema(deps), store(deps, Which::Clips));
    vec![("database", database), ("schema", schema), ("clipStore", clips.found)]
}

/// Whether the database answers.
pub async fn database(deps: &Deps) -> Found {
    ask("the database", Status::Fail, deps.db.ping()).await
}

/// Whether the schema is this binary's.
pub async fn schema(deps: &Deps) -> Found {
    ask("the schema", Status::Fail, async {
        let pending = store::schema::pending(&deps.db).await?;
        if pending.is_empty() {
            return Ok(());
        }
        Err(Error::internal("checking the schema", format!("{} changes pending", pending.len())))
    })
    .await
}

/// Whether a store can be used. Many may ask, and each question writes a file: an answer of a moment ago will do.
pub async fn store(deps: &Deps, which: Which) -> FoundStore {
    let recent = deps.clock.now().minus(RECENT);
    let last = deps.stores.get(which).last().filter(|probed| probed.at >= recent);
    let probed = match last {
        Some(probed) => Ok(probed),
        // within its own deadline; a moment longer, so that it is the probe that says what is wrong
        None => timeout(probe::LIMIT + Duration::from_secs(1), probe::ask(deps, which)).await,
    };
    match probed {
        Ok(probed) => FoundStore {
            found: Found {
                status: match (&probed.trouble, probed.readable) {
                    (None, _) => Status::Ok,
                    // full or read-only: what is there is served
                    (Some(_), true) => Status::Degraded,
                    (Some(_), false) => Status::Fail,
                },
                latency: probed.took,
                trouble: probed.trouble,
            },
            space: probed.space,
        },
        Err(_) => {
            let trouble = format!("No answer of the {} store in time.", which.as_str());
            let found = Found { status: Status::Fail, latency: DEADLINE, trouble: Some(trouble) };
            FoundStore { found, space: None }
        }
    }
}

/// Whether LiveKit answers; without it no new session starts, everything else goes on.
pub async fn livekit(deps: &Deps) -> Found {
    ask("LiveKit", Status::Degraded, async {
        deps.livekit.list_active_egress(None).await.map(drop)
    })
    .await
}

/// Whether FFmpeg does what it is given, now: it may vanish, hang, crash or answer rubbish at any time.
///
/// # Errors
/// `ffmpeg_failed`, `cancelled`.
pub async fn prove_ffmpeg(deps: &Deps) -> Result<()> {
    let limits = Limits { deadline: DEADLINE, stall: DEADLINE, cancel: deps.stop.child_token() };
    render::ffmpeg().prove(&limits).await
}

/// FFmpeg's version, whether it can do what we need (asked once per process that found it) and whether it works now.
pub async fn ffmpeg(deps: &Deps) -> (Found, Option<String>) {
    static INSTALLED: OnceCell<Installed> = OnceCell::const_new();
    let begun = Instant::now();
    let limits = Limits { deadline: DEADLINE, stall: DEADLINE, cancel: deps.stop.child_token() };
    let ffmpeg = render::ffmpeg();
    let installed = async {
        prove_ffmpeg(deps).await?;
        INSTALLED.get_or_try_init(|| ffmpeg.check(&limits)).await
    };
    let installed = installed.await;
    let latency = begun.elapsed();
    let fail = |trouble: String| Found { status: Status::Fail, latency, trouble: Some(trouble) };
    match installed {
        Ok(Installed { version, missing }) if missing.is_empty() => {
            (Found { status: Status::Ok, latency, trouble: None }, Some(version.clone()))
        }
        Ok(Installed { version, missing }) => {
            (fail(format!("FFmpeg lacks: {}.", missing.join(", "))), Some(version.clone()))
        }
        Err(error) => {
            tracing::debug!(error = error.chain(), "FFmpeg does not work");
            (
                fail("FFmpeg does not work.".to_owned()),
                INSTALLED.get().map(|was| was.version.clone()),
            )
        }
    }
}

/// How many jobs wait or run.
pub async fn open_jobs(deps: &Deps) -> Result<u64> {
    store::job::count_open(deps.db.conn()).await
}

/// The database's engine, and its connections open and idle.
pub fn pool(deps: &Deps) -> (&'static str, u32, usize) {
    let engine = match deps.db.engine() {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgres",
    };
    let (open, idle) = deps.db.pool();
    (engine, open, idle)
}

async fn ask(what: &str, otherwise: Status, question: impl Future<Output = Result<()>>) -> Found {
    let begun = Instant::now();
    let answer = timeout(DEADLINE, question).await;
    let latency = begun.elapsed();
    let trouble = match answer {
        Ok(Ok(())) => return Found { status: Status::Ok, latency, trouble: None },
        Ok(Err(error)) => {
            tracing::debug!(error = error.chain(), "{what} does not answer well");
            format!("An answer of {what} was an error.")
        }
        Err(_) => format!("No answer of {what} in time."),
    };
    Found { status: otherwise, latency, trouble: Some(trouble) }
}
