//! Worked examples of two-second segments at 30 frames a second, and what must hold for any mixture of damage.

use proptest::prelude::*;

use super::*;
use crate::domain::timeline::{ClockBasis, PTS_BASE};

const ZERO: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const SEGMENT_PTS: i64 = 180_000;

fn ms(millis: i64) -> Timestamp {
    ZERO.plus_millis(millis)
}

fn window(from_ms: i64, to_ms: i64) -> Window {
    Window::new(ms(from_ms), ms(to_ms))
}

fn epoch(number: u32, zero_ms: i64) -> EpochInput {
    let clock = EpochClock { zero: ms(zero_ms), delay_ms: None, basis: ClockBasis::StartedAt };
    EpochInput {
        number,
        clock: Some(clock),
        started_at: ms(zero_ms),
        ended_at: None,
        complete: false,
    }
}

fn segment(epoch: u32, number: u64) -> SegmentInput {
    let pts_start = PTS_BASE + number as i64 * SEGMENT_PTS;
    SegmentInput {
        epoch,
        number,
        pts_start,
        pts_end: pts_start + SEGMENT_PTS,
        state: SegmentState::Usable,
        key_frames: vec![pts_start],
        size_bytes: 1000,
        frame_pts: 3000,
        has_audio: true,
        width: 1920,
        height: 1080,
    }
}

fn bad(epoch: u32, number: u64, reason: GapReason) -> SegmentInput {
    SegmentInput { state: SegmentState::Bad(reason), key_frames: vec![], ..segment(epoch, number) }
}

fn select(
    window: Window,
    precision: Precision,
    epochs: &[EpochInput],
    segments: &[SegmentInput],
) -> Result<Plan> {
    plan(&Selection { window, precision, epochs, segments, buffer_starts_at: None })
}

fn gap(from_ms: i64, to_ms: i64, reason: GapReason) -> Gap {
    Gap { from: ms(from_ms), to: ms(to_ms), reason }
}

/// The frames a muxer would take, as screen time in microseconds from the zero.
fn frames(plan: &Plan, epochs: &[EpochInput], segments: &[SegmentInput]) -> Vec<i64> {
    let mut all = Vec::new();
    for part in &plan.parts {
        let clock =
            epochs.iter().find(|e| e.number == part.epoch).and_then(|e| e.clock).expect("a clock");
        for index in &part.segments {
            let segment = &segments[*index];
            let mut pts = segment.pts_start;
            while pts < segment.pts_end {
                if part.from_pts <= pts && pts < part.to_pts {
                    all.push(clock.screen_time(pts).micros_since(ZERO));
                }
                pts += segment.frame_pts;
            }
        }
    }
    all
}

#[test]
fn an_exact_window_takes_the_frames_inside_it_and_decodes_from_the_key_frame_before() {
    let segments: Vec<_> = (0..5).map(|n| segment(1, n)).collect();
    let plan =
        select(window(2500, 6500), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!(plan.parts.len(), 1);
    assert_eq!(plan.parts[0].segments, [1, 2, 3]);
    assert_eq!(plan.parts[0].decode_from_pts, PTS_BASE + SEGMENT_PTS);
    assert_eq!((plan.starts_at, plan.ends_at), (ms(2500), ms(6500)));
    assert_eq!((plan.duration_us, plan.preroll_us, plan.shortfall_us), (4_000_000, 0, 0));
    assert_eq!(frames(&plan, &[epoch(1, 0)], &segments).len(), 120);
    assert!(plan.gaps.is_empty());
}

#[test]
fn a_key_frame_window_starts_early_and_ends_on_time() {
    let segments: Vec<_> = (0..5).map(|n| segment(1, n)).collect();
    let run = |from| select(window(from, 6500), Precision::Keyframe, &[epoch(1, 0)], &segments);
    let plan = run(3700).expect("media");
    assert_eq!((plan.starts_at, plan.ends_at), (ms(2000), ms(6500)));
    assert_eq!((plan.preroll_us, plan.duration_us), (1_700_000, 4_500_000));
    // between the last frame of one segment and the key frame of the next: still the key frame before
    assert_eq!(run(3990).expect("media").starts_at, ms(2000));
    assert_eq!(run(4000).expect("media").starts_at, ms(4000));
}

#[test]
fn a_millisecond_that_rounds_a_frame_boundary_means_that_boundary() {
    // the boundaries are 26.2666… ms apart from whole milliseconds: 26267 is the frame at 26266.67
    let segments: Vec<_> = (0..15).map(|n| segment(1, n)).collect();
    let epochs = [epoch(1, 0)];
    let left = select(window(20_033, 26_267), Precision::Exact, &epochs, &segments).expect("media");
    let right =
        select(window(26_267, 28_000), Precision::Exact, &epochs, &segments).expect("media");
    let (left, right) = (frames(&left, &epochs, &segments), frames(&right, &epochs, &segments));
    assert_eq!(left.first(), Some(&20_033_333));
    assert_eq!(left.last(), Some(&26_233_333));
    assert_eq!(right.first(), Some(&26_266_667));
}

#[test]
fn a_bad_segment_is_cut_out_and_named_and_its_neighbours_are_used() {
    let mut segments: Vec<_> = (0..5).map(|n| segment(1, n)).collect();
    segments[2] = bad(1, 2, GapReason::Corrupt);
    let plan =
        select(window(1000, 9000), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!(plan.gaps, [gap(4000, 6000, GapReason::Corrupt)]);
    assert_eq!(
        plan.parts.iter().map(|p| p.segments.clone()).collect::<Vec<_>>(),
        [vec![0, 1], vec![3, 4]]
    );
    assert_eq!(plan.duration_us, 6_000_000);
}

#[test]
fn holes_side_by_side_keep_their_own_reasons() {
    let mut segments: Vec<_> = (0..8).filter(|n| *n != 3).map(|n| segment(1, n)).collect();
    segments[2] = bad(1, 2, GapReason::Empty);
    segments[3] = bad(1, 4, GapReason::Truncated);
    let plan =
        select(window(0, 16_000), Precision::Keyframe, &[epoch(1, 0)], &segments).expect("media");
    let expected = [
        gap(4000, 6000, GapReason::Empty),
        gap(6000, 8000, GapReason::Missing),
        gap(8000, 10_000, GapReason::Truncated),
    ];
    assert_eq!(plan.gaps, expected);
    assert_eq!(plan.duration_us, 10_000_000);
}

#[test]
fn a_bad_segment_of_unknown_place_still_gives_its_reason() {
    let mut segments: Vec<_> = (0..4).map(|n| segment(1, n)).collect();
    segments[1] = SegmentInput { pts_start: 0, pts_end: 0, ..bad(1, 1, GapReason::Empty) };
    let plan = select(window(0, 8000), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!(plan.gaps, [gap(2000, 4000, GapReason::Empty)]);
}

#[test]
fn a_missing_tail_is_shortfall_and_no_gap() {
    let mut segments: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    segments.push(bad(1, 3, GapReason::Corrupt));
    let plan =
        select(window(2000, 9000), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!((plan.ends_at, plan.shortfall_us), (ms(6000), 3_000_000));
    assert!(plan.gaps.is_empty());
    let plan =
        select(window(2000, 6020), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!(plan.shortfall_us, 0);
}

#[test]
fn a_file_that_ends_within_a_frame_of_its_window_is_not_short() {
    // ten frames a second: the last one that was written ends up to 100 ms before the window does
    let segments = [SegmentInput { frame_pts: 9000, ..segment(1, 0) }];
    let window = window(0, 1501);
    let plan = select(window, Precision::Keyframe, &[epoch(1, 0)], &segments).expect("media");
    let ends_at = |millis| shortfall(window, ms(millis), &plan.parts[0], &segments);
    assert_eq!((ends_at(1600), ends_at(1500), ends_at(1401)), (0, 0, 0));
    assert_eq!(ends_at(1400), 101_000);
}

#[test]
fn before_the_first_media_nothing_was_recorded() {
    let segments: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    let plan =
        select(window(-5000, 4000), Precision::Keyframe, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!(plan.gaps, [gap(-5000, 0, GapReason::NotRecorded)]);
    assert_eq!((plan.starts_at, plan.duration_us, plan.preroll_us), (ms(0), 4_000_000, 0));
}

#[test]
fn what_has_expired_is_told_from_what_never_was() {
    let segments: Vec<_> = (5..9).map(|n| segment(1, n)).collect();
    let epochs = [epoch(1, 0)];
    let mut selection = Selection {
        window: window(-2000, 14_000),
        precision: Precision::Exact,
        epochs: &epochs,
        segments: &segments,
        buffer_starts_at: Some(ms(10_000)),
    };
    let expected = [gap(-2000, 0, GapReason::NotRecorded), gap(0, 10_000, GapReason::BeforeBuffer)];
    assert_eq!(plan(&selection).expect("media").gaps, expected);
    selection.buffer_starts_at = None;
    let expected = [gap(-2000, 0, GapReason::NotRecorded), gap(0, 10_000, GapReason::Missing)];
    assert_eq!(plan(&selection).expect("media").gaps, expected);
}

#[test]
fn a_window_that_begins_in_a_bad_segment_says_so() {
    let mut segments: Vec<_> = (0..4).map(|n| segment(1, n)).collect();
    segments[1] = bad(1, 1, GapReason::Foreign);
    let plan =
        select(window(2500, 8000), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!(plan.gaps, [gap(2500, 4000, GapReason::Foreign)]);
    assert_eq!((plan.starts_at, plan.duration_us), (ms(4000), 4_000_000));
}

#[test]
fn a_restart_leaves_a_gap_of_that_name() {
    let mut segments: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    segments.extend((0..3).map(|n| segment(2, n)));
    let epochs = [epoch(1, 0), epoch(2, 9500)];
    let plan = select(window(3000, 14_000), Precision::Exact, &epochs, &segments).expect("media");
    assert_eq!(plan.gaps, [gap(6000, 9500, GapReason::Restart)]);
    assert_eq!(plan.parts.iter().map(|part| part.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(plan.duration_us, 7_500_000);
}

#[test]
fn overlapping_epochs_change_over_at_the_newer_ones_first_key_frame() {
    let mut segments: Vec<_> = (0..5).map(|n| segment(1, n)).collect();
    segments.extend((0..3).map(|n| segment(2, n)));
    let epochs = [epoch(1, 0), epoch(2, 5010)];
    let plan = select(window(3000, 9000), Precision::Exact, &epochs, &segments).expect("media");
    assert_eq!(plan.parts.len(), 2);
    assert_eq!(plan.parts[0].segments, [1, 2]);
    assert_eq!((plan.parts[1].screen_from, plan.parts[1].epoch), (ms(5010), 2));
    assert!(plan.gaps.is_empty());
    let times = frames(&plan, &epochs, &segments);
    assert!(times.is_sorted_by(|a, b| a < b), "no frame twice or backwards");
    assert!(times.iter().filter(|t| **t < 5_010_000).count() >= 60);
}

#[test]
fn jumps_up_to_a_frame_are_no_hole() {
    let mut segments: Vec<_> = (0..4).map(|n| segment(1, n)).collect();
    for segment in &mut segments[2..] {
        segment.pts_start += 3000;
        segment.pts_end += 3000;
        segment.key_frames[0] += 3000;
    }
    let plan = select(window(0, 8000), Precision::Exact, &[epoch(1, 0)], &segments).expect("media");
    assert_eq!((plan.parts.len(), plan.gaps.len()), (1, 0));
}

#[test]
fn long_segments_decode_from_the_key_frame_inside() {
    let mut long = segment(1, 0);
    long.pts_end = PTS_BASE + 900_000;
    long.key_frames = vec![PTS_BASE, PTS_BASE + 750_000];
    let plan =
        select(window(9000, 9500), Precision::Exact, &[epoch(1, 0)], &[long]).expect("media");
    assert_eq!(plan.parts[0].decode_from_pts, PTS_BASE + 750_000);
}

#[test]
fn nothing_at_all_and_nothing_usable_are_two_answers() {
    let good: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    let error =
        select(window(60_000, 70_000), Precision::Exact, &[epoch(1, 0)], &good).expect_err("none");
    assert_eq!(error.code(), Code::NoSegmentsInRange);
    assert_eq!(error.fields()["available"]["to"], ms(6000).to_rfc3339());
    let spoilt: Vec<_> = (0..3).map(|n| bad(1, n, GapReason::Corrupt)).collect();
    let error =
        select(window(0, 3000), Precision::Exact, &[epoch(1, 0)], &spoilt).expect_err("none");
    assert_eq!(error.code(), Code::NoUsableSegments);
    let error = select(window(0, 3000), Precision::Exact, &[], &[]).expect_err("none");
    assert!(error.fields()["available"].is_null());
}

#[test]
fn coverage_waits_for_the_tail_of_a_live_epoch_only() {
    let segments: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    let mut epochs = [epoch(1, 0)];
    let asked = |window: Window, epochs: &[EpochInput], over| {
        coverage(window, epochs, &segments, ms(9000), over)
    };
    assert_eq!(asked(window(0, 6000), &epochs, false), Coverage::Covered);
    let Coverage::Waiting { from } = asked(window(0, 9000), &epochs, false) else {
        panic!("must wait")
    };
    assert!(ms(6000) <= from && from <= ms(6040));
    epochs[0].complete = true;
    assert_eq!(asked(window(0, 9000), &epochs, false), Coverage::Covered);
    assert!(matches!(asked(window(0, 12_000), &epochs, false), Coverage::Waiting { .. }));
    assert_eq!(asked(window(0, 12_000), &epochs, true), Coverage::Covered);
}

#[test]
fn coverage_waits_for_an_epoch_that_has_not_shown_itself_and_for_copies_out_of_order() {
    let mut segments: Vec<_> = (0..3).map(|n| segment(1, n)).collect();
    let first = EpochInput { complete: true, ..epoch(1, 0) };
    let second = EpochInput { clock: None, started_at: ms(6500), ..epoch(2, 0) };
    let both = [first, second];
    assert!(matches!(
        coverage(window(0, 8000), &both, &segments, ms(9000), false),
        Coverage::Waiting { .. }
    ));
    assert_eq!(coverage(window(0, 6200), &both, &segments, ms(9000), false), Coverage::Covered);
    segments.push(segment(1, 4));
    let live = [epoch(1, 0)];
    let waiting = coverage(window(0, 9000), &live, &segments, ms(12_000), false);
    assert_eq!(waiting, Coverage::Waiting { from: ms(6000) });
    segments.extend((5..9).map(|n| segment(1, n)));
    assert_eq!(coverage(window(0, 9000), &live, &segments, ms(12_000), false), Coverage::Covered);
}

#[test]
fn an_old_epoch_that_never_finishes_does_not_hold_up_the_newer_one() {
    let mut segments = vec![segment(1, 0), segment(1, 1), segment(1, 2)];
    segments.extend((0..4).map(|n| segment(2, n)));
    let epochs = [epoch(1, 0), epoch(2, 5000)];
    assert_eq!(
        coverage(window(0, 12_000), &epochs, &segments, ms(20_000), false),
        Coverage::Covered
    );
}

#[test]
fn a_reservation_counts_touched_bytes_and_the_missing_tail() {
    let segments: Vec<_> = (0..4).map(|n| segment(1, n)).collect();
    let epochs = [epoch(1, 0)];
    let bytes =
        |window, coverage| reservation_bytes(window, &epochs, &segments, coverage, 1_000_000);
    assert_eq!(bytes(window(2000, 6000), Coverage::Covered), 2000 + 1_048_576);
    assert_eq!(bytes(window(1999, 6001), Coverage::Covered), 4000 + 1_048_576);
    let waiting = Coverage::Waiting { from: ms(8000) };
    assert_eq!(bytes(window(6000, 10_000), waiting), 1000 + 3_000_000 + 1_048_576);
}

fn damage() -> impl Strategy<Value = Vec<u8>> {
    // 0..=5 usable, 6 absent, 7 corrupt, 8 empty of unknown place
    proptest::collection::vec(0u8..9, 1..14)
}

fn session(first: &[u8], second: &[u8]) -> Vec<SegmentInput> {
    let mut all = Vec::new();
    for (epoch, kinds) in [(1, first), (2, second)] {
        for (n, kind) in kinds.iter().enumerate() {
            match kind {
                6 => {}
                7 => all.push(bad(epoch, n as u64, GapReason::Corrupt)),
                8 => all.push(SegmentInput {
                    pts_start: 0,
                    pts_end: 0,
                    ..bad(epoch, n as u64, GapReason::Empty)
                }),
                _ => all.push(segment(epoch, n as u64)),
            }
        }
    }
    all
}

proptest! {
    #[test]
    fn every_plan_adds_up(
        first in damage(), second in damage(), second_zero in 0i64..40_000, from in -4000i64..50_000,
        length in 1i64..40_000, exact in any::<bool>(),
    ) {
        let segments = session(&first, &second);
        let epochs = [epoch(1, 0), epoch(2, second_zero)];
        let precision = if exact { Precision::Exact } else { Precision::Keyframe };
        let window = window(from, from + length);
        let Ok(plan) = select(window, precision, &epochs, &segments) else { return Ok(()) };
        let frame_us = 33_334;
        prop_assert!(plan.starts_at < plan.ends_at);
        prop_assert!(plan.ends_at <= window.to.plus_micros(frame_us));
        if exact {
            prop_assert!(plan.starts_at >= window.from.plus_micros(-501));
            prop_assert_eq!(plan.preroll_us.max(501), 501);
        }
        // gaps: in order, never overlapping, real, and inside but for the head
        for pair in plan.gaps.windows(2) {
            prop_assert!(pair[0].to <= pair[1].from);
        }
        for gap in &plan.gaps {
            prop_assert!(gap.from < gap.to);
            prop_assert!(gap.to <= plan.starts_at || (gap.from >= plan.starts_at && gap.to <= plan.ends_at));
        }
        // parts: in order, and what is neither part nor listed gap is less than the listing limit
        let mut holes = 0;
        for pair in plan.parts.windows(2) {
            prop_assert!(pair[1].screen_from.micros_since(pair[0].screen_to) >= -frame_us);
            let hole = Window::new(pair[0].screen_to, pair[1].screen_from);
            let listed: i64 = plan.gaps.iter().filter_map(|g| Window::new(g.from, g.to).intersect(&hole)).map(|w| w.micros()).sum();
            prop_assert!(hole.micros() - listed <= frame_us, "{hole:?} {:?}", plan.gaps);
            holes += 1;
        }
        let parts: i64 = plan.parts.iter().map(|part| part.screen_to.micros_since(part.screen_from)).sum();
        prop_assert!((parts - plan.duration_us).abs() <= frame_us * (holes + 1));
        for part in &plan.parts {
            let keys = &segments[part.segments[0]].key_frames;
            prop_assert!(keys.contains(&part.decode_from_pts));
            prop_assert!(part.decode_from_pts <= part.from_pts.max(part.decode_from_pts));
            prop_assert!(part.segments.iter().all(|index| segments[*index].usable()));
        }
    }

    #[test]
    fn adjoining_exact_windows_share_no_frame_and_lose_none(
        first in damage(), second in damage(), second_zero in 0i64..40_000,
        cuts in proptest::collection::vec(0i64..50_000, 3),
    ) {
        let segments = session(&first, &second);
        let epochs = [epoch(1, 0), epoch(2, second_zero)];
        let mut cuts = cuts;
        cuts.sort_unstable();
        let taken = |from: i64, to: i64| match select(window(from, to), Precision::Exact, &epochs, &segments) {
            Ok(plan) => frames(&plan, &epochs, &segments),
            Err(_) => Vec::new(),
        };
        let mut halves = taken(cuts[0], cuts[1]);
        halves.extend(taken(cuts[1], cuts[2]));
        prop_assert_eq!(halves, taken(cuts[0], cuts[2]));
    }

    #[test]
    fn frames_of_odd_rates_are_found_where_they_are(rate in 1u32..=60, seconds in 1i64..12, at in 0.0f64..1.0) {
        let span = seconds * 90_000;
        let count = seconds * i64::from(rate);
        let mut one = segment(1, 0);
        one.pts_end = one.pts_start + span;
        one.frame_pts = (90_000 + i64::from(rate) / 2) / i64::from(rate);
        let k = (at * count as f64) as i64;
        let place = one.pts_start + (k * span + count / 2) / count;
        prop_assert_eq!(one.frame_at_or_after(place), place);
        prop_assert!(one.frame_at_or_after(place + 1) > place);
    }
}
