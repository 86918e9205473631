//! A segment's checksum is a CRC-32 from now on, in a column of its own: programs of the first release keep another
//! checksum in `checksum`, and run beside this one while it is rolled out.

use sea_orm_migration::prelude::*;

use crate::columns::big_opt;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("segment")).to_owned();
        manager.alter_table(change.add_column(big_opt("crc")).to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut change = Table::alter().table(Alias::new("segment")).to_owned();
        manager.alter_table(change.drop_column(Alias::new("crc")).to_owned()).await
    }
}
