//! The audit log, and what users and communities take.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{MOST_PER_PAGE, page};
use crate::{
    access::Caller,
    domain::{
        audit::{Action, Outcome},
        id::{CommunityId, UserId},
        names,
        time::Timestamp,
    },
    error::{Error, Result},
    flow::{
        audit_log::{self, Entry, Question},
        usage::{self, Taken},
    },
    http::{AppState, error::Answer, extract::Query},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show_usage))
}

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Lines {
    /// One community's; without it all, for an instance admin.
    community_id: Option<String>,
    /// What this user did or was refused.
    actor: Option<String>,
    /// One kind of act: `community.change`, `clip.delete`, …
    action: Option<String>,
    /// `done` or `refused`.
    outcome: Option<String>,
    /// Not before, RFC 3339.
    from: Option<String>,
    /// Before, RFC 3339.
    to: Option<String>,
    /// 1 to 200, 50 unless told.
    limit: Option<u64>,
    /// How many to pass over.
    offset: Option<u64>,
}

impl Lines {
    fn question(&self) -> Result<Question> {
        if let Some(actor) = &self.actor {
            names::check_name("actor", actor)?;
        }
        let unknown = |field, text: &str| Error::invalid_field(field, text.to_owned());
        let action = self.action.as_deref().map(|name| {
            Action::from_name(name).ok_or_else(|| unknown("action", "is none that is written down"))
        });
        let outcome = self.outcome.as_deref().map(|name| {
            Outcome::from_name(name).ok_or_else(|| unknown("outcome", "is done or refused"))
        });
        Ok(Question {
            community: self.community_id.as_deref().map(CommunityId::new),
            actor: self.actor.as_deref().map(UserId::new),
            action: action.transpose()?,
            outcome: outcome.transpose()?,
            from: moment("from", self.from.as_deref())?,
            to: moment("to", self.to.as_deref())?,
        })
    }
}

fn moment(field: &str, text: Option<&str>) -> Result<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    let found = Timestamp::parse_rfc3339(text);
    found.map(Some).ok_or_else(|| Error::invalid_field(field, "is no RFC 3339 time"))
}

/// Somebody who stands in the log. An erased user's id is known to nobody any more; his lines still belong together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Person {
    /// Absent once the user was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// What he is called in the log itself.
    pseudonym: String,
}

/// Who did it or was refused.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Actor {
    /// `user` (with a token), `control_socket` or `command_line`.
    kind: &'static str,
    #[serde(flatten)]
    person: Option<Person>,
    /// The user id of the process behind the socket or the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<i64>,
}

/// A line of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryView {
    id: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `done` or `refused`.
    outcome: &'static str,
    /// A stable word: `community.change`, `clip.delete`, …
    action: &'static str,
    actor: Actor,
    /// On whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Person>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clip_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    /// How it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// How it is since; of a refusal its `code`, and how often (`times`) the same was refused in ten minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// The request; hashed where its client had chosen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> EntryView {
        let Entry { row, actor, subject } = entry;
        let person = |pseudonym: Option<String>, user: Option<UserId>| {
            let user_id = user.map(UserId::into_string);
            pseudonym.map(|pseudonym| Person { user_id, pseudonym })
        };
        let state = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        EntryView {
            id: row.id,
            at: row.at,
            outcome: row.outcome.as_str(),
            action: row.action.as_str(),
            actor: Actor {
                kind: row.door.as_str(),
                person: person(row.actor, actor),
                uid: row.uid,
            },
            subject: person(row.subject, subject),
            community_id: row.community_id.map(|id| id.into_string()),
            session_id: row.session_id.map(|id| id.into_string()),
            clip_id: row.clip_id.map(|id| id.into_string()),
            job_id: row.job_id.map(|id| id.into_string()),
            before: state(row.state_before),
            after: state(row.state_after),
            request_id: row.request_id,
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
struct Log {
    entries: Vec<EntryView>,
    total: u64,
}

/// The audit log, newest first: who did what, and who was refused. Instance admin; with `communityId` also its
/// MANAGE_REPLAY_LIMITS.
#[utoipa::path(get, path = "/admin/audit", operation_id = "list_audit", tag = "admin", security(("bearer" = [])),
    params(Lines),
    responses((status = 200, body = Log), (status = 403, description = "permission_denied"),
        (status = 422, description = "validation_failed")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(lines): Query<Lines>,
) -> Answer<Json<Log>> {
    let page = page(lines.limit, lines.offset)?;
    let (rows, total) = audit_log::list(&state.deps, &caller, lines.question()?, page).await?;
    Ok(Json(Log { entries: rows.into_iter().map(EntryView::from).collect(), total }))
}

/// Whose use.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// One community's; without it all, for an instance admin.
    community_id: Option<String>,
    /// How many users and communities are named, the largest first: 1 to 200, 50 unless told.
    limit: Option<u64>,
}

/// What is taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TakenView {
    /// Bytes of ready clips: what counts against an allowance.
    clip_bytes: i64,
    /// Bytes reserved for clips that are being made.
    reserved_bytes: i64,
    /// Ready clips.
    clips: i64,
    /// Sessions, also those that are over.
    sessions: i64,
    /// Sessions that hold a place.
    active_sessions: i64,
    /// Bytes of segments that are kept.
    buffer_bytes: i64,
}

impl From<Taken> for TakenView {
    fn from(taken: Taken) -> TakenView {
        TakenView {
            clip_bytes: taken.clip_bytes,
            reserved_bytes: taken.reserved_bytes,
            clips: taken.clips,
            sessions: taken.sessions,
            active_sessions: taken.active_sessions,
            buffer_bytes: taken.buffer_bytes,
        }
    }
}

/// What a user takes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UserTakes {
    user_id: String,
    #[serde(flatten)]
    taken: TakenView,
}

/// What a community takes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CommunityTakes {
    /// Null for what belongs to no community.
    community_id: Option<String>,
    #[serde(flatten)]
    taken: TakenView,
}

/// What is taken in all and by whom.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UsageView {
    /// Over everybody, named below or not.
    all: TakenView,
    /// The largest first.
    users: Vec<UserTakes>,
    /// Users in all.
    total: usize,
    /// The largest first.
    communities: Vec<CommunityTakes>,
    /// Communities in all.
    communities_total: usize,
}

/// Bytes, clips and sessions of users and communities, the largest first, with sums. Instance admin; with
/// `communityId` also its MANAGE_REPLAY_LIMITS.
#[utoipa::path(get, path = "/admin/usage", tag = "admin", security(("bearer" = [])),
    params(Whose),
    responses((status = 200, body = UsageView), (status = 403, description = "permission_denied")))]
async fn show_usage(
    State(state): State<AppState>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Answer<Json<UsageView>> {
    let most = page(whose.limit, None)?.limit.min(MOST_PER_PAGE);
    let community = whose.community_id.map(CommunityId::new);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = usage::show(&state.deps, &caller, community, most).await?;
    let user =
        |(id, taken): (UserId, Taken)| UserTakes { user_id: id.into_string(), taken: taken.into() };
    let community = |(id, taken): (Option<CommunityId>, Taken)| CommunityTakes {
        community_id: id.map(|id| id.into_string()),
        taken: taken.into(),
    };
    Ok(Json(UsageView {
        all: found.all.into(),
        users: found.users.into_iter().map(user).collect(),
        total: found.users_total,
        communities: found.communities.into_iter().map(community).collect(),
        communities_total: found.communities_total,
    }))
}
