//! Two-second segments at 30 frames a second, as players are told of them.

use proptest::prelude::*;

use super::*;
use crate::domain::{
    selection::SegmentState,
    timeline::{ClockBasis, PTS_BASE},
};

const ZERO: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn epoch(number: u32, zero_s: i64, complete: bool) -> EpochInput {
    let zero = ZERO.plus_seconds(zero_s);
    let clock = EpochClock { zero, delay_ms: None, basis: ClockBasis::StartedAt };
    EpochInput { number, clock: Some(clock), started_at: zero, ended_at: None, complete }
}

fn segment(epoch: u32, number: u64) -> SegmentInput {
    let pts_start = PTS_BASE + number as i64 * 180_000;
    SegmentInput {
        epoch,
        number,
        pts_start,
        pts_end: pts_start + 180_000,
        state: SegmentState::Usable,
        key_frames: vec![pts_start],
        size_bytes: 1000,
        frame_pts: 3000,
        has_audio: true,
        width: 1920,
        height: 1080,
    }
}

fn recorded<'a>(epochs: &'a [EpochInput], segments: &'a [SegmentInput]) -> Recorded<'a> {
    Recorded { epochs, segments, within: None, settled: false }
}

fn names(listed: &[Stretch], recorded: &Recorded<'_>) -> Vec<(u64, u64, u32, u64)> {
    let items = items(listed, recorded, None);
    items.iter().map(|item| (item.sequence, item.run, item.epoch, item.number)).collect()
}

#[test]
fn a_hole_is_waited_for_until_two_later_ones_are_there_and_then_breaks_the_run() {
    let epochs = [epoch(1, 0, false)];
    let mut segments = vec![segment(1, 0), segment(1, 1), segment(1, 3)];
    let first = advance(&[], &recorded(&epochs, &segments));
    assert_eq!(names(&first, &recorded(&epochs, &segments)), [(0, 0, 1, 0), (1, 0, 1, 1)]);
    segments.extend([segment(1, 4), segment(1, 5)]);
    let listed = advance(&first, &recorded(&epochs, &segments));
    let expected = [(0, 0, 1, 0), (1, 0, 1, 1), (2, 1, 1, 3), (3, 1, 1, 4), (4, 1, 1, 5)];
    assert_eq!(names(&listed, &recorded(&epochs, &segments)), expected);
    // too late: what was listed does not change
    segments.push(segment(1, 2));
    assert_eq!(advance(&listed, &recorded(&epochs, &segments)), listed);
}

#[test]
fn an_epoch_that_takes_over_hides_the_rest_of_the_one_before() {
    // the second one's first picture lies at second 5 of the first one
    let epochs = [epoch(1, 0, false), epoch(2, 5, false)];
    let mut segments = vec![segment(1, 0), segment(1, 1), segment(2, 0)];
    let early = advance(&[], &recorded(&epochs, &segments));
    // the first epoch's segment from 4 to 6 is not there yet, and belongs in front
    assert_eq!(early.len(), 1);
    segments.extend([segment(1, 2), segment(1, 3), segment(2, 1)]);
    let listed = advance(&early, &recorded(&epochs, &segments));
    let expected = [(0, 0, 1, 0), (1, 0, 1, 1), (2, 0, 1, 2), (3, 1, 2, 0), (4, 1, 2, 1)];
    assert_eq!(names(&listed, &recorded(&epochs, &segments)), expected);
}

#[test]
fn numbers_stay_when_the_front_goes_and_the_text_counts_what_went() {
    let epochs = [epoch(1, 0, true), epoch(2, 10, false)];
    let mut segments: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    segments.extend((0..4).map(|n| segment(2, n)));
    let listed = advance(&[], &recorded(&epochs, &segments));
    segments.retain(|segment| segment.epoch == 2 && segment.number > 0);
    let now = recorded(&epochs, &segments);
    assert_eq!(advance(&listed, &now), listed);
    let items = items(&listed, &now, Some(4_000_000));
    let shape = Shape { segment_us: 2_000_000, grows_only: false, ended: true };
    let text = write_playlist(&listed, &items, shape, |item| name_of(item.epoch, item.number));
    let expected = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:5\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:1\n#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:14.000Z\n\
        #EXTINF:2.000000,\n2-2.ts\n#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:16.000Z\n\
        #EXTINF:2.000000,\n2-3.ts\n#EXT-X-ENDLIST\n";
    assert_eq!(text, expected);
    // all gone: the next number is still the next
    segments.clear();
    let empty = recorded(&epochs, &segments);
    let text =
        write_playlist(&listed, &super::items(&listed, &empty, None), shape, |_| String::new());
    assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:7\n"), "{text}");
}

#[test]
fn what_vanished_in_the_middle_keeps_its_place_as_a_gap() {
    let epochs = [epoch(1, 0, false)];
    let mut segments: Vec<_> = (0..4).map(|n| segment(1, n)).collect();
    let listed = advance(&[], &recorded(&epochs, &segments));
    segments.remove(2);
    let items = items(&listed, &recorded(&epochs, &segments), None);
    let shape = Shape { segment_us: 2_000_000, grows_only: true, ended: false };
    let text = write_playlist(&listed, &items, shape, |item| name_of(item.epoch, item.number));
    assert!(text.contains("#EXT-X-GAP\n#EXTINF:2.000000,\n1-2.ts\n#EXT-X-PROGRAM"), "{text}");
    assert!(text.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n") && !text.contains("ENDLIST"), "{text}");
}

#[test]
fn a_window_lists_what_touches_it_and_waits_for_no_hole_once_settled() {
    let epochs = [epoch(1, 0, false)];
    let segments = [segment(1, 1), segment(1, 2), segment(1, 4), segment(1, 9)];
    let within = Some(Window::new(ZERO.plus_seconds(3), ZERO.plus_seconds(10)));
    let now = Recorded { within, settled: true, ..recorded(&epochs, &segments) };
    let listed = advance(&[], &now);
    assert_eq!(names(&listed, &now), [(0, 0, 1, 1), (1, 0, 1, 2), (2, 1, 1, 4)]);
}

#[test]
fn one_name_for_one_segment() {
    assert_eq!(parse_name("3-17.ts"), Some((3, 17)));
    for odd in [
        "3-17",
        "03-17.ts",
        "3-017.ts",
        "+3-1.ts",
        "3--1.ts",
        "3-1.ts/..",
        "-1.ts",
        "3-.ts",
        "99999999999-1.ts",
        "3-1.TS",
        "../3-1.ts",
        "3-1-1.ts",
    ] {
        assert_eq!(parse_name(odd), None, "{odd}");
    }
}

proptest! {
    #[test]
    fn whatever_arrives_in_whatever_order_nothing_listed_ever_changes(
        arrivals in proptest::collection::vec((1u32..4, 0u64..12, 0u8..8), 1..60),
    ) {
        let epochs = [epoch(1, 0, false), epoch(2, 15, false), epoch(3, 30, false)];
        let mut segments: Vec<SegmentInput> = Vec::new();
        let mut listed: Vec<Stretch> = Vec::new();
        let mut numbers: HashMap<(u32, u64), (u64, u64)> = HashMap::new();
        let mut gone = Vec::new();
        let mut first = 0;
        for (epoch, number, fate) in arrivals {
            if fate == 0 && !segments.is_empty() {
                // cleanup takes the oldest
                let oldest = segments.iter().enumerate()
                    .min_by_key(|(_, one)| (one.epoch, one.number)).map(|(at, _)| at).unwrap();
                let one = segments.remove(oldest);
                gone.push((one.epoch, one.number));
            } else if !gone.contains(&(epoch, number))
                && segments.iter().all(|one| (one.epoch, one.number) != (epoch, number)) {
                segments.push(segment(epoch, number));
            }
            let now = recorded(&epochs, &segments);
            listed = advance(&listed, &now);
            let items = items(&listed, &now, Some(20_000_000));
            for pair in items.windows(2) {
                prop_assert_eq!(pair[1].sequence, pair[0].sequence + 1);
                prop_assert!(pair[1].run == pair[0].run || pair[1].run == pair[0].run + 1);
            }
            for item in &items {
                let known = numbers.entry((item.epoch, item.number)).or_insert((item.sequence, item.run));
                prop_assert_eq!(*known, (item.sequence, item.run));
            }
            if let Some(item) = items.first() {
                prop_assert!(item.sequence >= first, "went back");
                first = item.sequence;
            }
        }
    }
}
