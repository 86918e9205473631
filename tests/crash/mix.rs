//! Everything at once, in a random order, against two processes on one PostgreSQL that are killed now and then: starts,
//! stops, captures, captures that cannot succeed, deletions, and an administrator who changes limits and quotas and has
//! the accounts audited. Afterwards not one byte is where it does not belong.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use livekit_replay::simulator::{Media, Share};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{RwLock, Semaphore};

use crate::{
    history, kills::repeat_unknown, ledger::Ledger, presses::Person, process::Process, seeded,
    service::Answer, support::postgres_url::postgres_url, truth::settles, two::Two,
};

const USERS: [(&str, &str); 4] =
    [("ann", "red-room"), ("bob", "red-room"), ("cem", "blue-room"), ("dea", "blue-room")];
/// Each user presses with so many fingers.
const FINGERS: usize = 2;
const FEWEST_KILLS: usize = 10;
const GIB5: i64 = 5 << 30;

/// Operations from one kill to the next.
fn between_kills(all: usize) -> usize {
    (all / (FEWEST_KILLS + 2)).clamp(1, 60)
}

/// `REPLAY_MIX` operations, or as many as every run of the tests can afford.
fn operations() -> usize {
    std::env::var("REPLAY_MIX").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

#[tokio::test(flavor = "multi_thread")]
async fn not_a_byte_drifts_in_a_long_mix() {
    if postgres_url().is_none() {
        return;
    }
    let operations = operations();
    let (seed, random) = seeded(&format!("a mix of {operations}"));
    let began = tokio::time::Instant::now();
    let two = Two::with(&[]).await;
    let db = two.database().await;
    history::begin(&db).await;
    for (user, room) in USERS {
        let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
        two.first.sim.publish_share(room, &format!("{user}:tab"), share).unwrap();
    }
    // a clip that was accepted may fail of what is done here to files that it is made of and in: found before it is
    // made, under FFmpeg's hands, or when the finished file has gone
    let may_fail = ["storage_unavailable", "no_usable_segments", "ffmpeg_failed", "internal"];
    let may_fail = may_fail.map(str::to_owned).into();
    let ledger = Mutex::new(Ledger { may_fail, ..Ledger::default() });
    let mix = Arc::new(Mix {
        two,
        ledger,
        left: AtomicUsize::new(operations),
        granted: Semaphore::new(2 * between_kills(operations)),
        done: Mutex::default(),
        whole: RwLock::new(()),
    });
    let deaths = tokio::spawn(Arc::clone(&mix).die_again_and_again(random, operations));
    let people: Vec<_> = (0..USERS.len() * FINGERS)
        .map(|finger| {
            let (user, room) = USERS[finger % USERS.len()];
            let random = StdRng::seed_from_u64(seed.wrapping_add(finger as u64));
            let mix = Arc::clone(&mix);
            tokio::spawn(Person { mix, random, user, room, finger }.live())
        })
        .chain([tokio::spawn(Arc::clone(&mix).administer(StdRng::seed_from_u64(seed)))])
        .collect();
    for person in people {
        person.await.expect("no panic");
    }
    let kills = deaths.await.expect("no panic");
    let mix = Arc::into_inner(mix).expect("nobody else");
    mix.judge(&db, kills, operations, began).await;
    mix.two.close(db).await;
}

pub struct Mix {
    pub two: Two,
    ledger: Mutex<Ledger>,
    /// Operations still to be done.
    left: AtomicUsize,
    /// Those that may be begun before the next kill.
    granted: Semaphore,
    done: Mutex<BTreeMap<String, usize>>,
    /// Held for reading by who needs a whole store when a process starts, for writing by who breaks it.
    whole: RwLock<()>,
}

impl Mix {
    /// One operation less; none any more = nothing. Waits for the kills, which are slower.
    pub async fn next(&self) -> Option<()> {
        self.granted.acquire().await.expect("open").forget();
        let less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok().map(drop)
    }

    pub fn note(&self, what: impl Into<String>) {
        *self.done.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// The one of that turn; while it is down, the other.
    pub fn running(&self, turn: usize) -> &Process {
        let process = self.two.process(turn);
        if process.base().is_some() { process } else { self.two.process(turn + 1) }
    }

    /// Asks one of the two; a process that is down is no answer, one that is at fault is a failure.
    pub async fn ask(
        &self,
        turn: usize,
        method: Method,
        user: &str,
        path: &str,
        body: Value,
    ) -> Answer {
        let process = self.running(turn);
        let answer = self.two.first.ask_of(process, method, user, path, |request| match body {
            Value::Null => request,
            body => request.json(&body),
        });
        let answer = answer.await;
        self.see(path, &answer);
        answer
    }

    pub fn see(&self, path: &str, answer: &Answer) {
        match answer {
            Answer::Said(503, problem) if problem["code"] == "storage_unavailable" => {
                self.note("refused: storage_unavailable");
            }
            Answer::Said(status @ 500.., problem) if *status != 507 => {
                panic!("{path}: {status} {problem:#}\n{}", self.two.first.log())
            }
            Answer::Said(..) => {}
            Answer::Absent => self.note("no process there"),
            Answer::Broken => self.note("killed before the answer"),
        }
    }

    /// `kill -9` of either process, evenly over all operations, in the midst of them.
    async fn die_again_and_again(self: Arc<Mix>, mut random: StdRng, all: usize) -> usize {
        let every = between_kills(all);
        let kills = all / every;
        for kill in 1..=kills {
            while all - self.left.load(Ordering::SeqCst) < every * kill - every / 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _whole = self.whole.read().await;
            let process = self.two.process(random.random_range(0..2));
            process.kill().await;
            // the other one is alone for a while
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
            process.start(None).await;
            self.two.hear_webhooks();
            self.granted.add_permits(every);
        }
        // the rest, and what everybody needs to see that there is none
        self.granted.add_permits(2 * all);
        kills
    }

    /// Limits, quotas and audits at random.
    async fn administer(self: Arc<Mix>, mut random: StdRng) {
        while self.next().await.is_some() {
            let turn = random.random_range(0..2);
            let (user, room) = *USERS.choose(&mut random).unwrap();
            let community = room.split('-').next().unwrap();
            let config = format!("/admin/community/{community}/config");
            let quota = format!("/admin/users/{user}/quota");
            let audit = "/admin/maintenance/quota-audit/run".to_owned();
            let (what, method, path, body) = match random.random_range(0..8) {
                0 | 1 => {
                    let most = random.random_range(1..4);
                    ("set places", Method::PATCH, config, json!({ "maxConcurrent": most }))
                }
                2 => {
                    let on = random.random_bool(0.85);
                    ("switched", Method::PATCH, config, json!({ "enabled": on }))
                }
                3..6 => {
                    let bytes = random.random_range(0..30_000_000);
                    ("set a quota", Method::PATCH, quota, json!({ "quotaBytes": bytes }))
                }
                6 => ("audited", Method::POST, audit, Value::Null),
                _ => {
                    self.break_the_store(&mut random).await;
                    continue;
                }
            };
            self.note(what);
            if let Answer::Said(status, shown) = self.ask(turn, method, "root", &path, body).await {
                assert_eq!(status, 200, "{what}: {shown:#}");
                let drift = &shown["counts"]["driftBytes"];
                assert!(what != "audited" || *drift == 0, "while all goes on: {shown:#}");
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(10..100))).await;
        }
    }

    /// For a while nothing can be written where clips are made: some are tried again in time, some fail.
    async fn break_the_store(&self, random: &mut StdRng) {
        let _alone = self.whole.write().await;
        let work = self.two.first.config.storage.clips.join(".work");
        let aside = self.two.first.place.dir.join("work-aside");
        std::fs::rename(&work, &aside).unwrap();
        std::fs::write(&work, "not a directory").unwrap();
        tokio::time::sleep(Duration::from_millis(random.random_range(500..8000))).await;
        std::fs::remove_file(&work).unwrap();
        std::fs::rename(&aside, &work).unwrap();
        self.note("broke the store");
    }

    async fn judge(
        &self,
        db: &livekit_replay::store::Db,
        kills: usize,
        all: usize,
        began: tokio::time::Instant,
    ) {
        let mut ledger = self.ledger().clone();
        let service = &self.two.first;
        println!("{all} operations in {:.0} s, {kills} kills", began.elapsed().as_secs_f64());
        println!("{:#?}", self.done.lock().unwrap());
        assert!(kills >= FEWEST_KILLS, "{kills} kills");
        for (user, room) in USERS {
            let body = json!({ "quotaBytes": GIB5 });
            self.two.change(0, &format!("/admin/users/{user}/quota"), body).await;
            let community = room.split('-').next().unwrap();
            let body = json!({ "enabled": true });
            self.two.change(1, &format!("/admin/community/{community}/config"), body).await;
        }
        repeat_unknown(service, &mut ledger).await;
        let users = USERS.map(|(user, _)| user);
        settles(service, &ledger, &users, "the mix").await;
        println!("accepted clips that failed: {:?}", history::failures(db).await);
        let audit = "/admin/maintenance/quota-audit/run?dryRun=true";
        let audited = service.must(Method::POST, "root", audit, None).await;
        println!("quota audit: {}", audited["counts"]);
        assert_eq!(audited["counts"]["driftBytes"], 0, "{audited:#}");
        assert_eq!(audited["counts"]["drifted"], 0, "{audited:#}");
        assert_eq!(audited["counts"]["accounts"], USERS.len());
        history::rows_agree(db).await;
        println!("the database saw {:?} of places", history::judge_places(db, 5).await);
        println!("the database saw {:?} of bytes", history::judge_bytes(db, GIB5).await);
        history::audit_tells_of_them(db).await;
    }
}
