//! What the upkeep of the service remembers: webhooks seen, runs of the scheduled jobs.

use sea_orm_migration::prelude::*;

use crate::columns::{big, big_opt, drop_tables, index, table, text, text_opt};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(table("webhook_seen", &["id"], vec![text("id"), big("received_at")]))
            .await?;
        manager
            .create_index(index("ix_webhook_seen_age", "webhook_seen", &["received_at"], false))
            .await?;
        manager
            .create_table(table(
                "maintenance_run",
                &["id"],
                vec![
                    text("id"),
                    text("job"),
                    // the moment the schedule meant; with the job's name it is claimed by one replica only
                    text("tick"),
                    big("started_at"),
                    big_opt("ended_at"),
                    text_opt("outcome"),
                    text("counts"),
                ],
            ))
            .await?;
        manager
            .create_index(index("ux_maintenance_tick", "maintenance_run", &["job", "tick"], true))
            .await?;
        manager
            .create_index(index(
                "ix_maintenance_job",
                "maintenance_run",
                &["job", "started_at"],
                false,
            ))
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["maintenance_run", "webhook_seen"]).await
    }
}
