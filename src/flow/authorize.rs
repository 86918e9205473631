//! placeholder until merged
use super::Deps;
use crate::{
    access::{Caller, Permission},
    domain::id::{CommunityId, UserId},
    error::Result,
};
/// x
pub async fn require(
    _d: &Deps,
    _c: &Caller,
    _p: Permission,
    _m: Option<&CommunityId>,
) -> Result<()> {
    Ok(())
}
/// x
pub async fn allowed(
    _d: &Deps,
    _c: &Caller,
    _p: Permission,
    _m: Option<&CommunityId>,
) -> Result<bool> {
    Ok(true)
}
/// x
pub async fn allowed_for_user(
    _d: &Deps,
    _c: &UserId,
    _p: Permission,
    _m: Option<&CommunityId>,
) -> Result<bool> {
    Ok(true)
}
/// x
pub async fn is_instance_admin(_d: &Deps, _c: &Caller) -> Result<bool> {
    Ok(true)
}
/// x
pub async fn is_member(_d: &Deps, _c: &Caller, _m: &CommunityId) -> Result<bool> {
    Ok(true)
}
