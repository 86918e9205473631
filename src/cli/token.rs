//! `token mint`: a token as the app would make it, for development and for trying the API by hand.

use std::{collections::BTreeMap, time::Duration};

use clap::Subcommand;

use crate::{
    access::token::{self, Claims},
    app::Failure,
    clock::{Clock, SystemClock},
    config::Config,
    domain::id::{CommunityId, UserId},
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a token signed with auth.jwt_secret
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
}

pub(super) fn run(config: &Config, command: TokenCommand) -> Result<(), Failure> {
    let TokenCommand::Mint { user, name, communities, admin, lifetime, json } = command;
    let mut by_community: BTreeMap<CommunityId, Vec<String>> = BTreeMap::new();
    for pair in communities {
        // ids may hold colons, roles do not
        let (community, role) = pair.rsplit_once(':').ok_or_else(|| {
            Failure::Setup(format!("--community {pair}: expected COMMUNITY:ROLE"))
        })?;
        by_community.entry(CommunityId::new(community)).or_default().push(role.to_owned());
    }
    let roles: Vec<String> =
        if admin { vec![crate::access::INSTANCE_ADMIN.to_owned()] } else { Vec::new() };
    let claims = Claims {
        user_id: &UserId::new(user),
        name: name.as_deref(),
        communities: &by_community,
        roles: &roles,
        lifetime: Duration::from_secs(u64::from(lifetime)),
    };
    let token = token::mint(&config.auth, &claims, SystemClock.now())?;
    if json {
        return super::print::json(&serde_json::json!({ "token": token }));
    }
    println!("{token}");
    Ok(())
}
