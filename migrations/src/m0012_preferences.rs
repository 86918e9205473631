//! What a user wants for himself.

use sea_orm_migration::prelude::*;

use crate::columns::{big, drop_tables, table, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = vec![
            text("user_id"),
            // without a row: yes, where the community wants it
            ColumnDef::new(Alias::new("auto_start")).boolean().not_null().default(true).take(),
            big("updated_at"),
        ];
        manager.create_table(table("user_preference", &["user_id"], columns)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["user_preference"]).await
    }
}
