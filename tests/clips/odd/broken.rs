//! Damaged files. Most cases damage segment 2 of 8, which was on the screen from 4 to 6 s, and ask for 1 to 13 s.

use serde_json::Value;

use super::{
    look::{judge, refused},
    set::{PLAIN, Set},
};
use crate::{bench::Bench, material::Kind};

pub const WINDOW: (i64, i64) = (1_000, 13_000);

/// Reasons of the answer's gaps.
pub fn reasons(clip: &Value) -> Vec<&str> {
    let gaps = clip["gaps"].as_array().expect("a list");
    gaps.iter().map(|gap| gap["reason"].as_str().expect("a reason")).collect()
}

pub fn range(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}

/// Segment 2 changed before it is indexed: pictures 120 to 180 are missing, for this reason.
async fn spoilt(
    mut bench: Bench,
    (test, case): (&str, &str),
    reason: &str,
    change: impl FnOnce(&mut Vec<u8>),
) {
    let set = Set::plain(&mut bench).await;
    set.first().change(2, change);
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    assert_eq!(reasons(&clip), [reason]);
    let numbers = judge(&set, &clip, test, case).await;
    assert_eq!(numbers, [range(0, 120), range(180, 390)].concat());
    bench.close().await;
}

pub async fn a_file_of_zero_bytes(bench: Bench) {
    let case = ("a_file_of_zero_bytes", "a file of zero bytes");
    spoilt(bench, case, "empty", Vec::clear).await;
}

pub async fn a_truncated_file(bench: Bench) {
    let case = ("a_truncated_file", "cut short in the middle: its good beginning goes too");
    spoilt(bench, case, "truncated", |bytes| bytes.truncate(bytes.len() / 2 + 50)).await;
}

pub async fn a_truncated_file_and_an_exact_cut(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(2, |bytes| bytes.truncate(bytes.len() / 2 + 50));
    set.end().await;
    let clip = set.clip(WINDOW, &[("precision", "exact")]).await;
    assert_eq!(reasons(&clip), ["truncated"]);
    let case = "the same, cut exactly";
    let numbers = judge(&set, &clip, "a_truncated_file_and_an_exact_cut", case).await;
    assert_eq!(numbers, [range(30, 120), range(180, 390)].concat());
    bench.close().await;
}

pub async fn a_zero_filled_tail(bench: Bench) {
    let case = ("a_zero_filled_tail", "a tail of zeros, as a crash leaves it");
    spoilt(bench, case, "truncated", |bytes| {
        // file systems lose whole blocks
        let from = bytes.len() / 2 / 4096 * 4096;
        bytes[from..].fill(0);
    })
    .await;
}

pub async fn garbage_instead_of_a_segment(bench: Bench) {
    let case = ("garbage_instead_of_a_segment", "something else under its name");
    spoilt(bench, case, "foreign", |bytes| {
        *bytes = b"<html>504 Gateway Timeout</html>".repeat(400);
    })
    .await;
}

pub async fn garbage_inside_a_segment(bench: Bench) {
    let case = ("garbage_inside_a_segment", "a block of garbage inside");
    spoilt(bench, case, "corrupt", |bytes| {
        for (at, byte) in bytes[8192..8704].iter_mut().enumerate() {
            *byte = (at * 7 + 3) as u8;
        }
    })
    .await;
}

pub async fn lost_packets(bench: Bench) {
    let case = ("lost_packets", "packets missing inside");
    spoilt(bench, case, "corrupt", |bytes| drop(bytes.drain(40 * 188..43 * 188))).await;
}

pub async fn a_rotten_sync_byte(bench: Bench) {
    let case = ("a_rotten_sync_byte", "one flipped bit in a packet's header");
    spoilt(bench, case, "corrupt", |bytes| bytes[50 * 188] ^= 0x10).await;
}

pub async fn a_file_that_is_missing(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    std::fs::remove_file(set.first().path(2)).unwrap();
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    assert_eq!(reasons(&clip), ["missing"]);
    let numbers = judge(&set, &clip, "a_file_that_is_missing", "named, but not there").await;
    assert_eq!(numbers, [range(0, 120), range(180, 390)].concat());
    bench.close().await;
}

pub async fn two_kinds_of_damage_side_by_side(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(2, Vec::clear);
    set.first().change(3, |bytes| bytes.truncate(bytes.len() / 2 + 50));
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    assert_eq!(reasons(&clip), ["empty", "truncated"]);
    let case = "an empty file, then a truncated one";
    let numbers = judge(&set, &clip, "two_kinds_of_damage_side_by_side", case).await;
    assert_eq!(numbers, [range(0, 120), range(240, 390)].concat());
    bench.close().await;
}

pub async fn a_damaged_first_segment(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(0, |bytes| bytes.truncate(bytes.len() / 2 + 50));
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    assert_eq!(reasons(&clip), ["truncated"]);
    let case = "the window's first segment is truncated";
    let numbers = judge(&set, &clip, "a_damaged_first_segment", case).await;
    assert_eq!(numbers, range(60, 390));
    bench.close().await;
}

pub async fn a_damaged_last_segment(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(6, |bytes| bytes.truncate(bytes.len() / 2 + 50));
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    assert_eq!(clip["shortfallMs"], 1_000);
    let case = "the window's last segment is truncated";
    let numbers = judge(&set, &clip, "a_damaged_last_segment", case).await;
    assert_eq!(numbers, range(0, 360));
    bench.close().await;
}

pub async fn damage_next_to_a_restart(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    set.first().change(7, Vec::clear);
    set.lay(Kind { seconds: 6, first_number: 900, ..PLAIN }, 18_000, 0).await;
    set.end().await;
    let clip = set.clip((9_000, 22_000), &[]).await;
    assert_eq!(reasons(&clip), ["empty", "restart"]);
    let case = "an epoch's last file is empty, the next epoch begins 2 s later";
    let numbers = judge(&set, &clip, "damage_next_to_a_restart", case).await;
    assert_eq!(numbers, [range(240, 420), range(900, 1020)].concat());
    bench.close().await;
}

pub async fn nothing_but_damage(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    for segment in 0..8 {
        set.first().change(segment, Vec::clear);
    }
    set.end().await;
    let reply = set.ask(WINDOW, &[]).await;
    let body =
        refused(&set, reply, "nothing_but_damage", "every file of the window is empty").await;
    assert_eq!(body["code"], "no_usable_segments");
    bench.close().await;
}

pub async fn gaps_that_are_refused(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(2, Vec::clear);
    std::fs::remove_file(set.first().path(4)).unwrap();
    set.end().await;
    let reply = set.ask(WINDOW, &[("gapPolicy", "refuse")]).await;
    assert_eq!(reply.status.as_u16(), 409);
    let case = "`gapPolicy: refuse`, one file empty and one missing";
    let body = refused(&set, reply, "gaps_that_are_refused", case).await;
    assert_eq!(
        (body["code"].as_str(), reasons(&body)),
        (Some("window_has_gaps"), vec!["empty", "missing"])
    );
    let listed = bench.ask(super::set::USER, "GET", "/my-clips", None).await.json();
    assert_eq!(listed["total"], 0, "a refused capture leaves no clip");
    bench.close().await;
}

pub async fn a_name_listed_twice(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    let laid = &mut set.epochs[0];
    let again = laid.lines[2].clone();
    // once more at once, and once more with the next one's label
    let next = laid.lines[3].replace("seg_00003", "seg_00002");
    laid.lines.insert(3, again);
    laid.lines.insert(4, next);
    laid.list();
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    let numbers =
        judge(&set, &clip, "a_name_listed_twice", "the playlist names a file three times").await;
    assert_eq!(numbers, range(0, 390));
    assert_eq!(clip["gaps"], serde_json::json!([]));
    bench.close().await;
}

pub async fn a_file_that_is_still_growing(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(2, |bytes| bytes.truncate(4096 * 2));
    set.index().await;
    // it has grown since, and is not whole yet
    set.first().change(2, |bytes| bytes.resize(4096 * 3, 0));
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    let case = "still being copied when the clip is made";
    let numbers = judge(&set, &clip, "a_file_that_is_still_growing", case).await;
    assert_eq!(reasons(&clip), ["truncated"]);
    assert_eq!(numbers, [range(0, 120), range(180, 390)].concat());
    bench.close().await;
}

pub async fn a_file_that_has_grown_up(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    let whole = std::fs::read(set.first().path(2)).unwrap();
    set.first().change(2, |bytes| bytes.truncate(4096 * 2));
    set.index().await;
    std::fs::write(set.first().path(2), whole).unwrap();
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    let case = "still being copied when it was indexed, whole when the clip is made";
    let numbers = judge(&set, &clip, "a_file_that_has_grown_up", case).await;
    assert_eq!(clip["gaps"], serde_json::json!([]));
    assert_eq!(numbers, range(0, 390));
    bench.close().await;
}
