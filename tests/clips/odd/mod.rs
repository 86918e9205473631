//! Broken and odd sets of segments, the whole way through the service: laid down as egress leaves them, indexed,
//! captured, downloaded, decoded, and the answer compared with what the clip really shows.
//!
//! Every case writes its line of the table in `docs/cuts.md` from what it saw; a line that differs from the page fails
//! the test, `REPLAY_BLESS=1` rewrites it.

mod broken;
mod later;
mod look;
mod set;
mod table;
mod time_lines;

/// One test per case on SQLite, and the list of them in the table's order.
macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        /// All cases, in the table's order.
        const CASES: &[&str] = &[$($(stringify!($case)),+),+];
        $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let bench = crate::bench::Bench::on(crate::bench::On::Sqlite).await;
            $module::$case(bench.expect("SQLite is always at hand")).await;
        })+)+
    };
}

cases! {
    time_lines: a_restart_with_another_clock_leaves_a_gap,
        a_republished_share_changes_over_without_a_gap,
        three_epochs_of_three_sizes_are_one_clip,
        a_change_of_the_frame_rate_keeps_every_picture,
        sound_that_comes_with_the_second_epoch,
        sound_that_is_missing_in_the_middle,
        pictures_without_any_sound,
        a_black_stretch_is_a_part_of_the_clip,
        time_stamps_that_wrap,
        segments_far_longer_than_asked,
        segments_far_shorter_than_asked,
        a_window_that_begins_before_the_recording,
        a_window_that_begins_before_the_buffer;
    broken: a_file_of_zero_bytes,
        a_truncated_file,
        a_truncated_file_and_an_exact_cut,
        a_zero_filled_tail,
        garbage_instead_of_a_segment,
        garbage_inside_a_segment,
        lost_packets,
        a_rotten_sync_byte,
        a_file_that_is_missing,
        two_kinds_of_damage_side_by_side,
        a_damaged_first_segment,
        a_damaged_last_segment,
        damage_next_to_a_restart,
        nothing_but_damage,
        gaps_that_are_refused,
        a_name_listed_twice,
        a_file_that_is_still_growing,
        a_file_that_has_grown_up;
    later: a_segment_that_rots_after_it_was_indexed,
        a_segment_that_is_cut_short_after_it_was_indexed,
        a_segment_that_vanishes_after_it_was_indexed,
        gaps_found_while_cutting_are_refused_too,
        a_picture_at_an_edge_that_does_not_decode,
        rotten_pictures_where_all_is_encoded,
        rotten_pictures_in_the_middle_of_a_copy;
}

/// The same on the other engine, for two cases that write most rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_too() {
    use crate::bench::{Bench, On};
    if let Some(bench) = Bench::on(On::Postgres).await {
        time_lines::a_restart_with_another_clock_leaves_a_gap(bench).await;
    }
    if let Some(bench) = Bench::on(On::Postgres).await {
        later::a_segment_that_rots_after_it_was_indexed(bench).await;
    }
}
