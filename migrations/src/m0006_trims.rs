//! Clips cut out of other clips: of which, and which part of it.

use sea_orm_migration::prelude::*;

use crate::columns::text_opt;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// One column a statement: SQLite takes no more.
const COLUMNS: [&str; 2] = ["trim_of", "trim_plan"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in COLUMNS {
            let mut change = Table::alter().table(Alias::new("clip")).to_owned();
            manager.alter_table(change.add_column(text_opt(name)).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in COLUMNS {
            let mut change = Table::alter().table(Alias::new("clip")).to_owned();
            manager.alter_table(change.drop_column(Alias::new(name)).to_owned()).await?;
        }
        Ok(())
    }
}
