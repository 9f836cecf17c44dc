//! Rights of all clients, as of one config.

use std::sync::Arc;

use super::role::ChannelSet;
use super::{Client, Principal, Role, Roles};

/// Roles in force, and the identity of clients without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlements {
    /// Roles by name.
    pub roles: Roles,
    /// Clients without credentials.
    pub without_credentials: Principal,
}

impl Entitlements {
    /// The same client under these roles. A role that is gone grants nothing; a client of a role
    /// never becomes everyone.
    pub fn renew(&self, principal: &Principal) -> Principal {
        let client = match principal {
            Principal::Everyone => return self.without_credentials.clone(),
            Principal::Client(client) => client,
        };
        if !client.is_authenticated {
            return match &self.without_credentials {
                Principal::Everyone => principal.clone(),
                other => other.clone(),
            };
        }
        match self.roles.named(&client.role.name) {
            Some(role) if *role == client.role => principal.clone(),
            Some(role) => with_role(client, role),
            None => {
                let none = Role::new(&client.role.name, &[], ChannelSet::NONE, None);
                with_role(client, &Arc::new(none))
            }
        }
    }
}

fn with_role(client: &Client, role: &Arc<Role>) -> Principal {
    Principal::Client(Arc::new(Client {
        role: Arc::clone(role),
        ..client.clone()
    }))
}

#[cfg(test)]
mod tests {
    use super::super::TopicRule;
    use super::*;

    fn entitlements(rules: &[&str], anonymous: Option<&str>) -> Entitlements {
        let rules: Vec<_> = rules
            .iter()
            .filter_map(|rule| TopicRule::parse(rule).ok())
            .collect();
        let role = Role::new("public", &rules, ChannelSet::ALL, None);
        let roles = Roles::new(vec![role], anonymous);
        Entitlements {
            without_credentials: Principal::anonymous(&roles),
            roles,
        }
    }

    #[test]
    fn clients_keep_their_identity_and_get_the_rights_of_the_present_roles() {
        let wide = entitlements(&["*"], Some("public"));
        let narrow = entitlements(&["quote:*"], Some("public"));
        let open = entitlements(&["*"], None);
        let role = wide.roles.named("public").expect("a role");
        let key = Principal::authenticated("key", role);
        assert_eq!(wide.renew(&key), key);
        let rule = |principal: &Principal| principal.role().map(|role| role.rule().to_owned());
        let allows = |topics: &str| Some(format!("role \"public\" allows {topics}"));
        assert_eq!(rule(&narrow.renew(&key)), allows("quote:*"));
        assert!(narrow.renew(&key).is_authenticated());
        let gone = Entitlements {
            roles: Roles::default(),
            ..open.clone()
        };
        assert_eq!(rule(&gone.renew(&key)), allows("no topics"));
        let anonymous = &wide.without_credentials;
        assert_eq!(rule(&narrow.renew(anonymous)), allows("quote:*"));
        assert_eq!(rule(&narrow.renew(&Principal::Everyone)), allows("quote:*"));
        assert_eq!(open.renew(&Principal::Everyone), Principal::Everyone);
        assert_eq!(&open.renew(anonymous), anonymous, "never everyone");
    }
}
