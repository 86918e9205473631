//! Communities and their places, users and their bytes, roles, and the counters of rate limits.

use sea_orm_migration::prelude::*;

use crate::columns::{
    big, big_default, big_opt, drop_tables, flag, index, int, int_opt, table, text,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(table(
                "community",
                &["id"],
                vec![
                    text("id"),
                    // null = the configured default, so that a changed default reaches everybody
                    int_opt("max_concurrent"),
                    ColumnDef::new(Alias::new("enabled")).boolean().not_null().default(true).take(),
                    flag("auto_start"),
                    int("active_sessions"),
                    big("created_at"),
                    big("updated_at"),
                ],
            ))
            .await?;
        manager
            .create_table(table(
                "user_account",
                &["user_id"],
                vec![
                    text("user_id"),
                    big_opt("quota_bytes"),
                    big_default("used_bytes", 0),
                    big_default("reserved_bytes", 0),
                    big("created_at"),
                    big("updated_at"),
                ],
            ))
            .await?;
        manager.create_table(casbin_rule()).await?;
        manager
            .create_index(index(
                "ux_casbin_rule",
                "casbin_rule",
                &["ptype", "v0", "v1", "v2", "v3", "v4", "v5"],
                true,
            ))
            .await?;
        manager
            .create_table(table(
                "member_role",
                &["community_id", "user_id", "role"],
                vec![text("community_id"), text("user_id"), text("role"), big("created_at")],
            ))
            .await?;
        manager.create_index(index("ix_member_user", "member_role", &["user_id"], false)).await?;
        manager
            .create_table(table(
                "member_removal",
                &["community_id", "user_id"],
                vec![text("community_id"), text("user_id"), big("removed_at")],
            ))
            .await?;
        manager
            .create_table(table(
                "rate_window",
                &["user_id", "route", "window_start"],
                vec![text("user_id"), text("route"), big("window_start"), int("used")],
            ))
            .await?;
        manager
            .create_index(index("ix_rate_window_age", "rate_window", &["window_start"], false))
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(
            manager,
            &[
                "rate_window",
                "member_removal",
                "member_role",
                "casbin_rule",
                "user_account",
                "community",
            ],
        )
        .await
    }
}

fn casbin_rule() -> TableCreateStatement {
    let blank =
        |name: &'static str| ColumnDef::new(Alias::new(name)).text().not_null().default("").take();
    let mut columns = vec![
        ColumnDef::new(Alias::new("id"))
            .big_integer()
            .not_null()
            .auto_increment()
            .primary_key()
            .take(),
    ];
    columns.extend(["ptype", "v0", "v1", "v2", "v3", "v4", "v5"].map(blank));
    let mut statement = Table::create().table(Alias::new("casbin_rule")).to_owned();
    for column in columns {
        statement.col(column);
    }
    statement
}
