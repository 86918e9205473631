//! The schema's version: brought up, taken down, checked.

use livekit_replay_migrations::{Migrator, MigratorTrait};
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::Expr;

use super::{Db, Engine, db_error};
use crate::error::{Error, Result};

/// The key of the advisory lock that lets one replica migrate at a time (PostgreSQL).
const MIGRATION_LOCK: i64 = 0x6c6b_7265_706c_6179;

/// How long one statement of a change may take, and how long a replica waits for another that makes it: ten minutes.
const MIGRATION_MS: u64 = 600_000;

/// Brings the schema up to this binary's version. Safe when several replicas do it at once: on PostgreSQL a session
/// lock on a pool of one connection, on SQLite the file has one writer.
pub async fn migrate_up(url: &str, db: &Db) -> Result<()> {
    match db.engine() {
        Engine::Sqlite => Migrator::up(db.conn(), None)
            .await
            .map_err(|error| Error::internal("migrating the schema up", error)),
        Engine::Postgres => {
            // Session locks belong to one connection: never taken from a larger pool.
            let single =
                Db::connect(super::Connect { url, max_connections: 1, create: false }).await?;
            // The deadlines of daily work are not meant for it: a change of a large table takes its time, and whoever
            // waits for it waits as long.
            let lock = format!(
                "SET statement_timeout = {MIGRATION_MS}; SET lock_timeout = {MIGRATION_MS}; \
                 SELECT pg_advisory_lock({MIGRATION_LOCK})"
            );
            single
                .conn()
                .execute_unprepared(&lock)
                .await
                .map_err(|error| db_error("waiting for the migration lock", error))?;
            let outcome = Migrator::up(single.conn(), None)
                .await
                .map_err(|error| Error::internal("migrating the schema up", error));
            // closing the only connection gives the lock back, also after a failure
            single.close().await?;
            outcome
        }
    }
}

/// Takes the schema down by `steps` changes (all of them with `None`).
pub async fn migrate_down(db: &Db, steps: Option<u32>) -> Result<()> {
    Migrator::down(db.conn(), steps)
        .await
        .map_err(|error| Error::internal("migrating the schema down", error))
}

/// The changes that this binary knows, oldest first.
pub fn known() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// The changes that this binary knows and the database does not have yet.
pub async fn pending(db: &Db) -> Result<Vec<String>> {
    let pending = Migrator::get_pending_migrations(db.conn())
        .await
        .map_err(|error| Error::internal("reading the schema's version", error))?;
    Ok(pending.iter().map(|migration| migration.name().to_owned()).collect())
}

/// `col + amount`, as a conditional update writes it.
pub(crate) fn plus<C: sea_orm::sea_query::IntoIden>(column: C, amount: i64) -> Expr {
    use sea_orm::sea_query::ExprTrait;
    Expr::col(column.into_iden()).add(amount)
}
