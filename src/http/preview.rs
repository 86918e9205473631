//! HLS: the playlists of sessions and of clips in the making, and their segments.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    bytes::{self, Open},
    error::{Answer, Problem},
    extract::{Path, Query, Signed},
};
use crate::{
    access::{Caller, token},
    domain::id::{ClipId, SessionId},
    flow::{
        links::SignedQuery,
        preview::{self, Access},
    },
};

/// The routes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(of_session))
        .routes(routes!(of_clip))
        .routes(routes!(segment))
}

/// HLS of a session's promised minutes. By the signed query of `previewUrl`, or by the owner's token.
#[utoipa::path(
    get, path = "/sessions/{id}/preview.m3u8", tag = "sessions", params(("id" = String, Path), Signed),
    security(("bearer" = []), ()),
    responses(
        (status = 200, description = "A playlist that slides while the session goes on; its segments are signed",
         content_type = "application/vnd.apple.mpegurl"),
        (status = 401, description = "`unauthenticated` with `reason` `bad_link` or `link_expired`"),
        (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`, `no_segments_in_range`"),
    )
)]
async fn of_session(
    State(state): State<AppState>,
    caller: Result<Option<Caller>, Problem>,
    Path(id): Path<String>,
    Query(query): Query<SignedQuery>,
) -> Answer<Response> {
    let by = By::of(caller, query)?;
    Ok(playlist(preview::of_session(&state.deps, by.access(), &SessionId::new(id)).await?))
}

/// HLS of the window of a clip that is being made: playable at once, growing, ended when nothing more comes. By the
/// signed query of `previewUrl`, or by the owner's token.
#[utoipa::path(
    get, path = "/clips/{id}/preview.m3u8", tag = "clips", params(("id" = String, Path), Signed),
    security(("bearer" = []), ()),
    responses(
        (status = 200, description = "A playlist that only grows; its segments are signed",
         content_type = "application/vnd.apple.mpegurl"),
        (status = 401, description = "`unauthenticated` with `reason` `bad_link` or `link_expired`"),
        (status = 404, description = "`not_found`, `no_segments_in_range`"),
    )
)]
async fn of_clip(
    State(state): State<AppState>,
    caller: Result<Option<Caller>, Problem>,
    Path(id): Path<String>,
    Query(query): Query<SignedQuery>,
) -> Answer<Response> {
    let by = By::of(caller, query)?;
    Ok(playlist(preview::of_clip(&state.deps, by.access(), &ClipId::new(id)).await?))
}

/// In whose playlist a segment stood.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OfClip {
    /// The clip, in the links of a clip's playlist.
    c: Option<String>,
}

/// One segment of a preview, named `{epoch}-{number}.ts`. By the signed query in the playlist, or by the owner's token.
#[utoipa::path(
    get, path = "/sessions/{id}/segments/{segment}", tag = "sessions",
    params(
        ("id" = String, Path),
        ("segment" = String, Path, description = "`{epoch}-{number}.ts`, for instance `1-17.ts`"),
        OfClip,
        Signed,
    ),
    security(("bearer" = []), ()),
    responses(
        (status = 200, description = "The whole segment", content_type = "video/mp2t"),
        (status = 206, description = "One range of it", content_type = "video/mp2t"),
        (status = 304, description = "Unchanged"),
        (status = 401, description = "`unauthenticated` with `reason` `bad_link` (also once the recording was discarded) or `link_expired`"),
        (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`: unknown, not usable, or no longer kept"),
        (status = 416, description = "`range_not_satisfiable`"),
        (status = 503, description = "`storage_unavailable`"),
    )
)]
async fn segment(
    State(state): State<AppState>,
    caller: Result<Option<Caller>, Problem>,
    Path((id, name)): Path<(String, String)>,
    Query(query): Query<SignedQuery>,
    Query(of): Query<OfClip>,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let by = By::of(caller, query)?;
    let (id, of) = (SessionId::new(id), of.c.map(ClipId::new));
    let found = preview::segment(&state.deps, by.access(), &id, &name, of.as_ref()).await?;
    let open = Open { file: found.file, content_type: "video/mp2t", tag: &found.tag };
    Ok(bytes::send_open(&method, &headers, open, None))
}

/// By what this request comes. A signed link counts before a token: players send both when a page is signed in.
pub(super) enum By {
    Link(SignedQuery),
    Token(Caller),
}

impl By {
    pub(super) fn of(
        caller: Result<Option<Caller>, Problem>,
        query: SignedQuery,
    ) -> Result<By, Problem> {
        if query.is_given() {
            return Ok(By::Link(query));
        }
        caller?.map(By::Token).ok_or_else(|| Problem(token::refusal(token::Reason::Missing)))
    }

    pub(super) fn access(&self) -> Access<'_> {
        match self {
            By::Link(query) => Access::Link(query),
            By::Token(caller) => Access::Token(caller),
        }
    }
}

fn playlist(text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.apple.mpegurl")),
        // it changes every segment, and what is in it opens segments
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    (headers, text).into_response()
}
