//! Two releases at once: processes of the one are replaced by processes of the other while people press their buttons,
//! one of the old ones dies and comes back to a schema that is newer than itself, and then everything goes back.
//!
//! `REPLAY_OLD_PROGRAM` names the other release's program (`scripts/rolling.sh` builds it); without it the test says that
//! it was skipped.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use livekit_replay::simulator::{Media, Share};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{Capture, Known, Ledger, Session},
    process::Process,
    seeded,
    service::{Answer, Service},
    support::{On, postgres_url::postgres_url},
    truth::settles,
};

const USERS: [(&str, &str); 6] = [
    ("ann", "red-room"),
    ("bob", "red-room"),
    ("cem", "blue-room"),
    ("dea", "blue-room"),
    ("eva", "red-hall"),
    ("fay", "blue-hall"),
];
/// How often somebody asks again who was not answered, or was asked to come later.
const TRIES: usize = 60;
const PAUSE: Duration = Duration::from_millis(250);

/// Seconds that both releases run beside each other: `REPLAY_ROLLING_SECONDS`.
fn together() -> Duration {
    let told = std::env::var("REPLAY_ROLLING_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(told.unwrap_or(120))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_releases_serve_the_same_people() {
    let Some(old) = std::env::var_os("REPLAY_OLD_PROGRAM").map(PathBuf::from) else {
        println!("skipped: REPLAY_OLD_PROGRAM names no other release");
        return;
    };
    if postgres_url().is_none() {
        return;
    }
    let (seed, _) = seeded("two releases");
    let mut first = Service::new(On::Postgres).await;
    first.process.becomes(&old);
    let mut second = first.replica_at_rest("second");
    second.becomes(&old);
    let third = first.replica_at_rest("third");
    let town =
        Arc::new(Town { first, second, third, ledger: Mutex::default(), seen: Mutex::default() });
    for (user, room) in USERS {
        let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
        town.first.sim.publish_share(room, &format!("{user}:tab"), share).unwrap();
    }
    town.begin(&town.first.process).await;
    town.begin(&town.second).await;

    let over = CancellationToken::new();
    let people: Vec<_> = (0..)
        .zip(USERS)
        .map(|(number, (user, room))| {
            let random = StdRng::seed_from_u64(seed.wrapping_add(number));
            let person = Person { town: Arc::clone(&town), random, user, room, presses: 0 };
            tokio::spawn(person.live(over.clone()))
        })
        .collect();

    town.phase("old alone", together() / 8).await;
    town.begin(&town.third).await;
    town.end(&town.second).await;
    town.phase("old and new", together() / 2).await;
    town.first.process.kill().await;
    town.phase("the old one is dead", Duration::from_secs(3)).await;
    town.begin(&town.first.process).await;
    town.phase("old, started on the newer schema, and new", together() / 2).await;
    town.begin(&town.second).await;
    town.end(&town.third).await;
    town.phase("rolled back to old", together() / 4).await;
    over.cancel();
    for person in people {
        person.await.expect("no panic");
    }
    let town = Arc::into_inner(town).expect("nobody else");
    town.judge().await;
}

struct Town {
    /// Old, with the places and LiveKit.
    first: Service,
    /// Old.
    second: Process,
    /// This release.
    third: Process,
    ledger: Mutex<Ledger>,
    seen: Mutex<Seen>,
}

/// What was answered.
#[derive(Default)]
struct Seen {
    phase: String,
    /// By phase, what was asked, and the answer.
    answers: BTreeMap<(String, &'static str, String), usize>,
    /// What nobody may be answered.
    wrong: Vec<String>,
}

impl Town {
    fn processes(&self) -> [&Process; 3] {
        [&self.first.process, &self.second, &self.third]
    }

    async fn begin(&self, process: &Process) {
        process.start(None).await;
        self.hear_webhooks();
    }

    async fn end(&self, process: &Process) {
        process.end().await;
        self.hear_webhooks();
    }

    fn hear_webhooks(&self) {
        let bases = self.processes().into_iter().filter_map(Process::base);
        let hooks = bases.map(|base| format!("{base}/webhooks/livekit")).collect();
        self.first.sim.set_webhook_urls(hooks);
    }

    async fn phase(&self, name: &str, lasts: Duration) {
        name.clone_into(&mut self.seen.lock().unwrap().phase);
        tokio::time::sleep(lasts).await;
        let wrong = self.seen.lock().unwrap().wrong.clone();
        assert_eq!(wrong, Vec::<String>::new(), "{name}");
        for process in self.processes() {
            let Some(base) = process.base() else { continue };
            // dead ones have a base until they are waited for: none is killed in a phase
            let root = base.trim_end_matches("/livekit-replay");
            self.is_ready(name, process, &format!("{root}/health/ready")).await;
        }
    }

    /// A machine with much to do may keep the answer waiting for a moment, as anybody else's.
    async fn is_ready(&self, name: &str, process: &Process, url: &str) {
        let mut said = Value::Null;
        for _ in 0..TRIES {
            let answer = reqwest::get(url).await.expect("an answer");
            let status = answer.status().as_u16();
            said = answer.json().await.unwrap_or(Value::Null);
            self.note("readiness", &Answer::Said(status, said.clone()));
            if status == 200 {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{name}: {url}: {said:#}\n{}", process.log());
    }

    fn note(&self, what: &'static str, answer: &Answer) {
        let told = match answer {
            Answer::Said(status, problem) if *status >= 400 => {
                format!("{status} {}", problem["code"])
            }
            Answer::Said(status, _) => status.to_string(),
            Answer::Absent => "nobody there".to_owned(),
            Answer::Broken => "broken off".to_owned(),
        };
        let mut seen = self.seen.lock().unwrap();
        if matches!(answer, Answer::Said(500 | 501 | 502 | 504.., _)) {
            let wrong = format!("{}, {what}: {answer:?}", seen.phase);
            seen.wrong.push(wrong);
        }
        let key = (seen.phase.clone(), what, told);
        *seen.answers.entry(key).or_default() += 1;
    }

    /// What came of it in the end, and whether an earlier try may have been heard.
    async fn ask(
        &self,
        random: &mut StdRng,
        (what, user): (&'static str, &str),
        (method, path): (Method, &str),
        shape: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> (u16, Value, bool) {
        let mut heard = false;
        for _ in 0..TRIES {
            let running: Vec<_> =
                self.processes().into_iter().filter(|process| process.base().is_some()).collect();
            let Some(process) = running.choose(random) else { continue };
            let answer = self.first.ask_of(process, method.clone(), user, path, &shape).await;
            self.note(what, &answer);
            match answer {
                Answer::Said(503, _) | Answer::Absent => {}
                Answer::Said(status, told) => return (status, told, heard),
                Answer::Broken => heard = true,
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{what} by {user} has no answer after {TRIES} tries");
    }

    async fn judge(self) {
        let seen = self.seen.into_inner().unwrap();
        println!("| phase | asked | answered | times |\n|---|---|---|---|");
        for ((phase, what, told), times) in &seen.answers {
            println!("| {phase} | {what} | {told} | {times} |");
        }
        assert_eq!(seen.wrong, Vec::<String>::new());
        let ledger = self.ledger.into_inner().unwrap();
        let users = USERS.map(|(user, _)| user);
        settles(&self.first, &ledger, &users, "old alone again").await;
        // and forward once more: what the older one left is right for the newer one too
        self.second.end().await;
        self.first.process.kill().await;
        let mut first = self.first;
        first.process.becomes(std::path::Path::new(env!("CARGO_BIN_EXE_livekit-replay")));
        first.start(None).await;
        settles(&first, &ledger, &users, "new alone").await;
        whole(&first).await;
        let verified = first.must(Method::POST, "root", "/admin/clips/verify", None);
        let verified = verified.await;
        println!("clips verify: {verified}");
        assert_eq!(
            verified["findings"],
            json!([]),
            "the one is told nothing new of what the other made"
        );
        let accepted = ledger.captures.values().filter(|one| one.known == Known::Yes).count();
        println!("{accepted} captures accepted");
        assert!(accepted > 20, "too little happened to prove anything");
        first.close().await;
    }
}

/// Nothing that one release indexed was taken for damaged by the other.
async fn whole(service: &Service) {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (user, _) in USERS {
        let listed = service.must(Method::GET, user, "/my-clips?limit=100", None).await;
        for clip in listed["clips"].as_array().unwrap() {
            for gap in clip["gaps"].as_array().into_iter().flatten() {
                let reason = gap["reason"].as_str().unwrap().to_owned();
                *reasons.entry(reason).or_default() += 1;
            }
        }
    }
    println!("gaps in clips: {reasons:?}");
    let damaged = ["corrupt", "truncated"];
    assert!(!damaged.iter().any(|reason| reasons.contains_key(*reason)), "{reasons:?}");
}

/// Somebody who presses buttons, and presses again where the service asks for it.
struct Person {
    town: Arc<Town>,
    random: StdRng,
    user: &'static str,
    room: &'static str,
    presses: u32,
}

impl Person {
    async fn live(mut self, over: CancellationToken) {
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
        let fresh = Session { user: self.user.to_owned(), stopped: Known::No };
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
