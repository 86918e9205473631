//! The buffer and the clip store of a campaign.

use std::path::Path;

use crate::faults::Fault;

/// Both, behind mounts whose calls can be held or refused.
pub struct Stores {}

impl Stores {
    /// None where nothing can be mounted.
    pub fn mount(_dir: &Path) -> Option<Stores> {
        None
    }

    pub fn break_by(&self, _fault: Fault) {}

    pub fn mend(&self) {}

    /// Calls that were refused or held so far.
    pub fn hurt(&self) -> u64 {
        0
    }
}
