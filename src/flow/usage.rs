//! What users and communities take: bytes, clips, sessions; the largest first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::{Deps, admin};
use crate::{
    access::{Caller, EVERYWHERE},
    domain::id::{CommunityId, UserId},
    error::Result,
    store::usage::{self, Row},
};

/// What somebody takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of ready clips.
    pub clip_bytes: i64,
    /// Bytes reserved for clips that are being made.
    pub reserved_bytes: i64,
    /// Ready clips.
    pub clips: i64,
    /// Sessions there ever were, as far as rows go back.
    pub sessions: i64,
    /// Sessions that hold a place.
    pub active_sessions: i64,
    /// Bytes of segments that are kept.
    pub buffer_bytes: i64,
}

impl Taken {
    fn add(&mut self, row: &Row) {
        self.clip_bytes += row.clip_bytes;
        self.reserved_bytes += row.reserved_bytes;
        self.clips += row.clips;
        self.sessions += row.sessions;
        self.active_sessions += row.active_sessions;
        self.buffer_bytes += row.buffer_bytes;
    }

    fn bytes(&self) -> i64 {
        self.clip_bytes + self.reserved_bytes + self.buffer_bytes
    }
}

/// What is taken in all, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// In all.
    pub all: Taken,
    /// How many users there are, on however many pages.
    pub users_total: usize,
    /// Users, the largest first.
    pub users: Vec<(UserId, Taken)>,
    /// How many communities there are; what belongs to none counts as one.
    pub communities_total: usize,
    /// Communities, the largest first.
    pub communities: Vec<(Option<CommunityId>, Taken)>,
}

/// The `most` largest users and communities, and sums over all of them.
///
/// # Errors
/// [`crate::error::Code::PermissionDenied`] for whoever is no instance admin, nor manages the community asked for.
pub async fn show(
    deps: &Deps,
    caller: &Caller,
    community: Option<CommunityId>,
    most: usize,
) -> Result<Usage> {
    admin::require_manager(deps, caller, community.as_ref()).await?;
    let community = community.filter(|id| id.as_str() != EVERYWHERE);
    let rows = usage::list(deps.db.conn(), community.as_ref()).await?;
    Ok(add_up(&rows, most))
}

fn add_up(rows: &[Row], most: usize) -> Usage {
    let mut all = Taken::default();
    let mut users: HashMap<UserId, Taken> = HashMap::new();
    let mut communities: BTreeMap<Option<CommunityId>, Taken> = BTreeMap::new();
    for row in rows {
        all.add(row);
        users.entry(row.user_id.clone()).or_default().add(row);
        communities.entry(row.community_id.clone()).or_default().add(row);
    }
    Usage {
        all,
        users_total: users.len(),
        communities_total: communities.len(),
        users: largest(users, most),
        communities: largest(communities, most),
    }
}

fn largest<K: Ord + Clone + Hash>(
    taken: impl IntoIterator<Item = (K, Taken)>,
    most: usize,
) -> Vec<(K, Taken)> {
    let mut taken: Vec<_> = taken.into_iter().collect();
    taken.sort_by(|(a, one), (b, other)| other.bytes().cmp(&one.bytes()).then_with(|| a.cmp(b)));
    taken.truncate(most);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(user: &str, community: Option<&str>, clip_bytes: i64) -> Row {
        Row {
            user_id: UserId::new(user),
            community_id: community.map(CommunityId::new),
            clip_bytes,
            reserved_bytes: 1,
            clips: 1,
            sessions: 2,
            active_sessions: 0,
            buffer_bytes: 0,
        }
    }

    #[test]
    fn the_largest_come_first_and_sums_count_all() {
        let rows = [row("ann", Some("red"), 5), row("bob", Some("red"), 20), row("ann", None, 30)];
        let usage = add_up(&rows, 1);
        assert_eq!((usage.users_total, usage.communities_total), (2, 2));
        assert_eq!(usage.users.len(), 1);
        assert_eq!((usage.users[0].0.as_str(), usage.users[0].1.clip_bytes), ("ann", 35));
        assert_eq!((usage.communities[0].0.as_ref(), usage.communities[0].1.clips), (None, 1));
        assert_eq!((usage.all.clip_bytes, usage.all.clips, usage.all.sessions), (55, 3, 6));
    }
}
