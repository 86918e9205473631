//! Clips, the work that makes them, and the answers kept for repeated requests.

use sea_orm_migration::prelude::*;

use crate::columns::{
    big, big_default, big_opt, drop_tables, flag, index, int, int_opt, table, text, text_opt,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(clip()).await?;
        for statement in [
            index("ix_clip_user", "clip", &["user_id", "created_at"], false),
            index("ix_clip_community", "clip", &["community_id", "created_at"], false),
            index("ix_clip_session", "clip", &["session_id"], false),
            index("ix_clip_status", "clip", &["status", "updated_at"], false),
        ] {
            manager.create_index(statement).await?;
        }
        manager.create_table(job()).await?;
        manager.create_index(index("ix_job_due", "job", &["state", "run_after"], false)).await?;
        manager
            .create_index(
                index("ux_job_clip", "job", &["clip_id"], true)
                    .and_where(Expr::col(Alias::new("state")).is_in(["queued", "running"]))
                    .to_owned(),
            )
            .await?;
        manager.create_table(idempotency()).await?;
        manager
            .create_index(index("ix_idempotency_expiry", "idempotency", &["expires_at"], false))
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["idempotency", "job", "clip"]).await
    }
}

fn clip() -> TableCreateStatement {
    table(
        "clip",
        &["id"],
        vec![
            text("id"),
            text("session_id"),
            text("user_id"),
            text_opt("community_id"),
            text("room_name"),
            text("title"),
            text("visibility"),
            text("status"),
            text_opt("error_code"),
            text_opt("error_detail"),
            big("requested_from"),
            big("requested_to"),
            big_opt("starts_at"),
            big_opt("ends_at"),
            big_opt("duration_us"),
            text("precision"),
            text("gap_policy"),
            big_default("preroll_ms", 0),
            big_default("shortfall_ms", 0),
            text("gaps"),
            big_default("size_bytes", 0),
            big_default("reserved_bytes", 0),
            text_opt("checksum"),
            int_opt("width"),
            int_opt("height"),
            text_opt("video_codec"),
            text_opt("audio_codec"),
            flag("has_poster"),
            flag("cancelled"),
            int("link_generation"),
            big_default("queue_ms", 0),
            big_default("wait_ms", 0),
            big_default("pin_ms", 0),
            big_default("mux_ms", 0),
            big_default("finalize_ms", 0),
            text_opt("request_id"),
            big("created_at"),
            big("updated_at"),
        ],
    )
}

fn job() -> TableCreateStatement {
    table(
        "job",
        &["id"],
        vec![
            text("id"),
            text("kind"),
            text("state"),
            text_opt("clip_id"),
            int("attempts"),
            int("max_attempts"),
            big("run_after"),
            text_opt("lease_owner"),
            big_opt("lease_until"),
            text_opt("last_error"),
            text_opt("request_id"),
            big("created_at"),
            big("updated_at"),
        ],
    )
}

fn idempotency() -> TableCreateStatement {
    table(
        "idempotency",
        &["user_id", "route", "key"],
        vec![
            text("user_id"),
            text("route"),
            text("key"),
            text("request_hash"),
            // null while the first request runs
            int_opt("status"),
            text_opt("body"),
            text_opt("location"),
            big("lease_until"),
            big("expires_at"),
            big("created_at"),
        ],
    )
}
