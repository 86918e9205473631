//! Every row about one user, found by the schema itself: a table that comes later is covered if it names its user in a
//! column `user_id` (or `…_user_id`), its session in `session_id`, its clip in `clip_id`.
//!
//! The audit log is left out: it names nobody (`store::audit`). Names are never part of a query's text; tables and
//! columns are the schema's own words.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement, Value};
use serde_json::Map;

use super::{Conn, Tx, db_error, is_sqlite};
use crate::{
    domain::{
        id::{ClipId, SessionId, UserId},
        keys,
    },
    error::{Error, Result},
};

/// Tables that hold nothing of a user.
const NOBODYS: &[&str] = &["audit_entry", "schema_change", "seaql_migrations", "setting"];
/// The one that says who is meant in the audit log; it is emptied last.
const PERSONS: &str = "audit_person";
/// Rows that go with their files, one by one, in the flows that know how.
const WITH_FILES: &[&str] = &["clip", "session"];
/// Columns that hold words of ours, or names of other things than people: somebody may be called `active`, and a room
/// like a person.
const WORDS: &[&str] = &[
    "audio_codec",
    "audio_track_id",
    "basis",
    "clip_id",
    "community_id",
    "destination",
    "egress_id",
    "end_reason",
    "endpoint",
    "error_code",
    "event_id",
    "file_name",
    "gap_policy",
    "job",
    "key",
    "kind",
    "message_id",
    "outcome",
    "precision",
    "ptype",
    "quality",
    "request_id",
    "role",
    "room_name",
    "route",
    "session_id",
    "state",
    "status",
    "target_id",
    "title",
    "trim_of",
    "username",
    "v0",
    "v1",
    "v2",
    "v3",
    "v4",
    "v5",
    "video_codec",
    "video_track_id",
    "view_id",
    "visibility",
];
/// Tables whose `target_id` is a person where `destination` is `dm`, and else a channel, which may be called like one.
const ADDRESSED: [&str; 2] = ["clip_share", "share_wish"];
/// Values in one statement; far below the engines' bounds.
const CHUNK: usize = 400;
/// What stands for a person who was erased where a row of somebody else's named him. No user has this name.
pub const ERASED: &str = "";

/// Whose rows are meant.
#[derive(Debug, Clone)]
pub struct Whose {
    /// The user.
    pub user: UserId,
    /// All sessions that are or were his.
    pub sessions: Vec<SessionId>,
    /// All clips that are or were his.
    pub clips: Vec<ClipId>,
    /// Hashes of his files, as rows have them.
    pub checksums: Vec<String>,
}

/// A table of the database.
struct Table {
    name: String,
    columns: Vec<String>,
    /// Those that hold text.
    texts: Vec<String>,
}

impl Table {
    fn is_nobodys(&self) -> bool {
        NOBODYS.contains(&self.name.as_str())
    }

    fn has(&self, column: &str) -> bool {
        self.texts.iter().any(|text| text == column)
    }

    /// The columns by which a row belongs to a user, with the values that say so.
    fn owners(&self, whose: &Whose) -> Vec<(&str, Vec<String>)> {
        let sessions = || whose.sessions.iter().map(|id| id.as_str().to_owned());
        let clips = || whose.clips.iter().map(|id| id.as_str().to_owned());
        let values = |column: &str| match column {
            "session_id" => sessions().collect(),
            "clip_id" => clips().collect(),
            // what a preview listed, of a session or of a clip
            "view_id" => sessions().chain(clips()).collect(),
            name if name == "user_id" || name.ends_with("_user_id") => {
                vec![whose.user.as_str().to_owned()]
            }
            _ => Vec::new(),
        };
        self.texts.iter().map(|column| (column.as_str(), values(column))).collect()
    }
}

/// A statement that is being put together.
struct Draft {
    backend: DatabaseBackend,
    values: Vec<Value>,
}

impl Draft {
    fn on<C: Conn>(db: &C) -> Draft {
        Draft { backend: db.get_database_backend(), values: Vec::new() }
    }

    /// Takes a value and answers what stands for it in the text.
    fn take(&mut self, value: &str) -> String {
        self.values.push(value.into());
        if is_sqlite(self.backend) { "?".to_owned() } else { format!("${}", self.values.len()) }
    }

    fn is_any_of(&mut self, column: &str, values: &[String]) -> String {
        let places: Vec<String> = values.iter().map(|value| self.take(value)).collect();
        format!("\"{column}\" IN ({})", places.join(", "))
    }

    fn holds(&mut self, column: &str, text: &str) -> String {
        let find = if is_sqlite(self.backend) { "instr" } else { "strpos" };
        let place = self.take(text);
        format!("{find}(CAST(\"{column}\" AS TEXT), {place}) > 0")
    }

    /// A path of the buffer whose third part this is: the second is its room's key, and a room may be called like him.
    fn leads_below(&mut self, column: &str, key: &str) -> String {
        let place = self.take(&format!("%/%/{key}/%"));
        format!("\"{column}\" LIKE {place}")
    }

    fn finish(self, sql: String) -> Statement {
        Statement::from_sql_and_values(self.backend, sql, self.values)
    }
}

/// Deletes every row about the user but his sessions and clips, which go with their files, and takes his name out of
/// rows of others. Says how many rows went.
pub async fn erase(tx: &Tx, whose: &Whose) -> Result<u64> {
    let mut gone = 0;
    for table in tables(tx).await? {
        let kept = table.is_nobodys() || table.name == PERSONS;
        if kept || WITH_FILES.contains(&table.name.as_str()) {
            continue;
        }
        for (column, values) in table.owners(whose) {
            for some in values.chunks(CHUNK) {
                let mut draft = Draft::on(tx);
                let which = draft.is_any_of(column, some);
                gone +=
                    run(tx, draft.finish(format!("DELETE FROM \"{}\" WHERE {which}", table.name)))
                        .await?;
            }
        }
    }
    // an answer kept for somebody else may tell of him: a repeat of that request is then a request like any other
    let mut draft = Draft::on(tx);
    let named: Vec<String> =
        members(&whose.user).iter().map(|member| draft.holds("body", member)).collect();
    let sql = format!("DELETE FROM idempotency WHERE {}", named.join(" OR "));
    gone += run(tx, draft.finish(sql)).await?;
    let mut draft = Draft::on(tx);
    let (nobody, him) = (draft.take(ERASED), draft.take(whose.user.as_str()));
    run(
        tx,
        draft.finish(format!("UPDATE session SET started_by = {nobody} WHERE started_by = {him}")),
    )
    .await?;
    let started = format!("\"startedBy\":{}", serde_json::Value::from(whose.user.as_str()));
    let mut draft = Draft::on(tx);
    let (held, nobody) = (draft.take(&started), draft.take("\"startedBy\":\"\""));
    let named = draft.holds("data", &started);
    let sql = format!("UPDATE event SET data = replace(data, {held}, {nobody}) WHERE {named}");
    run(tx, draft.finish(sql)).await?;
    gone += erase_addressee(tx, &whose.user).await?;
    Ok(gone)
}

/// Clips of others that were sent to him, or wait for it. A channel may be called like him.
async fn erase_addressee(tx: &Tx, user: &UserId) -> Result<u64> {
    let mut draft = Draft::on(tx);
    let (nobody, him) = (draft.take(ERASED), draft.take(user.as_str()));
    let sql = format!(
        "UPDATE clip_share SET target_id = {nobody} WHERE destination = 'dm' AND target_id = {him}"
    );
    run(tx, draft.finish(sql)).await?;
    let mut draft = Draft::on(tx);
    let him = draft.take(user.as_str());
    let sql = format!("DELETE FROM share_wish WHERE destination = 'dm' AND target_id = {him}");
    run(tx, draft.finish(sql)).await
}

/// Deletes a session with all that belongs to it but its clips; says how many rows went. At once, because without the
/// session's row nothing says whose an epoch was.
pub async fn delete_session(tx: &Tx, id: &SessionId) -> Result<u64> {
    let mut gone = 0;
    let mut whose = vec![("session".to_owned(), "id")];
    for table in tables(tx).await? {
        let own = !table.is_nobodys() && !WITH_FILES.contains(&table.name.as_str());
        let named = ["session_id", "view_id"].into_iter().filter(|column| table.has(column));
        whose.extend(named.filter(|_| own).map(|column| (table.name.clone(), column)));
    }
    for (table, column) in whose {
        let mut draft = Draft::on(tx);
        let which = draft.take(id.as_str());
        let sql = format!("DELETE FROM \"{table}\" WHERE \"{column}\" = {which}");
        gone += run(tx, draft.finish(sql)).await?;
    }
    Ok(gone)
}

async fn run(tx: &Tx, statement: Statement) -> Result<u64> {
    let done = tx.execute_raw(statement).await;
    Ok(done.map_err(|error| db_error("erasing rows", error))?.rows_affected())
}

/// Where the user still stands: `table.column` of every text that is his name or a hash of one of his files, holds his
/// key, says as JSON that it is about him, or names one of his sessions or clips.
pub async fn search<C: Conn>(db: &C, whose: &Whose, with_persons: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let key = keys::user_key(&whose.user);
    for table in tables(db).await? {
        if table.is_nobodys() || (table.name == PERSONS && !with_persons) {
            continue;
        }
        let owners = table.owners(whose);
        for column in &table.texts {
            let owned = owners.iter().filter(|(owner, _)| owner == column);
            let values = owned.flat_map(|(_, values)| values).chain(&whose.checksums);
            let values: Vec<String> = values.cloned().collect();
            let mut draft = Draft::on(db);
            let mut marks = vec![match column.as_str() {
                "path" => draft.leads_below(column, &key),
                _ => draft.holds(column, &key),
            }];
            marks.extend(members(&whose.user).iter().map(|member| draft.holds(column, member)));
            if !is_word(&table.name, column) {
                marks.push(draft.is_any_of(column, &[whose.user.as_str().to_owned()]));
            }
            let mut is_there = is_any(db, &table, draft, &marks.join(" OR ")).await?;
            for some in values.chunks(CHUNK) {
                let mut draft = Draft::on(db);
                let mark = draft.is_any_of(column, some);
                is_there = is_there || is_any(db, &table, draft, &mark).await?;
            }
            if is_there {
                found.push(format!("{}.{column}", table.name));
            }
        }
    }
    for table in ADDRESSED {
        let mut draft = Draft::on(db);
        let him = draft.take(whose.user.as_str());
        let sql = format!(
            "SELECT COUNT(*) AS n FROM {table} WHERE destination = 'dm' AND target_id = {him}"
        );
        if count(db, draft.finish(sql)).await? > 0 {
            found.push(format!("{table}.target_id"));
        }
    }
    Ok(found)
}

/// Whether a column holds words of ours or names of other things, which somebody may be called like.
fn is_word(table: &str, column: &str) -> bool {
    WORDS.contains(&column) || (column == "id" && table != PERSONS)
}

async fn is_any<C: Conn>(db: &C, table: &Table, draft: Draft, mark: &str) -> Result<bool> {
    let sql = format!("SELECT COUNT(*) AS n FROM \"{}\" WHERE {mark}", table.name);
    Ok(count(db, draft.finish(sql)).await? > 0)
}

async fn count<C: Conn>(db: &C, statement: Statement) -> Result<i64> {
    let row = db.query_one_raw(statement).await;
    let row = row.map_err(|error| db_error("looking for a user", error))?;
    let number = row.map_or(Ok(0), |row| row.try_get("", "n"));
    number.map_err(|error| db_error("looking for a user", error))
}

/// Every row about the user as JSON, by table: columns as the schema names them, moments in microseconds. People other
/// than him are left out of his rows.
pub async fn rows<C: Conn>(
    db: &C,
    whose: &Whose,
) -> Result<BTreeMap<String, Vec<serde_json::Value>>> {
    let mut found: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for table in tables(db).await? {
        if table.is_nobodys() || table.name == PERSONS {
            continue;
        }
        // that others name him makes a row theirs, not his
        let owner =
            ["user_id", "session_id", "clip_id", "view_id"].into_iter().find_map(|wanted| {
                table.owners(whose).into_iter().find(|(column, _)| *column == wanted)
            });
        if let Some((column, values)) = owner {
            for some in values.chunks(CHUNK) {
                let mut draft = Draft::on(db);
                let json = as_json(&draft, &table);
                let which = draft.is_any_of(column, some);
                let sql = format!(
                    "SELECT {json} AS line FROM \"{}\" r WHERE {which} ORDER BY 1",
                    table.name
                );
                let rows = db.query_all_raw(draft.finish(sql)).await;
                for row in rows.map_err(|error| db_error("reading a user's rows", error))? {
                    let line: String = row
                        .try_get("", "line")
                        .map_err(|error| db_error("reading a user's rows", error))?;
                    found
                        .entry(table.name.clone())
                        .or_default()
                        .push(without_others(&line, whose)?);
                }
            }
        }
    }
    Ok(found)
}

fn is_someone(column: &str) -> bool {
    column.ends_with("_user_id") || column == "started_by" || column == "target_id"
}

fn without_others(line: &str, whose: &Whose) -> Result<serde_json::Value> {
    let mut row: Map<String, serde_json::Value> = serde_json::from_str(line)
        .map_err(|error| Error::internal("reading a user's rows", error))?;
    for (column, value) in &mut row {
        if is_someone(column) && value.as_str() != Some(whose.user.as_str()) {
            *value = serde_json::Value::Null;
        }
    }
    // an answer given to him may tell of others
    row.remove("body");
    if let Some(serde_json::Value::String(data)) = row.get_mut("data") {
        without_starter(data, whose);
    }
    Ok(row.into())
}

/// An event of his may name who started his session.
fn without_starter(data: &mut String, whose: &Whose) {
    let Ok(serde_json::Value::Object(mut told)) = serde_json::from_str(data) else { return };
    if told.get("startedBy").is_some_and(|other| other != whose.user.as_str()) {
        told.insert("startedBy".to_owned(), serde_json::Value::Null);
        *data = serde_json::Value::Object(told).to_string();
    }
}

fn as_json(draft: &Draft, table: &Table) -> String {
    if !is_sqlite(draft.backend) {
        return "row_to_json(r)::text".to_owned();
    }
    let members: Vec<String> =
        table.columns.iter().map(|column| format!("'{column}', \"{column}\"")).collect();
    format!("json_object({})", members.join(", "))
}

/// How a JSON text of ours says that it is about somebody. A text inside such a text has its quotes escaped, so what
/// a stranger wrote there is none of these.
fn members(user: &UserId) -> Vec<String> {
    let name = serde_json::Value::from(user.as_str());
    let names = ["userId", "startedBy", "user_id", "started_by"];
    names.iter().map(|member| format!("\"{member}\":{name}")).collect()
}

async fn tables<C: Conn>(db: &C) -> Result<Vec<Table>> {
    let sql = if is_sqlite(db.get_database_backend()) {
        "SELECT m.name AS t, p.name AS c, lower(p.type) AS k FROM sqlite_master m \
         JOIN pragma_table_info(m.name) p WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' \
         ORDER BY m.name, p.cid"
    } else {
        "SELECT table_name::text AS t, column_name::text AS c, data_type::text AS k \
         FROM information_schema.columns WHERE table_schema = current_schema() \
         ORDER BY table_name, ordinal_position"
    };
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await;
    let mut tables: Vec<Table> = Vec::new();
    for row in rows.map_err(|error| db_error("reading the schema", error))? {
        let text = |name: &str| row.try_get::<String>("", name);
        let (Ok(name), Ok(column), Ok(kind)) = (text("t"), text("c"), text("k")) else {
            return Err(Error::internal("reading the schema", "a column without a name"));
        };
        if tables.last().is_none_or(|table| table.name != name) {
            tables.push(Table { name, columns: Vec::new(), texts: Vec::new() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if ["text", "char", "json"].iter().any(|like| kind.contains(like)) {
            table.texts.push(column.clone());
        }
        table.columns.push(column);
    }
    Ok(tables)
}
