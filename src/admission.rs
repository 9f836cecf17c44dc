//! Admission of connections: limits per client address and IPv6 network, and rates of handshakes.
//!
//! An IPv4 client is one address. An IPv6 client has a whole network (/64), in which addresses are
//! free: it is limited by both. The table is bounded: an entry has a connection, or belongs to one
//! of the latest [`IDLE_MAX`] clients, whose rate is remembered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;

use crate::limits::AdmissionLimits;
use crate::market::UnixNanos;

/// Max number of clients without a connection in the table.
pub const IDLE_MAX: usize = 16_384;
/// Interval between two removals of idle clients whose rate is unused.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Max burst, as seconds of a rate.
const BURST: Duration = Duration::from_secs(5);

/// Rate with a bounded burst, stored as the time up to which it is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate(UnixNanos);

impl Rate {
    /// Consumes one; the error is the time until the next one is allowed.
    pub fn take(&mut self, per_second: u32, now: UnixNanos) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / per_second.max(1);
        let next = self.0.max(now).plus(each);
        let used = next.since(now);
        if used > BURST {
            return Err(used.saturating_sub(BURST));
        }
        self.0 = next;
        Ok(())
    }

    /// True if nothing of the rate is used any more.
    pub fn is_unused(self, now: UnixNanos) -> bool {
        self.0 <= now
    }
}

/// Reason for which a client is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The address has too many connections.
    #[error("too many connections from this address (limits.connections_per_address)")]
    Address,
    /// The IPv6 network has too many connections.
    #[error("too many connections from this IPv6 network (limits.connections_per_network)")]
    Network,
    /// The address or IPv6 network sends requests too fast.
    #[error("too many requests per second from this address (limits.handshakes_per_s_per_address)")]
    ClientRate(Duration),
    /// All clients together open connections too fast.
    #[error("too many handshakes per second (limits.handshakes_per_s)")]
    Rate(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    /// First 64 bits of an IPv6 address.
    Network([u8; 8]),
}

impl Key {
    fn network_of(address: IpAddr) -> Option<Self> {
        let IpAddr::V6(address) = address else {
            return None;
        };
        let mut network = [0; 8];
        network.copy_from_slice(&address.octets()[..8]);
        Some(Self::Network(network))
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    connections: u32,
    /// Entry of the IPv6 network; an address inside one has no rate of its own.
    network: Option<u32>,
    rate: Rate,
}

#[derive(Debug, Default)]
struct Table {
    entries: Slab<Entry>,
    by_key: HashMap<Key, u32>,
    /// Number of entries without a connection.
    idle: usize,
    swept: UnixNanos,
    handshakes: Rate,
}

/// Connections and rates of all clients, by address.
#[derive(Debug, Default)]
pub struct Admission(Mutex<Table>);

/// Connection of a client that counts towards its address while it lives.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    entry: u32,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.table().release(self.entry);
    }
}

impl Admission {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection of a client, which counts until the guard is dropped.
    pub fn connect(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &AdmissionLimits,
        now: UnixNanos,
    ) -> Result<Admitted, NotAdmitted> {
        let mut table = self.table();
        table.sweep(now);
        let entry = table.entry(address.to_canonical());
        let connected = table.connect(entry, limits, now);
        if connected.is_err() {
            table.forget_if_idle(entry);
        }
        connected?;
        Ok(Admitted {
            admission: Arc::clone(self),
            entry,
        })
    }

    /// Charges a request to the rate of its client, without a connection.
    pub fn charge(
        &self,
        address: IpAddr,
        limits: &AdmissionLimits,
        now: UnixNanos,
    ) -> Result<(), NotAdmitted> {
        let mut table = self.table();
        table.sweep(now);
        let entry = table.entry(address.to_canonical());
        let rated = table.rated(entry);
        let taken = table.entries[rated as usize]
            .rate
            .take(limits.handshakes_per_s_per_address, now);
        table.forget_if_idle(entry);
        taken.map_err(NotAdmitted::ClientRate)
    }

    /// Charges a handshake to the rate of all clients.
    pub fn charge_all(&self, limits: &AdmissionLimits, now: UnixNanos) -> Result<(), NotAdmitted> {
        let mut table = self.table();
        let taken = table.handshakes.take(limits.handshakes_per_s, now);
        taken.map_err(NotAdmitted::Rate)
    }
}

impl Table {
    /// Entry of an address, new ones without a connection.
    fn entry(&mut self, address: IpAddr) -> u32 {
        let network = Key::network_of(address).map(|key| self.find(key, None));
        self.find(Key::Address(address), network)
    }

    fn find(&mut self, key: Key, network: Option<u32>) -> u32 {
        if let Some(found) = self.by_key.get(&key) {
            return *found;
        }
        let entry = self.entries.insert(Entry {
            key,
            connections: 0,
            network,
            rate: Rate::default(),
        }) as u32;
        self.by_key.insert(key, entry);
        self.idle += 1;
        entry
    }

    /// The entry that has the rate of a client.
    fn rated(&self, entry: u32) -> u32 {
        self.entries[entry as usize].network.unwrap_or(entry)
    }

    fn connect(
        &mut self,
        entry: u32,
        limits: &AdmissionLimits,
        now: UnixNanos,
    ) -> Result<(), NotAdmitted> {
        let rated = self.rated(entry);
        let connections = |entry: u32| self.entries[entry as usize].connections;
        if connections(entry) >= limits.connections_per_address {
            return Err(NotAdmitted::Address);
        }
        if rated != entry && connections(rated) >= limits.connections_per_network {
            return Err(NotAdmitted::Network);
        }
        let rate = &mut self.entries[rated as usize].rate;
        rate.take(limits.handshakes_per_s_per_address, now)
            .map_err(NotAdmitted::ClientRate)?;
        self.add(entry);
        if rated != entry {
            self.add(rated);
        }
        Ok(())
    }

    fn add(&mut self, entry: u32) {
        let entry = &mut self.entries[entry as usize];
        self.idle -= usize::from(entry.connections == 0);
        entry.connections += 1;
    }

    fn release(&mut self, entry: u32) {
        let rated = self.rated(entry);
        self.subtract(entry);
        if rated != entry {
            self.subtract(rated);
        }
        self.forget_if_idle(entry);
    }

    fn subtract(&mut self, entry: u32) {
        let entry = &mut self.entries[entry as usize];
        entry.connections -= 1;
        self.idle += usize::from(entry.connections == 0);
    }

    /// Removes the entry of an address inside a network, which has no rate; and any entry beyond
    /// the bound of the table.
    fn forget_if_idle(&mut self, entry: u32) {
        let rated = self.rated(entry);
        if rated != entry && self.entries[entry as usize].connections == 0 {
            self.remove(entry);
        }
        if self.idle > IDLE_MAX && self.entries[rated as usize].connections == 0 {
            self.remove(rated);
        }
    }

    fn remove(&mut self, entry: u32) {
        let removed = self.entries.remove(entry as usize);
        self.by_key.remove(&removed.key);
        self.idle -= 1;
    }

    /// Removes clients whose rate is unused, once there are many.
    fn sweep(&mut self, now: UnixNanos) {
        if self.idle < IDLE_MAX / 2 || now.since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let Self {
            entries, by_key, ..
        } = self;
        entries.retain(|_, entry| {
            let is_kept = entry.connections > 0 || !entry.rate.is_unused(now);
            if !is_kept {
                by_key.remove(&entry.key);
            }
            is_kept
        });
        self.idle = entries
            .iter()
            .filter(|(_, entry)| entry.connections == 0)
            .count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
    const LIMITS: AdmissionLimits = AdmissionLimits {
        connections_per_address: 3,
        connections_per_network: 5,
        handshakes_per_s_per_address: 100,
        handshakes_per_s: 10,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn idle(admission: &Admission) -> (usize, usize) {
        let table = admission.table();
        assert_eq!(table.entries.len(), table.by_key.len());
        (table.idle, table.entries.len())
    }

    #[test]
    fn an_address_has_a_limit_and_regains_it_with_each_closed_connection() {
        let admission = Arc::new(Admission::default());
        let connect = |address: &str| admission.connect(ip(address), &LIMITS, NOW);
        let mut held: Vec<_> = (0..3)
            .map(|_| connect("192.0.2.1").expect("below the limit"))
            .collect();
        assert_eq!(connect("192.0.2.1").err(), Some(NotAdmitted::Address));
        assert_eq!(
            connect("::ffff:192.0.2.1").err(),
            Some(NotAdmitted::Address)
        );
        assert!(connect("192.0.2.2").is_ok());
        held.pop();
        assert!(connect("192.0.2.1").is_ok());
    }

    #[test]
    fn an_ipv6_network_has_a_limit_over_all_of_its_addresses() {
        let admission = Arc::new(Admission::default());
        let held: Vec<_> = (0..5)
            .map(|host| admission.connect(ip(&format!("2001:db8::{host:x}")), &LIMITS, NOW))
            .collect();
        assert!(held.iter().all(Result::is_ok));
        let next = |address: &str| admission.connect(ip(address), &LIMITS, NOW).err();
        assert_eq!(next("2001:db8::ffff"), Some(NotAdmitted::Network));
        assert_eq!(next("2001:db8:0:1::1"), None);
        drop(held);
        assert_eq!(next("2001:db8::ffff"), None);
        assert_eq!(idle(&admission), (2, 2), "only networks keep a rate");
    }

    #[test]
    fn the_rate_of_an_ipv6_client_is_that_of_its_network() {
        let (admission, mut hosts) = (Admission::default(), 0u32..);
        let mut charge = |now| {
            let host = hosts.next().expect("endless");
            admission.charge(ip(&format!("2001:db8::{host:x}")), &LIMITS, now)
        };
        assert_eq!((0..1000).filter(|_| charge(NOW).is_ok()).count(), 500);
        assert!(matches!(charge(NOW), Err(NotAdmitted::ClientRate(_))));
        let later = NOW.plus(SECOND);
        assert_eq!((0..1000).filter(|_| charge(later).is_ok()).count(), 100);
        assert!(admission.charge(ip("192.0.2.1"), &LIMITS, NOW).is_ok());
    }

    #[test]
    fn all_clients_share_a_rate_of_handshakes() {
        let admission = Admission::default();
        let taken = |now| admission.charge_all(&LIMITS, now);
        assert_eq!((0..1000).filter(|_| taken(NOW).is_ok()).count(), 50);
        assert_eq!(
            taken(NOW),
            Err(NotAdmitted::Rate(Duration::from_millis(100)))
        );
        assert_eq!(taken(NOW.plus(SECOND)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_clients_whose_rate_is_unused() {
        let admission = Arc::new(Admission::default());
        let held = admission.connect(ip("192.0.2.1"), &LIMITS, NOW);
        for client in 0..200_000u32 {
            let network = format!("2001:db8:{:x}:{:x}::1", client >> 16, client & 0xffff);
            let _charged = admission.charge(ip(&network), &LIMITS, NOW);
        }
        let (idle_now, all) = idle(&admission);
        assert!(idle_now <= IDLE_MAX + 1 && all <= IDLE_MAX + 2, "{all}");
        let later = NOW.plus(10 * SECOND);
        assert!(admission.charge(ip("192.0.2.9"), &LIMITS, later).is_ok());
        assert_eq!(idle(&admission), (1, 2));
        drop(held);
        assert_eq!(idle(&admission), (2, 2));
    }
}
