//! The audit log: who did what, and who was refused. The database itself refuses to change or delete a line.
//!
//! A line names people by pseudonyms; `audit_person` says who is meant and is the only part that can be forgotten.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DatabaseBackend},
};

use crate::columns::{big, big_opt, drop_tables, index, table, text, text_opt};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// `INSERT OR REPLACE` deletes without asking the trigger of deletions, so an id that is there is refused as well.
const SQLITE: &[&str] = &[
    "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry \
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    "CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry \
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    "CREATE TRIGGER audit_entry_no_replace BEFORE INSERT ON audit_entry \
     WHEN EXISTS (SELECT 1 FROM audit_entry WHERE id = NEW.id) \
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
];

const POSTGRES: &[&str] = &[
    "CREATE FUNCTION audit_entry_refuse() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
    "CREATE TRIGGER audit_entry_no_change BEFORE UPDATE OR DELETE ON audit_entry \
     FOR EACH ROW EXECUTE FUNCTION audit_entry_refuse()",
    "CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_entry \
     FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_refuse()",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(entry()).await?;
        for statement in [
            index("ix_audit_at", "audit_entry", &["at"], false),
            index("ix_audit_community", "audit_entry", &["community_id", "at"], false),
            index("ix_audit_actor", "audit_entry", &["actor", "at"], false),
            index("ix_audit_subject", "audit_entry", &["subject"], false),
        ] {
            manager.create_index(statement).await?;
        }
        let person =
            table("audit_person", &["pseudonym"], vec![text("pseudonym"), text("user_id")]);
        manager.create_table(person).await?;
        manager
            .create_index(index("ux_audit_person_user", "audit_person", &["user_id"], true))
            .await?;
        for statement in triggers(manager) {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["audit_person", "audit_entry"]).await?;
        if manager.get_database_backend() == DatabaseBackend::Postgres {
            manager
                .get_connection()
                .execute_unprepared("DROP FUNCTION audit_entry_refuse()")
                .await?;
        }
        Ok(())
    }
}

fn triggers(manager: &SchemaManager<'_>) -> &'static [&'static str] {
    if manager.get_database_backend() == DatabaseBackend::Postgres { POSTGRES } else { SQLITE }
}

fn entry() -> TableCreateStatement {
    table(
        "audit_entry",
        &["id"],
        vec![
            text("id"),
            big("at"),
            text("outcome"),
            text("action"),
            // `user`, `control_socket` or `command_line`
            text("door"),
            // pseudonyms
            text_opt("actor"),
            text_opt("subject"),
            // of the process behind the socket or the command
            big_opt("uid"),
            text_opt("community_id"),
            text_opt("session_id"),
            text_opt("clip_id"),
            text_opt("job_id"),
            // JSON, never with a name of a person in it
            text_opt("state_before"),
            text_opt("state_after"),
            text_opt("request_id"),
        ],
    )
}
