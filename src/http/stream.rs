//! GET /sessions/{id}/stream: a window as a video, sent while it is made.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState, bytes,
    error::{Answer, Problem},
    extract::{Arrived, Path, Query},
};
use crate::{
    access::Caller,
    domain::{id::SessionId, time::Timestamp, window::WindowRequest},
    error::{Code, Error},
    flow::stream,
};

/// The route that is limited as a capture.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(send))
}

/// A window: exactly one of its forms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct WindowQuery {
    /// The last N minutes, 1 to the buffer's length.
    duration_minutes: Option<f64>,
    /// The last N seconds.
    duration_seconds: Option<f64>,
    /// Start of an explicit window.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// End of an explicit window.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Start, counted from the session's `startedAt`.
    start_seconds: Option<f64>,
    /// End, counted from the session's `startedAt`.
    end_seconds: Option<f64>,
}

impl WindowQuery {
    pub(super) fn into_request(self) -> WindowRequest {
        WindowRequest {
            duration_minutes: self.duration_minutes,
            duration_seconds: self.duration_seconds,
            from: self.from,
            to: self.to,
            start_seconds: self.start_seconds,
            end_seconds: self.end_seconds,
            ..WindowRequest::default()
        }
    }
}

/// Send a window of the caller's session as a fragmented MP4 while it is made; nothing is kept. It begins at the key
/// frame at or before the window, and may end a few pictures after it. Counts as a capture. A connection that breaks
/// off means that the video is not whole.
#[utoipa::path(
    get, path = "/sessions/{id}/stream", tag = "sessions", params(("id" = String, Path), WindowQuery),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The video, as an attachment of unknown length", content_type = "video/mp4"),
        (status = 403, description = "`not_owner`, `permission_denied`"),
        (status = 404, description = "`not_found`, `no_segments_in_range`"),
        (status = 422, description = "`window_invalid` (also one that ends in the future), `no_usable_segments`"),
        (status = 429, description = "`rate_limited`"),
        (status = 503, description = "`overloaded`: every worker is busy, or another stream of the caller is being sent; `storage_unavailable`"),
    )
)]
async fn send(
    State(state): State<AppState>,
    caller: Caller,
    Arrived(arrived_at): Arrived,
    Path(id): Path<String>,
    Query(query): Query<WindowQuery>,
    method: Method,
) -> Answer<Response> {
    if method == Method::HEAD {
        let text = "What a stream is, only its bytes can tell.";
        return Err(Problem(Error::new(Code::MethodNotAllowed, text)));
    }
    let (id, request) = (SessionId::new(id), query.into_request());
    let streaming = stream::stream(&state.deps, &caller, &id, &request, arrived_at).await?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    let name = bytes::disposition(&crate::domain::names::file_name(&streaming.title));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    let first = futures::stream::iter([Ok(streaming.first)]);
    let rest = futures::stream::unfold(streaming.rest, async |mut rest| {
        let piece = rest.next().await?;
        Some((piece.map_err(|error| std::io::Error::other(error.chain())), rest))
    });
    // an error in the middle breaks the connection off: a clean end would make half a video look whole
    let body = Body::from_stream(futures::StreamExt::chain(first, rest));
    Ok((headers, body).into_response())
}
