//! Copies of the database, their return ([`restore`]), and what can be had back without one: `db backup`, `db restore`,
//! `db rebuild`.
//!
//! The stores are not copied: clips are files with a record beside each, so any file backup of the clip store will do.

mod records;
mod restore;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use tokio::{process::Command, time::Instant};

pub use restore::restore;

use super::{Database, Failure, build, lock, open_database, places};
use crate::{
    clock::SharedClock,
    config::Config,
    domain::id::InstanceId,
    flow::{clip_files, reap},
    store::{self, Connect, Db, copy, setting},
};

/// How long PostgreSQL's own tools may take.
const TOOLS: Duration = Duration::from_secs(3600);

/// Writes a copy of the database to `to`, which must not be there yet; the service may run meanwhile.
///
/// # Errors
/// [`Failure::Failed`] saying what could not be written or read; nothing is left at `to` then.
pub async fn backup(config: &Config, to: &Path) -> Result<(), Failure> {
    if to.exists() {
        return Err(Failure::Failed(format!("{} is there already", to.display())));
    }
    let draft = beside(to, "part");
    remove(&draft)?;
    // for us alone from its first byte: names of people are in it
    private_directory_entry(&draft)?;
    let made = async {
        if let Some(place) = lock::sqlite_file(config) {
            // of whatever release: a copy before a change of release is what one wants most
            let url = format!("sqlite://{}", text(&place)?);
            let db = Db::connect(Connect { url: &url, max_connections: 1, create: false }).await?;
            let copied = copy::write_copy(&db, &text(&draft)?).await;
            db.close().await?;
            copied?;
        } else {
            let args =
                ["--format=custom", "--no-owner", "--no-privileges", "--file", &text(&draft)?];
            tool("pg_dump", config, &args).await.map(drop)?;
        }
        finish(&draft, to)
    };
    let outcome = made.await;
    if outcome.is_err() {
        remove(&draft)?;
    }
    outcome
}

/// PostgreSQL may need so long to notice that somebody has gone, a replica that was stopped just before for one.
const LEAVING: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Nobody else may be connected.
async fn alone(db: &Db) -> Result<(), Failure> {
    let began = Instant::now();
    while db.engine() == store::Engine::Postgres && copy::others(db).await? > 0 {
        if began.elapsed() > LEAVING {
            return Err(Failure::Failed(
                "somebody is connected to this database; stop every replica first".to_owned(),
            ));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Makes a new database for the clip store that is there and gives every clip with a record its row back (private).
/// Answers how many that were, or with `dry_run` how many it would be; nothing is made then. And how many things in
/// the store could not be looked at, or put where they belong.
///
/// # Errors
/// [`Failure::Failed`] while a service runs, when the database knows clips or sessions, or the store has no marker.
pub async fn rebuild(
    config: Config,
    clock: SharedClock,
    dry_run: bool,
) -> Result<(u64, u64), Failure> {
    places::make_data_dir(&config)?;
    let _locks = lock::acquire(&config).await?;
    let store = &config.storage.clips;
    let instance = places::instance_of(store).await?.ok_or_else(|| {
        Failure::Failed(format!("{} has no marker: it is no clip store of ours", store.display()))
    })?;
    if dry_run {
        let root = config.storage.clips.clone();
        let counted =
            tokio::task::spawn_blocking(move || clip_files::count_whole(&root, &instance));
        let counted = counted.await.map_err(|error| Failure::Failed(error.to_string()))?;
        return Ok((counted.map_err(|error| unusable(&config.storage.clips, &error))?, 0));
    }
    let db = open_database(&config, Database::Make).await?;
    let adopted = adopt(&db, &instance).await;
    db.close().await?;
    adopted?;
    let deps = build(config, clock, Database::Find).await?;
    let counts = reap::clip_store(&deps, false).await;
    deps.db.close().await?;
    let counts = counts?;
    Ok((counts.clips_restored, counts.failed))
}

async fn adopt(db: &Db, instance: &InstanceId) -> Result<(), Failure> {
    alone(db).await?;
    if copy::in_use(db).await? {
        return Err(Failure::Failed(
            "this database knows sessions or clips; a running service gives lost clips their rows back by itself \
             (`clips verify --repair` at once)"
                .to_owned(),
        ));
    }
    setting::set(db.conn(), setting::INSTANCE_ID, instance.as_str().to_owned()).await?;
    Ok(())
}

/// What is wrong with an embedded database, in its own words. PostgreSQL looks after its files by itself.
///
/// # Errors
/// Those of the database.
pub async fn faults(config: &Config) -> Result<Vec<String>, Failure> {
    if lock::sqlite_file(config).is_none() {
        return Ok(Vec::new());
    }
    // a schema that is not complete is another question
    let Ok(db) = open_database(config, Database::Find).await else { return Ok(Vec::new()) };
    let faults = copy::faults(&db).await;
    db.close().await?;
    Ok(faults?)
}

/// A tool of PostgreSQL on the configured database. The password goes by the environment: arguments are everybody's
/// to see.
async fn tool(program: &str, config: &Config, args: &[&str]) -> Result<String, Failure> {
    let (url, password) = address(config.database.url.expose_secret())
        .ok_or_else(|| Failure::Setup("database.url cannot be read".to_owned()))?;
    let mut command = Command::new(program);
    command.args(args).arg("--dbname").arg(url.as_str());
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    run(program, &mut command).await
}

/// A parameter of our driver's own, which PostgreSQL's tools refuse.
const OF_THE_DRIVER: &str = "statement-cache-capacity";

/// A parameter's name as PostgreSQL has it; our driver takes others, too.
fn common_name(name: &str) -> &str {
    match name {
        "ssl-mode" => "sslmode",
        "ssl-root-cert" | "ssl-ca" => "sslrootcert",
        "ssl-cert" => "sslcert",
        "ssl-key" => "sslkey",
        name => name,
    }
}

/// An address as PostgreSQL's tools take it, and the password that was in it: before the host, or among the parameters.
fn address(url: &str) -> Option<(reqwest::Url, Option<String>)> {
    let mut url = reqwest::Url::parse(url).ok()?;
    let mut password =
        url.password().map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
    // an address without a host (a socket's directory is a parameter) has none, and none can be taken out of it
    if password.is_some() {
        url.set_password(None).ok()?;
    }
    let mut left = Vec::new();
    for (name, value) in url.query_pairs().into_owned() {
        match name.as_str() {
            "password" => password = Some(value),
            OF_THE_DRIVER => {}
            name => left.push((common_name(name).to_owned(), value)),
        }
    }
    if url.query().is_some() {
        url.set_query(None);
    }
    if !left.is_empty() {
        url.query_pairs_mut().extend_pairs(left);
        // PostgreSQL's tools take a blank that is written as forms have it for a plus
        let query = url.query().map(|query| query.replace('+', "%20"));
        url.set_query(query.as_deref());
    }
    Some((url, password))
}

async fn run(program: &str, command: &mut Command) -> Result<String, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = match tokio::time::timeout(TOOLS, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::Setup(format!(
                "{program} is not installed (Debian: postgresql-client)"
            )));
        }
        Ok(Err(error)) => return Err(Failure::Failed(format!("{program}: {error}"))),
        Err(_) => return Err(Failure::Failed(format!("{program} took more than an hour"))),
    };
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Failure::Failed(format!("{program}: {}", said.trim())))
        }
    }
}

/// Whole on disk, then its name, then the name on disk.
fn finish(draft: &Path, place: &Path) -> Result<(), Failure> {
    let sync = |path: &Path| fs::File::open(path).and_then(|file| file.sync_all());
    fs::set_permissions(draft, fs::Permissions::from_mode(0o600))
        .and_then(|()| sync(draft))
        .and_then(|()| fs::rename(draft, place))
        .and_then(|()| sync(directory_of(place)))
        .map_err(|error| unusable(place, &error))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn private_directory_entry(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| unusable(path, &error))
}

/// `<path>.<ending>`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    with_suffix(path, &format!(".{ending}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unusable(path, &error)),
        _ => Ok(()),
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(ToOwned::to_owned);
    text.ok_or_else(|| Failure::Setup(format!("{} is not UTF-8", path.display())))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_to_tools_without_its_password_and_what_they_do_not_know() {
        for (given, taken, password) in [
            ("postgres://u:p%40w@h:5433/db", "postgres://u@h:5433/db", Some("p@w")),
            ("postgres://u@h/db?sslmode=require", "postgres://u@h/db?sslmode=require", None),
            (
                "postgres:///db?host=%2Frun%2Fpg&password=s%26t&statement-cache-capacity=0",
                "postgres:///db?host=%2Frun%2Fpg",
                Some("s&t"),
            ),
            (
                "postgres://h/db?options=-c%20a%3Db%2Bc",
                "postgres://h/db?options=-c%20a%3Db%2Bc",
                None,
            ),
            (
                "postgres://h/db?ssl-ca=%2Fc&password=x",
                "postgres://h/db?sslrootcert=%2Fc",
                Some("x"),
            ),
        ] {
            let (url, found) = address(given).expect("an address");
            assert_eq!((url.as_str(), found.as_deref()), (taken, password), "{given}");
        }
        assert!(address("not an address").is_none());
    }
}
