//! Identity of a client, with its rights.

use std::sync::Arc;
use std::time::Duration;

use super::role::{ChannelSet, Role, Roles};
use crate::protocol::Limits;

/// Identity on whose behalf topics are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Any client of a server without entitlements: sees all topics.
    Everyone,
    /// A client with a role.
    Client(Arc<Client>),
}

/// Identified client, or all clients without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Name of the key or subject; never a secret.
    pub name: Box<str>,
    /// Its topics, limits and rights.
    pub role: Arc<Role>,
    /// True if the client has presented credentials.
    pub is_authenticated: bool,
}

/// Name of clients without credentials.
const ANONYMOUS: &str = "anonymous";

impl Principal {
    /// Client that has presented credentials.
    pub fn authenticated(name: &str, role: &Arc<Role>) -> Self {
        Self::Client(Arc::new(Client {
            name: name.into(),
            role: Arc::clone(role),
            is_authenticated: true,
        }))
    }

    /// Client without credentials: the role `auth.anonymous`; without one, everyone.
    pub fn anonymous(roles: &Roles) -> Self {
        let Some(role) = roles.anonymous() else {
            return Self::Everyone;
        };
        Self::Client(Arc::new(Client {
            name: ANONYMOUS.into(),
            role: Arc::clone(role),
            is_authenticated: false,
        }))
    }

    /// Client that has not presented the credentials that the server requires: sees no topics.
    pub fn nobody() -> Self {
        Self::Client(Arc::new(Client {
            name: ANONYMOUS.into(),
            role: Arc::new(Role::new(ANONYMOUS, &[], ChannelSet::NONE, None)),
            is_authenticated: false,
        }))
    }

    /// Role of the client; `None`: no restrictions.
    pub fn role(&self) -> Option<&Arc<Role>> {
        match self {
            Self::Everyone => None,
            Self::Client(client) => Some(&client.role),
        }
    }

    /// True if both are the same client, perhaps with different rights.
    pub fn is_same_client(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client(one), Self::Client(other)) => {
                (&one.name, one.is_authenticated) == (&other.name, other.is_authenticated)
            }
            _ => false,
        }
    }

    /// True if the client has presented credentials.
    pub fn is_authenticated(&self) -> bool {
        matches!(self, Self::Client(client) if client.is_authenticated)
    }

    /// Age of the events that the client sees.
    pub fn delay(&self) -> Duration {
        self.role().map_or(Duration::ZERO, |role| role.delay)
    }

    /// Limits of a connection, derived from those of the server.
    pub fn limits(&self, server: &Arc<Limits>) -> Arc<Limits> {
        match self {
            Self::Everyone => Arc::clone(server),
            Self::Client(client) => match client.role.limits(server) {
                same if same == **server => Arc::clone(server),
                own => Arc::new(own),
            },
        }
    }

    /// True if the client may publish a symbol to a source. Without entitlements the token of the
    /// source decides.
    pub fn may_publish(&self, source: &str, symbol: &str) -> bool {
        self.role()
            .is_none_or(|role| role.may_publish(source, symbol))
    }

    /// True if the client may read the admin routes.
    pub fn may_administer(&self) -> bool {
        self.role().is_none_or(|role| role.may_administer)
    }

    /// True if the client may read the metrics.
    pub fn may_read_metrics(&self) -> bool {
        self.role().is_none_or(|role| role.may_read_metrics)
    }
}
