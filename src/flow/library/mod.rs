//! The library of clips: who may see which, lists, and what their owners do to them.

mod change;
mod open;

use super::{
    Deps, authorize,
    capture::{Clip, Visibility},
};
use crate::{
    access::{Caller, Permission},
    domain::{
        id::{ClipId, CommunityId, UserId},
        lifecycle::ClipStatus,
    },
    error::{Code, Error, Result},
    store::{Page, clip, quota},
};

pub use change::{Change, Deleted, change, delete, finish_deletion, retry};
pub(super) use change::{delete_with_files, retry_failed};
pub use open::{File, Kind, Links, links, open, open_link};

/// A user's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The allowance.
    pub quota_bytes: i64,
    /// What ready clips take.
    pub used_bytes: i64,
    /// What captures being made have reserved.
    pub reserved_bytes: i64,
    /// Ready clips.
    pub clips_count: u64,
}

/// The caller's account.
pub async fn quota_of(deps: &Deps, user: &UserId) -> Result<Quota> {
    let account = quota::find(deps.db.conn(), user).await?;
    let default = deps.config.limits.user_quota_bytes;
    let clips_count = clip::count_ready(deps.db.conn(), user).await?;
    Ok(match account {
        Some(account) => Quota {
            quota_bytes: account.quota_bytes.unwrap_or(default),
            used_bytes: account.used_bytes,
            reserved_bytes: account.reserved_bytes,
            clips_count,
        },
        None => Quota { quota_bytes: default, used_bytes: 0, reserved_bytes: 0, clips_count },
    })
}

/// A page of clips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Newest first.
    pub clips: Vec<Clip>,
    /// Without the page's bounds.
    pub total: u64,
    /// Whether there are more behind this page.
    pub has_more: bool,
}

/// The caller's own clips, of whatever state, in all communities or one.
pub async fn list_own(
    deps: &Deps,
    caller: &Caller,
    community: Option<CommunityId>,
    page: Page,
) -> Result<Listed> {
    let filter = clip::Filter {
        user_id: Some(caller.user_id.clone()),
        community_id: community,
        ..clip::Filter::default()
    };
    list(deps, &filter, page).await
}

/// The clips that a community's members may see.
///
/// # Errors
/// `not_found` for who is no member: a community's library is not there for him.
pub async fn list_of_community(
    deps: &Deps,
    caller: &Caller,
    community: CommunityId,
    page: Page,
) -> Result<Listed> {
    if !authorize::is_member(deps, caller, &community).await? {
        return Err(Error::not_found("community"));
    }
    let filter = clip::Filter {
        community_id: Some(community),
        status: Some(ClipStatus::Ready),
        visibility: vec![Visibility::Community, Visibility::Public],
        ..clip::Filter::default()
    };
    list(deps, &filter, page).await
}

/// A user's public clips.
pub async fn list_of_user(deps: &Deps, user: UserId, page: Page) -> Result<Listed> {
    let filter = clip::Filter {
        user_id: Some(user),
        status: Some(ClipStatus::Ready),
        visibility: vec![Visibility::Public],
        ..clip::Filter::default()
    };
    list(deps, &filter, page).await
}

async fn list(deps: &Deps, filter: &clip::Filter, page: Page) -> Result<Listed> {
    let (clips, total) = clip::list(deps.db.conn(), filter, page).await?;
    let seen = page.offset.saturating_add(u64::try_from(clips.len()).unwrap_or(u64::MAX));
    Ok(Listed { clips, total, has_more: seen < total })
}

/// A clip that the caller may see.
///
/// # Errors
/// `not_found`.
pub async fn show(deps: &Deps, caller: &Caller, id: &ClipId) -> Result<Clip> {
    let clip = clip::load(deps.db.conn(), id).await?;
    if may_see(deps, caller, &clip).await? { Ok(clip) } else { Err(Error::not_found("clip")) }
}

/// What decides who may see a clip.
#[derive(Debug, Clone, Copy)]
pub(in crate::flow) struct Seen<'a> {
    pub owner: &'a UserId,
    pub community: Option<&'a CommunityId>,
    pub status: ClipStatus,
    pub visibility: Visibility,
}

impl Seen<'_> {
    pub(in crate::flow) fn of(clip: &Clip) -> Seen<'_> {
        Seen {
            owner: &clip.user_id,
            community: clip.community_id.as_ref(),
            status: clip.status,
            visibility: clip.visibility,
        }
    }
}

async fn may_see(deps: &Deps, caller: &Caller, clip: &Clip) -> Result<bool> {
    admits(deps, caller, Seen::of(clip)).await
}

/// Whether a clip's visibility admits the caller. Others than its owner see only what is ready.
pub(in crate::flow) async fn admits(deps: &Deps, caller: &Caller, clip: Seen<'_>) -> Result<bool> {
    if *clip.owner == caller.user_id {
        return Ok(true);
    }
    if clip.status != ClipStatus::Ready {
        return Ok(false);
    }
    match (clip.visibility, clip.community) {
        (Visibility::Public, _) => Ok(true),
        (Visibility::Community, Some(community)) => {
            authorize::is_member(deps, caller, community).await
        }
        (Visibility::Community, None) | (Visibility::Private | Visibility::Unlisted, _) => {
            Ok(false)
        }
    }
}

/// Whether the caller may delete what is not his: a manager of the clip's community, an instance admin.
async fn may_manage(deps: &Deps, caller: &Caller, clip: &Clip) -> Result<bool> {
    if authorize::is_instance_admin(deps, caller).await? {
        return Ok(true);
    }
    let community = clip.community_id.as_ref();
    match community {
        Some(_) => {
            authorize::allowed(deps, caller, Permission::ManageReplayLimits, community).await
        }
        None => Ok(false),
    }
}

/// The caller's own clip; who may see somebody else's learns that it is not his.
pub(in crate::flow) async fn load_own(deps: &Deps, caller: &Caller, id: &ClipId) -> Result<Clip> {
    let clip = clip::load(deps.db.conn(), id).await?;
    if clip.user_id == caller.user_id {
        return Ok(clip);
    }
    Err(refusal(may_see(deps, caller, &clip).await?))
}

fn refusal(may_see: bool) -> Error {
    if may_see {
        Error::new(Code::NotOwner, "Only its owner can change this clip.")
    } else {
        Error::not_found("clip")
    }
}
