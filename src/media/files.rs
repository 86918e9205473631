//! Files of a store, reached so that a mount that hangs can hang nobody.
//!
//! A system call on a dead NFS mount may not return for hours and cannot be interrupted. So every piece of file work
//! runs on a thread of its own behind a [`Gate`]: the caller waits no longer than its deadline, and a piece of work
//! that hangs keeps its place in the gate until it returns, so no more threads than places can ever hang.
//!
//! Once a piece of work is overdue the store is *suspect*: one piece at a time is let in to ask, everybody else is
//! refused at once, until anything at all comes back from the store.
//! The other functions here block and are meant to be called inside [`Gate::run`].

use std::{
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Component, Path},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::fs::{Mode, OFlags};
use tokio::sync::Semaphore;

/// Pieces of file work that may be under way (or hang) in one store at once.
pub const PLACES: usize = 24;

/// Why file work gave no answer.
#[derive(Debug)]
pub enum Trouble {
    /// No answer within the deadline, or no free place in the gate within it.
    Hung,
    /// The system said no.
    Io(io::Error),
}

impl Trouble {
    /// Whether the thing was not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Trouble::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Hung => f.write_str("the store did not answer in time"),
            Trouble::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Trouble {}

/// The way into one store.
#[derive(Debug, Clone)]
pub struct Gate {
    places: Arc<Semaphore>,
    /// Of whoever asks while the store is suspect.
    asking: Arc<Semaphore>,
    suspect: Arc<AtomicBool>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::with_places(PLACES)
    }
}

/// Whether somebody still waits for a piece of work. Work that was overdue and goes on alone must not change anything
/// any more that others may have changed meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// To be called before each step that others can see.
    ///
    /// # Errors
    /// Once nobody waits any more.
    pub fn go_on(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody waits for this any more"));
        }
        Ok(())
    }
}

/// Says so when whoever waited has gone.
struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

impl Gate {
    /// A gate with that many places.
    pub fn with_places(places: usize) -> Gate {
        Gate {
            places: Arc::new(Semaphore::new(places)),
            asking: Arc::new(Semaphore::new(1)),
            suspect: Arc::default(),
        }
    }

    /// Places nobody works (or hangs) in.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Whether a piece of work is overdue and nothing has come back from the store since.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Runs blocking file work on a thread of its own and waits for it, at most `limit` in all.
    ///
    /// # Errors
    /// [`Trouble::Hung`] after `limit`, and at once while the store is suspect and somebody else asks it already; work
    /// that was begun goes on alone and keeps its place until it returns.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Trouble> {
        self.run_wanted(limit, move |_| work()).await
    }

    /// [`Gate::run`] of work in several steps, which asks before each whether somebody still waits.
    ///
    /// # Errors
    /// As [`Gate::run`].
    pub async fn run_wanted<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Wanted) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Trouble> {
        let within = tokio::time::Instant::now() + limit;
        let asks = if self.is_suspect() {
            Some(Arc::clone(&self.asking).try_acquire_owned().map_err(|_| Trouble::Hung)?)
        } else {
            None
        };
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout_at(within, place).await else {
            return Err(Trouble::Hung);
        };
        let wanted = Wanted::default();
        let waiting = Waiting(wanted.clone());
        let suspect = Arc::clone(&self.suspect);
        let done = tokio::task::spawn_blocking(move || {
            let answer = work(&wanted);
            suspect.store(false, Ordering::Release);
            drop((place, asks));
            answer
        });
        let done = tokio::time::timeout_at(within, done).await;
        drop(waiting);
        match done {
            Ok(Ok(answer)) => answer.map_err(Trouble::Io),
            Ok(Err(broken)) => Err(Trouble::Io(io::Error::other(broken))),
            Err(_) => {
                self.suspect.store(true, Ordering::Release);
                Err(Trouble::Hung)
            }
        }
    }
}

/// Runs a short piece of work on a file of our own on a thread of its own, for who has no [`Gate`] at hand: an attempt at
/// a clip, of which there are as many as there are workers.
///
/// # Errors
/// [`Trouble::Hung`] after `limit`; the thread stays until the store answers.
pub async fn beside<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Trouble> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let body = move || {
        // whoever waited may have gone
        let _ = tell.send(work());
    };
    std::thread::Builder::new().name("file".to_owned()).spawn(body).map_err(Trouble::Io)?;
    match tokio::time::timeout(limit, told).await {
        Ok(Ok(answer)) => answer.map_err(Trouble::Io),
        Ok(Err(broken)) => Err(Trouble::Io(io::Error::other(broken))),
        Err(_) => Err(Trouble::Hung),
    }
}

/// How long whoever drops a work file waits for its removal.
const ASIDE: Duration = Duration::from_millis(500);

/// Removes a work file that is not needed any more, from where nothing may block: on a thread of its own, which is waited
/// for only for a moment. What stays the sweep of the work directory finds.
pub fn remove_aside(path: &Path) {
    let path = path.to_owned();
    let (tell, told) = std::sync::mpsc::channel();
    let remove = move || {
        // absent if nobody had begun to write
        let _ = fs::remove_file(path);
        let _ = tell.send(());
    };
    if std::thread::Builder::new().name("remove".to_owned()).spawn(remove).is_ok() {
        let _ = told.recv_timeout(ASIDE);
    }
}

/// What a read met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing of that name.
    Absent,
    /// A directory, a pipe, a device, a symbolic link, or larger than can be meant.
    NotOurs,
    /// A plain file's bytes; possibly none.
    Bytes(Vec<u8>),
}

/// What opening a file met.
#[derive(Debug)]
pub enum Opened {
    /// Nothing of that name.
    Absent,
    /// A directory, a pipe, a device, a symbolic link.
    NotOurs,
    /// A plain file, and how many bytes it has.
    File(fs::File, u64),
}

impl Opened {
    /// Whether there is nothing of that name.
    pub fn is_absent(&self) -> bool {
        matches!(self, Opened::Absent)
    }
}

/// Opens a plain file for reading. Never follows a symbolic link in the last part of the path, never waits for the other
/// end of a pipe.
pub fn open_plain(path: &Path) -> io::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Opened::Absent),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(Opened::NotOurs),
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    Ok(if about.is_file() { Opened::File(file, about.len()) } else { Opened::NotOurs })
}

/// Reads a plain file of at most `most` bytes. Never follows a symbolic link in the last part of the path, never
/// waits for the other end of a pipe.
pub fn read_plain(path: &Path, most: u64) -> io::Result<Found> {
    let (file, size) = match open_plain(path)? {
        Opened::File(file, size) if size <= most => (file, size),
        Opened::Absent => return Ok(Found::Absent),
        Opened::NotOurs | Opened::File(..) => return Ok(Found::NotOurs),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // the file may be growing: no more than was there, and a little
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Found::Bytes(bytes))
}

/// The names in a directory that are text; `None` if there is no such directory.
pub fn list_names(directory: &Path) -> io::Result<Option<Vec<String>>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(Some(names))
}

/// Removes a file that may be gone already; says how many bytes went, `None` if it was not there.
pub fn remove_plain(path: &Path) -> io::Result<Option<u64>> {
    // a symbolic link is removed itself, never what it names
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(about.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a directory with all that is in it (links are not followed); whether it was there.
pub fn remove_tree(path: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a directory if it is empty; whether it went.
pub fn remove_if_empty(path: &Path) -> bool {
    fs::remove_dir(path).is_ok()
}

/// A name in a directory, and what is known of it without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Text as the file system has it.
    pub name: String,
    /// A real directory (no link to one).
    pub is_directory: bool,
    /// Last change of contents or of names (a further name of an old file is young), microseconds since the Unix epoch, by
    /// the file server's clock; `i64::MAX` where it cannot be known.
    pub changed_us: i64,
}

/// What a directory holds, as far as names are text; empty if there is no such directory.
pub fn list_entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let names = list_names(directory)?.unwrap_or_default();
    let look = |name: String| {
        let about = fs::symlink_metadata(directory.join(&name));
        entry(name, about)
    };
    Ok(names.into_iter().filter_map(look).collect())
}

/// What vanishes while we look is not there. What cannot be looked at is: as no directory, and as changed this moment, so
/// that nobody takes it for old.
fn entry(name: String, about: io::Result<fs::Metadata>) -> Option<Entry> {
    match about {
        Ok(about) => {
            let seconds = about.mtime().max(about.ctime());
            let changed_us = seconds.saturating_mul(1_000_000);
            Some(Entry { name, is_directory: about.is_dir(), changed_us })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Entry { name, is_directory: false, changed_us: i64::MAX }),
    }
}

/// Whether a relative path stays where it is joined to: plain parts only, at least one.
pub fn stays_inside(relative: &str) -> bool {
    let mut parts = Path::new(relative).components();
    !relative.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_are_known() {
        assert!(stays_inside("ab/room~1/u~2/id/1"));
        for path in ["", "/etc", "../x", "a/../../b", "./a/.."] {
            assert!(!stays_inside(path), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_there_and_not_old() {
        let failed = |kind: io::ErrorKind| entry("a".to_owned(), Err(kind.into()));
        assert_eq!(failed(io::ErrorKind::NotFound), None);
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::NotConnected] {
            let shown = failed(kind).expect("it is there");
            assert!(!shown.is_directory && shown.changed_us == i64::MAX, "{shown:?}");
        }
    }

    #[tokio::test]
    async fn work_that_hangs_costs_its_caller_the_deadline_and_the_gate_one_place() {
        let gate = Gate::with_places(2);
        let mut held = Vec::new();
        for _ in 0..2 {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            held.push(release);
            let hung = gate
                .run(Duration::from_millis(20), move || {
                    let _ = wait.recv();
                    Ok(())
                })
                .await;
            assert!(matches!(hung, Err(Trouble::Hung)));
        }
        assert_eq!(gate.free(), 0);
        assert!(gate.is_suspect());
        // full of hanging work: refused without starting another thread
        let started = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::clone(&started);
        let refused = gate
            .run(Duration::from_millis(20), move || {
                seen.store(true, std::sync::atomic::Ordering::SeqCst);
                Ok(())
            })
            .await;
        assert!(matches!(refused, Err(Trouble::Hung)));
        assert!(!started.load(std::sync::atomic::Ordering::SeqCst));
        // the mount comes back
        drop(held);
        while gate.is_suspect() {
            tokio::task::yield_now().await;
        }
        assert!(gate.run(Duration::from_secs(30), || Ok(7)).await.is_ok_and(|seven| seven == 7));
    }

    #[tokio::test]
    async fn a_suspect_store_is_asked_by_one_at_a_time_and_trusted_when_anything_comes_back() {
        let gate = Gate::default();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (seen, saw) = std::sync::mpsc::channel();
        let hung = gate
            .run_wanted(Duration::from_millis(20), move |wanted| {
                let _ = wait.recv();
                let _ = seen.send(wanted.go_on().is_err());
                Ok(())
            })
            .await;
        assert!(matches!(hung, Err(Trouble::Hung)));

        let (release_asking, wait) = std::sync::mpsc::channel::<()>();
        let asks = gate.run(Duration::from_millis(50), move || {
            let _ = wait.recv();
            Ok(())
        });
        let (asked, ()) = tokio::join!(asks, async {
            // refused at once, whatever the deadline
            for _ in 0..100 {
                let refused = gate.run(Duration::from_secs(3600), || Ok(())).await;
                assert!(matches!(refused, Err(Trouble::Hung)));
            }
        });
        assert!(matches!(asked, Err(Trouble::Hung)));
        assert_eq!(
            gate.free(),
            PLACES - 2,
            "no more threads than the one that hung and the one that asked"
        );

        drop(release);
        assert!(saw.recv().is_ok_and(|told| told), "who hung knows that nobody waits any more");
        while gate.is_suspect() {
            tokio::task::yield_now().await;
        }
        assert!(gate.run(Duration::from_secs(30), || Ok(7)).await.is_ok_and(|seven| seven == 7));
        drop(release_asking);
    }
}
