//! The buffer and the clip store of a campaign, behind mounts whose calls can be held or refused.

use std::path::{Path, PathBuf};

use crate::{
    faults::Fault,
    faulty_store::{FaultyStore, Mode},
};

pub struct Stores {
    buffer: FaultyStore,
    clips: FaultyStore,
    broken: std::sync::Mutex<Option<Fault>>,
}

impl Stores {
    /// None where nothing can be mounted; that is said where it is seen.
    pub fn mount(dir: &Path) -> Option<Stores> {
        let mount =
            |name: &str| FaultyStore::mount(&dir.join(format!("{name}-real")), &dir.join(name));
        let (buffer, clips) = (mount("buffer")?, mount("clips")?);
        Some(Stores { buffer, clips, broken: std::sync::Mutex::default() })
    }

    fn of(&self, fault: Fault) -> &FaultyStore {
        if fault.breaks_buffer() { &self.buffer } else { &self.clips }
    }

    pub fn break_by(&self, fault: Fault) {
        let store = self.of(fault);
        match fault {
            Fault::BufferFull | Fault::ClipsFull => store.set(Mode::FULL),
            Fault::BufferReadOnly | Fault::ClipsReadOnly => store.set(Mode::ReadOnly),
            Fault::BufferHung | Fault::ClipsHung => store.set(Mode::Block),
            _ => store.vanish(),
        }
        *self.broken.lock().expect("whole") = Some(fault);
    }

    pub fn mend(&self) {
        let Some(fault) = self.broken.lock().expect("whole").take() else { return };
        let store = self.of(fault);
        store.set(Mode::Pass);
        store.come_back();
    }

    /// Calls that were refused or held so far.
    pub fn hurt(&self) -> u64 {
        self.buffer.hurt() + self.clips.hurt()
    }

    /// What a power cut could still take of files of the clip store, by their paths in it.
    pub fn at_risk(&self, files: &[PathBuf]) -> Vec<String> {
        let risk =
            |file: &PathBuf| Some(format!("{}: {}", file.display(), self.clips.at_risk(file)?));
        files.iter().filter_map(risk).collect()
    }
}
