//! Events. A row is written in the transaction of what it tells of and has no place in the order of events yet;
//! [`number`] gives it one after the commit, under the lock of one row, so that whoever has read up to a place has
//! missed none before it (`docs/decisions/0009-events-are-numbered-after-commit.md`).

use sea_orm::{
    ActiveValue::{NotSet, Set},
    QueryOrder, QuerySelect,
    entity::prelude::*,
    sea_query::{ExprTrait as _, Query},
};

use super::{Conn, Tx, db_error, delivery, schema::plus};
use crate::{
    domain::{
        event::EventKind,
        id::{CommunityId, EventId, UserId},
        time::Timestamp,
    },
    error::{Error, Result},
};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "event")]
pub struct Model {
    /// In the order of writing.
    #[sea_orm(primary_key)]
    pub n: i64,
    /// What it is called outside.
    pub id: EventId,
    /// Its place in the order of events; none before it is visible to readers.
    pub seq: Option<i64>,
    /// What happened.
    pub kind: EventKind,
    /// Whose session, clip or account.
    pub user_id: UserId,
    /// In which community.
    pub community_id: Option<CommunityId>,
    /// JSON.
    pub data: String,
    /// When it happened.
    pub created_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// How far the numbers have come.
pub mod head {
    use super::*;

    /// The only row.
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "event_head")]
    pub struct Model {
        /// 1.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        /// The last place given.
        pub seq: i64,
        /// No event up to this place is promised any more.
        pub deleted_through: i64,
    }

    /// No relations are followed.
    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What is written of a new event.
#[derive(Debug, Clone)]
pub struct New {
    /// What happened.
    pub kind: EventKind,
    /// Whose.
    pub user_id: UserId,
    /// In which community.
    pub community_id: Option<CommunityId>,
    /// JSON.
    pub data: String,
    /// When.
    pub created_at: Timestamp,
}

/// Writes an event. Takes no lock that another transaction waits for.
pub async fn insert(tx: &Tx, new: New) -> Result<()> {
    let row = ActiveModel {
        n: NotSet,
        id: Set(EventId::new(uuid::Uuid::new_v4().to_string())),
        seq: Set(None),
        kind: Set(new.kind),
        user_id: Set(new.user_id),
        community_id: Set(new.community_id),
        data: Set(new.data),
        created_at: Set(new.created_at),
    };
    Entity::insert(row)
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("writing an event", error))
}

/// Whether an event waits for its number: a read, so that looking often costs no writer's turn.
pub async fn any_unnumbered<C: Conn>(db: &C) -> Result<bool> {
    let found = Entity::find()
        .select_only()
        .column(Column::N)
        .filter(Column::Seq.is_null())
        .limit(1)
        .into_tuple::<i64>()
        .one(db)
        .await
        .map_err(|error| db_error("looking for new events", error))?;
    Ok(found.is_some())
}

/// Gives up to `limit` new events their places, in the order of writing, and answers them. Others who do the same wait
/// until this transaction ends.
pub async fn number(tx: &Tx, limit: u64) -> Result<Vec<Model>> {
    // the lock, before anything is read: what others numbered meanwhile is seen then
    head::Entity::update_many()
        .col_expr(head::Column::Seq, plus(head::Column::Seq, 0))
        .exec(tx)
        .await
        .map_err(|error| db_error("locking the numbers of events", error))?;
    let mut seq = head(tx).await?.seq;
    let mut new = Entity::find()
        .filter(Column::Seq.is_null())
        .order_by_asc(Column::N)
        .limit(limit)
        .all(tx)
        .await
        .map_err(|error| db_error("reading new events", error))?;
    for row in &mut new {
        seq += 1;
        row.seq = Some(seq);
        Entity::update_many()
            .set(ActiveModel { seq: Set(row.seq), ..Default::default() })
            .filter(Column::N.eq(row.n))
            .exec(tx)
            .await
            .map_err(|error| db_error("numbering an event", error))?;
    }
    head::Entity::update_many()
        .set(head::ActiveModel { seq: Set(seq), ..Default::default() })
        .exec(tx)
        .await
        .map_err(|error| db_error("keeping the numbers of events", error))?;
    Ok(new)
}

/// How far the numbers have come.
pub async fn head<C: Conn>(db: &C) -> Result<head::Model> {
    head::Entity::find()
        .one(db)
        .await
        .map_err(|error| db_error("reading the numbers of events", error))?
        .ok_or_else(|| Error::internal("reading the numbers of events", "they are gone"))
}

/// Whose events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A user's.
    Of(UserId),
    /// A community's.
    In(CommunityId),
    /// Everybody's.
    All,
}

impl Scope {
    /// Whether an event belongs to it.
    pub fn holds(&self, event: &Model) -> bool {
        match self {
            Scope::Of(user) => event.user_id == *user,
            Scope::In(community) => event.community_id.as_ref() == Some(community),
            Scope::All => true,
        }
    }
}

/// Events behind a place, in order.
pub async fn list_after<C: Conn>(
    db: &C,
    scope: &Scope,
    seq: i64,
    limit: u64,
) -> Result<Vec<Model>> {
    let query = Entity::find().filter(Column::Seq.gt(seq));
    let query = match scope {
        Scope::Of(user) => query.filter(Column::UserId.eq(user.clone())),
        Scope::In(community) => query.filter(Column::CommunityId.eq(community.clone())),
        Scope::All => query,
    };
    query
        .order_by_asc(Column::Seq)
        .limit(limit)
        .all(db)
        .await
        .map_err(|error| db_error("reading events", error))
}

/// The event of that id.
pub async fn find<C: Conn>(db: &C, id: &EventId) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::Id.eq(id.clone()))
        .one(db)
        .await
        .map_err(|error| db_error("reading an event", error))
}

/// The events of these ids.
pub async fn list_of<C: Conn>(db: &C, ids: &[EventId]) -> Result<Vec<Model>> {
    Entity::find()
        .filter(Column::Id.is_in(ids.iter().cloned()))
        .all(db)
        .await
        .map_err(|error| db_error("reading events by id", error))
}

/// The newest event that has a number.
pub async fn find_newest<C: Conn>(db: &C) -> Result<Option<Model>> {
    Entity::find()
        .filter(Column::Seq.is_not_null())
        .order_by_desc(Column::Seq)
        .one(db)
        .await
        .map_err(|error| db_error("reading the newest event", error))
}

/// Deletes up to `limit` events from before `before` that nobody is to be told any more; says how many. The newest
/// of them stays, which is where quiet streams are: whoever comes back to it afterwards missed nothing.
pub async fn delete_before(tx: &Tx, before: Timestamp, limit: u64) -> Result<u64> {
    let newest = Entity::find()
        .select_only()
        .column_as(Column::Seq.max(), "newest")
        .filter(Column::CreatedAt.lt(before))
        .into_tuple::<Option<i64>>()
        .one(tx)
        .await
        .map_err(|error| db_error("looking for the newest old event", error))?;
    let Some(newest) = newest.flatten() else { return Ok(0) };
    // not `NOT IN`: PostgreSQL looks through the whole list of deliveries for each event once it is long
    let told = Query::select()
        .expr(Expr::val(1))
        .from(delivery::Entity)
        .and_where(
            Expr::col((delivery::Entity, delivery::Column::EventId)).equals((Entity, Column::Id)),
        )
        .to_owned();
    let old = Entity::find()
        .select_only()
        .column(Column::Seq)
        .filter(Column::CreatedAt.lt(before))
        .filter(Column::Seq.lt(newest))
        .filter(Expr::exists(told).not())
        .order_by_asc(Column::Seq)
        .limit(limit)
        .into_tuple::<i64>()
        .all(tx)
        .await
        .map_err(|error| db_error("looking for old events", error))?;
    let Some(last) = old.iter().max().copied() else { return Ok(0) };
    head::Entity::update_many()
        .set(head::ActiveModel { deleted_through: Set(last), ..Default::default() })
        .filter(head::Column::DeletedThrough.lt(last))
        .exec(tx)
        .await
        .map_err(|error| db_error("keeping what is no longer promised", error))?;
    let gone = Entity::delete_many()
        .filter(Column::Seq.is_in(old))
        .exec(tx)
        .await
        .map_err(|error| db_error("deleting old events", error))?;
    Ok(gone.rows_affected)
}
