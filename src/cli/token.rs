//! `token mint`: a token as the app would make it, for development and for trying the API by hand. `token inspect`: what
//! becomes of a token, and why.

use std::{collections::BTreeMap, io::Read, time::Duration};

use clap::Subcommand;

use super::print;
use crate::{
    access::token::{self, Claims, Inspection, Verifier},
    app::Failure,
    clock::{Clock, SystemClock},
    config::Config,
    domain::id::{CommunityId, UserId},
    error::Error,
};

/// More than any token is not read from standard input.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a token signed with (the first) auth.jwt_secret
    Mint {
        /// The user's id
        user: String,
        /// The user's name
        #[arg(long)]
        name: Option<String>,
        /// A role in a community; may be repeated
        #[arg(long = "community", value_name = "COMMUNITY:ROLE")]
        communities: Vec<String>,
        /// The role instance_admin
        #[arg(long)]
        admin: bool,
        /// How long it works
        #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
        lifetime: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether a token is accepted, by which key, and what it gives; or why it is refused (exit code 1)
    Inspect {
        /// The token; without it, or with -, it is read from standard input, where other users of this machine do not see it
        token: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: Config, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Mint { user, name, communities, admin, lifetime, json } => {
            let by_community = roles_of(communities)?;
            let roles: Vec<String> =
                if admin { vec![crate::access::INSTANCE_ADMIN.to_owned()] } else { Vec::new() };
            let claims = Claims {
                user_id: &UserId::new(user),
                name: name.as_deref(),
                communities: &by_community,
                roles: &roles,
                lifetime: Duration::from_secs(u64::from(lifetime)),
            };
            let token = token::mint(&config.auth, &claims, SystemClock.now()).map_err(setup)?;
            if json {
                return print::json(&serde_json::json!({ "token": token }));
            }
            print::line(&token);
            Ok(())
        }
        TokenCommand::Inspect { token, json } => {
            let token = match token {
                Some(token) if token != "-" => token,
                _ => read_input()?,
            };
            let verifier = Verifier::new(&config.auth).map_err(setup)?;
            let found = verifier.inspect(bare(&token), SystemClock.now()).await;
            if json {
                print::json(&found)?;
            } else {
                show(&found)?;
            }
            match (found.accepted, found.reason) {
                (true, _) => Ok(()),
                (false, reason) => {
                    let reason = reason.map_or("refused", token::Reason::as_str);
                    Err(Failure::Failed(format!("the token is refused: {reason}")))
                }
            }
        }
    }
}

/// Wrong settings, not a failure of what was asked.
fn setup(error: Error) -> Failure {
    Failure::Setup(error.detail().to_owned())
}

fn roles_of(pairs: Vec<String>) -> Result<BTreeMap<CommunityId, Vec<String>>, Failure> {
    let mut by_community: BTreeMap<CommunityId, Vec<String>> = BTreeMap::new();
    for pair in pairs {
        // ids may hold colons, roles do not
        let (community, role) = pair.rsplit_once(':').ok_or_else(|| {
            Failure::Setup(format!("--community {pair}: expected COMMUNITY:ROLE"))
        })?;
        by_community.entry(CommunityId::new(community)).or_default().push(role.to_owned());
    }
    Ok(by_community)
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_INPUT_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::Setup(format!("reading the token: {error}")))?;
    if text.trim().is_empty() {
        return Err(Failure::Setup("there is no token, neither as argument nor as input".into()));
    }
    Ok(text)
}

/// People copy the whole header.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("Authorization:").unwrap_or(text).trim_start();
    text.strip_prefix("Bearer ").unwrap_or(text).trim()
}

/// A line per field, and a line per claim behind them.
fn show(found: &Inspection) -> Result<(), Failure> {
    let mut value = serde_json::to_value(found)
        .map_err(|error| Failure::Failed(format!("writing the answer: {error}")))?;
    let mut parts = ["grants", "claims"].map(|name| value[name].take());
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| name != "grants" && name != "claims");
    }
    print::fields(&value);
    let title = match found.verified_by {
        Some(_) => "claims",
        None => "claims (unverified)",
    };
    for (title, part) in ["gives", title].iter().zip(&mut parts) {
        if part.as_object().is_some_and(|fields| !fields.is_empty()) {
            print::line(&format!("\n{title}:"));
            print::fields(part);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_header_is_a_token_too() {
        assert_eq!(bare("  a.b.c\n"), "a.b.c");
        assert_eq!(bare("Bearer a.b.c"), "a.b.c");
        assert_eq!(bare("Authorization: Bearer  a.b.c\r\n"), "a.b.c");
    }
}
