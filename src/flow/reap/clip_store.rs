//! Files in the clip store that no row knows. Nothing is deleted because a row is missing: a video with its record
//! gets its row back, a deletion that was interrupted is finished, a further name that a trim gave its source before it died
//! is taken away, anything else waits a week in `quarantine/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    io::ErrorKind,
    path::Path,
};

use rand::seq::SliceRandom as _;

use super::{Counts, pass_over};
use crate::{
    domain::{event::EventKind, id::ClipId, keys, lifecycle::ClipStatus, time::Timestamp},
    error::Result,
    flow::{
        Deps,
        clip_files::{ClipFiles, MOST_RECORD, Record},
        library, outbox,
        stores::{self, Which},
    },
    media::files::{Entry, Found, list_entries, read_plain, remove_plain, remove_tree},
    store::{self, clip, quota},
};

/// Where unknown files wait.
const QUARANTINE: &str = "quarantine";
/// Younger unknown files may be in the making.
const UNKNOWN_SECONDS: i64 = 3600;
/// How long they wait.
const WAIT_SECONDS: i64 = 7 * 86_400;

/// Walks through the directories of users.
pub(super) async fn examine(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    if dry_run {
        return walk(deps, true, counts).await;
    }
    let failed = counts.failed;
    deps.walks.begin();
    walk(deps, false, counts).await.inspect_err(|_| deps.walks.want())?;
    deps.walks.end(counts.failed == failed);
    Ok(())
}

async fn walk(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    let root = deps.config.storage.clips.clone();
    let at = root.clone();
    let users = stores::work(&deps.stores, Which::Clips, move || list_entries(&at)).await?;
    let mut users: Vec<_> =
        users.into_iter().filter(|user| user.is_directory && is_key(&user.name)).collect();
    // a walk that takes longer than a pass may ends somewhere: everybody has his turn at some time
    users.shuffle(&mut rand::rng());
    for user in users {
        let done = examine_user(deps, &user.name, dry_run, counts).await;
        pass_over(deps, Which::Clips, &user.name, done, counts).await?;
    }
    empty_quarantine(deps, dry_run, counts).await
}

/// Whether a directory's name is a key of ours: it ends in the hash of a user's name.
fn is_key(name: &str) -> bool {
    let hash = name.rsplit('-').next().unwrap_or_default();
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    hash.len() == 32 && hash.bytes().all(hex) && name.len() <= keys::MAX_KEY_BYTES
}

async fn examine_user(deps: &Deps, user: &str, dry_run: bool, counts: &mut Counts) -> Result<()> {
    let directory = deps.config.storage.clips.join(user);
    // files before rows: a clip's row is there before any of its files but `.source`
    let at = directory.clone();
    let entries = stores::work(&deps.stores, Which::Clips, move || list_entries(&at)).await?;
    let mut groups: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        let stem = entry.name.split('.').next().unwrap_or_default().to_owned();
        groups.entry(stem).or_default().push(entry);
    }
    let ids: Vec<ClipId> = groups.keys().map(ClipId::new).collect();
    let known = clip::list_existing(deps.db.conn(), &ids).await?;
    let known: BTreeSet<&str> = known.iter().map(ClipId::as_str).collect();
    for (stem, entries) in &groups {
        let what = format!("{user}/{stem}");
        let done = match known.contains(stem.as_str()) {
            true if dry_run => Ok(()),
            true => owned(deps, user, stem, entries).await,
            false => unknown(deps, user, stem, entries, dry_run, counts).await,
        };
        pass_over(deps, Which::Clips, &what, done, counts).await?;
    }
    Ok(())
}

/// Files of a clip that has its row: what an interrupted deletion or a trim left beside them.
async fn owned(deps: &Deps, user: &str, stem: &str, entries: &[Entry]) -> Result<()> {
    if has(entries, stem, "deleted") {
        undo_deletion(deps, user, stem).await?;
    }
    if has(entries, stem, "source") {
        release_source(deps, &ClipId::new(stem)).await?;
    }
    Ok(())
}

fn has(entries: &[Entry], stem: &str, ending: &str) -> bool {
    entries.iter().any(|entry| entry.name == format!("{stem}.{ending}"))
}

/// What is younger than this may be in the making; microseconds.
fn youngest(now: Timestamp) -> i64 {
    now.plus_seconds(-UNKNOWN_SECONDS).as_micros()
}

/// A trim that is done, or failed longer ago than another attempt is promised, no longer holds the clip it was cut
/// out of.
async fn release_source(deps: &Deps, id: &ClipId) -> Result<()> {
    let now = deps.clock.now();
    let keep = deps.config.capture.failed_keep;
    let done = |clip: &clip::Model| match clip.status {
        ClipStatus::Processing => false,
        ClipStatus::Failed => clip.updated_at.plus(keep) <= now,
        _ => true,
    };
    // nobody waits here for the row of a clip that is just being made
    if !clip::find(deps.db.conn(), id).await?.is_some_and(|clip| done(&clip)) {
        return Ok(());
    }
    let tx = deps.db.begin().await?;
    // under the row's lock: another attempt comes before this and is seen, or after it and finds nothing
    clip::lock(&tx, id).await?;
    if let Some(clip) = clip::find(&tx, id).await?.filter(done) {
        ClipFiles::of(deps, &clip.user_id, id)?.release_source(deps).await;
    }
    store::commit(tx).await
}

/// A deletion that died before its commit: the clip is there, and gets its record back.
async fn undo_deletion(deps: &Deps, user: &str, stem: &str) -> Result<()> {
    match read_record(deps, user, stem, "deleted").await? {
        Some(record) => library::finish_deletion(deps, &record.user_id, &record.clip_id).await,
        None => Ok(()),
    }
}

async fn unknown(
    deps: &Deps,
    user: &str,
    stem: &str,
    entries: &[Entry],
    dry_run: bool,
    counts: &mut Counts,
) -> Result<()> {
    let has = |ending: &str| has(entries, stem, ending);
    if has("deleted") {
        if let Some(record) = read_record(deps, user, stem, "deleted").await? {
            if !dry_run {
                ClipFiles::of(deps, &record.user_id, &record.clip_id)?.remove_all().await?;
            }
            counts.deletions_finished += 1;
            return Ok(());
        }
    } else if has("mp4")
        && has("json")
        && let Some(record) = read_record(deps, user, stem, "json").await?
        && is_whole(deps, user, &record).await?
    {
        counts.clips_restored += u64::from(dry_run || restore(deps, user, record).await?);
        return Ok(());
    }
    if has("json") && is_gone(deps, user, stem, "json").await? {
        // its deletion goes on beside this walk
        return Ok(());
    }
    let source = format!("{stem}.source");
    if entries.iter().any(|entry| entry.name == source) && deps.walks.is_abandoned(&source) {
        abandon(deps, user, stem, &source, dry_run, counts).await?;
    }
    let now = deps.clock.now();
    let limit = youngest(now);
    let old = |entry: &&Entry| entry.changed_us < limit && entry.name != source;
    for entry in entries.iter().filter(old) {
        counts.quarantined += 1;
        if !dry_run {
            quarantine(deps, user, &entry.name, now).await?;
        }
    }
    Ok(())
}

/// Takes away what was held for a trim that nobody knows.
async fn abandon(
    deps: &Deps,
    user: &str,
    stem: &str,
    source: &str,
    dry_run: bool,
    counts: &mut Counts,
) -> Result<()> {
    // the directory's rows were read before its files were gone through, which may take longer than a trim's patience
    if clip::find(deps.db.conn(), &ClipId::new(stem)).await?.is_some() {
        return Ok(());
    }
    counts.sources_released += 1;
    if !dry_run {
        let path = deps.config.storage.clips.join(user).join(source);
        let remove = move || remove_plain(&path).map(drop);
        stores::work(&deps.stores, Which::Clips, remove).await?;
    }
    Ok(())
}

/// A record that is valid, of this clip, and in its user's directory.
async fn read_record(deps: &Deps, user: &str, stem: &str, ending: &str) -> Result<Option<Record>> {
    let path = deps.config.storage.clips.join(user).join(format!("{stem}.{ending}"));
    let read = move || read_plain(&path, MOST_RECORD);
    let Found::Bytes(bytes) = stores::work(&deps.stores, Which::Clips, read).await? else {
        return Ok(None);
    };
    let record = Record::parse(&bytes, &deps.instance);
    Ok(record.filter(|record| {
        record.clip_id.as_str() == stem && keys::user_key(&record.user_id) == user
    }))
}

/// What is there of a clip's file, if anything.
async fn about(deps: &Deps, user: &str, stem: &str, ending: &str) -> Result<Option<Metadata>> {
    let path = deps.config.storage.clips.join(user).join(format!("{stem}.{ending}"));
    let ask = move || match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    };
    stores::work(&deps.stores, Which::Clips, ask).await
}

async fn is_gone(deps: &Deps, user: &str, stem: &str, ending: &str) -> Result<bool> {
    Ok(about(deps, user, stem, ending).await?.is_none())
}

/// Whether the video has the size that its record says.
async fn is_whole(deps: &Deps, user: &str, record: &Record) -> Result<bool> {
    let video = about(deps, user, record.clip_id.as_str(), "mp4").await?;
    Ok(video.is_some_and(|video| {
        video.is_file() && i64::try_from(video.len()) == Ok(record.size_bytes)
    }))
}

/// Gives a whole clip its row back.
async fn restore(deps: &Deps, user: &str, record: Record) -> Result<bool> {
    let now = deps.clock.now();
    let id = record.clip_id.clone();
    let row = record.into_row(now);
    let (owner, bytes) = (row.user_id.clone(), row.size_bytes);
    quota::load_or_make(deps.db.conn(), &owner, now).await?;
    let tx = deps.db.begin().await?;
    let inserted = clip::insert(&tx, row.clone()).await?;
    // a deletion takes the record away before its row goes: with the row's place ours, look once more
    if !inserted || read_record(deps, user, id.as_str(), "json").await?.is_none() {
        store::rollback(tx).await?;
        return Ok(false);
    }
    quota::settle(&tx, &owner, 0, bytes).await?;
    outbox::clip(&tx, EventKind::ClipReady, &row, now).await?;
    outbox::bytes_taken(&tx, deps, &owner, bytes, now).await?;
    outbox::commit(deps, tx).await?;
    tracing::warn!(clip.id = %id, "clip.restored");
    Ok(true)
}

/// Moves a file out of the way, under a name that tells when.
async fn quarantine(deps: &Deps, user: &str, name: &str, now: Timestamp) -> Result<()> {
    let root = deps.config.storage.clips.clone();
    let from = root.join(user).join(name);
    let to = root.join(QUARANTINE).join(format!("{}~{user}~{name}", now.as_millis() / 1000));
    tracing::warn!(user_key = user, name, "clip_store.quarantined");
    stores::work(&deps.stores, Which::Clips, move || {
        std::fs::create_dir_all(root.join(QUARANTINE))?;
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    })
    .await
}

/// Removes what has waited its week; names that we did not give stay.
async fn empty_quarantine(deps: &Deps, dry_run: bool, counts: &mut Counts) -> Result<()> {
    let directory = deps.config.storage.clips.join(QUARANTINE);
    let at = directory.clone();
    let entries = stores::work(&deps.stores, Which::Clips, move || list_entries(&at)).await?;
    let limit = deps.clock.now().plus_seconds(-WAIT_SECONDS).as_millis() / 1000;
    for entry in entries {
        let moved_at = entry.name.split_once('~').and_then(|(at, _)| at.parse::<i64>().ok());
        if moved_at.is_none_or(|at| at > limit) {
            continue;
        }
        let name = entry.name.clone();
        let path = directory.join(&name);
        let done = match dry_run {
            true => Ok(()),
            false => stores::work(&deps.stores, Which::Clips, move || discard(&path, &entry)).await,
        };
        let gone = pass_over(deps, Which::Clips, &name, done, counts).await?;
        counts.quarantine_emptied += u64::from(gone.is_some());
    }
    Ok(())
}

fn discard(path: &Path, entry: &Entry) -> std::io::Result<()> {
    if entry.is_directory { remove_tree(path).map(drop) } else { remove_plain(path).map(drop) }
}
