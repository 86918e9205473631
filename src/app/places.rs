//! The places on disk: made, looked at, and marked as ours before anything runs.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::{config::Config, domain::id::InstanceId};

/// The file in the root of each store that says whose it is.
pub const MARKER: &str = ".livekit-replay.json";

/// How files begin that are there for a moment while a store is tried.
const PROBE: &str = ".probe-";

/// A hung mount must not hang the start without a word.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    instance_id: String,
}

/// Runs blocking work on `path` with a deadline.
async fn within_limit(
    path: &Path,
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    match tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(Failure::Failed(format!("looking at {}: {panic}", path.display()))),
        Err(_) => Err(Failure::Failed(format!(
            "{} did not answer within {} s (a hung mount?)",
            path.display(),
            LIMIT.as_secs()
        ))),
    }
}

/// Makes the data directory, for us alone: the control socket in it serves an administrator.
///
/// # Errors
/// [`Failure::Setup`] naming the path.
pub fn make_data_dir(config: &Config) -> Result<(), Failure> {
    let path = &config.data_dir;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| cannot("be made", path, &error))?;
    let mode = fs::metadata(path).map_err(|error| cannot("be read", path, &error))?.mode();
    if mode & 0o077 != 0 && fs::set_permissions(path, fs::Permissions::from_mode(0o700)).is_err() {
        // a volume whose root belongs to somebody else; the socket still asks every peer who it is
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o7777), "the data directory is open to others and not ours to close");
    }
    Ok(())
}

/// Makes both stores, tries whether we can write there, and marks them as this instance's. A clip store without a marker
/// that holds none of `known`, videos that are in it by the database, is left unmarked: a file system that is not mounted
/// (yet) shows its empty place, and a marker there would make it the store. Until the marker is there nothing is made,
/// deleted or called lost in it ([`crate::flow::stores::demand_ours`]).
///
/// # Errors
/// [`Failure::Setup`] when a store cannot be written (with who we are and whose it is) or is another instance's; neither is
/// marked then.
pub async fn prepare_stores(
    config: &Config,
    instance: &InstanceId,
    known: Vec<PathBuf>,
) -> Result<(), Failure> {
    let (buffer, clips) = (&config.storage.buffer, &config.storage.clips);
    for (root, mode) in [(buffer, config.storage.buffer_dir_mode), (clips, 0o750)] {
        let (path, instance) = (root.clone(), instance.clone());
        within_limit(root, move || prepare(&path, mode, &instance)).await?;
    }
    for (root, known) in [(buffer, Vec::new()), (clips, known)] {
        let (path, instance) = (root.clone(), instance.clone());
        within_limit(root, move || mark_unless_away(&path, &instance, &known)).await?;
    }
    Ok(())
}

fn prepare(root: &Path, mode: u32, instance: &InstanceId) -> Result<(), Failure> {
    if !root.is_dir() {
        fs::create_dir_all(root).map_err(|error| cannot("be made", root, &error))?;
        fs::set_permissions(root, fs::Permissions::from_mode(mode))
            .map_err(|error| cannot("be given its mode", root, &error))?;
    }
    let probe = fresh_name(root);
    fs::write(&probe, b"").and_then(|()| remove_if_there(&probe)).map_err(|error| {
        let whose = fs::metadata(root).map_or_else(
            |error| error.to_string(),
            |meta| format!("owner {}:{}, mode {:o}", meta.uid(), meta.gid(), meta.mode() & 0o7777),
        );
        let us = rustix::process::geteuid().as_raw();
        Failure::Setup(format!(
            "{} cannot be written: {error} ({whose}; this process runs as uid {us})",
            root.display()
        ))
    })?;
    let marker = root.join(MARKER);
    if marker.exists() { compare(&marker, instance) } else { Ok(()) }
}

fn mark_unless_away(root: &Path, instance: &InstanceId, known: &[PathBuf]) -> Result<(), Failure> {
    let is_away = !known.is_empty() && !known.iter().any(|video| video.exists());
    if is_away && !root.join(MARKER).exists() {
        tracing::error!(
            path = %root.display(),
            "the clip store holds none of the clips that the database knows, and no marker: nothing is mounted there? If it \
             is to be used as it is, write {{\"instanceId\":\"{instance}\"}} to {MARKER} in it"
        );
        return Ok(());
    }
    mark(root, instance)?;
    // what a process that died in here left; whoever is in here now can do without
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PROBE) {
            let _for_the_next = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn fresh_name(root: &Path) -> PathBuf {
    root.join(format!("{PROBE}{}", uuid::Uuid::new_v4()))
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn mark(root: &Path, instance: &InstanceId) -> Result<(), Failure> {
    let path = root.join(MARKER);
    let marker = Marker { instance_id: instance.as_str().to_owned() };
    let text = serde_json::to_vec(&marker)
        .map_err(|error| Failure::Failed(format!("writing {}: {error}", path.display())))?;
    if path.exists() {
        return compare(&path, instance);
    }
    // whole before it has its name: one that a dying process left empty would keep every later start out
    let fresh = fresh_name(root);
    let written = fs::File::create_new(&fresh)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
    // a link never takes a name that somebody else was faster to take; file systems without links take it by renaming
    let named = written.and_then(|()| match fs::hard_link(&fresh, &path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::rename(&fresh, &path),
        Ok(()) => Ok(()),
    });
    let _renamed = fs::remove_file(&fresh);
    match named {
        Err(error) if !path.exists() => return Err(cannot("be made", &path, &error)),
        _ => {}
    }
    compare(&path, instance)
}

fn compare(path: &Path, instance: &InstanceId) -> Result<(), Failure> {
    // another replica may be between making and filling it
    for _ in 0..40 {
        let text = fs::read(path).map_err(|error| cannot("be read", path, &error))?;
        if text.is_empty() {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let marker: Marker = serde_json::from_slice(&text).map_err(|error| {
            Failure::Setup(format!("{} is not a marker of ours: {error}", path.display()))
        })?;
        if marker.instance_id == instance.as_str() {
            return Ok(());
        }
        return Err(Failure::Setup(format!(
            "{} says that this store belongs to instance {}, and this database is instance {}; use that instance's database, or a store of its own",
            path.display(),
            marker.instance_id,
            instance
        )));
    }
    Err(Failure::Setup(format!(
        "{} is empty; remove it if the store is this instance's",
        path.display()
    )))
}

/// Whose store this is, by its marker; nobody's if there is none.
///
/// # Errors
/// [`Failure::Failed`] when the store does not answer, or the marker is none of ours.
pub async fn instance_of(root: &Path) -> Result<Option<InstanceId>, Failure> {
    let path = root.join(MARKER);
    let read = tokio::time::timeout(LIMIT, tokio::fs::read(&path)).await;
    let none = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
    let text = read.map_err(|_| none("did not answer".to_owned()))?;
    let text = match text {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| none(error.to_string()))?,
    };
    let marker: Marker = serde_json::from_slice(&text).map_err(|error| none(error.to_string()))?;
    let id = marker.instance_id;
    let fits = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(Some(InstanceId::new(id))) } else { Err(none("names no instance".to_owned())) }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Setup(format!("{} cannot {what}: {error}", path.display()))
}

/// Whether FFmpeg and its prober are there and run.
///
/// # Errors
/// [`Failure::Setup`] naming the program and the remedy.
pub async fn check_ffmpeg() -> Result<(), Failure> {
    for program in ["ffmpeg", "ffprobe"] {
        let mut command = tokio::process::Command::new(program);
        command.arg("-version").stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let remedy = "install FFmpeg (Debian, Ubuntu: apt-get install ffmpeg)";
        match output {
            Ok(Ok(output)) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let version = text.lines().next().unwrap_or_default().to_owned();
                tracing::debug!(program, version, "found");
            }
            Ok(Ok(output)) => {
                let status = output.status;
                return Err(Failure::Setup(format!(
                    "{program} -version ended with {status}; {remedy}"
                )));
            }
            Ok(Err(error)) => {
                return Err(Failure::Setup(format!("{program} cannot be run: {error}; {remedy}")));
            }
            Err(_) => return Err(Failure::Setup(format!("{program} -version does not end"))),
        }
    }
    Ok(())
}
