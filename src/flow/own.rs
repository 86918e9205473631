//! What a caller may know and choose for himself: his limits and his preferences.

use super::{
    Deps, authorize,
    library::{self, Quota},
    rate_limit::{self, Limited},
};
use crate::{
    access::Caller,
    domain::{
        id::{CommunityId, UserId},
        limits::Rate,
        names,
    },
    error::Result,
    store::{community, preference},
};

/// What limits a caller.
#[derive(Debug, Clone)]
pub struct OwnLimits {
    /// His bytes.
    pub quota: Quota,
    /// The places of a community.
    pub places: Places,
    /// His requests in this minute; `None` where there is no limit.
    pub rates: Vec<(Limited, Option<Rate>)>,
}

/// Places for running buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// How many there are.
    pub max_concurrent: i32,
    /// The community's own state, for its members.
    pub community: Option<Taken>,
}

/// How a community stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub id: CommunityId,
    /// Places taken.
    pub active: i32,
    /// Whether new starts are taken.
    pub enabled: bool,
}

/// The caller's limits; those of a community are told to its members, others learn what is usual.
///
/// # Errors
/// `validation_failed` for a name that is none.
pub async fn limits(
    deps: &Deps,
    caller: &Caller,
    community: Option<&CommunityId>,
) -> Result<OwnLimits> {
    let mut rates = Vec::with_capacity(Limited::ALL.len());
    for what in Limited::ALL {
        rates.push((*what, rate_limit::peek(deps, &caller.user_id, *what).await?));
    }
    Ok(OwnLimits {
        quota: library::quota_of(deps, &caller.user_id).await?,
        places: places(deps, caller, community).await?,
        rates,
    })
}

async fn places(deps: &Deps, caller: &Caller, community: Option<&CommunityId>) -> Result<Places> {
    let usual = deps.config.limits.community_max_concurrent;
    let Some(id) = community else {
        return Ok(Places { max_concurrent: usual, community: None });
    };
    names::check_name("communityId", id.as_str())?;
    if !authorize::is_member(deps, caller, id).await? {
        return Ok(Places { max_concurrent: usual, community: None });
    }
    let row = community::find(deps.db.conn(), id).await?;
    let taken = Taken {
        id: id.clone(),
        active: row.as_ref().map_or(0, |row| row.active_sessions),
        enabled: row.as_ref().is_none_or(|row| row.enabled),
    };
    let max_concurrent = row.and_then(|row| row.max_concurrent).unwrap_or(usual);
    Ok(Places { max_concurrent, community: Some(taken) })
}

/// Whether shares of this user may start a buffer by themselves; yes until he says no.
pub async fn wants_auto_start(deps: &Deps, user: &UserId) -> Result<bool> {
    let row = preference::find(deps.db.conn(), user).await?;
    Ok(row.is_none_or(|row| row.auto_start))
}

/// Says whether the caller's shares may start a buffer by themselves. What runs already goes on.
pub async fn set_auto_start(deps: &Deps, caller: &Caller, wanted: bool) -> Result<()> {
    let now = deps.clock.now();
    preference::set_auto_start(deps.db.conn(), &caller.user_id, wanted, now).await?;
    tracing::info!(user.id = %caller.user_id, auto_start = wanted, "preference changed");
    Ok(())
}
