//! What a capture request may ask for, and the window it means: exactly one form, in bounds, in screen time.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    domain::time::{Timestamp, Window},
    error::{Code, Error, Result},
};

/// How far ahead of now an explicit window may end, and the most `postSeconds` may add.
pub const MAX_AHEAD_SECONDS: i64 = 60;
/// Beyond this no number of seconds means anything (30 years); keeps the arithmetic away from its ends.
const MAX_SECONDS: f64 = 1e9;

/// Where a clip may begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// From the last key frame at or before the window's start.
    Keyframe,
    /// Within one frame at both ends.
    Exact,
}

/// The window fields of a request as they came, none checked yet.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WindowRequest {
    /// "The last N minutes", whole minutes.
    pub duration_minutes: Option<f64>,
    /// "The last N seconds".
    pub duration_seconds: Option<f64>,
    /// Start of an explicit window.
    pub from: Option<Timestamp>,
    /// End of an explicit window.
    pub to: Option<Timestamp>,
    /// Start relative to the session's `startedAt`.
    pub start_seconds: Option<f64>,
    /// End relative to the session's `startedAt`.
    pub end_seconds: Option<f64>,
    /// Extends the end, 0..=60.
    pub post_seconds: Option<f64>,
    /// Overrules the form's default.
    pub precision: Option<Precision>,
}

/// How far the session's media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaEnd {
    /// The session goes on: "last N" ends now.
    Live,
    /// Stopped, but egress has not flushed its tail yet.
    Stopping {
        /// When the session ended.
        ended_at: Timestamp,
    },
    /// Over: `Some` is the end of its last frame, `None` a session that never held media.
    Ended(Option<Timestamp>),
}

/// What a request is judged by.
#[derive(Debug, Clone, Copy)]
pub struct WindowRules {
    /// When the request arrived.
    pub now: Timestamp,
    /// The session's `startedAt`.
    pub session_started_at: Timestamp,
    /// How far its media goes.
    pub media_end: MediaEnd,
    /// `buffer.minutes`.
    pub buffer_minutes: u32,
    /// `limits.clip_max_seconds`.
    pub clip_max_seconds: u64,
}

/// A window that may be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedWindow {
    /// In screen time; `to` may lie up to 60 s (120 s with `postSeconds`) ahead.
    pub window: Window,
    /// Asked for, or the form's default.
    pub precision: Precision,
}

enum Form {
    Last(i64),
    Between(Timestamp, Timestamp),
}

/// Turns a request's window fields into a window, or says what is wrong with them.
///
/// Fails with `window_invalid`, or `no_segments_in_range` for "last N" of an ended session without media.
pub fn resolve_window(request: &WindowRequest, rules: &WindowRules) -> Result<ResolvedWindow> {
    let post_us = post_micros(request)?;
    let form = form(request, rules)?;
    let (window, default) = match form {
        Form::Last(length_us) => {
            let end = end_of_last(rules)?;
            let window = Window::new(end.plus_micros(-length_us), end.plus_micros(post_us));
            (window, Precision::Keyframe)
        }
        Form::Between(from, to) => (Window::new(from, to.plus_micros(post_us)), Precision::Exact),
    };
    let longest_us =
        i64::try_from(rules.clip_max_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    if window.micros() > longest_us {
        return Err(invalid(format!(
            "The window lasts {:.3} s; a clip may last at most {} s.",
            window.micros() as f64 / 1e6,
            rules.clip_max_seconds
        )));
    }
    Ok(ResolvedWindow { window, precision: request.precision.unwrap_or(default) })
}

/// Where "the last N" ends.
fn end_of_last(rules: &WindowRules) -> Result<Timestamp> {
    match rules.media_end {
        MediaEnd::Live => Ok(rules.now),
        MediaEnd::Stopping { ended_at } => Ok(rules.now.min(ended_at)),
        MediaEnd::Ended(Some(end)) => Ok(end),
        MediaEnd::Ended(None) => Err(Error::new(
            Code::NoSegmentsInRange,
            "This session ended without recording anything.",
        )
        .with("available", json!(null))),
    }
}

fn form(request: &WindowRequest, rules: &WindowRules) -> Result<Form> {
    let between = request.from.is_some() || request.to.is_some();
    let relative = request.start_seconds.is_some() || request.end_seconds.is_some();
    let given =
        [request.duration_minutes.is_some(), request.duration_seconds.is_some(), between, relative];
    match given.iter().filter(|form| **form).count() {
        1 => {}
        0 => return Err(invalid(format!("No window given. {ONE_OF}"))),
        _ => return Err(invalid(format!("More than one kind of window given. {ONE_OF}"))),
    }
    if let Some(minutes) = request.duration_minutes {
        return last_minutes(minutes, rules.buffer_minutes);
    }
    if let Some(seconds) = request.duration_seconds {
        return match micros("durationSeconds", seconds)? {
            0 => Err(invalid("durationSeconds must be more than 0.")),
            length => Ok(Form::Last(length)),
        };
    }
    let (from, to) = if between {
        let both = request.from.zip(request.to);
        both.ok_or_else(|| invalid("`from` and `to` belong together."))?
    } else {
        let both = request.start_seconds.zip(request.end_seconds);
        let (start, end) =
            both.ok_or_else(|| invalid("`startSeconds` and `endSeconds` belong together."))?;
        let base = rules.session_started_at;
        (
            base.plus_micros(micros("startSeconds", start)?),
            base.plus_micros(micros("endSeconds", end)?),
        )
    };
    explicit(from, to, rules.now)
}

const ONE_OF: &str = "Give exactly one of durationMinutes, durationSeconds, from and to, startSeconds and endSeconds.";

fn last_minutes(minutes: f64, most: u32) -> Result<Form> {
    // false for NaN and infinities too
    if minutes.fract() == 0.0 && minutes >= 1.0 && minutes <= f64::from(most) {
        Ok(Form::Last(minutes as i64 * 60_000_000))
    } else {
        Err(invalid(format!("durationMinutes must be a whole number from 1 to {most}.")))
    }
}

fn explicit(from: Timestamp, to: Timestamp, now: Timestamp) -> Result<Form> {
    if to <= from {
        return Err(invalid("The window ends before it begins."));
    }
    if to > now.plus_seconds(MAX_AHEAD_SECONDS) {
        return Err(invalid(format!("The window may end at most {MAX_AHEAD_SECONDS} s from now.")));
    }
    Ok(Form::Between(from, to))
}

fn post_micros(request: &WindowRequest) -> Result<i64> {
    let Some(seconds) = request.post_seconds else { return Ok(0) };
    let post = micros("postSeconds", seconds)?;
    if post > MAX_AHEAD_SECONDS * 1_000_000 {
        return Err(invalid(format!("postSeconds must be from 0 to {MAX_AHEAD_SECONDS}.")));
    }
    Ok(post)
}

fn micros(field: &str, seconds: f64) -> Result<i64> {
    if seconds.is_finite() && (0.0..=MAX_SECONDS).contains(&seconds) {
        Ok((seconds * 1e6).round() as i64)
    } else {
        Err(invalid(format!("{field} must be a number of seconds, 0 or more.")))
    }
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(Code::WindowInvalid, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn rules() -> WindowRules {
        WindowRules {
            now: NOW,
            session_started_at: NOW.plus_seconds(-3600),
            media_end: MediaEnd::Live,
            buffer_minutes: 10,
            clip_max_seconds: 600,
        }
    }

    fn seconds(from: i64, to: i64) -> Window {
        Window::new(NOW.plus_seconds(from), NOW.plus_seconds(to))
    }

    fn code(request: WindowRequest) -> Option<Code> {
        resolve_window(&request, &rules()).err().map(|error| error.code())
    }

    #[test]
    fn the_last_minutes_end_when_the_request_arrived() {
        let request = WindowRequest { duration_minutes: Some(2.0), ..Default::default() };
        let resolved = resolve_window(&request, &rules()).expect("valid");
        assert_eq!(resolved.window, seconds(-120, 0));
        assert_eq!(resolved.precision, Precision::Keyframe);
    }

    #[test]
    fn the_last_seconds_of_a_session_that_is_over_end_with_its_media() {
        let request = WindowRequest { duration_seconds: Some(30.0), ..Default::default() };
        let end = |media_end| {
            resolve_window(&request, &WindowRules { media_end, ..rules() }).map(|r| r.window)
        };
        let ended_at = NOW.plus_seconds(-20);
        assert_eq!(end(MediaEnd::Stopping { ended_at }).expect("valid"), seconds(-50, -20));
        let ended_at = NOW.plus_seconds(5);
        assert_eq!(end(MediaEnd::Stopping { ended_at }).expect("valid"), seconds(-30, 0));
        let media = MediaEnd::Ended(Some(NOW.plus_seconds(-100)));
        assert_eq!(end(media).expect("valid"), seconds(-130, -100));
        let error = end(MediaEnd::Ended(None)).expect_err("no media");
        assert_eq!(error.code(), Code::NoSegmentsInRange);
    }

    #[test]
    fn explicit_and_relative_windows_are_exact_unless_asked_otherwise() {
        let request =
            WindowRequest { from: Some(NOW.plus_seconds(-9)), to: Some(NOW), ..Default::default() };
        let resolved = resolve_window(&request, &rules()).expect("valid");
        assert_eq!((resolved.window, resolved.precision), (seconds(-9, 0), Precision::Exact));
        let request = WindowRequest {
            start_seconds: Some(3000.5),
            end_seconds: Some(3010.0),
            post_seconds: Some(2.0),
            precision: Some(Precision::Keyframe),
            ..Default::default()
        };
        let resolved = resolve_window(&request, &rules()).expect("valid");
        assert_eq!(resolved.window.from, NOW.plus_millis(-599_500));
        assert_eq!(resolved.window.to, NOW.plus_seconds(-588));
        assert_eq!(resolved.precision, Precision::Keyframe);
    }

    #[test]
    fn none_two_halves_and_nonsense_are_window_invalid() {
        let none = WindowRequest::default();
        let cases = [
            none.clone(),
            WindowRequest {
                duration_minutes: Some(1.0),
                duration_seconds: Some(5.0),
                ..none.clone()
            },
            WindowRequest { duration_minutes: Some(1.0), from: Some(NOW), ..none.clone() },
            WindowRequest { from: Some(NOW), ..none.clone() },
            WindowRequest { end_seconds: Some(3.0), ..none.clone() },
            WindowRequest { from: Some(NOW), to: Some(NOW), ..none.clone() },
            WindowRequest {
                from: Some(NOW),
                to: Some(NOW.plus_micros(60_000_001)),
                ..none.clone()
            },
            WindowRequest {
                start_seconds: Some(3600.0),
                end_seconds: Some(3661.0),
                ..none.clone()
            },
            WindowRequest { start_seconds: Some(-1.0), end_seconds: Some(10.0), ..none.clone() },
            WindowRequest { duration_minutes: Some(0.0), ..none.clone() },
            WindowRequest { duration_minutes: Some(1.5), ..none.clone() },
            WindowRequest { duration_minutes: Some(11.0), ..none.clone() },
            WindowRequest { duration_seconds: Some(0.0), ..none.clone() },
            WindowRequest { duration_seconds: Some(600.1), ..none.clone() },
            WindowRequest { duration_minutes: Some(10.0), post_seconds: Some(1.0), ..none.clone() },
            WindowRequest { duration_seconds: Some(5.0), post_seconds: Some(60.5), ..none.clone() },
            WindowRequest { duration_seconds: Some(5.0), post_seconds: Some(-1.0), ..none.clone() },
        ];
        for request in cases {
            assert_eq!(code(request.clone()), Some(Code::WindowInvalid), "{request:?}");
        }
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -5.0, 1e300] {
            for request in [
                WindowRequest { duration_minutes: Some(bad), ..none.clone() },
                WindowRequest { duration_seconds: Some(bad), ..none.clone() },
                WindowRequest { start_seconds: Some(bad), end_seconds: Some(bad), ..none.clone() },
                WindowRequest {
                    duration_seconds: Some(1.0),
                    post_seconds: Some(bad),
                    ..none.clone()
                },
            ] {
                assert_eq!(code(request.clone()), Some(Code::WindowInvalid), "{request:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_not_empty_nor_too_long_nor_far_ahead(
            minutes in proptest::option::of(-2.0f64..14.0), length in proptest::option::of(-5.0f64..900.0),
            from in proptest::option::of(-700i64..100), to in proptest::option::of(-700i64..100),
            post in proptest::option::of(-1.0f64..70.0),
        ) {
            let at = |s: i64| NOW.plus_seconds(s);
            let request = WindowRequest {
                duration_minutes: minutes.map(f64::round), duration_seconds: length,
                from: from.map(at), to: to.map(at), post_seconds: post, ..Default::default()
            };
            match resolve_window(&request, &rules()) {
                Ok(resolved) => {
                    prop_assert!(!resolved.window.is_empty());
                    prop_assert!(resolved.window.micros() <= 600_000_000);
                    prop_assert!(resolved.window.to <= at(120));
                    prop_assert_eq!(usize::from(minutes.is_some()) + usize::from(length.is_some()) + usize::from(from.is_some()), 1);
                }
                Err(error) => prop_assert_eq!(error.code(), Code::WindowInvalid),
            }
        }
    }
}
