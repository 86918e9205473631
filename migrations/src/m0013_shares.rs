//! Shares of clips: a link that needs no login, and to whom it was delivered.

use sea_orm_migration::prelude::*;

use crate::columns::{big, big_opt, drop_tables, index, table, text, text_opt};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = vec![
            text("id"),
            text("clip_id"),
            text("user_id"),
            // of the link's secret part, which is kept nowhere
            text("token_hash"),
            text("destination"),
            text_opt("target_id"),
            text_opt("message_id"),
            big("created_at"),
            big_opt("expires_at"),
        ];
        manager.create_table(table("clip_share", &["id"], columns)).await?;
        manager
            .create_index(index("ux_clip_share_token", "clip_share", &["token_hash"], true))
            .await?;
        manager.create_index(index("ix_clip_share_clip", "clip_share", &["clip_id"], false)).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["clip_share"]).await
    }
}
