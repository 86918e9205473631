//! Work files.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::files::{beside, remove_aside};
use crate::error::{Error, Result};

/// For a look at one.
const LIMIT: Duration = Duration::from_secs(10);

/// A work file that is removed unless it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    path: Option<PathBuf>,
    name: PathBuf,
}

impl Draft {
    /// A name that nothing has yet; the file is made by whoever writes it.
    pub fn new(dir: &Path, ending: &str) -> Draft {
        let name = dir.join(format!("{}.{ending}", uuid::Uuid::new_v4().simple()));
        Draft { path: Some(name.clone()), name }
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.name
    }

    /// In bytes.
    pub async fn size(&self) -> Result<u64> {
        let name = self.name.clone();
        let size = beside(LIMIT, move || Ok(std::fs::metadata(name)?.len())).await;
        size.map_err(|error| Error::internal("measuring a clip", error))
    }

    /// The file is somebody else's from now on.
    pub fn keep(mut self) -> PathBuf {
        self.path = None;
        self.name.clone()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            remove_aside(&path);
        }
    }
}
