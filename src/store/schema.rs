//! The schema's version: brought up, taken down, checked.

use livekit_replay_migrations::{First, Later, MigrationTrait, MigratorTrait, SchemaManager};
use sea_orm::{
    ConnectionTrait, DynIden,
    sea_query::{Expr, ExprTrait, Order, Query},
};

use super::{Db, Engine, db_error};
use crate::error::{Error, Result};

/// The key of the advisory lock that lets one replica migrate at a time (PostgreSQL).
const MIGRATION_LOCK: i64 = 0x6c6b_7265_706c_6179;
/// A change that was taken back before it was released.
const CHECKSUMS: &str = "m0014_checksums_anew";

/// How long one statement of a change may take, and how long a replica waits for another that makes it: ten minutes.
const MIGRATION_MS: u64 = 600_000;

/// Brings the schema up to this binary's version. Safe when several replicas do it at once: on PostgreSQL a session
/// lock on a pool of one connection, on SQLite the file has one writer. A schema that a newer release has brought further
/// is left as it is: it is made to serve this one too (`docs/operations.md`).
pub async fn migrate_up(url: &str, db: &Db) -> Result<()> {
    match db.engine() {
        Engine::Sqlite => up(db).await,
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
            let outcome = up(&single).await;
            // closing the only connection gives the lock back, also after a failure
            single.close().await?;
            outcome
        }
    }
}

async fn up(db: &Db) -> Result<()> {
    let failed = |error| Error::internal("migrating the schema up", error);
    part_ledgers(db).await?;
    First::up(db.conn(), None).await.map_err(failed)?;
    // the library refuses a ledger that names changes it does not know, also where nothing is to be done
    if pending(db).await?.is_empty() {
        return Ok(());
    }
    Later::up(db.conn(), None).await.map_err(failed)
}

/// Builds between the first release and the next kept all changes in the first ledger.
async fn part_ledgers(db: &Db) -> Result<()> {
    let first = names(First::migrations());
    let later = names(Later::migrations());
    let applied = applied_in(db, First::migration_table_name()).await?;
    let strays: Vec<_> = applied.iter().filter(|name| !first.contains(name)).collect();
    if strays.is_empty() {
        return Ok(());
    }
    if let Some(newer) = strays.iter().find(|name| !later.contains(name) && **name != CHECKSUMS) {
        return Err(Error::internal("reading the schema's version", format!("{newer} is unknown")));
    }
    let failed = |error| db_error("parting the ledgers of the schema", error);
    Later::install(db.conn())
        .await
        .map_err(|error| Error::internal("making a ledger of the schema", error))?;
    let tx = db.begin().await?;
    for name in strays {
        // what that change did is undone by its successor, which is a column of its own
        if name != CHECKSUMS {
            let mut insert = Query::insert();
            insert.into_table(Later::migration_table_name()).columns(["version", "applied_at"]);
            insert.values_panic([name.as_str().into(), 0_i64.into()]);
            tx.execute(&insert).await.map_err(failed)?;
        }
        let mut delete = Query::delete();
        delete
            .from_table(First::migration_table_name())
            .and_where(Expr::col("version").eq(name.as_str()));
        tx.execute(&delete).await.map_err(failed)?;
    }
    super::commit(tx).await
}

/// Takes the schema down by `steps` changes (all of them with `None`).
pub async fn migrate_down(db: &Db, steps: Option<u32>) -> Result<()> {
    let failed = |error| Error::internal("migrating the schema down", error);
    let later = applied_in(db, Later::migration_table_name()).await?.len();
    let later = u32::try_from(later).unwrap_or(u32::MAX);
    Later::down(db.conn(), steps.map(|steps| Ord::min(steps, later))).await.map_err(failed)?;
    match steps.map(|steps| steps.saturating_sub(later)) {
        Some(0) => Ok(()),
        steps => First::down(db.conn(), steps).await.map_err(failed),
    }
}

/// The tables that say which changes were made.
pub fn ledgers() -> [String; 2] {
    [First::migration_table_name(), Later::migration_table_name()].map(|name| name.to_string())
}

/// The changes that this binary knows, oldest first.
pub fn known() -> Vec<String> {
    let mut known = names(First::migrations());
    known.extend(names(Later::migrations()));
    known
}

/// The changes that this binary knows and the database does not have yet.
pub async fn pending(db: &Db) -> Result<Vec<String>> {
    let applied = applied(db).await?;
    Ok(known().into_iter().filter(|name| !applied.contains(name)).collect())
}

/// The changes that the database has and this binary does not know: those of a newer release.
pub async fn newer(db: &Db) -> Result<Vec<String>> {
    let known = known();
    Ok(applied(db).await?.into_iter().filter(|name| !known.contains(name)).collect())
}

fn names(changes: Vec<Box<dyn MigrationTrait>>) -> Vec<String> {
    changes.iter().map(|change| change.name().to_owned()).collect()
}

async fn applied(db: &Db) -> Result<Vec<String>> {
    let mut applied = applied_in(db, First::migration_table_name()).await?;
    applied.extend(applied_in(db, Later::migration_table_name()).await?);
    Ok(applied)
}

async fn applied_in(db: &Db, ledger: DynIden) -> Result<Vec<String>> {
    let failed = |error| db_error("reading the schema's version", error);
    if !SchemaManager::new(db.conn()).has_table(ledger.to_string()).await.map_err(failed)? {
        return Ok(Vec::new());
    }
    let mut select = Query::select();
    select.column("version").from(ledger).order_by("version", Order::Asc);
    let rows = db.conn().query_all(&select).await.map_err(failed)?;
    rows.iter().map(|row| row.try_get_by_index(0).map_err(failed)).collect()
}

/// `col + amount`, as a conditional update writes it.
pub(crate) fn plus<C: sea_orm::sea_query::IntoIden>(column: C, amount: i64) -> Expr {
    Expr::col(column.into_iden()).add(amount)
}
