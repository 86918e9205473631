//! Where encoding only the edges is not certain, the whole window is encoded, and the clip is as right.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use livekit_replay::{
    error::Code,
    media::{
        compose::CutPart,
        cut::{CutOutcome, cut},
        exact::Unfit,
        ffmpeg::Ffmpeg,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    EXACT,
    edges::complaints,
    make,
    material::{FRAME, Kind, Recording, Scratch, TWO_SECONDS, processes_naming, watch},
    request,
};

/// A clip that was encoded as a whole, for that reason, and shows these pictures.
fn assert_whole(made: &CutOutcome, unfit: &Unfit, numbers: &[i64]) {
    assert_eq!(made.unfit.as_ref(), Some(unfit));
    assert!(made.encoded);
    assert_eq!((made.pictures_copied, made.pictures_encoded), (0, numbers.len() as u64));
    let seen = watch(&made.file, &[]);
    assert_eq!(seen.numbers(), numbers);
    assert_eq!(watch(&made.file, &["-ignore_editlist", "1"]).numbers(), numbers);
    assert!(seen.longest_gap() < 0.035);
    assert_eq!(complaints(&made.file, &[]), "");
    if made.facts.audio_codec.is_some() {
        assert!(seen.worst_sync().abs() <= 0.04, "{}", seen.worst_sync());
    }
}

fn range(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}

/// Pictures 21 to 200 of a recording made with these options.
async fn of_options(options: &'static str) -> (CutOutcome, Scratch) {
    let recording = Recording::make(Kind { options, seconds: 8, ..TWO_SECONDS });
    let dir = Scratch::new();
    let part = recording.part(0..4, recording.pts_of(21), recording.pts_of(200));
    (make(vec![part], EXACT, &dir.0).await.unwrap(), dir)
}

#[tokio::test]
async fn interlaced_pictures() {
    let (made, _dir) = of_options("-flags +ildct -x264-params interlaced=1:scenecut=0").await;
    assert_whole(&made, &Unfit::Interlaced, &range(21, 200));
}

#[tokio::test]
async fn colours_of_an_unknown_kind() {
    let (made, _dir) = of_options("-x264-params scenecut=0:colorprim=film").await;
    assert_whole(&made, &Unfit::Colour, &range(21, 200));
}

#[tokio::test]
async fn a_profile_that_is_not_encoded_here() {
    let (made, _dir) = of_options("-pix_fmt yuv422p -profile:v high422").await;
    assert_whole(&made, &Unfit::Profile, &range(21, 200));
}

#[tokio::test]
async fn sound_with_many_channels() {
    let (made, _dir) = of_options("-ac 6").await;
    assert_whole(&made, &Unfit::Sound, &range(21, 200));
}

const LATER: Kind = Kind { seconds: 6, first_number: 900, ..TWO_SECONDS };

async fn joined_with(second: Kind) -> (CutOutcome, Scratch) {
    let first = Recording::make(TWO_SECONDS);
    let second = Recording::make(second);
    let dir = Scratch::new();
    let parts = vec![
        first.part(0..3, first.pts_of(33), first.pts_of(150)),
        second.part(0..3, second.pts_of(911), second.pts_of(1020)),
    ];
    (make(parts, EXACT, &dir.0).await.unwrap(), dir)
}

#[tokio::test]
async fn a_source_that_began_anew_with_other_settings() {
    let (made, _dir) = joined_with(Kind { options: "-level 3.1", ..LATER }).await;
    assert_whole(&made, &Unfit::ClashingSets, &[range(33, 150), range(911, 1020)].concat());
}

#[tokio::test]
async fn another_level_under_another_id() {
    let options = "-level 3.1 -x264-params keyint=250:scenecut=0:sps-id=4";
    let (made, _dir) = joined_with(Kind { options, ..LATER }).await;
    assert_whole(&made, &Unfit::ChangedFormat, &[range(33, 150), range(911, 1020)].concat());
}

#[tokio::test]
async fn settings_that_change_in_the_middle_of_a_part() {
    let first = Recording::make(TWO_SECONDS);
    let other = Recording::make(Kind { options: "-level 3.1", ..TWO_SECONDS });
    let dir = Scratch::new();
    let mut part = first.part(0..5, first.pts_of(33), first.pts_of(290));
    part.segments[2].path = other.segments[2].0.clone();
    let made = make(vec![part], EXACT, &dir.0).await.unwrap();
    let Some(Unfit::Writer(why)) = made.unfit.clone() else { panic!("{:?}", made.unfit) };
    assert_whole(&made, &Unfit::Writer(why), &range(33, 290));
}

#[tokio::test]
async fn two_key_pictures_that_meet_at_a_join() {
    let recording = Recording::make(TWO_SECONDS);
    let dir = Scratch::new();
    let at = |number| recording.pts_of(number);
    let parts = vec![recording.part(0..2, at(60), at(61)), recording.part(3..5, at(180), at(250))];
    let made = make(parts, EXACT, &dir.0).await.unwrap();
    assert_whole(&made, &Unfit::TwinKeys, &[range(60, 61), range(180, 250)].concat());
}

/// A program that calls FFmpeg, and does `more` where the arguments hold `word`.
fn with_fault(dir: &Scratch, word: &str, more: &str) -> PathBuf {
    let script = dir.0.join("ffmpeg");
    let text = format!("#!/bin/bash\ncase \"$*\" in *{word}*) {more};; esac\nexec ffmpeg \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

async fn with_program(word: &str, more: &str) -> (CutOutcome, Scratch) {
    let recording = Recording::make(TWO_SECONDS);
    let (dir, bin) = (Scratch::new(), Scratch::new());
    let part: CutPart =
        recording.part(0..4, recording.pts_of(21) + FRAME / 3, recording.pts_of(200));
    let wanted = request(vec![part], EXACT, &dir.0);
    let program = Ffmpeg::new(with_fault(&bin, word, more));
    let made = cut(&program, wanted).await.unwrap();
    assert_eq!(dir.files(), 1, "only the clip is left");
    (made, dir)
}

#[tokio::test]
async fn an_encoder_that_fails() {
    let (made, _dir) = with_program("sps-id", "exit 7").await;
    let unfit = made.unfit.clone().unwrap();
    assert!(matches!(&unfit, Unfit::Encoder(why) if why.contains("7")), "{unfit:?}");
    assert_whole(&made, &unfit, &range(22, 200));
}

/// A program that hangs and has started another one, which does too.
fn hanging(bin: &Scratch) -> String {
    let name = bin.0.join("other").display().to_string();
    format!("bash -c 'exec -a {name} sleep infinity' & wait")
}

/// Waits until the kernel has taken all of them away: only the first was ours to wait for.
async fn none_left(bin: &Scratch) {
    let name = bin.0.to_str().unwrap();
    let gone = async {
        while !processes_naming(name).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("no process is left");
}

fn part_of_it() -> CutPart {
    let recording = Recording::make(TWO_SECONDS);
    recording.part(0..4, recording.pts_of(21) + FRAME / 3, recording.pts_of(200))
}

#[tokio::test]
async fn an_encoder_that_hangs() {
    let (dir, bin) = (Scratch::new(), Scratch::new());
    let mut wanted = request(vec![part_of_it()], EXACT, &dir.0);
    wanted.stall = Duration::from_secs(3);
    let program = Ffmpeg::new(with_fault(&bin, "sps-id", &hanging(&bin)));
    let made = cut(&program, wanted).await.unwrap();
    let unfit = made.unfit.clone().unwrap();
    assert!(matches!(&unfit, Unfit::Encoder(why) if why.contains("no progress")), "{unfit:?}");
    assert_whole(&made, &unfit, &range(22, 200));
    assert_eq!(dir.files(), 1, "only the clip is left");
    none_left(&bin).await;
}

#[tokio::test]
async fn a_program_that_always_hangs_ends_with_the_deadline() {
    let (dir, bin) = (Scratch::new(), Scratch::new());
    let mut wanted = request(vec![part_of_it()], EXACT, &dir.0);
    wanted.deadline = Duration::from_secs(2);
    let program = Ffmpeg::new(with_fault(&bin, "", &hanging(&bin)));
    let error = cut(&program, wanted).await.unwrap_err();
    assert_eq!(error.code(), Code::FfmpegFailed);
    assert_eq!(dir.files(), 0);
    none_left(&bin).await;
}

#[tokio::test]
async fn an_encoder_that_hangs_is_ended_when_the_cut_is_cancelled() {
    let (dir, bin) = (Scratch::new(), Scratch::new());
    let cancel = CancellationToken::new();
    let mut wanted = request(vec![part_of_it()], EXACT, &dir.0);
    wanted.cancel = cancel.clone();
    let program = Ffmpeg::new(with_fault(&bin, "sps-id", &hanging(&bin)));
    let other = bin.0.join("other").display().to_string();
    let work = tokio::spawn(async move { cut(&program, wanted).await });
    while processes_naming(&other).is_empty() && !work.is_finished() {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert_eq!(work.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert_eq!(dir.files(), 0);
    none_left(&bin).await;
}

#[tokio::test]
async fn an_encoder_that_gives_something_else() {
    let (made, _dir) = with_program("sps-id", "set -- \"${@/sps-id/ref=7:sps-id}\"").await;
    let unfit = made.unfit.clone().unwrap();
    assert!(matches!(&unfit, Unfit::Encoder(why) if why.contains("refs: 7")), "{unfit:?}");
    assert_whole(&made, &unfit, &range(22, 200));
}

#[tokio::test]
async fn an_encoder_that_loses_a_picture() {
    let (made, _dir) =
        with_program("sps-id", "set -- \"${@/gte(pts,/not(eq(n,40))*gte(pts,}\"").await;
    let unfit = made.unfit.clone().unwrap();
    assert!(matches!(&unfit, Unfit::Encoder(_)), "{unfit:?}");
    assert_whole(&made, &unfit, &range(22, 200));
}

/// The last list of hashes is that of the source's pictures.
const OTHER_HASH: &str = "ffmpeg \"$@\" || exit 1; sed -i '$ s/.$/_/' \"${@: -1}\"; exit 0";

#[tokio::test]
async fn copied_pictures_that_do_not_look_like_the_source() {
    let (made, _dir) = with_program("framehash", OTHER_HASH).await;
    let unfit = made.unfit.clone().unwrap();
    assert!(matches!(&unfit, Unfit::Check(why) if why.contains("not the source")), "{unfit:?}");
    assert_whole(&made, &unfit, &range(22, 200));
}

#[tokio::test]
async fn a_decoder_that_complains() {
    let (made, _dir) = with_program("framehash", "echo concealing errors >&2").await;
    let unfit = made.unfit.clone().unwrap();
    assert!(matches!(&unfit, Unfit::Check(why) if why.contains("concealing")), "{unfit:?}");
    assert_whole(&made, &unfit, &range(22, 200));
}
