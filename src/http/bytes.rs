//! Sends a stored file: conditional requests, one byte range, `If-Range`, and a name to save it under.
//!
//! Several ranges at once and units other than bytes are ignored, which RFC 9110 allows: the whole file is sent.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, stream};

use crate::{
    domain::range::{Wanted, parse_range},
    error::{Code, Error, Result},
    flow::{
        Deps,
        reading::{self, Readable},
        stores::Which,
    },
};

/// Read from disk at once.
const CHUNK: usize = 128 * 1024;

/// A file to be sent.
#[derive(Debug)]
pub struct Sent<'a> {
    /// Where it is.
    pub path: &'a std::path::Path,
    /// In which store.
    pub which: Which,
    /// `video/mp4`.
    pub content_type: &'static str,
    /// Changes whenever the bytes do; without quotes.
    pub tag: &'a str,
    /// The name to save it under, any text; `None` = shown in place.
    pub save_as: Option<&'a str>,
}

/// An open file to be sent.
#[derive(Debug)]
pub struct Open<'a> {
    /// It.
    pub file: Readable,
    /// `video/mp2t`.
    pub content_type: &'static str,
    /// Changes whenever the bytes do; without quotes.
    pub tag: &'a str,
}

/// Bytes in memory to be sent.
#[derive(Debug)]
pub struct Held {
    /// All of them.
    pub bytes: bytes::Bytes,
    /// `image/jpeg`.
    pub content_type: &'static str,
    /// Changes whenever the bytes do; without quotes.
    pub tag: String,
}

/// What an answer is before its body.
enum Head {
    /// Complete without one.
    Bare(Response),
    /// Status, headers, first byte and length of what follows.
    Body(StatusCode, HeaderMap, u64, u64),
}

/// Answers GET or HEAD of a file: 200, 206, 304 or 416.
///
/// # Errors
/// `file_missing` if it is not there, `storage_unavailable` if it cannot be read.
pub async fn send(
    deps: &Deps,
    method: &Method,
    headers: &HeaderMap,
    sent: Sent<'_>,
) -> Result<Response> {
    let file = reading::open(deps, sent.which, sent.path.to_owned()).await?;
    let open = Open { file, content_type: sent.content_type, tag: sent.tag };
    Ok(send_open(method, headers, open, sent.save_as))
}

/// [`send`] of a file that is open already. A body whose file cannot be read on is broken off.
pub fn send_open(
    method: &Method,
    headers: &HeaderMap,
    open: Open<'_>,
    save_as: Option<&str>,
) -> Response {
    let Open { file, content_type, tag } = open;
    let head = head(method, headers, file.size(), tag, content_type);
    let (status, mut answer, from, length) = match head {
        Head::Bare(mut response) => {
            name_it(response.headers_mut(), save_as);
            return response;
        }
        Head::Body(status, answer, from, length) => (status, answer, from, length),
    };
    name_it(&mut answer, save_as);
    (status, answer, Body::from_stream(pieces(file, from, length))).into_response()
}

/// These bytes of a file; an error where it ends before them, because their number was told.
fn pieces(file: Readable, from: u64, length: u64) -> impl Stream<Item = Result<Bytes>> {
    stream::try_unfold((file, from, length), async |(file, at, left)| {
        if left == 0 {
            return Ok(None);
        }
        let wanted = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let piece = file.piece(at, wanted).await?;
        let count = piece.len() as u64;
        if count == 0 {
            return Err(Error::internal("sending a file", "it became shorter meanwhile"));
        }
        Ok(Some((piece, (file, at + count, left - count))))
    })
}

/// [`send`] of what is in memory.
pub fn send_held(method: &Method, headers: &HeaderMap, held: &Held) -> Response {
    let size = held.bytes.len() as u64;
    match head(method, headers, size, &held.tag, held.content_type) {
        Head::Bare(response) => response,
        Head::Body(status, answer, from, length) => {
            let at = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
            // inside by the making of the head
            let part = held.bytes.slice(at(from)..at(from + length));
            (status, answer, part).into_response()
        }
    }
}

fn head(
    method: &Method,
    headers: &HeaderMap,
    size: u64,
    tag: &str,
    content_type: &'static str,
) -> Head {
    let tag = format!("\"{tag}\"");
    let mut answer = HeaderMap::new();
    insert(&mut answer, header::ETAG, &tag);
    insert(&mut answer, header::ACCEPT_RANGES, "bytes");
    // private: an intermediary must not show it to others; each use asks again whether it is still allowed
    insert(&mut answer, header::CACHE_CONTROL, "private, no-cache");
    if is_unchanged(headers, &tag) {
        return Head::Bare((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    insert(&mut answer, header::CONTENT_TYPE, content_type);
    insert(&mut answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    let (status, from, length) = match wanted(headers, &tag, size) {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part(first, last) => {
            insert(&mut answer, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Wanted::Unsatisfiable => return Head::Bare(unsatisfiable(size)),
    };
    insert(&mut answer, header::CONTENT_LENGTH, &length.to_string());
    if method == Method::HEAD {
        return Head::Bare((status, answer).into_response());
    }
    Head::Body(status, answer, from, length)
}

fn name_it(headers: &mut HeaderMap, save_as: Option<&str>) {
    // only what carries the file, or its measures
    if let Some(name) = save_as.filter(|_| headers.contains_key(header::CONTENT_LENGTH)) {
        insert(headers, header::CONTENT_DISPOSITION, &disposition(name));
    }
}

fn unsatisfiable(size: u64) -> Response {
    let error = Error::new(Code::RangeNotSatisfiable, "The bytes asked for lie outside the file.");
    let mut response = super::error::Problem(error).into_response();
    insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `If-None-Match` names the file as it is.
fn is_unchanged(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
        |value| {
            value.trim() == "*"
                || value.split(',').any(|given| given.trim().trim_start_matches("W/") == tag)
        },
    )
}

fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Wanted::Whole };
    // a copy that began with other bytes must not be continued with these; a date never is a strong proof here
    if headers.get(header::IF_RANGE).is_some_and(|given| given.as_bytes() != tag.as_bytes()) {
        return Wanted::Whole;
    }
    range.to_str().ok().map_or(Wanted::Whole, |range| parse_range(range, size))
}

/// RFC 6266: an ASCII name for old clients, the true one encoded.
pub(super) fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || " ._-()".contains(c) { c } else { '_' })
        .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_to_save_under_cannot_leave_its_header() {
        let header = disposition("a\"; filename=evil.exe\r\nSet-Cookie: x=1\u{202e}.mp4");
        assert!(!header.contains('\r') && !header.contains('\n'));
        assert_eq!(header.matches('"').count(), 2, "{header}");
        assert!(HeaderValue::from_str(&header).is_ok());
        assert!(header.contains("filename*=UTF-8''a%22%3B%20filename%3Devil.exe%0D%0A"));
    }
}
