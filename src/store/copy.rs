//! Whole copies of an embedded database, and whether one is whole. PostgreSQL has tools of its own for that.

use sea_orm::{ConnectionTrait, DatabaseBackend, EntityTrait, Statement};

use super::{Db, clip, db_error, session};
use crate::error::Result;

/// Writes a copy as of this moment into a file that is not there yet; whoever works with the database goes on.
///
/// # Errors
/// Of the database: the file is there already, no room.
pub async fn write_copy(db: &Db, path: &str) -> Result<()> {
    let statement =
        Statement::from_sql_and_values(DatabaseBackend::Sqlite, "VACUUM INTO ?", [path.into()]);
    let done = db.conn().execute_raw(statement).await;
    done.map(drop).map_err(|error| db_error("copying the database", error))
}

/// Brings everything that was committed into the file itself.
///
/// # Errors
/// Of the database.
pub async fn checkpoint(db: &Db) -> Result<()> {
    let done = db.conn().execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await;
    done.map(drop).map_err(|error| db_error("bringing the log into the file", error))
}

/// What is wrong with the file, in SQLite's words; nothing if it is whole.
///
/// # Errors
/// Of the database: the file is none.
pub async fn faults(db: &Db) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pragma in ["PRAGMA integrity_check(20)", "PRAGMA foreign_key_check"] {
        let rows = db
            .conn()
            .query_all_raw(Statement::from_string(DatabaseBackend::Sqlite, pragma))
            .await
            .map_err(|error| db_error("checking the database", error))?;
        for row in rows {
            let text: String = row.try_get_by_index(0).unwrap_or_default();
            if text != "ok" {
                found.push(text);
            }
        }
    }
    Ok(found)
}

/// How many other clients are connected to this PostgreSQL database; its own workers (autovacuum) are none.
///
/// # Errors
/// Of the database.
pub async fn others(db: &Db) -> Result<i64> {
    let statement = Statement::from_string(
        DatabaseBackend::Postgres,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND backend_type = 'client backend'",
    );
    let row = db.conn().query_one_raw(statement).await;
    let row = row.map_err(|error| db_error("asking who is connected", error))?;
    Ok(row.and_then(|row| row.try_get_by_index(0).ok()).unwrap_or(0))
}

/// Whether any session or clip is known.
///
/// # Errors
/// Of the database.
pub async fn in_use(db: &Db) -> Result<bool> {
    let clip = clip::Entity::find().one(db.conn()).await;
    let session = session::Entity::find().one(db.conn()).await;
    let none = clip.map_err(|error| db_error("looking for clips", error))?.is_none()
        && session.map_err(|error| db_error("looking for sessions", error))?.is_none();
    Ok(!none)
}
