//! What lies in the stores under a user's key: his directories in every room of the buffer, his clips, what of them
//! waits in quarantine, and work files of his clips. Names are enough: nothing of his has a name without his key or
//! the id of one of his clips.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use crate::{
    domain::{
        id::{ClipId, UserId},
        keys,
    },
    error::Result,
    flow::{
        Deps,
        stores::{self, Which},
    },
    media::files::{list_entries, remove_if_empty, remove_plain, remove_tree},
};

/// What a search found: below which store's root, and where.
struct Found {
    which: Which,
    path: PathBuf,
    is_directory: bool,
}

/// Where something of his still lies: the store and the path in it, without his key.
pub(super) async fn search(
    deps: &Deps,
    user: &UserId,
    clips: &BTreeSet<ClipId>,
) -> Result<Vec<String>> {
    let found = find(deps, user, clips).await?;
    Ok(found.iter().map(|found| format!("{} store", found.which.as_str())).collect())
}

/// Removes all of it; says how many directories and files went.
pub(super) async fn remove(deps: &Deps, user: &UserId, clips: &BTreeSet<ClipId>) -> Result<u64> {
    let mut gone = 0;
    for found in find(deps, user, clips).await? {
        let Found { which, path, is_directory } = found;
        let removed = stores::work(&deps.stores, which, move || {
            let gone =
                if is_directory { remove_tree(&path)? } else { remove_plain(&path)?.is_some() };
            if which == Which::Buffer
                && let Some(room) = path.parent()
            {
                // a start that makes its directory at this moment makes the room's again
                remove_if_empty(room);
            }
            Ok(gone)
        });
        match removed.await {
            Ok(removed) => gone += u64::from(removed),
            // somebody still writes there; the search afterwards is what counts
            Err(error) => tracing::debug!(error = error.chain(), "could not be removed yet"),
        }
    }
    Ok(gone)
}

async fn find(deps: &Deps, user: &UserId, clips: &BTreeSet<ClipId>) -> Result<Vec<Found>> {
    let key = keys::user_key(user);
    let top = deps.config.storage.buffer.join(deps.instance.as_str());
    let in_rooms = key.clone();
    let look = move || below_rooms(&top, &in_rooms);
    let mut found = stores::work(&deps.stores, Which::Buffer, look).await?;
    let (root, work_dir) = (deps.config.storage.clips.clone(), deps.work_dir());
    let ids: Vec<String> = clips.iter().map(|id| id.as_str().to_owned()).collect();
    let look = move || {
        let mut found = named(&root, Which::Clips, |name| name == key)?;
        let waiting = format!("~{key}~");
        found
            .extend(named(&root.join("quarantine"), Which::Clips, |name| name.contains(&waiting))?);
        let own = |name: &str| ids.iter().any(|id| name.starts_with(id));
        found.extend(named(&work_dir, Which::Clips, own)?);
        Ok(found)
    };
    found.extend(stores::work(&deps.stores, Which::Clips, look).await?);
    Ok(found)
}

fn below_rooms(top: &Path, key: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for room in list_entries(top)?.into_iter().filter(|room| room.is_directory) {
        found.extend(named(&top.join(room.name), Which::Buffer, |name| name == key)?);
    }
    Ok(found)
}

fn named(directory: &Path, which: Which, fits: impl Fn(&str) -> bool) -> io::Result<Vec<Found>> {
    let entries = list_entries(directory)?.into_iter().filter(|entry| fits(&entry.name));
    let found = entries.map(|entry| Found {
        which,
        path: directory.join(&entry.name),
        is_directory: entry.is_directory,
    });
    Ok(found.collect())
}
