//! A second look at what was indexed as good: files rot, are cut short, or vanish.

use std::path::PathBuf;

use super::look;
use crate::{
    domain::time::Timestamp,
    error::Result,
    flow::{
        Deps,
        stores::{self, Which},
    },
    store::segment::{self, SegmentState},
};

/// Where the bytes of a segment may be.
#[derive(Debug, Clone)]
pub(in crate::flow) struct Place {
    /// Our own link to them, if there is one.
    pub ours: PathBuf,
    /// As egress wrote them.
    pub original: PathBuf,
}

/// What a usable row's file is now; none if it is as it was, or nothing can be said.
///
/// # Errors
/// `storage_unavailable` when the buffer store hangs or fails.
pub(in crate::flow) async fn recheck(
    deps: &Deps,
    row: &segment::Model,
    place: Place,
) -> Result<Option<SegmentState>> {
    let (known, size) = (row.crc, row.size_bytes);
    let work = move || look::again(&place.ours, &place.original);
    let seen = stores::work(&deps.stores, Which::Buffer, work).await?;
    Ok(match seen {
        look::Seen::Good(facts) if known.is_none_or(|known| known == facts.checksum) => None,
        // it was still being copied, and is looked at anew
        look::Seen::Good(facts) if i64::try_from(facts.bytes).is_ok_and(|bytes| bytes > size) => {
            Some(SegmentState::Truncated)
        }
        look::Seen::Good(_) => Some(SegmentState::Corrupt),
        look::Seen::Bad(state, _) => Some(state),
        look::Seen::Missing => Some(SegmentState::Missing),
        look::Seen::NoDirectory => None,
    })
}

/// Takes back that a segment is usable. What is rotten inside stays so, as its structure would pass the next look;
/// anything else may still turn out well.
///
/// # Errors
/// Of the database.
pub(in crate::flow) async fn take_back(
    deps: &Deps,
    row: &segment::Model,
    state: SegmentState,
) -> Result<bool> {
    let again_from = match state {
        SegmentState::Corrupt => Timestamp::default(),
        _ => deps.clock.now(),
    };
    tracing::warn!(
        session = %row.session_id, epoch = row.epoch, segment = row.number, state = state.as_str(),
        "an indexed segment is not usable any more"
    );
    segment::spoil(deps.db.conn(), row, state, again_from).await
}
