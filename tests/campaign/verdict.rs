//! The end: faults are over, and what is there is held against what people were told.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use livekit_replay::domain::{id::UserId, keys};
use reqwest::Method;
use sea_orm::{DatabaseBackend, FromQueryResult, Statement};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    faults::Fault,
    field::Field,
    ledger::Known,
    listeners::Heard,
    people::repeat_unknown,
    plan::{PEOPLE, Plan},
    truth::{agrees, settles},
};

/// A row of the `event` table, as the database has it.
#[derive(Debug, FromQueryResult)]
struct Event {
    id: String,
    seq: Option<i64>,
    kind: String,
    user_id: String,
    community_id: Option<String>,
    data: String,
}

#[derive(Debug, FromQueryResult)]
struct Counted {
    counted: i64,
}

/// What is compared, and the figures that are told.
pub async fn judge(field: &Field, plan: &Plan, heard: &Heard) -> Vec<String> {
    let mut told = Vec::new();
    told.push(excuse(field, plan));
    repeat_unknown(field).await;
    let users = PEOPLE.map(|(user, _)| user);
    let ledger = field.ledger().clone();
    let began = Instant::now();
    agrees(&field.service, &ledger, &users, "the campaign").await;
    told.push(format!("settled {:.1} s after the last fault", began.elapsed().as_secs_f64()));
    told.push(clips(field).await);
    field.service.must(Method::POST, "root", "/admin/sessions/stop-all", Some(json!({}))).await;
    field.ledger().sessions.values_mut().for_each(|session| session.stopped = Known::Yes);
    let ledger = field.ledger().clone();
    // clips are decoded when nobody records any more
    settles(&field.service, &ledger, &users, "everybody stopped").await;
    told.push(durable(field).await);
    told.push(drift(field).await);
    told.push(rows(field).await);
    told.push(events(field, heard).await);
    told
}

/// What the faults explain. What is recorded of a session that was hurt, or had only just begun, or that this machine
/// was too slow to record, may never have been; everything else must have met the fault between its being asked for and
/// its failing (`Field::broken`). Tells how many recordings were too slow: on a machine that keeps up, none.
fn excuse(field: &Field, plan: &Plan) -> String {
    let mut ledger = field.ledger();
    ledger.strict = true;
    ledger.segments_kept = Duration::from_secs(130);
    ledger.failed_kept = Some(Duration::from_secs(60));
    ledger.excuses = field.broken();
    let hurt = field.hurt_sessions();
    let slow = field.slow_recordings();
    let is_slow = |session: &str| {
        !session.is_empty() && slow.iter().any(|directory| directory.contains(session))
    };
    let explained = ledger.captures.iter().filter_map(|(key, told)| {
        let session = told.body["sessionId"].as_str().unwrap_or_default();
        if hurt.contains(session) || field.was_young(key) {
            return Some((key.clone(), vec!["no_segments_in_range", "no_usable_segments"]));
        }
        is_slow(session).then(|| (key.clone(), vec!["no_segments_in_range"]))
    });
    let explained: Vec<_> = explained.collect();
    ledger.explained.extend(explained);
    if plan.phases.iter().filter_map(|phase| phase.fault).any(Fault::ends_sessions) {
        ledger.may_end = vec!["egress_failed", "limit_reached"];
    }
    format!("{} recordings fell behind by more than a second", slow.len())
}

async fn clips(field: &Field) -> String {
    let mut by = BTreeMap::<String, usize>::new();
    for (status, count) in statuses(field).await {
        *by.entry(status).or_default() += count;
    }
    let ledger = field.ledger();
    let all = |known: Known| ledger.captures.values().filter(|one| one.known == known).count();
    let deleted =
        |known: Known| ledger.captures.values().filter(|one| one.deleted == known).count();
    format!(
        "clips accepted {}, refused {}; deleted {}, deletions without an answer {}; there now: {by:?}; sessions known {}",
        all(Known::Yes),
        all(Known::No),
        deleted(Known::Yes),
        deleted(Known::Unknown),
        ledger.sessions.len(),
    )
}

/// A clip that somebody was told is ready outlives a power cut: bytes and names are on disk.
async fn durable(field: &Field) -> String {
    #[derive(FromQueryResult)]
    struct Ready {
        id: String,
        user_id: String,
    }
    let Some(stores) = &field.stores else { return "nothing is known of power cuts".to_owned() };
    let ready: Vec<Ready> =
        select(field, "SELECT id, user_id FROM clip WHERE status = 'ready'").await;
    let files = ready.iter().flat_map(|clip| {
        let own = PathBuf::from(keys::user_key(&UserId::new(&*clip.user_id)).to_string());
        ["mp4", "json"].map(|end| own.join(format!("{}.{end}", clip.id)))
    });
    let files: Vec<PathBuf> = files.collect();
    let risks = stores.at_risk(&files);
    for risk in risks.iter().take(5) {
        field.wrong(format!("a power cut could take {risk}"));
    }
    format!("{} files of ready clips, a power cut could take {}", files.len(), risks.len())
}

async fn statuses(field: &Field) -> Vec<(String, usize)> {
    #[derive(FromQueryResult)]
    struct Row {
        status: String,
        code: String,
        counted: i64,
    }
    let sql = "SELECT status, COALESCE(error_code, '') AS code, COUNT(*) AS counted FROM clip GROUP BY 1, 2";
    let found: Vec<Row> = select(field, sql).await;
    let name = |row: &Row| format!("{} {}", row.status, row.code).trim().to_owned();
    found.iter().map(|row| (name(row), usize::try_from(row.counted).expect("few"))).collect()
}

async fn select<T: FromQueryResult>(field: &Field, sql: &str) -> Vec<T> {
    let db = field.database().await;
    let backend =
        if field.cluster.is_some() { DatabaseBackend::Postgres } else { DatabaseBackend::Sqlite };
    let statement = Statement::from_string(backend, sql);
    let found = T::find_by_statement(statement).all(db.conn()).await.expect("rows");
    db.close().await.expect("closed");
    found
}

/// What a query that counts (`AS counted`) says.
pub async fn count(field: &Field, sql: &str) -> i64 {
    let found: Vec<Counted> = select(field, sql).await;
    found[0].counted
}

async fn drift(field: &Field) -> String {
    let audit = "/admin/maintenance/quota-audit/run?dryRun=true";
    let audited = field.service.must(Method::POST, "root", audit, None).await;
    if audited["counts"]["driftBytes"] != 0 || audited["counts"]["drifted"] != 0 {
        field.wrong(format!("accounts drift: {audited}"));
    }
    format!("quota audit: {}", audited["counts"])
}

/// Rows that nobody owns.
async fn rows(field: &Field) -> String {
    const ORPHANS: [(&str, &str); 6] = [
        (
            "recordings believed to run of sessions that are over",
            "SELECT COUNT(*) AS counted FROM epoch e JOIN session s ON s.id = e.session_id \
                WHERE e.status <> 'ended' AND s.status IN ('stopped', 'failed')",
        ),
        (
            "pins of clips that are made or gone",
            "SELECT COUNT(*) AS counted FROM pin p WHERE NOT EXISTS \
                (SELECT 1 FROM clip c WHERE c.id = p.clip_id AND c.status <> 'ready')",
        ),
        (
            "jobs that are not done",
            "SELECT COUNT(*) AS counted FROM job j WHERE j.state IN ('queued', 'running')",
        ),
        (
            "segments without a session",
            "SELECT COUNT(*) AS counted FROM segment g WHERE NOT EXISTS \
                (SELECT 1 FROM session s WHERE s.id = g.session_id)",
        ),
        (
            "places held by sessions that are over",
            "SELECT COUNT(*) AS counted FROM session WHERE holds_place AND status IN ('stopped', 'failed')",
        ),
        ("events without a place", "SELECT COUNT(*) AS counted FROM event WHERE seq IS NULL"),
    ];
    let mut told = Vec::new();
    for (what, sql) in ORPHANS {
        let counted = count(field, sql).await;
        if counted != 0 {
            field.wrong(format!("{counted} {what}"));
        }
        told.push(format!("{what}: {counted}"));
    }
    told.join(", ")
}

/// Every listener heard what concerns him, in order and once; every delivery arrived; and there is an event for
/// everything that people know of.
async fn events(field: &Field, heard: &Heard) -> String {
    let all: Vec<Event> =
        select(field, "SELECT id, seq, kind, user_id, community_id, data FROM event ORDER BY seq")
            .await;
    let began = Instant::now();
    let patience = Duration::from_secs(60);
    let mut missing = missing_of(heard, &all);
    while !missing.is_empty() && began.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(200)).await;
        missing = missing_of(heard, &all);
    }
    for one in missing {
        field.wrong(one);
    }
    let (arrived, twice) = delivered(field, &all).await;
    known_of(field, &all);
    let streams: usize = heard.all().values().map(Vec::len).sum();
    format!(
        "{} events; {streams} heard on {} streams, {arrived} delivered to the endpoint ({twice} repeated)",
        all.len(),
        heard.all().len()
    )
}

fn missing_of(heard: &Heard, all: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, got) in heard.all() {
        let concerns = |event: &&Event| match name.strip_prefix('#') {
            // clips are private: a community hears of its sessions
            Some(community) => {
                event.community_id.as_deref() == Some(community)
                    && (event.kind.starts_with("replay_buffer") || event.kind == "segments_ready")
            }
            None => event.user_id == name,
        };
        let wanted: Vec<&str> =
            all.iter().filter(concerns).map(|event| event.id.as_str()).collect();
        let of_sessions =
            |kind: &str| kind.starts_with("replay_buffer") || kind == "segments_ready";
        let his = got.iter().filter(|(_, kind)| !name.starts_with('#') || of_sessions(kind));
        let got: Vec<&str> = his.map(|(id, _)| id.as_str()).collect();
        if wanted != got {
            let lost: Vec<_> = wanted.iter().filter(|id| !got.contains(id)).collect();
            let more = got.iter().filter(|id| !wanted.contains(id)).count();
            let of = |id: &str| {
                all.iter().find(|event| event.id == id).map(|event| (&event.kind, event.seq))
            };
            let lost: Vec<_> = lost.iter().map(|id| of(id)).take(5).collect();
            wrong.push(format!(
                "{name} heard {} events of {}: lost {lost:?}, {more} not his",
                got.len(),
                wanted.len()
            ));
        }
    }
    wrong
}

/// Signed, and each at least once; answers how many, and how many again.
async fn delivered(field: &Field, all: &[Event]) -> (usize, usize) {
    let mut ids = BTreeMap::<String, usize>::new();
    let began = Instant::now();
    loop {
        for one in field.receiver.take() {
            if !one.is_signed() {
                field.wrong(format!("not signed: {one:?}"));
            }
            let id = one.json()["id"].as_str().expect("an id").to_owned();
            *ids.entry(id).or_default() += 1;
        }
        let missing = all.iter().filter(|event| !ids.contains_key(&event.id)).count();
        if missing == 0 {
            break;
        }
        if began.elapsed() > Duration::from_secs(60) {
            field.wrong(format!("{missing} events were not delivered to the endpoint"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let repeated = ids.values().map(|times| times - 1).sum();
    (ids.len(), repeated)
}

/// One event for each change that somebody was told of, and none for what did not happen.
fn known_of(field: &Field, all: &[Event]) {
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for event in all {
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        let id = data["clipId"].as_str().or(data["id"].as_str()).unwrap_or_default().to_owned();
        *counts.entry((id, &event.kind)).or_default() += 1;
    }
    let count =
        |id: &str, kind: &'static str| counts.get(&(id.to_owned(), kind)).copied().unwrap_or(0);
    let mut wrong = Vec::new();
    let ledger = field.ledger();
    for (key, told) in &ledger.captures {
        let (Some(id), Known::Yes) = (&told.id, told.known) else { continue };
        let mut expect = |kind: &'static str, times: std::ops::RangeInclusive<usize>| {
            let is = count(id, kind);
            if !times.contains(&is) {
                wrong.push(format!(
                    "{key} ({id}, deleted {:?}) has {is} events {kind}",
                    told.deleted
                ));
            }
        };
        expect("clip_processing", 1..=1);
        match told.deleted {
            Known::Yes => {
                expect("clip_deleted", 1..=1);
                expect("clip_ready", 0..=1);
                expect("clip_failed", 0..=1);
            }
            Known::No => {
                expect("clip_deleted", 0..=0);
                let failed = count(id, "clip_failed");
                expect("clip_ready", 1 - failed.min(1)..=1 - failed.min(1));
            }
            Known::Unknown => expect("clip_deleted", 0..=1),
        }
    }
    for (id, told) in &ledger.sessions {
        let ends = count(id, "replay_buffer_stopped") + count(id, "replay_buffer_failed");
        if ends != 1 {
            wrong.push(format!(
                "session {id} of {} is over and has {ends} events of its end",
                told.user
            ));
        }
        let starts = count(id, "replay_buffer_started");
        let recorded = told.begun || count(id, "segments_ready") > 0;
        if starts > 1 || (starts == 0 && recorded && count(id, "replay_buffer_failed") == 0) {
            wrong.push(format!("session {id} of {} has {starts} events of its start", told.user));
        }
    }
    drop(ledger);
    for one in wrong {
        field.wrong(one);
    }
}
