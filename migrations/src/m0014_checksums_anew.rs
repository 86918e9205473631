//! A segment's checksum is a CRC from now on: what was kept before means nothing any more.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        forget(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        forget(manager).await
    }
}

async fn forget(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let update = Query::update()
        .table(Alias::new("segment"))
        .value(Alias::new("checksum"), Expr::cust("NULL"))
        .to_owned();
    manager.exec_stmt(update).await
}
