//! Events on their way to endpoints of the app: a row per event and endpoint, leased by one process at a time. A worker
//! that dies loses its lease and somebody else sends again, so a receiver may see an event twice.

use std::time::Duration;

use sea_orm::{
    ActiveValue::Set, Condition, QueryOrder, QuerySelect, entity::prelude::*, sea_query::OnConflict,
};

use super::{Conn, Page, Tx, columns, db_error, schema::plus};
use crate::{
    domain::{
        id::{EventId, UserId},
        text_enum::text_enum,
        time::Timestamp,
    },
    error::Result,
};

text_enum!(
    /// Where a delivery stands.
    DeliveryState {
        /// Waits for its moment.
        Pending = "pending",
        /// The endpoint took it.
        Delivered = "delivered",
        /// Given up.
        Dead = "dead",
    }
);

columns::text_column!(DeliveryState => |text| DeliveryState::from_name(&text));

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "event_delivery")]
pub struct Model {
    /// Of what.
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_id: EventId,
    /// To which endpoint: its name, made from the address.
    #[sea_orm(primary_key, auto_increment = false)]
    pub endpoint: String,
    /// Whose event.
    pub user_id: UserId,
    /// The event's place.
    pub seq: i64,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts that were begun.
    pub attempts: i32,
    /// Not before.
    pub run_after: Timestamp,
    /// Who sends it now.
    pub lease_owner: Option<String>,
    /// Until when it is his.
    pub lease_until: Option<Timestamp>,
    /// The status of the last answer.
    pub last_status: Option<i32>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Row made.
    pub created_at: Timestamp,
    /// Row last changed.
    pub updated_at: Timestamp,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Enqueues a delivery; one that is there begins anew.
pub async fn enqueue(
    tx: &Tx,
    event: (&EventId, &UserId, i64),
    endpoint: &str,
    now: Timestamp,
) -> Result<()> {
    let (id, user, seq) = event;
    let row = ActiveModel {
        event_id: Set(id.clone()),
        endpoint: Set(endpoint.to_owned()),
        user_id: Set(user.clone()),
        seq: Set(seq),
        state: Set(DeliveryState::Pending),
        attempts: Set(0),
        run_after: Set(now),
        lease_owner: Set(None),
        lease_until: Set(None),
        last_status: Set(None),
        last_error: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
    };
    let again = [
        Column::State,
        Column::Attempts,
        Column::RunAfter,
        Column::LeaseOwner,
        Column::LeaseUntil,
        Column::LastStatus,
        Column::LastError,
        Column::UpdatedAt,
    ];
    let known =
        OnConflict::columns([Column::EventId, Column::Endpoint]).update_columns(again).to_owned();
    Entity::insert(row)
        .on_conflict(known)
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("enqueueing a delivery", error))
}

/// Clocks of replicas differ by less: a row written later than this after now was written before the clock was set back.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

/// Whose turn it is: pending, its moment come, and nobody at it. Also what was written under a clock that has been set back
/// since, lease and all, or the app would hear of it when the clock is where it was (a delivery under way then may come
/// twice, which its id tells).
fn due(endpoint: &str, now: Timestamp) -> Condition {
    let free = Condition::any().add(Column::LeaseUntil.is_null()).add(Column::LeaseUntil.lt(now));
    let come = Condition::all().add(Column::RunAfter.lte(now)).add(free);
    let set_back = Column::UpdatedAt.gt(now.plus(CLOCKS_DIFFER));
    Condition::all()
        .add(Column::Endpoint.eq(endpoint))
        .add(Column::State.eq(DeliveryState::Pending))
        .add(Condition::any().add(come).add(set_back))
}

/// Leases the oldest delivery that is due to an endpoint; its attempt counts from here.
pub async fn lease<C: Conn>(
    db: &C,
    endpoint: &str,
    owner: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Model>> {
    loop {
        let found = Entity::find()
            .filter(due(endpoint, now))
            .order_by_asc(Column::Seq)
            .one(db)
            .await
            .map_err(|error| db_error("looking for a delivery", error))?;
        let Some(row) = found else { return Ok(None) };
        let taken = Entity::update_many()
            .set(ActiveModel {
                lease_owner: Set(Some(owner.to_owned())),
                lease_until: Set(Some(until)),
                updated_at: Set(now),
                ..Default::default()
            })
            .col_expr(Column::Attempts, plus(Column::Attempts, 1))
            .filter(Column::EventId.eq(row.event_id.clone()))
            .filter(due(endpoint, now))
            .exec(db)
            .await
            .map_err(|error| db_error("leasing a delivery", error))?;
        // else another replica was faster
        if taken.rows_affected > 0 {
            return Ok(Some(Model { attempts: row.attempts + 1, ..row }));
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where the delivery stands now.
    pub state: DeliveryState,
    /// Not before.
    pub run_after: Timestamp,
    /// The status of the answer.
    pub status: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Writes how an attempt ended, if the lease still is `owner`'s; says whether it was.
pub async fn finish<C: Conn>(
    db: &C,
    row: &Model,
    owner: &str,
    outcome: Outcome,
    now: Timestamp,
) -> Result<bool> {
    let done = Entity::update_many()
        .set(ActiveModel {
            state: Set(outcome.state),
            run_after: Set(outcome.run_after),
            last_status: Set(outcome.status),
            last_error: Set(outcome.error),
            lease_owner: Set(None),
            lease_until: Set(None),
            updated_at: Set(now),
            ..Default::default()
        })
        .filter(Column::EventId.eq(row.event_id.clone()))
        .filter(Column::Endpoint.eq(row.endpoint.clone()))
        .filter(Column::LeaseOwner.eq(owner))
        .exec(db)
        .await
        .map_err(|error| db_error("writing how a delivery ended", error))?;
    Ok(done.rows_affected > 0)
}

/// What a list is narrowed by.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this event.
    pub event_id: Option<EventId>,
    /// To this endpoint.
    pub endpoint: Option<String>,
    /// Where they stand.
    pub state: Option<DeliveryState>,
    /// Of events not older.
    pub since: Option<Timestamp>,
}

impl Filter {
    fn condition(&self) -> Condition {
        Condition::all()
            .add_option(self.event_id.clone().map(|id| Column::EventId.eq(id)))
            .add_option(self.endpoint.clone().map(|endpoint| Column::Endpoint.eq(endpoint)))
            .add_option(self.state.map(|state| Column::State.eq(state)))
            .add_option(self.since.map(|since| Column::CreatedAt.gte(since)))
    }
}

/// A page of deliveries, newest first, with the total.
pub async fn list<C: Conn>(db: &C, filter: &Filter, page: Page) -> Result<(Vec<Model>, u64)> {
    let query = Entity::find().filter(filter.condition());
    let counted = query.clone().count(db).await;
    let total = counted.map_err(|error| db_error("counting deliveries", error))?;
    let rows = query
        .order_by_desc(Column::Seq)
        .order_by_asc(Column::Endpoint)
        .limit(page.limit)
        .offset(page.offset)
        .all(db)
        .await
        .map_err(|error| db_error("listing deliveries", error))?;
    Ok((rows, total))
}

/// Makes deliveries begin anew; says how many.
pub async fn begin_again<C: Conn>(db: &C, filter: &Filter, now: Timestamp) -> Result<u64> {
    let again = ActiveModel {
        state: Set(DeliveryState::Pending),
        attempts: Set(0),
        run_after: Set(now),
        lease_owner: Set(None),
        lease_until: Set(None),
        updated_at: Set(now),
        ..Default::default()
    };
    let done = Entity::update_many().set(again).filter(filter.condition()).exec(db).await;
    Ok(done.map_err(|error| db_error("delivering again", error))?.rows_affected)
}

/// How many there are in a state.
pub async fn count_in<C: Conn>(db: &C, state: DeliveryState) -> Result<u64> {
    Entity::find()
        .filter(Column::State.eq(state))
        .count(db)
        .await
        .map_err(|error| db_error("counting deliveries by state", error))
}

/// Gives up what waits since before `before` (its endpoint may be in no settings any more); says how many.
pub async fn give_up_before(tx: &Tx, before: Timestamp, now: Timestamp) -> Result<u64> {
    let dead = ActiveModel {
        state: Set(DeliveryState::Dead),
        last_error: Set(Some("nobody delivered it in time".to_owned())),
        lease_owner: Set(None),
        lease_until: Set(None),
        updated_at: Set(now),
        ..Default::default()
    };
    let done = Entity::update_many()
        .set(dead)
        .filter(Column::State.eq(DeliveryState::Pending))
        .filter(Column::UpdatedAt.lt(before))
        .exec(tx)
        .await
        .map_err(|error| db_error("giving up deliveries", error))?;
    Ok(done.rows_affected)
}

/// Forgets what came to its end in `state` before `before`; says how many.
pub async fn delete_before(tx: &Tx, state: DeliveryState, before: Timestamp) -> Result<u64> {
    let gone = Entity::delete_many()
        .filter(Column::State.eq(state))
        .filter(Column::UpdatedAt.lt(before))
        .exec(tx)
        .await
        .map_err(|error| db_error("forgetting deliveries", error))?;
    Ok(gone.rows_affected)
}
