//! The audit log: a line for every administrative act, written in the act's own transaction, and one for every refused
//! attempt. People stand in it by pseudonyms, so that a person can be forgotten and no line ever changes
//! (`docs/decisions/0008-audit-and-erasure.md`).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::{Deps, admin, authorize};
use crate::{
    access::Caller,
    domain::{
        audit::{Action, Outcome, is_written},
        id::{ClipId, CommunityId, JobId, SessionId, UserId},
        time::Timestamp,
    },
    error::Result,
    store::{self, Page, Tx, audit, clip, community, session},
};

pub use crate::domain::audit::Door;

/// What is done, and on what. `before` and `after` never hold a name of a person or anybody's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    action: Action,
    community: Option<CommunityId>,
    user: Option<UserId>,
    session: Option<SessionId>,
    clip: Option<ClipId>,
    job: Option<JobId>,
    before: Option<Value>,
    after: Option<Value>,
}

impl Line {
    /// A line that says no more than what was done.
    pub fn new(action: Action) -> Line {
        Line {
            action,
            community: None,
            user: None,
            session: None,
            clip: None,
            job: None,
            before: None,
            after: None,
        }
    }

    /// In this community.
    pub fn community(mut self, id: Option<&CommunityId>) -> Line {
        self.community = id.cloned();
        self
    }

    /// On this user.
    pub fn user(mut self, id: &UserId) -> Line {
        self.user = Some(id.clone());
        self
    }

    /// On this session, and so on its owner, in its community.
    pub fn session(self, row: &session::Model) -> Line {
        let mut line = self.community(row.community_id.as_ref()).user(&row.user_id);
        line.session = Some(row.id.clone());
        line
    }

    /// On this clip, and so on its owner, in its community.
    pub fn clip(self, row: &clip::Model) -> Line {
        let mut line = self.community(row.community_id.as_ref()).user(&row.user_id);
        line.clip = Some(row.id.clone());
        line
    }

    /// On this job.
    pub fn job(mut self, id: &JobId) -> Line {
        self.job = Some(id.clone());
        self
    }

    /// How it was.
    pub fn before(mut self, state: Value) -> Line {
        self.before = Some(state);
        self
    }

    /// How it is now.
    pub fn after(mut self, state: Value) -> Line {
        self.after = Some(state);
        self
    }
}

/// A line with who did it; whoever opens the act's transaction writes it there.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    by: Caller,
    line: Line,
}

impl Signed {
    /// `by` does this.
    pub fn new(by: &Caller, line: Line) -> Signed {
        Signed { by: by.clone(), line }
    }

    /// Writes the line; the act is not done if this fails.
    pub async fn write(self, tx: &Tx, now: Timestamp) -> Result<()> {
        write(tx, &self.by, self.line, Outcome::Done, now).await
    }
}

/// Writes that `by` does this, in the transaction that does it.
///
/// # Errors
/// Those of the database; the transaction must not be committed then.
pub async fn done(tx: &Tx, by: &Caller, line: Line, now: Timestamp) -> Result<()> {
    write(tx, by, line, Outcome::Done, now).await
}

/// Writes a line in a transaction of its own, before something that has none.
///
/// # Errors
/// Those of the database; the thing must not be done then.
pub async fn announce(deps: &Deps, by: &Caller, line: Line) -> Result<()> {
    let tx = deps.db.begin().await?;
    done(&tx, by, line, deps.clock.now()).await?;
    store::commit(tx).await
}

async fn write(tx: &Tx, by: &Caller, line: Line, outcome: Outcome, now: Timestamp) -> Result<()> {
    let actor = (by.origin.door == Door::User).then_some(&by.user_id);
    let people: Vec<UserId> = actor.into_iter().chain(&line.user).cloned().collect();
    let called = audit::pseudonyms(tx, &people).await?;
    let name = |user: Option<&UserId>| user.and_then(|user| called.get(user).cloned());
    let row = audit::Model {
        id: uuid::Uuid::now_v7().to_string(),
        at: now,
        outcome,
        action: line.action,
        door: by.origin.door,
        actor: name(actor),
        subject: name(line.user.as_ref()),
        uid: by.origin.uid.map(i64::from),
        community_id: line.community,
        session_id: line.session,
        clip_id: line.clip,
        job_id: line.job,
        state_before: line.before.map(|state| state.to_string()),
        state_after: line.after.map(|state| state.to_string()),
        request_id: by.origin.request_id.as_deref().map(|id| plain_request_id(id, &people)),
    };
    audit::add(tx, row).await
}

/// A request's id as we make them is kept; what a client chose itself could be anybody's name and is hashed.
fn plain_request_id(id: &str, people: &[UserId]) -> String {
    let like_ours = uuid::Uuid::try_parse(id).is_ok_and(|id| id.get_version_num() == 7);
    if like_ours && people.iter().all(|person| person.as_str() != id) {
        return id.to_owned();
    }
    let hash = blake3::hash(id.as_bytes()).to_hex();
    format!("blake3:{}", hash.get(..32).unwrap_or_default())
}

/// What a refused attempt was aimed at, as far as the address says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// A community.
    pub community: Option<CommunityId>,
    /// A user.
    pub user: Option<UserId>,
    /// A session.
    pub session: Option<SessionId>,
    /// A clip.
    pub clip: Option<ClipId>,
    /// A job.
    pub job: Option<JobId>,
    /// Whether it was a privilege whatever there is at the address.
    pub in_any_case: bool,
}

/// Refused attempts of the present window, counted in this process so that a flood of them writes a line only at the
/// 1st, 2nd, 4th, 8th, … of the same person and kind (`domain::audit::is_written`).
#[derive(Debug, Default)]
pub struct Refusals {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Timestamp,
    all: u64,
    own: HashMap<(UserId, Action), u64>,
}

/// After that many seconds counting begins anew.
const WINDOW_SECONDS: i64 = 600;
/// Kinds counted apart in a window; beyond it new ones are counted together only.
const MOST_KINDS: usize = 4096;

impl Refusals {
    /// Counts one; answers how often it was so far if it is to be written.
    fn count(&self, who: &UserId, action: Action, now: Timestamp) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= window.began.plus_seconds(WINDOW_SECONDS) || now < window.began {
            *window = Window { began: now, ..Window::default() };
        }
        window.all += 1;
        let all = window.all;
        let kind = (who.clone(), action);
        let own = if window.own.len() < MOST_KINDS || window.own.contains_key(&kind) {
            let own = window.own.entry(kind).or_default();
            *own += 1;
            *own
        } else {
            all
        };
        is_written(own, all).then_some(own)
    }

    /// Writes that `by` was refused this with that code, unless it is a repetition that is not written.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note(
        &self,
        deps: &Deps,
        by: &Caller,
        action: Action,
        target: Target,
        code: &str,
    ) -> Result<()> {
        let now = deps.clock.now();
        let Some(line) = aim(deps, by, Line::new(action), target).await? else { return Ok(()) };
        let Some(times) = self.count(&by.user_id, action, now) else { return Ok(()) };
        let line = line.after(serde_json::json!({ "code": code, "times": times }));
        let tx = deps.db.begin().await?;
        write(&tx, by, line, Outcome::Refused, now).await?;
        store::commit(tx).await
    }
}

/// The line with what it was aimed at. Only what exists is named: an address is a stranger's text. `None` when
/// somebody looked for a session or clip of his own, or for one that is not there, which is nobody's privilege.
async fn aim(deps: &Deps, by: &Caller, line: Line, target: Target) -> Result<Option<Line>> {
    let db = deps.db.conn();
    let mut line = line;
    if let Some(id) = &target.session {
        match session::find(db, id).await? {
            Some(row) if row.user_id != by.user_id => line = line.session(&row),
            _ if target.in_any_case => {}
            _ => return Ok(None),
        }
    }
    if let Some(id) = &target.clip {
        match clip::find(db, id).await? {
            Some(row) if row.user_id != by.user_id => line = line.clip(&row),
            _ if target.in_any_case => {}
            _ => return Ok(None),
        }
    }
    if let Some(id) = &target.job
        && store::job::find(db, id).await?.is_some()
    {
        line = line.job(id);
    }
    if let Some(id) = &target.community
        && community::find(db, id).await?.is_some()
    {
        line.community = Some(id.clone());
    }
    if let Some(user) = &target.user
        && crate::domain::names::check_name("userId", user.as_str()).is_ok()
    {
        line = line.user(user);
    }
    Ok(Some(line))
}

/// What a reader of the log asks for.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// One community's.
    pub community: Option<CommunityId>,
    /// Acts of this user.
    pub actor: Option<UserId>,
    /// One kind of act.
    pub action: Option<Action>,
    /// Done or refused.
    pub outcome: Option<Outcome>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// A line as it is read, with names where they are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As it stands.
    pub row: audit::Model,
    /// Who did it, unless that was forgotten or was no user.
    pub actor: Option<UserId>,
    /// To whom, unless that was forgotten or was no user.
    pub subject: Option<UserId>,
}

/// A page of the log, newest first, with the total.
///
/// # Errors
/// [`crate::error::Code::PermissionDenied`] for whoever is no instance admin, nor manages the community asked for.
pub async fn list(
    deps: &Deps,
    caller: &Caller,
    question: Question,
    page: Page,
) -> Result<(Vec<Entry>, u64)> {
    admin::require_manager(deps, caller, question.community.as_ref()).await?;
    let db = deps.db.conn();
    let actor = match &question.actor {
        Some(user) => match audit::find_pseudonym(db, user).await? {
            Some(pseudonym) => Some(pseudonym),
            // nobody of that name stands in it
            None => return Ok((Vec::new(), 0)),
        },
        None => None,
    };
    let filter = audit::Filter {
        community_id: question.community,
        actor,
        about: None,
        action: question.action,
        outcome: question.outcome,
        from: question.from,
        to: question.to,
    };
    let (rows, total) = audit::list(db, &filter, page).await?;
    Ok((named(deps, rows).await?, total))
}

async fn named(deps: &Deps, rows: Vec<audit::Model>) -> Result<Vec<Entry>> {
    let mut people: Vec<String> =
        rows.iter().flat_map(|row| row.actor.iter().chain(&row.subject)).cloned().collect();
    people.sort();
    people.dedup();
    let names = audit::names(deps.db.conn(), people).await?;
    let name = |called: &Option<String>| names.get(called.as_ref()?).cloned();
    let entry = |row: audit::Model| {
        let (actor, subject) = (name(&row.actor), name(&row.subject));
        Entry { row, actor, subject }
    };
    Ok(rows.into_iter().map(entry).collect())
}

/// Every line that a user did or that was done to him, newest first; other people are left out.
pub(super) async fn about(deps: &Deps, user: &UserId) -> Result<Vec<Entry>> {
    let Some(pseudonym) = audit::find_pseudonym(deps.db.conn(), user).await? else {
        return Ok(Vec::new());
    };
    let filter = audit::Filter { about: Some(pseudonym), ..audit::Filter::default() };
    let page = Page { limit: u64::from(u32::MAX), offset: 0 };
    let (rows, _) = audit::list(deps.db.conn(), &filter, page).await?;
    let mut entries = named(deps, rows).await?;
    for entry in &mut entries {
        entry.actor = entry.actor.take().filter(|actor| actor == user);
        entry.subject = entry.subject.take().filter(|subject| subject == user);
    }
    Ok(entries)
}

/// Asks whether the caller is an instance admin: for acts on a user.
pub(super) async fn require_admin(deps: &Deps, caller: &Caller, user: &UserId) -> Result<()> {
    crate::domain::names::check_name("userId", user.as_str())?;
    authorize::require_instance_admin(deps, caller).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_per_person_and_kind_and_begin_anew_with_the_window() {
        let refusals = Refusals::default();
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let at = |seconds: i64| Timestamp::from_micros(1_800_000_000_000_000).plus_seconds(seconds);
        let ask = |who: &UserId, second: i64| refusals.count(who, Action::ClipDelete, at(second));
        let ann_says: Vec<_> = (0..9).map(|n| ask(&ann, n)).collect();
        assert_eq!(ann_says, [Some(1), Some(2), None, Some(4), None, None, None, Some(8), None]);
        assert_eq!(ask(&bob, 9), Some(1));
        assert_eq!(refusals.count(&ann, Action::ClipList, at(9)), Some(1));
        assert_eq!(ask(&ann, 600), Some(1), "a new window");
    }

    #[test]
    fn a_request_id_that_a_client_chose_names_nobody() {
        let ours = uuid::Uuid::now_v7().to_string();
        assert_eq!(plain_request_id(&ours, &[UserId::new("ann")]), ours);
        assert_ne!(plain_request_id(&ours, &[UserId::new(ours.as_str())]), ours);
        assert!(!plain_request_id("ann-17", &[]).contains("ann"));
    }
}
