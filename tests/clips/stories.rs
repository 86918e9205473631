//! The stories that `main.rs` runs on each engine.

use std::{path::Path, process::Command, time::Duration};

use axum::http::StatusCode;
use livekit_replay::{
    domain::id::{ClipId, SessionId, UserId},
    domain::window::WindowRequest,
    error::Code,
    flow::{
        capture::{self, GapPolicy},
        clip_files::{ClipFiles, Record},
        render,
        work::{self, Place},
    },
    store::{Page, clip, job, pin, quota},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, RECORDED, Reply};

fn files(bench: &Bench, user: &str, clip: &Value) -> ClipFiles {
    let id = ClipId::new(clip["clipId"].as_str().unwrap());
    ClipFiles::of(&bench.deps, &UserId::new(user), &id).unwrap()
}

/// Decodes the whole file and counts its pictures; any complaint of FFmpeg's fails the test.
fn decoded_frames(file: &Path) -> u64 {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().trim_end_matches(',').parse().unwrap()
}

/// Asks for a capture that is answered at once.
pub async fn accepted(bench: &Bench, user: &str, body: Value) -> Reply {
    let prefer = [("prefer", "respond-async")];
    bench.ask_with(user, "POST", "/capture", Some(body), &prefer).await
}

/// Waits until the clip is no longer being made.
pub async fn settled(bench: &Bench, id: &Value) -> Value {
    let id = ClipId::new(id.as_str().unwrap());
    let clip = capture::settled(&bench.deps, &id, Duration::from_secs(60)).await.unwrap();
    let owner = clip.expect("the clip is there").user_id;
    let reply = bench.ask(owner.as_str(), "GET", &format!("/clips/{id}"), None).await;
    assert_eq!(reply.status, StatusCode::OK);
    reply.json()
}

pub async fn a_capture_becomes_a_clip_that_decodes_and_settles_its_bytes(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("ann", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let mut body = session.window(5, 11);
    body["precision"] = json!("exact");
    let reply = bench.ask("ann", "POST", "/capture", Some(body)).await;
    let clip = reply.json();
    assert_eq!(reply.status, StatusCode::CREATED, "{clip:#}");
    assert_eq!(clip["status"], "ready");
    assert_eq!(
        reply.header("location"),
        format!("/livekit-replay/clips/{}", clip["id"].as_str().unwrap())
    );
    assert_eq!(clip["startsAt"], json!(session.began.plus_seconds(5)));
    assert_eq!(clip["endsAt"], json!(session.began.plus_seconds(11)));
    assert_eq!(clip["gaps"], json!([]));
    assert_eq!(clip["shortfallMs"], 0);
    assert!((clip["durationSeconds"].as_f64().unwrap() - 6.0).abs() < 0.034, "{clip:#}");

    let files = files(&bench, "ann", &clip);
    assert_eq!(decoded_frames(&files.video), 180);
    let size = i64::try_from(std::fs::metadata(&files.video).unwrap().len()).unwrap();
    assert_eq!(clip["sizeBytes"], size);
    let checksum = blake3::hash(&std::fs::read(&files.video).unwrap()).to_hex();
    assert_eq!(clip["checksum"], format!("blake3:{checksum}"));
    let record = std::fs::read(&files.record).unwrap();
    let record = Record::parse(&record, &bench.deps.instance).expect("a record of ours");
    assert_eq!(record.size_bytes, size);
    // it follows; whoever asks waits for it
    let poster = bench.raw("GET", clip["thumbnailUrl"].as_str().unwrap(), None, &[]).await;
    assert_eq!(poster.bytes.as_ref(), std::fs::read(&files.poster).unwrap());

    let account = bench.account("ann").await;
    assert_eq!((account.used_bytes, account.reserved_bytes), (size, 0));
    bench.assert_accounts_are_true().await;
    let id = ClipId::new(clip["id"].as_str().unwrap());
    assert!(pin::find_of_clip(bench.deps.db.conn(), &id).await.unwrap().is_none());
    assert_eq!(job::count_open(bench.deps.db.conn()).await.unwrap(), 0);
    assert_eq!(bench.work_files(), 0);
    bench.close().await;
}

pub async fn of_sixty_captures_at_once_exactly_as_many_are_accepted_as_fit(mut bench: Bench) {
    let session = bench.session("bob", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let one = accepted(&bench, "bob", session.window(2, 8)).await.json();
    let account = bench.account("bob").await;
    let needed = account.reserved_bytes;
    assert!(needed > 1 << 20, "{one:#}");
    let id = one["id"].as_str().unwrap();
    assert_eq!(
        bench.ask("bob", "DELETE", &format!("/clips/{id}"), None).await.status,
        StatusCode::OK
    );
    assert_eq!(bench.account("bob").await.reserved_bytes, 0);
    let room_for_seven = needed * 7 + needed / 2;
    let user = UserId::new("bob");
    quota::set_quota(bench.deps.db.conn(), &user, room_for_seven, bench.now()).await.unwrap();

    let captures = (0..60).map(|_| {
        let (deps, caller) = (bench.deps.clone(), bench.caller("bob"));
        let request = capture::Request {
            session_id: session.id.clone(),
            window: WindowRequest {
                from: Some(session.began.plus_seconds(2)),
                to: Some(session.began.plus_seconds(8)),
                ..WindowRequest::default()
            },
            gap_policy: GapPolicy::Skip,
            title: None,
            visibility: None,
            held: None,
            request_id: None,
            share: None,
        };
        let now = bench.now();
        tokio::spawn(async move { capture::capture(&deps, &caller, request, now).await })
    });
    let outcomes = futures::future::join_all(captures.collect::<Vec<_>>()).await;
    let mut taken = Vec::new();
    for outcome in outcomes {
        match outcome.unwrap() {
            Ok(accepted) => taken.push(accepted.clip.id),
            Err(error) => {
                assert_eq!(error.code(), Code::QuotaExceeded, "{error:?}");
                assert_eq!(error.fields()["quotaBytes"], room_for_seven);
                assert_eq!(error.fields()["neededBytes"], needed);
            }
        }
    }
    assert_eq!(taken.len(), 7);
    assert_eq!(bench.account("bob").await.reserved_bytes, needed * 7);
    bench.run_jobs();
    for id in &taken {
        assert_eq!(settled(&bench, &json!(id)).await["status"], "ready");
    }
    let account = bench.account("bob").await;
    assert_eq!(account.reserved_bytes, 0);
    assert!(account.used_bytes > 0 && account.used_bytes <= room_for_seven);
    bench.assert_accounts_are_true().await;
    let listed = bench.ask("bob", "GET", "/my-clips?limit=5", None).await.json();
    assert_eq!((listed["total"].as_i64(), listed["hasMore"].as_bool()), (Some(7), Some(true)));
    assert_eq!(listed["quota"]["usedBytes"], account.used_bytes);
    bench.close().await;
}

pub async fn a_capture_waits_for_the_segments_that_complete_its_window(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("cat", 12).await;
    session.write(0..3);
    // the last four seconds: nothing of them is on disk yet
    let body = json!({ "sessionId": session.id, "durationSeconds": 4 });
    let clip = accepted(&bench, "cat", body).await.json();
    assert_eq!(clip["status"], "processing", "{clip:#}");
    session.write(3..RECORDED);
    let clip = settled(&bench, &clip["id"]).await;
    assert_eq!(clip["status"], "ready", "{clip:#}");
    assert_eq!(clip["shortfallMs"], 0);
    assert!(clip["prerollMs"].as_i64().unwrap() < 2000);
    assert!(decoded_frames(&files(&bench, "cat", &clip).video) >= 120);

    // a session that never held media, live: accepted all the same
    let fresh = bench.session("dan", 1).await;
    let body = json!({ "sessionId": fresh.id, "durationSeconds": 1 });
    let reply = accepted(&bench, "dan", body).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    // before anything was recorded: refused
    let reply = accepted(&bench, "dan", fresh.window(-100, -50)).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.json()["code"], "no_segments_in_range");
    let reply = accepted(&bench, "cat", session.window(-100, -50)).await.json();
    assert_eq!(reply["available"]["from"], json!(session.began), "{reply:#}");
    fresh.write(0..3);
    bench.close().await;
}

pub async fn a_cancelled_capture_gives_everything_back(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("eve", 8).await;
    session.write(0..4);
    let mut body = session.window(2, 30);
    body["title"] = json!("too long to wait for");
    let clip = accepted(&bench, "eve", body).await.json();
    let path = format!("/clips/{}", clip["id"].as_str().unwrap());
    assert_eq!(
        bench.ask("eve", "GET", &format!("{path}/file"), None).await.json()["code"],
        "clip_not_ready"
    );
    assert!(bench.account("eve").await.reserved_bytes > 0);
    assert_eq!(bench.ask("fred", "DELETE", &path, None).await.json()["code"], "not_found");

    let reply = bench.ask("eve", "DELETE", &path, None).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.json()["freedBytes"], 0);
    let account = bench.account("eve").await;
    assert_eq!((account.used_bytes, account.reserved_bytes), (0, 0));
    assert_eq!(bench.ask("eve", "GET", &path, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(job::count_open(bench.deps.db.conn()).await.unwrap(), 0);
    let id = ClipId::new(clip["id"].as_str().unwrap());
    assert!(pin::find_of_clip(bench.deps.db.conn(), &id).await.unwrap().is_none());
    let files = files(&bench, "eve", &clip);
    let work = bench.deps.work_dir();
    bench.close_jobs().await;
    assert!(!files.video.exists() && !files.record.exists());
    assert_eq!(std::fs::read_dir(work).map_or(0, Iterator::count), 0);
    bench.close().await;
}

pub async fn gaps_found_late_fail_a_refusing_capture_and_a_retry_makes_it(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("gil", 14).await;
    session.write(0..3);
    let mut body = session.window(2, 10);
    body["gapPolicy"] = json!("refuse");
    let clip = accepted(&bench, "gil", body.clone()).await.json();
    assert_eq!(clip["status"], "processing", "{clip:#}");
    // segment 3 is spoilt when it is named, the ones after it are whole
    session.spoil(3);
    session.write(4..7);
    let failed = settled(&bench, &clip["id"]).await;
    assert_eq!(failed["status"], "failed", "{failed:#}");
    assert_eq!(failed["error"]["code"], "window_has_gaps");
    assert_eq!(failed["gaps"][0]["reason"], "foreign", "{failed:#}");
    assert_eq!(bench.account("gil").await.reserved_bytes, 0);
    // known by now: refused at once
    let reply = accepted(&bench, "gil", body).await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert_eq!(reply.json()["code"], "window_has_gaps");
    assert!(reply.json()["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty()));

    // the copy of segment 3 was late, not bad
    session.write(3..7);
    let path = format!("/clips/{}/retry", clip["id"].as_str().unwrap());
    assert_eq!(bench.ask("fred", "POST", &path, None).await.json()["code"], "not_found");
    let reply = bench.ask("gil", "POST", &path, None).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.json());
    assert_eq!(reply.json()["gaps"], json!([]));
    assert_eq!(reply.json()["id"], clip["id"]);
    assert_eq!(bench.ask("gil", "POST", &path, None).await.json()["code"], "clip_not_ready");
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

pub async fn repeats_of_a_capture_get_the_same_clip(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("hal", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let body = session.window(2, 6);
    let key = [("idempotency-key", "press-1")];
    let asked = (0..5).map(|_| bench.ask_with("hal", "POST", "/capture", Some(body.clone()), &key));
    let replies = futures::future::join_all(asked).await;
    let first = replies[0].json()["id"].clone();
    for reply in &replies {
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.json());
        assert_eq!(reply.json()["id"], first);
    }
    let repeated = replies.iter().filter(|reply| reply.header("idempotency-replayed") == "true");
    assert_eq!(repeated.count(), 4);
    let listed = bench.ask("hal", "GET", "/my-clips", None).await.json();
    assert_eq!(listed["total"], 1);

    let other = bench.ask_with("hal", "POST", "/capture", Some(session.window(2, 7)), &key).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.json()["code"], "idempotency_mismatch");
    // a refusal is not kept: the key is free for the corrected request
    let key = [("idempotency-key", "press-2")];
    let refused = bench.ask_with("hal", "POST", "/capture", Some(session.window(-90, -80)), &key);
    assert_eq!(refused.await.json()["code"], "no_segments_in_range");
    let taken = bench.ask_with("hal", "POST", "/capture", Some(session.window(4, 6)), &key).await;
    assert_eq!(taken.status, StatusCode::CREATED);
    let bad = [("idempotency-key", "two words")];
    let refused = bench.ask_with("hal", "POST", "/capture", Some(body), &bad).await;
    assert_eq!(refused.json()["code"], "validation_failed");
    bench.close().await;
}

pub async fn a_lease_that_ran_out_is_taken_over_and_its_old_owner_publishes_nothing(
    mut bench: Bench,
) {
    let session = bench.session("ida", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let clip = accepted(&bench, "ida", session.window(2, 6)).await.json();
    let mut leased = work::lease(&bench.deps, 10).await.unwrap();
    let old = leased.pop().expect("the job is due");
    assert!(leased.is_empty() && work::lease(&bench.deps, 10).await.unwrap().is_empty());
    bench.clock.advance_micros(31_000_000);
    let new = work::lease(&bench.deps, 10).await.unwrap().pop().expect("taken over");
    assert!(!work::renew(&bench.deps, &old).await.unwrap());

    let cancel = CancellationToken::new();
    let workers = bench.deps.places.get(&bench.deps.config);
    let place = || async { Place::take(&workers).await.unwrap() };
    // the old owner does not know yet, and gets as far as publishing
    render::render(&bench.deps, &old, place().await, &cancel).await.unwrap();
    let files = files(&bench, "ida", &clip);
    assert!(!files.video.exists() && !files.record.exists());
    let id = ClipId::new(clip["id"].as_str().unwrap());
    let row = clip::load(bench.deps.db.conn(), &id).await.unwrap();
    assert_eq!(row.status.as_str(), "processing");
    render::render(&bench.deps, &new, place().await, &cancel).await.unwrap();
    assert_eq!(settled(&bench, &clip["id"]).await["status"], "ready");
    assert_eq!(decoded_frames(&files.video), 120);
    // finishing again is harmless
    render::render(&bench.deps, &new, place().await, &cancel).await.unwrap();
    bench.assert_accounts_are_true().await;
    assert_eq!(bench.work_files(), 0);
    bench.run_jobs();
    bench.close().await;
}

pub async fn deleting_a_clip_returns_its_bytes_and_leaves_no_file(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("jim", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let reply = bench.ask("jim", "POST", "/capture", Some(session.window(2, 6))).await;
    let clip = reply.json();
    assert_eq!(reply.status, StatusCode::CREATED, "{clip:#}");
    let (id, files) = (clip["id"].as_str().unwrap(), files(&bench, "jim", &clip));
    let path = format!("/clips/{id}");

    let change = json!({ "title": "../../etc/\"passwd\"", "visibility": "public" });
    let reply = bench.ask("jim", "PATCH", &path, Some(change)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.json());
    let record = std::fs::read(&files.record).unwrap();
    let record = Record::parse(&record, &bench.deps.instance).unwrap();
    assert_eq!(record.title, "../../etc/\"passwd\"");
    for bad in [json!({"title": "a\nb"}), json!({"title": "x".repeat(201)}), json!({"size": 1})] {
        let reply = bench.ask("jim", "PATCH", &path, Some(bad)).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(bench.ask("kim", "PATCH", &path, Some(json!({}))).await.json()["code"], "not_owner");
    assert_eq!(bench.ask("kim", "DELETE", &path, None).await.json()["code"], "not_owner");

    let size = clip["sizeBytes"].as_i64().unwrap();
    let reply = bench.ask("jim", "DELETE", &path, None).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.json()["freedBytes"], size);
    assert_eq!(reply.json()["remainingQuotaBytes"], 5_i64 << 30);
    for file in [&files.video, &files.record, &files.poster, &files.tombstone] {
        assert!(!file.exists(), "{}", file.display());
    }
    let quota = bench.ask("jim", "GET", "/me/quota", None).await.json();
    assert_eq!((quota["usedBytes"].as_i64(), quota["clipsCount"].as_i64()), (Some(0), Some(0)));
    assert_eq!(bench.ask("jim", "DELETE", &path, None).await.status, StatusCode::NOT_FOUND);

    // a manager of the community may delete what is not his, and he need not be able to see it
    let reply = bench.ask("jim", "POST", "/capture", Some(session.window(4, 6))).await;
    let path = format!("/clips/{}", reply.json()["id"].as_str().unwrap());
    let bearer = format!("Bearer {}", bench.token_as("mia", Some("admin")));
    let auth = [("authorization", bearer.as_str())];
    assert_eq!(bench.raw("GET", &path, None, &auth).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.raw("DELETE", &path, None, &auth).await.status, StatusCode::OK);
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

pub async fn files_are_sent_in_ranges_by_token_and_by_link(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("lea", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let mut body = session.window(2, 6);
    body["title"] = json!("Größe \"<script>\u{202e}\\/; x=y");
    let reply = bench.ask("lea", "POST", "/capture", Some(body)).await;
    let clip = reply.json();
    assert_eq!(reply.status, StatusCode::CREATED, "{clip:#}");
    let bytes = std::fs::read(files(&bench, "lea", &clip).video).unwrap();
    let path = format!("/clips/{}/file", clip["id"].as_str().unwrap());

    let whole = bench.ask("lea", "GET", &path, None).await;
    assert_eq!((whole.status, whole.bytes.as_ref()), (StatusCode::OK, bytes.as_slice()));
    assert_eq!(whole.header("content-type"), "video/mp4");
    assert!(whole.header("content-disposition").starts_with("attachment; filename=\"Gr__e "));
    let tag = whole.header("etag").to_owned();
    let head = bench.ask("lea", "HEAD", &path, None).await;
    assert_eq!(head.header("content-length"), bytes.len().to_string());
    assert!(head.bytes.is_empty());
    let ask =
        async |headers: &[(&str, &str)]| bench.ask_with("lea", "GET", &path, None, headers).await;
    let part = ask(&[("range", "bytes=100-199")]).await;
    assert_eq!((part.status, part.bytes.as_ref()), (StatusCode::PARTIAL_CONTENT, &bytes[100..200]));
    assert_eq!(part.header("content-range"), format!("bytes 100-199/{}", bytes.len()));
    let part = ask(&[("range", "bytes=-10"), ("if-range", &tag)]).await;
    assert_eq!(part.bytes.as_ref(), &bytes[bytes.len() - 10..]);
    assert_eq!(
        ask(&[("range", "bytes=0-9"), ("if-range", "\"old\"")]).await.status,
        StatusCode::OK
    );
    assert_eq!(ask(&[("range", "bytes=0-1,5-6")]).await.status, StatusCode::OK);
    let beyond = ask(&[("range", "bytes=999999999-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", bytes.len()));
    assert_eq!(beyond.json()["code"], "range_not_satisfiable");
    assert_eq!(ask(&[("if-none-match", &tag)]).await.status, StatusCode::NOT_MODIFIED);

    let link = clip["downloadUrl"].as_str().unwrap();
    let by_link = bench.raw("GET", link, None, &[]).await;
    assert_eq!((by_link.status, by_link.bytes.as_ref()), (StatusCode::OK, bytes.as_slice()));
    let poster = bench.raw("GET", clip["thumbnailUrl"].as_str().unwrap(), None, &[]).await;
    assert_eq!(poster.header("content-type"), "image/jpeg");
    assert!(poster.bytes.starts_with(&[0xff, 0xd8]));
    assert_eq!(bench.raw("GET", &path, None, &[]).await.status, StatusCode::UNAUTHORIZED);
    let forged = link.replace("&s=", "&s=A");
    assert_eq!(bench.raw("GET", &forged, None, &[]).await.status, StatusCode::UNAUTHORIZED);
    // narrowing voids links made before
    for visibility in ["public", "private"] {
        let change = json!({ "visibility": visibility });
        let clip_path = path.trim_end_matches("/file");
        assert_eq!(bench.ask("lea", "PATCH", clip_path, Some(change)).await.status, StatusCode::OK);
    }
    assert_eq!(bench.raw("GET", link, None, &[]).await.json()["reason"], "bad_link");
    bench.clock.advance_micros(2 * 3600 * 1_000_000);
    let old = bench.ask("lea", "GET", path.trim_end_matches("/file"), None).await.json();
    bench.clock.advance_micros(2 * 3600 * 1_000_000);
    let expired = bench.raw("GET", old["downloadUrl"].as_str().unwrap(), None, &[]).await;
    assert_eq!(expired.json()["reason"], "link_expired");
    bench.close().await;
}

pub async fn who_may_see_a_clip_follows_its_visibility(mut bench: Bench) {
    bench.run_jobs();
    let session = bench.session("ned", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let clip = bench.ask("ned", "POST", "/capture", Some(session.window(2, 6))).await.json();
    let path = format!("/clips/{}", clip["id"].as_str().unwrap());
    let stranger = format!("Bearer {}", bench.token_as("oz", None));
    let stranger = [("authorization", stranger.as_str())];
    for (visibility, member, other) in [
        ("private", 404, 404),
        ("unlisted", 404, 404),
        ("community", 200, 404),
        ("public", 200, 200),
    ] {
        let change = json!({ "visibility": visibility });
        assert_eq!(bench.ask("ned", "PATCH", &path, Some(change)).await.status, StatusCode::OK);
        assert_eq!(bench.ask("pam", "GET", &path, None).await.status.as_u16(), member);
        assert_eq!(bench.raw("GET", &path, None, &stranger).await.status.as_u16(), other);
        let listed = bench.ask("pam", "GET", "/community/guild/clips", None).await.json();
        assert_eq!(listed["total"], u64::from(member == 200), "{visibility}");
        let listed = bench.raw("GET", "/users/ned/clips", None, &stranger).await.json();
        assert_eq!(listed["total"], u64::from(other == 200), "{visibility}");
    }
    let denied = bench.raw("GET", "/community/guild/clips", None, &stranger).await;
    assert_eq!(denied.json()["code"], "not_found");
    // a link made for a member by his token works for him as long as he is one
    let change = json!({ "visibility": "community" });
    bench.ask("ned", "PATCH", &path, Some(change)).await;
    let seen = bench.ask("pam", "GET", &path, None).await.json();
    let link = seen["downloadUrl"].as_str().unwrap();
    assert_eq!(bench.raw("GET", link, None, &[]).await.status, StatusCode::OK);
    let tx = bench.deps.db.begin().await.unwrap();
    let (guild, pam) = (livekit_replay::domain::id::CommunityId::new("guild"), UserId::new("pam"));
    let later = bench.now().plus_seconds(1);
    livekit_replay::store::member::remove(&tx, &guild, &pam, later).await.unwrap();
    livekit_replay::store::commit(tx).await.unwrap();
    assert_eq!(bench.raw("GET", link, None, &[]).await.status, StatusCode::NOT_FOUND);
    // sessions and clips of others do not exist for who may not see them
    let body = session.window(2, 6);
    assert_eq!(bench.ask("pam", "POST", "/capture", Some(body)).await.json()["code"], "not_found");
    let body = json!({ "sessionId": SessionId::generate(), "durationSeconds": 5 });
    assert_eq!(bench.ask("ned", "POST", "/capture", Some(body)).await.json()["code"], "not_found");
    bench.close().await;
}

/// What was accepted is made when the store is back, however the attempts in between failed.
pub async fn a_capture_waits_for_a_store_that_is_away(mut bench: Bench) {
    let session = bench.session("zed", 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let made = accepted(&bench, "zed", session.window(2, 6)).await.json();
    let path = format!("/clips/{}", made["clipId"].as_str().unwrap());
    drop(session);
    let store = bench.deps.config.storage.clips.clone();
    let away = store.with_extension("away");
    std::fs::rename(&store, &away).unwrap();
    // what an unmounted file system leaves
    std::fs::create_dir(&store).unwrap();
    bench.run_jobs();
    let page = Page { limit: 9, offset: 0 };
    let hindered = async {
        loop {
            let (jobs, _) = job::list(bench.deps.db.conn(), None, page).await.unwrap();
            match jobs.into_iter().find(|job| job.last_error.is_some()) {
                Some(job) => return job,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let waiting = tokio::time::timeout(Duration::from_secs(60), hindered).await.unwrap();
    assert!(waiting.last_error.as_deref().unwrap().contains("marker"), "{waiting:?}");
    assert_eq!(waiting.attempts, 0, "nothing counts");
    assert_eq!(bench.ask("zed", "GET", &path, None).await.json()["status"], "processing");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    let id = ClipId::new(made["clipId"].as_str().unwrap());
    let done = capture::settled(&bench.deps, &id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(done.unwrap().status.as_str(), "ready");
    bench.assert_accounts_are_true().await;
    bench.close().await;
}
