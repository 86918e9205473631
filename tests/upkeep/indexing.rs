//! What the index makes of what egress writes.

use livekit_replay::{
    domain::{lifecycle::SessionStatus, timeline::PTS_BASE},
    error::Code,
    flow::index,
    store::{
        epoch::{Basis, EpochStatus},
        segment::SegmentState,
    },
};

use crate::bench::{Bench, DELAY_MS, Recorded, SEGMENT};

fn told(bench: &Bench, session: &Recorded<'_>) {
    *bench.livekit.media_started_at.lock().unwrap() = Some(session.began);
}

async fn numbers(session: &Recorded<'_>) -> Vec<i64> {
    session.segments().await.iter().map(|row| row.number).collect()
}

pub async fn the_clock_is_fixed_by_the_first_packet_and_by_the_label_if_nobody_tells(bench: Bench) {
    let first = bench.session("anna", "room").await;
    told(&bench, &first);
    first.record(0);
    assert_eq!(first.index().await.new, 1);
    let epoch = first.epoch_row().await;
    assert_eq!(epoch.basis, Some(Basis::StartedAt));
    assert_eq!(epoch.zero_at, Some(first.began));
    assert_eq!(epoch.delay_ms, Some(DELAY_MS));
    assert_eq!(epoch.status, EpochStatus::Active);
    let row = first.row().await;
    assert_eq!(row.status, SessionStatus::Active);
    assert_eq!(row.media_starts_at, Some(first.began));
    assert_eq!(row.media_ends_at, Some(first.screen(1)));
    assert!(row.highest_rate > 1000, "{}", row.highest_rate);

    *bench.livekit.media_started_at.lock().unwrap() = None;
    let second = bench.session("ben", "room").await;
    second.record(0);
    let waiting = second.index().await;
    assert_eq!(
        (waiting.new, waiting.waiting_for_clock),
        (0, 1),
        "no row before the clock is fixed"
    );
    assert!(second.segments().await.is_empty());
    bench.pass_seconds(3);
    assert_eq!(second.index().await.new, 1);
    let epoch = second.epoch_row().await;
    assert_eq!((epoch.basis, epoch.zero_at), (Some(Basis::Label), Some(second.label(0))));
    // what LiveKit says later does not move it
    told(&bench, &second);
    second.record(1);
    assert_eq!(second.index().await.new, 1);
    assert_eq!(second.epoch_row().await.zero_at, Some(second.label(0)));
    bench.close().await;
}

pub async fn every_odd_playlist_ends_in_the_same_index(bench: Bench) {
    let session = bench.session("anna", "room").await;
    told(&bench, &session);
    for number in 0..9 {
        session.write(number);
    }
    // the live playlist was caught while it is rewritten, the event playlist lags
    session.put("live.m3u8", "");
    session.put("index.m3u8", &session.playlist(0..1, false));
    assert_eq!(session.index().await.new, 1);
    // cut in the middle of an entry
    let whole = session.playlist(0..4, false);
    session.put("live.m3u8", &whole[..whole.len() - 9]);
    session.index().await;
    assert_eq!(numbers(&session).await, [0, 1, 2], "3 is named in part only");
    // the sliding one has passed over 3 and 4, which no playlist names: the directory has them
    session.put("live.m3u8", &session.playlist(5..8, false));
    session.index().await;
    assert_eq!(numbers(&session).await, (0..8).collect::<Vec<i64>>(), "8 is not closed");
    for row in session.segments().await {
        let number = row.number.unsigned_abs();
        assert_eq!(row.state, SegmentState::Usable);
        assert_eq!(
            (row.starts_at, row.ends_at),
            (session.screen(number), session.screen(number + 1))
        );
        assert_eq!(row.label_at, session.label(number));
        assert_eq!(row.pts_start, PTS_BASE + row.number * SEGMENT * 90_000);
        assert_eq!(row.key_frame_list(), [row.pts_start]);
    }
    assert_eq!(session.index().await.new, 0, "a second look finds nothing new");
    // the end
    session.put("live.m3u8", &session.playlist(4..9, true));
    assert_eq!(session.index().await.new, 1);
    assert!(session.epoch_row().await.playlist_ended);
    bench.close().await;
}

pub async fn damaged_files_are_indexed_with_their_reason_and_a_growing_one_turns_out_well(
    bench: Bench,
) {
    let session = bench.session("anna", "room").await;
    told(&bench, &session);
    for number in [0, 2, 4, 5] {
        session.write(number);
    }
    std::fs::write(session.path(1), b"").unwrap();
    std::fs::write(session.path(3), vec![7_u8; 188 * 40]).unwrap();
    let whole = std::fs::read(session.path(4)).unwrap();
    std::fs::write(session.path(4), &whole[..whole.len() / 2 + 50]).unwrap();
    // 6 is named and not there
    session.put("live.m3u8", &session.playlist(0..7, false));
    let indexed = session.index().await;
    assert_eq!((indexed.new, indexed.bad), (7, 4));
    let states: Vec<_> = session.segments().await.iter().map(|row| row.state).collect();
    assert_eq!(states[0], SegmentState::Usable);
    assert_eq!(states[1], SegmentState::Empty);
    assert!(matches!(states[3], SegmentState::Foreign | SegmentState::Corrupt), "{:?}", states[3]);
    assert_eq!(states[4], SegmentState::Truncated);
    assert_eq!(states[6], SegmentState::Missing);
    for row in session.segments().await {
        assert_eq!(row.starts_at, session.screen(row.number.unsigned_abs()), "{}", row.number);
    }
    // the copy ends, and the missing one shows up late
    std::fs::write(session.path(4), whole).unwrap();
    session.write(6);
    bench.pass_seconds(3);
    assert_eq!(session.index().await.new, 2);
    let states: Vec<_> = session.segments().await.iter().map(|row| row.state).collect();
    assert_eq!((states[4], states[6]), (SegmentState::Usable, SegmentState::Usable));
    // one that stays bad is not looked at for ever
    bench.pass_seconds(60);
    session.write(1);
    session.index().await;
    assert_eq!(session.segments().await[1].state, SegmentState::Empty);
    bench.close().await;
}

pub async fn a_new_epoch_counts_from_zero_again(bench: Bench) {
    let mut session = bench.session("anna", "room").await;
    told(&bench, &session);
    for number in 0..3 {
        session.record(number);
    }
    session.index().await;
    bench.pass_seconds(30);
    session.next_epoch().await;
    told(&bench, &session);
    for number in 0..2 {
        session.record(number);
    }
    assert_eq!(session.index().await.new, 2);
    let rows = session.segments().await;
    let places: Vec<_> = rows.iter().map(|row| (row.epoch, row.number)).collect();
    assert_eq!(places, [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]);
    assert_eq!(rows[3].pts_start, rows[0].pts_start, "PTS begin again");
    assert_eq!(rows[3].starts_at.micros_since(rows[0].starts_at), 30_000_000);
    bench.close().await;
}

pub async fn hostile_names_and_files_lead_nowhere(bench: Bench) {
    let session = bench.session("../../etc", "a/../b\n#EXTINF:\u{202e}").await;
    told(&bench, &session);
    assert!(session.directory.starts_with(bench.buffer().join("0123abcd")));
    let outside = bench.buffer().join("seg_00009.ts");
    std::fs::write(&outside, crate::bench::segment_bytes(9)).unwrap();
    session.write(0);
    // a link out of the directory, a pipe nobody writes to, a directory of a segment's name
    std::os::unix::fs::symlink(&outside, session.path(1)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(session.path(2)).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(session.path(3)).unwrap();
    session.write(4);
    let mut text = session.playlist(0..5, false);
    for name in ["../../seg_00009.ts", "/etc/passwd", "seg_00009.ts;rm", "http://host/seg_00009.ts"]
    {
        text += &format!("#EXT-X-PROGRAM-DATE-TIME:{}\n#EXTINF:2.000,\n{name}\n", session.label(5));
    }
    session.put("live.m3u8", &text);
    session.index().await;
    let states: Vec<_> =
        session.segments().await.iter().map(|row| (row.number, row.state)).collect();
    let foreign = SegmentState::Foreign;
    let usable = SegmentState::Usable;
    assert_eq!(states, [(0, usable), (1, foreign), (2, foreign), (3, foreign), (4, usable)]);
    for row in session.segments().await {
        assert_eq!(row.file_name, format!("seg_{:05}.ts", row.number));
    }
    bench.close().await;
}

pub async fn an_absent_store_loses_nothing(bench: Bench) {
    let session = bench.session("anna", "room").await;
    told(&bench, &session);
    session.record(0);
    session.index().await;
    let (there, away) = (bench.buffer(), bench.buffer().with_extension("away"));
    std::fs::rename(&there, &away).unwrap();
    let absent = index::index_session(&bench.deps, &session.id).await.expect("nothing to see");
    assert_eq!((absent.new, absent.total), (0, 1));
    // a file where the directory should be cannot be read as one
    std::fs::create_dir_all(session.directory.parent().unwrap()).unwrap();
    std::fs::write(&session.directory, b"no directory").unwrap();
    let error = index::index_session(&bench.deps, &session.id).await.expect_err("unreadable");
    assert_eq!(error.code(), Code::StorageUnavailable);
    std::fs::remove_dir_all(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    session.record(1);
    assert_eq!(session.index().await.new, 1);
    assert!(session.segments().await.iter().all(|row| row.state == SegmentState::Usable));
    bench.close().await;
}

pub async fn two_replicas_index_the_same_thing_once(bench: Bench) {
    let session = bench.session("anna", "room").await;
    told(&bench, &session);
    for number in 0..20 {
        session.write(number);
    }
    session.put("live.m3u8", &session.playlist(15..20, false));
    let other = bench.replica("two");
    let (left, right) = futures::join!(
        index::index_session(&bench.deps, &session.id),
        index::index_session(&other, &session.id)
    );
    assert_eq!(left.unwrap().new + right.unwrap().new, 20);
    assert_eq!(session.segments().await.len(), 20);
    bench.close().await;
}
