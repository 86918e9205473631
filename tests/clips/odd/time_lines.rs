//! Windows over several epochs, and segments unlike the usual ones.

use livekit_replay::store::{self, segment, session};

use super::{
    broken::{range, reasons},
    look::{judge, numbers},
    set::{PLAIN, SILENT, Set},
};
use crate::{
    bench::Bench,
    material::{FRAME, Kind, Recording},
};

/// What a second epoch records.
const SECOND: Kind = Kind { seconds: 6, first_number: 900, ..PLAIN };

pub async fn a_restart_with_another_clock_leaves_a_gap(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    set.lay(SECOND, 18_500, 90).await;
    set.end().await;
    let case = "restart 2.5 s later on a host whose clock is 90 s ahead";
    let test = "a_restart_with_another_clock_leaves_a_gap";
    let window = (13_000, 22_000);
    let clip = set.clip(window, &[]).await;
    assert_eq!(reasons(&clip), ["restart"]);
    let seen = judge(&set, &clip, test, case).await;
    assert_eq!(seen, [range(360, 480), range(900, 1005)].concat());
    let clip = set.clip(window, &[("precision", "exact")]).await;
    assert_eq!(reasons(&clip), ["restart"]);
    assert_eq!(numbers(&set, &clip).await, [range(390, 480), range(900, 1005)].concat());
    drop(set);
    bench.close().await;
}

pub async fn a_republished_share_changes_over_without_a_gap(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    // the old egress records until 16 s, the new one has pictures from 12.4 s on
    set.lay(SECOND, 12_400, -3).await;
    set.end().await;
    let test = "a_republished_share_changes_over_without_a_gap";
    let window = (9_000, 17_000);
    let clip = set.clip(window, &[]).await;
    assert_eq!(reasons(&clip), [""; 0]);
    let case = "republished: the new epoch begins while the old one still records";
    let seen = judge(&set, &clip, test, case).await;
    assert_eq!(seen, [range(240, 372), range(900, 1038)].concat());
    let clip = set.clip(window, &[("precision", "exact")]).await;
    assert_eq!(reasons(&clip), [""; 0]);
    assert_eq!(numbers(&set, &clip).await, [range(270, 372), range(900, 1038)].concat());
    bench.close().await;
}

pub async fn three_epochs_of_three_sizes_are_one_clip(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    set.lay(Kind { size: (640, 360), ..SECOND }, 16_000, 0).await;
    set.lay(Kind { size: (480, 270), first_number: 1800, ..SECOND }, 24_000, 7).await;
    set.end().await;
    let clip = set.clip((11_000, 27_000), &[]).await;
    assert_eq!(reasons(&clip), ["restart"]);
    assert_eq!((clip["width"].as_i64(), clip["height"].as_i64()), (Some(640), Some(360)));
    let case = "three epochs of 320x180, 640x360 and 480x270, the third one late";
    let numbers = judge(&set, &clip, "three_epochs_of_three_sizes_are_one_clip", case).await;
    assert_eq!(numbers, [range(300, 480), range(900, 1080), range(1800, 1890)].concat());
    bench.close().await;
}

pub async fn a_change_of_the_frame_rate_keeps_every_picture(mut bench: Bench) {
    let mut set = Set::new(&mut bench, 20).await;
    set.lay(SILENT, 0, 0).await;
    // the same pictures, each shown twice as long
    let slow = Kind { options: "-vf setpts=2*PTS -r 15", first_number: 900, ..SILENT };
    set.lay(slow, 16_000, 0).await.step = 2 * FRAME;
    set.end().await;
    let clip = set.clip((13_000, 21_000), &[]).await;
    assert_eq!(reasons(&clip), [""; 0]);
    let case = "30 pictures a second, then an epoch of 15";
    let numbers = judge(&set, &clip, "a_change_of_the_frame_rate_keeps_every_picture", case).await;
    assert_eq!(numbers, [range(360, 480), range(900, 975)].concat());
    bench.close().await;
}

pub async fn sound_that_comes_with_the_second_epoch(mut bench: Bench) {
    let mut set = Set::new(&mut bench, 20).await;
    set.lay(SILENT, 0, 0).await;
    set.lay(SECOND, 16_000, 0).await;
    set.end().await;
    let clip = set.clip((11_000, 21_000), &[]).await;
    assert_eq!(clip["audioCodec"], "aac");
    let case = "no sound before the second epoch: silence there";
    let numbers = judge(&set, &clip, "sound_that_comes_with_the_second_epoch", case).await;
    assert_eq!(numbers, [range(300, 480), range(900, 1050)].concat());
    bench.close().await;
}

pub async fn sound_that_is_missing_in_the_middle(mut bench: Bench) {
    let mut set = Set::plain(&mut bench).await;
    let silent = Recording::make(SILENT);
    let laid = &mut set.epochs[0];
    for segment in [2, 3] {
        std::fs::copy(&silent.segments[segment].0, laid.path(segment as u64)).unwrap();
    }
    laid.silent = 120..240;
    set.end().await;
    let clip = set.clip((1_000, 13_000), &[]).await;
    let case = "two segments of an epoch have no sound: silence there";
    let numbers = judge(&set, &clip, "sound_that_is_missing_in_the_middle", case).await;
    assert_eq!(numbers, range(0, 390));
    bench.close().await;
}

pub async fn pictures_without_any_sound(mut bench: Bench) {
    let mut set = Set::new(&mut bench, 20).await;
    set.lay(SILENT, 0, 0).await;
    set.end().await;
    let clip = set.clip((1_000, 13_000), &[]).await;
    assert!(clip["audioCodec"].is_null());
    let case = "no sound at all: the clip has no sound track";
    let numbers = judge(&set, &clip, "pictures_without_any_sound", case).await;
    assert_eq!(numbers, range(0, 390));
    bench.close().await;
}

pub async fn a_black_stretch_is_a_part_of_the_clip(mut bench: Bench) {
    let mut set = Set::new(&mut bench, 20).await;
    // all but the marker, which tells the pictures apart
    let options = r"-vf drawbox=y=ih/9:h=ih:t=fill:color=black:enable=between(t\,4\,7.99)";
    set.lay(Kind { options, ..PLAIN }, 0, 0).await;
    set.end().await;
    let clip = set.clip((1_000, 13_000), &[]).await;
    let case = "muted for 4 s: egress records black";
    let numbers = judge(&set, &clip, "a_black_stretch_is_a_part_of_the_clip", case).await;
    assert_eq!(numbers, range(0, 390));
    bench.close().await;
}

pub async fn time_stamps_that_wrap(mut bench: Bench) {
    // 2^33 ticks are 95443.7 s: the share has lasted 25.5 h
    let kind = Kind { offset_seconds: 95_438, seconds: 12, ..PLAIN };
    let mut set = Set::new(&mut bench, kind.offset_seconds - 3_600 + 20).await;
    let first = set.session.began;
    set.lay(kind, 0, 0).await;
    // what is left of the hours before: the newest of them is what the time stamps are counted on from
    let before = segment::Model {
        session_id: set.session.id.clone(),
        epoch: 1,
        number: 0,
        file_name: "seg_00000.ts".to_owned(),
        state: segment::SegmentState::Usable,
        pts_start: 95_436 * 90_000,
        pts_end: 95_438 * 90_000,
        starts_at: first.plus_seconds(91_836),
        ends_at: first.plus_seconds(91_838),
        label_at: first.plus_seconds(91_836),
        size_bytes: 1,
        key_frames: format!("[{}]", 95_436_i64 * 90_000),
        frame_ticks: 3_000,
        has_audio: true,
        width: Some(320),
        height: Some(180),
        condemned_at: None,
        indexed_at: first,
        crc: None,
    };
    let bench_db = set.session.bench.deps.db.clone();
    segment::insert(bench_db.conn(), before).await.unwrap();
    let laid = &mut set.epochs[0];
    for segment in (0..6).rev() {
        std::fs::rename(laid.path(segment), laid.path(segment + 1)).unwrap();
    }
    for (at, line) in laid.lines.iter_mut().enumerate().rev() {
        *line = line.replace(&format!("seg_{at:05}"), &format!("seg_{:05}", at + 1));
    }
    laid.list();
    set.end().await;
    let from = 91_838_000;
    let clip = set.clip((from + 1_000, from + 11_000), &[]).await;
    assert_eq!(reasons(&clip), [""; 0]);
    let case = "time stamps pass 33 bits in the middle (after 25.5 h)";
    let numbers = judge(&set, &clip, "time_stamps_that_wrap", case).await;
    assert_eq!(numbers, range(0, 330));
    bench.close().await;
}

pub async fn segments_far_longer_than_asked(mut bench: Bench) {
    let mut set = Set::new(&mut bench, 40).await;
    set.lay(Kind { segment_seconds: 10, seconds: 30, ..PLAIN }, 0, 0).await;
    set.end().await;
    let clip = set.clip((12_000, 23_000), &[("precision", "exact")]).await;
    let case = "segments of 10 s instead of 2, cut exactly";
    let numbers = judge(&set, &clip, "segments_far_longer_than_asked", case).await;
    assert_eq!(numbers, range(360, 690));
    bench.close().await;
}

pub async fn segments_far_shorter_than_asked(mut bench: Bench) {
    let mut set = Set::new(&mut bench, 20).await;
    set.lay(Kind { segment_seconds: 1, seconds: 12, ..PLAIN }, 0, 0).await;
    set.end().await;
    let clip = set.clip((1_500, 9_500), &[("precision", "exact")]).await;
    let case = "segments of 1 s instead of 2, cut exactly";
    let numbers = judge(&set, &clip, "segments_far_shorter_than_asked", case).await;
    assert_eq!(numbers, range(45, 285));
    bench.close().await;
}

pub async fn a_window_that_begins_before_the_recording(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.end().await;
    let clip = set.clip((-3_000, 5_000), &[]).await;
    assert_eq!(reasons(&clip), ["not_recorded"]);
    let case = "the window begins 3 s before the share";
    let numbers = judge(&set, &clip, "a_window_that_begins_before_the_recording", case).await;
    assert_eq!(numbers, range(0, 150));
    bench.close().await;
}

pub async fn a_window_that_begins_before_the_buffer(mut bench: Bench) {
    let set = Set::plain(&mut bench).await;
    set.end().await;
    let (db, id) = (&set.session.bench.deps.db, &set.session.id);
    let tx = db.begin().await.unwrap();
    session::lock_for_pins(&tx, id).await.unwrap();
    for number in 0..2 {
        let now = set.session.bench.now();
        assert!(segment::condemn_one(&tx, id, 1, number, now).await.unwrap());
    }
    store::commit(tx).await.unwrap();
    let clip = set.clip((1_000, 7_000), &[]).await;
    assert_eq!(reasons(&clip), ["before_buffer"]);
    let case = "the window begins before what is still kept";
    let numbers = judge(&set, &clip, "a_window_that_begins_before_the_buffer", case).await;
    assert_eq!(numbers, range(120, 210));
    bench.close().await;
}
