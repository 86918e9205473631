//! Files of the stores that are sent to somebody: opened and read piece by piece through their store's gate, so that a
//! store that hangs breaks the answer off at a deadline instead of holding a thread for every reader.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Deps,
    stores::{self, FILE_LIMIT, Which},
};
use crate::{
    error::{Code, Error, Result},
    media::files::{Gate, Opened, open_plain},
};

/// Until the first byte, for somebody who waits for an answer.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// An open file.
#[derive(Debug, Clone)]
pub struct Readable {
    which: Which,
    gate: Gate,
    file: Arc<File>,
    size: u64,
}

/// Opens a plain file of a store.
///
/// # Errors
/// `file_missing` if it is not there, `storage_unavailable` if that cannot be said.
pub async fn open(deps: &Deps, which: Which, path: PathBuf) -> Result<Readable> {
    let opened = deps.stores.get(which).gate.run(OPEN_LIMIT, move || open_plain(&path)).await;
    match opened.map_err(|trouble| stores::unavailable(which, trouble))? {
        Opened::File(file, size) => Ok(Readable::new(deps, which, file, size)),
        Opened::Absent | Opened::NotOurs => {
            // where nothing is mounted every file seems to be gone
            stores::demand_ours(deps, which).await?;
            Err(Error::new(Code::FileMissing, "The file of this clip is gone."))
        }
    }
}

impl Readable {
    /// A file that is open already.
    pub fn new(deps: &Deps, which: Which, file: File, size: u64) -> Readable {
        Readable { which, gate: deps.stores.get(which).gate.clone(), file: Arc::new(file), size }
    }

    /// Bytes of it when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Up to `length` bytes from `at` on; none at its end.
    ///
    /// # Errors
    /// `storage_unavailable`.
    pub async fn piece(&self, at: u64, length: usize) -> Result<Bytes> {
        let file = Arc::clone(&self.file);
        let read = move || {
            let mut piece = vec![0; length];
            let count = file.read_at(&mut piece, at)?;
            piece.truncate(count);
            Ok(Bytes::from(piece))
        };
        let piece = self.gate.run(FILE_LIMIT, read).await;
        piece.map_err(|trouble| stores::unavailable(self.which, trouble))
    }
}
