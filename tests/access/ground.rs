//! The world as it was: every table and every file of a clip, to be put back after a request that changed it.

use std::path::{Path, PathBuf};

use livekit_replay::store::{self, Connect, Db, Engine, Tx};
use sea_orm::{ConnectionTrait, Statement};

use crate::harness::{App, dump};

type Tables = std::collections::BTreeMap<String, Vec<String>>;

/// What every table held, and the files.
pub struct Ground {
    tables: Vec<String>,
    /// Our copies, which are no tables of the service.
    copies: Vec<String>,
    pub rows: Tables,
    files: PathBuf,
}

/// Who asked for what and was refused: the only trace that a refusal leaves.
const AUDIT: [&str; 2] = ["audit_entry", "audit_person"];

impl Ground {
    pub async fn keep(app: &App) -> Ground {
        let mut rows = dump(&app.deps.db, &[]).await;
        // the engine's own counter of ids, which a row that was put back has raised
        rows.remove("sqlite_sequence");
        // a refused privileged act is written down, and what was written down stays
        for log in AUDIT {
            rows.remove(log);
        }
        let migrations = |name: &&String| !name.starts_with("seaql_");
        let tables: Vec<String> = rows.keys().filter(migrations).cloned().collect();
        let copies: Vec<String> = tables.iter().map(|name| format!("kept_{name}")).collect();
        for (table, copy) in tables.iter().zip(&copies) {
            let statement = format!("CREATE TABLE \"{copy}\" AS SELECT * FROM \"{table}\"");
            app.deps.db.conn().execute_unprepared(&statement).await.expect("a copy");
        }
        let files = app.dir.join("kept-clips");
        copy_all(&app.deps.config.storage.clips, &files);
        Ground { tables, copies, rows, files }
    }

    /// What the tables hold now.
    pub async fn now(&self, app: &App) -> Tables {
        let copies: Vec<&str> = self.copies.iter().map(String::as_str).collect();
        dump(&app.deps.db, &copies).await
    }

    /// Names of the tables that are not as they were.
    pub async fn changed(&self, app: &App) -> Vec<String> {
        let now = self.now(app).await;
        self.rows
            .iter()
            .filter(|(name, rows)| now.get(*name) != Some(rows))
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub async fn put_back(&self, app: &App) {
        app.until("what was begun is done", async || app.deps.tasks.is_empty()).await;
        let tx: Tx = app.deps.db.begin().await.expect("a transaction");
        for (table, copy) in self.tables.iter().zip(&self.copies) {
            for statement in [
                format!("DELETE FROM \"{table}\""),
                format!("INSERT INTO \"{table}\" SELECT * FROM \"{copy}\""),
            ] {
                tx.execute_unprepared(&statement).await.expect("put back");
            }
        }
        store::commit(tx).await.expect("committed");
        copy_all(&self.files, &app.deps.config.storage.clips);
    }
}

/// Runs one statement of the test's own.
pub async fn execute(app: &App, statement: &str, values: &[&str]) {
    let backend = app.deps.db.conn().get_database_backend();
    let text = match app.deps.db.engine() {
        Engine::Sqlite => statement.to_owned(),
        Engine::Postgres => (1..=values.len())
            .fold(statement.to_owned(), |text, at| text.replacen('?', &format!("${at}"), 1)),
    };
    let values: Vec<sea_orm::Value> = values.iter().map(|value| (*value).into()).collect();
    let done = Statement::from_sql_and_values(backend, text, values);
    let done = app.deps.db.conn().execute_raw(done).await.expect("a statement");
    assert!(done.rows_affected() > 0, "{statement}: nothing");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            // not over a file that another name leads to
            let _ = std::fs::remove_file(&target);
            std::fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// Nobody else can write of events while it is held: on SQLite nobody can write at all.
pub struct Lock {
    db: Db,
    tx: Tx,
}

impl Lock {
    pub async fn take(app: &App) -> Lock {
        use secrecy::ExposeSecret;
        let url = app.deps.config.database.url.expose_secret();
        let how = Connect { url, max_connections: 1, create: false };
        let db = Db::connect(how).await.expect("the database");
        // of SQLite this alone takes the file's lock
        let tx = db.begin().await.expect("a transaction");
        if db.engine() == Engine::Postgres {
            tx.execute_unprepared("LOCK TABLE event IN EXCLUSIVE MODE").await.expect("locked");
        }
        Lock { db, tx }
    }

    pub async fn release(self) {
        store::rollback(self.tx).await.expect("let go");
        self.db.close().await.expect("closed");
    }
}
