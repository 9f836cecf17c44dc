mod jwt;
mod keys;
mod signer;
mod tickets;

use crate::access::{ChannelSet, Role, Roles};
use crate::market::UnixNanos;

/// Time of the checks.
const NOW: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

fn roles() -> Roles {
    let role = |name| Role::new(name, &[], ChannelSet::ALL, None);
    Roles::new(vec![role("reader"), role("operator")], None)
}
