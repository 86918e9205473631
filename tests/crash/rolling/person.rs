//! Somebody who presses buttons while releases change, and presses again where the service asks for it.

use std::{sync::Arc, time::Duration};

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Town;
use crate::ledger::{Capture, Known, Ledger, Session};

pub struct Person {
    pub town: Arc<Town>,
    pub random: StdRng,
    pub user: &'static str,
    pub room: &'static str,
    pub presses: u32,
}

impl Person {
    pub async fn live(mut self, over: CancellationToken) {
        while !over.is_cancelled() {
            self.presses += 1;
            let running = self.ledger().running(self.user);
            match (running, self.random.random_range(0..12)) {
                (None, _) => self.start().await,
                (Some(session), 0) => self.stop(&session).await,
                (_, 1 | 2) => self.delete().await,
                (_, 3..6) => self.look().await,
                (Some(session), _) => self.capture(&session).await,
            }
            let pause = Duration::from_millis(self.random.random_range(500..2700));
            tokio::time::sleep(pause).await;
        }
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.town.ledger.lock().unwrap()
    }

    async fn start(&mut self) {
        let body = json!({ "roomName": self.room, "quality": "source" });
        let what = (Method::POST, "/start");
        let town = Arc::clone(&self.town);
        let asked =
            town.ask(&mut self.random, ("start", self.user), what, |request| request.json(&body));
        let (status, told, _) = asked.await;
        let id = match status {
            201 => &told["id"],
            409 => &told["sessionId"],
            _ => panic!("starting: {status} {told:#}"),
        };
        let id = id.as_str().expect("an id").to_owned();
        let fresh = Session { user: self.user.to_owned(), stopped: Known::No, begun: true };
        self.ledger().sessions.insert(id, fresh);
    }

    async fn stop(&mut self, session: &str) {
        let path = format!("/stop/{session}");
        let town = Arc::clone(&self.town);
        let what = (Method::POST, path.as_str());
        let asked = town
            .ask(&mut self.random, ("stop", self.user), what, |request| request.json(&json!({})));
        let (status, told, _) = asked.await;
        assert!(matches!(status, 200 | 409), "stopping: {status} {told:#}");
        self.ledger().sessions.get_mut(session).expect("known").stopped = Known::Yes;
    }

    async fn capture(&mut self, session: &str) {
        let title = format!("{}-{}", self.user, self.presses);
        let exact = self.random.random_bool(0.2);
        let body = json!({
            "sessionId": session, "durationSeconds": self.random.random_range(1..8),
            "precision": if exact { "exact" } else { "keyframe" }, "title": title,
        });
        let town = Arc::clone(&self.town);
        let asked = town.ask(
            &mut self.random,
            ("capture", self.user),
            (Method::POST, "/capture"),
            |request| {
                let request = request.header("Prefer", "respond-async");
                request.header("Idempotency-Key", &title).json(&body)
            },
        );
        let (status, told, _) = asked.await;
        let known = match status {
            201 | 202 => Known::Yes,
            // nothing was recorded yet
            409 | 422 => Known::No,
            _ => panic!("capturing: {status} {told:#}"),
        };
        let id = told["id"].as_str().filter(|_| known == Known::Yes).map(str::to_owned);
        let user = self.user.to_owned();
        let told = Capture { user, known, id, body, deleted: Known::No };
        self.ledger().captures.insert(title, told);
    }

    async fn delete(&mut self) {
        let found = {
            let ledger = self.ledger();
            let own = ledger.captures.iter().filter(|(_, told)| {
                told.user == self.user && told.known == Known::Yes && told.deleted == Known::No
            });
            own.map(|(title, told)| (title.clone(), told.id.clone())).next()
        };
        let Some((title, Some(id))) = found else { return };
        let path = format!("/clips/{id}");
        let town = Arc::clone(&self.town);
        let what = (Method::DELETE, path.as_str());
        let asked = town.ask(&mut self.random, ("delete", self.user), what, |request| request);
        let (status, told, heard) = asked.await;
        assert!(status == 200 || (heard && status == 404), "deleting {title}: {status} {told:#}");
        self.ledger().captures.get_mut(&title).expect("known").deleted = Known::Yes;
    }

    /// The library, and one clip's file.
    async fn look(&mut self) {
        let town = Arc::clone(&self.town);
        let what = (Method::GET, "/my-clips?limit=100");
        let asked = town.ask(&mut self.random, ("library", self.user), what, |request| request);
        let (status, listed, _) = asked.await;
        assert_eq!(status, 200, "{listed:#}");
        let ready: Vec<_> = listed["clips"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|clip| clip["status"] == "ready")
            .collect();
        let Some(clip) = ready.choose(&mut self.random) else { return };
        let path = format!("/clips/{}/file", clip["id"].as_str().unwrap());
        let what = (Method::GET, path.as_str());
        let asked = town.ask(&mut self.random, ("download", self.user), what, |request| request);
        let (status, told, _) = asked.await;
        assert_eq!(status, 200, "{told:#}");
    }
}
