//! What the index cannot see: files that were whole when they were indexed and are not when the clip is made, and rot
//! inside pictures, which only a decoder sees.

use axum::http::StatusCode;

use livekit_replay::media::ts::inspect;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    broken::{WINDOW, range, reasons},
    look::{judge, refused},
    set::{PLAIN, Set, USER},
    table,
};
use crate::{
    bench::Bench,
    material::{Kind, Recording, Scratch},
};

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

/// Spoils what a P or B picture in the middle of a segment codes.
fn rot(bytes: &mut [u8]) {
    let (from, to) = (bytes.len() / 2 / 188, bytes.len() / 2 / 188 + 6);
    for packet in from..to {
        for byte in &mut bytes[packet * 188 + 60..packet * 188 + 150] {
            *byte ^= 0x55;
        }
    }
}

pub async fn rotten_pictures_where_all_is_encoded(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    set.first().change(6, |bytes| rot(bytes));
    let other = Kind { size: (160, 90), seconds: 6, first_number: 900, ..PLAIN };
    set.lay(other, 16_000, 0).await;
    set.end().await;
    let clip = set.clip((9_000, 18_000), &[]).await;
    let case =
        "pictures rotten inside before the file is indexed, in a clip of two sizes (encoded)";
    let numbers = judge(&set, &clip, "rotten_pictures_where_all_is_encoded", case).await;
    assert_eq!(reasons(&clip), ["corrupt"]);
    assert_eq!(numbers, [range(240, 360), range(420, 480), range(900, 960)].concat());
    bench.close().await;
}

/// The limit of what is found cheaply. Should this case fail because a gap is told, the page can be made to say so.
pub async fn rotten_pictures_in_the_middle_of_a_copy(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.first().change(2, |bytes| rot(bytes));
    set.end().await;
    let clip = set.clip(WINDOW, &[]).await;
    assert_eq!(clip["gaps"], serde_json::json!([]));
    let said = complaints(&set, &clip).await;
    assert!(said.contains("decod") || said.contains("conceal"), "nothing is wrong with it: {said}");
    let case = "pictures rotten inside before the file is indexed, in the middle of a copy";
    let holds = "0.00 to 13.00; the rotten pictures as they are, **not found**";
    table::record("rotten_pictures_in_the_middle_of_a_copy", case, holds, "no gap");
    drop(set);
    bench.close().await;
}

/// What a decoder says of a clip.
async fn complaints(set: &Set<'_>, clip: &serde_json::Value) -> String {
    let path = format!("/clips/{}/file", clip["id"].as_str().unwrap());
    let reply = set.session.bench.ask(USER, "GET", &path, None).await;
    let dir = Scratch::new();
    let file = dir.0.join("clip.mp4");
    std::fs::write(&file, &reply.bytes).unwrap();
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-v", "warning", "-nostdin", "-i"]).arg(file).args(["-f", "null", "-"]);
    String::from_utf8(command.output().unwrap().stderr).unwrap()
}

/// How much of the rot the index sees by itself. Printed, because it is little.
#[test]
fn of_flipped_bits_the_index_sees_some() {
    let recording = Recording::make(PLAIN);
    let good = std::fs::read(&recording.segments[2].0).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let tries = 1_000;
    let mut seen = 0;
    for _ in 0..tries {
        let mut bytes = good.clone();
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
        seen += u32::from(inspect(&bytes).is_err());
    }
    println!("of {tries} single flipped bits anywhere in a file the index sees {seen}");
    assert!(seen > 0 && seen < tries);
}
