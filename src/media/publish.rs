//! Files become visible whole or not at all, and stay after a power cut.
//!
//! Absent and unreadable are two answers: absent is a value, unreadable is `storage_unavailable` (retryable).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use crate::error::{Code, Error, Result};

/// Moves a finished work file to its final place (same file system): its bytes reach the disk before its name does.
/// An existing file of that name is replaced.
///
/// # Errors
/// `storage_unavailable`; the work file is still there unless the rename itself had happened.
pub async fn publish(work: &Path, place: &Path) -> Result<()> {
    let (work, place) = (work.to_owned(), place.to_owned());
    blocking(move || {
        File::open(&work)?.sync_all()?;
        make_parent(&place)?;
        fs::rename(&work, &place)?;
        sync_parent(&place)
    })
    .await
}

/// Writes a small file whole: in the work directory first (same file system), where the sweep finds what a process that
/// died left, then renamed.
///
/// # Errors
/// `storage_unavailable`; what was there before is untouched then.
pub async fn write_whole(work_dir: &Path, place: &Path, bytes: Vec<u8>) -> Result<()> {
    let (work_dir, place) = (work_dir.to_owned(), place.to_owned());
    blocking(move || {
        make_parent(&place)?;
        fs::create_dir_all(&work_dir)?;
        let draft = work_dir.join(format!("{}.part", uuid::Uuid::new_v4().simple()));
        let written = write_draft(&draft, &bytes).and_then(|()| fs::rename(&draft, &place));
        if written.is_err() {
            // best effort: the sweep finds it too
            let _ = fs::remove_file(&draft);
        }
        written?;
        sync_parent(&place)
    })
    .await
}

/// Reads a small file; none if there is none.
///
/// # Errors
/// `storage_unavailable` if it is there, or may be, and cannot be read.
pub async fn read_whole(place: &Path) -> Result<Option<Vec<u8>>> {
    let place = place.to_owned();
    blocking(move || found(fs::read(&place))).await
}

/// Size of a file in bytes; none if there is none.
///
/// # Errors
/// `storage_unavailable` if that cannot be said.
pub async fn size(place: &Path) -> Result<Option<u64>> {
    let place = place.to_owned();
    blocking(move || found(fs::metadata(&place).map(|meta| meta.len()))).await
}

/// Removes a file for good; says whether it was there.
///
/// # Errors
/// `storage_unavailable` if it is there, or may be, and cannot be removed.
pub async fn remove(place: &Path) -> Result<bool> {
    let place = place.to_owned();
    blocking(move || {
        let removed = found(fs::remove_file(&place))?.is_some();
        if removed {
            sync_parent(&place)?;
        }
        Ok(removed)
    })
    .await
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("working on a file", error))?.map_err(|error| {
        Error::new(Code::StorageUnavailable, "The clip store cannot be used right now.")
            .retryable()
            .because(error)
    })
}

fn write_draft(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn make_parent(place: &Path) -> io::Result<()> {
    let Some(parent) = place.parent().filter(|parent| !parent.is_dir()) else { return Ok(()) };
    let missing: Vec<&Path> = parent.ancestors().take_while(|above| !above.is_dir()).collect();
    fs::create_dir_all(parent)?;
    missing.into_iter().rev().try_for_each(sync_parent)
}

fn sync_parent(place: &Path) -> io::Result<()> {
    place.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
