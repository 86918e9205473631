//! What a clip shows, picture by picture on the session's time line, and whether its answer says the same.

use axum::http::StatusCode;
use livekit_replay::media::mp4;
use serde_json::Value;

use super::{
    set::{Laid, Set},
    table,
};
use crate::material::{FPS, Scratch, Seen, watch_once};

/// A frame of 30 a second, rounded up, in milliseconds.
const FRAME_MS: i64 = 34;
/// A hole this long must be listed.
const LISTED_MS: i64 = 100;

/// A picture of a clip.
struct Shown<'a> {
    number: i64,
    of: &'a Laid,
    /// Milliseconds from the session's beginning: on the screen, and where the next picture would be.
    from: f64,
    to: f64,
    /// Seconds in the clip.
    time: f64,
}

/// A hole or a listed gap, milliseconds from the session's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hole {
    from: i64,
    to: i64,
    reason: String,
}

/// Downloads and decodes a ready clip, compares it with its answer and writes its line of the table. Answers the
/// numbers of its pictures.
pub async fn judge(set: &Set<'_>, clip: &Value, test: &str, case: &str) -> Vec<i64> {
    let (seen, size, sound) = download(set, clip).await;
    let shown = placed(set, &seen);
    let holes = holes(&shown);
    let gaps = listed(set, &clip["gaps"]);
    let (first, last) = (shown.first().unwrap(), shown.last().unwrap());
    let (starts, ends) = (set.ms(&clip["startsAt"]), set.ms(&clip["endsAt"]));
    assert!((starts as f64 - first.from).abs() <= 1.0, "starts {starts}, shows {}", first.from);
    assert!((ends as f64 - last.to).abs() <= 1.5, "ends {ends}, shows {}", last.to);

    // every hole is listed, with true times, and nothing else is
    let inner: Vec<Hole> = gaps.iter().filter(|gap| gap.to > starts).cloned().collect();
    let merged = merged(&inner);
    assert_eq!(merged.len(), holes.len(), "listed {inner:?}, missing {holes:?}");
    for (gap, (from, to)) in merged.iter().zip(&holes) {
        let off = (gap.from - from).abs().max((gap.to - to).abs());
        assert!(off <= FRAME_MS, "listed {gap:?}, missing {from}-{to}");
    }
    let listed_ms: i64 = inner.iter().map(|gap| gap.to - gap.from).sum();
    let lasts = clip["durationSeconds"].as_f64().unwrap() * 1000.0;
    let expected = (ends - starts - listed_ms) as f64;
    assert!((lasts - expected).abs() <= FRAME_MS as f64, "{lasts} ms, {expected} ms by its times");
    let decoded = (last.time * 1000.0) + (last.to - last.from);
    assert!((lasts - decoded).abs() <= FRAME_MS as f64, "{lasts} ms, decoded {decoded} ms");

    let (from, to) = (set.ms(&clip["requestedFrom"]), set.ms(&clip["requestedTo"]));
    let short = if to - ends <= FRAME_MS { 0 } else { to - ends };
    let shortfall = clip["shortfallMs"].as_i64().unwrap();
    assert!((shortfall - short).abs() <= 1, "{clip:#}");
    assert!((clip["prerollMs"].as_i64().unwrap() - (from - starts).max(0)).abs() <= 1, "{clip:#}");
    let said = (clip["width"].as_u64().unwrap(), clip["height"].as_u64().unwrap());
    assert_eq!(said, size);
    assert_eq!(clip["audioCodec"].is_string(), sound);
    in_step(&shown, &seen);

    table::record(test, case, &holds(&shown, &holes, size), &says(&gaps, shortfall));
    seen.numbers()
}

/// The numbers of a clip's pictures, for what is not in the table.
pub async fn numbers(set: &Set<'_>, clip: &Value) -> Vec<i64> {
    download(set, clip).await.0.numbers()
}

/// A capture that is refused: its line of the table. Answers the body.
pub async fn refused(set: &Set<'_>, reply: crate::bench::Reply, test: &str, case: &str) -> Value {
    let body = reply.json();
    let status = reply.status.as_u16();
    assert_ne!(reply.status, StatusCode::CREATED, "{body:#}");
    let mut says = format!("{status} `{}`", body["code"].as_str().unwrap());
    let gaps = listed(set, &body["gaps"]);
    if !gaps.is_empty() {
        says += &format!(" with {}", self::says(&gaps, 0));
    }
    table::record(test, case, "there is none", &says);
    body
}

async fn download(set: &Set<'_>, clip: &Value) -> (Seen, (u64, u64), bool) {
    let path = format!("/clips/{}/file", clip["id"].as_str().unwrap());
    let reply = set.session.bench.ask(super::set::USER, "GET", &path, None).await;
    assert_eq!(reply.status, StatusCode::OK);
    let dir = Scratch::new();
    let file = dir.0.join("clip.mp4");
    std::fs::write(&file, &reply.bytes).unwrap();
    let read = mp4::read(&file).unwrap();
    let video = read.track(b"vide").unwrap();
    let sound = read.track(b"soun").is_some();
    let seen = watch_once(&file, &[], sound);
    assert_eq!(seen.pictures.len(), video.presented as usize);
    (seen, (video.width.into(), video.height.into()), sound)
}

fn placed<'a>(set: &'a Set<'_>, seen: &Seen) -> Vec<Shown<'a>> {
    let began = set.session.began;
    let place = |&(number, time): &(i64, f64)| {
        let of = set.epochs.iter().find(|laid| laid.holds(number)).expect("a recorded number");
        let from = of.screen(number).micros_since(began) as f64 / 1000.0;
        Shown { number, of, from, to: from + of.step as f64 / 90.0, time }
    };
    let shown: Vec<_> = seen.pictures.iter().map(place).collect();
    for pair in shown.windows(2) {
        assert!(pair[1].from > pair[0].from, "{} before {}", pair[0].number, pair[1].number);
        // what is no hole lasts as long in the clip as it did on the screen
        let hole = pair[1].from - pair[0].to;
        let hole = if hole >= LISTED_MS as f64 { hole } else { 0.0 };
        let (lasts, should) = ((pair[1].time - pair[0].time) * 1000.0, pair[1].from - pair[0].from);
        assert!(
            (lasts - (should - hole)).abs() <= FRAME_MS as f64,
            "{} to {}: {lasts} ms in the clip, {should} on the screen",
            pair[0].number,
            pair[1].number
        );
    }
    shown
}

/// Where the clip jumps, milliseconds.
fn holes(shown: &[Shown<'_>]) -> Vec<(i64, i64)> {
    let jumps = shown.windows(2).filter(|pair| pair[1].from - pair[0].to >= LISTED_MS as f64);
    jumps.map(|pair| (pair[0].to.round() as i64, pair[1].from.round() as i64)).collect()
}

fn listed(set: &Set<'_>, gaps: &Value) -> Vec<Hole> {
    let gap = |gap: &Value| Hole {
        from: set.ms(&gap["from"]),
        to: set.ms(&gap["to"]),
        reason: gap["reason"].as_str().unwrap().to_owned(),
    };
    gaps.as_array().map(|gaps| gaps.iter().map(gap).collect()).unwrap_or_default()
}

/// Gaps that touch as one.
fn merged(gaps: &[Hole]) -> Vec<Hole> {
    let mut all: Vec<Hole> = Vec::new();
    for gap in gaps {
        match all.last_mut() {
            Some(last) if (gap.from - last.to).abs() <= 1 => last.to = gap.to,
            _ => all.push(gap.clone()),
        }
    }
    all
}

/// Where there was sound, a beep begins with every thirtieth picture.
fn in_step(shown: &[Shown<'_>], seen: &Seen) {
    for pair in shown.windows(2) {
        let (before, now) = (&pair[0], &pair[1]);
        let loud = !now.of.silent.contains(&now.number) && !now.of.silent.contains(&before.number);
        // with its predecessor there, the beep did not begin outside
        let whole = before.number == now.number - 1 && now.time + 0.1 < seen.sound_seconds;
        if loud && whole && now.number % FPS == 0 {
            let off = seen.beeps.iter().map(|beep| (beep - now.time).abs()).fold(9.0, f64::min);
            assert!(off <= 0.04, "picture {}: the beep is {off} s away", now.number);
        }
    }
}

fn holds(shown: &[Shown<'_>], holes: &[(i64, i64)], size: (u64, u64)) -> String {
    let mut text = String::new();
    let mut from = shown[0].from.round() as i64;
    for (end, next) in holes {
        text += &format!("{}, ", span(from, *end));
        from = *next;
    }
    let end = shown.last().map_or(0, |last| last.to.round() as i64);
    let count = shown.len();
    format!("{text}{}; {count} pictures of {}x{}", span(from, end), size.0, size.1)
}

fn says(gaps: &[Hole], shortfall: i64) -> String {
    let gaps: Vec<_> =
        gaps.iter().map(|gap| format!("`{}` {}", gap.reason, span(gap.from, gap.to))).collect();
    let mut text = if gaps.is_empty() { "no gap".to_owned() } else { gaps.join(", ") };
    if shortfall > 0 {
        // the last picture's end is rounded
        text += &format!("; `shortfallMs` {shortfall}");
    }
    text
}

fn span(from: i64, to: i64) -> String {
    let seconds = |ms: i64| format!("{:.2}", ms as f64 / 1000.0);
    format!("{} to {}", seconds(from), seconds(to))
}
