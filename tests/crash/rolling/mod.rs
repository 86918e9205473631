//! Two releases at once: processes of the one are replaced by processes of the other while people press their buttons,
//! one of the old ones dies and comes back to a schema that is newer than itself, they change places again and again
//! ([`turns`]), and then everything goes back.
//!
//! `REPLAY_OLD_PROGRAM` names the other release's program (`scripts/rolling.sh` builds it); without it the test says that
//! it was skipped.

mod person;
mod turns;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use livekit_replay::simulator::{Media, Share};
use rand::{SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{person::Person, turns::Turns};
use crate::{
    ledger::{Known, Ledger},
    process::{Process, this_release},
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

/// How often a process of the one release makes place for one of the other: `REPLAY_ROLLING_TURNS`.
fn turns() -> usize {
    let told = std::env::var("REPLAY_ROLLING_TURNS").ok().and_then(|text| text.parse().ok());
    told.unwrap_or(14)
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
    let (seed, mut random) = seeded("two releases");
    let town = Arc::new(Town::new(old).await);
    for (user, room) in USERS {
        let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
        town.first.sim.publish_share(room, &format!("{user}:tab"), share).unwrap();
    }
    town.begin(0, Release::Old).await;
    town.begin(1, Release::Old).await;

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
    town.begin(2, Release::New).await;
    town.end(1).await;
    town.phase("old and new", together() / 2).await;
    town.kill(0).await;
    town.phase("the old one is dead", Duration::from_secs(3)).await;
    town.begin(0, Release::Old).await;
    town.phase("old, started on the newer schema, and new", together() / 2).await;
    town.begin(1, Release::Old).await;
    let taken = Turns::taken(&town, &mut random, turns()).await;
    for process in town.all(Release::New) {
        town.end(process).await;
        town.begin(process, Release::Old).await;
    }
    town.phase("rolled back to old", together() / 4).await;
    over.cancel();
    for person in people {
        person.await.expect("no panic");
    }
    taken.told();
    let town = Arc::into_inner(town).expect("nobody else");
    town.judge().await;
    taken.judge();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    Old,
    New,
}

/// What a process has to do with.
#[derive(Default)]
struct Traffic {
    in_flight: usize,
    /// With a word that stands.
    answered: usize,
    /// Not there, broken off, or "come later": to be asked again.
    put_off: usize,
}

struct Town {
    /// With the places and LiveKit.
    first: Service,
    second: Process,
    third: Process,
    /// The program of [`Release::Old`].
    old: PathBuf,
    /// What each process is, or was when it ran.
    releases: Mutex<[Release; 3]>,
    traffic: Mutex<[Traffic; 3]>,
    /// Rung for each request that is sent and for each that is answered.
    moved: Notify,
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
    /// Nobody runs yet.
    async fn new(old: PathBuf) -> Town {
        let first = Service::new(On::Postgres).await;
        let second = first.replica_at_rest("second");
        let third = first.replica_at_rest("third");
        Town {
            first,
            second,
            third,
            old,
            releases: Mutex::new([Release::Old; 3]),
            traffic: Mutex::default(),
            moved: Notify::new(),
            ledger: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    fn processes(&self) -> [&Process; 3] {
        [&self.first.process, &self.second, &self.third]
    }

    async fn begin(&self, process: usize, release: Release) {
        let program = if release == Release::Old { self.old.clone() } else { this_release() };
        self.releases.lock().unwrap()[process] = release;
        let process = self.processes()[process];
        process.becomes(&program);
        process.start(None).await;
        self.hear_webhooks();
    }

    async fn end(&self, process: usize) {
        self.processes()[process].end().await;
        self.hear_webhooks();
    }

    /// LiveKit goes on announcing to it until somebody takes its place.
    async fn kill(&self, process: usize) {
        self.processes()[process].kill().await;
    }

    /// Those of that release, by number.
    fn all(&self, release: Release) -> Vec<usize> {
        let releases = *self.releases.lock().unwrap();
        (0..3).filter(|process| releases[*process] == release).collect()
    }

    fn traffic(&self) -> MutexGuard<'_, [Traffic; 3]> {
        self.traffic.lock().unwrap()
    }

    fn hear_webhooks(&self) {
        let bases = self.processes().into_iter().filter_map(Process::base);
        let hooks = bases.map(|base| format!("{base}/webhooks/livekit")).collect();
        self.first.sim.set_webhook_urls(hooks);
    }

    async fn phase(&self, name: &str, lasts: Duration) {
        self.called(name);
        tokio::time::sleep(lasts).await;
        self.all_is_well(name).await;
    }

    fn called(&self, name: &str) {
        name.clone_into(&mut self.seen.lock().unwrap().phase);
    }

    /// Nobody was answered what nobody may be answered, and who runs is ready.
    async fn all_is_well(&self, name: &str) {
        let wrong = self.seen.lock().unwrap().wrong.clone();
        assert_eq!(wrong, Vec::<String>::new(), "{name}");
        for process in self.processes() {
            let Some(base) = process.base() else { continue };
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
            let answer = self.ask_one(random, user, (method.clone(), path), &shape).await;
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

    /// Asks one of those that run.
    async fn ask_one(
        &self,
        random: &mut StdRng,
        user: &str,
        (method, path): (Method, &str),
        shape: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        let processes = self.processes();
        let running: Vec<_> = (0..3).filter(|one| processes[*one].base().is_some()).collect();
        let Some(&process) = running.choose(random) else { return Answer::Absent };
        self.traffic()[process].in_flight += 1;
        self.moved.notify_waiters();
        let answer = self.first.ask_of(processes[process], method, user, path, shape).await;
        let mut traffic = self.traffic();
        let traffic = &mut traffic[process];
        traffic.in_flight -= 1;
        match answer {
            Answer::Said(503, _) | Answer::Absent | Answer::Broken => traffic.put_off += 1,
            Answer::Said(..) => traffic.answered += 1,
        }
        self.moved.notify_waiters();
        answer
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
        self.third.end().await;
        let first = self.first;
        first.process.kill().await;
        first.process.becomes(&this_release());
        first.start(None).await;
        settles(&first, &ledger, &users, "new alone").await;
        whole(&first).await;
        verify(&first).await;
        let accepted = ledger.captures.values().filter(|one| one.known == Known::Yes).count();
        println!("{accepted} captures accepted");
        assert!(accepted > 20, "too little happened to prove anything");
        first.close().await;
    }
}

/// The one release is told nothing new of what the other made: every clip's bytes are as they were said to be, and no file
/// is unknown.
async fn verify(service: &Service) {
    let (mut clips, mut after) = (0, String::new());
    let unknown = loop {
        let path = format!("/admin/clips/verify?limit=200{after}");
        let page = service.must(Method::POST, "root", &path, None).await;
        assert_eq!(page["findings"], json!([]), "{page:#}");
        clips += page["clips"].as_u64().expect("a number");
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break page["unknown"].clone(),
        }
    };
    println!("clips verify: {clips} clips without a finding; unknown: {unknown}");
    let none = json!({ "restored": 0, "deletionsFinished": 0, "quarantined": 0, "failed": 0 });
    assert_eq!(unknown, none);
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
