//! Looking at a recording and using it again: previews, trims, streams, filmstrips, estimates. Real segments with
//! numbered pictures, real FFmpeg as the player, both engines.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    dead_code,
    reason = "tests; parts are shared with other suites"
)]

#[path = "../clips/bench.rs"]
mod bench;
mod look;
#[path = "../media/material.rs"]
mod material;
#[path = "../media/picture.rs"]
mod picture;
mod preview;
mod stream;
mod studio;
mod trim;

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
                match crate::bench::Bench::on(crate::bench::On::Postgres).await {
                    Some(bench) => crate::$room::$story(bench).await,
                    None => eprintln!("skipped: TEST_POSTGRES_URL is not set"),
                }
            })+
        }
    };
}

on_both_engines!(
    look::a_filmstrip_shows_the_key_frames_where_they_were,
    look::an_image_is_made_once_however_many_ask,
    look::an_estimate_says_what_a_capture_would_take,
    preview::a_preview_plays_through_across_an_epoch_change,
    preview::a_preview_slides_while_cleanup_runs_and_no_number_changes,
    preview::a_link_opens_what_it_was_made_for_and_nothing_else,
    preview::links_end_with_what_they_were_made_for,
    preview::a_clip_can_be_watched_while_it_is_being_made,
    stream::a_stream_begins_before_it_ends_and_shows_its_window,
    stream::a_reader_who_leaves_ends_the_work_and_lets_the_segments_go,
    stream::half_a_video_never_looks_whole,
    stream::who_does_not_read_keeps_nobody_from_capturing,
    stream::who_never_reads_again_is_broken_off,
    stream::a_stream_is_a_capture_to_rights_and_limits,
    trim::a_trim_shows_the_pictures_of_its_part_and_no_others,
    trim::a_trim_across_a_gap_knows_when_it_was,
    trim::a_trim_outlives_the_clip_it_is_cut_out_of,
    trim::a_failed_trim_is_made_from_what_it_held_of_a_source_that_is_gone,
    trim::a_new_name_of_an_old_file_is_young,
    trim::a_damaged_source_is_no_shorter_clip,
    trim::the_native_muxer_copies_a_part_of_an_exact_clip,
    trim::what_cannot_be_trimmed_is_refused_and_a_repeat_gets_the_same_clip,
);
