//! Explains a token to an operator: which key signed it, what it gives, or why it is refused, with what would have been
//! right. Callers are told less ([`refusal`](super::refusal)).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Reason, Signer, Verifier, claims,
    jwks::name_of,
    parts::Parts,
    refusal::{Refusal, refusal},
};
use crate::domain::{
    id::{CommunityId, UserId},
    time::Timestamp,
};

/// A token explained. Neither its signature nor any key is in it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Whether the service would take it now.
    pub accepted: bool,
    /// Why not.
    pub reason: Option<Reason>,
    /// The same in a sentence, with what would have been right.
    pub why: Option<String>,
    /// `alg`, as the token says.
    pub algorithm: Option<String>,
    /// `kid`, as the token says.
    pub key_id: Option<String>,
    /// The configured key that signed it.
    pub verified_by: Option<String>,
    /// What it gives.
    pub grants: Option<Grants>,
    /// What it says; unverified without `verified_by`.
    pub claims: Option<Map<String, Value>>,
}

/// What an accepted token gives; roles in the database come on top.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grants {
    /// The user.
    pub user_id: UserId,
    /// His name.
    pub name: Option<String>,
    /// Until when, the leeway not counted.
    pub expires_at: Option<Timestamp>,
    /// Roles by community.
    pub communities: BTreeMap<CommunityId, Vec<String>>,
    /// Instance-wide roles.
    pub roles: Vec<String>,
    /// Claims that `auth.claims` does not admit.
    pub not_believed: Vec<&'static str>,
}

impl Verifier {
    /// What becomes of this token at the moment `now`; asks for public keys as a request would.
    pub async fn inspect(&self, token: &str, now: Timestamp) -> Inspection {
        let mut found = Inspection {
            accepted: false,
            reason: None,
            why: None,
            algorithm: None,
            key_id: None,
            verified_by: None,
            grants: None,
            claims: None,
        };
        let outcome = self.look_into(token, now, &mut found).await;
        found.accepted = outcome.is_ok();
        if let Err(refused) = outcome {
            found.reason = Some(refused.reason);
            found.why = Some(self.why(refused, &found, now));
        }
        found
    }

    async fn look_into(
        &self,
        token: &str,
        now: Timestamp,
        found: &mut Inspection,
    ) -> Result<(), Refusal> {
        let parts = Parts::read(token)?;
        found.algorithm = Some(parts.algorithm.clone());
        found.key_id.clone_from(&parts.kid);
        found.claims = parts.claims().ok();
        let signer = self.find_signer(&parts, now).await?;
        found.verified_by = Some(self.name_of(&signer));
        let claims = parts.claims()?;
        let caller = claims::judge(&claims, &self.auth, now)?;
        let believed =
            [("communities", self.auth.claim_communities), ("roles", self.auth.claim_roles)];
        found.grants = Some(Grants {
            expires_at: claims::moment(&claims, "exp")?,
            user_id: caller.user_id,
            name: caller.name,
            communities: caller.communities,
            roles: caller.roles,
            not_believed: believed
                .iter()
                .filter(|(name, believed)| !believed && claims.contains_key(*name))
                .map(|(name, _)| *name)
                .collect(),
        });
        Ok(())
    }

    fn name_of(&self, signer: &Signer) -> String {
        match signer {
            Signer::Secret(0) if self.secrets.len() == 1 => "auth.jwt_secret (HS256)".to_owned(),
            Signer::Secret(place) => {
                let count = self.secrets.len();
                format!("auth.jwt_secret, {} of {count} (HS256)", place + 1)
            }
            Signer::Published { kid, algorithm } => {
                let place = self.source.as_ref().map_or("auth.jwks", |source| source.setting());
                let kid = kid.as_deref().map_or("without id".to_owned(), |kid| format!("{kid:?}"));
                format!("{place}, key {kid} ({})", name_of(*algorithm))
            }
        }
    }

    /// The sentence for the operator, who knows the settings anyway.
    fn why(&self, refused: Refusal, found: &Inspection, now: Timestamp) -> String {
        let claim = refused.claim.unwrap_or_default();
        let said = found.claims.as_ref().and_then(|claims| claims.get(claim));
        let said = said.map_or("nothing".to_owned(), Value::to_string);
        let at = |name: &'static str| {
            let at = found.claims.as_ref().and_then(|claims| claims::moment(claims, name).ok()?);
            at.map_or(said.clone(), Timestamp::to_rfc3339)
        };
        let text = |wanted: &Option<String>| format!("{:?}", wanted.as_deref().unwrap_or_default());
        let leeway = self.auth.leeway.as_secs();
        let now = now.to_rfc3339();
        let more = match refused.reason {
            Reason::Malformed => refused.note.unwrap_or_default().to_owned(),
            Reason::WrongAlgorithm => format!("accepted here: {}", self.accepted_keys()),
            Reason::UnknownKey => format!("known keys: {}{}", self.accepted_keys(), self.trouble()),
            Reason::KeysUnavailable => format!("nothing could be read{}", self.trouble()),
            Reason::BadSignature => format!("accepted here: {}", self.accepted_keys()),
            Reason::Expired => {
                format!("exp is {}, now is {now}, leeway {leeway} s", at("exp"))
            }
            Reason::NotYetValid => {
                let name = if claim == "iat" { "iat" } else { "nbf" };
                format!("{name} is {}, now is {now}, leeway {leeway} s", at(name))
            }
            Reason::WrongIssuer => {
                format!("iss is {said}, demanded is {}", text(&self.auth.issuer))
            }
            Reason::WrongAudience => {
                format!("aud is {said}, demanded is {}", text(&self.auth.audience))
            }
            Reason::MissingClaim => format!("{claim} is missing"),
            Reason::BadClaim => format!("{claim} is {said}"),
            Reason::Missing => String::new(),
        };
        format!("{} ({more})", refusal(refused.reason).detail())
    }

    fn accepted_keys(&self) -> String {
        let secrets = match self.secrets.len() {
            0 => None,
            1 => Some("a shared secret (HS256)".to_owned()),
            count => Some(format!("{count} shared secrets (HS256)")),
        };
        let published = self.source.iter().flat_map(|source| source.names());
        secrets.into_iter().chain(published).collect::<Vec<_>>().join(", ")
    }

    fn trouble(&self) -> String {
        let source = self.source.as_ref();
        match source.and_then(|source| Some((source.setting(), source.failure()?))) {
            Some((setting, failure)) => format!("; {setting} {failure}"),
            None => String::new(),
        }
    }
}
