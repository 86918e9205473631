//! Captures, the library, and the bytes of clips.

mod capture;
mod files;
mod shape;
mod shares;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    AppState,
    error::Answer,
    extract::{Body, Path, Query},
};
use crate::{
    access::Caller,
    domain::id::{ClipId, CommunityId, UserId},
    error::{Error, Result},
    flow::{
        admin::Page,
        capture::Visibility,
        library::{self, Listed, Quota},
    },
};
pub use shape::ClipBody;
pub(super) use shape::clip as body_of;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(capture::retry))
        .routes(routes!(my_clips))
        .routes(routes!(community_clips))
        .routes(routes!(user_clips))
        .routes(routes!(show, change, remove))
        .routes(routes!(files::video))
        .routes(routes!(files::poster))
        .routes(routes!(my_quota))
}

/// Shares, which no limit counts.
pub fn share_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(shares::share))
        .routes(routes!(shares::list))
        .routes(routes!(shares::revoke))
        .routes(routes!(shares::revoke_all))
}

/// The routes that are limited as captures.
pub fn capture_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(capture::create)).routes(routes!(capture::trim))
}

/// Clips on a page unless asked otherwise.
const PAGE: u64 = 50;
/// Clips on a page at most.
const LONGEST_PAGE: u64 = 100;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// 1 to 100, 50 unless given.
    limit: Option<u64>,
    /// How many to pass over.
    offset: Option<u64>,
}

/// Which page of one's own clips.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct OwnQuery {
    /// 1 to 100, 50 unless given.
    limit: Option<u64>,
    /// How many to pass over.
    offset: Option<u64>,
    /// Only those of this community.
    community_id: Option<String>,
}

fn page(limit: Option<u64>, offset: Option<u64>) -> Result<Page> {
    let limit = limit.unwrap_or(PAGE);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        return Err(Error::invalid_field("limit", format!("must be from 1 to {LONGEST_PAGE}")));
    }
    // what no database can skip is past every end
    let offset = offset.unwrap_or(0).min(u64::from(u32::MAX));
    Ok(Page { limit, offset })
}

/// A user's account, as a list of clips carries it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QuotaInList {
    used_bytes: i64,
    reserved_bytes: i64,
    quota_bytes: i64,
}

/// A user's account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuotaBody {
    quota_bytes: i64,
    used_bytes: i64,
    reserved_bytes: i64,
    clips_count: u64,
}

impl From<Quota> for QuotaBody {
    fn from(quota: Quota) -> QuotaBody {
        QuotaBody {
            quota_bytes: quota.quota_bytes,
            used_bytes: quota.used_bytes,
            reserved_bytes: quota.reserved_bytes,
            clips_count: quota.clips_count,
        }
    }
}

/// A page of clips, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClipsBody {
    clips: Vec<ClipBody>,
    total: u64,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaInList>,
}

fn clips_body(
    state: &AppState,
    caller: &Caller,
    listed: Listed,
    quota: Option<Quota>,
) -> Json<ClipsBody> {
    Json(ClipsBody {
        clips: listed.clips.iter().map(|clip| shape::clip(&state.deps, caller, clip)).collect(),
        total: listed.total,
        has_more: listed.has_more,
        quota: quota.map(|quota| QuotaInList {
            used_bytes: quota.used_bytes,
            reserved_bytes: quota.reserved_bytes,
            quota_bytes: quota.quota_bytes,
        }),
    })
}

/// The caller's clips.
#[utoipa::path(
    get, path = "/my-clips", tag = "clips", params(OwnQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "The caller's clips, newest first", body = ClipsBody))
)]
async fn my_clips(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<OwnQuery>,
) -> Answer<Json<ClipsBody>> {
    let page = page(query.limit, query.offset)?;
    let community = query.community_id.map(CommunityId::new);
    let listed = library::list_own(&state.deps, &caller, community, page).await?;
    let quota = library::quota_of(&state.deps, &caller.user_id).await?;
    Ok(clips_body(&state, &caller, listed, Some(quota)))
}

/// A community's clips, for its members.
#[utoipa::path(
    get, path = "/community/{id}/clips", tag = "clips", params(("id" = String, Path), PageQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "Community and public clips, newest first", body = ClipsBody))
)]
async fn community_clips(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<ClipsBody>> {
    let page = page(query.limit, query.offset)?;
    let community = CommunityId::new(id);
    let listed = library::list_of_community(&state.deps, &caller, community, page).await?;
    Ok(clips_body(&state, &caller, listed, None))
}

/// A user's public clips.
#[utoipa::path(
    get, path = "/users/{id}/clips", tag = "clips", params(("id" = String, Path), PageQuery),
    security(("bearer" = [])),
    responses((status = 200, description = "Public clips, newest first", body = ClipsBody))
)]
async fn user_clips(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<ClipsBody>> {
    let page = page(query.limit, query.offset)?;
    let listed = library::list_of_user(&state.deps, UserId::new(id), page).await?;
    Ok(clips_body(&state, &caller, listed, None))
}

/// One clip.
#[utoipa::path(
    get, path = "/clips/{id}", tag = "clips", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, description = "The clip", body = ClipBody))
)]
async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<ClipBody>> {
    let clip = library::show(&state.deps, &caller, &ClipId::new(id)).await?;
    Ok(Json(shape::clip(&state.deps, &caller, &clip)))
}

/// What an owner changes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChangeBody {
    /// Up to 200 characters.
    title: Option<String>,
    /// `private`, `community`, `public`, `unlisted`.
    #[schema(value_type = Option<String>)]
    visibility: Option<Visibility>,
}

/// Changes title or visibility.
#[utoipa::path(
    patch, path = "/clips/{id}", tag = "clips", params(("id" = String, Path)),
    request_body = ChangeBody, security(("bearer" = [])),
    responses(
        (status = 200, description = "The clip as it is now", body = ClipBody),
        (status = 403, description = "`not_owner`"),
    )
)]
async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<ChangeBody>,
) -> Answer<Json<ClipBody>> {
    let change = library::Change { title: body.title, visibility: body.visibility };
    let (deps, id) = (state.deps.clone(), ClipId::new(id));
    let who = caller.clone();
    let work = async move { library::change(&deps, &who, &id, change).await };
    let clip = super::idempotency::finish(&state.deps, work).await?;
    Ok(Json(shape::clip(&state.deps, &caller, &clip)))
}

/// What a deletion gave back.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeletedBody {
    message: &'static str,
    freed_bytes: i64,
    remaining_quota_bytes: i64,
}

/// Deletes a clip, or cancels the making of it.
#[utoipa::path(
    delete, path = "/clips/{id}", tag = "clips", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "It is gone", body = DeletedBody),
        (status = 403, description = "`not_owner`"),
        (status = 429, description = "`rate_limited`"),
    )
)]
async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<DeletedBody>> {
    let (deps, id) = (state.deps.clone(), ClipId::new(id));
    let work = async move { library::delete(&deps, &caller, &id).await };
    let deleted = super::idempotency::finish(&state.deps, work).await?;
    Ok(Json(DeletedBody {
        message: if deleted.cancelled { "Capture cancelled" } else { "Clip deleted" },
        freed_bytes: deleted.freed_bytes,
        remaining_quota_bytes: deleted.remaining_quota_bytes,
    }))
}

/// The caller's account.
#[utoipa::path(
    get, path = "/me/quota", tag = "me", security(("bearer" = [])),
    responses((status = 200, description = "Allowance and use", body = QuotaBody))
)]
async fn my_quota(State(state): State<AppState>, caller: Caller) -> Answer<Json<QuotaBody>> {
    let quota = library::quota_of(&state.deps, &caller.user_id).await?;
    Ok(Json(quota.into()))
}
