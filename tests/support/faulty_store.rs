//! A store that can be made to fail: a directory seen through a mount of this process (FUSE), whose calls can be held,
//! refused or made to run out of room while the service works in it. Nothing is cached by the kernel, so every call
//! meets the mode of the moment.
//!
//! Needs `/dev/fuse` and the right to mount; [`FaultyStore::mount`] says so and answers `None` where it is missing.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
};

use fuser::{BackgroundSession, MountOption, SessionACL};

#[path = "faulty_store/control.rs"]
mod control;
#[path = "faulty_store/passthrough.rs"]
mod passthrough;

pub use control::{Mode, Seen};
use control::Control;
use passthrough::Passthrough;

/// Threads that serve the mount. When all hold a call, further calls wait in the kernel.
const THREADS: usize = 6;
/// How mounts of ours are called in `/proc/mounts`, before the process id.
const NAME: &str = "livekit-replay-test-";

/// A mounted store. Unmounted when dropped, whatever is under way in it then fails.
pub struct FaultyStore {
    mounted: Mutex<Option<Mounted>>,
    control: Arc<Control>,
    real: PathBuf,
    shown: PathBuf,
}

struct Mounted {
    _session: BackgroundSession,
    control: Arc<Control>,
    shown: PathBuf,
    watch: Child,
}

impl FaultyStore {
    /// Shows the directory `real` at `shown` (both are made); `None`, and says so, where mounting is not permitted.
    pub fn mount(real: &Path, shown: &Path) -> Option<FaultyStore> {
        forget_the_dead();
        for directory in [real, shown] {
            std::fs::create_dir_all(directory).expect("a directory");
        }
        let control = Arc::new(Control::default());
        match Mounted::new(real, shown, &control) {
            Ok(mounted) => Some(FaultyStore {
                mounted: Mutex::new(Some(mounted)),
                control,
                real: real.to_owned(),
                shown: shown.to_owned(),
            }),
            Err(error) => {
                eprintln!("skipped: no FUSE mount is permitted here ({error})");
                None
            }
        }
    }

    /// Where the service sees it.
    pub fn path(&self) -> &Path {
        &self.shown
    }

    /// The directory behind it, in which nothing ever fails.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// From now on every call meets this mode; calls that are held go on under it.
    pub fn set(&self, mode: Mode) {
        self.control.set(mode);
    }

    /// Calls that are held now, as far as they reached us; others wait in the kernel behind them.
    pub fn held(&self) -> usize {
        self.control.held()
    }

    /// Calls that a mode other than [`Mode::Pass`] refused or held so far.
    pub fn hurt(&self) -> u64 {
        self.control.hurt()
    }

    /// The mount goes, and the empty directory it stood on is seen.
    pub fn vanish(&self) {
        drop(self.session().take());
    }

    /// Mounted again after [`FaultyStore::vanish`].
    pub fn come_back(&self) {
        let mut session = self.session();
        if session.is_none() {
            let mounted = Mounted::new(&self.real, &self.shown, &self.control);
            *session = Some(mounted.expect("what could be mounted once can be again"));
        }
    }

    /// What was synced, renamed and linked so far, in order; paths are relative to the store.
    pub fn journal(&self) -> Vec<Seen> {
        self.control.journal()
    }

    /// How often files or directories of that (relative) path were synced.
    pub fn syncs_of(&self, path: &Path) -> usize {
        let synced = |seen: &&Seen| matches!(seen, Seen::Synced { path: of, .. } if of == path);
        self.journal().iter().filter(synced).count()
    }

    /// What a power cut could still take of a file: its bytes were written and not synced since, or the name it has
    /// was given and its directory not synced since. `None` = nothing; also for files made behind the mount's back.
    pub fn at_risk(&self, path: &Path) -> Option<&'static str> {
        self.control.at_risk(&self.real, path)
    }

    fn session(&self) -> MutexGuard<'_, Option<Mounted>> {
        self.mounted.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Drop for FaultyStore {
    fn drop(&mut self) {
        self.vanish();
    }
}

impl Mounted {
    fn new(real: &Path, shown: &Path, control: &Arc<Control>) -> std::io::Result<Mounted> {
        let mut how = fuser::Config::default();
        let name = format!("{NAME}{}", std::process::id());
        how.mount_options = vec![
            MountOption::FSName(name),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        how.acl = SessionACL::All;
        how.n_threads = Some(THREADS);
        let files = Passthrough::new(real, Arc::clone(control))?;
        let session = fuser::spawn_mount(files, shown, &how)?;
        let mounted = Mounted {
            _session: session,
            control: Arc::clone(control),
            shown: shown.to_owned(),
            watch: watch(shown)?,
        };
        // the kernel learns here that it need not ask us when a file is closed: a process that is being started
        // closes files, and must not wait for a store that it does not use
        let mode = control.set(Mode::Pass);
        let first = shown.join(".first-call");
        std::fs::write(&first, b"")?;
        std::fs::remove_file(&first)?;
        control.set(mode);
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.control.break_off();
        unmount(&self.shown);
        // it may have ended by itself
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}

/// Breaks off what is under way in a mount and detaches it; never touches the mounted files themselves.
fn unmount(shown: &Path) {
    let mut command = Command::new("umount");
    command.args(["-i", "-c", "-f", "-l"]).arg(shown);
    let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !ended.is_ok_and(|status| status.success()) {
        eprintln!("{} could not be unmounted", shown.display());
    }
}

/// A process that unmounts when ours is killed: threads of ours that wait in our own mount would keep us from ending,
/// and the mount would stay.
fn watch(shown: &Path) -> std::io::Result<Child> {
    const UNTIL_WE_END: &str = r#"
        while read -r _ _ state _ < "/proc/$1/stat" && [ "$state" != Z ]; do sleep 1; done
        exec umount -i -c -f -l "$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", UNTIL_WE_END, "sh", &std::process::id().to_string()]).arg(shown);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn()
}

/// Detaches mounts of test processes that are no more.
fn forget_the_dead() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(shown)) = (words.next(), words.next()) else { continue };
        let dead = name.strip_prefix(NAME).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if dead {
            unmount(Path::new(shown));
        }
    }
}
