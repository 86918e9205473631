//! HLS of sessions and of clips in the making.

use std::{collections::BTreeMap, time::Duration};

use axum::http::StatusCode;
use livekit_replay::{
    domain::id::ClipId,
    flow::{capture, cleanup},
};
use m3u8_rs::{MediaPlaylist, MediaPlaylistType};
use serde_json::json;

use crate::{
    bench::{Bench, Reply},
    material::Scratch,
    studio::{self, PICTURES},
};

/// Asks without any token.
async fn open(bench: &Bench, address: &str) -> Reply {
    bench.raw("GET", address, None, &[]).await
}

/// The playlist behind an address, and its text.
async fn playlist(bench: &Bench, address: &str) -> (MediaPlaylist, String) {
    let reply = open(bench, address).await;
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{text}");
    assert_eq!(reply.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(reply.header("cache-control"), "private, no-store");
    (m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap(), text)
}

/// Where a relative address of a playlist leads.
fn resolved(playlist: &str, uri: &str) -> String {
    let base = reqwest::Url::parse("http://x").unwrap().join(playlist).unwrap();
    let full = base.join(uri).unwrap();
    format!("{}?{}", full.path(), full.query().unwrap())
}

fn file_name(uri: &str) -> &str {
    uri.split('?').next().unwrap().rsplit('/').next().unwrap()
}

async fn preview_url(bench: &Bench, user: &str, session: &str) -> String {
    let body = bench.ask(user, "GET", &format!("/sessions/{session}"), None).await.json();
    body["previewUrl"].as_str().unwrap_or_else(|| panic!("{body:#}")).to_owned()
}

pub async fn a_preview_plays_through_across_an_epoch_change(bench: Bench) {
    let session = bench.session("ann", 20).await;
    studio::write(&bench, &session, 1, 0..4).await;
    let address = preview_url(&bench, "ann", session.id.as_str()).await;
    let (live, text) = playlist(&bench, &address).await;
    assert_eq!((live.segments.len(), live.media_sequence, live.end_list), (4, 0, false), "{text}");

    // nine seconds in, a second without pictures: the next recording
    studio::next_epoch(&bench, &session, 2, 9).await;
    studio::write(&bench, &session, 2, 0..4).await;
    studio::end(&bench, &session, 2, 18).await;
    let (list, text) = playlist(&bench, &address).await;
    assert!(list.end_list, "{text}");
    assert_eq!((list.media_sequence, list.discontinuity_sequence), (0, 0));
    assert_eq!(list.target_duration, 2);
    let names: Vec<_> = list.segments.iter().map(|one| file_name(&one.uri)).collect();
    let expected = ["1-0.ts", "1-1.ts", "1-2.ts", "1-3.ts", "2-0.ts", "2-1.ts", "2-2.ts", "2-3.ts"];
    assert_eq!(names, expected);
    // what a player was told before is told again, to the letter
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let before = lines(&text);
    for line in playlist(&bench, &address).await.1.lines() {
        assert!(before.contains(&line.to_owned()), "{line}");
    }
    let scratch = Scratch::new();
    for (at, segment) in list.segments.iter().enumerate() {
        assert_eq!(segment.discontinuity, at == 4, "{text}");
        assert!((segment.duration - 2.0).abs() < 0.001);
        let seconds = if at < 4 { at * 2 } else { 9 + (at - 4) * 2 };
        let shown = session.began.plus_seconds(i64::try_from(seconds).unwrap());
        let told = segment.program_date_time.unwrap().timestamp_micros();
        assert_eq!(told, shown.as_micros(), "{text}");
        let bytes = open(&bench, &resolved(&address, &segment.uri)).await;
        assert_eq!(bytes.status, StatusCode::OK);
        assert_eq!(bytes.header("content-type"), "video/mp2t");
        let file = studio::file_of(&scratch.0, file_name(&segment.uri), &bytes.bytes);
        assert_eq!(studio::played(file).await, PICTURES);
    }
    // and as a player does it: one address, everything behind it
    let server = studio::serve(&bench).await;
    assert_eq!(studio::played(format!("http://{server}{address}")).await, 8 * PICTURES);
    bench.close().await;
}

pub async fn a_preview_slides_while_cleanup_runs_and_no_number_changes(bench: Bench) {
    let bench = studio::with_config(bench, |config| {
        config.buffer.length = Duration::from_secs(6);
        config.buffer.cleanup = Duration::from_secs(8);
    });
    studio::mark_stores(&bench);
    let session = bench.session("bob", 2).await;
    let address = preview_url(&bench, "bob", session.id.as_str()).await;
    let (empty, _) = playlist(&bench, &address).await;
    assert!(empty.segments.is_empty() && !empty.end_list);
    let mut numbers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let (mut sequence, mut gone) = (0, Vec::new());
    for round in 0..8 {
        let (epoch, number) = (1 + round / 4, u64::try_from(round % 4).unwrap());
        if round == 4 {
            studio::next_epoch(&bench, &session, 2, 8).await;
        }
        studio::write(&bench, &session, epoch, number..number + 1).await;
        let (list, text) = playlist(&bench, &address).await;
        assert!(list.media_sequence >= sequence, "{text}");
        sequence = list.media_sequence;
        let mut run = list.discontinuity_sequence;
        for (at, segment) in list.segments.iter().enumerate() {
            run += u64::from(segment.discontinuity);
            let now = (sequence + at as u64, run);
            let known = numbers.entry(file_name(&segment.uri).to_owned()).or_insert(now);
            assert_eq!(*known, now, "{text}");
            let reply = open(&bench, &resolved(&address, &segment.uri)).await;
            assert_eq!(reply.status, StatusCode::OK, "{text}");
        }
        gone.push(list.segments.first().map(|one| resolved(&address, &one.uri)).unwrap());
        assert!(list.segments.len() <= 4, "{text}");
        bench.clock.advance_micros(2_000_000);
        cleanup::run(&bench.deps, Duration::from_secs(1), false).await.unwrap();
    }
    assert_eq!(numbers.len(), 8);
    assert_eq!(numbers["2-3.ts"], (7, 1));
    assert!(sequence >= 4);
    // what cleanup took is not there any more, by a link that is still good
    let first = open(&bench, &gone[0]).await;
    assert_eq!(
        (first.status, first.json()["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not_found"))
    );
    bench.close().await;
}

pub async fn a_link_opens_what_it_was_made_for_and_nothing_else(bench: Bench) {
    let session = bench.session("cat", 20).await;
    studio::write(&bench, &session, 1, 0..3).await;
    let path = format!("/sessions/{}", session.id);
    let address = preview_url(&bench, "cat", session.id.as_str()).await;
    let (list, _) = playlist(&bench, &address).await;
    let segment = resolved(&address, &list.segments[1].uri);
    let refused = |reply: Reply| {
        let body = reply.json();
        (reply.status.as_u16(), body["reason"].as_str().unwrap_or_default().to_owned())
    };
    let bad = (401, "bad_link".to_owned());
    // another segment, a playlist, a clip by the same signature
    let query = segment.split_once('?').unwrap().1;
    let playlist_query = address.split_once('?').unwrap().1;
    for (path, query) in [
        (format!("{path}/segments/1-2.ts"), query),
        (format!("{path}/preview.m3u8"), query),
        (format!("{path}/segments/1-1.ts"), playlist_query),
    ] {
        assert_eq!(refused(open(&bench, &format!("{path}?{query}")).await), bad, "{path}");
    }
    let other = bench.session("eve", 20).await;
    let theirs = format!("/sessions/{}/preview.m3u8", other.id);
    assert_eq!(refused(open(&bench, &format!("{theirs}?{playlist_query}")).await), bad);
    let forged = address.replace("&s=", "&s=A");
    assert_eq!(refused(open(&bench, &forged).await), bad);
    // a link that is bad is not rescued by a good token
    assert_eq!(refused(bench.ask("cat", "GET", &forged, None).await), bad);
    // no link and no token
    assert_eq!(open(&bench, &format!("{path}/preview.m3u8")).await.status.as_u16(), 401);
    // tokens: the owner's, a stranger's, a manager's
    for name in ["preview.m3u8", "segments/1-1.ts"] {
        let at = format!("{path}/{name}");
        assert_eq!(bench.ask("cat", "GET", &at, None).await.status, StatusCode::OK);
        let stranger = bench.ask("eve", "GET", &at, None).await;
        assert_eq!(
            (stranger.status.as_u16(), stranger.json()["code"].clone()),
            (404, json!("not_found"))
        );
        let bearer = format!("Bearer {}", bench.token_as("boss", Some("admin")));
        let manager = bench.raw("GET", &at, None, &[("authorization", &bearer)]).await;
        assert_eq!(
            (manager.status.as_u16(), manager.json()["code"].clone()),
            (403, json!("not_owner"))
        );
    }
    assert!(bench.ask("cat", "GET", &path, None).await.json()["previewUrl"].is_string());
    let bearer = format!("Bearer {}", bench.token_as("boss", Some("admin")));
    let seen = bench.raw("GET", &path, None, &[("authorization", &bearer)]).await;
    assert_eq!(seen.status, StatusCode::OK);
    assert!(seen.json()["previewUrl"].is_null());
    for name in [
        "1-99.ts",
        "9-0.ts",
        "01-1.ts",
        "..%2f1-1.ts",
        "1-1.ts%2f..",
        "99999999999-1.ts",
        "1-99999999999999999999.ts",
        "index.m3u8",
        "%E2%82%AC.ts",
    ] {
        let reply = bench.ask("cat", "GET", &format!("{path}/segments/{name}"), None).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{name}");
    }
    for id in ["nobody", "..%2f..%2fetc", "%27%20or%201=1--", "a".repeat(5000).as_str()] {
        let reply = bench.ask("cat", "GET", &format!("/sessions/{id}/preview.m3u8"), None).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{id}");
    }

    // parts of a segment
    let whole = open(&bench, &segment).await.bytes;
    let part = bench.raw("GET", &segment, None, &[("range", "bytes=188-375")]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.header("content-range"), format!("bytes 188-375/{}", whole.len()));
    assert_eq!(part.bytes, whole.slice(188..376));
    let tag = part.header("etag").to_owned();
    let same = bench.raw("GET", &segment, None, &[("if-none-match", &tag)]).await;
    assert_eq!((same.status, same.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    let range = format!("bytes={}-", whole.len());
    let outside = bench.raw("GET", &segment, None, &[("range", &range)]).await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let head = bench.raw("HEAD", &segment, None, &[]).await;
    assert_eq!(
        (head.header("content-length"), head.bytes.len()),
        (whole.len().to_string().as_str(), 0)
    );

    // a link planted where a segment was is not followed
    let file = session.directory.join("seg_00001.ts");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert_eq!(open(&bench, &segment).await.status, StatusCode::NOT_FOUND);

    // and all of it ends
    bench.clock.advance_micros(2 * 3_600_000_000);
    let expired = (401, "link_expired".to_owned());
    assert_eq!(refused(open(&bench, &address).await), expired);
    assert_eq!(refused(open(&bench, &segment).await), expired);
    // discarded: gone for its owner too
    bench.ask("cat", "DELETE", &path, None).await;
    let gone = bench.ask("cat", "GET", &format!("{path}/segments/1-0.ts"), None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let gone = bench.ask("cat", "GET", &format!("{path}/preview.m3u8"), None).await;
    assert_eq!(gone.json()["code"], "no_segments_in_range");
    bench.close().await;
}

pub async fn a_clip_can_be_watched_while_it_is_being_made(mut bench: Bench) {
    let session = bench.session("dan", 10).await;
    studio::write(&bench, &session, 1, 0..4).await;
    // from the third second to one that is not recorded yet
    let asked = [("prefer", "respond-async")];
    let clip =
        bench.ask_with("dan", "POST", "/capture", Some(session.window(3, 11)), &asked).await.json();
    assert_eq!(clip["status"], "processing", "{clip:#}");
    let address = clip["previewUrl"].as_str().unwrap();
    let names = |list: &MediaPlaylist| -> Vec<String> {
        list.segments.iter().map(|one| file_name(&one.uri).to_owned()).collect()
    };
    let (list, text) = playlist(&bench, address).await;
    assert_eq!(list.playlist_type, Some(MediaPlaylistType::Event), "{text}");
    assert_eq!(
        (names(&list), list.end_list),
        (vec!["1-1.ts".into(), "1-2.ts".into(), "1-3.ts".into()], false)
    );
    assert_eq!(list.media_sequence, 0);
    studio::write(&bench, &session, 1, 4..8).await;
    let (list, text) = playlist(&bench, address).await;
    assert_eq!(names(&list), ["1-1.ts", "1-2.ts", "1-3.ts", "1-4.ts", "1-5.ts"], "{text}");
    assert!(list.end_list, "{text}");
    let server = studio::serve(&bench).await;
    assert_eq!(studio::played(format!("http://{server}{address}")).await, 5 * PICTURES);
    // not for others
    let id = clip["id"].as_str().unwrap();
    let at = format!("/clips/{id}/preview.m3u8");
    assert_eq!(bench.ask("eve", "GET", &at, None).await.status, StatusCode::NOT_FOUND);
    let by_link = address.split_once('?').unwrap().1;
    let other = format!("/sessions/{}/preview.m3u8?{by_link}", session.id);
    assert_eq!(open(&bench, &other).await.status, StatusCode::UNAUTHORIZED);

    // the buffer is discarded: what the clip has pinned can still be watched, the rest cannot
    bench.ask("dan", "DELETE", &format!("/sessions/{}", session.id), None).await;
    assert_eq!(
        open(&bench, &resolved(address, &list.segments[0].uri)).await.status,
        StatusCode::OK
    );
    let token =
        bench.ask("dan", "GET", &format!("/sessions/{}/segments/1-7.ts", session.id), None).await;
    assert_eq!(token.status, StatusCode::NOT_FOUND);
    bench.run_jobs();
    let done = capture::settled(&bench.deps, &ClipId::new(id), Duration::from_secs(60)).await;
    assert_eq!(done.unwrap().unwrap().status.as_str(), "ready");
    let ready = bench.ask("dan", "GET", &format!("/clips/{id}"), None).await.json();
    assert!(ready["previewUrl"].is_null());
    bench.close().await;
}

pub async fn links_end_with_what_they_were_made_for(bench: Bench) {
    let session = bench.session("fay", 20).await;
    studio::write(&bench, &session, 1, 0..4).await;
    let address = preview_url(&bench, "fay", session.id.as_str()).await;
    let (list, _) = playlist(&bench, &address).await;
    let segment = resolved(&address, &list.segments[1].uri);
    let asked = [("prefer", "respond-async")];
    let mut window = session.window(2, 6);
    window["visibility"] = json!("public");
    let clip = bench.ask_with("fay", "POST", "/capture", Some(window), &asked).await.json();
    let of_clip = clip["previewUrl"].as_str().unwrap();
    let (list, _) = playlist(&bench, of_clip).await;
    let pinned = resolved(of_clip, &list.segments[0].uri);
    for good in [&segment, &pinned] {
        assert_eq!(open(&bench, good).await.status, StatusCode::OK);
    }
    // of another clip, of no clip
    let id = clip["id"].as_str().unwrap();
    let without = pinned.replace(&format!("c={id}&"), "");
    assert_eq!(open(&bench, &without).await.status, StatusCode::UNAUTHORIZED);
    let with = segment.replace('?', &format!("?c={id}&"));
    assert_eq!(open(&bench, &with).await.status, StatusCode::UNAUTHORIZED);
    let other = pinned.replace(id, "nothing");
    assert_eq!(open(&bench, &other).await.status, StatusCode::NOT_FOUND);

    // the buffer is discarded: all that was handed out to look at it ends, though the clip still holds the segment
    let path = format!("/sessions/{}", session.id);
    assert_eq!(bench.ask("fay", "DELETE", &path, None).await.status, StatusCode::OK);
    for gone in [&address, &segment] {
        let reply = open(&bench, gone).await;
        let body = reply.json();
        assert_eq!((reply.status.as_u16(), body["reason"].as_str()), (401, Some("bad_link")));
    }
    // the clip's links are the clip's
    assert_eq!(open(&bench, &pinned).await.status, StatusCode::OK);
    let narrowed = json!({ "visibility": "private" });
    let reply = bench.ask("fay", "PATCH", &format!("/clips/{id}"), Some(narrowed)).await;
    assert_eq!(reply.status, StatusCode::OK);
    for gone in [of_clip, pinned.as_str()] {
        assert_eq!(open(&bench, gone).await.status, StatusCode::UNAUTHORIZED, "{gone}");
    }
    bench.close().await;
}
