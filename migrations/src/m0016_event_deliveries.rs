//! Events on their way to the app: a row per event and endpoint.

use sea_orm_migration::prelude::*;

use crate::columns::{big, big_opt, drop_tables, index, int, int_opt, table, text, text_opt};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = vec![
            text("event_id"),
            // a name made from the address; the address stands in the settings alone
            text("endpoint"),
            text("user_id"),
            big("seq"),
            text("state"),
            int("attempts"),
            big("run_after"),
            text_opt("lease_owner"),
            big_opt("lease_until"),
            int_opt("last_status"),
            text_opt("last_error"),
            big("created_at"),
            big("updated_at"),
        ];
        let key = ["event_id", "endpoint"];
        manager.create_table(table("event_delivery", &key, columns)).await?;
        for statement in [
            index(
                "ix_event_delivery_due",
                "event_delivery",
                &["endpoint", "state", "run_after"],
                false,
            ),
            index("ix_event_delivery_state", "event_delivery", &["state", "updated_at"], false),
            index("ix_event_delivery_user", "event_delivery", &["user_id"], false),
        ] {
            manager.create_index(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["event_delivery"]).await
    }
}
