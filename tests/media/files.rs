//! What is in a finished file besides pictures, and how it is published.

use std::{fs, process::Command};

use livekit_replay::{
    domain::time::Timestamp,
    error::Code,
    media::{cut::cut, exact::Unfit, files::Gate, mp4, poster::poster, publish, verify},
};

use crate::{
    EXACT, NATIVE, WAYS, ffmpeg, limits, make,
    material::{Kind, Recording, Scratch, TWO_SECONDS},
    request,
};

#[tokio::test]
async fn the_installed_ffmpeg_has_all_that_is_needed() {
    let found = ffmpeg().check(&limits()).await.unwrap();
    assert_eq!(found.missing, Vec::<String>::new());
    assert!(found.version.starts_with(|first: char| first.is_ascii_alphanumeric()), "{found:?}");
}

#[tokio::test]
async fn a_clip_has_its_index_in_front_and_says_when_and_what_it_is() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let title = "-y \"; rm -rf / #\n'$(id)' %s = \u{1F600}";
    for way in WAYS {
        let part = recording.part(0..4, recording.pts_of(10), recording.pts_of(200));
        let mut wanted = request(vec![part], way, &dir.0);
        wanted.title = Some(title.to_owned());
        wanted.started_at = Timestamp::parse_rfc3339("2026-01-02T03:04:05.678Z");
        let made = cut(&ffmpeg(), wanted).await.unwrap();
        let read = mp4::read(&made.file).unwrap();
        assert!(read.index_in_front);
        let video = read.track(b"vide").unwrap();
        assert_eq!((&video.codec, video.sample_entries, video.edits.len()), (b"avc1", 1, 1));
        let audio = read.track(b"soun").unwrap();
        assert_eq!((&audio.codec, audio.edits.len()), (b"mp4a", 1));
        assert!(read.duration.abs_diff(made.facts.duration_us as u64 * 9 / 100) <= 1);
        let tags = "format_tags=title,creation_time,date";
        let mut probe = Command::new("ffprobe");
        probe.args(["-v", "error", "-show_entries", tags, "-of", "default=nw=1"]).arg(&made.file);
        let said = String::from_utf8(probe.output().unwrap().stdout).unwrap();
        let title: String = title.chars().filter(|letter| !letter.is_control()).collect();
        assert!(said.contains(&format!("TAG:title={title}")), "{said}");
        assert!(said.contains("TAG:creation_time=2026-01-02T03:04:05"), "{said}");
        assert!(said.contains("TAG:date=2026-01-02T03:04:05.678Z"), "{said}");
        let bytes = fs::read(&made.file).unwrap();
        assert_eq!(made.facts.blake3, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(made.facts.size_bytes, bytes.len() as u64);
    }
}

#[tokio::test]
async fn an_encode_keeps_to_its_allowance() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let part = recording.part(0..8, recording.pts_of(5), recording.pts_of(450));
    let free = make(vec![part.clone()], EXACT, &dir.0).await.unwrap();
    let allowance = free.facts.size_bytes * 7 / 10;
    let mut wanted = request(vec![part], EXACT, &dir.0);
    wanted.max_bytes = Some(allowance);
    let made = cut(&ffmpeg(), wanted.clone()).await.unwrap();
    println!(
        "{} bytes freely, {} of {allowance} allowed",
        free.facts.size_bytes, made.facts.size_bytes
    );
    assert_eq!(made.unfit, Some(Unfit::TooLarge));
    assert!(made.facts.size_bytes <= allowance);
    assert_eq!(made.facts.frames, 445);
    wanted.max_bytes = Some(1_000);
    let error = cut(&ffmpeg(), wanted).await.unwrap_err();
    assert_eq!(error.code(), Code::QuotaExceeded);
    assert_eq!(dir.files(), 2);
}

/// More than the bitrate holds.
const NOISE: &str = "-vf noise=alls=30:allf=t -b:v 800k -maxrate 800k -bufsize 800k";

/// What is reserved for a capture is what its segments take: with them the edges must get along.
#[tokio::test]
async fn edges_keep_to_what_the_source_took() {
    // a poorer source than an encoder with nothing but quality in mind would make
    let kind = Kind { segment_seconds: 10, seconds: 20, options: NOISE, ..TWO_SECONDS };
    let recording = Recording::make(kind);
    let dir = Scratch::new();
    let part = recording.part(0..2, recording.pts_of(10), recording.pts_of(590));
    let free = make(vec![part.clone()], EXACT, &dir.0).await.unwrap();
    let segments = part.segments.iter().map(|one| fs::metadata(&one.path).unwrap().len());
    let allowance = segments.sum();
    let mut wanted = request(vec![part], EXACT, &dir.0);
    wanted.max_bytes = Some(allowance);
    let made = cut(&ffmpeg(), wanted).await.unwrap();
    println!(
        "{} bytes freely, {} of {allowance} allowed",
        free.facts.size_bytes, made.facts.size_bytes
    );
    assert!(free.facts.size_bytes > allowance, "{} is not much", free.facts.size_bytes);
    assert_eq!(made.unfit, None);
    assert!(made.facts.size_bytes <= allowance);
    assert_eq!(made.facts.frames, 580);
}

#[tokio::test]
async fn a_broken_file_does_not_pass_the_check() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let part = recording.part(0..4, recording.pts_of(0), recording.pts_of(240));
    let made = make(vec![part], NATIVE, &dir.0).await.unwrap();
    let expected = verify::Expected {
        duration: 240 * 3000,
        frame_duration: 3000,
        presented: 240,
        stored: 240,
        audio: true,
    };
    let check = async |expected: &verify::Expected| {
        verify::verify(&ffmpeg(), &made.file, expected, &limits()).await
    };
    assert!(check(&expected).await.is_ok());
    let fewer = verify::Expected { presented: 239, ..expected.clone() };
    assert_eq!(check(&fewer).await.unwrap_err().code(), Code::FfmpegFailed);
    let longer = verify::Expected { duration: 243 * 3000, ..expected.clone() };
    assert_eq!(check(&longer).await.unwrap_err().code(), Code::FfmpegFailed);
    let whole = fs::read(&made.file).unwrap();
    // rot in the pictures: the index stays as it is
    let begin = whole.windows(4).position(|name| name == b"mdat").unwrap();
    // of the last of four groups, and a little before: the first picture is good
    let late = begin + (whole.len() - begin) * 5 / 8;
    let mut bytes = whole.clone();
    for byte in &mut bytes[late..] {
        *byte ^= 0x5a;
    }
    fs::write(&made.file, &bytes).unwrap();
    assert_eq!(check(&expected).await.unwrap_err().code(), Code::FfmpegFailed);
    let mut bytes = whole;
    for byte in &mut bytes[begin + 8..] {
        *byte ^= 0x5a;
    }
    fs::write(&made.file, &bytes).unwrap();
    let rotten = check(&expected).await.unwrap_err();
    assert!(rotten.chain().contains("NAL"), "{}", rotten.chain());
    bytes.truncate(begin / 2);
    fs::write(&made.file, &bytes).unwrap();
    assert_eq!(check(&expected).await.unwrap_err().code(), Code::FfmpegFailed);
}

#[tokio::test]
async fn a_poster_is_a_small_jpeg_or_nothing() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let part = recording.part(0..2, recording.pts_of(0), recording.pts_of(90));
    let made = make(vec![part], NATIVE, &dir.0).await.unwrap();
    let out = dir.0.join("poster.jpg");
    poster(&ffmpeg(), &made.file, made.facts.duration_us, &out, &limits()).await.unwrap();
    assert_eq!(fs::read(&out).unwrap()[..3], [0xff, 0xd8, 0xff]);
    fs::remove_file(&out).unwrap();
    fs::write(&made.file, b"no clip").unwrap();
    assert!(poster(&ffmpeg(), &made.file, 1_000_000, &out, &limits()).await.is_err());
    assert!(!out.exists());
}

#[tokio::test]
async fn files_are_published_whole_and_absent_is_not_unreadable() {
    let (dir, gate) = (Scratch::new(), Gate::default());
    let work = dir.0.join("work.mp4");
    let place = dir.0.join("clips/user/clip.mp4");
    fs::write(&work, b"clip").unwrap();
    publish::publish(&gate, &work, &place).await.unwrap();
    assert!(!work.exists());
    assert_eq!(publish::size(&gate, &place).await.unwrap(), Some(4));
    let note = place.with_extension("json");
    publish::write_whole(&gate, &dir.0.join(".work"), &note, b"{}".to_vec()).await.unwrap();
    publish::write_whole(&gate, &dir.0.join(".work"), &note, b"{\"a\":1}".to_vec()).await.unwrap();
    assert_eq!(
        publish::read_whole(&gate, &note).await.unwrap().as_deref(),
        Some(&b"{\"a\":1}"[..])
    );
    assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 2);
    assert!(publish::remove(&gate, &note).await.unwrap());
    assert!(!publish::remove(&gate, &note).await.unwrap());
    assert_eq!(publish::read_whole(&gate, &note).await.unwrap(), None);
    // a file where a directory should be: it cannot be said what is there
    let beneath = place.join("deeper.json");
    assert_eq!(
        publish::read_whole(&gate, &beneath).await.unwrap_err().code(),
        Code::StorageUnavailable
    );
    assert!(publish::publish(&gate, &work, &place).await.unwrap_err().is_retryable());
}
