//! The campaign's load without its faults, for half an hour: what the processes take up does not grow.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use sea_orm::{DatabaseBackend, FromQueryResult, Statement};
use tokio::time::Instant;

use crate::{
    field::{Field, Ground},
    ledger::Known,
    listeners::Listeners,
    people, plan,
    plan::{Plan, Press},
    verdict,
};

/// So many clips somebody keeps; then he deletes.
const CLIPS_KEPT: usize = 6;
/// When the figures are taken, in parts of the whole: 5, 15 and 30 minutes of 30.
const LOOKS: [f64; 3] = [1.0 / 6.0, 0.5, 1.0];

/// Rows that live as long as their thing: as many in the end as in the middle.
const LIVING: [&str; 5] = ["segment", "epoch", "pin", "preview_stretch", "clip"];
/// Rows that are kept for a time longer than a soak, which is told beside them: the database grows by these alone.
const KEPT: [(&str, &str); 7] = [
    ("event", "1 h, and as long as its deliveries"),
    ("event_delivery", "1 day"),
    ("idempotency", "1 day"),
    ("webhook_seen", "2 days"),
    ("job", "7 days"),
    ("maintenance_run", "30 days"),
    ("session", "until its user is erased"),
];

/// What all processes together take up.
#[derive(Debug, Clone)]
pub struct Figures {
    pub rss_kib: u64,
    pub descriptors: usize,
    pub threads: usize,
    pub database_bytes: u64,
    /// Of [`LIVING`], then of [`KEPT`].
    pub rows: Vec<i64>,
}

/// SOAK_MINUTES, ENGINE, SEED, REPLICAS.
pub async fn run(ground: Ground, replicas: usize, seed: u64, minutes: f64) {
    let field = Arc::new(Field::make(ground, replicas).await);
    println!("soak: {minutes} minutes on {}, {replicas} processes, seed {seed}", ground.name());
    field.begin().await;
    let listeners = Listeners::begin(&field).await;
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(minutes * 60.0);
    let people: Vec<_> = (0..plan::PEOPLE.len())
        .map(|person| tokio::spawn(live(Arc::clone(&field), person, seed, end)))
        .collect();
    println!("| minute | memory MiB | descriptors | threads | database KiB | operations |");
    println!("|---|---|---|---|---|---|");
    let mut seen = Vec::new();
    for look in LOOKS {
        tokio::time::sleep_until(began + Duration::from_secs_f64(minutes * 60.0 * look)).await;
        let figures = look_at(&field).await;
        let Figures { rss_kib, descriptors, threads, database_bytes, .. } = figures;
        println!(
            "| {:.1} | {:.1} | {descriptors} | {threads} | {} | {} |",
            minutes * look,
            rss_kib as f64 / 1024.0,
            database_bytes / 1024,
            field.tally.answered(),
        );
        seen.push(figures);
    }
    tell_rows(&seen);
    for person in people {
        person.await.expect("no panic");
    }
    println!("{}", field.tally.table(&[]));
    let nothing = Plan { phases: Vec::new() };
    for line in verdict::judge(&field, &nothing, &listeners.heard).await {
        println!("* {line}");
    }
    listeners.end().await;
    let wrong = field.all_wrong();
    let (hurt, late) = field.tally.hurt_and_late();
    println!("* {hurt} answers that blame the service, {late} late, {} things wrong", wrong.len());
    Arc::into_inner(field).expect("nobody else").close().await;
    assert!(
        wrong.is_empty() && hurt == 0,
        "{hurt} answers blame the service\n{}",
        wrong.join("\n")
    );
    flat(&seen);
}

/// From the middle on nothing grows by more than what breathes: a quarter, and some descriptors and threads.
fn flat(seen: &[Figures]) {
    let (middle, last) = (&seen[1], &seen[2]);
    assert!(last.rss_kib < middle.rss_kib + middle.rss_kib / 4 + 8192, "memory: {seen:?}");
    assert!(last.descriptors < middle.descriptors + middle.descriptors / 4 + 16, "{seen:?}");
    assert!(last.threads < middle.threads + middle.threads / 4 + 16, "threads: {seen:?}");
    let living = LIVING.iter().zip(middle.rows.iter().zip(&last.rows));
    for (table, (middle, last)) in living {
        assert!(*last < middle + middle / 4 + 64, "{table}: {seen:?}");
    }
}

fn tell_rows(seen: &[Figures]) {
    println!("| rows of | are kept | {} |", LOOKS.map(|look| format!("at {look:.2}")).join(" | "));
    println!("|---|---|---|---|---|");
    let living = LIVING.map(|table| (table, "with their thing"));
    for (number, (table, kept)) in living.into_iter().chain(KEPT).enumerate() {
        let counts: Vec<_> = seen.iter().map(|figures| figures.rows[number].to_string()).collect();
        println!("| {table} | {kept} | {} |", counts.join(" | "));
    }
}

async fn live(field: Arc<Field>, person: usize, seed: u64, end: Instant) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(person as u64));
    let mut number = person * 1_000_000;
    while Instant::now() < end {
        let mut one = Plan::calm(&mut random, number);
        one.person = person;
        let user = plan::PEOPLE[person].0;
        let kept = {
            let ledger = field.ledger();
            let mine = ledger.captures.values().filter(|told| told.user == user);
            mine.filter(|told| told.known == Known::Yes && told.deleted == Known::No).count()
        };
        if kept > CLIPS_KEPT {
            one.press = Press::Delete;
        }
        number += 1;
        people::press(&field, number, one).await;
        tokio::time::sleep(Duration::from_millis(one.pause)).await;
    }
}

async fn look_at(field: &Field) -> Figures {
    let database_bytes = database_bytes(field).await;
    let rows = rows(field).await;
    let mut figures = Figures { rss_kib: 0, descriptors: 0, threads: 0, database_bytes, rows };
    for process in field.processes() {
        let pid = process.pid().await.expect("runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("runs");
        let figure = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        figures.rss_kib += figure("VmRSS:");
        figures.threads += usize::try_from(figure("Threads:")).expect("few");
        figures.descriptors += std::fs::read_dir(format!("/proc/{pid}/fd")).expect("ours").count();
    }
    figures
}

async fn rows(field: &Field) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in LIVING.into_iter().chain(KEPT.map(|(table, _)| table)) {
        let sql = format!("SELECT COUNT(*) AS counted FROM {table}");
        rows.push(verdict::count(field, &sql).await);
    }
    rows
}

#[derive(FromQueryResult)]
struct Size {
    size: i64,
}

async fn database_bytes(field: &Field) -> u64 {
    if field.cluster.is_none() {
        let file = field.service.place.dir.join("replay.db");
        let sizes = ["", "-wal"].map(|end| {
            let path = format!("{}{end}", file.display());
            std::fs::metadata(path).map_or(0, |about| about.len())
        });
        return sizes.iter().sum();
    }
    let db = field.database().await;
    let sql = "SELECT pg_database_size(current_database()) AS size";
    let statement = Statement::from_string(DatabaseBackend::Postgres, sql);
    let found = Size::find_by_statement(statement).one(db.conn()).await;
    db.close().await.expect("closed");
    u64::try_from(found.expect("an answer").expect("a row").size).expect("a size")
}
