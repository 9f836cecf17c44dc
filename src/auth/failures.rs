//! Failed attempts by address, bounded in rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::market::UnixNanos;

/// Addresses that are remembered; beyond them the oldest are forgotten.
const ADDRESSES_MAX: usize = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// Token buckets by address: up to a minute's worth of failures at once.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<IpAddr, UnixNanos>);

/// Network that counts as one address: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) >> 64 << 64;
            IpAddr::V6(prefix.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Failures {
    /// True if the address may make another attempt that can fail.
    pub(super) fn may_try(&self, address: IpAddr, now: UnixNanos) -> bool {
        let full_at = self.0.get(&network(address));
        full_at.is_none_or(|full_at| full_at.since(now) < MINUTE)
    }

    /// Counts a failure.
    pub(super) fn count(&mut self, address: IpAddr, per_minute: u32, now: UnixNanos) {
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, full_at| *full_at > now);
        }
        if self.0.len() >= ADDRESSES_MAX {
            // All are recent: those closest to recovery make room.
            let mut times: Vec<UnixNanos> = self.0.values().copied().collect();
            let (_, median, _) = times.select_nth_unstable(ADDRESSES_MAX / 2);
            let median = *median;
            self.0.retain(|_, full_at| *full_at > median);
        }
        let cost = MINUTE / per_minute.max(1);
        let full_at = self.0.entry(network(address)).or_insert(now);
        *full_at = (*full_at).max(now).plus(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

    #[test]
    fn failures_of_an_address_are_bounded_per_minute() {
        let mut failures = Failures::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..10 {
            assert!(failures.may_try(one, START));
            failures.count(one, 10, START);
        }
        assert!(!failures.may_try(one, START) && failures.may_try(other, START));
        let later = START.plus(Duration::from_secs(6));
        assert!(failures.may_try(one, later));
        failures.count(one, 10, later);
        assert!(!failures.may_try(one, later));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_a_mapped_address_as_ipv4() {
        let mut failures = Failures::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        failures.count(address("2001:db8::1"), 1, START);
        assert!(!failures.may_try(address("2001:db8::2"), START));
        assert!(failures.may_try(address("2001:db8:0:1::1"), START));
        failures.count(address("::ffff:10.0.0.1"), 1, START);
        assert!(!failures.may_try(address("10.0.0.1"), START));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let mut failures = Failures::default();
        for number in 0..3 * ADDRESSES_MAX as u32 {
            failures.count(IpAddr::from(number.to_be_bytes()), 1, START);
            assert!(failures.0.len() <= ADDRESSES_MAX);
        }
    }
}
