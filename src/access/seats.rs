//! Connections of each client, counted against the limit of its role.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Client, Principal, Role};

/// Identity for which connections are counted: the name of a client, and whether it is proven.
type Identity = (Box<str>, bool);

/// Numbers of connections of the clients whose role limits them. Locked only at the beginning and
/// the end of a connection.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<Identity, usize>>);

/// Counts as one of `limits.connections` of a role as long as it lives.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    identity: Identity,
}

/// Refusal of a connection: the client has as many as its role allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "connection limit reached: role \"{role}\" allows {most} connections per client; close another one first"
)]
pub struct NoSeat {
    role: Box<str>,
    most: usize,
}

impl Seats {
    /// Counts a connection of the client; `None` if its role does not limit them.
    pub fn take(self: &Arc<Self>, principal: &Principal) -> Result<Option<Seat>, NoSeat> {
        let Principal::Client(client) = principal else {
            return Ok(None);
        };
        let Client {
            name,
            role,
            is_authenticated,
        } = &**client;
        let Role { limits, .. } = &**role;
        let Some(most) = limits.connections else {
            return Ok(None);
        };
        let identity = (name.clone(), *is_authenticated);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(identity.clone()).or_default();
        if *count >= most {
            let role = role.name.clone();
            return Err(NoSeat { role, most });
        }
        *count += 1;
        drop(counts);
        let seats = Arc::clone(self);
        Ok(Some(Seat { seats, identity }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChannelSet, RoleLimits};
    use super::*;

    fn client(name: &str, connections: Option<usize>) -> Principal {
        let mut role = Role::new("public", &[], ChannelSet::ALL, None);
        role.limits = RoleLimits {
            connections,
            ..RoleLimits::default()
        };
        Principal::authenticated(name, &Arc::new(role))
    }

    #[test]
    fn connections_are_counted_by_client_and_forgotten_with_the_last() {
        let seats = Arc::new(Seats::default());
        let take = |name: &str, most| seats.take(&client(name, most));
        let first = take("a", Some(2)).expect("a seat");
        let second = take("a", Some(2)).expect("a seat");
        assert!(first.is_some() && second.is_some());
        let full = take("a", Some(2)).expect_err("two are taken");
        assert!(
            full.to_string()
                .contains("role \"public\" allows 2 connections")
        );
        assert!(take("b", Some(2)).is_ok(), "another client");
        drop(first);
        assert!(take("a", Some(2)).is_ok());
        assert!(matches!(take("a", None), Ok(None)));
        drop(second);
        assert_eq!(seats.0.lock().map(|counts| counts.len()).ok(), Some(0));
    }
}
