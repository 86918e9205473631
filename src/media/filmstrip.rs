//! Many small pictures of a recording in one image. Only the key frames wanted are read out of their segments and
//! decoded, by one FFmpeg; nothing touches the disk.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    TICKS, TOLERANCE,
    compose::{SegmentFile, load},
    ffmpeg::{Ffmpeg, Limits, failed},
    native,
    ts::{TsWriter, unwrap_pts},
};
use crate::error::{Code, Error, Result};

/// Pictures beside each other.
pub const COLUMNS: u32 = 10;
/// Width of one, pixels.
pub const WIDTH: u32 = 160;
/// No image is larger, bytes.
const MOST_BYTES: usize = 8 << 20;
/// Pieces that wait on either side of FFmpeg.
const PIECES_AHEAD: usize = 2;

/// A key frame.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The segment that holds it.
    pub segment: SegmentFile,
    /// When it is shown, unwrapped ticks.
    pub pts: i64,
}

/// Height of one picture of a recording of that size: even, and at most a few times its width.
pub fn height_of(width: u32, height: u32) -> u32 {
    let fitting = u64::from(WIDTH) * u64::from(height) / u64::from(width.max(1));
    let fitting = u32::try_from(fitting).unwrap_or(WIDTH).clamp(2, WIDTH * 4);
    fitting / 2 * 2
}

/// The pictures as a JPEG, [`COLUMNS`] in a row, each [`WIDTH`] x `height`; one of another shape is stretched.
///
/// # Errors
/// `no_usable_segments`, `storage_unavailable`, `ffmpeg_failed`, `cancelled`.
pub async fn sprite(
    ffmpeg: &Ffmpeg,
    pictures: Vec<Picture>,
    height: u32,
    limits: &Limits,
) -> Result<Bytes> {
    let count = u32::try_from(pictures.len()).unwrap_or(u32::MAX);
    let (columns, rows) = (count.clamp(1, COLUMNS), count.div_ceil(COLUMNS).max(1));
    let mut command = ffmpeg.quiet_command();
    // a change of size in the middle must not begin the image anew
    command.args(["-copyts", "-reinit_filter", "0", "-f", "mpegts"]).input("pipe:0");
    command.args(["-map", "0:v:0", "-fps_mode", "passthrough", "-frames:v", "1", "-vf"]);
    command.arg(format!("scale=w={WIDTH}:h={height},setsar=1,tile={columns}x{rows}"));
    command.args(["-c:v", "mjpeg", "-q:v", "5", "-pix_fmt", "yuvj420p", "-f", "image2pipe"]);
    command.arg("pipe:1");
    let (send, feed) = mpsc::channel::<Vec<u8>>(PIECES_AHEAD);
    let (out, mut made) = mpsc::channel::<Result<Bytes>>(PIECES_AHEAD);
    // a store that hangs is left behind
    let over = limits.cancel.child_token();
    let patient = Limits { cancel: over.clone(), ..limits.clone() };
    let reading = native::run(&patient, move |control| {
        write(&pictures, &mut |piece| control.go_on().is_ok() && send.blocking_send(piece).is_ok())
    });
    let run = async {
        let ran = ffmpeg.run_to(&mut command, Some(feed), &out, limits).await;
        if ran.is_err() {
            over.cancel();
        }
        drop(out);
        ran
    };
    let collect = async {
        let mut image = bytes::BytesMut::new();
        while let Some(Ok(piece)) = made.recv().await {
            if image.len() + piece.len() > MOST_BYTES {
                break;
            }
            image.extend_from_slice(&piece);
        }
        // nobody takes more: the program ends
        drop(made);
        image.freeze()
    };
    let (ran, image, read) = tokio::join!(run, collect, reading);
    match read {
        Ok(read) => read?,
        Err(error) => return Err(ran.err().unwrap_or(error)),
    }
    ran?;
    // a JPEG ends with its marker
    if image.ends_with(&[0xff, 0xd9]) {
        return Ok(image);
    }
    Err(failed("No filmstrip could be made.", "no whole picture came out"))
}

fn write(pictures: &[Picture], sink: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<()> {
    let mut writer = TsWriter::new(false);
    let mut at = 10 * TICKS;
    for picture in pictures {
        let media = load(&picture.segment)?;
        let reference = picture.segment.pts_start_unwrapped;
        let is_it =
            |pts_raw: i64| (unwrap_pts(pts_raw, reference) - picture.pts).abs() <= TOLERANCE;
        let unit = media.video.iter().find(|unit| unit.key && is_it(unit.pts_raw));
        let unit = unit.ok_or_else(|| {
            Error::new(Code::NoUsableSegments, "A picture of the recording is not where it was.")
        })?;
        writer.video(at, at, true, &unit.data);
        at += TICKS;
        if !sink(writer.take()) {
            return Ok(());
        }
    }
    Ok(())
}
