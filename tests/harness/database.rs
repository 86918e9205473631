//! A database of its own for every test, on either engine, and what is in it.

use std::{collections::BTreeMap, path::Path};

use livekit_replay::store::{Connect, Db, Engine as Kind};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

#[path = "../support/postgres_url.rs"]
mod postgres_url;

/// Which engine a test runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// A file in the test's directory.
    Sqlite,
    /// A database of its own on the server of this address.
    Postgres(String),
}

impl Engine {
    /// PostgreSQL, if there is a server; says so if not.
    pub fn postgres() -> Option<Engine> {
        postgres_url::postgres_url().map(Engine::Postgres)
    }
}

#[allow(unused_macros, reason = "each test binary uses its own part")]
/// A test per engine, `sqlite::…` and `postgres::…`, of functions that take an [`Engine`].
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::harness::Engine::Sqlite).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(engine) = $crate::harness::Engine::postgres() else { return };
                super::$name(engine).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;

/// A database that goes with its test.
#[derive(Debug)]
pub struct Own {
    pub url: String,
    /// Address of the server and name of the database on it.
    server: Option<(String, String)>,
}

impl Own {
    pub async fn make(engine: &Engine, dir: &Path) -> Own {
        let Engine::Postgres(server) = engine else {
            return Own {
                url: format!("sqlite://{}", dir.join("db.sqlite").display()),
                server: None,
            };
        };
        let name = format!("lkr_test_{}", uuid::Uuid::now_v7().simple());
        on_server(server, &format!("CREATE DATABASE {name}")).await;
        let (base, _) = server.rsplit_once('/').expect("an address that names a database");
        Own { url: format!("{base}/{name}"), server: Some((server.clone(), name)) }
    }

    pub async fn open(&self, max_connections: u32) -> Db {
        let how = Connect { url: &self.url, max_connections, create: true };
        Db::connect(how).await.expect("a database")
    }

    pub async fn drop_it(&self) {
        if let Some((server, name)) = &self.server {
            on_server(server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

async fn on_server(server: &str, statement: &str) {
    let how = Connect { url: server, max_connections: 1, create: false };
    let db = Db::connect(how).await.expect("the PostgreSQL server");
    db.conn().execute_unprepared(statement).await.expect("allowed");
    db.close().await.expect("closed");
}

/// Every row of every table as text, sorted, but for `without`.
pub async fn dump(db: &Db, without: &[&str]) -> BTreeMap<String, Vec<String>> {
    let conn = db.conn();
    let names = match db.engine() {
        Kind::Sqlite => "SELECT name AS t FROM sqlite_master WHERE type = 'table'",
        Kind::Postgres => {
            "SELECT table_name::text AS t FROM information_schema.tables WHERE table_schema = 'public'"
        }
    };
    let mut tables = BTreeMap::new();
    for table in texts(conn, names).await {
        if without.contains(&table.as_str()) {
            continue;
        }
        let rows = match db.engine() {
            Kind::Sqlite => {
                let columns = format!("SELECT name AS t FROM pragma_table_info('{table}')");
                let columns = texts(conn, &columns).await;
                let quoted: Vec<String> =
                    columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
                format!("SELECT {} AS t FROM \"{table}\" ORDER BY 1", quoted.join(" || ',' || "))
            }
            Kind::Postgres => format!("SELECT r::text AS t FROM \"{table}\" r ORDER BY 1"),
        };
        let rows = texts(conn, &rows).await;
        tables.insert(table, rows);
    }
    tables
}

async fn texts(conn: &DatabaseConnection, query: &str) -> Vec<String> {
    let statement = Statement::from_string(conn.get_database_backend(), query);
    let rows = conn.query_all_raw(statement).await.expect("a query");
    rows.iter().map(|row| row.try_get("", "t").expect("text")).collect()
}
