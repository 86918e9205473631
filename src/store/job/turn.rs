//! Whose turn it is: what jobs are ordered by when one is leased.

use sea_orm::{
    ExprTrait,
    sea_query::{Expr, Func, Query, SelectStatement, SubQueryStatement},
};

use super::{Column, Entity, JobState};
use crate::domain::time::Timestamp;

/// The second look at the table.
const SAME: &str = "same";

/// How many jobs of the same user run, wherever that is.
pub(super) fn running_of_its_user(now: Timestamp) -> Expr {
    let of = |column: Column| Expr::col((SAME, column));
    let count = of_same_user()
        .expr(of(Column::Id).count())
        .and_where(of(Column::State).eq(JobState::Running))
        .and_where(of(Column::LeaseUntil).gte(now))
        .to_owned();
    Expr::from(SubQueryStatement::from(count))
}

/// When a job of the same user was last leased; the engines order an absent number differently.
pub(super) fn last_of_its_user() -> Expr {
    let newest = of_same_user().expr(Expr::col((SAME, Column::LeasedAt)).max()).to_owned();
    Func::coalesce([Expr::from(SubQueryStatement::from(newest)), Expr::value(i64::MIN)]).into()
}

fn of_same_user() -> SelectStatement {
    let same = Expr::col((SAME, Column::UserId)).equals((Entity, Column::UserId));
    Query::select().from_as(Entity, SAME).and_where(same).to_owned()
}
