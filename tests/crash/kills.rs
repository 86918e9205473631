//! `kill -9` at random moments while several people start, stop, capture and delete.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use livekit_replay::simulator::{Media, Share};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{self, Capture, Known, Ledger, Session, judged},
    on_both_engines, seeded,
    service::{Answer, Service},
    support::On,
    truth::settles,
};

/// Random kills, on either engine.
const KILLS: usize = 20;
const USERS: [(&str, &str); 4] =
    [("ann", "red-room"), ("bob", "red-room"), ("cem", "blue-room"), ("dea", "blue-room")];

on_both_engines!(random_kills_lose_nothing_that_was_promised);

async fn random_kills_lose_nothing_that_was_promised(on: On) {
    let (seed, mut random) = seeded(&format!("random kills on {on:?}"));
    let service = Arc::new(Service::new(on).await);
    for (user, room) in USERS {
        let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
        service.sim.publish_share(room, &format!("{user}:tab"), share).unwrap();
    }
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let over = CancellationToken::new();
    let people: Vec<_> = (0..)
        .zip(USERS)
        .map(|(number, (user, room))| {
            let person = Person {
                service: Arc::clone(&service),
                ledger: Arc::clone(&ledger),
                random: StdRng::seed_from_u64(seed.wrapping_add(number)),
                user,
                room,
            };
            tokio::spawn(person.live(over.clone()))
        })
        .collect();

    let mut before_ready = 0;
    for _ in 0..KILLS {
        service.spawn(None).await;
        // some moments lie before the service is ready, however long that takes; the others after
        if random.random_bool(0.2) {
            let life = Duration::from_millis(random.random_range(10..400));
            before_ready += usize::from(tokio::time::timeout(life, service.ready()).await.is_err());
        } else {
            service.ready().await;
            let life = Duration::from_millis(random.random_range(10..5000));
            tokio::time::sleep(life).await;
        }
        service.kill().await;
    }
    service.start(None).await;
    over.cancel();
    for person in people {
        person.await.expect("no panic");
    }
    let mut ledger = Arc::into_inner(ledger).expect("nobody else").into_inner().unwrap();
    let service = Arc::into_inner(service).expect("nobody else");
    tell(&ledger, before_ready);

    repeat_unknown(&service, &mut ledger).await;
    let users = USERS.map(|(user, _)| user);
    settles(&service, &ledger, &users, "random kills").await;
    service.must(Method::POST, "root", "/admin/sessions/stop-all", Some(json!({}))).await;
    ledger.sessions.values_mut().for_each(|session| session.stopped = Known::Yes);
    settles(&service, &ledger, &users, "everybody stopped").await;
    let running = service.sim.running_encoders();
    assert_eq!(running, 0, "nobody records any more");
    service.close().await;
}

fn tell(ledger: &Ledger, before_ready: usize) {
    let captures = |known: Known| ledger.captures.values().filter(|one| one.known == known).count();
    let deleted =
        |known: Known| ledger.captures.values().filter(|one| one.deleted == known).count();
    let stopped =
        |known: Known| ledger.sessions.values().filter(|one| one.stopped == known).count();
    println!(
        "{KILLS} kills, {before_ready} of them before the service was ready; captures: {} accepted, {} refused, {} \
         unknown; deletions: {} and {} unknown; sessions: {}, stopped {} and {} unknown; unknown starts {}",
        captures(Known::Yes),
        captures(Known::No),
        captures(Known::Unknown),
        deleted(Known::Yes),
        deleted(Known::Unknown),
        ledger.sessions.len(),
        stopped(Known::Yes),
        stopped(Known::Unknown),
        ledger.unknown_starts.values().sum::<usize>(),
    );
    assert!(captures(Known::Yes) > KILLS / 2, "too little happened to prove anything");
}

/// Whoever does not know asks again under the same key, and gets the clip of the first time if there is one.
pub async fn repeat_unknown(service: &Service, ledger: &mut Ledger) {
    for told in ledger.captures.values_mut().filter(|told| told.known == Known::Unknown) {
        let answer = ledger::capture(service, &told.user, &told.body).await;
        (told.known, told.id) = judged(&answer);
        assert_ne!(told.known, Known::Unknown, "nobody kills any more: {answer:?}");
    }
}

/// Somebody who presses buttons.
struct Person {
    service: Arc<Service>,
    ledger: Arc<Mutex<Ledger>>,
    random: StdRng,
    user: &'static str,
    room: &'static str,
}

impl Person {
    async fn live(mut self, over: CancellationToken) {
        let mut presses = 0;
        while !over.is_cancelled() {
            tokio::select! {
                () = self.service.up() => {}
                () = over.cancelled() => return,
            }
            presses += 1;
            let running = self.ledger.lock().unwrap().running(self.user);
            match (running, self.random.random_range(0..10)) {
                (None, 0..6) => self.start().await,
                (Some(session), 0) => self.stop(&session).await,
                (_, 1 | 2) => self.delete().await,
                _ => self.capture(presses).await,
            }
            let pause = Duration::from_millis(self.random.random_range(200..1600));
            tokio::time::sleep(pause).await;
        }
    }

    async fn start(&self) {
        let answer = ledger::start(&self.service, self.user, self.room).await;
        let mut ledger = self.ledger.lock().unwrap();
        match answer {
            Answer::Said(201, session) => ledger.note_started(self.user, &session["id"]),
            // one whose answer was lost: it runs, or is about to be ended because nobody was told of it
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

    async fn stop(&self, session: &str) {
        let path = format!("/stop/{session}");
        let answer =
            self.service.ask(Method::POST, self.user, &path, |request| request.json(&json!({})));
        let known = match answer.await {
            Answer::Said(200 | 409, _) => Known::Yes,
            Answer::Said(status, problem) => panic!("stopping: {status} {problem}"),
            Answer::Absent => return,
            Answer::Broken => Known::Unknown,
        };
        self.ledger.lock().unwrap().sessions.get_mut(session).unwrap().stopped = known;
    }

    async fn capture(&mut self, presses: u32) {
        let Some(session) = self.ledger.lock().unwrap().newest_session(self.user) else { return };
        let title = format!("{}-{presses}", self.user);
        let seconds = self.random.random_range(1..6);
        let precision = if self.random.random_bool(0.25) { "exact" } else { "keyframe" };
        let body = json!({
            "sessionId": session, "durationSeconds": seconds, "precision": precision, "title": title,
        });
        let answer = ledger::capture(&self.service, self.user, &body).await;
        if let Answer::Said(status @ 300.., problem) = &answer {
            println!("{title}: {status} {} {}", problem["code"], problem["detail"]);
        }
        let (known, id) = judged(&answer);
        let told = Capture { user: self.user.to_owned(), known, id, body, deleted: Known::No };
        self.ledger.lock().unwrap().captures.insert(title, told);
    }

    /// Deletes one of the clips that were accepted, ready or not.
    async fn delete(&mut self) {
        let own: Vec<(String, String)> = {
            let ledger = self.ledger.lock().unwrap();
            let mine = ledger.captures.iter().filter(|(_, told)| {
                told.user == self.user && told.known == Known::Yes && told.deleted == Known::No
            });
            mine.filter_map(|(title, told)| Some((title.clone(), told.id.clone()?))).collect()
        };
        let Some((title, id)) = own.choose(&mut self.random) else { return };
        let path = format!("/clips/{id}");
        let deleted =
            match self.service.ask(Method::DELETE, self.user, &path, |request| request).await {
                Answer::Said(200, _) => Known::Yes,
                Answer::Said(status, problem) => panic!("deleting {title}: {status} {problem}"),
                Answer::Absent => return,
                Answer::Broken => Known::Unknown,
            };
        self.ledger.lock().unwrap().captures.get_mut(title).unwrap().deleted = deleted;
    }
}
