//! World of a simulation: one server, its sources and its clients, in one thread and in virtual
//! time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tickcast::access::Principal;
use tickcast::bus::RestoredState;
use tickcast::clock::Clock;
use tickcast::market::UnixNanos;
use tickcast::protocol::Encoding;
use tickcast::shard::memory_socket::socket;
use tickcast::shard::{Adopted, Command, Credentials, Permit, Transport};

use crate::Violation;
use crate::client::Client;
use crate::plan::{Plan, Setup};
use crate::rng::Rng;
use crate::server::Server;
use crate::sources::{SYMBOLS, Source};
use crate::truth::Truth;

/// Beginning of virtual time: a full second before a minute, so that bars end soon.
const BEGINNING: UnixNanos = UnixNanos(1_767_225_599_000_000_000);
/// Number of the newest entries of the diary that are kept.
const DIARY_MAX: usize = 80;

/// A failed simulation.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) step: usize,
    pub(crate) violation: Violation,
}

/// Result of a simulation.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) digest: u64,
    pub(crate) steps: usize,
    pub(crate) events: u64,
    pub(crate) messages: u64,
    pub(crate) failure: Option<Failure>,
    /// The last actions.
    pub(crate) diary: VecDeque<String>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) clock: Clock,
    /// Time to which the clock was set last.
    advanced_to: UnixNanos,
    /// `None` while the server is down.
    pub(crate) server: Option<Server>,
    pub(crate) sources: Vec<Source>,
    pub(crate) clients: Vec<Client>,
    pub(crate) truth: Truth,
    /// State for the next server.
    pub(crate) left: Option<(u64, RestoredState)>,
    pub(crate) origins: u64,
    /// Number of sources so far, which names them.
    pub(crate) named: usize,
    diary: Option<VecDeque<String>>,
}

impl World {
    pub(crate) fn new(plan: &Plan, keeps_diary: bool) -> Result<Self, Violation> {
        let setup = Setup::of(plan.seed)?;
        let clock = Clock::simulated(BEGINNING);
        clock.advance_to(BEGINNING, setup.per_reading);
        let mut rng = Rng::new(plan.seed);
        let mut symbols = SYMBOLS.to_vec();
        let mut sources = Vec::new();
        for number in 0..setup.sources {
            let count = 1 + rng.below(2);
            let own: Vec<&str> = symbols.drain(..count).collect();
            sources.push(Source::new(number, &own)?);
        }
        let clients = (0..plan.clients)
            .map(|number| Client::new(number, rng.chance(50)))
            .collect();
        let named = sources.len();
        let mut world = Self {
            setup,
            clock,
            advanced_to: BEGINNING,
            server: None,
            sources,
            clients,
            truth: Truth::default(),
            left: None,
            origins: 0,
            named,
            diary: keeps_diary.then(VecDeque::new),
        };
        for client in world.clients.iter_mut().filter(|_| keeps_diary) {
            client.received = Some(Vec::new());
        }
        world.start();
        Ok(world)
    }

    /// Makes all steps of a plan, then lets everything come to rest. A panic is a failure too.
    pub(crate) fn run(plan: &Plan, keeps_diary: bool) -> Outcome {
        let run = AssertUnwindSafe(|| Self::run_steps(plan, keeps_diary));
        catch_unwind(run).unwrap_or_else(|_reported_by_the_hook| Outcome {
            failure: Some(Failure {
                step: usize::MAX,
                violation: Violation::new("panic"),
            }),
            ..Outcome::default()
        })
    }

    fn run_steps(plan: &Plan, keeps_diary: bool) -> Outcome {
        let mut world = match Self::new(plan, keeps_diary) {
            Ok(world) => world,
            Err(violation) => {
                return Outcome {
                    failure: Some(Failure { step: 0, violation }),
                    ..Outcome::default()
                };
            }
        };
        let mut failure = None;
        let mut made = 0;
        for step in &plan.steps {
            made += 1;
            let mut rng = Rng::of_step(plan.seed, *step);
            if let Err(violation) = world.step(plan, &mut rng) {
                let step = *step;
                failure = Some(Failure { step, violation });
                break;
            }
        }
        if failure.is_none()
            && let Err(violation) = world.settle(&mut Rng::new(plan.seed))
        {
            let step = usize::MAX;
            failure = Some(Failure { step, violation });
        }
        let digests = world.clients.iter().map(|client| client.digest);
        Outcome {
            digest: digests.fold(world.clock.now().0, |all, one| {
                (all.rotate_left(9) ^ one).wrapping_mul(0x0100_0000_01b3)
            }),
            steps: made,
            events: world.truth.events,
            messages: world.clients.iter().map(|client| client.messages).sum(),
            failure,
            diary: world.diary.unwrap_or_default(),
        }
    }

    /// Notes an action, if somebody is going to read it.
    pub(crate) fn note(&mut self, action: impl FnOnce(&Self) -> String) {
        if self.diary.is_none() {
            return;
        }
        // A reading of the clock would take time.
        let since = self.advanced_to.since(BEGINNING);
        let entry = format!("{since:?}: {}", action(self));
        if let Some(diary) = &mut self.diary {
            diary.push_back(entry);
            if diary.len() > DIARY_MAX {
                diary.pop_front();
            }
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().0
    }

    /// Starts a server, from the state that the last one left.
    pub(crate) fn start(&mut self) {
        let history = self.setup.limits.history;
        let (origin, restored) = if let Some(left) = self.left.take() {
            self.truth.limit_history(history);
            left
        } else {
            self.origins += 1;
            self.truth.begin_history(history);
            (self.origins, RestoredState::default())
        };
        self.server = Some(Server::start(
            self.clock,
            self.setup.sizes,
            self.setup.limits,
            &mut self.sources,
            origin,
            restored,
        ));
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        let to = self.clock.now().plus(by);
        self.advance_to(to);
    }

    pub(crate) fn advance_to(&mut self, to: UnixNanos) {
        self.advanced_to = self.advanced_to.max(to);
        self.clock.advance_to(to, self.setup.per_reading);
    }

    /// Connects a client to a shard.
    pub(crate) fn connect(&mut self, at: usize, is_refused: bool, rng: &mut Rng) {
        let now = self.now();
        let Some(server) = &self.server else {
            return;
        };
        let client = &mut self.clients[at];
        let shard = rng.below(server.shards.len());
        let (own, theirs) = socket(self.setup.capacity);
        client.connect(own, self.setup.capacity, now);
        client.is_refused = is_refused;
        if rng.chance(80) {
            client.request_resume(rng, now);
        }
        // Bytes behind the handshake come with it.
        let early = if rng.chance(50) {
            client.take_outgoing()
        } else {
            Vec::new()
        };
        let adopted = Adopted {
            transport: Transport::Simulated(theirs),
            encoding: if client.is_binary {
                Encoding::Msgpack
            } else {
                Encoding::Json
            },
            message_max: 1 << 19,
            read_ahead: early.into(),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            agent: "simulation".into(),
            principal: Principal::Everyone,
            credentials: Credentials::NotNeeded,
            admitted: None,
            permit: (!is_refused).then(|| Permit(Arc::new(AtomicUsize::new(1)))),
        };
        server.shards[shard].send(Command::Adopt(Box::new(adopted)));
    }

    /// Reads of a client, and answers to its pings. Returns the number of bytes that it read.
    pub(crate) fn read(
        &mut self,
        at: usize,
        bytes: usize,
        rng: &mut Rng,
    ) -> Result<usize, Violation> {
        let now = self.now();
        if self.server.as_ref().is_some_and(Server::is_overrun) {
            self.truth.lose_history();
        }
        let client = &mut self.clients[at];
        let result = client.read(bytes, &mut self.truth, now);
        let received = client.received.as_mut().map(std::mem::take);
        for message in received.unwrap_or_default() {
            self.note(|_| format!("client {at} reads {message}"));
        }
        let client = &mut self.clients[at];
        let read =
            result.map_err(|violation| Violation::new(format!("client {at}: {violation}")))?;
        client.answer_pings(rng, now);
        self.reap(at)?;
        Ok(read)
    }

    /// Notes that the server has closed the connection of a client.
    pub(crate) fn reap(&mut self, at: usize) -> Result<(), Violation> {
        let client = &mut self.clients[at];
        let is_over = client
            .socket
            .as_ref()
            .is_some_and(|socket| socket.is_closed() && socket.received() == 0);
        if is_over {
            if self.server.is_some() {
                client
                    .check_end()
                    .map_err(|violation| Violation::new(format!("client {at}: {violation}")))?;
            }
            client.forget();
        }
        Ok(())
    }
}
