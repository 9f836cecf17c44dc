use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::command::{Command, commands};
use super::super::connection::{Adopted, Closing, Credentials, Permit};
use super::super::memory_socket::{ClientEnd, socket};
use super::super::sockets::Sockets;
use super::super::{Parts, ShardConfig, Transport};
use super::*;
use crate::access::{ChannelSet, Role, Roles, TopicRule};
use crate::auth::{
    AuthSettings, Gate, Grant, Key, KeySet, NewKey, Policy, Presented, Scheme, Secret,
};
use crate::clock::Clock;
use crate::config::Config;
use crate::log::Log;
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::{Encoding, Epoch};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
/// Bytes that each socket accepts.
const ROOM: usize = 4096;

/// Shard in memory, whose clients have one key.
struct Rig {
    shard: Shard,
    gate: Arc<Gate>,
    key: NewKey,
    queue: mpsc::Receiver<Command>,
    ends: Vec<ClientEnd>,
}

fn roles(rule: &str) -> Roles {
    let rule = TopicRule::parse(rule).expect("a rule");
    let role = Role::new("reader", &[rule], ChannelSet::ALL, None);
    Roles::new(vec![role], None)
}

fn entitlements(rule: &str) -> Arc<Entitlements> {
    Arc::new(Entitlements {
        roles: roles(rule),
        without_credentials: Principal::nobody(),
    })
}

fn policy(secrets: &[&Secret]) -> Policy {
    let key = |secret: &&Secret| Key {
        id: "a".into(),
        secret: (*secret).clone(),
        role: "reader".into(),
    };
    Policy {
        settings: AuthSettings {
            timeout: Duration::from_secs(10),
            ..AuthSettings::default()
        },
        scheme: Scheme::Keys(KeySet::new(secrets.iter().map(key))),
        roles: Arc::new(roles("*")),
    }
}

impl Rig {
    fn new(clock: Clock) -> Self {
        let text = "sources: [{name: s, kind: push, instruments: [{symbol: A}], open: true}]";
        let limits = Config::parse(text, "test").expect("a config").limits;
        let key = NewKey::make("a", false);
        let (gate, _jobs) = Gate::new(policy(&[&key.secret]));
        let config = ShardConfig {
            clock,
            epoch: Epoch {
                origin: 1,
                generation: 0,
            },
            limits,
            demand: Arc::new([]),
            delay: Duration::ZERO,
            delay_line_bytes: 0,
            entitlements: entitlements("*"),
            seats: Arc::default(),
            gate: Arc::clone(&gate),
        };
        let shard = Shard::new(Parts {
            number: 0,
            config,
            log: Log::new(1 << 20, 1),
            bus: crate::bus::input_queue(1 << 20, clock).0,
            metrics: Arc::new(Metrics::new()),
            sockets: Sockets::simulated(),
            connected: Arc::<AtomicUsize>::default(),
        });
        Self {
            shard,
            gate,
            key,
            queue: commands().1,
            ends: Vec::new(),
        }
    }

    /// Identity that the key proves under the present policy.
    fn grant(&self) -> Grant {
        match self.gate.present(&self.key.token, ADDRESS, NOW, |_| {}) {
            Presented::Decided(Ok(grant)) => grant,
            other => unreachable!("the key is in the set: {other:?}"),
        }
    }

    fn adopt(&mut self, grant: &Grant) {
        let principal = self.gate.policy().principal(grant).expect("a known role");
        self.adopt_as(principal, Credentials::Proven(grant.clone()));
    }

    fn adopt_as(&mut self, principal: Principal, credentials: Credentials) {
        let (own, theirs) = socket(ROOM);
        self.ends.push(own);
        let adopted = Adopted {
            transport: Transport::Simulated(theirs),
            encoding: Encoding::Json,
            message_max: 1 << 19,
            read_ahead: bytes::Bytes::new(),
            peer: (ADDRESS, 1).into(),
            agent: "test".into(),
            principal,
            #[cfg(feature = "echo")]
            is_echo: false,
            credentials,
            permit: Some(Permit(Arc::new(AtomicUsize::new(1)))),
            admitted: None,
        };
        self.shard.on_command(Command::Adopt(Box::new(adopted)));
    }

    /// Makes turns until nothing is left to do; returns what `count` has grown by in each.
    fn turns(&mut self, count: impl Fn(&Shard) -> usize) -> Vec<usize> {
        let mut grown = Vec::new();
        let mut before = count(&self.shard);
        loop {
            let is_busy = self.shard.turn(&mut self.queue);
            let now = count(&self.shard);
            grown.push(now - before);
            before = now;
            if !is_busy {
                return grown;
            }
        }
    }

    /// Everything that the last client has received.
    fn received(&self) -> String {
        let end = self.ends.last().expect("a client");
        String::from_utf8_lossy(&end.receive(ROOM)).into_owned()
    }
}

fn closing(shard: &Shard) -> usize {
    let is_closing = |connection: &Connection| matches!(connection.closing, Some(Closing::Sent(_)));
    let connections = shard.connections.iter();
    connections
        .filter(|(_, connection)| is_closing(connection))
        .count()
}

/// The clock stands still, so that only the number of reviews bounds a turn.
#[test]
fn a_turn_reviews_a_bounded_number_of_credentials() {
    const CLIENTS: usize = 1_000;
    let mut rig = Rig::new(Clock::simulated(NOW));
    let grant = rig.grant();
    for _ in 0..CLIENTS {
        rig.adopt(&grant);
    }
    assert_eq!(rig.turns(closing).iter().sum::<usize>(), 0);
    rig.gate.replace(policy(&[]));
    rig.shard.on_command(Command::ReviewCredentials);
    let closed = rig.turns(closing);
    assert_eq!(closed.iter().sum::<usize>(), CLIENTS);
    assert!(
        closed.iter().all(|closed| *closed <= REVIEWS_A_TURN),
        "{closed:?}"
    );
}

#[test]
fn a_turn_compares_a_bounded_number_of_clients_with_their_roles() {
    const CLIENTS: usize = 1_000;
    let mut rig = Rig::new(Clock::simulated(NOW));
    let grant = rig.grant();
    for _ in 0..CLIENTS {
        rig.adopt(&grant);
    }
    let restricted = entitlements("quote:*");
    let role = Arc::clone(restricted.roles.named("reader").expect("a role"));
    rig.shard.on_command(Command::Entitle(restricted));
    let compared = rig.turns(|shard| {
        let connections = shard.connections.iter();
        let roles = connections.map(|(_, connection)| connection.peer.principal.role());
        roles.filter(|found| *found == Some(&role)).count()
    });
    assert_eq!(compared.iter().sum::<usize>(), CLIENTS);
    assert!(
        compared.iter().all(|count| *count <= REVIEWS_A_TURN),
        "{compared:?}"
    );
}

/// The policy changes between the handshake of a client and its arrival at the shard, whose review is
/// over by then.
#[test]
fn a_client_whose_credentials_have_ended_since_its_handshake_is_closed() {
    let mut rig = Rig::new(Clock::simulated(NOW));
    let grant = rig.grant();
    let other = NewKey::make("a", false);
    rig.gate.replace(policy(&[&other.secret]));
    rig.shard.on_command(Command::ReviewCredentials);
    rig.turns(closing);
    rig.adopt(&grant);
    assert_eq!(rig.turns(closing).iter().sum::<usize>(), 1);
    let received = rig.received();
    assert!(received.contains("\"code\":402"), "{received}");
    assert!(!received.contains("welcome"), "{received}");
    // A client without credentials, where they were not needed at its handshake.
    rig.adopt_as(Principal::Everyone, Credentials::NotNeeded);
    assert_eq!(rig.turns(closing).iter().sum::<usize>(), 1);
    let received = rig.received();
    assert!(received.contains("\"code\":401"), "{received}");
}

/// The policy changes between the check of a token elsewhere and its outcome.
#[test]
fn a_key_that_was_removed_since_its_check_is_refused() {
    let mut rig = Rig::new(Clock::simulated(NOW));
    let grant = rig.grant();
    rig.adopt_as(Principal::nobody(), Credentials::Missing);
    rig.turns(closing);
    rig.gate.replace(policy(&[]));
    rig.shard.take_outcome(ConnectionKey(0), Ok(grant));
    assert_eq!(rig.turns(closing).iter().sum::<usize>(), 1);
    let received = rig.received();
    assert!(received.contains("\"code\":402"), "{received}");
}
