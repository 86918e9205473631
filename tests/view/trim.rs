//! Clips cut out of clips.

use std::sync::Arc;

use axum::http::StatusCode;
use livekit_replay::{
    config::Muxer,
    domain::id::{ClipId, UserId},
    flow::{Deps, reap},
    store::quota,
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Reply},
    material, studio,
};

async fn ask(bench: &Bench, user: &str, clip: &Value, body: Value) -> Reply {
    let path = format!("/clips/{}/trim", clip["id"].as_str().unwrap());
    bench.ask_with(user, "POST", &path, Some(body), &[("prefer", "respond-async")]).await
}

async fn trimmed(bench: &Bench, user: &str, source: &Value, body: Value) -> Value {
    let reply = ask(bench, user, source, body).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{:#}", reply.json());
    studio::make_all(bench).await;
    let clip = studio::clip(bench, user, &reply.json()["id"]).await;
    assert_eq!(clip["status"], "ready", "{clip:#}");
    clip
}

fn numbers(bench: &Bench, user: &str, clip: &Value) -> Vec<i64> {
    material::watch(&studio::files(bench, user, clip).video, &[]).numbers()
}

pub async fn a_trim_shows_the_pictures_of_its_part_and_no_others(bench: Bench) {
    let session = bench.session("ann", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    for precision in ["keyframe", "exact"] {
        let mut window = session.window(2, 14);
        window["precision"] = json!(precision);
        window["title"] = json!("of it; \"100 %d\"");
        let source = studio::captured(&bench, "ann", window).await;
        assert_eq!(numbers(&bench, "ann", &source), (60..420).collect::<Vec<_>>());
        let sum = std::fs::read(studio::files(&bench, "ann", &source).video).unwrap();

        let part = json!({ "startSeconds": 3.0, "endSeconds": 7.0 });
        let clip = trimmed(&bench, "ann", &source, part).await;
        // exact unless said: from the fifth to the ninth second of the screen
        assert_eq!(numbers(&bench, "ann", &clip), (150..270).collect::<Vec<_>>(), "{clip:#}");
        let seen = material::watch(&studio::files(&bench, "ann", &clip).video, &[]);
        assert!(seen.worst_sync().abs() < 0.04, "{}", seen.worst_sync());
        assert_eq!(clip["startsAt"], json!(session.began.plus_seconds(5)), "{clip:#}");
        assert_eq!(clip["endsAt"], json!(session.began.plus_seconds(9)));
        assert_eq!(clip["requestedFrom"], clip["startsAt"]);
        assert_eq!(clip["precision"], "exact");
        assert_eq!(clip["sessionId"], source["sessionId"]);
        let again = format!("/clips/{}/retry", clip["id"].as_str().unwrap());
        assert_eq!(bench.ask("ann", "POST", &again, None).await.json()["code"], "clip_not_ready");
        assert!(!studio::files(&bench, "ann", &clip).source.exists(), "nothing is held of it");
        assert_eq!(clip["title"], source["title"]);
        assert_eq!(clip["visibility"], "private");
        assert_eq!((clip["prerollMs"].as_i64(), clip["shortfallMs"].as_i64()), (Some(0), Some(0)));
        assert!((clip["durationSeconds"].as_f64().unwrap() - 4.0).abs() < 0.034);

        // to the very end
        let end = source["durationSeconds"].clone();
        let clip =
            trimmed(&bench, "ann", &source, json!({ "startSeconds": 11.5, "endSeconds": end }))
                .await;
        assert_eq!(numbers(&bench, "ann", &clip), (405..420).collect::<Vec<_>>(), "{clip:#}");
        if precision == "keyframe" {
            // copied: from the key frame at the fourth second on
            let part = json!({ "startSeconds": 3, "endSeconds": 7, "precision": "keyframe" });
            let clip = trimmed(&bench, "ann", &source, part).await;
            assert_eq!(numbers(&bench, "ann", &clip), (120..270).collect::<Vec<_>>(), "{clip:#}");
            assert_eq!(clip["startsAt"], json!(session.began.plus_seconds(4)));
            assert_eq!(clip["prerollMs"], 1000);
            // and a trim of a trim
            let part = json!({ "startSeconds": 1, "endSeconds": 2 });
            let again = trimmed(&bench, "ann", &clip, part).await;
            assert_eq!(numbers(&bench, "ann", &again), (150..180).collect::<Vec<_>>());
            assert_eq!(again["startsAt"], json!(session.began.plus_seconds(5)));
        }
        assert_eq!(std::fs::read(studio::files(&bench, "ann", &source).video).unwrap(), sum);
    }
    assert_eq!(bench.work_files(), 0);
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

pub async fn a_trim_across_a_gap_knows_when_it_was(bench: Bench) {
    let session = bench.session("bob", 20).await;
    studio::write(&bench, &session, 1, 0..4).await;
    studio::next_epoch(&bench, &session, 2, 9).await;
    studio::write(&bench, &session, 2, 0..4).await;
    studio::end(&bench, &session, 2, 18).await;
    let source = studio::captured(&bench, "bob", session.window(4, 13)).await;
    assert_eq!(source["gaps"].as_array().map(Vec::len), Some(1), "{source:#}");
    let clip = trimmed(&bench, "bob", &source, json!({ "startSeconds": 3, "endSeconds": 5 })).await;
    // the eighth second of the first recording, and the first of the second
    let expected: Vec<_> = (210..240).chain(0..30).collect();
    assert_eq!(numbers(&bench, "bob", &clip), expected);
    assert_eq!(clip["startsAt"], json!(session.began.plus_seconds(7)), "{clip:#}");
    assert_eq!(clip["endsAt"], json!(session.began.plus_seconds(10)));
    assert_eq!(clip["gaps"], source["gaps"]);
    let clip = trimmed(&bench, "bob", &source, json!({ "startSeconds": 4, "endSeconds": 6 })).await;
    assert_eq!(numbers(&bench, "bob", &clip), (0..60).collect::<Vec<_>>());
    assert_eq!(clip["startsAt"], json!(session.began.plus_seconds(9)), "{clip:#}");
    assert_eq!(clip["gaps"], json!([]));
    bench.close().await;
}

pub async fn a_trim_outlives_the_clip_it_is_cut_out_of(bench: Bench) {
    let session = bench.session("cat", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    let source = studio::captured(&bench, "cat", session.window(2, 10)).await;
    let part = json!({ "startSeconds": 1, "endSeconds": 3 });
    let accepted = ask(&bench, "cat", &source, part).await.json();
    assert_eq!(accepted["status"], "processing", "{accepted:#}");
    assert!(accepted["previewUrl"].is_null());
    assert!(bench.account("cat").await.reserved_bytes > 1 << 20);
    let path = format!("/clips/{}", source["id"].as_str().unwrap());
    assert_eq!(bench.ask("cat", "DELETE", &path, None).await.status, StatusCode::OK);
    assert!(!studio::files(&bench, "cat", &source).video.exists());
    assert!(studio::files(&bench, "cat", &accepted).source.exists());
    studio::make_all(&bench).await;
    let clip = studio::clip(&bench, "cat", &accepted["id"]).await;
    assert_eq!(clip["status"], "ready", "{clip:#}");
    assert_eq!(numbers(&bench, "cat", &clip), (90..150).collect::<Vec<_>>());
    assert!(!studio::files(&bench, "cat", &accepted).source.exists());

    // cancelled before it was made: nothing of it stays
    let again =
        ask(&bench, "cat", &clip, json!({ "startSeconds": 0, "endSeconds": 1 })).await.json();
    let path = format!("/clips/{}", again["id"].as_str().unwrap());
    assert_eq!(bench.ask("cat", "DELETE", &path, None).await.status, StatusCode::OK);
    studio::make_all(&bench).await;
    assert!(!studio::files(&bench, "cat", &again).source.exists());
    let account = bench.account("cat").await;
    assert_eq!(
        (account.used_bytes, account.reserved_bytes),
        (clip["sizeBytes"].as_i64().unwrap(), 0)
    );
    bench.assert_accounts_are_true().await;

    // one that fails is made by another attempt, as long as its source is there
    let failing =
        ask(&bench, "cat", &clip, json!({ "startSeconds": 0, "endSeconds": 1 })).await.json();
    let held = studio::files(&bench, "cat", &failing).source;
    std::fs::remove_file(&held).unwrap();
    std::fs::write(&held, b"no video").unwrap();
    studio::make_all(&bench).await;
    let failed = studio::clip(&bench, "cat", &failing["id"]).await;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("ffmpeg_failed"))
    );
    let path = format!("/clips/{}/retry", failing["id"].as_str().unwrap());
    let asked = [("prefer", "respond-async")];
    let retried = bench.ask_with("cat", "POST", &path, None, &asked).await;
    assert_eq!(retried.status, StatusCode::ACCEPTED, "{:#}", retried.json());
    studio::make_all(&bench).await;
    let made = studio::clip(&bench, "cat", &failing["id"]).await;
    assert_eq!(numbers(&bench, "cat", &made), (90..120).collect::<Vec<_>>());
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

pub async fn what_cannot_be_trimmed_is_refused_and_a_repeat_gets_the_same_clip(bench: Bench) {
    let session = bench.session("dan", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    let mut window = session.window(2, 10);
    window["visibility"] = json!("public");
    let source = studio::captured(&bench, "dan", window).await;
    let good = json!({ "startSeconds": 1, "endSeconds": 3 });
    let code = |reply: Reply| {
        (reply.status.as_u16(), reply.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    for (body, expected) in [
        (json!({ "startSeconds": 3, "endSeconds": 3 }), "window_invalid"),
        (json!({ "startSeconds": -1, "endSeconds": 3 }), "window_invalid"),
        (json!({ "startSeconds": 1, "endSeconds": 8.2 }), "window_invalid"),
        (json!({ "startSeconds": 1 }), "validation_failed"),
        (json!({ "startSeconds": 1, "endSeconds": 2, "title": "x" }), "validation_failed"),
        (json!({ "startSeconds": 1, "endSeconds": 2, "precision": "about" }), "validation_failed"),
    ] {
        assert_eq!(code(ask(&bench, "dan", &source, body).await), (422, expected.to_owned()));
    }
    // a public clip may be seen by anybody, and cut by its owner alone
    assert_eq!(
        code(ask(&bench, "eve", &source, good.clone()).await),
        (403, "not_owner".to_owned())
    );
    let unknown = json!({ "id": "nothing" });
    assert_eq!(
        code(ask(&bench, "dan", &unknown, good.clone()).await),
        (404, "not_found".to_owned())
    );
    let user = UserId::new("dan");
    let used = bench.account("dan").await.used_bytes;
    let db = bench.deps.db.conn();
    quota::set_quota(db, &user, used + (1 << 20), bench.now()).await.unwrap();
    assert_eq!(
        code(ask(&bench, "dan", &source, good.clone()).await),
        (507, "quota_exceeded".to_owned())
    );
    assert_eq!(bench.account("dan").await.reserved_bytes, 0);
    quota::set_quota(db, &user, 1 << 30, bench.now()).await.unwrap();
    // nothing of what was refused holds the source
    let directory = studio::files(&bench, "dan", &source).video.parent().unwrap().to_owned();
    let held = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(held.filter(|path| path.extension().unwrap() == "source").count(), 0);

    let path = format!("/clips/{}/trim", source["id"].as_str().unwrap());
    let headers = [("prefer", "respond-async"), ("idempotency-key", "one")];
    let first = bench.ask_with("dan", "POST", &path, Some(good.clone()), &headers).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let first = first.json();
    // not ready yet
    assert_eq!(
        code(ask(&bench, "dan", &first, good.clone()).await),
        (409, "clip_not_ready".to_owned())
    );
    let again = bench.ask_with("dan", "POST", &path, Some(good.clone()), &headers).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json()["id"], first["id"]);
    // the same key and body for another clip is another request
    let other = format!("/clips/{}/trim", first["id"].as_str().unwrap());
    let other = bench.ask_with("dan", "POST", &other, Some(good), &headers).await;
    assert_eq!(code(other), (422, "idempotency_mismatch".to_owned()));
    studio::make_all(&bench).await;
    let listed = bench.ask("dan", "GET", "/my-clips", None).await.json();
    assert_eq!(listed["total"], 2);
    bench.close().await;
}

/// A trim whose only attempt fails, while what it holds of its source is good.
async fn failed(bench: &Bench, user: &str, source: &Value) -> Value {
    let part = json!({ "startSeconds": 1, "endSeconds": 3 });
    let accepted = ask(bench, user, source, part).await.json();
    let held = studio::files(bench, user, &accepted).source;
    let aside = held.with_extension("aside");
    std::fs::rename(&held, &aside).unwrap();
    std::fs::write(&held, b"no video").unwrap();
    studio::make_all(bench).await;
    let clip = studio::clip(bench, user, &accepted["id"]).await;
    assert_eq!(clip["status"], "failed", "{clip:#}");
    std::fs::rename(&aside, &held).unwrap();
    clip
}

pub async fn a_failed_trim_is_made_from_what_it_held_of_a_source_that_is_gone(bench: Bench) {
    let session = bench.session("fay", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    let source = studio::captured(&bench, "fay", session.window(2, 10)).await;
    let first = failed(&bench, "fay", &source).await;
    let second = failed(&bench, "fay", &source).await;
    let path = format!("/clips/{}", source["id"].as_str().unwrap());
    assert_eq!(bench.ask("fay", "DELETE", &path, None).await.status, StatusCode::OK);
    let retry = async |clip: &Value| {
        let path = format!("/clips/{}/retry", clip["id"].as_str().unwrap());
        bench.ask_with("fay", "POST", &path, None, &[("prefer", "respond-async")]).await
    };
    let retried = retry(&first).await;
    assert_eq!(retried.status, StatusCode::ACCEPTED, "{:#}", retried.json());
    studio::make_all(&bench).await;
    let made = studio::clip(&bench, "fay", &first["id"]).await;
    assert_eq!(numbers(&bench, "fay", &made), (90..150).collect::<Vec<_>>());
    assert!(!studio::files(&bench, "fay", &first).source.exists());

    // as long as another attempt is promised, and no longer
    let held = studio::files(&bench, "fay", &second).source;
    let keep = i64::try_from(bench.deps.config.capture.failed_keep.as_micros()).unwrap();
    bench.clock.advance_micros(keep - 60_000_000);
    reap::run(&bench.deps, true, false).await.unwrap();
    assert!(held.exists());
    bench.clock.advance_micros(3_720_000_000);
    reap::run(&bench.deps, true, false).await.unwrap();
    assert!(!held.exists());
    let refused = retry(&second).await;
    assert_eq!(refused.json()["code"], "file_missing", "{:#}", refused.json());
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

pub async fn a_new_name_of_an_old_file_is_young(bench: Bench) {
    let session = bench.session("gus", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    let source = studio::captured(&bench, "gus", session.window(2, 10)).await;
    let video = studio::files(&bench, "gus", &source).video;
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    std::fs::File::options().write(true).open(&video).unwrap().set_modified(old).unwrap();
    // a trim that is about to be accepted: its row is not there yet
    let early = video.with_file_name(format!("{}.source", ClipId::generate()));
    std::fs::hard_link(&video, &early).unwrap();
    // whatever the clocks say: it is counted from when it was first seen
    bench.clock.advance_micros(2 * 3_600_000_000);
    for _ in 0..2 {
        let counts = reap::run(&bench.deps, true, false).await.unwrap();
        assert_eq!((counts.sources_released, counts.quarantined), (0, 0), "{counts:?}");
    }
    assert!(early.exists() && bench.deps.walks.is_due());
    // of a process that died before the row was there
    let patience = std::time::Duration::ZERO;
    let deps = Deps { walks: Arc::new(reap::Walks::with_patience(patience)), ..bench.deps.clone() };
    let dry = reap::run(&deps, true, true).await.unwrap();
    assert!(dry.sources_released == 1 && early.exists(), "{dry:?}");
    let counts = reap::run(&deps, true, false).await.unwrap();
    assert_eq!((counts.sources_released, counts.quarantined), (1, 0), "{counts:?}");
    assert!(!early.exists() && video.exists());
    for _ in 0..2 {
        reap::run(&deps, true, false).await.unwrap();
    }
    assert!(!deps.walks.is_due(), "nothing is waited for");
    bench.close().await;
}

/// Where the first sample behind a place in a file begins.
fn sample_after(video: &std::path::Path, place: usize) -> usize {
    let mut command = std::process::Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "packet=pos", "-of", "csv=p=0"]);
    let text = String::from_utf8(command.arg(video).output().unwrap().stdout).unwrap();
    let places = text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok());
    places.filter(|&at| at > place).min().unwrap()
}

pub async fn a_damaged_source_is_no_shorter_clip(bench: Bench) {
    let session = bench.session("hal", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    let mut window = session.window(2, 14);
    window["precision"] = json!("keyframe");
    let source = studio::captured(&bench, "hal", window).await;
    let video = studio::files(&bench, "hal", &source).video;
    let whole = std::fs::read(&video).unwrap();
    let middle = whole.len() / 2;
    // FFmpeg says nothing about a file that ends between two samples
    let end = sample_after(&video, middle);
    let mut holed = whole.clone();
    holed[middle..whole.len() * 2 / 3].fill(0);
    // key frames of the second half that no longer say so: their pieces cannot be read, those before them can
    let mut keyless = whole.clone();
    let is_key = |at: &usize| {
        let size = u32::from_be_bytes(whole[at - 4..*at].try_into().unwrap()) as usize;
        whole[*at] == 0x65 && whole[at + 1] & 0x80 != 0 && (100..whole.len() - at).contains(&size)
    };
    let keys: Vec<_> = (middle..whole.len() - 2).filter(is_key).collect();
    assert!(!keys.is_empty());
    keys.into_iter().for_each(|at| keyless[at] = 0x6c);
    let damaged = [("keyless", &keyless[..]), ("holed", &holed[..]), ("cut off", &whole[..end])];
    for (what, bytes) in damaged {
        for precision in ["keyframe", "exact"] {
            let part = json!({ "startSeconds": 1, "endSeconds": 11, "precision": precision });
            let reply = ask(&bench, "hal", &source, part).await;
            assert_eq!(reply.status, StatusCode::ACCEPTED, "{:#}", reply.json());
            // under all its names
            std::fs::write(&video, bytes).unwrap();
            studio::make_all(&bench).await;
            std::fs::write(&video, &whole).unwrap();
            let clip = studio::clip(&bench, "hal", &reply.json()["id"]).await;
            assert_eq!(clip["status"], "failed", "{what} {precision}: {clip:#}");
            assert_eq!(clip["error"]["code"], "ffmpeg_failed", "{what} {precision}");
        }
    }
    let part = json!({ "startSeconds": 1, "endSeconds": 11 });
    let clip = trimmed(&bench, "hal", &source, part).await;
    assert_eq!(numbers(&bench, "hal", &clip), (90..390).collect::<Vec<_>>());
    bench.close().await;
}

pub async fn the_native_muxer_copies_a_part_of_an_exact_clip(bench: Bench) {
    let bench = studio::with_config(bench, |config| config.capture.muxer = Muxer::Native);
    let session = bench.session("ida", 20).await;
    studio::write(&bench, &session, 1, 0..8).await;
    studio::end(&bench, &session, 1, 16).await;
    let source = studio::captured(&bench, "ida", session.window(3, 13)).await;
    assert_eq!(source["precision"], "exact");
    // over the encoded edge and on; then from a copied key frame on
    for (start, shown) in [(0.5, 90..270), (3.5, 180..270)] {
        let part = json!({ "startSeconds": start, "endSeconds": 6, "precision": "keyframe" });
        let clip = trimmed(&bench, "ida", &source, part).await;
        assert_eq!(numbers(&bench, "ida", &clip), shown.collect::<Vec<_>>(), "{clip:#}");
    }
    bench.close().await;
}
