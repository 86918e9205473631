//! The people of the long mix: what each of them presses, and what he was told.

use std::{sync::Arc, time::Duration};

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    ledger::{self, Capture, Known, Session, judged},
    mix::Mix,
    service::{Answer, Service},
};

/// Somebody who presses buttons.
pub struct Person {
    pub mix: Arc<Mix>,
    pub random: StdRng,
    pub user: &'static str,
    pub room: &'static str,
    pub finger: usize,
}

impl Person {
    pub async fn live(mut self) {
        let mut presses = 0;
        while self.mix.next().await.is_some() {
            presses += 1;
            let running = self.mix.ledger().running(self.user);
            match (running, self.random.random_range(0..20)) {
                (_, 0) => self.stop().await,
                (_, 1) => self.damage().await,
                (None, 2..6) => self.start().await,
                (_, 6..11) => self.delete(None).await,
                (_, 11) => {
                    let made = self.capture(presses).await;
                    self.delete(made).await;
                }
                _ => drop(self.capture(presses).await),
            }
            let pause = Duration::from_millis(self.random.random_range(20..400));
            tokio::time::sleep(pause).await;
        }
    }

    async fn start(&mut self) {
        let body = json!({ "roomName": self.room, "quality": "source" });
        let turn = self.random.random_range(0..2);
        let answer = self.mix.ask(turn, Method::POST, self.user, "/start", body).await;
        self.mix.note("start");
        let mut ledger = self.mix.ledger();
        match answer {
            Answer::Said(201, session) => {
                let id = session["id"].as_str().unwrap().to_owned();
                // the other finger may have heard of it before, and have stopped it
                let fresh = Session { user: self.user.to_owned(), stopped: Known::No, begun: true };
                ledger.sessions.entry(id).or_insert(fresh);
            }
            // the other finger's, or one whose answer was lost
            Answer::Said(409, problem) => {
                if let Some(id) = problem["sessionId"].as_str() {
                    let found = Session {
                        user: self.user.to_owned(),
                        stopped: Known::Unknown,
                        begun: false,
                    };
                    ledger.sessions.entry(id.to_owned()).or_insert(found);
                }
            }
            Answer::Said(..) | Answer::Absent => {}
            Answer::Broken => *ledger.unknown_starts.entry(self.user.to_owned()).or_default() += 1,
        }
    }

    async fn stop(&mut self) {
        let Some(session) = self.mix.ledger().newest_session(self.user) else { return };
        let path = format!("/stop/{session}");
        let turn = self.random.random_range(0..2);
        let answer = self.mix.ask(turn, Method::POST, self.user, &path, json!({})).await;
        self.mix.note("stop");
        let known = match answer {
            Answer::Said(200 | 409, _) => Known::Yes,
            Answer::Said(status, problem) => panic!("stopping: {status} {problem}"),
            Answer::Absent => return,
            Answer::Broken => Known::Unknown,
        };
        let mut ledger = self.mix.ledger();
        let told = &mut ledger.sessions.get_mut(&session).unwrap().stopped;
        if *told != Known::Yes {
            *told = known;
        }
    }

    /// Answers the title of what was accepted.
    async fn capture(&mut self, presses: u32) -> Option<String> {
        let session = self.mix.ledger().newest_session(self.user)?;
        let title = format!("{}-{}-{presses}", self.user, self.finger);
        let precision = if self.random.random_bool(0.1) { "exact" } else { "keyframe" };
        let body = json!({
            "sessionId": session, "durationSeconds": self.random.random_range(1..6),
            "precision": precision, "title": title,
        });
        let turn = self.random.random_range(0..2);
        let process = self.mix.running(turn);
        let answer = ledger::capture_by(&self.mix.two.first, process, self.user, &body).await;
        self.mix.see("/capture", &answer);
        self.mix.note(match &answer {
            Answer::Said(202, _) => "capture".to_owned(),
            Answer::Said(_, problem) => format!("capture refused: {}", problem["code"]),
            Answer::Absent | Answer::Broken => "capture without an answer".to_owned(),
        });
        let (known, id) = judged(&answer);
        let told = Capture { user: self.user.to_owned(), known, id, body, deleted: Known::No };
        self.mix.ledger().captures.insert(title.clone(), told);
        (known == Known::Yes).then_some(title)
    }

    /// Deletes a clip that was accepted: this one, most likely still in the making, or any.
    async fn delete(&mut self, title: Option<String>) {
        let making = title.is_some();
        let (title, id) = {
            let mut ledger = self.mix.ledger();
            let mine = ledger.captures.iter().filter(|(_, told)| {
                told.user == self.user && told.known == Known::Yes && told.deleted == Known::No
            });
            let mine = mine.filter(|(other, _)| title.as_ref().is_none_or(|title| title == *other));
            let own: Vec<_> =
                mine.filter_map(|(title, told)| Some((title, told.id.as_ref()?))).collect();
            let Some((title, id)) = own.choose(&mut self.random) else { return };
            let (title, id) = ((*title).clone(), (*id).clone());
            // the other finger keeps off: whoever is told that it is not there lost it
            ledger.captures.get_mut(&title).unwrap().deleted = Known::Unknown;
            (title, id)
        };
        let path = format!("/clips/{id}");
        let turn = self.random.random_range(0..2);
        let answer = self.mix.ask(turn, Method::DELETE, self.user, &path, Value::Null).await;
        let deleted = match answer {
            Answer::Said(200, _) => {
                self.mix.note(if making { "delete in the making" } else { "delete" });
                Known::Yes
            }
            Answer::Said(503, _) | Answer::Broken => Known::Unknown,
            Answer::Absent => Known::No,
            Answer::Said(status, problem) => panic!("deleting {title}: {status} {problem}"),
        };
        self.mix.ledger().captures.get_mut(&title).unwrap().deleted = deleted;
    }

    /// Writes something else into the newest segments of the user's session, as a broken disk would.
    async fn damage(&mut self) {
        let Some(session) = self.mix.ledger().newest_session(self.user) else { return };
        let service: &Service = &self.mix.two.first;
        let mut segments = segments_below(&service.config.storage.buffer, &session);
        segments.sort();
        let newest = segments.len().saturating_sub(3);
        for segment in segments.drain(newest..) {
            // the same length: what was indexed is still what the row says, but for its bytes
            let length = std::fs::metadata(&segment).map_or(0, |about| about.len());
            let _gone_meanwhile =
                std::fs::write(&segment, vec![0_u8; usize::try_from(length).unwrap()]);
        }
        self.mix.note("damaged segments");
    }
}

/// Segments of a session, in whichever of its directories.
fn segments_below(root: &std::path::Path, session: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "ts")
                && path.to_string_lossy().contains(session)
            {
                found.push(path);
            }
        }
    }
    found
}
