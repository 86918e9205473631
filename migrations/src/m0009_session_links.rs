//! A session's link generation: raising it voids all links to its recording that were made before.

use sea_orm_migration::prelude::*;

use crate::columns::int;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("session")).to_owned();
        manager.alter_table(change.add_column(int("link_generation")).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("session")).to_owned();
        manager.alter_table(change.drop_column(Alias::new("link_generation")).to_owned()).await
    }
}
