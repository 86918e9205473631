//! One verb per file: the only room that orders steps and opens transactions.
//!
//! Three manners of every flow. All that can say no is asked before the first effect. The first effect is a
//! transaction. A limit that must be exact is decided by the database. Every door (HTTP, webhook, job, schedule,
//! command) reaches the same verb.

pub mod index;
pub mod stores;

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
    /// Wakes the loops that would otherwise look only now and then.
    pub wake: Arc<Wake>,
    /// The way to both stores, and how they were last found.
    pub stores: Arc<stores::Stores>,
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
}

impl Deps {
    /// Work files: one directory of ours on the clip store's file system, so that a rename publishes.
    pub fn work_dir(&self) -> PathBuf {
        self.config.storage.clips.join(".work")
    }
}
