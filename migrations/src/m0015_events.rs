//! What happened, for whoever listens: rows written in the transaction of what they tell of, the counter that puts
//! them in an order afterwards, and tickets that open a stream.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::columns::{big, big_opt, drop_tables, index, table, text, text_opt};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(event()).await?;
        for statement in [
            index("ux_event_id", "event", &["id"], true),
            index("ux_event_seq", "event", &["seq"], true),
            index("ix_event_user", "event", &["user_id", "seq"], false),
            index("ix_event_community", "event", &["community_id", "seq"], false),
            index("ix_event_created", "event", &["created_at"], false),
        ] {
            manager.create_index(statement).await?;
        }
        let head = vec![big("id"), big("seq"), big("deleted_through")];
        manager.create_table(table("event_head", &["id"], head)).await?;
        manager
            .get_connection()
            .execute_unprepared(
                "INSERT INTO event_head (id, seq, deleted_through) VALUES (1, 0, 0)",
            )
            .await?;
        let ticket = vec![
            // of the ticket, which is kept nowhere
            text("token_hash"),
            text("user_id"),
            text("rights"),
            big("expires_at"),
        ];
        manager.create_table(table("event_ticket", &["token_hash"], ticket)).await?;
        let by_user = index("ix_event_ticket_user", "event_ticket", &["user_id"], false);
        manager.create_index(by_user).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["event_ticket", "event_head", "event"]).await
    }
}

fn event() -> TableCreateStatement {
    // in the order of writing, which is no order of becoming visible: readers go by `seq`
    let mut number = ColumnDef::new(Alias::new("n"));
    number.big_integer().not_null().auto_increment().primary_key();
    let mut statement = Table::create().table(Alias::new("event")).col(&mut number).to_owned();
    for mut column in [
        text("id"),
        big_opt("seq"),
        text("kind"),
        text("user_id"),
        text_opt("community_id"),
        text("data"),
        big("created_at"),
    ] {
        statement.col(&mut column);
    }
    statement
}
