//! Before a clip with encoded edges is believed: without its edit list it has to hold exactly the pictures planned;
//! its edges and seams are decoded; and copied pictures there have to look like the source's, bit for bit.

use std::{collections::BTreeMap, ops::Range, path::Path};

use tokio::sync::mpsc;

use super::{
    Refusal, Unfit,
    write::{COMPARED, Made, Picture},
};
use crate::{
    error::{Code, Error},
    media::{
        TICKS,
        compose::BASE,
        draft::Draft,
        ffmpeg::{Ffmpeg, Limits},
        files, ticks_to_micros,
    },
};

/// More stretches than these are decoded as one.
const STRETCHES: usize = 5;
/// FFmpeg's word for an input that is read faster than it is decoded, which is said of several inputs only.
const BUSY: &str = "Thread message queue blocking";
/// Less than any distance of two pictures, more than rounding: 5 ms.
const HAIR: i64 = 450;
/// Pictures wait for others before they come out: an input is read so much further.
const MARGIN: i64 = 2 * TICKS;
/// Times may be rounded by this much on their way through a file and FFmpeg.
const ROUNDING: i64 = 2;

/// What one decoded stretch showed: a name for the content of each picture, by its time in the clip.
type Seen = BTreeMap<i64, String>;

/// Decodes edges and seams of the finished file, and lists all its pictures as they are stored. `lead`: ticks that lie
/// before the shown part when the edit list is ignored.
///
/// # Errors
/// [`Refusal::Unfit`] for anything odd, be it only a word of FFmpeg's; [`Refusal::Failed`] on cancellation.
pub(super) async fn check(
    ffmpeg: &Ffmpeg,
    file: &Path,
    made: Made,
    lead: i64,
    work_dir: &Path,
    limits: &Limits,
) -> Result<(), Refusal> {
    let stretches = stretches(&made.pictures, made.depth);
    let mut command = ffmpeg.command();
    command.args(["-copyts", "-ignore_editlist", "1", "-an", "-i"]).arg(file);
    let mut decoded = Vec::new();
    for stretch in &stretches {
        let first = made.pictures.get(stretch.start).map_or(0, |first| first.pts);
        if first > 0 {
            // FFmpeg seeks to the key picture at or before: a hair behind it means this one
            let at = ticks_to_micros(first + HAIR);
            command.args(["-noaccurate_seek", "-ss", &format!("{at}us")]);
        }
        // without an end FFmpeg would go on decoding while another output is still written
        let last = made.pictures.get(stretch.end.saturating_sub(1)).map_or(first, |last| last.pts);
        let length = ticks_to_micros(last - first + MARGIN);
        command.args(["-t", &format!("{length}us"), "-an", "-i"]).arg(file);
        decoded.push((first, stretch.len()));
    }
    let feed = (!made.compared.is_empty()).then(|| {
        command.args(["-f", "mpegts", "-i", "pipe:0"]);
        decoded.push((BASE, made.compared.len()));
        fed(made.reference)
    });
    let lists: Vec<_> = (0..=decoded.len()).map(|_| Draft::new(work_dir, "hash")).collect();
    command.args(["-map", "0:v:0", "-c", "copy"]);
    for (index, draft) in lists.iter().enumerate() {
        if let Some((first, count)) = index.checked_sub(1).and_then(|at| decoded.get(at)) {
            command.args(["-map", &format!("{index}:v:0"), "-frames:v", &count.to_string()]);
            // should the seek have gone further back
            let from = ticks_to_micros(first - HAIR);
            command.args(["-vf", &format!("select='gte(t*1000000,{from})'")]);
            command.args(["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
        }
        command.args(["-f", "framehash", "-hash", "murmur3"]).overwrite().arg(draft.path());
    }
    let (feed, feeding) = feed.unzip();
    let feeding = async {
        if let Some(feeding) = feeding {
            feeding.await;
        }
    };
    let (ran, ()) = tokio::join!(ffmpeg.run(&mut command, feed, limits), feeding);
    let said = match ran {
        Ok(finished) => finished.complaints,
        Err(error) if error.code() == Code::Cancelled => return Err(error.into()),
        Err(error) => return Err(Unfit::Check(error.chain()).into()),
    };
    let said: Vec<_> = said.into_iter().filter(|line| !line.contains(BUSY)).collect();
    if !said.is_empty() {
        return Err(Unfit::Check(said.join(" | ")).into());
    }
    let mut seen = Vec::new();
    for draft in &lists {
        let path = draft.path().to_owned();
        let text = files::beside(limits.deadline, move || std::fs::read_to_string(path)).await;
        let text = text.map_err(|error| Error::internal("reading decoded pictures", error))?;
        seen.push(parse(&text).ok_or_else(|| Unfit::Check("the check cannot be read".into()))?);
    }
    Ok(judge(&made.pictures, &stretches, &made.compared, lead, seen)?)
}

/// A channel with the bytes in it, and what puts them there.
fn fed(bytes: Vec<u8>) -> (mpsc::Receiver<Vec<u8>>, impl Future<Output = ()>) {
    let (send, feed) = mpsc::channel(1);
    let feeding = async move {
        // whoever takes no more has said why
        let _ = send.send(bytes).await;
    };
    (feed, feeding)
}

/// What is decoded: the beginning, every seam from a key picture before it to some pictures behind it, the end.
///
/// FFmpeg seeks by decoding time. A key picture that follows another one by no more than the `depth` of reordering is
/// decoded when that other one is shown, and would be taken for it: such a short group is entered one group earlier.
fn stretches(pictures: &[Picture], depth: usize) -> Vec<Range<usize>> {
    let count = pictures.len();
    let key_before = |index: usize| {
        let behind = pictures.get(index + 1..).unwrap_or_default();
        let next = behind.iter().position(|picture| picture.key);
        let mut next = next.map_or(usize::MAX, |next| index + 1 + next);
        let before = pictures.get(..=index).unwrap_or_default();
        let keys = before.iter().enumerate().rev().filter(|(_, picture)| picture.key);
        let long = keys.map(|(key, _)| (key, std::mem::replace(&mut next, key)));
        let mut long = long.filter(|(key, next)| next - key > depth + 1);
        long.next().map_or(0, |(key, _)| key)
    };
    let mut wanted: Vec<_> = std::iter::once(0..count.min(COMPARED)).collect();
    for (index, pair) in pictures.windows(2).enumerate() {
        if let [before, behind] = pair
            && (before.copied != behind.copied || before.part != behind.part)
        {
            wanted.push(key_before(index)..count.min(index + 1 + COMPARED));
        }
    }
    wanted.push(key_before(count.saturating_sub(1))..count);
    wanted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in wanted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    if merged.len() > STRETCHES { std::iter::once(0..count).collect() } else { merged }
}

/// The rows of a list of hashes: stream, decoding time, time, length, size, hash.
fn parse(text: &str) -> Option<Seen> {
    let mut seen = Seen::new();
    let mut clock = (1, 90_000);
    for line in text.lines() {
        if let Some(base) = line.strip_prefix("#tb 0: ") {
            let (num, den) = base.trim().split_once('/')?;
            clock = (num.parse::<i64>().ok()?, den.parse::<i64>().ok().filter(|&den| den > 0)?);
        }
        if line.starts_with('#') {
            continue;
        }
        let mut fields = line.split(',').map(str::trim);
        let time: i64 = fields.nth(2)?.parse().ok()?;
        let hash = fields.nth(2)?.to_owned();
        let time = time.checked_mul(clock.0)?.checked_mul(90_000)? / clock.1;
        if seen.insert(time, hash).is_some() {
            return None;
        }
    }
    Some(seen)
}

/// Compares what is stored and what was decoded with what is meant to be there, and with the source.
fn judge(
    pictures: &[Picture],
    stretches: &[Range<usize>],
    compared: &[(i64, i64)],
    lead: i64,
    seen: Vec<Seen>,
) -> Result<(), Unfit> {
    let mut seen = seen.into_iter();
    same_times(&seen.next().unwrap_or_default(), pictures, lead)?;
    let mut shown = Seen::new();
    for stretch in stretches {
        let own = seen.next().unwrap_or_default();
        let expected = pictures.get(stretch.clone()).unwrap_or_default();
        same_times(&own, expected, 0)?;
        shown.extend(expected.iter().map(|picture| picture.pts).zip(own.into_values()));
    }
    let source = seen.next().unwrap_or_default();
    if source.len() != compared.len() {
        let why = format!("{} of {} source pictures", source.len(), compared.len());
        return Err(Unfit::Check(why));
    }
    let mut compared = compared.to_vec();
    compared.sort_unstable();
    for ((time, hash), (there, here)) in source.into_iter().zip(compared) {
        if !near(time, there) || shown.get(&here) != Some(&hash) {
            return Err(Unfit::Check(format!("the picture at {here} is not the source's")));
        }
    }
    Ok(())
}

/// Whether these are exactly the pictures, each at its time.
fn same_times(own: &Seen, expected: &[Picture], moved: i64) -> Result<(), Unfit> {
    let pairs = || own.keys().zip(expected);
    if own.len() == expected.len() && pairs().all(|(time, one)| near(time - moved, one.pts)) {
        return Ok(());
    }
    let odd = pairs().find(|(time, one)| !near(*time - moved, one.pts));
    let odd = odd.map(|(time, one)| (time - moved, one.pts));
    Err(Unfit::Check(format!("{} pictures of {}, {odd:?}", own.len(), expected.len())))
}

fn near(time: i64, other: i64) -> bool {
    (time - other).abs() <= ROUNDING
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one stretch is what is meant")]
mod tests {
    use super::*;

    /// Groups of `length` pictures; `C` copied, `E` encoded, a new part at `|`.
    fn pictures(groups: &str, length: usize) -> Vec<Picture> {
        let (mut all, mut part) = (Vec::new(), 0);
        for letter in groups.chars() {
            part += usize::from(letter == '|');
            for index in 0..if letter == '|' { 0 } else { length } {
                let pts = 3000 * i64::try_from(all.len()).expect("few");
                all.push(Picture { pts, key: index == 0, copied: letter == 'C', part });
            }
        }
        all
    }

    #[test]
    fn edges_and_seams_are_decoded_and_the_middle_is_not() {
        assert_eq!(stretches(&pictures("ECCCCE", 30), 2), [0..42, 120..180]);
        assert_eq!(stretches(&pictures("CCCC", 30), 2), [0..12, 90..120]);
        assert_eq!(stretches(&pictures("ECCE|ECCE", 30), 2), [0..42, 60..162, 180..240]);
        assert_eq!(stretches(&pictures("E", 5), 2), [0..5]);
        assert_eq!(stretches(&pictures("ECCCECCCECCCECCCECCCECCCECCC", 30), 2), [0..840]);
    }

    #[test]
    fn a_short_group_is_entered_one_group_earlier() {
        let mut all = pictures("CCCC", 30);
        // two pictures behind the third group begin a group of their own, and are followed by another part
        for (index, picture) in all.iter_mut().enumerate().skip(88) {
            picture.copied = index >= 90;
            picture.key = index == 88 || index == 90;
        }
        assert_eq!(stretches(&all, 2), [0..12, 60..120]);
        assert_eq!(stretches(&all, 0), [0..12, 60..120]);
        all.truncate(90);
        assert_eq!(stretches(&all, 2), [0..12, 60..90]);
    }

    fn seen(pictures: &[Picture], moved: i64) -> Seen {
        pictures.iter().map(|one| (one.pts + moved, format!("{}", one.pts))).collect()
    }

    #[test]
    fn every_difference_is_found() {
        let all = pictures("ECE", 5);
        let ranges = stretches(&all, 2);
        assert_eq!(ranges, [0..15]);
        let there = |one: &Picture| one.pts + BASE - 15_000;
        let compared: Vec<_> = all[5..10].iter().map(|one| (there(one), one.pts)).collect();
        let judged = |change: &dyn Fn(&mut [Seen; 3])| {
            let source = seen(&all[5..10], BASE - 15_000);
            let mut lists = [seen(&all, 6000), seen(&all, 0), source];
            change(&mut lists);
            judge(&all, &ranges, &compared, 6000, lists.into())
        };
        assert_eq!(judged(&|_| {}), Ok(()));
        let other = || "other".to_owned();
        assert!(judged(&|seen| drop(seen[0].remove(&6000))).is_err());
        assert!(judged(&|seen| drop(seen[0].insert(51_000, other()))).is_err());
        assert!(judged(&|seen| drop(seen[1].remove(&42_000))).is_err());
        assert!(judged(&|seen| drop(seen[1].insert(45_000, other()))).is_err());
        assert!(judged(&|seen| drop(seen[1].insert(18_000, other()))).is_err());
        assert!(judged(&|seen| drop(seen[2].insert(BASE + 3_000, other()))).is_err());
        assert!(judged(&|seen| drop(seen[2].remove(&(BASE + 3_000)))).is_err());
    }

    #[test]
    fn rows_are_read_in_whatever_clock_they_have() {
        let text = "#format: frame checksums\n#tb 0: 1/30\n#codec_id 0: rawvideo\n\
                    0,          2,          2,        1,    86400, abc\n";
        let seen = parse(text).expect("rows");
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(6000, "abc".to_owned())]);
        assert_eq!(parse("0, 1, x, 1, 1, a"), None);
        assert_eq!(parse("0, 1, 1, 1, 1, a\n0, 1, 1, 1, 1, a"), None);
        assert_eq!(parse("0, 1"), None);
    }
}
