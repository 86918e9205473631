//! What clients were told, and nothing else: the model that the restarted service is held against.

use std::{collections::BTreeMap, time::Duration};

use livekit_replay::domain::time::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    process::Process,
    service::{Answer, Service},
};

/// What a client knows of a thing it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Answered 2xx: it must be so.
    Yes,
    /// Refused, or never sent: it must not be so.
    No,
    /// The connection broke: either.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Capture {
    pub user: String,
    pub known: Known,
    pub id: Option<String>,
    pub body: Value,
    /// Whether its clip was deleted.
    pub deleted: Known,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub user: String,
    pub stopped: Known,
    /// Whether somebody was answered that it runs; else it may have been stopped before LiveKit accepted it.
    pub begun: bool,
}

/// Captures by title (a title is used once, and is the `Idempotency-Key` too), sessions by id.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    pub captures: BTreeMap<String, Capture>,
    pub sessions: BTreeMap<String, Session>,
    /// Starts nobody knows the outcome of, by user.
    pub unknown_starts: BTreeMap<String, usize>,
    /// Codes that an accepted capture may fail with, because what it needs was broken.
    pub may_fail: Vec<String>,
    /// The same for single captures, by title or key.
    pub explained: BTreeMap<String, Vec<&'static str>>,
    /// The same for captures that met something broken.
    pub excuses: Vec<Excuse>,
    /// A capture whose media never came may not fail for that alone: it has to be explained.
    pub strict: bool,
    /// How long segments stay after nobody may capture them any more.
    pub segments_kept: Duration,
    /// How long a failed clip can be tried again, where the service was told another time than it is by default.
    pub failed_kept: Option<Duration>,
    /// Ends that a session may have come to by itself, because LiveKit was broken.
    pub may_end: Vec<&'static str>,
    /// Where something was asked for, and when; for those who ask in other places than `/capture`.
    pub asked: BTreeMap<String, (String, Timestamp)>,
}

/// Something was broken for a while.
#[derive(Debug, Clone)]
pub struct Excuse {
    pub from: Timestamp,
    pub to: Timestamp,
    /// What a capture that met it may fail with.
    pub codes: &'static [&'static str],
    /// It hurts what is recorded, not only what is made of it.
    pub of_material: bool,
}

impl Excuse {
    /// `asked` is when the clip was asked for; the clip tells when it had failed, and which time it is of.
    fn holds(&self, clip: &Value, asked: Timestamp) -> bool {
        let time = |field: &str| Timestamp::parse_rfc3339(clip[field].as_str().unwrap_or_default());
        let failed = time("updatedAt").expect("a clip says when it changed");
        let recorded = time("requestedFrom").filter(|_| self.of_material);
        let since = recorded.map_or(asked, |recorded| recorded.min(asked));
        self.codes.iter().any(|code| clip["error"]["code"] == *code)
            && self.from <= failed
            && since <= self.to
    }
}

impl Ledger {
    /// Under which title or key a clip was asked for: by its id, or, where nobody was told that, by its title.
    pub fn key_of<'a>(&'a self, id: &str, title: &'a str) -> &'a str {
        let known = self.captures.iter().find(|(_, told)| told.id.as_deref() == Some(id));
        known.map_or(title, |(key, _)| key)
    }

    /// Whether a clip may have failed as it did.
    pub fn explains(&self, key: &str, clip: &Value) -> bool {
        let code = &clip["error"]["code"];
        let own = self.explained.get(key);
        let asked = self.asked.get(key).map(|(_, at)| *at);
        self.may_fail.iter().any(|may| code == may)
            || own.is_some_and(|own| own.iter().any(|may| code == may))
            || asked.is_some_and(|asked| self.excuses.iter().any(|one| one.holds(clip, asked)))
    }

    /// Where a user's capture may come from: the newest session he knows of.
    pub fn newest_session(&self, user: &str) -> Option<String> {
        let own = self.sessions.iter().rev().find(|(_, session)| session.user == user);
        own.map(|(id, _)| id.clone())
    }

    /// The session a user believes to run.
    pub fn running(&self, user: &str) -> Option<String> {
        let mut own = self.sessions.iter().filter(|(_, session)| session.user == user);
        own.find(|(_, session)| session.stopped == Known::No).map(|(id, _)| id.clone())
    }

    pub fn note_started(&mut self, user: &str, id: &Value) {
        let id = id.as_str().expect("an id").to_owned();
        let fresh = Session { user: user.to_owned(), stopped: Known::No, begun: true };
        self.sessions.entry(id).or_insert(fresh);
    }
}

/// POST /start.
pub async fn start(service: &Service, user: &str, room: &str) -> Answer {
    let body = json!({ "roomName": room, "quality": "source" });
    service.ask(Method::POST, user, "/start", |request| request.json(&body)).await
}

/// POST /capture that does not wait, under a key.
pub async fn capture(service: &Service, user: &str, body: &Value) -> Answer {
    capture_by(service, &service.process, user, body).await
}

/// [`capture`] asked of a certain process.
pub async fn capture_by(service: &Service, process: &Process, user: &str, body: &Value) -> Answer {
    let key = body["title"].as_str().expect("a title").to_owned();
    service
        .ask_of(process, Method::POST, user, "/capture", |request| {
            let request = request.header("Prefer", "respond-async").header("Idempotency-Key", key);
            request.json(body)
        })
        .await
}

/// What an answer to a capture says, with the clip's id.
pub fn judged(answer: &Answer) -> (Known, Option<String>) {
    match answer {
        Answer::Said(201 | 202, clip) => (Known::Yes, clip["id"].as_str().map(str::to_owned)),
        Answer::Said(..) | Answer::Absent => (Known::No, None),
        Answer::Broken => (Known::Unknown, None),
    }
}
