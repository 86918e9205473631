//! The field of a campaign: LiveKit behind a gate, one process or three, their database, stores that can be broken, an
//! FFmpeg that can misbehave, a clock that can be stepped; and what people were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use livekit_replay::{
    clock::{Clock, SystemClock},
    domain::time::Timestamp,
    simulator::{Media, Share},
    store::{Connect, Db},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    faults::Fault,
    ffmpeg::Ffmpeg,
    gate::Gate,
    ledger::{Excuse, Ledger},
    plan::PEOPLE,
    process::Process,
    receiver::{self, Receiver},
    service::Service,
    stores::Stores,
    support::{On, Place},
    tally::Tally,
};

/// A session that is so old has recorded something, unless its recording was hurt.
const MEDIA_BY_THEN: Duration = Duration::from_secs(10);
/// A recording that was never further behind holds something of every window (milliseconds; a segment is as long).
const BEHIND_MS: u64 = 1000;

/// Where a campaign takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// One process on SQLite.
    Sqlite,
    /// One process on PostgreSQL.
    Postgres,
    /// Three processes on PostgreSQL that share everything.
    Replicas,
}

impl Ground {
    pub fn name(self) -> &'static str {
        match self {
            Ground::Sqlite => "sqlite",
            Ground::Postgres => "postgres",
            Ground::Replicas => "replicas",
        }
    }
}

pub struct Field {
    pub service: Service,
    pub others: Vec<Process>,
    pub gate: Gate,
    pub ffmpeg: Ffmpeg,
    pub clock: PathBuf,
    pub stores: Option<Stores>,
    pub cluster: Option<Cluster>,
    pub receiver: Receiver,
    pub tally: Tally,
    /// Requests under way, by replica.
    pub busy: Vec<AtomicUsize>,
    ledger: Mutex<Ledger>,
    wrong: Mutex<Vec<String>>,
    /// When people were told that a session began.
    began: Mutex<BTreeMap<String, Instant>>,
    /// Captures of sessions that had only just begun: there may be nothing yet, and nothing to come.
    young: Mutex<BTreeSet<String>>,
    /// Sessions whose recording was hurt.
    hurt: Mutex<BTreeSet<String>>,
    /// What was broken, and when.
    broken: Mutex<Vec<Excuse>>,
    cluster_dir: PathBuf,
}

impl Field {
    pub async fn make(ground: Ground, replicas: usize) -> Field {
        let cluster_dir =
            std::env::temp_dir().join(format!("lkr_cluster_{}", uuid::Uuid::new_v4().simple()));
        let (on, cluster) = if ground == Ground::Sqlite {
            (On::Sqlite, None)
        } else {
            std::fs::create_dir_all(&cluster_dir).expect("a directory");
            (On::Postgres, Some(Cluster::start(&cluster_dir).await))
        };
        let place = Place::on(cluster.as_ref().map(|cluster| cluster.url.clone())).await;
        let ffmpeg = Ffmpeg::make(&place.dir);
        let stores = Stores::mount(&place.dir);
        let receiver = Receiver::start().await;
        let clock = place.dir.join("clock-shift");
        std::fs::write(&clock, "0").expect("a file");
        // the gate needs LiveKit, which the service brings along: it listens first
        let (gate, sim_known) = Gate::before_something().await;
        let more = settings(&gate, &ffmpeg, &clock, &receiver);
        let service = Service::at(place, on, &more).await;
        sim_known.send(service.sim.url()).expect("the gate waits");
        let others: Vec<_> = (1..replicas)
            .map(|number| service.replica_at_rest(&format!("replica{number}")))
            .collect();
        Field {
            service,
            others,
            gate,
            ffmpeg,
            clock,
            stores,
            cluster,
            receiver,
            tally: Tally::default(),
            busy: (0..replicas).map(|_| AtomicUsize::new(0)).collect(),
            ledger: Mutex::default(),
            wrong: Mutex::default(),
            began: Mutex::default(),
            young: Mutex::default(),
            hurt: Mutex::default(),
            broken: Mutex::default(),
            cluster_dir,
        }
    }

    /// Everybody is there: processes (they race for the migrations) and screens.
    pub async fn begin(&self) {
        let all = (0..self.replicas()).map(|number| self.replica(number).start(None));
        futures::future::join_all(all).await;
        self.hear_webhooks();
        for (user, room) in PEOPLE {
            let share = Share { width: 320, height: 180, audio: true, media: Media::Live };
            self.service.sim.publish_share(room, &format!("{user}:tab"), share).expect("shared");
        }
    }

    pub fn replicas(&self) -> usize {
        1 + self.others.len()
    }

    pub fn replica(&self, number: usize) -> &Process {
        match number.checked_sub(1) {
            None => &self.service.process,
            Some(number) => &self.others[number],
        }
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.service.process).chain(&self.others)
    }

    /// LiveKit tells every process that runs.
    pub fn hear_webhooks(&self) {
        let bases = self.processes().filter_map(Process::base);
        let hooks = bases.map(|base| format!("{base}/webhooks/livekit")).collect();
        self.service.sim.set_webhook_urls(hooks);
    }

    /// Requests that are under way, anywhere.
    pub fn under_way(&self) -> usize {
        self.busy.iter().map(|busy| busy.load(Ordering::SeqCst)).sum()
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("whole")
    }

    /// The session whose recording is below that directory loses what was on its way.
    pub fn note_hurt(&self, directory: &str) {
        let ledger = self.ledger();
        let its = ledger.sessions.keys().filter(|id| directory.contains(id.as_str()));
        self.hurt.lock().expect("whole").extend(its.cloned());
    }

    pub fn hurt_sessions(&self) -> BTreeSet<String> {
        self.hurt.lock().expect("whole").clone()
    }

    /// Directories of recordings that this machine was too slow for: they end before what they show ended.
    pub fn slow_recordings(&self) -> Vec<String> {
        let mut all = self.service.sim.egresses();
        all.retain(|egress| egress.behind_ms > BEHIND_MS);
        all.into_iter().map(|egress| egress.directory).collect()
    }

    /// A fault has been undone.
    pub fn note_broken(&self, fault: Fault, from: Timestamp) {
        // the service's clock is stepped back by 5 s at most, and lags by what it takes to write its rows
        let (from, to) = (from.plus_seconds(-6), SystemClock.now().plus_seconds(1));
        let of_material = fault.breaks_buffer();
        // an egress whose writes failed is noticed, ended and started again later
        let to = if of_material { to.plus_seconds(30) } else { to };
        let codes = fault.explains();
        self.broken.lock().expect("whole").push(Excuse { from, to, codes, of_material });
    }

    pub fn broken(&self) -> Vec<Excuse> {
        self.broken.lock().expect("whole").clone()
    }

    /// Somebody was told of a session that runs.
    pub fn note_begun(&self, session: &str) {
        self.began.lock().expect("whole").entry(session.to_owned()).or_insert_with(Instant::now);
    }

    /// Something is captured of a session.
    pub fn note_capture(&self, session: &str, key: &str) {
        let began = self.began.lock().expect("whole").get(session).copied();
        if began.is_none_or(|began| began.elapsed() < MEDIA_BY_THEN) {
            self.young.lock().expect("whole").insert(key.to_owned());
        }
    }

    /// Whether it was captured before media can be counted on.
    pub fn was_young(&self, key: &str) -> bool {
        self.young.lock().expect("whole").contains(key)
    }

    /// Something is not as it must be.
    pub fn wrong(&self, what: String) {
        println!("WRONG: {what}");
        self.wrong.lock().expect("whole").push(what);
    }

    pub fn all_wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("whole").clone()
    }

    /// A connection of the campaign's own.
    pub async fn database(&self) -> Db {
        let url = &self.service.place.database_url;
        Db::connect(Connect { url, max_connections: 1, create: false }).await.expect("a database")
    }

    /// The faults that can happen here.
    pub fn faults(&self) -> Vec<Fault> {
        let only = std::env::var("FAULTS").unwrap_or_default();
        let wanted = |fault: &Fault| {
            only.is_empty() || only.split(',').any(|name| format!("{fault:?}") == name.trim())
        };
        let mut all = Fault::all();
        all.retain(|fault| !fault.needs_postgres() || self.cluster.is_some());
        all.retain(|fault| !fault.needs_mounts() || self.stores.is_some());
        all.retain(wanted);
        all
    }

    /// The end of everybody's log.
    pub fn logs(&self) -> String {
        self.processes().map(Process::log).collect::<Vec<_>>().join("\n-- next\n")
    }

    /// Ends all by SIGTERM, which must go well, and removes everything.
    pub async fn close(self) {
        for process in &self.others {
            process.end().await;
        }
        self.service.process.end().await;
        drop(self.stores);
        self.service.sim.shutdown().await;
        self.service.place.remove().await;
        if let Some(cluster) = self.cluster {
            drop(cluster);
            // a directory that stays is the system's to clean
            let _ = std::fs::remove_dir_all(&self.cluster_dir);
        }
    }
}

fn settings(
    gate: &Gate,
    ffmpeg: &Ffmpeg,
    clock: &std::path::Path,
    receiver: &Receiver,
) -> Vec<(&'static str, &'static str)> {
    // the settings of a process live as long as the test
    let kept = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let endpoint = json!([{ "url": receiver.url, "secret": receiver::secret() }]);
    let endpoints = endpoint.to_string();
    vec![
        ("LIVEKIT_URL", kept(gate.url.clone())),
        ("PATH", kept(ffmpeg.bin.display().to_string())),
        (livekit_replay::clock::DRILL, kept(clock.display().to_string())),
        ("REPLAY__WEBHOOKS__ENDPOINTS", kept(endpoints)),
        ("REPLAY__BUFFER__MINUTES", "1"),
        ("REPLAY_CLEANUP_BUFFER_MINUTES", "2"),
        ("REPLAY__JOBS__SEGMENT_CLEANUP", "*/2 * * * * *"),
        ("REPLAY__JOBS__STORAGE_PROBE", "*/2 * * * * *"),
        ("REPLAY__BUFFER__NO_SEGMENT_SECONDS", "8"),
        ("REPLAY__CAPTURE__STALL_SECONDS", "20"),
        ("REPLAY__CAPTURE__FAILED_KEEP_MINUTES", "1"),
        ("REPLAY__SERVER__SHUTDOWN_SECONDS", "10"),
        ("REPLAY__LIVEKIT__START_TIMEOUT_SECONDS", "3"),
    ]
}
