//! What a segment's bytes were when they were indexed.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("segment")).to_owned();
        let mut column = ColumnDef::new(Alias::new("checksum"));
        column.big_integer().null();
        manager.alter_table(change.add_column(column).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("segment")).to_owned();
        manager.alter_table(change.drop_column(Alias::new("checksum")).to_owned()).await
    }
}
