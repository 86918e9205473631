//! Shares: a link to a clip that works without a login, kept by its owner or delivered by the app. Who holds the link
//! sees the clip until the link expires, is deleted, the clip's visibility is narrowed, or the clip goes.

mod cover;
mod wishes;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Deps,
    capture::Clip,
    clip_files::{ClipFiles, write_record},
    library::{File, load_own},
    links, outbox,
    stores::{self, Which},
};
use crate::{
    access::Caller,
    config,
    domain::{
        id::{ClipId, ShareId},
        lifecycle::ClipStatus,
        names,
        time::Timestamp,
    },
    error::{Code, Error, Result},
    outbound::{self, Outcome},
    store::{self, clip, share, wish},
};

pub use cover::Covered;
use wishes::insist;
pub use wishes::{catch_up, fulfil};
pub(super) use wishes::{check_order, is_open, keep};

pub use crate::store::share::{Destination, Model as Share};

/// Bytes of a link's secret part.
const SECRET_BYTES: usize = 16;
/// The longest name of a message that is remembered.
const MESSAGE_BYTES: usize = 256;

/// Where a clip is to be shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who gets the link.
    pub destination: Destination,
    /// The person or channel, for [`Destination::Dm`] and [`Destination::Channel`].
    pub target: Option<String>,
    /// When the link ends.
    pub expires_at: Option<Timestamp>,
}

/// A link's secret part.
pub type Secret = [u8; SECRET_BYTES];

/// A share with its link's secret part, which nobody can tell again.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The row.
    pub share: Share,
    /// The secret part.
    pub secret: Secret,
}

/// The address of the link with that secret part.
pub fn address(deps: &Deps, secret: &Secret) -> String {
    links::address(deps, &format!("/s/{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// Shares the caller's own clip. A delivery that fails takes its link with it.
///
/// # Errors
/// `not_found`, `not_owner`, `validation_failed`, `clip_not_ready`, and for deliveries `share_not_configured` before
/// anything happens, `share_refused`, `share_failed`.
pub async fn share(deps: &Deps, caller: &Caller, id: &ClipId, order: Order) -> Result<Shared> {
    let clip = load_own(deps, caller, id).await?;
    check(&order, deps.clock.now())?;
    let endpoint = endpoint_of(deps, order.destination)?;
    let mut shared = new_share(deps, &clip, order);
    make(deps, &shared.share, false).await?;
    if let Some(endpoint) = endpoint {
        deliver(deps, &endpoint, &clip, caller.name.as_deref(), &mut shared).await?;
        // the app has it: an error now would have it shared again
        if let Err(error) = insist(deps, || tell(deps, &shared.share)).await {
            tracing::warn!(share.id = %shared.share.id, error = error.chain(), "that a clip was shared is not told");
        }
    }
    count(&shared.share);
    Ok(shared)
}

/// Where shares of that kind are delivered to; a link goes nowhere.
fn endpoint_of(deps: &Deps, destination: Destination) -> Result<Option<config::Share>> {
    match destination {
        Destination::Link => Ok(None),
        Destination::Dm | Destination::Channel => {
            deps.config.share.clone().map(Some).ok_or_else(not_configured)
        }
    }
}

/// Hands a share to the app. What it does not take is void.
async fn deliver(
    deps: &Deps,
    endpoint: &config::Share,
    clip: &Clip,
    username: Option<&str>,
    shared: &mut Shared,
) -> Result<()> {
    let body = message(deps, username, clip, shared);
    let id = &shared.share.id;
    let outcome = outbound::post(endpoint, id.as_str(), &body, deps.clock.now()).await;
    match delivered(outcome) {
        Ok(message) => shared.share.message_id = message,
        Err(error) => {
            let void = async || share::delete(deps.db.conn(), &clip.id, id).await.map(drop);
            if let Err(error) = insist(deps, void).await {
                tracing::warn!(share.id = %id, error = error.chain(), "the link of what was not delivered stays");
            }
            tracing::warn!(clip.id = %clip.id, error = error.chain(), "a share was not delivered");
            return Err(error);
        }
    }
    Ok(())
}

/// The app has it: the message's name is kept, and that it was shared is told.
async fn tell(deps: &Deps, share: &Share) -> Result<()> {
    let tx = deps.db.begin().await?;
    let known = share::find(&tx, &share.id).await?;
    if share.message_id.is_some() && known.is_some_and(|known| known.message_id == share.message_id)
    {
        // told by a commit whose answer did not reach us
        return store::rollback(tx).await;
    }
    if let Some(message) = &share.message_id {
        share::set_message(&tx, &share.id, message).await?;
    }
    // one that went meanwhile was told to be gone
    if let Some(clip) = clip::find(&tx, &share.clip_id).await? {
        outbox::shared(&tx, &clip, share, deps.clock.now()).await?;
    }
    outbox::commit(deps, tx).await
}

fn count(share: &Share) {
    let destination = share.destination.as_str();
    tracing::info!(clip.id = %share.clip_id, share.id = %share.id, destination, "clip shared");
    metrics::counter!("livekit_replay_clips_shared_total", "destination" => destination)
        .increment(1);
}

fn check(order: &Order, now: Timestamp) -> Result<()> {
    if let Some(target) = &order.target {
        let field = match order.destination {
            Destination::Channel => "targetChannelId",
            Destination::Dm | Destination::Link => "targetUserId",
        };
        names::check_name(field, target)?;
    }
    match order.expires_at {
        Some(at) if at <= now => Err(Error::invalid_field("expiresAt", "must lie in the future")),
        _ => Ok(()),
    }
}

fn not_configured() -> Error {
    let detail = "This service has nowhere to deliver shares to; only links can be made.";
    Error::new(Code::ShareNotConfigured, detail)
}

/// A share that is in no table yet.
fn new_share(deps: &Deps, clip: &Clip, order: Order) -> Shared {
    let secret: Secret = rand::random();
    let share = Share {
        id: ShareId::generate(),
        clip_id: clip.id.clone(),
        user_id: clip.user_id.clone(),
        token_hash: hash(&secret),
        destination: order.destination,
        target_id: order.target,
        message_id: None,
        created_at: deps.clock.now(),
        expires_at: order.expires_at,
    };
    Shared { share, secret }
}

/// Inserts the row while the clip's is locked: no share outlives its clip, and none that was asked for with the capture
/// (`wished`) its being taken back.
async fn make(deps: &Deps, share: &Share, wished: bool) -> Result<()> {
    let tx = deps.db.begin().await?;
    clip::lock(&tx, &share.clip_id).await?;
    if wished && wish::find(&tx, &share.clip_id).await?.is_none() {
        // taken back while it was taken up
        return Err(Error::not_found("share"));
    }
    if wished {
        // of an earlier try whose commit was not answered: nobody was told its link
        share::delete(&tx, &share.clip_id, &share.id).await?;
    }
    let now = clip::load(&tx, &share.clip_id).await?;
    if now.status != ClipStatus::Ready {
        return Err(Error::new(Code::ClipNotReady, "Only a clip that is ready can be shared.")
            .with("status", now.status.as_str()));
    }
    share::insert(&tx, share.clone()).await?;
    // what is handed to the app is told when the app has it
    if share.destination == Destination::Link {
        outbox::shared(&tx, &now, share, share.created_at).await?;
    }
    outbox::commit(deps, tx).await
}

/// What the app is told: whom the link is for, and what it shows.
fn message(deps: &Deps, username: Option<&str>, clip: &Clip, shared: &Shared) -> Value {
    let Share { id, destination, target_id, created_at, expires_at, .. } = &shared.share;
    let to = |wanted: Destination| (*destination == wanted).then_some(target_id).cloned().flatten();
    json!({
        "id": id.as_str(),
        "type": "clip_shared",
        "createdAt": created_at,
        "data": {
            "shareId": id.as_str(),
            "destination": destination.as_str(),
            "targetUserId": to(Destination::Dm),
            "targetChannelId": to(Destination::Channel),
            "url": address(deps, &shared.secret),
            "expiresAt": expires_at,
            "userId": clip.user_id.as_str(),
            "username": username,
            "clip": {
                "clipId": clip.id.as_str(),
                "title": clip.title,
                "communityId": clip.community_id,
                "roomName": clip.room_name.as_str(),
                "startsAt": clip.starts_at,
                "endsAt": clip.ends_at,
                "durationSeconds": clip.duration_us.map(|micros| micros as f64 / 1e6),
                "sizeBytes": clip.size_bytes,
                "width": clip.width,
                "height": clip.height,
            },
        },
    })
}

/// The app's name of the message, if it told one.
fn delivered(outcome: Outcome) -> Result<Option<String>> {
    match outcome {
        Outcome::Taken(answer) => {
            let name = answer.as_ref().and_then(|answer| answer["messageId"].as_str());
            let fits = |name: &&str| (1..=MESSAGE_BYTES).contains(&name.len());
            Ok(name.filter(fits).map(str::to_owned))
        }
        Outcome::Refused => Err(Error::new(
            Code::ShareRefused,
            "The app does not let you share there. The link was taken back.",
        )),
        Outcome::Failed(why) => Err(Error::new(
            Code::ShareFailed,
            "The app did not take the share. The link was taken back; try again.",
        )
        .because(why)),
    }
}

/// The shares of the caller's own clip whose links work, newest first.
///
/// # Errors
/// `not_found`, `not_owner`.
pub async fn list(deps: &Deps, caller: &Caller, id: &ClipId) -> Result<Vec<Share>> {
    let clip = load_own(deps, caller, id).await?;
    share::list_of_clip(deps.db.conn(), &clip.id, deps.clock.now()).await
}

/// Takes one share of the caller's own clip back: its link works no more.
///
/// # Errors
/// `not_found`, `not_owner`.
pub async fn revoke(deps: &Deps, caller: &Caller, id: &ClipId, share: &ShareId) -> Result<()> {
    let clip = load_own(deps, caller, id).await?;
    if !share::delete(deps.db.conn(), &clip.id, share).await? {
        return Err(Error::not_found("share"));
    }
    tracing::info!(clip.id = %id, share.id = %share, "share taken back");
    Ok(())
}

/// Voids every link to the caller's own clip, signed ones and shares; says how many shares there were.
///
/// # Errors
/// `not_found`, `not_owner`, `storage_unavailable`.
pub async fn revoke_all(deps: &Deps, caller: &Caller, id: &ClipId) -> Result<u64> {
    load_own(deps, caller, id).await?;
    let tx = deps.db.begin().await?;
    if !clip::amend(&tx, id, None, None, true, deps.clock.now()).await? {
        return Err(Error::not_found("clip"));
    }
    let mut shares = share::delete_of_clip(&tx, id).await?;
    // one that waits for the clip, or is just being delivered
    shares += u64::from(wish::delete(&tx, id).await?);
    let clip = clip::load(&tx, id).await?;
    if clip.status == ClipStatus::Ready {
        stores::demand_ours(deps, Which::Clips).await?;
        write_record(deps, &clip).await?;
    }
    store::commit(tx).await?;
    tracing::info!(clip.id = %id, shares, "all links to a clip voided");
    Ok(shares)
}

/// Opens the clip behind a link.
///
/// # Errors
/// `not_found`, whatever the reason.
pub async fn open(deps: &Deps, secret: &str) -> Result<File> {
    let gone = || Error::not_found("link");
    let secret = URL_SAFE_NO_PAD.decode(secret).ok().filter(|secret| secret.len() == SECRET_BYTES);
    let token_hash = hash(&secret.ok_or_else(gone)?);
    let share = share::find_by_token(deps.db.conn(), &token_hash).await?.ok_or_else(gone)?;
    if share.expires_at.is_some_and(|at| at <= deps.clock.now()) {
        return Err(gone());
    }
    let clip = clip::find(deps.db.conn(), &share.clip_id).await?;
    let clip = clip.filter(|clip| clip.status == ClipStatus::Ready).ok_or_else(gone)?;
    let path = ClipFiles::of(deps, &clip.user_id, &clip.id)?.video;
    Ok(File { path, clip })
}

/// A secret of 128 random bits needs no salt and no slow hash.
fn hash(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}
