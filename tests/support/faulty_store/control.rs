//! What the calls of a faulty store meet, and what was seen of them.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard},
};

use fuser::Errno;

/// What every call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The real directory.
    #[default]
    Pass,
    /// No call returns until the mode changes.
    Block,
    /// No room: that many bytes may still be written (in all files together, the last write may be cut short), and that
    /// many names be made (files, directories, links, renames).
    Full { bytes: u64, names: u64 },
    /// Reading works, changing is refused with `EROFS`.
    ReadOnly,
    /// Every call is refused with `EIO`.
    Broken,
}

impl Mode {
    /// Not a byte and not a name more.
    pub const FULL: Mode = Mode::Full { bytes: 0, names: 0 };
}

/// What a call is about, as far as a mode makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Changes nothing.
    Look,
    /// Changes, but needs no room: removal, modes, times, sync.
    Change,
    /// Makes a name.
    Name,
    /// Writes that many bytes; how many may be is the answer.
    Write(u64),
}

/// What was seen of calls that succeeded. Paths are relative to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A file's or directory's bytes were synced.
    Synced { path: PathBuf, inode: u64 },
    /// A file or directory was moved.
    Renamed { from: PathBuf, to: PathBuf },
    /// A name was made: a new file or directory, or a further name of a file.
    Named { path: PathBuf, inode: u64 },
    /// A name went.
    Removed { path: PathBuf },
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    /// Raised when the mount goes: who is held then is let go with an error.
    broken_off: u64,
    held: usize,
    hurt: u64,
    journal: Vec<Seen>,
    /// Files written since they were last synced, by number.
    unsynced: HashSet<u64>,
    /// Names made since their directory was last synced.
    fresh: HashMap<PathBuf, HashSet<PathBuf>>,
}

/// Shared by a mount and the test.
#[derive(Debug, Default)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Sets the mode and answers the one before.
    pub fn set(&self, mode: Mode) -> Mode {
        let before = std::mem::replace(&mut self.state().mode, mode);
        self.changed.notify_all();
        before
    }

    pub fn held(&self) -> usize {
        self.state().held
    }

    pub fn hurt(&self) -> u64 {
        self.state().hurt
    }

    /// Everything that is held now fails.
    pub fn break_off(&self) {
        self.state().broken_off += 1;
        self.changed.notify_all();
    }

    /// Bytes that may still be written, where that is limited.
    pub fn room(&self) -> Option<u64> {
        match self.state().mode {
            Mode::Full { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// Waits while calls are held, then says whether the call may be made: for [`Call::Write`] with how many bytes.
    pub fn admit(&self, call: Call) -> Result<u64, Errno> {
        let mut state = self.state();
        let since = state.broken_off;
        if state.mode == Mode::Block {
            state.hurt += 1;
            state.held += 1;
            while state.mode == Mode::Block && state.broken_off == since {
                state = self.changed.wait(state).unwrap_or_else(|broken| broken.into_inner());
            }
            state.held -= 1;
            if state.broken_off != since {
                return Err(Errno::EIO);
            }
        }
        let verdict = match (&mut state.mode, call) {
            (Mode::Broken, _) => Err(Errno::EIO),
            (Mode::ReadOnly, Call::Change | Call::Name | Call::Write(_)) => Err(Errno::EROFS),
            (Mode::Full { names: 0, .. }, Call::Name) => Err(Errno::ENOSPC),
            (Mode::Full { names, .. }, Call::Name) => {
                *names -= 1;
                Ok(0)
            }
            (Mode::Full { bytes: 0, .. }, Call::Write(1..)) => Err(Errno::ENOSPC),
            (Mode::Full { bytes, .. }, Call::Write(wanted)) => {
                let given = wanted.min(*bytes);
                *bytes -= given;
                Ok(given)
            }
            (_, Call::Write(wanted)) => Ok(wanted),
            _ => Ok(0),
        };
        state.hurt += u64::from(verdict.is_err());
        verdict
    }

    pub fn journal(&self) -> Vec<Seen> {
        self.state().journal.clone()
    }

    /// A file's bytes changed.
    pub fn wrote(&self, inode: u64) {
        self.state().unsynced.insert(inode);
    }

    pub fn synced(&self, path: PathBuf, inode: u64) {
        let mut state = self.state();
        state.unsynced.remove(&inode);
        state.fresh.remove(&path);
        state.journal.push(Seen::Synced { path, inode });
    }

    pub fn named(&self, path: PathBuf, inode: u64) {
        let mut state = self.state();
        state.make_fresh(&path);
        state.journal.push(Seen::Named { path, inode });
    }

    pub fn renamed(&self, from: PathBuf, to: PathBuf) {
        let mut state = self.state();
        state.forget(&from);
        state.make_fresh(&to);
        state.journal.push(Seen::Renamed { from, to });
    }

    pub fn removed(&self, path: PathBuf) {
        let mut state = self.state();
        state.forget(&path);
        state.journal.push(Seen::Removed { path });
    }

    /// See [`super::FaultyStore::at_risk`].
    pub fn at_risk(&self, real: &Path, path: &Path) -> Option<&'static str> {
        let inode = std::fs::symlink_metadata(real.join(path)).ok()?.ino();
        let state = self.state();
        if state.unsynced.contains(&inode) {
            return Some("its bytes are not synced");
        }
        let fresh = |path: &Path| {
            let names = path.parent().and_then(|parent| state.fresh.get(parent));
            names.is_some_and(|names| names.contains(path))
        };
        if fresh(path) {
            return Some("its name is not synced");
        }
        let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        above.into_iter().any(fresh).then_some("a directory above it has a name that is not synced")
    }
}

impl State {
    fn make_fresh(&mut self, path: &Path) {
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        self.fresh.entry(parent).or_default().insert(path.to_owned());
    }

    fn forget(&mut self, path: &Path) {
        if let Some(names) = path.parent().and_then(|parent| self.fresh.get_mut(parent)) {
            names.remove(path);
        }
        self.fresh.remove(path);
    }
}
