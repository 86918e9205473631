//! Files that were whole when they were indexed, and are not when the clip is made.

use axum::http::StatusCode;

use super::{
    broken::{WINDOW, range, reasons},
    look::{judge, refused},
    set::Set,
};
use crate::bench::Bench;

pub async fn a_segment_that_rots_after_it_was_indexed(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.end().await;
    // inside a slice, where no structure shows it
    set.first().change(2, |bytes| bytes[100 * 188 + 90] ^= 0x04);
    let clip = set.clip(WINDOW, &[]).await;
    let case = "one bit inside a picture flips after the file was indexed";
    let numbers = judge(&set, &clip, "a_segment_that_rots_after_it_was_indexed", case).await;
    assert_eq!(reasons(&clip), ["corrupt"]);
    assert_eq!(numbers, [range(0, 120), range(180, 390)].concat());
    // exactly, it is not cut again from the rotten file
    let clip = set.clip(WINDOW, &[("precision", "exact")]).await;
    assert_eq!(reasons(&clip), ["corrupt"]);
    drop(set);
    bench.close().await;
}

pub async fn a_segment_that_is_cut_short_after_it_was_indexed(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.end().await;
    set.first().change(2, |bytes| bytes.truncate(bytes.len() / 2 + 50));
    set.first().change(4, Vec::clear);
    let clip = set.clip(WINDOW, &[("precision", "exact")]).await;
    let case = "one file is cut short and one emptied after both were indexed; cut exactly";
    let numbers =
        judge(&set, &clip, "a_segment_that_is_cut_short_after_it_was_indexed", case).await;
    assert_eq!(reasons(&clip), ["truncated", "empty"]);
    assert_eq!(numbers, [range(30, 120), range(180, 240), range(300, 390)].concat());
    bench.close().await;
}

pub async fn a_segment_that_vanishes_after_it_was_indexed(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.end().await;
    std::fs::remove_file(set.first().path(2)).unwrap();
    let clip = set.clip(WINDOW, &[]).await;
    let case = "a file vanishes after it was indexed";
    let numbers = judge(&set, &clip, "a_segment_that_vanishes_after_it_was_indexed", case).await;
    assert_eq!(reasons(&clip), ["missing"]);
    assert_eq!(numbers, [range(0, 120), range(180, 390)].concat());
    bench.close().await;
}

pub async fn gaps_found_while_cutting_are_refused_too(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.end().await;
    set.first().change(2, |bytes| bytes[100 * 188 + 90] ^= 0x04);
    let reply = set.ask(WINDOW, &[("gapPolicy", "refuse")]).await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    let case = "`gapPolicy: refuse`, and the damage shows while the clip is made";
    let body = refused(&set, reply, "gaps_found_while_cutting_are_refused_too", case).await;
    assert_eq!((body["code"].as_str(), reasons(&body)), (Some("window_has_gaps"), vec!["corrupt"]));
    bench.close().await;
}

pub async fn a_picture_at_an_edge_that_does_not_decode(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    // the window's last key frame is rotten in a file that is whole as far as its structure goes
    set.first().change(6, |bytes| {
        for packet in 3..7 {
            for byte in &mut bytes[packet * 188 + 20..packet * 188 + 180] {
                *byte ^= 0x55;
            }
        }
    });
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    let case = "the last key frame is rotten inside before the file is indexed";
    let numbers = judge(&set, &clip, "a_picture_at_an_edge_that_does_not_decode", case).await;
    assert_eq!(clip["shortfallMs"], 1_000);
    assert_eq!(numbers, range(0, 360));
    bench.close().await;
}
