//! Segments that a real egress wrote, cut both ways without anything having to be made another way.
//!
//! Four of them are kept beside the recordings of LiveKit. `RECORDED_SEGMENTS` names more directories of `seg_00000.ts` …
//! (separated by `:`), for a machine that has them.

use std::path::{Path, PathBuf};

use livekit_replay::error::Code;
use livekit_replay::media::compose::{CutPart, SegmentFile};
use livekit_replay::media::ts::{inspect, unwrap_pts};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    EXACT, NATIVE,
    joins::count_only,
    make,
    material::{FRAME, Scratch},
};

fn places() -> Vec<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/livekit/mute");
    let more = std::env::var("RECORDED_SEGMENTS").unwrap_or_default();
    let more = more.split(':').filter(|place| !place.is_empty()).map(PathBuf::from);
    std::iter::once(kept).chain(more).collect()
}

/// Its segments, and where the last one ends.
fn read(place: &Path) -> (Vec<SegmentFile>, i64) {
    let mut names: Vec<_> = place.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "ts"));
    names.sort();
    let (mut segments, mut near) = (Vec::new(), 3600 * 90_000);
    for path in names {
        let facts = inspect(&std::fs::read(&path).unwrap()).unwrap();
        let start = unwrap_pts(facts.pts_first, near);
        near = start + (facts.pts_end - facts.pts_first);
        segments.push(SegmentFile { path, pts_start_unwrapped: start, checksum: None });
    }
    (segments, near)
}

#[tokio::test]
async fn what_a_real_egress_wrote_is_copied_and_cut_exactly() {
    let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = Scratch::new();
    for place in places() {
        let (segments, end) = read(&place);
        let begin = segments[0].pts_start_unwrapped;
        for _ in 0..6 {
            let from_pts = random.random_range(begin..end - 2 * FRAME);
            let to_pts =
                random.random_range(from_pts + 2 * FRAME..=end.min(from_pts + 40 * 90_000));
            for way in [NATIVE, EXACT] {
                let part = CutPart { segments: segments.clone(), from_pts, to_pts };
                let made = match make(vec![part], way, &dir.0).await {
                    Ok(made) => made,
                    // the share was mute: the window lies where nothing was recorded
                    Err(error) => {
                        assert_eq!(error.code(), Code::NoUsableSegments);
                        continue;
                    }
                };
                let what = format!("{} {way:?} {from_pts}..{to_pts}", place.display());
                assert_eq!(made.unfit, None, "{what}");
                let shown: u64 = made.parts.iter().map(|span| span.frames).sum();
                assert_eq!(count_only(&made.file) as u64, shown, "{what}");
                println!(
                    "{what}: {} copied, {} encoded",
                    made.pictures_copied, made.pictures_encoded
                );
                std::fs::remove_file(made.file).unwrap();
            }
        }
    }
}
