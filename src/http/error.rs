//! The one place where a status is chosen. A failure travels as [`Error`] in the response's extensions and becomes
//! `application/problem+json` in [`finish`], where the request id is known; what axum or a file server refuses by
//! itself is translated there as well, so no answer of ours is a bare status.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use tower_http::request_id::RequestId;

use crate::error::{Code, Error};

/// What a handler fails with; made from [`Error`] by `?`.
#[derive(Debug)]
pub struct Problem(pub Error);

/// What a handler answers.
pub type Answer<T> = Result<T, Problem>;

/// The failure as it waits in the response for [`finish`].
#[derive(Clone)]
struct Failure(Arc<Error>);

/// When to ask again if the failure does not say.
const DEFAULT_RETRY: Duration = Duration::from_secs(5);

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = status_of(self.0.code()).into_response();
        response.extensions_mut().insert(Failure(Arc::new(self.0)));
        response
    }
}

/// The failure that waits in a response.
pub(super) fn of(response: &Response) -> Option<&Error> {
    response.extensions().get::<Failure>().map(|Failure(error)| &**error)
}

/// The HTTP status of a code.
pub fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::CommunityDisabled
        | Code::PermissionDenied
        | Code::NotOwner
        | Code::TrackNotYours
        | Code::ShareRefused => StatusCode::FORBIDDEN,
        Code::NotFound | Code::NoSession | Code::NoSegmentsInRange | Code::FileMissing => {
            StatusCode::NOT_FOUND
        }
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::BufferAlreadyActive
        | Code::SessionNotActive
        | Code::CommunityMismatch
        | Code::WindowHasGaps
        | Code::ScreenShareNotFound
        | Code::ClipNotReady
        | Code::Cancelled => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::WindowInvalid
        | Code::NoUsableSegments
        | Code::ValidationFailed
        | Code::ShareNotConfigured
        | Code::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        Code::CommunityLimitReached | Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::FfmpegFailed | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::LivekitRejectedCredentials | Code::ShareFailed => StatusCode::BAD_GATEWAY,
        Code::LivekitUnreachable
        | Code::EgressUnavailable
        | Code::StorageUnavailable
        | Code::Overloaded
        | Code::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Code::EgressStartTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::QuotaExceeded | Code::InsufficientDisk => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// The body of a failure, complete but for the order of its members.
pub fn problem_body(error: &Error, request_id: &str) -> Value {
    let code = error.code();
    let mut body: Map<String, Value> = error.fields().clone();
    // ours come last: a field of the failure never replaces one of them
    body.insert("type".to_owned(), format!("urn:livekit-replay:problem:{code}").into());
    body.insert("title".to_owned(), title_of(code).into());
    body.insert("status".to_owned(), status_of(code).as_u16().into());
    body.insert("detail".to_owned(), error.detail().into());
    body.insert("code".to_owned(), code.as_str().into());
    body.insert("requestId".to_owned(), request_id.into());
    Value::Object(body)
}

/// `quota_exceeded` -> `Quota exceeded`.
fn title_of(code: Code) -> String {
    let mut title = code.as_str().replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// Layer: writes the problem of a failed answer, and logs our own faults once.
pub async fn finish(request: Request, next: Next) -> Response {
    let request_id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut response = next.run(request).await;
    let failure = match response.extensions_mut().remove::<Failure>() {
        Some(Failure(error)) => error,
        None if is_bare_refusal(&response) => Arc::new(of_status(response.status())),
        None => return response,
    };
    log(&failure);
    write(response, &failure, &request_id)
}

fn log(error: &Error) {
    let code = error.code();
    let status = status_of(code);
    if code == Code::Internal {
        tracing::error!(code = code.as_str(), error = error.chain(), "request failed");
    } else if status.is_server_error() {
        tracing::warn!(code = code.as_str(), error = error.chain(), "request failed");
    } else {
        tracing::debug!(code = code.as_str(), error = error.chain(), "request refused");
    }
}

/// Replaces status and body; other headers (`Allow`, `Content-Range`, rate limits) stay.
fn write(response: Response, error: &Error, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = status_of(error.code());
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let passes =
        matches!(parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let keys_may_come = parts.status == StatusCode::UNAUTHORIZED && error.retry_delay().is_some();
    if passes || keys_may_come {
        let delay = error.retry_delay().unwrap_or(DEFAULT_RETRY);
        // rounded up, and never 0: "now" would be a lie
        let seconds = u64::try_from(delay.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if parts.status == StatusCode::UNAUTHORIZED {
        let reason = error.fields().get("reason").and_then(Value::as_str);
        headers.insert(header::WWW_AUTHENTICATE, challenge(reason));
    }
    Response::from_parts(parts, Body::from(problem_body(error, request_id).to_string()))
}

/// RFC 6750: `error` only when credentials were sent.
fn challenge(reason: Option<&str>) -> HeaderValue {
    match reason {
        None | Some("missing" | "keys_unavailable") => {
            HeaderValue::from_static(r#"Bearer realm="livekit-replay""#)
        }
        Some(_) => {
            HeaderValue::from_static(r#"Bearer realm="livekit-replay", error="invalid_token""#)
        }
    }
}

/// An error status with a body that is not ours.
fn is_bare_refusal(response: &Response) -> bool {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return false;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    !kind.is_some_and(|kind| {
        kind.starts_with("application/json") || kind.starts_with("application/problem+json")
    })
}

/// Our words for what a library refused.
fn of_status(status: StatusCode) -> Error {
    match status {
        StatusCode::NOT_FOUND => Error::new(Code::NotFound, "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            Error::new(Code::MethodNotAllowed, "This address does not take that method.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => unsupported_media_type(),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            Error::new(Code::RangeNotSatisfiable, "The bytes asked for lie outside the file.")
        }
        StatusCode::SERVICE_UNAVAILABLE => Error::new(Code::Overloaded, "Too busy; try again."),
        status if status.is_client_error() => {
            Error::new(Code::ValidationFailed, "The request is not well formed.")
        }
        status => Error::internal("answering", format!("a library answered {status}")),
    }
}

/// The body exceeds the limit.
pub fn too_large() -> Error {
    Error::new(Code::TooLarge, "The body is larger than this address takes.")
}

/// The body is not JSON.
pub fn unsupported_media_type() -> Error {
    Error::new(Code::UnsupportedMediaType, "Send the body as application/json.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `REPLAY_BLESS=1` writes the file anew.
    #[test]
    fn the_table_of_codes_and_statuses_is_the_one_committed() {
        let mut table = String::new();
        for code in Code::ALL {
            table.push_str(&format!("{} {}\n", code.as_str(), status_of(*code).as_u16()));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/errors.txt");
        if std::env::var_os("REPLAY_BLESS").is_some() {
            std::fs::write(path, &table).expect("the golden file can be written");
        }
        assert_eq!(std::fs::read_to_string(path).expect("the golden file is there"), table);
    }

    #[test]
    fn a_field_of_a_failure_cannot_replace_the_members_of_a_problem() {
        let error = Error::not_found("clip").with("status", 200).with("clipId", "c1");
        let body = problem_body(&error, "r1");
        assert_eq!(body["status"], 404);
        assert_eq!(body["clipId"], "c1");
        assert_eq!(body["title"], "Not found");
    }
}
