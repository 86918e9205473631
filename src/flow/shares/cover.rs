//! A link's secret part as it may be written down for a day, for the repeats of the capture that made it: under a cover
//! that only the key of signed links takes off. Who has the rows alone has no link, and a database that was put back from
//! a copy has another key.

use serde::{Deserialize, Serialize};

use super::{SECRET_BYTES, Secret, Shared, address};
use crate::{
    domain::id::{ClipId, ShareId},
    error::{Error, Result},
    flow::Deps,
    store::share,
};

const CONTEXT: &str = "livekit-replay covered secrets of shared links";

/// A covered secret part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Covered {
    share_id: ShareId,
    /// Hex.
    secret: String,
}

impl Covered {
    pub(in crate::flow) fn of(deps: &Deps, shared: &Shared) -> Covered {
        let share_id = shared.share.id.clone();
        let secret = hex::encode(turned(&deps.link_key, &share_id, shared.secret));
        Covered { share_id, secret }
    }

    /// The link's address, while it is the clip's and was not taken back.
    ///
    /// # Errors
    /// Those of the database; `internal` for what [`of`](Self::of) did not write.
    pub async fn address(&self, deps: &Deps, clip: &ClipId) -> Result<Option<String>> {
        let mut secret = [0; SECRET_BYTES];
        hex::decode_to_slice(&self.secret, &mut secret)
            .map_err(|error| Error::internal("reading a kept link", error))?;
        let secret = turned(&deps.link_key, &self.share_id, secret);
        let found = share::find_by_token(deps.db.conn(), &super::hash(&secret)).await?;
        let works = found.is_some_and(|share| share.clip_id == *clip);
        Ok(works.then(|| address(deps, &secret)))
    }
}

/// Puts the cover on, or takes it off.
fn turned(key: &[u8], share: &ShareId, mut secret: Secret) -> Secret {
    // the key has a length of its own, an id none of its bytes
    let material = [&(key.len() as u64).to_be_bytes(), key, share.as_str().as_bytes()].concat();
    for (byte, cover) in secret.iter_mut().zip(blake3::derive_key(CONTEXT, &material)) {
        *byte ^= cover;
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cover_comes_off_by_the_same_key_for_the_same_share_alone() {
        let (share, other) = (ShareId::new("one"), ShareId::new("two"));
        let secret = [7; SECRET_BYTES];
        let covered = turned(b"key", &share, secret);
        assert_ne!(covered, secret);
        assert_eq!(turned(b"key", &share, covered), secret);
        assert_ne!(turned(b"kez", &share, covered), secret);
        assert_ne!(turned(b"key", &other, covered), secret);
    }
}
