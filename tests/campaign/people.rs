//! The people: they press what the plan says and remember what they were told. Nothing here looks behind the answers.

use std::{sync::atomic::Ordering, time::Duration};

use livekit_replay::clock::{Clock, SystemClock};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    field::Field,
    ledger::{Capture, Known, Session, judged},
    plan::{Operation, PEOPLE, Press},
    service::Answer,
};

/// An answer that took longer is late.
const LATE: Duration = Duration::from_millis(2500);
/// As long as somebody asks again while nobody listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// Presses one person's operations of a phase, one after the other.
pub async fn press_all(field: &Field, operations: Vec<(usize, Operation)>) {
    for (number, one) in operations {
        press(field, number, one).await;
        tokio::time::sleep(Duration::from_millis(one.pause)).await;
    }
}

/// Presses once. `number` is the operation's place in the campaign: a name for what comes of it.
pub async fn press(field: &Field, number: usize, one: Operation) {
    let person = Person { field, number, one };
    field.tally.operation(one.press);
    match one.press {
        Press::Start => person.start().await,
        Press::Again => {
            person.stop().await;
            person.start().await;
        }
        Press::Stop => person.stop().await,
        Press::CaptureLast | Press::CaptureSpan | Press::CaptureOn => person.capture().await,
        Press::Trim => person.trim().await,
        Press::Delete => person.delete().await,
        Press::Download => person.download().await,
        Press::List => drop(person.ask(Method::GET, "/my-clips?limit=20", |all| all).await),
    }
}

struct Person<'a> {
    field: &'a Field,
    number: usize,
    one: Operation,
}

impl Person<'_> {
    fn user(&self) -> &'static str {
        PEOPLE[self.one.person].0
    }

    /// Asks the replica of the plan; where nobody listens another one, until somebody does.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        shape: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let began = Instant::now();
        let count = self.field.replicas();
        let mut turn = self.one.replica;
        loop {
            let number = turn % count;
            let process = self.field.replica(number);
            self.field.busy[number].fetch_add(1, Ordering::SeqCst);
            let asked = Instant::now();
            let answer = self
                .field
                .service
                .ask_of(process, method.clone(), self.user(), path, |request| {
                    shape(request.header("X-Request-Id", format!("campaign-{}", self.number)))
                })
                .await;
            self.field.busy[number].fetch_sub(1, Ordering::SeqCst);
            // asking again and again while nobody is there counts once
            if turn == self.one.replica || !matches!(answer, Answer::Absent) {
                self.see(&answer, asked.elapsed());
            }
            if !matches!(answer, Answer::Absent) || began.elapsed() > PATIENCE {
                return answer;
            }
            turn += 1;
            if turn % count == self.one.replica % count {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn see(&self, answer: &Answer, took: Duration) {
        let late = took > LATE;
        let (label, hurt) = match answer {
            Answer::Said(status @ (500.. | 429), problem) => {
                let code = problem["code"].as_str().unwrap_or("without a code");
                (format!("{status} {code}"), *status != 429)
            }
            Answer::Said(status @ 400.., problem) => (
                format!("{status} {}", problem["code"].as_str().unwrap_or("without a code")),
                false,
            ),
            Answer::Said(status, _) => (status.to_string(), false),
            Answer::Absent => ("nobody there, asked again".to_owned(), true),
            Answer::Broken => ("connection broke".to_owned(), true),
        };
        self.field.tally.answer(self.one.press, label, hurt, late);
        if let Answer::Said(500, problem) = answer {
            self.field.tally.fault_of_ours(self.number, problem);
        }
    }

    async fn post(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.ask(Method::POST, path, |request| {
            let request = request.header("Prefer", "respond-async").json(body);
            match key {
                Some(key) => request.header("Idempotency-Key", key),
                None => request,
            }
        })
        .await
    }

    async fn start(&self) {
        let (user, room) = PEOPLE[self.one.person];
        let body = json!({ "roomName": room, "quality": "source" });
        let answer = self.post("/start", None, &body).await;
        let mut ledger = self.field.ledger();
        match answer {
            Answer::Said(201, session) => {
                let id = session["id"].as_str().expect("an id").to_owned();
                // the one before is over, whoever ended it
                ledger.sessions.values_mut().filter(|other| other.user == user).for_each(|other| {
                    if other.stopped == Known::No {
                        other.stopped = Known::Unknown;
                    }
                });
                self.field.note_begun(&id);
                let fresh = Session { user: user.to_owned(), stopped: Known::No, begun: true };
                ledger.sessions.insert(id, fresh);
            }
            Answer::Said(409, problem) => {
                if let Some(id) = problem["sessionId"].as_str() {
                    self.field.note_begun(id);
                    let found =
                        Session { user: user.to_owned(), stopped: Known::Unknown, begun: false };
                    ledger.sessions.entry(id.to_owned()).or_insert(found);
                }
            }
            Answer::Said(..) | Answer::Absent => {}
            Answer::Broken => *ledger.unknown_starts.entry(user.to_owned()).or_default() += 1,
        }
    }

    async fn stop(&self) {
        let Some(session) = self.field.ledger().newest_session(self.user()) else { return };
        let answer = self.post(&format!("/stop/{session}"), None, &json!({})).await;
        let known = match answer {
            Answer::Said(200 | 409, _) => Known::Yes,
            Answer::Said(500.., _) | Answer::Broken => Known::Unknown,
            Answer::Said(status, problem) => {
                return self.field.wrong(format!("stopping {session}: {status} {problem}"));
            }
            Answer::Absent => return,
        };
        let mut ledger = self.field.ledger();
        let told = &mut ledger.sessions.get_mut(&session).expect("known").stopped;
        if *told != Known::Yes {
            *told = known;
        }
    }

    async fn capture(&self) {
        let Some(session) = self.field.ledger().newest_session(self.user()) else { return };
        let (pick, key) = (self.one.pick, format!("c{}", self.number));
        let precision = if self.one.exact { "exact" } else { "keyframe" };
        let mut body = json!({ "sessionId": session, "precision": precision, "title": key });
        let seconds = 1 + pick % 5;
        match self.one.press {
            Press::CaptureSpan => {
                let from = (pick >> 8) % 25;
                body["startSeconds"] = from.into();
                body["endSeconds"] = (from + seconds).into();
            }
            Press::CaptureOn => {
                body["durationSeconds"] = seconds.into();
                body["postSeconds"] = (1 + (pick >> 8) % 3).into();
            }
            _ => body["durationSeconds"] = seconds.into(),
        }
        self.make("/capture".to_owned(), key, body).await;
    }

    async fn trim(&self) {
        let Some((key, id)) = self.choose() else { return };
        let about = self.ask(Method::GET, &format!("/clips/{id}"), |request| request).await;
        let Answer::Said(200, clip) = about else { return };
        let Some(length) = clip["durationSeconds"].as_f64() else { return };
        let precision = if self.one.exact { "exact" } else { "keyframe" };
        let (from, to) = (0.1 * length, 0.8 * length);
        let body = json!({ "startSeconds": from, "endSeconds": to, "precision": precision });
        let key = format!("t{}-of-{key}", self.number);
        self.make(format!("/clips/{id}/trim"), key, body).await;
    }

    /// A capture or trim, under its key: an answer that says nothing for sure is asked for again at once, or at the end.
    async fn make(&self, path: String, key: String, body: Value) {
        let asked = SystemClock.now();
        let mut answer = self.post(&path, Some(&key), &body).await;
        if told(&answer).0 == Known::Unknown && self.one.pick.is_multiple_of(2) {
            answer = self.post(&path, Some(&key), &body).await;
        }
        let (known, id) = told(&answer);
        if let Some(session) = body["sessionId"].as_str() {
            self.field.note_capture(session, &key);
        }
        let mut ledger = self.field.ledger();
        ledger.asked.insert(key.clone(), (path, asked));
        let user = self.user().to_owned();
        ledger.captures.insert(key, Capture { user, known, id, body, deleted: Known::No });
    }

    /// One of the person's clips that were accepted.
    fn choose(&self) -> Option<(String, String)> {
        let ledger = self.field.ledger();
        let mine = ledger.captures.iter().filter(|(_, told)| {
            told.user == self.user() && told.known == Known::Yes && told.deleted == Known::No
        });
        let own: Vec<_> = mine.filter_map(|(key, told)| Some((key, told.id.as_ref()?))).collect();
        let chosen = own.get(usize::try_from(self.one.pick % own.len().max(1) as u64).ok()?)?;
        Some((chosen.0.clone(), chosen.1.clone()))
    }

    async fn delete(&self) {
        let Some((key, id)) = self.choose() else { return };
        let deleted = match self.ask(Method::DELETE, &format!("/clips/{id}"), |all| all).await {
            Answer::Said(200, _) => Known::Yes,
            // one that was not answered may have been done
            Answer::Said(500.., _) | Answer::Broken => Known::Unknown,
            Answer::Said(status, problem) => {
                return self.field.wrong(format!("deleting {key} ({id}): {status} {problem}"));
            }
            Answer::Absent => return,
        };
        self.field.ledger().captures.get_mut(&key).expect("known").deleted = deleted;
    }

    /// What can be downloaded is whole: as long as it says and with the checksum it says.
    async fn download(&self) {
        let Some((key, id)) = self.choose() else { return };
        let about = self.ask(Method::GET, &format!("/clips/{id}"), |request| request).await;
        let Answer::Said(200, clip) = about else { return };
        let path = format!("/clips/{id}/file");
        let process = self.field.replica(self.one.replica % self.field.replicas());
        if process.base().is_none() {
            return;
        }
        let began = Instant::now();
        let sent = self.field.service.send(process, Method::GET, self.user(), &path, |all| all);
        let (status, bytes) = match sent.await {
            Ok(answer) => (answer.status().as_u16(), answer.bytes().await),
            Err(_) => return self.see(&Answer::Broken, began.elapsed()),
        };
        let Ok(bytes) = bytes else { return self.see(&Answer::Broken, began.elapsed()) };
        let said = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        self.see(&Answer::Said(status, said.clone()), began.elapsed());
        let is_it = || {
            let hash = format!("blake3:{}", blake3::hash(&bytes).to_hex());
            clip["sizeBytes"] == bytes.len() && clip["checksum"] == hash
        };
        match (status, clip["status"].as_str()) {
            (200, Some("ready")) if is_it() => self.field.tally.whole(bytes.len()),
            // made between the two questions
            (200, Some("processing")) | (409 | 500.., _) => {}
            _ => {
                let (length, says) = (bytes.len(), clip["sizeBytes"].clone());
                self.field.wrong(format!(
                    "downloading {key} ({id}, {}): {status}, {length} bytes of {says}: {said}",
                    clip["status"]
                ));
            }
        }
    }
}

/// What an answer says of what was asked for: one that blames the service leaves it open, because it may have been done
/// before it went wrong.
pub fn told(answer: &Answer) -> (Known, Option<String>) {
    match answer {
        Answer::Said(500..507, _) => (Known::Unknown, None),
        answer => judged(answer),
    }
}

/// Asks again for whatever nobody knows, under the same key.
pub async fn repeat_unknown(field: &Field) {
    let open: Vec<(String, Capture)> = {
        let ledger = field.ledger();
        let open = ledger.captures.iter().filter(|(_, told)| told.known == Known::Unknown);
        open.map(|(key, told)| (key.clone(), told.clone())).collect()
    };
    for (key, capture) in open {
        let path = field.ledger().asked[&key].0.clone();
        let shape = |request: RequestBuilder| {
            let request = request.header("Prefer", "respond-async");
            request.header("Idempotency-Key", key.clone()).json(&capture.body)
        };
        let mut answer = field.service.ask(Method::POST, &capture.user, &path, shape).await;
        // its first asking may still hold the key: its lease is 30 s
        let began = Instant::now();
        while matches!(&answer, Answer::Said(409 | 429 | 503, _)) && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = field.service.ask(Method::POST, &capture.user, &path, shape).await;
        }
        let (known, id) = told(&answer);
        if known == Known::Unknown {
            field
                .wrong(format!("{key}: nothing is broken any more, and it is answered {answer:?}"));
        }
        let mut ledger = field.ledger();
        let told = ledger.captures.get_mut(&key).expect("known");
        (told.known, told.id) = (known, id);
    }
}
