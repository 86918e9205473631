//! From a capture to a clip and what becomes of it: real segments, real FFmpeg, both engines.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod bench;
mod crash;
#[allow(dead_code, reason = "shared with the tests of media")]
#[path = "../media/material.rs"]
mod material;
mod odd;
#[path = "../media/picture.rs"]
mod picture;
mod races;
mod stories;
mod turns;
mod verify;

/// Makes one test per engine of a story `async fn(Bench)`. Without `TEST_POSTGRES_URL` the second says so and ends.
macro_rules! on_both_engines {
    ($($room:ident :: $story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $story() {
                let bench = crate::bench::Bench::on(crate::bench::On::Sqlite).await;
                crate::$room::$story(bench.expect("SQLite is always at hand")).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $story() {
                if let Some(bench) = crate::bench::Bench::on(crate::bench::On::Postgres).await {
                    crate::$room::$story(bench).await;
                }
            })+
        }
    };
}

on_both_engines!(
    stories::a_capture_becomes_a_clip_that_decodes_and_settles_its_bytes,
    stories::of_sixty_captures_at_once_exactly_as_many_are_accepted_as_fit,
    stories::a_capture_waits_for_the_segments_that_complete_its_window,
    stories::a_cancelled_capture_gives_everything_back,
    stories::gaps_found_late_fail_a_refusing_capture_and_a_retry_makes_it,
    stories::repeats_of_a_capture_get_the_same_clip,
    stories::a_capture_waits_for_a_store_that_is_away,
    stories::a_lease_that_ran_out_is_taken_over_and_its_old_owner_publishes_nothing,
    stories::deleting_a_clip_returns_its_bytes_and_leaves_no_file,
    stories::files_are_sent_in_ranges_by_token_and_by_link,
    stories::who_may_see_a_clip_follows_its_visibility,
    verify::every_fault_of_a_clip_is_found_and_put_right_where_nothing_is_lost,
    verify::a_clip_that_was_finished_is_not_thrown_away_for_a_row_that_is_behind,
    verify::no_clip_is_called_lost_while_the_store_is_not_there,
    verify::what_the_store_refuses_keeps_nothing_else_from_being_put_right,
    turns::a_single_clip_does_not_wait_behind_eight_of_somebody_else,
    turns::who_has_least_running_is_next_and_then_who_waited_longest,
    turns::every_job_is_leased_once_however_many_lease,
    turns::a_short_clip_is_not_stuck_behind_ten_long_ones,
    turns::a_long_clip_that_has_waited_lets_no_newer_one_pass,
    turns::long_clips_leave_a_place_for_a_short_one,
    turns::jobs_of_a_release_without_turns_get_their_users,
    turns::who_waits_for_his_window_holds_no_place_and_gets_no_turn_before_others,
);
