//! Sharing a clip, and taking shares back.
//!
//! A link's secret part is kept nowhere, so the kept answer of an `Idempotency-Key` cannot hold it either: it holds
//! the secret covered by what only the key's owner can make again, and the key itself is kept as a hash.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{
    access::Caller,
    domain::{
        id::{ClipId, ShareId},
        time::Timestamp,
    },
    error::{Error, Result},
    flow::{
        Deps,
        idempotency::{self, Begun, Claim, Kept},
        shares::{self, Destination, Order, Share, Shared},
    },
    http::{
        AppState,
        error::Answer,
        extract::{HashedBody, Path},
        idempotency::{Key, body_hash, finish, replayed},
    },
};

/// The route in the scope of an `Idempotency-Key`.
const ROUTE: &str = "POST /clips/{id}/share";
/// Delivering takes five seconds at most, and what came of it is insisted on for half a minute.
const LEASE: Duration = Duration::from_secs(60);

/// Where a clip goes, as a capture and a share say it.
pub(super) fn order(
    option: Destination,
    channel: Option<String>,
    user: Option<String>,
    expires_at: Option<Timestamp>,
) -> Result<Order> {
    let needless = |field| Err(Error::invalid_field(field, "does not belong to this shareOption"));
    let missing = |field| Error::invalid_field(field, "is needed for this shareOption");
    let target = match (option, channel, user) {
        (Destination::Link | Destination::Dm, Some(_), _) => return needless("targetChannelId"),
        (Destination::Link | Destination::Channel, _, Some(_)) => return needless("targetUserId"),
        (Destination::Link, None, None) => None,
        (Destination::Dm, None, user) => Some(user.ok_or_else(|| missing("targetUserId"))?),
        (Destination::Channel, channel, None) => {
            Some(channel.ok_or_else(|| missing("targetChannelId"))?)
        }
    };
    Ok(Order { destination: option, target, expires_at })
}

/// Where a clip goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ShareBody {
    /// `link`, or `dm` and `channel` where the service has an address to deliver to.
    #[schema(value_type = String)]
    share_option: Destination,
    /// For `channel`.
    target_channel_id: Option<String>,
    /// For `dm`.
    target_user_id: Option<String>,
    /// When the link ends; absent = with the clip.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// A share as it is answered once: nobody can tell its address again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SharedBody {
    share_id: String,
    /// Works without a login.
    url: String,
    /// `link`, `dm`, `channel`.
    destination: String,
    /// The app's name of the message that carries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
}

/// What is kept of it for repeats.
#[derive(Debug, Serialize, Deserialize)]
struct KeptShare {
    share_id: String,
    destination: String,
    message_id: Option<String>,
    /// The link's secret part under its cover, hex.
    covered: String,
}

/// Shares a clip of one's own.
#[utoipa::path(
    post, path = "/clips/{id}/share", tag = "shares", request_body = ShareBody,
    params(
        ("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Shared, and delivered where it had to be", body = SharedBody),
        (status = 403, description = "`not_owner`; `share_refused`: the app does not allow it"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`clip_not_ready`"),
        (status = 422, description = "`validation_failed`, `share_not_configured`, `idempotency_mismatch`"),
        (status = 502, description = "`share_failed`: the app did not take it, and the link is void"),
    )
)]
pub(super) async fn share(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    key: Key,
    HashedBody(body, hash): HashedBody<ShareBody>,
) -> Answer<Response> {
    let ShareBody { share_option, target_channel_id, target_user_id, expires_at } = body;
    let order = order(share_option, target_channel_id, target_user_id, expires_at)?;
    let deps = &state.deps;
    let claim = key.0.as_ref().map(|key| Claim {
        user: caller.user_id.clone(),
        route: ROUTE,
        key: hex::encode(Sha256::digest(key)),
    });
    // the clip is part of what was asked, though not of the body
    let hash = body_hash(&json!([&id, hash]));
    let held = match (&claim, &key.0) {
        (Some(claim), Some(key)) => match idempotency::begin(deps, claim, &hash, LEASE).await? {
            Begun::First(held) => Some((held, key.clone())),
            Begun::Repeat(kept) => {
                return Ok(replayed(uncovered(deps, key, &kept)?.into_response()));
            }
        },
        _ => None,
    };
    let (own, id) = (deps.clone(), ClipId::new(id));
    let work = async move {
        let outcome = shares::share(&own, &caller, &id, order).await;
        if let Some((held, key)) = &held {
            match &outcome {
                Ok(shared) => {
                    // it is shared: an error now would have it shared again
                    if let Err(error) = idempotency::keep(&own, held, kept_of(key, shared)?).await {
                        tracing::warn!(error = error.chain(), "a share's answer is not kept");
                    }
                }
                Err(_) => idempotency::release(&own, held).await?,
            }
        }
        outcome
    };
    let Shared { share, secret } = finish(deps, work).await?;
    let body = SharedBody {
        share_id: share.id.into_string(),
        url: shares::address(deps, &secret),
        destination: share.destination.to_string(),
        message_id: share.message_id,
    };
    Ok(Json(body).into_response())
}

fn kept_of(key: &str, shared: &Shared) -> Result<Kept> {
    let Shared { share, secret } = shared;
    let kept = KeptShare {
        share_id: share.id.to_string(),
        destination: share.destination.to_string(),
        message_id: share.message_id.clone(),
        covered: hex::encode(covered(key, share.id.as_str(), *secret)),
    };
    let body = serde_json::to_string(&kept)
        .map_err(|error| Error::internal("keeping an answer", error))?;
    Ok(Kept { status: StatusCode::OK.as_u16(), body, location: None })
}

fn uncovered(deps: &Deps, key: &str, kept: &Kept) -> Result<Json<SharedBody>> {
    let fault = |error: String| Error::internal("repeating an answer", error);
    let kept: KeptShare =
        serde_json::from_str(&kept.body).map_err(|error| fault(error.to_string()))?;
    let mut secret = [0; 16];
    hex::decode_to_slice(&kept.covered, &mut secret).map_err(|error| fault(error.to_string()))?;
    Ok(Json(SharedBody {
        url: shares::address(deps, &covered(key, &kept.share_id, secret)),
        share_id: kept.share_id,
        destination: kept.destination,
        message_id: kept.message_id,
    }))
}

/// Puts the cover on, or takes it off.
fn covered(key: &str, share: &str, mut secret: [u8; 16]) -> [u8; 16] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(share.as_bytes());
    for (byte, cover) in secret.iter_mut().zip(mac.finalize().into_bytes()) {
        *byte ^= cover;
    }
    secret
}

/// A share whose link works.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ShareView {
    share_id: String,
    /// `link`, `dm`, `channel`.
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_channel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl From<Share> for ShareView {
    fn from(share: Share) -> ShareView {
        let (user, channel) = match share.destination {
            Destination::Dm => (share.target_id, None),
            Destination::Channel => (None, share.target_id),
            Destination::Link => (None, None),
        };
        ShareView {
            share_id: share.id.into_string(),
            destination: share.destination.to_string(),
            target_user_id: user,
            target_channel_id: channel,
            message_id: share.message_id,
            created_at: share.created_at,
            expires_at: share.expires_at,
        }
    }
}

/// All of a clip's.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SharesBody {
    shares: Vec<ShareView>,
    total: usize,
}

/// Shares of one's own clip whose links work, newest first. Their addresses are told once, when they are made.
#[utoipa::path(
    get, path = "/clips/{id}/shares", tag = "shares", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = SharesBody), (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`"))
)]
pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<SharesBody>> {
    let found = shares::list(&state.deps, &caller, &ClipId::new(id)).await?;
    let shares: Vec<ShareView> = found.into_iter().map(ShareView::from).collect();
    Ok(Json(SharesBody { total: shares.len(), shares }))
}

/// What was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevokedBody {
    message: &'static str,
    /// How many shares.
    revoked: u64,
}

/// Takes a share back: its link works no more.
#[utoipa::path(
    delete, path = "/clips/{id}/shares/{shareId}", tag = "shares",
    params(("id" = String, Path), ("shareId" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = RevokedBody), (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`"))
)]
pub(super) async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, share)): Path<(String, String)>,
) -> Answer<Json<RevokedBody>> {
    let (id, share) = (ClipId::new(id), ShareId::new(share));
    shares::revoke(&state.deps, &caller, &id, &share).await?;
    Ok(Json(RevokedBody { message: "Share taken back", revoked: 1 }))
}

/// Voids every link to a clip: shares, and signed addresses that were handed out.
#[utoipa::path(
    delete, path = "/clips/{id}/links", tag = "shares", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = RevokedBody), (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`"))
)]
pub(super) async fn revoke_all(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<RevokedBody>> {
    let (deps, id) = (state.deps.clone(), ClipId::new(id));
    let work = async move { shares::revoke_all(&deps, &caller, &id).await };
    let revoked = finish(&state.deps, work).await?;
    Ok(Json(RevokedBody { message: "All links are void", revoked }))
}
