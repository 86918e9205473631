//! What must hold once a restarted service has settled: rows, files, LiveKit and what clients were told agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use livekit_replay::{
    domain::{id::UserId, keys, time::Timestamp},
    simulator::decode,
};
use reqwest::Method;
use serde_json::Value;

use crate::{
    ledger::{Known, Ledger},
    service::{COMMUNITIES, Service},
    support::On,
};

/// Longest time to settle. Replicas' leases (30 s) and the age of work files (60 s) have to run out on PostgreSQL.
fn patience(on: On) -> Duration {
    Duration::from_secs(if on == On::Sqlite { 90 } else { 180 })
}

/// Waits until everything agrees, and fails with what does not; then every clip has to decode.
pub async fn settles(service: &Service, ledger: &Ledger, users: &[&str], after: &str) {
    agrees(service, ledger, users, after).await;
    decodes_with_checksums(service, users).await;
}

/// [`settles`] without looking into the clips.
pub async fn agrees(service: &Service, ledger: &Ledger, users: &[&str], after: &str) {
    let mut wrong = Vec::new();
    let began = tokio::time::Instant::now();
    let quiet = async {
        loop {
            wrong = disagreements(service, ledger, users).await;
            if wrong.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let quiet = tokio::time::timeout(patience(service.on), quiet).await;
    let log = if quiet.is_err() { service.log() } else { String::new() };
    assert!(quiet.is_ok(), "{after}: does not settle:\n{}\n{log}", wrong.join("\n"));
    println!("{after}: settled after {:.1} s", began.elapsed().as_secs_f64());
}

async fn disagreements(service: &Service, ledger: &Ledger, users: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let sessions = all(service, "/admin/sessions", "sessions").await;
    let clips = all(service, "/admin/clips", "clips").await;
    sessions_agree(service, ledger, &sessions, &mut wrong);
    places_agree(service, &sessions, &mut wrong).await;
    directories_agree(service, ledger, &sessions, &clips, &mut wrong);
    clips_agree(service, ledger, &clips, &mut wrong).await;
    for user in users {
        account_agrees(service, user, &clips, &mut wrong).await;
    }
    for state in ["queued", "running"] {
        let path = format!("/admin/jobs?state={state}");
        let jobs = service.must(Method::GET, "root", &path, None).await;
        if jobs["total"] != 0 {
            wrong.push(format!("{} jobs are {state}", jobs["total"]));
        }
    }
    wrong
}

/// A user's own list of clips.
async fn clips_of(service: &Service, user: &str) -> Vec<Value> {
    all_of(service, user, "/my-clips?limit=100", "clips").await
}

/// A whole list of the administrators'.
async fn all(service: &Service, path: &str, name: &str) -> Vec<Value> {
    all_of(service, "root", &format!("{path}?limit=200"), name).await
}

/// A whole list, page by page.
async fn all_of(service: &Service, user: &str, path: &str, name: &str) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let path = format!("{path}&offset={}", found.len());
        let page = service.must(Method::GET, user, &path, None).await;
        let rows = page[name].as_array().unwrap();
        found.extend(rows.iter().cloned());
        if rows.is_empty() || page["total"].as_u64() == Some(found.len() as u64) {
            return found;
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn holds(session: &Value) -> bool {
    matches!(text(session, "status"), "starting" | "active" | "degraded")
}

/// One egress for each session that holds a place, none without one; what was answered is so.
fn sessions_agree(service: &Service, ledger: &Ledger, sessions: &[Value], wrong: &mut Vec<String>) {
    let mut holding: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_user: BTreeMap<&str, usize> = BTreeMap::new();
    for session in sessions {
        let (id, status) = (text(session, "id"), text(session, "status"));
        if matches!(status, "starting" | "stopping" | "degraded") {
            wrong.push(format!("session {id} is {status}"));
        }
        if holds(session) {
            holding.insert(id, 0);
            *by_user.entry(text(session, "userId")).or_default() += 1;
        }
    }
    for (user, count) in by_user.iter().filter(|(_, count)| **count > 1) {
        wrong.push(format!("{user} has {count} sessions"));
    }
    let over = ["EGRESS_COMPLETE", "EGRESS_FAILED", "EGRESS_ABORTED", "EGRESS_LIMIT_REACHED"];
    for egress in service.sim.egresses() {
        // LiveKit never learns of a host that died: what it remembers of it stays as it is
        if over.contains(&egress.status.as_str()) || egress.dead {
            continue;
        }
        match holding.iter_mut().find(|(id, _)| egress.directory.contains(**id)) {
            Some((_, count)) => *count += 1,
            None => wrong.push(format!("{} {} has no session", egress.status, egress.directory)),
        }
    }
    for (id, count) in holding.iter().filter(|(_, count)| **count != 1) {
        wrong.push(format!("session {id} has {count} egresses"));
    }
    for (id, told) in &ledger.sessions {
        match (holding.contains_key(id.as_str()), told.stopped) {
            (false, Known::No) if may_end(ledger, sessions, id) => {}
            (false, Known::No) => wrong.push(format!("{}'s session {id} is gone", told.user)),
            (true, Known::Yes) => wrong.push(format!("{}'s session {id} goes on", told.user)),
            _ => {}
        }
    }
}

fn may_end(ledger: &Ledger, sessions: &[Value], id: &str) -> bool {
    let session = sessions.iter().find(|session| text(session, "id") == id);
    session.is_some_and(|session| ledger.may_end.contains(&text(session, "endReason")))
}

async fn places_agree(service: &Service, sessions: &[Value], wrong: &mut Vec<String>) {
    for community in COMMUNITIES {
        let path = format!("/admin/community/{community}/config");
        let shown = service.must(Method::GET, "root", &path, None).await;
        let own = |session: &&Value| holds(session) && text(session, "communityId") == community;
        let holding = sessions.iter().filter(own).count();
        if shown["activeSessions"] != holding {
            let counted = &shown["activeSessions"];
            wrong.push(format!("{community} counts {counted} places, {holding} sessions hold one"));
        }
    }
}

/// Every directory below our instance's leads to a session that may still need it, or that a failed clip, which can be
/// tried again for a while, holds by its pins.
fn directories_agree(
    service: &Service,
    ledger: &Ledger,
    sessions: &[Value],
    clips: &[Value],
    wrong: &mut Vec<String>,
) {
    let now = livekit_replay::clock::Clock::now(&livekit_replay::clock::SystemClock);
    let failed_kept = ledger.failed_kept.unwrap_or(service.config.capture.failed_keep);
    let pinned_since = now.plus_micros(-micros(failed_kept));
    let can_be_tried_again = |clip: &&Value| {
        let failed_at = Timestamp::parse_rfc3339(text(clip, "updatedAt"));
        text(clip, "status") == "failed" && failed_at.is_some_and(|at| at > pinned_since)
    };
    // nothing younger than that is deleted
    let now = now.plus_micros(-micros(ledger.segments_kept));
    let owners: BTreeSet<&str> = sessions
        .iter()
        .filter(|session| {
            let until = Timestamp::parse_rfc3339(text(session, "capturableUntil"));
            holds(session) || until.is_some_and(|until| until > now)
        })
        .map(|session| text(session, "id"))
        .chain(clips.iter().filter(can_be_tried_again).map(|clip| text(clip, "sessionId")))
        .collect();
    for instance in directories(&service.config.storage.buffer) {
        for room in directories(&instance) {
            for user in directories(&room) {
                for session in directories(&user) {
                    let id = session.file_name().unwrap().to_string_lossy().into_owned();
                    if !owners.contains(id.as_str()) {
                        wrong.push(format!("{} has no session", session.display()));
                    }
                }
                if directories(&user).is_empty() {
                    wrong.push(format!("{} is empty", user.display()));
                }
            }
            if directories(&room).is_empty() {
                wrong.push(format!("{} is empty", room.display()));
            }
        }
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

pub fn entries(path: &Path) -> Vec<std::path::PathBuf> {
    let listed = std::fs::read_dir(path).into_iter().flatten();
    listed.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn directories(path: &Path) -> Vec<std::path::PathBuf> {
    entries(path).into_iter().filter(|path| path.is_dir()).collect()
}

/// One accepted request, one clip that is ready; nothing else is listed, and no other file is there.
async fn clips_agree(service: &Service, ledger: &Ledger, clips: &[Value], wrong: &mut Vec<String>) {
    let mut titles = BTreeSet::new();
    for clip in clips {
        let id = text(clip, "id");
        let title = ledger.key_of(id, text(clip, "title"));
        if !titles.insert(title) {
            wrong.push(format!("{title} was made twice"));
        }
        let told = ledger.captures.get(title);
        if told.is_none_or(|told| told.known == Known::No) {
            wrong.push(format!("{title} was never accepted, and is clip {id}"));
        }
        if told.is_some_and(|told| told.deleted == Known::Yes) {
            wrong.push(format!("{title} was deleted, and is clip {id}"));
        }
        match text(clip, "status") {
            "ready" => {}
            "failed" => wrong.extend(unexplained(service, ledger, title, clip).await),
            status => wrong.push(format!("{title} is {status}")),
        }
    }
    for (title, told) in &ledger.captures {
        if told.known == Known::Yes && told.deleted == Known::No && !titles.contains(title.as_str())
        {
            wrong.push(format!("{title} was accepted as {:?} and is not there", told.id));
        }
    }
    files_agree(service, clips, wrong);
}

/// All that its owner is told of a listed clip.
async fn whole(service: &Service, clip: &Value) -> Value {
    let path = format!("/clips/{}", text(clip, "id"));
    service.must(Method::GET, text(clip, "userId"), &path, None).await
}

/// A clip that failed without a good reason, with what there was to make it of.
async fn unexplained(
    service: &Service,
    ledger: &Ledger,
    title: &str,
    clip: &Value,
) -> Option<String> {
    let asked = whole(service, clip).await;
    if ledger.explains(title, &asked) {
        return None;
    }
    let (user, id) = (text(clip, "userId"), text(clip, "sessionId"));
    let session = service.must(Method::GET, user, &format!("/sessions/{id}"), None).await;
    if never_came(&asked, &session) || (!ledger.strict && !had_media(&asked, &session)) {
        return None;
    }
    let egresses = service.sim.egresses();
    let own: Vec<_> = egresses.iter().filter(|egress| egress.directory.contains(id)).collect();
    Some(format!("{title} failed: {asked}\n  of {session}\n  recorded by {own:?}"))
}

/// Whether the session had ended when the window began that was asked for ahead of it.
fn never_came(asked: &Value, session: &Value) -> bool {
    let from = Timestamp::parse_rfc3339(text(asked, "requestedFrom")).unwrap();
    let ended_at = Timestamp::parse_rfc3339(text(session, "endedAt"));
    asked["error"]["code"] == "no_segments_in_range" && ended_at.is_some_and(|at| at <= from)
}

/// Whether the buffer a failed clip was to come from holds anything of before the clip's end.
fn had_media(asked: &Value, session: &Value) -> bool {
    let wanted = Timestamp::parse_rfc3339(text(asked, "requestedTo")).unwrap();
    let starts = Timestamp::parse_rfc3339(text(&session["buffer"], "startsAt"));
    starts.is_some_and(|starts| starts < wanted)
}

fn files_agree(service: &Service, clips: &[Value], wrong: &mut Vec<String>) {
    let root = &service.config.storage.clips;
    let mut allowed = BTreeSet::from([root.join(".livekit-replay.json")]);
    for clip in clips.iter().filter(|clip| text(clip, "status") == "ready") {
        let own = root.join(keys::user_key(&UserId::new(text(clip, "userId"))));
        for ending in ["mp4", "json"] {
            let file = own.join(format!("{}.{ending}", text(clip, "id")));
            if !file.is_file() {
                wrong.push(format!("{} is not there", file.display()));
            }
            allowed.insert(file);
        }
        allowed.insert(own.join(format!("{}.jpg", text(clip, "id"))));
    }
    for clip in clips.iter().filter(|clip| text(clip, "status") == "failed") {
        // what a trim is cut out of stays for another attempt
        let own = root.join(keys::user_key(&UserId::new(text(clip, "userId"))));
        allowed.insert(own.join(format!("{}.source", text(clip, "id"))));
    }
    // files of users, `.work` and anything else alike
    for entry in entries(root) {
        let found = if entry.is_dir() { entries(&entry) } else { vec![entry] };
        for file in found.into_iter().filter(|file| !allowed.contains(file)) {
            wrong.push(format!("{} is nobody's", file.display()));
        }
    }
    let work = root.join(".work").display().to_string();
    for process in entries(Path::new("/proc")) {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&work) {
            wrong.push(format!("{} still works on a clip", process.display()));
        }
    }
}

async fn account_agrees(service: &Service, user: &str, clips: &[Value], wrong: &mut Vec<String>) {
    let path = format!("/admin/users/{user}/quota");
    let account = service.must(Method::GET, "root", &path, None).await;
    let own = service.config.storage.clips.join(keys::user_key(&UserId::new(user)));
    let videos =
        entries(&own).into_iter().filter(|path| path.extension().is_some_and(|e| e == "mp4"));
    let bytes: u64 = videos.filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum();
    if account["usedBytes"] != bytes || account["reservedBytes"] != 0 {
        wrong.push(format!("{user} has {bytes} bytes of videos and the account {account}"));
    }
    let ready = |clip: &&Value| text(clip, "userId") == user && text(clip, "status") == "ready";
    let listed = clips.iter().filter(ready).filter_map(|clip| clip["sizeBytes"].as_u64());
    let listed: u64 = listed.sum();
    if listed != bytes {
        wrong.push(format!("{user}'s clips say {listed} bytes, the videos have {bytes}"));
    }
}

/// Every ready clip is what its row says, to the byte, and holds pictures of the shared screen.
async fn decodes_with_checksums(service: &Service, users: &[&str]) {
    for user in users {
        let own = service.config.storage.clips.join(keys::user_key(&UserId::new(*user)));
        for clip in clips_of(service, user).await {
            if text(&clip, "status") != "ready" {
                continue;
            }
            let file = own.join(format!("{}.mp4", text(&clip, "id")));
            let bytes = std::fs::read(&file).unwrap();
            let hash = format!("blake3:{}", blake3::hash(&bytes).to_hex());
            assert_eq!(text(&clip, "checksum"), hash, "{clip:#}");
            // the same bytes decode as they did
            if !service.decoded.lock().unwrap().insert(hash) {
                continue;
            }
            let decoded = decode::decode_file(&file).await.unwrap();
            assert!(decoded.markers().next().is_some(), "no picture in {clip:#}");
        }
    }
}
