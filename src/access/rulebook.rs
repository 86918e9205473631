//! All rules, opened where a decision is made. A decision in a community concerns the rules that hold everywhere and
//! the community's own; casbin looks at every rule it has for each question, so it is given these alone. What other
//! communities define costs neither time nor a loaded enforcer here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    EVERYWHERE,
    policy::{Policy, Rule, domain},
};
use crate::{domain::id::CommunityId, error::Result};

/// Communities whose own policy is kept ready; more make room by dropping all. One takes some 100 KiB.
const READY: usize = 256;

/// The rules of one reading, by where they hold.
pub struct Rulebook {
    /// What holds everywhere, as it stands for communities that define nothing.
    usual: Arc<Policy>,
    everywhere: Vec<Rule>,
    own: HashMap<String, Vec<Rule>>,
    ready: Mutex<HashMap<String, Arc<Policy>>>,
}

impl std::fmt::Debug for Rulebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rulebook").field("communities", &self.own.len()).finish_non_exhaustive()
    }
}

impl Rulebook {
    /// Sorts the rules.
    ///
    /// # Errors
    /// [`crate::error::Code::Internal`] if casbin refuses those that hold everywhere.
    pub async fn read(rules: Vec<Rule>) -> Result<Rulebook> {
        let mut everywhere = Vec::new();
        let mut own: HashMap<String, Vec<Rule>> = HashMap::new();
        for rule in rules {
            if rule.domain == EVERYWHERE {
                everywhere.push(rule);
            } else {
                own.entry(rule.domain.clone()).or_default().push(rule);
            }
        }
        let usual = Arc::new(Policy::build(everywhere.clone()).await?);
        Ok(Rulebook { usual, everywhere, own, ready: Mutex::default() })
    }

    /// What decides in `community` (without one, everywhere).
    ///
    /// # Errors
    /// [`crate::error::Code::Internal`] if casbin refuses the rules.
    pub async fn policy_in(&self, community: Option<&CommunityId>) -> Result<Arc<Policy>> {
        let domain = domain(community);
        let Some(own) = self.own.get(&domain) else { return Ok(Arc::clone(&self.usual)) };
        let known = self.ready().get(&domain).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let rules = self.everywhere.iter().chain(own).cloned().collect();
        let policy = Arc::new(Policy::build(rules).await?);
        let mut ready = self.ready();
        if ready.len() >= READY {
            ready.clear();
        }
        ready.insert(domain, Arc::clone(&policy));
        Ok(policy)
    }

    /// A panic elsewhere leaves whole policies behind.
    fn ready(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Policy>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{
        Permission,
        policy::{Roles, default_rules},
    };

    fn community(number: usize) -> CommunityId {
        CommunityId::new(format!("c{number}"))
    }

    fn of_many(communities: usize) -> Vec<Rule> {
        let mut rules = default_rules();
        for number in 0..communities {
            let role = format!("role{}", number % 7);
            let permission = Permission::ALL[number % Permission::ALL.len()];
            rules.push(Rule::new(&role, Some(&community(number)), permission));
            if number % 3 == 0 {
                rules.push(Rule::nothing("moderator", Some(&community(number))));
            }
        }
        rules
    }

    #[tokio::test]
    async fn it_decides_as_all_rules_at_once_would_and_with_the_same_reasons() {
        let rules = of_many(40);
        let all = Policy::build(rules.clone()).await.expect("good rules");
        let book = Rulebook::read(rules).await.expect("good rules");
        let roles = ["moderator", "admin", "role1", "role2", "nobodys"];
        for place in (0..45).map(community).map(Some).chain([None]) {
            let policy = book.policy_in(place.as_ref()).await.expect("good rules");
            for role in roles {
                let role = || [role.to_owned()];
                for held in [Roles::new([], role(), true), Roles::new(role(), [], false)] {
                    for permission in Permission::ALL {
                        let ours = policy.explain(&held, place.as_ref(), *permission);
                        let theirs = all.explain(&held, place.as_ref(), *permission);
                        assert_eq!(ours.expect("decides"), theirs.expect("decides"), "{held:?}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn more_communities_than_are_kept_ready_still_decide() {
        let communities = READY + 50;
        let book = Rulebook::read(of_many(communities)).await.expect("good rules");
        for number in (0..communities).chain([0]) {
            let place = community(number);
            let policy = book.policy_in(Some(&place)).await.expect("good rules");
            let held = Roles::new([], [format!("role{}", number % 7)], true);
            let permission = Permission::ALL[number % Permission::ALL.len()];
            assert!(policy.allows(&held, Some(&place), permission).expect("decides"), "{place}");
            assert!(book.ready().len() <= READY);
        }
    }
}
