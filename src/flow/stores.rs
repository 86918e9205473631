//! The two stores as this process finds them: the way in, which no hung mount can block, and whether they answer.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::Config,
    domain::{
        forecast::{Forecast, Samples, Watermark},
        time::Timestamp,
    },
    error::{Code, Error, Result},
    flow::Deps,
    media::files::{Found, Gate, Trouble, read_plain},
};

/// How long one piece of ordinary file work may take.
pub const FILE_LIMIT: Duration = Duration::from_secs(10);

/// Both stores.
#[derive(Debug, Default)]
pub struct Stores {
    /// Segments.
    pub buffer: Store,
    /// Clips.
    pub clips: Store,
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Segments.
    Buffer,
    /// Clips.
    Clips,
}

impl Which {
    /// The name in health answers and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Which::Buffer => "buffer",
            Which::Clips => "clips",
        }
    }
    /// Its root as this service sees it.
    pub fn root(self, config: &Config) -> PathBuf {
        match self {
            Which::Buffer => config.storage.buffer.clone(),
            Which::Clips => config.storage.clips.clone(),
        }
    }
}

/// One store.
#[derive(Debug, Default)]
pub struct Store {
    /// The way in.
    pub gate: Gate,
    last: Mutex<Option<Probed>>,
    measured: Mutex<Samples>,
}

/// How a store was last found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it was asked, our clock.
    pub at: Timestamp,
    /// How long it took to write, read and delete a small file.
    pub took: Duration,
    /// Why it cannot be used as a whole; `None` = it can.
    pub trouble: Option<String>,
    /// Whether it can be read at least: one that is full or read-only can.
    pub readable: bool,
    /// Free and total bytes of its file system, where it answered.
    pub space: Option<Space>,
}

/// Room on a file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Space {
    /// What we may still write.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

impl Space {
    /// Used part in percent, as `df` counts it: rounded up.
    pub fn used_percent(&self) -> u8 {
        let used = self.total.saturating_sub(self.free);
        let percent = (u128::from(used) * 100).div_ceil(u128::from(self.total.max(1)));
        u8::try_from(percent).unwrap_or(100)
    }

    /// How full it is by the settings.
    pub fn watermark(&self, config: &Config) -> Watermark {
        let storage = &config.storage;
        Watermark::of(self.used_percent(), storage.high_percent, storage.critical_percent)
    }
}

impl Stores {
    /// The one of that name.
    pub fn get(&self, which: Which) -> &Store {
        match which {
            Which::Buffer => &self.buffer,
            Which::Clips => &self.clips,
        }
    }
}

impl Store {
    /// How it was last found; `None` before the first probe.
    pub fn last(&self) -> Option<Probed> {
        self.last.lock().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    /// The code of what was wrong with it when it was last asked.
    pub fn trouble_code(&self) -> Option<Code> {
        let trouble = self.last()?.trouble?;
        Some(match super::probe::says_full(&trouble) {
            true => Code::InsufficientDisk,
            false => Code::StorageUnavailable,
        })
    }

    /// How long it lasts, by what was measured in this process.
    pub fn forecast(&self, reserve: u64) -> Option<Forecast> {
        self.measured.lock().unwrap_or_else(|broken| broken.into_inner()).forecast(reserve)
    }

    /// Keeps how it was found.
    pub fn keep(&self, probed: Probed) {
        if let Some(space) = probed.space {
            static BEGAN: OnceLock<Instant> = OnceLock::new();
            let at = BEGAN.get_or_init(Instant::now).elapsed();
            let mut measured = self.measured.lock().unwrap_or_else(|broken| broken.into_inner());
            measured.take(at, space.free);
        }
        *self.last.lock().unwrap_or_else(|broken| broken.into_inner()) = Some(probed);
    }
}

/// A store that cannot be used now; the cause goes to the log.
pub fn unavailable(
    which: Which,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let detail = format!("The {} store cannot be used at the moment.", which.as_str());
    Error::new(Code::StorageUnavailable, detail)
        .retry_after(Duration::from_secs(15))
        .retryable()
        .because(cause)
}

/// Runs blocking file work in a store under the ordinary deadline.
///
/// # Errors
/// [`Code::StorageUnavailable`] when the store hangs or fails.
pub async fn work<T: Send + 'static>(
    stores: &Stores,
    which: Which,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let answer = stores.get(which).gate.run(FILE_LIMIT, work).await;
    answer.map_err(|trouble: Trouble| unavailable(which, trouble))
}

/// The absolute path of something of ours in the buffer; refuses what would leave it.
///
/// # Errors
/// [`Code::Internal`]: rows hold nothing but paths we made.
pub fn in_buffer(config: &Config, relative: &str) -> Result<PathBuf> {
    if crate::media::files::stays_inside(relative) {
        Ok(config.storage.buffer.join(Path::new(relative)))
    } else {
        Err(Error::internal("joining a path of the buffer", format!("{relative:?} leaves it")))
    }
}

/// Room on the file system that holds `path`. Blocking; called behind a gate.
pub fn space_of(path: &Path) -> std::io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// Room in a store, asked now through its gate.
///
/// # Errors
/// [`Code::StorageUnavailable`].
pub async fn space(deps: &Deps, which: Which) -> Result<Space> {
    let root = which.root(&deps.config);
    work(&deps.stores, which, move || space_of(&root)).await
}

/// The file in each store's root that says whose it is.
pub const MARKER: &str = ".livekit-replay.json";

/// Asks the store itself whether it is there and ours: a mount that vanished leaves an empty directory in its place,
/// and whoever deletes must not take that for "everything is gone". A buffer may be shared with other instances, whose
/// directories have names of their own: its marker is of whoever came first.
///
/// # Errors
/// [`Code::StorageUnavailable`].
pub async fn demand_ours(deps: &Deps, which: Which) -> Result<()> {
    let marker = which.root(&deps.config).join(MARKER);
    let found = work(&deps.stores, which, move || read_plain(&marker, 4096)).await?;
    let Found::Bytes(bytes) = found else {
        return Err(unavailable(which, "its marker is not there: nothing is mounted"));
    };
    let marker: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| unavailable(which, error))?;
    if which == Which::Buffer || marker["instanceId"] == deps.instance.as_str() {
        Ok(())
    } else {
        Err(unavailable(which, "its marker names another instance"))
    }
}
