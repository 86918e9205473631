//! Which share a session records: so that one that was recorded is known when its buffer has gone.

use sea_orm_migration::prelude::*;

use crate::columns::text_opt;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("session")).to_owned();
        manager.alter_table(change.add_column(text_opt("video_track_id")).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("session")).to_owned();
        manager.alter_table(change.drop_column(Alias::new("video_track_id")).to_owned()).await
    }
}
