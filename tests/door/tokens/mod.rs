//! Tokens through the real wire: what opens the door and what must not, as the table in `docs/tokens.md`.
//!
//! Every case states its answer here, and the page must hold the table that comes of it: `REPLAY_BLESS=1` rewrites the
//! page, but cannot make a wrong answer right.

mod attacks;
mod command;
mod forge;
mod publisher;
mod rotation;
mod settings;
mod table;
mod wire;

use livekit_replay::config::{Auth, Jwks};

use crate::support::House;

const PATH: &str = "/livekit-replay/me/quota";
const ISSUER: &str = "https://login.example.org";
const AUDIENCE: &str = "livekit-replay";

/// Settings with published keys alone.
fn published(jwks: Jwks) -> Auth {
    Auth {
        jwt_secrets: Vec::new(),
        jwks: Some(jwks),
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        claim_communities: false,
        claim_roles: false,
        ..Auth::with_secret("")
    }
}

impl House {
    /// This house under other settings of tokens, on a port of its own.
    async fn on_wire(&self, auth: Auth) -> wire::Wire {
        wire::Wire::serve(self.with(|config| config.auth = auth)).await
    }
}
