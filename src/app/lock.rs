//! One service per data directory and per SQLite file: an advisory lock on a file that names the holder's process.
//! The lock goes with the process, however it ends; the file stays and means nothing by itself.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use secrecy::ExposeSecret;

use super::Failure;
use crate::config::Config;

/// A command holds its shared lock for a moment: the service waits this long for it before it gives up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Held locks; dropping lets go.
#[derive(Debug)]
pub struct Locks(#[expect(dead_code, reason = "held open, never read")] Vec<File>);

/// The SQLite file of the configured database, if it is one.
pub fn sqlite_file(config: &Config) -> Option<PathBuf> {
    let url = config.database.url.expose_secret();
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split('?').next().unwrap_or(path);
    Some(PathBuf::from(path))
}

fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = vec![config.data_dir.join("lock")];
    files.extend(sqlite_file(config).map(|mut path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        path.set_file_name(format!("{name}.lock"));
        path
    }));
    files
}

/// Takes all locks for a service.
///
/// # Errors
/// [`Failure::Failed`] naming the process that holds one; [`Failure::Setup`] when a lock file cannot be opened.
pub async fn acquire(config: &Config) -> Result<Locks, Failure> {
    let mut held = Vec::new();
    for path in files(config) {
        let mut file = open(&path)?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if tokio::time::Instant::now() >= deadline {
                return Err(Failure::Failed(format!(
                    "another livekit-replay (pid {}) holds {}",
                    pid_in(&mut file),
                    path.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        write_pid(&mut file).map_err(|error| unusable(&path, &error))?;
        held.push(file);
    }
    Ok(Locks(held))
}

/// Takes the locks for a command that works on the database itself; `Err` with the holder's pid while a service runs.
///
/// # Errors
/// [`Failure::Setup`] when a lock file cannot be opened.
pub fn share(config: &Config) -> Result<Result<Locks, String>, Failure> {
    let mut held = Vec::new();
    for path in files(config) {
        // a directory that is not there has no service
        if !path.parent().is_some_and(Path::is_dir) {
            continue;
        }
        let mut file = open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(Err(pid_in(&mut file)));
        }
        held.push(file);
    }
    Ok(Ok(Locks(held)))
}

fn open(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    // the holder's pid stays readable until the lock is ours
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Setup(format!("the lock file {} cannot be used: {error}", path.display()))
}

fn pid_in(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}
