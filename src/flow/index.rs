//! placeholder until merged
use super::Deps;
use crate::{domain::id::SessionId, error::Result};
/// x
pub async fn index_session(_d: &Deps, _id: &SessionId) -> Result<()> {
    Ok(())
}
