//! Whose a job is and when it was last taken up, so that users take turns.

use sea_orm_migration::prelude::*;

use crate::columns::{big_opt, index, text_opt};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    whole!();

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // one column a statement: SQLite takes no more
        for column in [text_opt("user_id"), big_opt("leased_at")] {
            let mut change = Table::alter().table(Alias::new("job")).to_owned();
            manager.alter_table(change.add_column(column).to_owned()).await?;
        }
        let of_job = Expr::col((Alias::new("clip"), Alias::new("id")))
            .equals((Alias::new("job"), Alias::new("clip_id")));
        let owner = Query::select()
            .column((Alias::new("clip"), Alias::new("user_id")))
            .from(Alias::new("clip"))
            .and_where(of_job)
            .to_owned();
        let fill = Query::update()
            .table(Alias::new("job"))
            .value(Alias::new("user_id"), Expr::from(SubQueryStatement::from(owner)))
            .to_owned();
        manager.execute(fill).await?;
        for statement in [
            index("ix_job_user_state", "job", &["user_id", "state"], false),
            index("ix_job_user_turn", "job", &["user_id", "leased_at"], false),
        ] {
            manager.create_index(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["ix_job_user_state", "ix_job_user_turn"] {
            let gone = Index::drop().name(name).table(Alias::new("job")).to_owned();
            manager.drop_index(gone).await?;
        }
        for name in ["user_id", "leased_at"] {
            let mut change = Table::alter().table(Alias::new("job")).to_owned();
            manager.alter_table(change.drop_column(Alias::new(name)).to_owned()).await?;
        }
        Ok(())
    }
}
