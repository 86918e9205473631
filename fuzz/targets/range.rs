//! Any `Range` and `If-Range`: a part lies inside the file, is what a second reading of RFC 9110 makes of the header,
//! and the answer's headers, length and bytes agree.
#![no_main]

use axum::{
    body::to_bytes,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use libfuzzer_sys::fuzz_target;
use livekit_replay::{
    domain::range::{Wanted, parse_range},
    http::bytes::{Held, send_held},
};

/// What cannot be said in 64 bits is as good as endless.
fn number(text: &str) -> Option<u128> {
    let digits = !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
    let endless = u128::from(u64::MAX);
    digits.then(|| text.parse().map_or(endless, |number: u128| number.min(endless)))
}

fn expected(range: &str, size: u64) -> Wanted {
    let size = u128::from(size);
    let wanted = || {
        let (unit, set) = range.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(())?;
        let ends: Vec<&str> = set.split('-').map(str::trim).collect();
        let [first, last] = ends[..] else { return None };
        match (number(first), number(last)) {
            (Some(first), Some(last)) => (first <= last).then_some((first, last + 1)),
            (Some(first), None) => last.is_empty().then_some((first, size.max(first + 1))),
            (None, Some(suffix)) => {
                first.is_empty().then_some((size.saturating_sub(suffix).min(size), size))
            }
            (None, None) => None,
        }
    };
    let inside = |number: u128| u64::try_from(number).expect("it lies inside");
    match wanted() {
        None => Wanted::Whole,
        Some((from, _)) if from >= size => Wanted::Unsatisfiable,
        Some((from, to)) => Wanted::Part(inside(from), inside(to.min(size) - 1)),
    }
}

fuzz_target!(|data: &[u8]| {
    let [length_low, length_high, how, text @ ..] = data else { return };
    let size = u64::from(u16::from_le_bytes([*length_low, *length_high]) % 2048);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let wanted = parse_range(text, size);
    assert_eq!(wanted, expected(text, size), "{text:?} of {size}");
    // a file may be as large as can be said
    let _ = parse_range(text, u64::MAX);
    let Ok(value) = HeaderValue::from_str(text) else { return };
    // visible ASCII alone is a range
    let wanted = if value.to_str().is_ok() { wanted } else { Wanted::Whole };
    let mut headers = HeaderMap::new();
    headers.insert(header::RANGE, value);
    let tag = "abc".to_owned();
    let fits = match how % 4 {
        0 => true,
        1 => headers.insert(header::IF_RANGE, HeaderValue::from_static("\"abc\"")).is_none(),
        _ => headers.insert(header::IF_RANGE, HeaderValue::from_static("W/\"abc\"")).is_some(),
    };
    let wanted = if fits { wanted } else { Wanted::Whole };
    let bytes: bytes::Bytes = (0..size).map(|at| at as u8).collect();
    let held = Held { bytes: bytes.clone(), content_type: "image/jpeg", tag };
    let answer = send_held(&Method::GET, &headers, &held);
    let said = |name: header::HeaderName| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (status, part, length) =
        (answer.status(), said(header::CONTENT_RANGE), said(header::CONTENT_LENGTH));
    let body =
        futures::executor::block_on(to_bytes(answer.into_body(), 1 << 20)).expect("it is held");
    match wanted {
        Wanted::Whole => {
            assert_eq!((status, part), (StatusCode::OK, None));
            assert_eq!(length, Some(size.to_string()));
            assert_eq!(body, bytes);
        }
        Wanted::Part(first, last) => {
            assert_eq!(status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(part, Some(format!("bytes {first}-{last}/{size}")));
            assert_eq!(length, Some((last - first + 1).to_string()));
            assert_eq!(body[..], bytes[first as usize..=last as usize]);
        }
        Wanted::Unsatisfiable => {
            assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
            assert_eq!(part, Some(format!("bytes */{size}")));
        }
    }
});
