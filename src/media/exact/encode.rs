//! Encodes all edges of a clip in one run, and reads back what came of it.

use std::path::Path;

use ffmpeg_sidecar::command::FfmpegCommand;
use tokio::sync::mpsc;

use super::{
    Refusal, Unfit,
    scan::{Coded, Edges, Job, Pieces},
    settings::{Cap, Settings, settings},
};
use crate::{
    error::{Code, Error},
    media::{
        TOLERANCE,
        ffmpeg::{Ffmpeg, Limits},
        files::beside,
        ts::{
            Demuxed, demux,
            h264::{Format, SPS, Sps},
            unwrap_pts,
        },
    },
};

/// Encodes the edges through a file at `draft`, which the caller removes. Adds the encoder's parameter sets to those
/// of the source.
///
/// # Errors
/// [`Refusal::Unfit`] if the encoder does not give what was asked for; [`Refusal::Failed`] on cancellation.
pub(super) async fn encode(
    ffmpeg: &Ffmpeg,
    edges: &mut Edges,
    room: Option<Room>,
    draft: &Path,
    limits: &Limits,
) -> Result<Pieces, Refusal> {
    if edges.jobs.is_empty() {
        return Ok(Pieces::new());
    }
    let format = edges.sets.format()?.clone();
    let id = edges.sets.free_id()?;
    let cap = room.and_then(|room| room.cap(edges, &format));
    let mut command = command(ffmpeg, &edges.jobs, &settings(&format, id)?, cap, draft);
    let (send, feed) = mpsc::channel(1);
    let input = std::mem::take(&mut edges.input);
    let feeding = async move {
        for piece in input {
            if send.send(piece).await.is_err() {
                return;
            }
        }
    };
    let (ran, ()) = tokio::join!(ffmpeg.run(&mut command, Some(feed), limits), feeding);
    let said: Vec<String> = match ran {
        // a picture that is larger than the cap's buffer is no worse for that; the file's size is looked at later
        Ok(finished) => {
            finished.complaints.into_iter().filter(|line| !line.contains("VBV underflow")).collect()
        }
        Err(error) if error.code() == Code::Cancelled => return Err(error.into()),
        Err(error) => return Err(Unfit::Encoder(error.chain()).into()),
    };
    if !said.is_empty() {
        return Err(Unfit::Encoder(said.join(" | ")).into());
    }
    let encoded = draft.to_owned();
    let bytes = beside(limits.deadline, move || std::fs::read(encoded)).await;
    let bytes = bytes.map_err(|error| Error::internal("reading encoded edges", error))?;
    let given = demux(&bytes).map_err(|damage| Unfit::Encoder(damage.to_string()))?;
    Ok(read_back(given, edges, &format, id)?)
}

/// What the whole clip may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Of the file.
    pub bytes: u64,
    /// Ticks of a picture.
    pub frame: i64,
}

impl Room {
    /// What is left for the edges beside what is copied.
    fn cap(self, edges: &Edges, format: &Format) -> Option<Cap> {
        let left = self.bytes.checked_sub(edges.kept_bytes)?;
        let pictures: usize = edges.jobs.iter().map(|job| job.times.len()).sum();
        Cap::within(left, pictures as u64 * self.frame.unsigned_abs(), format.level)
    }
}

fn command(
    ffmpeg: &Ffmpeg,
    jobs: &[Job],
    settings: &Settings,
    cap: Option<Cap>,
    out: &Path,
) -> FfmpegCommand {
    let mut command = ffmpeg.command();
    // the stream is ours: its times are to be taken as they are
    command.args(["-copyts", "-f", "mpegts"]).input("pipe:0");
    command.args(["-map", "0:v:0", "-vf", &selection(jobs)]);
    command.args(["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
    command.codec_video("libx264").preset("veryfast").crf(18);
    if let Some(Cap { rate, buffer }) = cap {
        command.args(["-maxrate", &rate.to_string(), "-bufsize", &buffer.to_string()]);
    }
    command.args(["-profile:v", settings.profile, "-level", &settings.level]);
    command.args(["-force_key_frames", &first_pictures(jobs)]);
    command.args(["-x264-params", &settings.params]);
    command.args(["-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts"]).overwrite().arg(out);
    command
}

/// Pictures wanted, by time in the stream.
fn selection(jobs: &[Job]) -> String {
    let ranges = jobs.iter().filter_map(|job| {
        let (first, last) = (job.times.first()? + job.offset, job.times.last()? + job.offset);
        Some(format!("gte(pts,{})*lte(pts,{})", first - TOLERANCE, last + TOLERANCE))
    });
    format!("select='{}'", ranges.collect::<Vec<_>>().join("+"))
}

/// Every piece begins with a key picture; pictures are counted as they reach the encoder.
fn first_pictures(jobs: &[Job]) -> String {
    let mut count = 0;
    let firsts = jobs.iter().map(|job| {
        let first = format!("eq(n,{count})");
        count += job.times.len();
        first
    });
    format!("expr:{}", firsts.collect::<Vec<_>>().join("+"))
}

/// Gives every picture back to its group; all must be there, each once, at its own time.
fn read_back(given: Demuxed, edges: &mut Edges, format: &Format, id: u32) -> Result<Pieces, Unfit> {
    let wrong = |why: &str| Err(Unfit::Encoder(format!("the encoded edges {why}")));
    let mut pieces = Pieces::new();
    let mut units = given.video.into_iter().peekable();
    let mut sets = None;
    for job in &edges.jobs {
        let mut piece = Vec::with_capacity(job.times.len());
        for unit in units.by_ref().take(job.times.len()) {
            let reference = job.times.first().copied().unwrap_or_default() + job.offset;
            let pts = unwrap_pts(unit.pts_raw, reference) - job.offset;
            if sets.get_or_insert_with(|| unit.sets.clone()).hash != unit.sets.hash {
                return wrong("change their parameter sets");
            }
            piece.push(Coded { pts, key: unit.key, data: unit.data });
        }
        let mut times: Vec<_> = piece.iter().map(|coded| coded.pts).collect();
        times.sort_unstable();
        if times != job.times {
            return wrong("lie at other times");
        }
        let keys = piece.iter().filter(|coded| coded.key).count();
        if keys != 1 || !piece.first().is_some_and(|coded| coded.key) {
            return wrong("are not one group each");
        }
        pieces.insert(job.place, piece);
    }
    if units.next().is_some() {
        return wrong("are too many");
    }
    let Some(sets) = sets else { return wrong("are missing") };
    let sequence = sets.units().iter().find(|unit| unit.first().is_some_and(|b| b & 31 == SPS));
    let own = sequence.and_then(|unit| Sps::read(unit));
    if own.as_ref().is_none_or(|own| own.id != id || own.format != *format) {
        let own = own.map(|own| own.format);
        return Err(Unfit::Encoder(format!("the encoder gave {own:?} instead of {format:?}")));
    }
    edges.sets.add(&sets)?;
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_chosen_by_time_and_begin_with_a_key_picture_each() {
        let job = |times: &[i64], offset| Job { place: (0, 0, 0), times: times.to_vec(), offset };
        let jobs = [job(&[3000, 6000, 9000], 1000), job(&[50_000], 90_000)];
        assert_eq!(
            selection(&jobs),
            "select='gte(pts,3955)*lte(pts,10045)+gte(pts,139955)*lte(pts,140045)'"
        );
        assert_eq!(first_pictures(&jobs), "expr:eq(n,0)+eq(n,3)");
    }
}
