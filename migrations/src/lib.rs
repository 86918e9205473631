//! The schema, one file per change, the same for SQLite and PostgreSQL. Each change is safe beside the previous
//! release (columns are added before they are needed, dropped a release after), and goes down as well as up.
//!
//! Moments are BIGINT microseconds since the Unix epoch, ids are text, lists that are only read whole are JSON text.

use sea_orm_migration::prelude::*;
pub use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager};

/// A change is made whole or not at all, also on SQLite, where each statement would otherwise count by itself: a process that
/// is killed half-way leaves nothing that keeps the next one from starting.
macro_rules! whole {
    () => {
        fn use_transaction(&self) -> Option<bool> {
            Some(true)
        }
    };
}

mod columns;
mod m0001_sessions;
mod m0002_clips;
mod m0003_access_and_limits;
mod m0004_upkeep;
mod m0005_preview;
mod m0006_trims;
mod m0007_turns;
mod m0008_checksums;
mod m0009_session_links;
mod m0010_audit;
mod m0012_preferences;
mod m0013_shares;
mod m0014_segment_crc;
mod m0015_events;
mod m0016_event_deliveries;
mod m0017_recorded_share;

/// The changes of the first release, oldest first, in the ledger `seaql_migrations`. Complete: its programs do not start,
/// and call themselves unhealthy, where that ledger names a change that they do not know, and they must be able to run,
/// and to be started again, beside their successors.
pub struct First;

/// The changes since, oldest first, in a ledger of their own.
pub struct Later;

/// The ledger of [`Later`].
pub const LATER_LEDGER: &str = "schema_change";

#[async_trait::async_trait]
impl MigratorTrait for First {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_sessions::Migration),
            Box::new(m0002_clips::Migration),
            Box::new(m0003_access_and_limits::Migration),
            Box::new(m0004_upkeep::Migration),
            Box::new(m0005_preview::Migration),
            Box::new(m0006_trims::Migration),
            Box::new(m0007_turns::Migration),
            Box::new(m0008_checksums::Migration),
            Box::new(m0009_session_links::Migration),
        ]
    }
}

#[async_trait::async_trait]
impl MigratorTrait for Later {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0010_audit::Migration),
            Box::new(m0012_preferences::Migration),
            Box::new(m0013_shares::Migration),
            Box::new(m0014_segment_crc::Migration),
            Box::new(m0015_events::Migration),
            Box::new(m0016_event_deliveries::Migration),
            Box::new(m0017_recorded_share::Migration),
        ]
    }

    fn migration_table_name() -> sea_orm_migration::sea_orm::DynIden {
        Alias::new(LATER_LEDGER).into_iden()
    }
}
