//! Clips compared with their files: what is found, what is put right, and what is left alone.

use std::time::Duration;

use livekit_replay::{
    access::Caller,
    domain::id::ClipId,
    flow::{
        capture,
        clip_files::ClipFiles,
        reap,
        verify::{self, Checked, How},
    },
    store::clip,
};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::bench::{Bench, RECORDED};

const USER: &str = "zed";

fn root(bench: &Bench) -> Caller {
    Caller { roles: vec!["instance_admin".to_owned()], ..bench.caller("root") }
}

async fn check(bench: &Bench, repair: bool) -> Vec<(String, &'static str, bool)> {
    // a page smaller than the whole, so that pages are gone through
    let mut how = How { repair, bytes: true, after: None, limit: 2 };
    let (mut found, mut clips) = (Vec::new(), 0);
    loop {
        let checked: Checked = verify::verify(&bench.deps, &root(bench), &how).await.unwrap();
        assert!(checked.clips <= 2);
        clips += checked.clips;
        found.extend(checked.findings.into_iter().map(|finding| {
            (finding.clip_id.to_string(), finding.fault.as_str(), finding.repaired)
        }));
        let Some(next) = checked.next else {
            assert!(checked.store.is_some());
            assert!(clips <= 5);
            return found;
        };
        assert!(checked.store.is_none());
        how.after = Some(next);
    }
}

async fn clips(bench: &mut Bench, count: usize) -> Vec<String> {
    bench.run_jobs();
    let session = bench.session(USER, 20).await;
    session.write(0..RECORDED);
    session.end(RECORDED).await;
    let mut ids = Vec::new();
    for number in 0..count {
        let at = i64::try_from(number).unwrap();
        let mut body = json!({ "sessionId": session.id.as_str(), "gapPolicy": "skip" });
        let window = session.window(2 + at, 5 + at);
        for (name, value) in window.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = bench.ask(USER, "POST", "/capture", Some(body)).await;
        let clip = made.json();
        assert_eq!(clip["status"], "ready", "{clip:#}");
        ids.push(clip["clipId"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids
}

async fn files(bench: &Bench, id: &str) -> ClipFiles {
    let row = clip::load(bench.deps.db.conn(), &ClipId::new(id)).await.unwrap();
    ClipFiles::of(&bench.deps, &row.user_id, &row.id).unwrap()
}

async fn shown(bench: &Bench, id: &str) -> Value {
    bench.ask(USER, "GET", &format!("/clips/{id}"), None).await.json()
}

pub async fn every_fault_of_a_clip_is_found_and_put_right_where_nothing_is_lost(mut bench: Bench) {
    let ids = clips(&mut bench, 5).await;
    assert_eq!(check(&bench, false).await, []);
    let used = bench.account(USER).await.used_bytes;

    // a file that is gone, one that rotted, one cut short, two records: one gone, one about something else
    let (gone, rotten, short) = (files(&bench, &ids[0]).await, &ids[1], &ids[2]);
    let hidden = gone.video.with_extension("elsewhere");
    std::fs::rename(&gone.video, &hidden).unwrap();
    let rot = files(&bench, rotten).await.video;
    let mut bytes = std::fs::read(&rot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&rot, &bytes).unwrap();
    let cut = files(&bench, short).await.video;
    std::fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(1000).unwrap();
    let record = files(&bench, &ids[3]).await.record;
    std::fs::remove_file(&record).unwrap();
    let odd = files(&bench, &ids[4]).await.record;
    let text = std::fs::read_to_string(&odd).unwrap();
    std::fs::write(&odd, text.replace("\"private\"", "\"public\"")).unwrap();

    let told = |repaired: [bool; 5]| -> Vec<(String, &'static str, bool)> {
        let faults = [
            "file_missing",
            "checksum_differs",
            "size_differs",
            "record_missing",
            "record_differs",
        ];
        let all = ids.iter().cloned().zip(faults).zip(repaired);
        all.map(|((id, fault), repaired)| (id, fault, repaired)).collect()
    };
    assert_eq!(check(&bench, false).await, told([false; 5]));
    assert_eq!(shown(&bench, &ids[0]).await["status"], "ready", "nothing was changed");
    assert!(!record.exists());

    assert_eq!(check(&bench, true).await, told([true, false, false, true, true]));
    let lost = shown(&bench, &ids[0]).await;
    assert_eq!(
        (&lost["status"], &lost["error"]["code"]),
        (&json!("failed"), &json!("file_missing"))
    );
    assert!(record.exists());
    assert_eq!(std::fs::read_to_string(&odd).unwrap(), text);
    assert_eq!(std::fs::read(&rot).unwrap(), bytes, "what rotted is left as it is");
    bench.assert_accounts_are_true().await;
    assert!(bench.account(USER).await.used_bytes < used);
    assert_eq!(check(&bench, true).await, told([true, false, false, true, true])[1..3]);

    std::fs::rename(&hidden, &gone.video).unwrap();
    let back = (ids[0].clone(), "file_back", true);
    assert!(check(&bench, true).await.contains(&back));
    assert_eq!(shown(&bench, &ids[0]).await["status"], "ready");
    assert_eq!(bench.account(USER).await.used_bytes, used);
    bench.assert_accounts_are_true().await;
    bench.close().await;
}

pub async fn no_clip_is_called_lost_while_the_store_is_not_there(mut bench: Bench) {
    let ids = clips(&mut bench, 1).await;
    let store = bench.deps.config.storage.clips.clone();
    let away = store.with_extension("away");
    std::fs::rename(&store, &away).unwrap();
    // what an unmounted file system leaves
    std::fs::create_dir(&store).unwrap();
    let how = How { repair: true, bytes: true, after: None, limit: 10 };
    let refused = verify::verify(&bench.deps, &root(&bench), &how).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "storage_unavailable");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    assert_eq!(shown(&bench, &ids[0]).await["status"], "ready");
    assert_eq!(check(&bench, true).await, []);
    bench.close().await;
}

pub async fn what_the_store_refuses_keeps_nothing_else_from_being_put_right(mut bench: Bench) {
    let ids = clips(&mut bench, 3).await;
    // a directory lies where the record belongs: it can be written neither
    let refused = files(&bench, &ids[1]).await.record;
    std::fs::remove_file(&refused).unwrap();
    std::fs::create_dir(&refused).unwrap();
    let gone = files(&bench, &ids[2]).await.record;
    std::fs::remove_file(&gone).unwrap();
    let expected =
        [(ids[1].clone(), "not_compared", false), (ids[2].clone(), "record_missing", true)];
    assert_eq!(check(&bench, true).await, expected);
    std::fs::remove_dir(&refused).unwrap();
    assert_eq!(check(&bench, true).await, [(ids[1].clone(), "record_missing", true)]);
    assert_eq!(check(&bench, false).await, []);
    bench.close().await;
}

/// As after a database was put back from a copy: rows that know less than the store.
pub async fn a_clip_that_was_finished_is_not_thrown_away_for_a_row_that_is_behind(
    mut bench: Bench,
) {
    let ids = clips(&mut bench, 2).await;
    let before: Vec<Value> = vec![shown(&bench, &ids[0]).await, shown(&bench, &ids[1]).await];
    let used = bench.account(USER).await.used_bytes;
    let sizes = before.iter().map(|clip| clip["sizeBytes"].as_i64().unwrap()).collect::<Vec<_>>();
    // what they would be made of is long gone
    let buffer = bench.deps.config.storage.buffer.join(bench.deps.instance.as_str());
    std::fs::remove_dir_all(buffer).unwrap();
    // one was being made when the copy was taken, the other had failed long ago
    let behind = "checksum = NULL, duration_us = NULL, starts_at = NULL, size_bytes = 0";
    let (one, two) = (&ids[0], &ids[1]);
    let changes = [
        format!(
            "UPDATE clip SET status = 'processing', reserved_bytes = 5000000, {behind} WHERE id = '{one}'"
        ),
        format!(
            "UPDATE clip SET status = 'failed', error_code = 'internal', updated_at = 1, {behind} WHERE id = '{two}'"
        ),
        format!(
            "UPDATE user_account SET used_bytes = 0, reserved_bytes = 5000000 WHERE user_id = '{USER}'"
        ),
        format!("UPDATE job SET state = 'queued', attempts = 0 WHERE clip_id = '{one}'"),
    ];
    let tx = bench.deps.db.begin().await.unwrap();
    for change in changes {
        tx.execute_unprepared(&change).await.unwrap();
    }
    tx.commit().await.unwrap();
    let videos = [files(&bench, one).await.video, files(&bench, two).await.video];
    bench.deps.wake.jobs.notify_one();
    let done = capture::settled(&bench.deps, &ClipId::new(one), Duration::from_secs(60)).await;
    assert_eq!(done.unwrap().unwrap().status.as_str(), "ready");
    reap::run(&bench.deps, true, false).await.unwrap();
    for ((id, was), video) in ids.iter().zip(&before).zip(&videos) {
        let now = shown(&bench, id).await;
        for member in ["status", "checksum", "sizeBytes", "durationSeconds", "startsAt", "gaps"] {
            assert_eq!(now[member], was[member], "{member} of {now:#}");
        }
        let sum = blake3::hash(&std::fs::read(video).unwrap()).to_hex();
        assert_eq!(now["checksum"], format!("blake3:{sum}"));
    }
    assert_eq!(sizes.iter().sum::<i64>(), used);
    assert_eq!(bench.account(USER).await.used_bytes, used);
    bench.assert_accounts_are_true().await;
    assert_eq!(check(&bench, false).await, []);
    bench.close().await;
}
