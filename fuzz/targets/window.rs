//! Any request for a window, as JSON or with any numbers, judged under any rules: what is accepted is one form, not
//! empty, not too long, not far ahead, and it is the window that was asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livekit_replay::{
    domain::{
        time::Timestamp,
        window::{
            MAX_AHEAD_SECONDS, MediaEnd, Precision, WindowRequest, WindowRules, resolve_window,
        },
    },
    error::Code,
};

/// Takes numbers off the front; zero when nothing is left.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn eight(&mut self) -> [u8; 8] {
        let mut eight = [0; 8];
        let (taken, left) = self.0.split_at(self.0.len().min(8));
        eight[..taken.len()].copy_from_slice(taken);
        self.0 = left;
        eight
    }
    fn byte(&mut self) -> u8 {
        let byte = self.0.first().copied().unwrap_or(0);
        self.0 = self.0.get(1..).unwrap_or(&[]);
        byte
    }
    fn float(&mut self) -> f64 {
        f64::from_le_bytes(self.eight())
    }
    fn time(&mut self) -> Timestamp {
        Timestamp::from_micros(i64::from_le_bytes(self.eight()))
    }
}

fn rules(bytes: &mut Bytes<'_>) -> WindowRules {
    // any moment of the service's clock between the epoch and the year 9999
    let now = Timestamp::from_micros(bytes.time().as_micros().rem_euclid(253_402_300_800_000_000));
    let ago = |bytes: &mut Bytes<'_>| {
        i64::from(u32::from_le_bytes([bytes.byte(), bytes.byte(), bytes.byte(), 0]))
    };
    let media_end = match bytes.byte() % 4 {
        0 => MediaEnd::Live,
        1 => MediaEnd::Stopping { ended_at: now.plus_millis(1000 - ago(bytes)) },
        2 => MediaEnd::Ended(Some(now.plus_millis(-ago(bytes)))),
        _ => MediaEnd::Ended(None),
    };
    WindowRules {
        now,
        session_started_at: now.plus_millis(-ago(bytes)),
        media_end,
        buffer_minutes: u32::from(bytes.byte()),
        clip_max_seconds: u64::from(bytes.byte()) * 16,
    }
}

fn request(bytes: &mut Bytes<'_>, now: Timestamp) -> WindowRequest {
    let fields = bytes.byte();
    let has = |bit: u8| fields & 1 << bit != 0;
    let mut float = |bit: u8| has(bit).then(|| bytes.float());
    let [duration_minutes, duration_seconds, start_seconds, end_seconds, post_seconds] =
        [float(0), float(1), float(2), float(3), float(4)];
    let mut near = |bit: u8| {
        has(bit).then(|| match bytes.byte() {
            0 => bytes.time(),
            _ => now.plus_millis(
                i64::from(i32::from_le_bytes([bytes.byte(), bytes.byte(), bytes.byte(), 0]))
                    - 8_000_000,
            ),
        })
    };
    let (from, to) = (near(5), near(6));
    let precision = has(7).then_some(Precision::Keyframe);
    WindowRequest {
        duration_minutes,
        duration_seconds,
        from,
        to,
        start_seconds,
        end_seconds,
        post_seconds,
        precision,
    }
}

fuzz_target!(|data: &[u8]| {
    let bytes = &mut Bytes(data);
    let rules = rules(bytes);
    let request = if bytes.byte() % 2 == 0 {
        let Ok(request) = serde_json::from_slice::<WindowRequest>(bytes.0) else { return };
        request
    } else {
        request(bytes, rules.now)
    };
    let forms = [
        request.duration_minutes.is_some(),
        request.duration_seconds.is_some(),
        request.from.is_some() || request.to.is_some(),
        request.start_seconds.is_some() || request.end_seconds.is_some(),
    ];
    let forms = forms.iter().filter(|given| **given).count();
    let resolved = match resolve_window(&request, &rules) {
        Ok(resolved) => resolved,
        Err(error) => {
            let never_recorded = rules.media_end == MediaEnd::Ended(None);
            let codes = [Code::WindowInvalid, Code::NoSegmentsInRange];
            assert!(codes[..=usize::from(never_recorded)].contains(&error.code()), "{error:?}");
            return;
        }
    };
    let window = resolved.window;
    assert_eq!(forms, 1);
    assert!(window.from < window.to, "{window:?}");
    assert!(window.micros() <= rules.clip_max_seconds as i64 * 1_000_000, "{window:?}");
    let post_us = request.post_seconds.map_or(0, |seconds| (seconds * 1e6).round() as i64);
    assert!((0..=MAX_AHEAD_SECONDS * 1_000_000).contains(&post_us));
    let ahead = rules.now.plus_seconds(MAX_AHEAD_SECONDS).plus_micros(post_us);
    assert!(window.to <= ahead, "{window:?}");
    let to = window.to.plus_micros(-post_us);
    let near = |micros: i64, seconds: f64| (micros as f64 / 1e6 - seconds).abs() < 1e-6;
    let length =
        request.duration_minutes.map(|minutes| minutes * 60.0).or(request.duration_seconds);
    if let Some(length) = length {
        assert!(near(to.micros_since(window.from), length), "{request:?} {window:?}");
        assert!(to <= rules.now, "{request:?} {window:?}");
        assert!(
            request
                .duration_minutes
                .is_none_or(|minutes| minutes <= f64::from(rules.buffer_minutes))
        );
    } else if let (Some(from), Some(until)) = (request.from, request.to) {
        assert_eq!((window.from, to), (from, until));
    } else {
        let began = rules.session_started_at;
        assert!(near(window.from.micros_since(began), request.start_seconds.expect("given")));
        assert!(near(to.micros_since(began), request.end_seconds.expect("given")));
    }
    let usual = if length.is_some() { Precision::Keyframe } else { Precision::Exact };
    assert_eq!(resolved.precision, request.precision.unwrap_or(usual));
});
