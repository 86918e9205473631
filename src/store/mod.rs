//! Rows. sea-orm lives here and nowhere else; a flow sees only [`Db`], [`Tx`] and the named queries.
//!
//! A query takes a connection or a transaction and never opens one by itself, so that the flow above decides what
//! is atomic. Within a transaction always pass the transaction: with one pooled connection anything else waits for
//! itself. Limits are conditional updates and unique indexes, never a look followed by an insert.

use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection,
    DatabaseTransaction, DbErr, IsolationLevel, RuntimeErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
    sqlx::{
        postgres::PgConnectOptions,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};

use crate::error::{Code, Error, Result};

pub mod audit;
pub mod clip;
mod columns;
pub mod community;
pub mod copy;
pub mod delivery;
pub mod epoch;
pub mod event;
pub mod idempotency;
pub mod job;
pub mod maintenance;
pub mod member;
pub mod pin;
pub mod policy;
pub mod preference;
pub mod preview;
pub mod quota;
pub mod rate;
pub mod schema;
pub mod segment;
pub mod session;
pub mod setting;
pub mod share;
pub mod ticket;
pub mod trace;
pub mod usage;
pub mod webhook;
pub mod wish;

/// A value of a row's change, or none: what is not `Set` stays as it is.
pub use sea_orm::ActiveValue::{NotSet, Set};

/// A transaction; dropped without `commit` it is rolled back.
pub type Tx = DatabaseTransaction;

/// What a named query runs on: [`Db::conn`] or a [`Tx`].
pub trait Conn: ConnectionTrait {}
impl<C: ConnectionTrait> Conn for C {}

/// Which of the two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The embedded default: one process.
    Sqlite,
    /// Several replicas.
    Postgres,
}

/// A pool on either engine.
#[derive(Debug, Clone)]
pub struct Db {
    conn: DatabaseConnection,
}

/// How to reach a database.
#[derive(Debug, Clone)]
pub struct Connect<'a> {
    /// `sqlite://path` or `postgres://…`.
    pub url: &'a str,
    /// Size of the pool.
    pub max_connections: u32,
    /// Whether a missing SQLite file is made.
    pub create: bool,
}

impl Db {
    /// Opens the pool. Waits at most 10 s for a connection, then and later.
    ///
    /// # Errors
    /// [`Code::Internal`] when the database is not there or refuses us.
    pub async fn connect(how: Connect<'_>) -> Result<Db> {
        let mut options = ConnectOptions::new(how.url.to_owned());
        options
            .max_connections(how.max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_timeout(Duration::from_secs(10))
            .sqlx_logging(false);
        let create = how.create;
        options.map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .create_if_missing(create)
                .journal_mode(SqliteJournalMode::Wal)
                // FULL: a clip that was accepted survives a power cut, not only a crash of ours
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(10))
                .foreign_keys(true)
                // what is deleted is not to be read in the file
                .pragma("secure_delete", "ON")
        });
        options.map_sqlx_postgres_opts(|postgres: PgConnectOptions| {
            postgres.application_name("livekit-replay").options([
                ("statement_timeout", "15000"),
                // shorter than anybody waits for a place in the pool: a row that somebody holds for long holds up who
                // needs it, and not everybody else with him
                ("lock_timeout", "7000"),
                ("idle_in_transaction_session_timeout", "30000"),
            ])
        });
        let conn = Database::connect(options)
            .await
            .map_err(|error| Error::internal("opening the database", error))?;
        Ok(Db { conn })
    }

    /// What queries outside a transaction run on.
    pub fn conn(&self) -> &DatabaseConnection {
        &self.conn
    }

    /// Which engine this is.
    pub fn engine(&self) -> Engine {
        match self.conn.get_database_backend() {
            DatabaseBackend::Sqlite => Engine::Sqlite,
            _ => Engine::Postgres,
        }
    }

    /// Opens a transaction that will write (SQLite takes the write lock at once, so it cannot fail half way).
    pub async fn begin(&self) -> Result<Tx> {
        self.conn
            .begin_with_options(TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..Default::default()
            })
            .await
            .map_err(|error| db_error("opening a transaction", error))
    }

    /// Opens a transaction that only reads, and sees all tables as they were at one moment: by itself PostgreSQL looks
    /// anew with every statement.
    pub async fn begin_snapshot(&self) -> Result<Tx> {
        let isolation_level =
            (self.engine() == Engine::Postgres).then_some(IsolationLevel::RepeatableRead);
        self.conn
            .begin_with_options(TransactionOptions { isolation_level, ..Default::default() })
            .await
            .map_err(|error| db_error("opening a snapshot", error))
    }

    /// One trivial query, for readiness.
    pub async fn ping(&self) -> Result<()> {
        self.conn.ping().await.map_err(|error| db_error("asking the database", error))
    }

    /// What was deleted leaves SQLite's log, too, unless somebody reads there at this moment; in its file deleted rows
    /// are overwritten (`secure_delete`). PostgreSQL reuses their place in its own time, after a vacuum.
    pub async fn shed_deleted(&self) -> Result<()> {
        if self.engine() == Engine::Sqlite {
            let done = self.conn.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await;
            done.map_err(|error| db_error("writing the log back", error))?;
        }
        Ok(())
    }

    /// Connections open and idle.
    pub fn pool(&self) -> (u32, usize) {
        match self.engine() {
            Engine::Sqlite => {
                let pool = self.conn.get_sqlite_connection_pool();
                (pool.size(), pool.num_idle())
            }
            Engine::Postgres => {
                let pool = self.conn.get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
        }
    }

    /// Closes the pool; later queries fail.
    pub async fn close(self) -> Result<()> {
        self.conn.close().await.map_err(|error| db_error("closing the database", error))
    }
}

/// Commits.
pub async fn commit(tx: Tx) -> Result<()> {
    tx.commit().await.map_err(|error| db_error("committing", error))
}

/// Rolls back, for the paths where saying so beats dropping.
pub async fn rollback(tx: Tx) -> Result<()> {
    tx.rollback().await.map_err(|error| db_error("rolling back", error))
}

/// Turns a database error into ours: contention and lost connections are worth another try, the rest is a fault.
pub fn db_error(doing: &'static str, error: DbErr) -> Error {
    if is_transient(&error) {
        Error::new(Code::Overloaded, "The database is busy; try again.")
            .retry_after(Duration::from_secs(1))
            .retryable()
            .because(error)
    } else {
        Error::internal(doing, error)
    }
}

/// A server that stops, starts or is full, a lost connection, a deadlock, a lock or a statement that took too long, a
/// serialization failure (PostgreSQL); busy or locked (SQLite).
const TRANSIENT: [&str; 19] = [
    "08000", "08001", "08003", "08004", "08006", "40001", "40P01", "53300", "55P03", "57014",
    "57P01", "57P02", "57P03", "5", "6", "261", "262", "517", "773",
];

/// Whether another try may help: one of [`TRANSIENT`], a pool without a free place, a connection that broke.
fn is_transient(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
            if matches!(**cause, sea_orm::sqlx::Error::Io(_) | sea_orm::sqlx::Error::PoolTimedOut) {
                return true;
            }
            cause
                .as_database_error()
                .and_then(|error| error.code())
                .is_some_and(|code| TRANSIENT.contains(&code.as_ref()))
        }
        _ => false,
    }
}

/// For the few texts that the two engines spell differently.
pub(crate) fn is_sqlite(backend: DatabaseBackend) -> bool {
    backend == DatabaseBackend::Sqlite
}

/// Whether an insert met a unique index.
pub(crate) fn is_unique_violation(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(sea_orm::SqlErr::UniqueConstraintViolation(_)))
}

/// A page of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// How many at most.
    pub limit: u64,
    /// How many to pass over.
    pub offset: u64,
}
