//! What the database saw: every version of a community's and an account's row in the order of their commits, written
//! down by triggers under the row's own lock. Whatever clients were told, this is what was in force.

use std::collections::BTreeMap;

use livekit_replay::store::Db;
use sea_orm::{ConnectionTrait, DatabaseBackend, FromQueryResult, Statement};
use serde_json::{Value, json};

const WRITE_DOWN: &str = "
    CREATE TABLE written (step BIGSERIAL PRIMARY KEY, kind TEXT, name TEXT,
        old_taken BIGINT, old_reserved BIGINT, old_most BIGINT, old_on BOOLEAN,
        taken BIGINT, reserved BIGINT, most BIGINT, is_on BOOLEAN);
    CREATE FUNCTION write_community() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO written (kind, name, old_taken, old_reserved, old_most, old_on, taken, reserved, most, is_on)
        VALUES ('community', NEW.id, OLD.active_sessions, 0, OLD.max_concurrent, OLD.enabled::boolean,
            NEW.active_sessions, 0, NEW.max_concurrent, NEW.enabled::boolean);
        RETURN NULL; END $$;
    CREATE FUNCTION write_account() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO written (kind, name, old_taken, old_reserved, old_most, old_on, taken, reserved, most, is_on)
        VALUES ('account', NEW.user_id, OLD.used_bytes, OLD.reserved_bytes, OLD.quota_bytes, TRUE,
            NEW.used_bytes, NEW.reserved_bytes, NEW.quota_bytes, TRUE);
        RETURN NULL; END $$;
    CREATE TRIGGER written AFTER UPDATE ON community FOR EACH ROW EXECUTE FUNCTION write_community();
    CREATE TRIGGER written AFTER UPDATE ON user_account FOR EACH ROW EXECUTE FUNCTION write_account()";

/// One change of a row.
#[derive(Debug, Clone, PartialEq, FromQueryResult)]
struct Change {
    name: String,
    old_taken: i64,
    old_reserved: i64,
    old_most: Option<i64>,
    old_on: bool,
    taken: i64,
    reserved: i64,
    most: Option<i64>,
    is_on: bool,
}

impl Change {
    fn sets_something(&self) -> bool {
        self.old_most != self.most || self.old_on != self.is_on
    }

    fn moves_something(&self) -> bool {
        (self.old_taken, self.old_reserved) != (self.taken, self.reserved)
    }
}

/// How much of it there was.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub admitted: usize,
    pub given_back: usize,
    pub set: usize,
}

/// From now on everything is written down.
pub async fn begin(db: &Db) {
    db.conn().execute_unprepared(WRITE_DOWN).await.unwrap();
}

async fn rows<T: FromQueryResult>(db: &Db, sql: &str) -> Vec<T> {
    let statement = Statement::from_string(DatabaseBackend::Postgres, sql);
    T::find_by_statement(statement).all(db.conn()).await.unwrap()
}

async fn changes(db: &Db, kind: &str) -> Vec<Change> {
    let columns = "name, old_taken, old_reserved, old_most, old_on, taken, reserved, most, is_on";
    let sql = format!("SELECT {columns} FROM written WHERE kind = '{kind}' ORDER BY step");
    let changes: Vec<Change> = rows(db, &sql).await;
    // each begins with what the one before it left: this is one line of versions
    let mut last: BTreeMap<&str, &Change> = BTreeMap::new();
    for change in &changes {
        let begun = (change.old_taken, change.old_reserved, change.old_most, change.old_on);
        if let Some(before) = last.insert(&change.name, change) {
            let left = (before.taken, before.reserved, before.most, before.is_on);
            assert_eq!(begun, left, "{before:?}, then {change:?}");
        }
    }
    changes
}

/// Every place of a community was given one by one, while it was on, within the limit that the row had then; whoever
/// sets one thing changes nothing else.
pub async fn judge_places(db: &Db, default_most: i64) -> Seen {
    let mut seen = Seen::default();
    for change in changes(db, "community").await {
        let both = change.old_most != change.most && change.old_on != change.is_on;
        assert!(!both, "a change that undoes another's: {change:?}");
        assert!(!(change.moves_something() && change.sets_something()), "{change:?}");
        match change.taken - change.old_taken {
            0 => seen.set += usize::from(change.sets_something()),
            1 => {
                seen.admitted += 1;
                let most = change.most.unwrap_or(default_most);
                assert!(change.is_on && change.taken <= most, "over the limit: {change:?}");
            }
            -1 => seen.given_back += 1,
            _ => panic!("places are given one by one: {change:?}"),
        }
    }
    seen
}

/// Whenever an account's bytes grew they were within the quota that the row had then, and never were below nothing.
pub async fn judge_bytes(db: &Db, default_quota: i64) -> Seen {
    let mut seen = Seen::default();
    for change in changes(db, "account").await {
        assert!(!(change.moves_something() && change.sets_something()), "{change:?}");
        assert!(change.taken >= 0 && change.reserved >= 0, "{change:?}");
        let held = change.taken + change.reserved;
        seen.set += usize::from(change.sets_something());
        seen.given_back += usize::from(held < change.old_taken + change.old_reserved);
        if held > change.old_taken + change.old_reserved {
            seen.admitted += 1;
            assert!(held <= change.most.unwrap_or(default_quota), "over the quota: {change:?}");
        }
    }
    seen
}

#[derive(Debug, FromQueryResult)]
struct Line {
    state_before: Option<String>,
    state_after: Option<String>,
}

/// The audit log tells of the very steps that the rows made, each with what was in force before it.
pub async fn audit_tells_of_them(db: &Db) {
    let quota = |most: Option<i64>| json!({ "quotaBytes": most });
    let community = |most: Option<i64>, on: bool| json!({ "maxConcurrent": most, "enabled": on, "autoStart": false });
    let mut made: Vec<(String, String)> = Vec::new();
    for change in changes(db, "account").await.iter().filter(|change| change.sets_something()) {
        made.push((quota(change.old_most).to_string(), quota(change.most).to_string()));
    }
    for change in changes(db, "community").await.iter().filter(|change| change.sets_something()) {
        let before = community(change.old_most, change.old_on);
        made.push((before.to_string(), community(change.most, change.is_on).to_string()));
    }
    let sql = "SELECT state_before, state_after FROM audit_entry \
        WHERE action IN ('community.change', 'quota.set') AND outcome = 'done'";
    let plain = |state: Option<String>| -> String {
        let state: Value = serde_json::from_str(&state.unwrap_or_default()).unwrap();
        state.to_string()
    };
    let lines: Vec<Line> = rows(db, sql).await;
    let lines = lines.into_iter().map(|line| (plain(line.state_before), plain(line.state_after)));
    let mut told: Vec<_> = lines.filter(|(before, after)| before != after).collect();
    made.sort();
    told.sort();
    assert_eq!(told, made, "what the log tells, and what was done");
    println!("{} changes, all of them in the audit log", made.len());
}

#[derive(Debug, FromQueryResult)]
struct Counted {
    counted: i64,
}

async fn counted(db: &Db, sql: &str) -> i64 {
    rows::<Counted>(db, sql).await[0].counted
}

/// Asks when nobody is connected any more: only then are the server's figures complete.
pub async fn no_deadlock(db: &Db) {
    const OTHERS: &str = "SELECT COUNT(*) AS counted FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    const DEADLOCKS: &str =
        "SELECT deadlocks AS counted FROM pg_stat_database WHERE datname = current_database()";
    let gone = async {
        while counted(db, OTHERS).await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let gone = tokio::time::timeout(std::time::Duration::from_secs(30), gone).await;
    assert!(gone.is_ok(), "somebody is connected still");
    assert_eq!(counted(db, DEADLOCKS).await, 0, "deadlocks");
}

/// Rows that disagree: places counted and places held, bytes of accounts and bytes of clips.
pub async fn rows_agree(db: &Db) {
    const PLACES: &str = "SELECT COUNT(*) AS counted FROM community c WHERE c.active_sessions <> \
        (SELECT COUNT(*) FROM session s WHERE s.community_id = c.id AND s.holds_place)";
    const BYTES: &str = "SELECT COUNT(*) AS counted FROM user_account a WHERE \
        a.used_bytes <> (SELECT COALESCE(SUM(size_bytes), 0) FROM clip c \
            WHERE c.user_id = a.user_id AND c.status = 'ready') OR \
        a.reserved_bytes <> (SELECT COALESCE(SUM(reserved_bytes), 0) FROM clip c \
            WHERE c.user_id = a.user_id AND c.status = 'processing')";
    assert_eq!(counted(db, PLACES).await, 0, "communities whose places are not those held");
    assert_eq!(counted(db, BYTES).await, 0, "accounts that are not their clips");
}

#[derive(Debug, FromQueryResult)]
struct Failed {
    code: String,
    counted: i64,
}

/// How many clips have failed, by code.
pub async fn failures(db: &Db) -> BTreeMap<String, i64> {
    const FAILED: &str = "SELECT COALESCE(error_code, '') AS code, COUNT(*) AS counted FROM clip \
        WHERE status = 'failed' GROUP BY error_code";
    let failed: Vec<Failed> = rows(db, FAILED).await;
    failed.into_iter().map(|failed| (failed.code, failed.counted)).collect()
}
