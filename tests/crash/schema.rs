//! Changes of the schema: whole or not at all, and written down where both releases read what they know.

use livekit_replay::store::{Connect, Db, Engine, schema};
use livekit_replay_migrations::{First, Later, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::{
    on_both_engines,
    support::{On, Place},
};

on_both_engines!(
    a_change_that_fails_half_way_leaves_nothing,
    the_first_releases_ledger_names_what_it_knows_and_nothing_else,
    a_schema_of_a_newer_release_serves_this_one,
);

/// What the first release knows; its programs refuse a ledger with anything more.
const FIRST: [&str; 9] = [
    "m0001_sessions",
    "m0002_clips",
    "m0003_access_and_limits",
    "m0004_upkeep",
    "m0005_preview",
    "m0006_trims",
    "m0007_turns",
    "m0008_checksums",
    "m0009_session_links",
];

async fn open(place: &Place) -> Db {
    let how = Connect { url: &place.database_url, max_connections: 1, create: true };
    Db::connect(how).await.unwrap()
}

async fn texts(conn: &DatabaseConnection, query: &str) -> Vec<String> {
    let statement = sea_orm::Statement::from_string(conn.get_database_backend(), query);
    let rows = conn.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// Tables and indices in the order of their making.
async fn things(db: &Db) -> Vec<String> {
    let query = match db.engine() {
        Engine::Sqlite => {
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL ORDER BY rowid"
        }
        Engine::Postgres => {
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
             AND relkind IN ('r', 'i') AND relname NOT LIKE '%_pkey' ORDER BY oid"
        }
    };
    texts(db.conn(), query).await
}

/// Columns of all tables.
async fn columns(db: &Db) -> Vec<String> {
    let query = match db.engine() {
        Engine::Sqlite => {
            "SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c \
             WHERE m.type = 'table' ORDER BY 1"
        }
        Engine::Postgres => {
            "SELECT (table_name || '.' || column_name)::text FROM information_schema.columns \
             WHERE table_schema = 'public' ORDER BY 1"
        }
    };
    texts(db.conn(), query).await
}

/// The last thing that each change makes is in the way: nothing else of the change stays, and it is made when the way is free.
async fn a_change_that_fails_half_way_leaves_nothing(on: On) {
    let mut tried = 0;
    let (first, later) = (First::migrations().len(), Later::migrations().len());
    for step in 0..first + later {
        let place = Place::new(on).await;
        let db = open(&place).await;
        up_to(&db, step, first).await;
        let before = things(&db).await;
        up_to(&db, step + 1, first).await;
        let made: Vec<_> =
            things(&db).await.into_iter().filter(|thing| !before.contains(thing)).collect();
        schema::migrate_down(&db, Some(1)).await.unwrap();
        if let Some(last) = made.last().filter(|_| made.len() > 1) {
            tried += 1;
            let conn = db.conn();
            conn.execute_unprepared(&format!("CREATE TABLE {last} (in_the_way TEXT)"))
                .await
                .unwrap();
            let (things_before, columns_before) = (things(&db).await, columns(&db).await);
            let failed = schema::migrate_up(&place.database_url, &db).await;
            failed.expect_err("something is in the way");
            assert_eq!(things(&db).await, things_before, "{made:?}");
            assert_eq!(columns(&db).await, columns_before, "{made:?}");
            conn.execute_unprepared(&format!("DROP TABLE {last}")).await.unwrap();
        }
        schema::migrate_up(&place.database_url, &db).await.unwrap();
        assert_eq!(schema::pending(&db).await.unwrap(), Vec::<String>::new());
        db.close().await.unwrap();
        place.remove().await;
    }
    assert!(tried > 6, "{tried}");
}

/// The first `count` changes, of which the older ledger has `first`.
async fn up_to(db: &Db, count: usize, first: usize) {
    let applied = First::get_applied_migrations(db.conn()).await.unwrap().len();
    let wanted = count.min(first) - applied.min(first);
    First::up(db.conn(), Some(u32::try_from(wanted).unwrap())).await.unwrap();
    let applied = Later::get_applied_migrations(db.conn()).await.unwrap().len();
    let wanted = count.saturating_sub(first) - applied;
    Later::up(db.conn(), Some(u32::try_from(wanted).unwrap())).await.unwrap();
}

async fn the_first_releases_ledger_names_what_it_knows_and_nothing_else(on: On) {
    let place = Place::new(on).await;
    let db = open(&place).await;
    schema::migrate_up(&place.database_url, &db).await.unwrap();
    let ledger = "SELECT version FROM seaql_migrations ORDER BY version";
    assert_eq!(texts(db.conn(), ledger).await, FIRST);

    // as a build between the two releases left it
    let move_back = [
        "INSERT INTO seaql_migrations (version, applied_at) SELECT version, applied_at FROM schema_change",
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m0014_checksums_anew', 0)",
        "DELETE FROM schema_change WHERE version <> 'm0014_segment_crc'",
        "DELETE FROM seaql_migrations WHERE version = 'm0014_segment_crc'",
    ];
    for statement in move_back {
        db.conn().execute_unprepared(statement).await.unwrap();
    }
    schema::migrate_up(&place.database_url, &db).await.unwrap();
    assert_eq!(texts(db.conn(), ledger).await, FIRST);
    assert_eq!(schema::pending(&db).await.unwrap(), Vec::<String>::new());
    assert_eq!(schema::newer(&db).await.unwrap(), Vec::<String>::new());

    schema::migrate_down(&db, None).await.unwrap();
    assert_eq!(schema::pending(&db).await.unwrap(), schema::known());
    db.close().await.unwrap();
    place.remove().await;
}

async fn a_schema_of_a_newer_release_serves_this_one(on: On) {
    let place = Place::new(on).await;
    let db = open(&place).await;
    schema::migrate_up(&place.database_url, &db).await.unwrap();
    let newer = "INSERT INTO schema_change (version, applied_at) VALUES ('m9999_of_tomorrow', 0)";
    db.conn().execute_unprepared(newer).await.unwrap();
    schema::migrate_up(&place.database_url, &db).await.unwrap();
    assert_eq!(schema::pending(&db).await.unwrap(), Vec::<String>::new());
    assert_eq!(schema::newer(&db).await.unwrap(), ["m9999_of_tomorrow"]);
    db.close().await.unwrap();
    place.remove().await;
}
