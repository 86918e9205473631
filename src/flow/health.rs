//! Whether the service can do its work: what makes it ready, and the details for an administrator. Every question
//! has a deadline of its own, so one hung part does not hide the others.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

use super::{
    Deps, disk,
    stores::{self, Which},
};
use crate::{
    domain::text_enum::text_enum,
    error::{Error, Result},
    media::ffmpeg::{Ffmpeg, Installed, Limits},
    store::{self, Engine},
};

const DEADLINE: Duration = Duration::from_secs(3);

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
    pub space: Option<disk::Space>,
}

/// Asks what readiness rests on: the database, its schema, the clip store. LiveKit is not among it: clips are served
/// without it.
pub async fn readiness(deps: &Deps) -> Vec<(&'static str, Found)> {
    let (database, schema, clips) =
        tokio::join!(database(deps), schema(deps), probe(Which::Clips, deps.work_dir(), deps));
    vec![("database", database), ("schema", schema), ("clipStore", clips)]
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

/// The clip store.
pub async fn clip_store(deps: &Deps) -> FoundStore {
    let found = probe(Which::Clips, deps.work_dir(), deps).await;
    FoundStore { found, space: disk::space(&deps.config.storage.clips).await.ok() }
}

/// The buffer store.
pub async fn buffer_store(deps: &Deps) -> FoundStore {
    let root = deps.config.storage.buffer.clone();
    let found = probe(Which::Buffer, root, deps).await;
    FoundStore { found, space: disk::space(&deps.config.storage.buffer).await.ok() }
}

/// Whether LiveKit answers; without it no new session starts, everything else goes on.
pub async fn livekit(deps: &Deps) -> Found {
    ask("LiveKit", Status::Degraded, async {
        deps.livekit.list_active_egress(None).await.map(drop)
    })
    .await
}

/// FFmpeg's version and whether it can do what we need, asked once per process that found it.
pub async fn ffmpeg(deps: &Deps) -> (Found, Option<String>) {
    static INSTALLED: OnceCell<Installed> = OnceCell::const_new();
    let begun = Instant::now();
    let limits = Limits { deadline: DEADLINE, stall: DEADLINE, cancel: deps.stop.child_token() };
    let ffmpeg = Ffmpeg::new("ffmpeg");
    let installed = INSTALLED.get_or_try_init(|| ffmpeg.check(&limits)).await;
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
            tracing::debug!(error = error.chain(), "FFmpeg does not answer");
            (fail("FFmpeg does not answer.".to_owned()), None)
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

/// Writes, reads and deletes a small file, through the store's own gate: a mount that hangs keeps the gate's threads
/// and no more.
async fn probe(which: Which, directory: PathBuf, deps: &Deps) -> Found {
    let name = format!(".probe-{}", deps.replica);
    let work = move || write_read_delete(&directory, &name);
    ask("a store", Status::Fail, stores::work(&deps.stores, which, work)).await
}

fn write_read_delete(directory: &Path, name: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(name);
    std::fs::write(&path, b"probe")?;
    let read = std::fs::read(&path);
    std::fs::remove_file(&path)?;
    if read? == b"probe" { Ok(()) } else { Err(std::io::Error::other("other bytes were read")) }
}
