//! HTTP requests of each client, by the rate of its role.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::access::{Client, Principal};
use crate::admission::{IDLE_MAX as CLIENTS_MAX, Rate};
use crate::market::UnixNanos;

/// Interval between two removals of clients whose rate is unused.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Network of an IPv6 client, in which addresses are free.
const NETWORK: u128 = !0 << 64;

/// Rates of the clients whose role limits them. A client is identified by a secret hash of its name;
/// without credentials, of its address.
#[derive(Debug, Default)]
pub struct ClientRates {
    hash: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    rates: HashMap<u64, Rate>,
    swept: UnixNanos,
}

impl ClientRates {
    /// Charges a request to its client; the error is the time until the next one is allowed.
    pub(super) fn charge(
        &self,
        principal: &Principal,
        address: IpAddr,
        now: UnixNanos,
    ) -> Result<(), Duration> {
        let Principal::Client(client) = principal else {
            return Ok(());
        };
        let Client {
            name,
            role,
            is_authenticated,
        } = &**client;
        let Some(per_second) = role.limits.requests_per_s else {
            return Ok(());
        };
        let address = (!is_authenticated).then(|| network(address));
        let key = self.hash.hash_one((name, address));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.sweep(now);
        if table.rates.len() >= CLIENTS_MAX && !table.rates.contains_key(&key) {
            // The limit over all clients still holds.
            return Ok(());
        }
        let rate = table.rates.entry(key).or_default();
        rate.take(u32::try_from(per_second).unwrap_or(u32::MAX), now)
    }
}

impl Table {
    /// Removes clients whose rate is unused, once there are many.
    fn sweep(&mut self, now: UnixNanos) {
        if self.rates.len() >= CLIENTS_MAX / 2 && now.since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.rates.retain(|_, rate| !rate.is_unused(now));
        }
    }
}

/// Address of an IPv4 client, network of an IPv6 client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::{ChannelSet, Role, RoleLimits};

    const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

    fn client(name: &str, requests_per_s: Option<u64>, is_authenticated: bool) -> Principal {
        let mut role = Role::new("public", &[], ChannelSet::ALL, None);
        role.limits = RoleLimits {
            requests_per_s,
            ..RoleLimits::default()
        };
        Principal::Client(Arc::new(Client {
            name: name.into(),
            role: Arc::new(role),
            is_authenticated,
        }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_has_one_rate_from_all_addresses_and_without_credentials_one_for_each() {
        let rates = ClientRates::default();
        let known = client("alice", Some(1), true);
        for host in 1..=5 {
            let address = ip(&format!("192.0.2.{host}"));
            assert_eq!(rates.charge(&known, address, NOW), Ok(()), "{host}");
        }
        let wait = rates.charge(&known, ip("192.0.2.6"), NOW);
        assert_eq!(wait, Err(Duration::from_secs(1)));
        let later = NOW.plus(Duration::from_secs(1));
        assert_eq!(rates.charge(&known, ip("192.0.2.6"), later), Ok(()));
        let other = client("bob", Some(1), true);
        assert_eq!(rates.charge(&other, ip("192.0.2.6"), NOW), Ok(()));
        let anonymous = client("anonymous", Some(1), false);
        let charge = |address: &str| rates.charge(&anonymous, ip(address), NOW).is_ok();
        assert!((0..5).all(|_| charge("192.0.2.1")));
        assert!(!charge("192.0.2.1") && charge("192.0.2.2"));
        assert!((0..5).all(|host| charge(&format!("2001:db8::{host}"))));
        assert!(!charge("2001:db8::5") && charge("2001:db8:0:1::1"));
    }

    #[test]
    fn the_table_is_bounded_and_roles_without_a_limit_are_not_in_it() {
        let rates = ClientRates::default();
        let length = || rates.table.lock().map(|table| table.rates.len()).ok();
        let unlimited = client("a", None, true);
        for _ in 0..100 {
            assert_eq!(rates.charge(&unlimited, ip("::1"), NOW), Ok(()));
            assert_eq!(rates.charge(&Principal::Everyone, ip("::1"), NOW), Ok(()));
        }
        assert_eq!(length(), Some(0));
        for number in 0..CLIENTS_MAX + 10 {
            let client = client(&number.to_string(), Some(1), true);
            assert_eq!(rates.charge(&client, ip("::1"), NOW), Ok(()));
        }
        assert_eq!(length(), Some(CLIENTS_MAX));
        let later = NOW.plus(Duration::from_secs(2));
        assert_eq!(
            rates.charge(&client("a", Some(1), true), ip("::1"), later),
            Ok(())
        );
        assert_eq!(length(), Some(1));
    }
}
