//! What happens to every request before and after its handler: ids, the time of arrival, spans, limits, headers.

use std::{any::Any, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    set_header::SetResponseHeaderLayer,
    trace::TraceLayer,
};

use super::{
    AppState,
    client::{self, ClientAddress},
    error::{self, Problem},
    extract::Arrived,
};
use crate::error::{Code, Error};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's own id is kept up to this length.
const REQUEST_ID_BYTES: usize = 64;
/// Of path and query together: the longest that is needed is a signed link.
const ADDRESS_BYTES: usize = 8 * 1024;
/// What a request may take beyond the longest wait we grant.
const TIMEOUT_SLACK: Duration = Duration::from_secs(30);

/// Wraps the whole router. The last layer added is the first to see a request.
pub fn wrap(router: Router, state: &AppState) -> Router {
    let server = &state.deps.config.server;
    // a start may wait for LiveKit as long as that is allowed to take
    let timeout = server.max_wait.max(state.deps.config.livekit.start_timeout) + TIMEOUT_SLACK;
    let set = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    router
        .layer(middleware::from_fn_with_state(timeout, limit_time))
        .layer(middleware::from_fn(refuse_hostile_address))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(error::finish))
        .layer(cors(&server.cors_origins))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::X_FRAME_OPTIONS, "DENY"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .layer(set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .layer(middleware::from_fn(measure))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(make_span)
                .on_request(())
                .on_response(on_response)
                .on_failure(()),
        )
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE]))
        .layer(middleware::from_fn_with_state(state.clone(), client::note))
        .layer(middleware::from_fn_with_state(state.clone(), note_arrival))
        .layer(PropagateRequestIdLayer::new(X_REQUEST_ID))
        .layer(SetRequestIdLayer::new(X_REQUEST_ID, FreshId))
        .layer(middleware::from_fn(drop_odd_request_id))
}

/// Makes the id of a request that brings none.
#[derive(Debug, Clone, Copy)]
struct FreshId;

impl MakeRequestId for FreshId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = uuid::Uuid::now_v7().to_string();
        HeaderValue::try_from(id).ok().map(RequestId::new)
    }
}

/// A client's id is kept if it is one header of at most 64 visible ASCII characters.
async fn drop_odd_request_id(mut request: Request, next: Next) -> Response {
    let headers = request.headers_mut();
    let mut ids = headers.get_all(X_REQUEST_ID).iter();
    let fits = ids.next().is_some_and(|id| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    if !fits || ids.next().is_some() {
        headers.remove(X_REQUEST_ID);
    }
    next.run(request).await
}

async fn note_arrival(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Arrived(state.deps.clock.now()));
    next.run(request).await
}

/// The span of a request. The address itself is never logged: signed links carry their right in it.
fn make_span(request: &Request) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    let client = request.extensions().get::<ClientAddress>().map(|ClientAddress(ip)| ip);
    tracing::info_span!(
        "http.request",
        request_id = id,
        client = client.map(tracing::field::display),
        method = %request.method(),
        route = route_of(request),
        status = tracing::field::Empty,
        latency_ms = tracing::field::Empty,
    )
}

fn route_of(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str)
}

fn on_response(response: &Response, latency: Duration, span: &tracing::Span) {
    span.record("status", response.status().as_u16());
    span.record("latency_ms", u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    tracing::debug!("request answered");
}

/// Counts requests by route, method and status: all of them bounded sets.
async fn measure(request: Request, next: Next) -> Response {
    let route = route_of(&request).to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let begun = tokio::time::Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    metrics::counter!("livekit_replay_http_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("livekit_replay_http_request_seconds", "route" => route, "method" => method)
        .record(begun.elapsed().as_secs_f64());
    response
}

fn cors(origins: &[String]) -> CorsLayer {
    // the list takes no wildcard; credentials are never allowed, so "every origin" gives nobody a session
    let every = origins.iter().any(|origin| origin == "*");
    let origins: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| HeaderValue::try_from(origin.as_str()).ok()).collect();
    let names = |names: &[&'static str]| -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    };
    CorsLayer::new()
        .allow_origin(if every { AllowOrigin::any() } else { AllowOrigin::list(origins) })
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(names(&[
            "authorization",
            "content-type",
            "idempotency-key",
            "prefer",
            "range",
            "if-range",
            "if-none-match",
            "last-event-id",
            "x-request-id",
        ]))
        .expose_headers(names(&[
            "x-request-id",
            "location",
            "retry-after",
            "ratelimit-limit",
            "ratelimit-remaining",
            "ratelimit-reset",
            "preference-applied",
            "etag",
            "content-disposition",
            "content-range",
            "accept-ranges",
        ]))
        .max_age(Duration::from_secs(600))
}

/// Addresses that are too long are refused; control characters in one are nobody's name: refused before any query sees them (PostgreSQL takes no NUL).
async fn refuse_hostile_address(request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path_and_query().is_some_and(|all| all.as_str().len() > ADDRESS_BYTES) {
        let detail = format!("path and query together have at most {ADDRESS_BYTES} bytes");
        return Problem(Error::invalid_field("address", detail)).into_response();
    }
    if has_control(uri.path()) {
        return Problem(Error::invalid_field("path", "control characters are not taken"))
            .into_response();
    }
    if uri.query().is_some_and(has_control) {
        return Problem(Error::invalid_field("query", "control characters are not taken"))
            .into_response();
    }
    next.run(request).await
}

/// Whether the percent-decoded text holds a control character (C0, DEL, C1).
fn has_control(encoded: &str) -> bool {
    percent_decode_str(encoded).decode_utf8_lossy().chars().any(char::is_control)
}

/// Passes over whole stores, asked for by administrators who wait for their figures.
const LONG_PASSES: [&str; 2] = ["/admin/clips/verify", "/run"];
/// What the command line waits for them.
const LONGEST_PASS: Duration = Duration::from_secs(600);

/// How long the answer to this may take.
fn patience(limit: Duration, method: &Method, path: &str) -> Duration {
    let is_long = method == Method::POST && LONG_PASSES.iter().any(|end| path.ends_with(end));
    if is_long { limit.max(LONGEST_PASS) } else { limit }
}

async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let limit = patience(limit, request.method(), request.uri().path());
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem(Error::new(Code::Overloaded, "The answer took too long; try again."))
            .into_response(),
    }
}

fn answer_panic(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned());
    Problem(Error::internal("handling a request that panicked", text)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_over_whole_stores_may_take_longer_than_other_answers() {
        let (limit, base) = (Duration::from_secs(90), "/api/livekit-replay");
        let of = |method: Method, path: &str| patience(limit, &method, &format!("{base}{path}"));
        assert_eq!(of(Method::POST, "/admin/clips/verify"), LONGEST_PASS);
        assert_eq!(of(Method::POST, "/admin/maintenance/orphan-reaper/run"), LONGEST_PASS);
        assert_eq!(of(Method::GET, "/admin/clips/verify"), limit);
        assert_eq!(of(Method::POST, "/capture"), limit);
        let longer = Duration::from_secs(700);
        assert_eq!(patience(longer, &Method::POST, "/admin/clips/verify"), longer);
    }

    #[test]
    fn control_characters_are_found_behind_percent_signs_and_nothing_else_is() {
        for hostile in ["/a%00b", "/a%0A", "/%7f", "/%C2%85", "/%0d%0aSet-Cookie:"] {
            assert!(has_control(hostile), "{hostile}");
        }
        for fine in ["/a%20b", "/%E2%82%AC", "/100%", "/%zz", "/%2500", "/..%2f"] {
            assert!(!has_control(fine), "{fine}");
        }
    }
}
