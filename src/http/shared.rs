//! What is behind a share's link: the video, for everybody who has the link.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, Method, header},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    bytes::{self, Sent},
    error::Answer,
    extract::Path,
};
use crate::flow::{shares, stores::Which};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(video))
}

/// A shared clip, whole or in ranges. No login is needed; the link is the right.
#[utoipa::path(
    get, path = "/s/{secret}", tag = "shares", params(("secret" = String, Path)), security(()),
    responses(
        (status = 200, description = "The whole file", content_type = "video/mp4"),
        (status = 206, description = "One range of it", content_type = "video/mp4"),
        (status = 304, description = "Unchanged"),
        (status = 404, description = "`not_found`: never made, expired, taken back, or the clip is gone; `file_missing`"),
        (status = 416, description = "The range lies outside"),
    )
)]
async fn video(
    State(state): State<AppState>,
    Path(secret): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let file = shares::open(&state.deps, &secret).await?;
    let sent = Sent {
        path: &file.path,
        which: Which::Clips,
        content_type: "video/mp4",
        tag: file.clip.checksum.as_deref().unwrap_or_default(),
        // shown in place: who opens the link wants to see it
        save_as: None,
    };
    let mut response = bytes::send(&state.deps, &method, &headers, sent).await?;
    // the address is a secret: no search engine keeps it, no page it leads to learns it
    let answer = response.headers_mut();
    answer.insert("x-robots-tag", HeaderValue::from_static("noindex, nofollow"));
    answer.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
