//! One verb per file: the only room that orders steps and opens transactions.
//!
//! Three manners of every flow. All that can say no is asked before the first effect. The first effect is a
//! transaction. A limit that must be exact is decided by the database. Every door (HTTP, webhook, job, schedule,
//! command) reaches the same verb.

pub mod admin;
pub mod audit;
pub mod audit_log;
pub mod authorize;
pub mod auto_start;
pub mod capture;
pub mod cleanup;
pub mod clip_files;
pub mod crash;
pub mod disk;
pub mod egress_fact;
pub mod epoch;
pub mod erase;
pub mod estimate;
pub mod events;
pub mod export;
pub mod figures;
pub mod filmstrip;
pub mod health;
pub mod idempotency;
pub mod index;
mod kept;
pub mod library;
pub mod links;
pub mod maintenance;
pub mod material;
mod outbox;
pub mod own;
pub mod place;
pub mod poster;
pub mod preview;
pub mod probe;
mod queue;
pub mod rate_limit;
pub mod reading;
pub mod reap;
pub mod reconcile;
pub mod render;
pub mod room;
pub mod shares;
pub mod show;
pub mod start;
pub mod stop;
pub mod stores;
pub mod stream;
pub mod supervise;
pub mod sweep;
pub mod trim;
pub mod turns;
pub mod upkeep;
pub mod usage;
pub mod verify;
pub mod webhook;
pub mod work;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::SharedClock, config::Config, domain::id::InstanceId, livekit::LiveKit, store::Db,
};

/// What a flow may reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The settings.
    pub config: Arc<Config>,
    /// The present moment.
    pub clock: SharedClock,
    /// Rows.
    pub db: Db,
    /// LiveKit.
    pub livekit: Arc<dyn LiveKit>,
    /// Marks what is ours in the stores.
    pub instance: InstanceId,
    /// This process among replicas; new at every start. Owns leases.
    pub replica: String,
    /// Key of signed links.
    pub link_key: Arc<[u8]>,
    /// The rules of access as last read; made with `Default`.
    pub policy: Arc<authorize::PolicyCache>,
    /// Wakes the loops that would otherwise look only now and then.
    pub wake: Arc<Wake>,
    /// The way to both stores, and how they were last found.
    pub stores: Arc<stores::Stores>,
    /// Places for FFmpeg.
    pub places: Arc<work::Places>,
    /// Small pictures made a while ago.
    pub filmstrips: Arc<filmstrip::Cache>,
    /// Posters that are being made.
    pub posters: Arc<turns::Turns>,
    /// Who is in which room, remembered for a few seconds.
    pub presence: Arc<room::Presence>,
    /// Shares about which it was decided whether they start by themselves.
    pub shares_seen: Arc<auto_start::Seen>,
    /// Walks through the clip store.
    pub walks: Arc<reap::Walks>,
    /// Work that outlives a request; awaited at shutdown.
    pub tasks: TaskTracker,
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
}

/// Bells of the loops.
#[derive(Debug, Default)]
pub struct Wake {
    /// A job was enqueued, or segments arrived that one waits for.
    pub jobs: Notify,
    /// A fact about an egress or a share came in.
    pub supervisor: Notify,
    /// A clip left `processing` (callers waiting for one look again).
    pub clips: Notify,
    /// Something was written down that is to be told, and who listens in this process.
    pub events: events::Hub,
}

impl Deps {
    /// Work files: one directory of ours on the clip store's file system, so that a rename publishes.
    pub fn work_dir(&self) -> PathBuf {
        self.config.storage.clips.join(".work")
    }

    /// A directory of the buffer as egress sees it.
    pub fn egress_directory(&self, path: &str) -> String {
        let root = self.config.livekit.egress_output_path.to_string_lossy();
        format!("{}/{path}", root.trim_end_matches('/'))
    }

    /// The path relative to the buffer root of a directory as egress names it, if it is under our instance.
    pub fn own_path<'a>(&self, directory: &'a str) -> Option<&'a str> {
        let root = self.config.livekit.egress_output_path.to_string_lossy();
        // with its separator: `/out/ab` is not a prefix of `/out/abc`
        let root = format!("{}/", root.trim_end_matches('/'));
        let directory = directory.trim_start_matches('/');
        let path = directory.strip_prefix(root.trim_start_matches('/'))?;
        let rest = path.strip_prefix(self.instance.as_str())?.strip_prefix('/')?;
        // a path that climbs out again is none we made, whatever it begins with
        let plain = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
        plain.then_some(path)
    }

    /// Runs work to its end even when the caller hangs up: a dropped request must not leave half a flow behind.
    ///
    /// # Errors
    /// [`crate::error::Code::Draining`] when the service is shutting down.
    pub async fn to_the_end<T, F>(&self, work: F) -> crate::error::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = crate::error::Result<T>> + Send + 'static,
    {
        use tracing::Instrument;
        if self.stop.is_cancelled() {
            return Err(crate::error::Error::new(
                crate::error::Code::Draining,
                "The service is shutting down.",
            ));
        }
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(panic) => Err(crate::error::Error::internal("running a flow", panic)),
        }
    }
}
