//! Whose turn it is: what jobs are ordered by when one is leased.

use std::time::Duration;

use sea_orm::{
    ExprTrait,
    sea_query::{Expr, Func, Query, SelectStatement, SubQueryStatement},
};

use super::{Column, Entity, JobState};
use crate::{domain::time::Timestamp, store::clip};

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

/// The moment a job was made, later by the length of its clip: of two that come together the shorter goes first, and one
/// that has waited as long as it is long lets no newer one pass.
pub(super) fn age_less_length() -> Expr {
    Expr::col((Entity, Column::CreatedAt)).add(length())
}

/// Whether a job's clip is no longer than that.
pub(super) fn is_no_longer_than(longest: Duration) -> Expr {
    length().lte(i64::try_from(longest.as_micros()).unwrap_or(i64::MAX))
}

/// Microseconds of the window that a job's clip was asked for with; 0 where there is none.
fn length() -> Expr {
    let column = |column: clip::Column| Expr::col((clip::Entity, column));
    let asked = Query::select()
        .expr(column(clip::Column::RequestedTo).sub(column(clip::Column::RequestedFrom)))
        .from(clip::Entity)
        .and_where(column(clip::Column::Id).equals((Entity, Column::ClipId)))
        .to_owned();
    Func::coalesce([Expr::from(SubQueryStatement::from(asked)), Expr::value(0_i64)]).into()
}

fn of_same_user() -> SelectStatement {
    let same = Expr::col((SAME, Column::UserId)).equals((Entity, Column::UserId));
    Query::select().from_as(Entity, SAME).and_where(same).to_owned()
}
