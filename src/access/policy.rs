//! Roles and rules become decisions that can be explained. casbin is here and nowhere else.
//!
//! A rule says what a role may, everywhere (`*`) or in one community. A community that defines a role of its own
//! replaces the rules of that role for the roles held *there*; instance-wide roles keep the rules that hold
//! everywhere, so no community can lock an instance-wide role out. An empty definition is kept as one rule that
//! permits nothing ([`NOTHING`]).

use std::collections::{BTreeMap, BTreeSet};

use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};

use super::{EVERYWHERE, INSTANCE_ADMIN, MEMBER, Permission};
use crate::{
    domain::id::CommunityId,
    error::{Error, Result},
};

const MODEL: &str = include_str!("../../config/access/model.conf");
const DEFAULT_RULES: &str = include_str!("../../config/access/policy.csv");

/// Stands in the place of a permission in the rule of a role that is defined to permit nothing.
pub const NOTHING: &str = "-";

/// A rule: `r:<role>`, `c:<community>` or `*`, a permission or [`NOTHING`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// `r:<role>`.
    pub subject: String,
    /// `c:<community>` or `*`.
    pub domain: String,
    /// A permission's name.
    pub permission: String,
}

impl Rule {
    /// What `role` may in `community` (everywhere with `None`).
    pub fn new(role: &str, community: Option<&CommunityId>, permission: Permission) -> Rule {
        Rule {
            subject: subject(role),
            domain: domain(community),
            permission: permission.as_str().to_owned(),
        }
    }

    /// That `role` may nothing in `community`.
    pub fn nothing(role: &str, community: Option<&CommunityId>) -> Rule {
        Rule { subject: subject(role), domain: domain(community), permission: NOTHING.to_owned() }
    }
}

/// A role as a subject.
pub fn subject(role: &str) -> String {
    format!("r:{role}")
}

/// A community, or everywhere, as a domain.
pub fn domain(community: Option<&CommunityId>) -> String {
    match community {
        Some(community) if community.as_str() != EVERYWHERE => format!("c:{community}"),
        _ => EVERYWHERE.to_owned(),
    }
}

/// The rules a fresh database begins with.
pub fn default_rules() -> Vec<Rule> {
    DEFAULT_RULES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split(',').map(|word| word.trim().to_owned());
            (words.next()? == "p").then_some(())?;
            Some(Rule { subject: words.next()?, domain: words.next()?, permission: words.next()? })
        })
        .collect()
}

/// The roles somebody holds where a decision is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// Held everywhere.
    pub everywhere: BTreeSet<String>,
    /// Held in the community in question; includes `member` for everybody who belongs to it.
    pub here: BTreeSet<String>,
}

impl Roles {
    /// Takes the roles as they are held, and drops what cannot be: `instance_admin` of one community.
    pub fn new(
        everywhere: impl IntoIterator<Item = String>,
        here: impl IntoIterator<Item = String>,
        belongs_here: bool,
    ) -> Roles {
        let mut here: BTreeSet<String> =
            here.into_iter().filter(|role| role != INSTANCE_ADMIN).collect();
        if belongs_here {
            here.insert(MEMBER.to_owned());
        }
        Roles { everywhere: everywhere.into_iter().collect(), here }
    }

    /// Whether everything is permitted.
    pub fn is_instance_admin(&self) -> bool {
        self.everywhere.contains(INSTANCE_ADMIN)
    }

    /// Whether the community in question has this person among its members.
    pub fn is_member(&self) -> bool {
        !self.here.is_empty()
    }
}

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Yes or no.
    pub allowed: bool,
    /// Why, a sentence.
    pub because: String,
}

/// All rules, ready to decide.
pub struct Policy {
    enforcer: Enforcer,
    /// Domains that define a role, by subject.
    defined: BTreeMap<String, BTreeSet<String>>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("defined", &self.defined).finish_non_exhaustive()
    }
}

impl Policy {
    /// Reads the rules.
    ///
    /// # Errors
    /// [`crate::error::Code::Internal`] if casbin refuses them.
    pub async fn build(rules: Vec<Rule>) -> Result<Policy> {
        let fault = |error: casbin::Error| Error::internal("building the access policy", error);
        let model = DefaultModel::from_str(MODEL).await.map_err(fault)?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await.map_err(fault)?;
        let mut defined: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut lines = BTreeSet::new();
        for rule in rules {
            defined.entry(rule.subject.clone()).or_default().insert(rule.domain.clone());
            lines.insert(rule);
        }
        let lines: Vec<Vec<String>> = lines
            .into_iter()
            .map(|rule| vec![rule.subject, rule.domain, rule.permission])
            .collect();
        if !lines.is_empty() {
            enforcer.add_policies(lines).await.map_err(fault)?;
        }
        Ok(Policy { enforcer, defined })
    }

    /// Whether these roles permit it in `community` (instance-wide with `None`).
    pub fn allows(
        &self,
        roles: &Roles,
        community: Option<&CommunityId>,
        permission: Permission,
    ) -> Result<bool> {
        self.explain(roles, community, permission).map(|decision| decision.allowed)
    }

    /// The decision of [`allows`](Policy::allows) with its reason.
    pub fn explain(
        &self,
        roles: &Roles,
        community: Option<&CommunityId>,
        permission: Permission,
    ) -> Result<Decision> {
        let yes = |because: String| Ok(Decision { allowed: true, because });
        if roles.is_instance_admin() {
            return yes("An instance admin may everything.".to_owned());
        }
        for role in &roles.everywhere {
            if self.role_may(role, EVERYWHERE, permission)? {
                let rule = rule_text(role, EVERYWHERE, permission);
                return yes(format!(
                    "The instance-wide role {role} permits it everywhere ({rule})."
                ));
            }
        }
        for role in roles.here.iter().filter(|_| community.is_some()) {
            let domain = self.domain_of(role, community);
            if self.role_may(role, &domain, permission)? {
                let rule = rule_text(role, &domain, permission);
                return yes(if domain == EVERYWHERE {
                    format!("The role {role} in this community permits it ({rule}).")
                } else {
                    format!("This community's own rule for the role {role} permits it ({rule}).")
                });
            }
        }
        let would = match self.roles_that_permit(community, permission)?.join(", ") {
            names if names.is_empty() => " No role would permit it.".to_owned(),
            names => format!(" It would take one of these: {names}."),
        };
        Ok(Decision { allowed: false, because: refusal(roles, community) + would.as_str() })
    }

    /// The roles that permit it to whoever holds them in `community` (everywhere with `None`).
    fn roles_that_permit(
        &self,
        community: Option<&CommunityId>,
        permission: Permission,
    ) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for role in self.defined.keys().filter_map(|subject| subject.strip_prefix("r:")) {
            if self.role_may(role, &self.domain_of(role, community), permission)? {
                names.push(role.to_owned());
            }
        }
        if community.is_none() {
            names.push(INSTANCE_ADMIN.to_owned());
        }
        Ok(names)
    }

    /// What a role may in a community, and whether the community defines that itself.
    pub fn permissions_of(
        &self,
        role: &str,
        community: Option<&CommunityId>,
    ) -> Result<(Vec<Permission>, bool)> {
        let domain = self.domain_of(role, community);
        let mut permissions = Vec::new();
        for permission in Permission::ALL {
            if role == INSTANCE_ADMIN || self.role_may(role, &domain, *permission)? {
                permissions.push(*permission);
            }
        }
        Ok((permissions, domain != EVERYWHERE))
    }

    /// Where the rules of a role held in `community` stand.
    fn domain_of(&self, role: &str, community: Option<&CommunityId>) -> String {
        let own = domain(community);
        let defined = self.defined.get(&subject(role)).is_some_and(|set| set.contains(&own));
        if defined { own } else { EVERYWHERE.to_owned() }
    }

    fn role_may(&self, role: &str, domain: &str, permission: Permission) -> Result<bool> {
        self.enforcer
            .enforce((subject(role), domain.to_owned(), permission.as_str().to_owned()))
            .map_err(|error| Error::internal("deciding on a permission", error))
    }
}

/// A rule as its row has it.
fn rule_text(role: &str, domain: &str, permission: Permission) -> String {
    format!("rule {}, {domain}, {permission}", subject(role))
}

fn refusal(roles: &Roles, community: Option<&CommunityId>) -> String {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    match community {
        None if roles.everywhere.is_empty() => {
            "Without a community only an instance-wide role could permit it, and there is none."
                .to_owned()
        }
        None => format!("None of the instance-wide roles permits it: {}.", list(&roles.everywhere)),
        Some(_) if roles.here.is_empty() && roles.everywhere.is_empty() => {
            "There is no role in this community.".to_owned()
        }
        Some(_) => {
            let all = roles.here.union(&roles.everywhere).cloned().collect();
            format!("None of the roles permits it: {}.", list(&all))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(names: &[&str]) -> Roles {
        Roles::new([], names.iter().map(|name| (*name).to_owned()), true)
    }

    fn everywhere(names: &[&str]) -> Roles {
        Roles::new(names.iter().map(|name| (*name).to_owned()), [], false)
    }

    fn community(id: &str) -> CommunityId {
        CommunityId::new(id)
    }

    /// `REPLAY_BLESS=1` writes the file anew.
    #[tokio::test]
    async fn the_table_of_roles_and_permissions_is_the_one_committed() {
        let policy = Policy::build(default_rules()).await.expect("the default rules are good");
        let home = community("c");
        let mut table = String::from(
            "role, held in:  community  everywhere  (asked in a community / without one)\n",
        );
        for role in ["instance_admin", "admin", "moderator", "member", "unknown"] {
            for permission in Permission::ALL {
                let mut cells = Vec::new();
                for roles in [here(&[role]), everywhere(&[role])] {
                    for place in [Some(&home), None] {
                        let yes = policy.allows(&roles, place, *permission).expect("decides");
                        cells.push(if yes { "yes" } else { "no" });
                    }
                }
                let line = format!(
                    "{role:<15} {:<21} {:>3}/{:<3}    {:>3}/{}",
                    permission.as_str(),
                    cells[0],
                    cells[1],
                    cells[2],
                    cells[3]
                );
                table.push_str(&line);
                table.push('\n');
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/access.txt");
        if std::env::var_os("REPLAY_BLESS").is_some() {
            std::fs::write(path, &table).expect("the golden file can be written");
        }
        assert_eq!(std::fs::read_to_string(path).expect("the golden file is there"), table);
    }

    #[tokio::test]
    async fn without_rules_nobody_but_an_instance_admin_may_anything() {
        let policy = Policy::build(Vec::new()).await.expect("no rules are fine");
        let home = community("c");
        for permission in Permission::ALL {
            assert!(!policy.allows(&here(&["admin"]), Some(&home), *permission).expect("decides"));
            assert!(
                policy
                    .allows(&everywhere(&[INSTANCE_ADMIN]), Some(&home), *permission)
                    .expect("decides")
            );
        }
    }

    #[tokio::test]
    async fn a_communitys_own_definition_replaces_the_default_there_and_only_there() {
        let (mine, other) = (community("mine"), community("other"));
        let mut rules = default_rules();
        rules.push(Rule::nothing("moderator", Some(&mine)));
        rules.push(Rule::new("member", Some(&mine), Permission::CaptureReplay));
        let policy = Policy::build(rules).await.expect("good rules");
        let may = |roles: &Roles, place: &CommunityId| {
            policy.allows(roles, Some(place), Permission::EnableReplayBuffer).expect("decides")
        };
        assert!(!may(&here(&["moderator"]), &mine));
        assert!(may(&here(&["moderator"]), &other));
        // an instance-wide role is not the community's to take
        assert!(may(&everywhere(&["moderator"]), &mine));
        let capture = policy.explain(&here(&[]), Some(&mine), Permission::CaptureReplay);
        assert!(capture.expect("decides").allowed);
        let capture = policy.explain(&here(&[]), Some(&other), Permission::CaptureReplay);
        assert!(!capture.expect("decides").allowed);
    }

    #[tokio::test]
    async fn a_decision_names_its_rule_or_the_roles_that_it_would_take() {
        let mine = community("mine");
        let mut rules = default_rules();
        rules.push(Rule::new("streamer", Some(&mine), Permission::EnableReplayBuffer));
        let policy = Policy::build(rules).await.expect("good rules");
        let because = |roles: &Roles, place: Option<&CommunityId>| {
            policy.explain(roles, place, Permission::EnableReplayBuffer).expect("decides").because
        };
        let text = because(&here(&["streamer"]), Some(&mine));
        assert!(text.contains("rule r:streamer, c:mine, ENABLE_REPLAY_BUFFER"), "{text}");
        let text = because(&here(&["moderator"]), Some(&mine));
        assert!(text.contains("rule r:moderator, *, ENABLE_REPLAY_BUFFER"), "{text}");
        let text = because(&here(&[]), Some(&mine));
        assert!(
            text.ends_with("It would take one of these: admin, moderator, streamer."),
            "{text}"
        );
        let text = because(&here(&[]), Some(&community("other")));
        assert!(text.ends_with("It would take one of these: admin, moderator."), "{text}");
        let text = because(&everywhere(&["member"]), None);
        assert!(text.ends_with("these: admin, moderator, instance_admin."), "{text}");
    }

    #[tokio::test]
    async fn names_that_look_like_something_else_gain_nothing() {
        let policy = Policy::build(default_rules()).await.expect("good rules");
        let home = community("c");
        for name in ["r:admin", "*", "c:c", "Admin", "admin ", "instance_admin"] {
            assert!(
                !policy
                    .allows(&here(&[name]), Some(&home), Permission::EnableReplayBuffer)
                    .expect("decides"),
                "{name}"
            );
        }
        // a community that calls itself everywhere
        assert_eq!(domain(Some(&community("c:x"))), "c:c:x");
    }
}
