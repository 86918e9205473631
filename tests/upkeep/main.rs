//! The segment index and the upkeep: real segments, real files, both engines, a clock that is moved by hand.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod bench;
mod indexing;
mod keeping;
mod keys;
mod scheduling;
mod stuck;

/// Makes one test per engine of a story `async fn(Bench)`. Without `TEST_POSTGRES_URL` the second says so and ends.
macro_rules! on_both_engines {
    ($($module:ident :: $story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $story() {
                let bench = crate::bench::Bench::on(crate::bench::On::Sqlite).await;
                crate::$module::$story(bench.expect("SQLite is always at hand")).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $story() {
                if let Some(bench) = crate::bench::Bench::on(crate::bench::On::Postgres).await {
                    crate::$module::$story(bench).await;
                }
            })+
        }
    };
}

on_both_engines!(
    indexing::the_clock_is_fixed_by_the_first_packet_and_by_the_label_if_nobody_tells,
    indexing::every_odd_playlist_ends_in_the_same_index,
    indexing::damaged_files_are_indexed_with_their_reason_and_a_growing_one_turns_out_well,
    indexing::a_new_epoch_counts_from_zero_again,
    indexing::hostile_names_and_files_lead_nowhere,
    indexing::an_absent_store_loses_nothing,
    indexing::two_replicas_index_the_same_thing_once,
    keeping::captures_and_cleanup_never_meet_on_a_segment,
    keeping::an_hour_of_recording_leaves_the_promise_and_little_more,
    keeping::a_critically_full_disk_takes_what_is_beyond_the_promise_and_no_pin,
    keeping::what_ended_while_nobody_looked_keeps_what_was_promised,
    keeping::what_was_recorded_on_after_a_stop_pushes_out_nothing_promised,
    keeping::a_large_sweep_lets_others_write,
    keeping::a_buffer_goes_when_its_time_is_over_and_nothing_holds_it,
    keeping::nothing_of_others_is_touched,
    keeping::the_clip_store_gives_rows_back_and_sets_the_unknown_aside,
    keeping::a_pin_that_holds_again_is_not_taken_for_stale,
    keeping::what_a_crash_left_condemned_goes_with_the_next_pass,
    keeping::a_vanished_mount_is_not_an_empty_one,
    keys::who_takes_too_long_with_a_key_is_not_accepted_beside_the_repeat,
    scheduling::a_tick_runs_once_on_two_replicas,
    scheduling::the_schedule_runs_reports_and_stops,
    scheduling::a_job_that_never_ran_is_missed_too,
    stuck::a_directory_that_cannot_be_removed_holds_up_nothing,
    stuck::segments_that_cannot_be_removed_hold_up_no_others,
    stuck::what_a_deletion_could_not_remove_is_taken_by_the_next_pass,
    stuck::what_a_walk_had_to_pass_over_the_next_pass_takes,
    stuck::what_a_deletion_left_is_taken_whoever_runs_the_tick,
    stuck::what_a_failed_clip_could_not_take_along_is_taken_by_the_next_pass,
);
