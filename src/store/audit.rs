//! The audit log. Lines are only ever added: the database refuses to change or delete one. People stand in them by
//! pseudonyms; [`forget`] drops the only row that says who a pseudonym is.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::Set, Condition, QueryOrder, QuerySelect, entity::prelude::*, sea_query::OnConflict,
};

use super::{Conn, Page, Tx, columns, db_error};
use crate::{
    domain::{
        audit::{Action, Door, Outcome},
        id::{ClipId, CommunityId, JobId, SessionId, UserId},
        time::Timestamp,
    },
    error::{Error, Result},
};

columns::text_column!(
    Action => |text| Action::from_name(&text),
    Outcome => |text| Outcome::from_name(&text),
    Door => |text| Door::from_name(&text),
);

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_entry")]
pub struct Model {
    /// Ours, in the order of time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Done or refused.
    pub outcome: Outcome,
    /// What.
    pub action: Action,
    /// By which way in.
    pub door: Door,
    /// Who: a pseudonym; none behind the control socket and on the command line.
    pub actor: Option<String>,
    /// On whom: a pseudonym.
    pub subject: Option<String>,
    /// The user id of the process behind the socket or the command.
    pub uid: Option<i64>,
    /// In which community.
    pub community_id: Option<CommunityId>,
    /// On which session.
    pub session_id: Option<SessionId>,
    /// On which clip.
    pub clip_id: Option<ClipId>,
    /// On which job.
    pub job_id: Option<JobId>,
    /// JSON.
    pub state_before: Option<String>,
    /// JSON.
    pub state_after: Option<String>,
    /// The request.
    pub request_id: Option<String>,
}

/// No relations are followed.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Who a pseudonym is.
pub mod person {
    use super::*;

    /// A user and what he is called in the log.
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_person")]
    pub struct Model {
        /// Random.
        #[sea_orm(primary_key, auto_increment = false)]
        pub pseudonym: String,
        /// The user.
        pub user_id: UserId,
    }

    /// No relations are followed.
    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Adds a line. Call it in the transaction of what it tells.
pub async fn add(tx: &Tx, row: Model) -> Result<()> {
    let active: ActiveModel = row.into();
    Entity::insert(active.reset_all())
        .exec_without_returning(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("writing the audit log", error))
}

/// The users' pseudonyms, made where there is none yet.
pub async fn pseudonyms(tx: &Tx, users: &[UserId]) -> Result<HashMap<UserId, String>> {
    let mut users = users.to_vec();
    // everybody in one order: two acts of the same two people must not wait for each other
    users.sort();
    users.dedup();
    for user in &users {
        let row = person::ActiveModel {
            pseudonym: Set(uuid::Uuid::new_v4().to_string()),
            user_id: Set(user.clone()),
        };
        person::Entity::insert(row)
            .on_conflict(OnConflict::column(person::Column::UserId).do_nothing().to_owned())
            .exec_without_returning(tx)
            .await
            .map_err(|error| db_error("making a pseudonym", error))?;
    }
    let mut found = HashMap::new();
    for user in users {
        let pseudonym = find_pseudonym(tx, &user).await?;
        let pseudonym = pseudonym
            .ok_or_else(|| Error::internal("reading a pseudonym just made", "it is gone"))?;
        found.insert(user, pseudonym);
    }
    Ok(found)
}

/// What a user is called in the log, if he stands in it.
pub async fn find_pseudonym<C: Conn>(db: &C, user: &UserId) -> Result<Option<String>> {
    let row = person::Entity::find()
        .filter(person::Column::UserId.eq(user.clone()))
        .one(db)
        .await
        .map_err(|error| db_error("reading a pseudonym", error))?;
    Ok(row.map(|row| row.pseudonym))
}

/// Who these pseudonyms are; those that were forgotten are left out.
pub async fn names<C: Conn>(db: &C, pseudonyms: Vec<String>) -> Result<HashMap<String, UserId>> {
    let mut found = HashMap::new();
    for some in pseudonyms.chunks(500) {
        let rows = person::Entity::find()
            .filter(person::Column::Pseudonym.is_in(some.iter().cloned()))
            .all(db)
            .await
            .map_err(|error| db_error("reading who is meant", error))?;
        found.extend(rows.into_iter().map(|row| (row.pseudonym, row.user_id)));
    }
    Ok(found)
}

/// Forgets who a user's pseudonym is: the lines stay and name nobody.
pub async fn forget(tx: &Tx, user: &UserId) -> Result<()> {
    person::Entity::delete_many()
        .filter(person::Column::UserId.eq(user.clone()))
        .exec(tx)
        .await
        .map(drop)
        .map_err(|error| db_error("forgetting a pseudonym", error))
}

/// What a list is narrowed by.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One community's.
    pub community_id: Option<CommunityId>,
    /// Of this pseudonym's acts.
    pub actor: Option<String>,
    /// Acts of or on this pseudonym.
    pub about: Option<String>,
    /// One kind of act.
    pub action: Option<Action>,
    /// Done or refused.
    pub outcome: Option<Outcome>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// A page of lines, newest first, with the total.
pub async fn list<C: Conn>(db: &C, filter: &Filter, page: Page) -> Result<(Vec<Model>, u64)> {
    let query = Entity::find().filter(narrowed(filter));
    let counted = query.clone().count(db).await;
    let total = counted.map_err(|error| db_error("counting audit lines", error))?;
    let rows = query
        .order_by_desc(Column::At)
        .order_by_desc(Column::Id)
        .limit(page.limit)
        .offset(page.offset)
        .all(db)
        .await
        .map_err(|error| db_error("listing audit lines", error))?;
    Ok((rows, total))
}

fn narrowed(filter: &Filter) -> Condition {
    let about = filter.about.as_ref().map(|about| {
        Condition::any().add(Column::Actor.eq(about.clone())).add(Column::Subject.eq(about.clone()))
    });
    Condition::all()
        .add_option(filter.community_id.clone().map(|id| Column::CommunityId.eq(id)))
        .add_option(filter.actor.clone().map(|actor| Column::Actor.eq(actor)))
        .add_option(about)
        .add_option(filter.action.map(|action| Column::Action.eq(action)))
        .add_option(filter.outcome.map(|outcome| Column::Outcome.eq(outcome)))
        .add_option(filter.from.map(|from| Column::At.gte(from)))
        .add_option(filter.to.map(|to| Column::At.lt(to)))
}
