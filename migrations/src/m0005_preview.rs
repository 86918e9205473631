//! What players were told of a preview: the stretches listed so far, so that numbers never change or go back.

use sea_orm_migration::prelude::*;

use crate::columns::{big, drop_tables, int, table, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(table(
                "preview_stretch",
                // a session's id, or that of a clip being made
                &["view_id", "run"],
                vec![
                    text("view_id"),
                    big("run"),
                    int("epoch"),
                    big("first_number"),
                    big("last_number"),
                    big("first_sequence"),
                    big("longest_us"),
                ],
            ))
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["preview_stretch"]).await
    }
}
