//! A copy of the database takes the place of what is there, if it is whole and ours.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;
use tokio::process::Command;

use super::{
    alone, backup, beside, finish, records, remove, run, text, tool, unusable, with_suffix,
};
use crate::{
    access::{Caller, Origin},
    app::{Failure, control, lock, places},
    clock::SharedClock,
    config::Config,
    domain::{
        audit::{Action, Door},
        id::UserId,
    },
    flow::audit_log::{self, Line},
    store::{self, Connect, Db, copy, schema, setting},
};

/// How a dump of PostgreSQL in its own format begins.
const DUMP: &[u8] = b"PGDMP";
/// How an SQLite file begins.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Puts the copy `from` in the database's place; what was there is kept, beside it (SQLite) or as a dump (PostgreSQL).
/// Signed links made before are void afterwards, and clips are as their records in the clip store say ([`records`]). With
/// `dry_run` only the copy is looked at. Answers how many clips differed from their records; none if the clip store was not
/// there to be asked.
///
/// # Errors
/// [`Failure::Failed`] while a service runs, or when `from` is no whole copy of ours; nothing is
/// changed then. One that was interrupted later is repeated.
pub async fn restore(
    config: &Config,
    clock: &SharedClock,
    from: &Path,
    dry_run: bool,
) -> Result<Option<u64>, Failure> {
    places::make_data_dir(config)?;
    let _locks = lock::acquire(config).await?;
    let sqlite = lock::sqlite_file(config);
    let wanted = if sqlite.is_some() { SQLITE } else { DUMP };
    let head = head(from)?;
    if !head.starts_with(wanted) {
        let what = if sqlite.is_some() { "an SQLite database" } else { "a dump of PostgreSQL" };
        return Err(Failure::Failed(format!("{} is not {what}", from.display())));
    }
    if sqlite.is_some() && is_cut_short(from, &head)? {
        return Err(broken(from, &["it is cut short".to_owned()]));
    }
    match sqlite {
        Some(place) => restore_file(config, clock, from, &place, dry_run).await,
        None => restore_dump(config, clock, from, dry_run).await,
    }
}

async fn restore_file(
    config: &Config,
    clock: &SharedClock,
    from: &Path,
    place: &Path,
    dry_run: bool,
) -> Result<Option<u64>, Failure> {
    let draft = beside(place, "restoring");
    clear(&draft)?;
    let prepared = async {
        fs::copy(from, &draft).map_err(|error| unusable(from, &error))?;
        copy_log(from, &draft)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))
            .map_err(|error| unusable(&draft, &error))?;
        let url = format!("sqlite://{}", text(&draft)?);
        let db = Db::connect(Connect { url: &url, max_connections: 1, create: false }).await?;
        let told = accept(config, clock, from, (&db, &url), dry_run).await;
        db.close().await?;
        told
    };
    let outcome = prepared.await;
    if dry_run || outcome.is_err() {
        clear(&draft)?;
        return outcome;
    }
    let changed = outcome?;
    let put = keep_old(place, clock).await.and_then(|()| finish(&draft, place));
    if put.is_err() {
        clear(&draft)?;
    }
    put.map(|()| changed)
}

/// Whether a copy is whole, ours, and of no newer release; marks it as restored then.
async fn accept(
    config: &Config,
    clock: &SharedClock,
    from: &Path,
    (db, url): (&Db, &str),
    dry_run: bool,
) -> Result<Option<u64>, Failure> {
    let faults = copy::faults(db).await?;
    if !faults.is_empty() {
        return Err(broken(from, &faults));
    }
    ours(config, from, named(db).await).await?;
    if let Some(newer) = schema::newer(db).await?.first() {
        return Err(of_newer_release(from, newer));
    }
    if dry_run {
        return Ok(None);
    }
    let changed = mark_restored(config, url, db, clock).await?;
    // what came in a log goes into the file, which alone is put in place
    copy::checkpoint(db).await?;
    Ok(changed)
}

fn of_newer_release(from: &Path, change: &str) -> Failure {
    Failure::Failed(format!("{} is of a newer release: it has {change}", from.display()))
}

/// Which instance's database this is; none if it has no such thing.
async fn named(db: &Db) -> Option<String> {
    setting::find(db.conn(), setting::INSTANCE_ID).await.ok().flatten()
}

/// A copy must be of this service's database, and of the one that the clip store belongs to, if it belongs to any yet.
async fn ours(config: &Config, from: &Path, instance: Option<String>) -> Result<(), Failure> {
    let Some(instance) = instance else {
        return Err(Failure::Failed(format!(
            "{} is no copy of this service's database",
            from.display()
        )));
    };
    match places::instance_of(&config.storage.clips).await? {
        Some(store) if store.as_str() != instance => Err(Failure::Failed(format!(
            "{} is of instance {instance}, the clip store of {store}",
            from.display()
        ))),
        _ => Ok(()),
    }
}

/// A file that was copied after its program died (or that [`keep_old`] could not open) has its newest changes in a second
/// file beside it.
fn copy_log(from: &Path, draft: &Path) -> Result<(), Failure> {
    let log = with_suffix(from, "-wal");
    match fs::copy(&log, with_suffix(draft, "-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unusable(&log, &error)),
        _ => Ok(()),
    }
}

/// Keeps the database that was there under another name; its log is in it, or beside it where it cannot be opened. From
/// then on nothing lies beside `place` that a database put there would take for its own.
async fn keep_old(place: &Path, clock: &SharedClock) -> Result<(), Failure> {
    if !place.exists() {
        return clear(place);
    }
    let kept = beside(place, &format!("before-{}", clock.now().as_millis()));
    let url = format!("sqlite://{}", text(place)?);
    let opened = Db::connect(Connect { url: &url, max_connections: 1, create: false }).await;
    let whole = match opened {
        Ok(db) => {
            let done = copy::checkpoint(&db).await;
            db.close().await.and(done).is_ok()
        }
        Err(_) => false,
    };
    for ending in ["", "-wal", "-shm"] {
        let (old, new) = (with_suffix(place, ending), with_suffix(&kept, ending));
        let moved = match (ending, whole) {
            // the name stays taken until the copy takes it: a service never finds no database here
            ("", true) => fs::hard_link(&old, &new),
            // damaged: what there is is copied, and nothing written to it
            _ => fs::copy(&old, &new).and_then(|_| fs::File::open(&new)?.sync_all()),
        };
        match moved {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(unusable(&old, &error));
            }
            _ => {}
        }
    }
    ["-wal", "-shm"].iter().try_for_each(|ending| remove(&with_suffix(place, ending)))
}

async fn restore_dump(
    config: &Config,
    clock: &SharedClock,
    from: &Path,
    dry_run: bool,
) -> Result<Option<u64>, Failure> {
    let path = text(from)?;
    let told = async |table: &str| {
        let mut command = Command::new("pg_restore");
        command.args(["--data-only", "--table", table, "--file", "-", &path]);
        run("pg_restore", &mut command).await
    };
    let settings = told("setting").await?;
    let instance = settings.lines().find_map(|line| line.strip_prefix("instance_id\t"));
    ours(config, from, instance.map(ToOwned::to_owned)).await?;
    let known = schema::known();
    for ledger in schema::ledgers() {
        let applied = told(&ledger).await?;
        let names = applied.lines().filter_map(|line| line.split_once('\t')).map(|(name, _)| name);
        if let Some(newer) = names.into_iter().find(|name| !known.iter().any(|known| known == name))
        {
            return Err(of_newer_release(from, newer));
        }
    }
    // every block of it, before anything that is there goes
    run("pg_restore", Command::new("pg_restore").args(["--file", "/dev/null", &path])).await?;
    if dry_run {
        return Ok(None);
    }
    let url = config.database.url.expose_secret();
    let db = Db::connect(Connect { url, max_connections: 1, create: false }).await?;
    let emptied = empty(config, clock, &db).await;
    db.close().await?;
    let kept = emptied?;
    load(config, &path).await.map_err(|failure| match kept {
        Some(kept) => Failure::Failed(format!(
            "{failure}; the database is empty now, and what was in it is kept in {}: `db restore` that one, or this one again",
            kept.display()
        )),
        None => failure,
    })?;
    let db = Db::connect(Connect { url, max_connections: 1, create: false }).await?;
    let marked = mark_restored(config, url, &db, clock).await;
    db.close().await?;
    marked.map_err(|failure| {
        Failure::Failed(format!(
            "{failure}; the copy is in place, but not yet what owners said of their clips since: repeat this before the \
             service is started"
        ))
    })
}

/// All of a dump or nothing. Whose tables they were and who was granted what in the other database says nothing here.
async fn load(config: &Config, path: &str) -> Result<(), Failure> {
    let args = [
        "--clean",
        "--if-exists",
        "--no-owner",
        "--no-privileges",
        "--single-transaction",
        "--exit-on-error",
        path,
    ];
    tool("pg_restore", config, &args).await.map(drop)
}

/// Takes our tables away, also those that the copy's release does not have; answers where what was there is kept as a dump.
async fn empty(config: &Config, clock: &SharedClock, db: &Db) -> Result<Option<PathBuf>, Failure> {
    alone(db).await?;
    let pending = schema::pending(db).await?;
    if pending.len() == schema::known().len() {
        return Ok(None);
    }
    let kept = format!("livekit-replay.before-{}.dump", clock.now().as_millis());
    let kept = config.data_dir.join(kept);
    backup(config, &kept).await?;
    schema::migrate_down(db, None).await?;
    Ok(Some(kept))
}

/// Brings a copy of an older release up to this one. Links that were made void since the copy must stay so, what
/// owners narrowed since must stay narrow, and the audit log says that time went back.
async fn mark_restored(
    config: &Config,
    url: &str,
    db: &Db,
    clock: &SharedClock,
) -> Result<Option<u64>, Failure> {
    schema::migrate_up(url, db).await?;
    let fresh = hex::encode(rand::random::<[u8; 32]>());
    setting::set(db.conn(), setting::LINK_SECRET, fresh).await?;
    let changed = records::catch_up(config, db, clock.now()).await?;
    let tx = db.begin().await?;
    let line = Line::new(Action::DatabaseRestore);
    audit_log::done(&tx, &operator(clock), line, clock.now()).await?;
    store::commit(tx).await?;
    Ok(changed)
}

fn operator(clock: &SharedClock) -> Caller {
    let uid = Some(rustix::process::getuid().as_raw());
    Caller {
        user_id: UserId::new(control::OPERATOR),
        name: None,
        issued_at: Some(clock.now()),
        communities: std::collections::BTreeMap::new(),
        roles: Vec::new(),
        origin: Origin { door: Door::CommandLine, uid, ..Origin::default() },
    }
}

fn broken(from: &Path, faults: &[String]) -> Failure {
    Failure::Failed(format!("{} is damaged: {}", from.display(), faults.join("; ")))
}

fn head(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(100).read_to_end(&mut head));
    read.map_err(|error| unusable(path, &error))?;
    Ok(head)
}

/// Whether an SQLite file does not end with a page: SQLite fills the rest up with zeros and finds nothing wrong. The size of
/// a page stands in its head (SQLite's file format, 1.3.2); pages that are missing altogether it notices by itself.
fn is_cut_short(path: &Path, head: &[u8]) -> Result<bool, Failure> {
    let page = match head.get(16..18) {
        Some([0, 1]) => 65_536,
        Some(&[high, low]) => u64::from(u16::from_be_bytes([high, low])),
        _ => return Ok(false),
    };
    let size = fs::metadata(path).map_err(|error| unusable(path, &error))?.len();
    Ok(page > 0 && size % page != 0)
}

/// Removes an SQLite file with what lies beside it.
fn clear(path: &Path) -> Result<(), Failure> {
    ["", "-wal", "-shm"].iter().try_for_each(|ending| remove(&with_suffix(path, ending)))
}
