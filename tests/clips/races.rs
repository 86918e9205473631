//! Captures against cleanup: real requests, real FFmpeg, segments that keep coming, and cleanup that never pauses.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::http::StatusCode;
use livekit_replay::{
    clock::ShiftedClock,
    domain::{id::SessionId, playlist::segment_file_name, time::Timestamp},
    flow::{Deps, cleanup},
    jobs,
    store::segment,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, On, RECORDED_LONG, Recorded, SEGMENT};

const MINUTE: Duration = Duration::from_secs(60);
/// Seconds that are promised and seconds after which cleanup takes things.
const PROMISED: i64 = 60;
const KEPT: i64 = 2 * PROMISED;
const PERIOD: Duration = Duration::from_secs(30);
const ROUNDS: u64 = 4;
/// Segments of a round: what was the oldest of the promise at its begin is long due at its end.
const STEPS: u64 = 40;
/// Captures of the oldest promised seconds in a round.
const OF_THE_PROMISE: usize = 6;
/// After so many steps somebody wants what cleanup is about to take.
const STEPS_TO_THE_VERGE: u64 = 4;

async fn bench(on: On) -> Option<Bench> {
    let settings = |config: &mut livekit_replay::config::Config| {
        config.buffer.length = MINUTE;
        config.buffer.cleanup = 2 * MINUTE;
    };
    Bench::changed(on, settings).await
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_capture_misses_a_segment_that_cleanup_takes() {
        let bench = super::bench(crate::bench::On::Sqlite).await;
        super::no_capture_misses_a_segment(bench.expect("SQLite is always at hand")).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_capture_misses_a_segment_that_cleanup_takes() {
        if let Some(bench) = super::bench(crate::bench::On::Postgres).await {
            super::no_capture_misses_a_segment(bench).await;
        }
    }
}

async fn no_capture_misses_a_segment(bench: Bench) {
    let given = std::env::var("REPLAY_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("captures against cleanup: seed {seed} (set REPLAY_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);
    let session = bench.session("ann", 0).await;
    let mut stage = Stage { session: &session, next: 0, overdue: BTreeSet::new() };
    while stage.next < (KEPT / SEGMENT).unsigned_abs() {
        stage.record().await;
    }
    let over = CancellationToken::new();
    let (passes, seen) = watch::channel(Cleaned::default());
    let cleaning = tokio::spawn(clean(bench.deps.clone(), passes, over.clone()));
    let workers = workers(&bench);
    let mut told = Told::default();
    for round in 0..ROUNDS {
        let mut asked = Vec::new();
        for _ in 0..OF_THE_PROMISE {
            let ago = PROMISED * 1000 - random.random_range(0..6000);
            let length = random.random_range(2000..8000);
            told.ask(&bench, &session, (ago, length), &mut random, &mut asked).await;
        }
        assert_eq!(asked.len(), OF_THE_PROMISE, "the promise is kept: {told:?}");
        // the first time nobody makes a clip before everything asked for is due
        let first = if round == 0 { STEPS - 4 } else { 4 };
        let work_from = random.random_range(first..STEPS - 2);
        let stop = CancellationToken::new();
        let work = Deps { stop: stop.clone(), ..workers.clone() };
        let (stepped, steps) = watch::channel(0);
        let mut working = None;
        let feeding = async {
            for step in 1..=STEPS {
                stage.record().await;
                stepped.send_replace(step);
                if step == work_from {
                    working = Some(tokio::spawn(jobs::run(work.clone())));
                }
                stage.cleaned(&seen).await;
            }
            drop(stepped);
        };
        let wanting = at_the_verge(&bench, &session, steps, &mut random, &mut told);
        let ((), verge) = tokio::join!(feeding, wanting);
        asked.extend(verge);
        for id in &asked {
            told.check(&bench, id).await;
        }
        stop.cancel();
        working.expect("the work began").await.expect("the door of jobs ends well");
    }
    over.cancel();
    let cleaned = cleaning.await.expect("no panic");
    println!(
        "{} segments recorded, {} deleted in {} passes; refused because pinned {} times, {} different segments; captures: \
         {} accepted, all ready and whole, {} refused",
        stage.next,
        cleaned.deleted,
        cleaned.passes,
        cleaned.refused,
        stage.overdue.len(),
        told.ready,
        told.refused,
    );
    assert_eq!(told.ready, told.accepted);
    assert!(told.at_the_verge > 0, "nobody raced cleanup for a segment");
    assert!(cleaned.deleted > 100, "deleted {}", cleaned.deleted);
    assert!(cleaned.refused > 20, "refused {}", cleaned.refused);
    assert!(stage.overdue.len() > 20, "held {:?}", stage.overdue);
    // and with the last pin the last overdue segment goes; ages count from the newest picture, and none came since
    let horizon = stage.recorded_until().plus_seconds(-KEPT);
    cleanup::run(&bench.deps, PERIOD, false).await.expect("cleaned");
    assert_eq!(stage.due(horizon).await, BTreeSet::new());
    stage.every_row_has_its_bytes().await;
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

/// The same stores and rows, and a clock an hour ahead that is never moved: no lease runs out because the test is in a
/// hurry. A pin of a clip that is being made has no age, so nothing else depends on it.
fn workers(bench: &Bench) -> Deps {
    let clock = ShiftedClock::default();
    clock.advance_micros(3_600_000_000);
    Deps { clock: Arc::new(clock), ..bench.deps.clone() }
}

/// What cleanup did so far.
#[derive(Debug, Default, Clone, Copy)]
struct Cleaned {
    passes: u64,
    deleted: u64,
    refused: u64,
}

async fn clean(deps: Deps, passes: watch::Sender<Cleaned>, over: CancellationToken) -> Cleaned {
    let mut so_far = Cleaned::default();
    while !over.is_cancelled() {
        let counts = cleanup::run(&deps, PERIOD, false).await.expect("cleaned");
        so_far.passes += 1;
        so_far.deleted += counts.deleted_files;
        so_far.refused += counts.refused_pinned;
        passes.send_replace(so_far);
        // SQLite has one writer: the others get their turn
        tokio::task::yield_now().await;
    }
    so_far
}

/// The recording as it goes on.
struct Stage<'a> {
    session: &'a Recorded<'a>,
    next: u64,
    /// Segments that were seen after a pass although they were due: pinned ones.
    overdue: BTreeSet<i64>,
}

impl Stage<'_> {
    /// The next segment closes, as soon as its last picture can have been shown.
    async fn record(&mut self) {
        assert!(self.next < RECORDED_LONG, "the recording is over");
        let bench = self.session.bench;
        let index = self.next;
        self.next += 1;
        let ahead = self.recorded_until().micros_since(bench.now()).max(0);
        bench.clock.advance_micros(ahead);
        self.session.record(index);
        let indexed = livekit_replay::flow::index::index_session(&bench.deps, &self.session.id);
        indexed.await.expect("indexed");
    }

    /// Where the newest segment ends.
    fn recorded_until(&self) -> Timestamp {
        self.session.began.plus_seconds(SEGMENT * i64::try_from(self.next).expect("few"))
    }

    /// Waits for a pass of cleanup that began after now, and looks at what it had to leave.
    async fn cleaned(&mut self, seen: &watch::Receiver<Cleaned>) {
        let horizon = self.session.bench.now().plus_seconds(-KEPT);
        let due = self.due(horizon).await;
        let done = seen.borrow().passes;
        let mut seen = seen.clone();
        seen.wait_for(|so_far| so_far.passes >= done + 2).await.expect("cleanup goes on");
        self.overdue.extend(due.intersection(&self.due(horizon).await));
    }

    /// Numbers of the segments that are there and end by the horizon.
    async fn due(&self, horizon: Timestamp) -> BTreeSet<i64> {
        let held = segment::list(self.session.bench.deps.db.conn(), &self.session.id)
            .await
            .expect("listed");
        held.iter().filter(|row| row.ends_at <= horizon).map(|row| row.number).collect()
    }

    /// While nothing is deleted.
    async fn every_row_has_its_bytes(&self) {
        let deps = &self.session.bench.deps;
        let held = segment::list(deps.db.conn(), &self.session.id).await.expect("listed");
        for row in held {
            let name = segment_file_name(row.number.unsigned_abs());
            assert!(self.session.directory.join(&name).is_file(), "{name} has a row and no bytes");
        }
    }
}

/// Asks for what cleanup is about to take, again and again; answers the clips that were accepted.
async fn at_the_verge(
    bench: &Bench,
    session: &Recorded<'_>,
    mut steps: watch::Receiver<u64>,
    random: &mut StdRng,
    told: &mut Told,
) -> Vec<String> {
    let mut asked = Vec::new();
    while let Ok(step) = steps.changed().await.map(|()| *steps.borrow_and_update()) {
        if step % STEPS_TO_THE_VERGE == 0 {
            let ago = KEPT * 1000 + random.random_range(-5000..3000);
            // far into what is not due: where another's pin keeps the first segment alone, the next are a gap, not a tail
            let length = random.random_range(24_000..32_000);
            told.ask(bench, session, (ago, length), random, &mut asked).await;
        }
    }
    told.at_the_verge += asked.len();
    asked
}

/// What the captures came to.
#[derive(Debug, Default)]
struct Told {
    accepted: usize,
    at_the_verge: usize,
    refused: usize,
    ready: usize,
}

impl Told {
    /// POST /capture of `length` milliseconds that began `ago` milliseconds ago. Known gaps are refused: what is accepted is
    /// whole.
    async fn ask(
        &mut self,
        bench: &Bench,
        session: &Recorded<'_>,
        (ago, length): (i64, i64),
        random: &mut StdRng,
        asked: &mut Vec<String>,
    ) {
        let now = Timestamp::from_micros(bench.now().as_millis() * 1000);
        let from = now.plus_millis(-ago);
        let exact = random.random_bool(0.25);
        let body = json!({
            "sessionId": session.id,
            "from": from,
            "to": from.plus_millis(length),
            "precision": if exact { "exact" } else { "keyframe" },
            "gapPolicy": "refuse",
        });
        let prefer = [("prefer", "respond-async")];
        let reply = bench.ask_with("ann", "POST", "/capture", Some(body), &prefer).await;
        let answer = reply.json();
        match (reply.status, answer["code"].as_str()) {
            (StatusCode::ACCEPTED, _) => {
                self.accepted += 1;
                asked.push(answer["id"].as_str().expect("an id").to_owned());
            }
            (_, Some("window_has_gaps" | "no_segments_in_range")) => self.refused += 1,
            other => panic!("{other:?} {answer:#}"),
        }
    }

    /// Waits for the clip, which must be all that was asked for.
    async fn check(&mut self, bench: &Bench, id: &str) {
        let clip = crate::stories::settled(bench, &json!(id)).await;
        assert_eq!(clip["status"], "ready", "{clip:#}");
        let missing = (&clip["gaps"], &clip["shortfallMs"]);
        assert_eq!(missing, (&json!([]), &json!(0)), "{clip:#}\n{}", rows(bench, &clip).await);
        let time = |field: &str| -> Timestamp {
            let text: &Value = &clip[field];
            Timestamp::parse_rfc3339(text.as_str().expect("a time")).expect("a time")
        };
        // a picture lasts 100 ms
        let late = time("startsAt").micros_since(time("requestedFrom"));
        let early = time("requestedTo").micros_since(time("endsAt"));
        assert!(late <= 100_000 && early <= 100_000, "{late} {early} {clip:#}");
        self.ready += 1;
    }
}

/// The index around a clip, for those who look into a failure.
async fn rows(bench: &Bench, clip: &Value) -> String {
    let id = SessionId::new(clip["sessionId"].as_str().expect("an id"));
    let held = segment::list(bench.deps.db.conn(), &id).await.expect("listed");
    let lines = held
        .iter()
        .take(20)
        .map(|row| format!("{} {} to {} {:?}", row.number, row.starts_at, row.ends_at, row.state));
    lines.collect::<Vec<_>>().join("\n")
}
