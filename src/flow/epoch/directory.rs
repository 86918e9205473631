//! An epoch's directory, which is there before its egress writes.

use std::{os::unix::fs::DirBuilderExt, path::Path, time::Duration};

use crate::{
    error::{Code, Error, Result},
    flow::{
        Deps,
        stores::{self, Which},
    },
};

/// A directory on a hung mount must not hang a start.
const DEADLINE: Duration = Duration::from_secs(5);
/// A path of ours has five levels, and each may be tidied away once while it is empty.
const LEVELS_LOST: usize = 5;

/// Makes the directory: both sides can write, and we can delete.
pub(super) async fn make(deps: &Deps, path: &str) -> Result<()> {
    // what nothing is mounted on must not be filled up
    stores::demand_ours(deps, Which::Buffer).await?;
    let root = deps.config.storage.buffer.clone();
    let target = root.join(path);
    let mode = deps.config.storage.buffer_dir_mode;
    let gid = deps.config.storage.buffer_gid;
    let work = move || {
        let mut made = make_tree(&root, &target, mode, gid);
        // a level that was empty for a moment may have been tidied away under our hands
        for _ in 0..LEVELS_LOST {
            match &made {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && root.is_dir() => {
                    made = make_tree(&root, &target, mode, gid);
                }
                _ => break,
            }
        }
        made
    };
    let made = deps.stores.buffer.gate.run(DEADLINE, work).await;
    made.map_err(|trouble| unavailable().because(trouble))
}

fn unavailable() -> Error {
    Error::new(Code::StorageUnavailable, "The buffer store cannot be written.")
        .retry_after(Duration::from_secs(10))
        .retryable()
}

/// Makes each missing level with exactly the mode and group configured, whatever our umask is. The root itself must
/// exist: a missing mount point must not be filled up.
fn make_tree(root: &Path, target: &Path, mode: u32, gid: Option<u32>) -> std::io::Result<()> {
    use rustix::fs::{CWD, Gid, Mode, chownat};
    let group = match gid {
        Some(gid) => gid,
        None => std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(root)?),
    };
    let relative = target.strip_prefix(root).map_err(std::io::Error::other)?;
    let mut level = root.to_owned();
    for part in relative.components() {
        level.push(part);
        match std::fs::DirBuilder::new().mode(0o700).create(&level) {
            Ok(()) => {
                let own = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&level)?);
                if own != group {
                    chownat(
                        CWD,
                        &level,
                        None,
                        Some(Gid::from_raw(group)),
                        rustix::fs::AtFlags::empty(),
                    )?;
                }
                // after the group: a change of group may clear the set-group-id bit
                rustix::fs::chmod(&level, Mode::from_raw_mode(mode))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
