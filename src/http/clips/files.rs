//! The bytes of a clip, by token or by signed link.

use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
};

use crate::{
    access::{Caller, token},
    domain::id::ClipId,
    error::Result,
    flow::{
        library::{self, File, Kind},
        links::SignedQuery,
        stores::Which,
    },
    http::{
        AppState,
        bytes::{self, Sent},
        error::{Answer, Problem},
        extract::{Path, Query, Signed},
    },
};

/// The MP4, whole or in ranges.
#[utoipa::path(
    get, path = "/clips/{id}/file", tag = "clips", params(("id" = String, Path), Signed),
    security(("bearer" = []), ()),
    responses(
        (status = 200, description = "The whole file", content_type = "video/mp4"),
        (status = 206, description = "One range of it", content_type = "video/mp4"),
        (status = 304, description = "Unchanged"),
        (status = 401, description = "`unauthenticated` with `reason` `bad_link` or `link_expired`, or for want of a token"),
        (status = 404, description = "`not_found`, `file_missing`"),
        (status = 409, description = "`clip_not_ready`"),
        (status = 416, description = "The range lies outside"),
    )
)]
pub(super) async fn video(
    State(state): State<AppState>,
    caller: Result<Option<Caller>, Problem>,
    Path(id): Path<String>,
    Query(query): Query<SignedQuery>,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let file = opened(&state, caller, &query, &ClipId::new(id), Kind::Video).await?;
    let name = crate::domain::names::file_name(&file.clip.title);
    let sent = Sent {
        path: &file.path,
        which: Which::Clips,
        content_type: "video/mp4",
        tag: file.clip.checksum.as_deref().unwrap_or_default(),
        save_as: Some(&name),
    };
    Ok(bytes::send(&state.deps, &method, &headers, sent).await?)
}

/// The poster.
#[utoipa::path(
    get, path = "/clips/{id}/thumbnail.jpg", tag = "clips", params(("id" = String, Path), Signed),
    security(("bearer" = []), ()),
    responses(
        (status = 200, description = "A picture from the middle", content_type = "image/jpeg"),
        (status = 304, description = "Unchanged"),
        (status = 401, description = "`unauthenticated` with `reason` `bad_link` or `link_expired`, or for want of a token"),
        (status = 404, description = "`not_found`, `file_missing`"),
        (status = 409, description = "`clip_not_ready`"),
    )
)]
pub(super) async fn poster(
    State(state): State<AppState>,
    caller: Result<Option<Caller>, Problem>,
    Path(id): Path<String>,
    Query(query): Query<SignedQuery>,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let file = opened(&state, caller, &query, &ClipId::new(id), Kind::Poster).await?;
    // the poster is made with the video and never changes without it
    let tag = format!("{}.jpg", file.clip.checksum.as_deref().unwrap_or_default());
    let sent = Sent {
        path: &file.path,
        which: Which::Clips,
        content_type: "image/jpeg",
        tag: &tag,
        save_as: None,
    };
    Ok(bytes::send(&state.deps, &method, &headers, sent).await?)
}

/// A signed link counts before a token: players send both when a page is signed in.
async fn opened(
    state: &AppState,
    caller: Result<Option<Caller>, Problem>,
    query: &SignedQuery,
    id: &ClipId,
    kind: Kind,
) -> Answer<File> {
    if query.is_given() {
        return Ok(library::open_link(&state.deps, query, id, kind).await?);
    }
    match caller? {
        Some(caller) => Ok(library::open(&state.deps, &caller, id, kind).await?),
        None => Err(Problem(token::refusal(token::Reason::Missing))),
    }
}
