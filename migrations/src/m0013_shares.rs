//! Shares of clips: a link that needs no login, and to whom it was delivered; shares that wait for a capture.

use sea_orm_migration::prelude::*;

use crate::columns::{big, big_opt, drop_tables, index, table, text, text_opt};

/// What came of the share that was asked for with a capture.
const OUTCOME: [&str; 2] = ["share_error", "message_id"];

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

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
        manager
            .create_index(index("ix_clip_share_clip", "clip_share", &["clip_id"], false))
            .await?;
        let columns = vec![
            text("clip_id"),
            text("share_id"),
            text("destination"),
            text_opt("target_id"),
            text_opt("username"),
            big_opt("claimed_at"),
            big("created_at"),
        ];
        manager.create_table(table("share_wish", &["clip_id"], columns)).await?;
        // one column a statement: SQLite takes no more
        for name in OUTCOME {
            let mut change = Table::alter().table(Alias::new("clip")).to_owned();
            manager.alter_table(change.add_column(text_opt(name)).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in OUTCOME {
            let mut change = Table::alter().table(Alias::new("clip")).to_owned();
            manager.alter_table(change.drop_column(Alias::new(name)).to_owned()).await?;
        }
        drop_tables(manager, &["share_wish", "clip_share"]).await
    }
}
