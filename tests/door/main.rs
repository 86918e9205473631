//! The HTTP door on the real router: refusals, tokens, roles, limits, administration.

mod administration;
mod limits;
mod refusals;
mod roles;
mod support;
mod tokens;
