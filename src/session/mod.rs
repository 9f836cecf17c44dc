//! Client session: a sans-I/O state machine from requests to actions.
//!
//! A session holds the names a client subscribed to and its budgets; it reads the replica, and says what is to be done
//! as [`Action`]s, in order. The shard does them.

mod appear;
mod budget;
mod change;
mod subscribe;
mod subscription_set;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use crate::access::{Principal, Visible};
use crate::codec::decode_request;
use crate::log::{Replica, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{
    Authenticated, Bye, Code, Control, Encoding, Entry, Id, Limits, Op, Pong, ProtocolError,
    Request, Seq, Settings,
};
use budget::{AbuseCounter, TokenBucket};
use change::{Listing, Modifying, Resyncing, Unsubscribing};
use subscribe::Subscribing;
use subscription_set::SubscriptionSet;
use work::{Budget, Job, SLICE, Work};

/// More bad requests, or requests over the rate, than so many in [`STRIKES_SPAN`] close the connection.
const STRIKES_MAX: usize = 20;
const STRIKES_SPAN: Duration = Duration::from_secs(10);
/// Bytes of a request that cost as much of the rate limit as a request.
const BYTES_A_TOKEN: usize = 8 * 1024;
/// A request of more bytes is decoded in a slice of its own.
const DECODED_ALONE_BYTES: usize = 4 * 1024;
/// Instruments of a list that cost as much; they are listed as the socket drains, in long parts.
const INSTRUMENTS_A_TOKEN: usize = 512;

/// Start of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// With a snapshot of at most so many events.
    Snapshot(usize),
    /// With the next event.
    Live,
    /// With a snapshot of at most so many events that the client didn't ask for: a pattern of it means the topic now.
    Offered(usize),
    /// With a snapshot, because the place from which to go on is of another epoch.
    Anew(usize),
    /// With what came after this number.
    Resume(Seq),
    /// Events after this number have expired: a gap, then a snapshot of at most so many events.
    Expired(Seq, usize),
}

/// Actions of the shard for a session, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this, after the answers before it.
    Respond(Control),
    /// Send this, which the client didn't ask for.
    Notify(Control),
    /// Begin to hold a topic.
    Subscribe(TopicId, Settings, Join),
    /// Change the settings of a topic that is held.
    Modify(TopicId, Settings),
    /// Send a snapshot of at most so many events of a topic that is held.
    Snapshot(TopicId, usize),
    /// No longer hold a topic.
    Unsubscribe(TopicId),
    /// Send the accounts, after what waits now.
    Ledger(Option<Id>),
    /// Send the instruments that the pattern means.
    Instruments(Option<Id>, String),
    /// Send no larger messages from now on.
    LimitMessages(u32),
    /// Say goodbye and close.
    Close(Bye, Code),
}

/// View of its connection and its shard for a session.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Topic states now.
    pub replica: &'a Replica,
    /// Identity of the client.
    pub principal: &'a Principal,
    /// Subscribed topics.
    pub held: &'a dyn Held,
    /// The time of this turn.
    pub now: UnixNanos,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl<'a> View<'a> {
    /// The topics that the client may see.
    fn visible(&self) -> Visible<'a> {
        Visible::new(self.replica.catalog(), self.principal)
    }
}

/// The topics that a connection holds.
pub trait Held {
    /// True if the topic is subscribed.
    fn holds(&self, topic: TopicId) -> bool;
    /// Number of subscribed topics.
    fn count(&self) -> usize;
    /// All of them, in order.
    fn topics(&self) -> Vec<TopicId>;
}

/// A request that was read.
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
enum Asked {
    /// It is answered by these.
    Answered(Vec<Action>),
    /// It is answered in slices.
    Work(Work),
}

/// One client's conversation. Small, because there are very many.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    names: SubscriptionSet,
    requests: TokenBucket,
    /// The rest of a long request; the next one is answered after it.
    work: Option<Box<Job>>,
    /// Faults; `None` for a client without any.
    faults: Option<Box<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    bad: AbuseCounter,
    over_rate: AbuseCounter,
}

impl Session {
    /// A conversation that begins now.
    pub fn new(limits: Arc<Limits>, now: UnixNanos) -> Self {
        Self {
            requests: TokenBucket::full(limits.requests_per_s, now),
            limits,
            names: SubscriptionSet::default(),
            work: None,
            faults: None,
        }
    }

    fn faults(&mut self) -> &mut Faults {
        self.faults.get_or_insert_default()
    }

    /// Answers one message of the client, or begins to: while [`Self::is_busy`], [`Self::go_on`] does the rest, and no
    /// other message is taken.
    pub fn on_request(&mut self, bytes: &[u8], encoding: Encoding, view: View<'_>) -> Vec<Action> {
        debug_assert!(!self.is_busy(), "requests are answered one after the other");
        let request = decode_request(bytes, encoding);
        if let Err(wait) = self.requests.take(view.now) {
            let id = request.map_or_else(|bad| bad.id, |request| request.id);
            return self.refuse_rate(id, wait, view.now);
        }
        self.requests.charge(bytes.len() / BYTES_A_TOKEN, view.now);
        match request {
            Err(bad) => self.refuse(bad.id, bad.message, view.now),
            Ok(Request { id, op }) => {
                let work = match self.on_op(id, op, view) {
                    Asked::Answered(actions) => return actions,
                    Asked::Work(work) => work,
                };
                self.work = Some(Box::new(Job::new(work)));
                if bytes.len() > DECODED_ALONE_BYTES {
                    return Vec::new();
                }
                self.slice(view)
            }
        }
    }

    /// True if a request is only partly answered.
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// The next part of the answer to a long request. Each but the first costs as much of the rate limit as a request.
    pub fn go_on(&mut self, view: View<'_>) -> Vec<Action> {
        if self.work.as_ref().is_some_and(|job| job.has_begun()) {
            self.requests.charge(1, view.now);
        }
        self.slice(view)
    }

    fn slice(&mut self, view: View<'_>) -> Vec<Action> {
        let Some(mut job) = self.work.take() else {
            return Vec::new();
        };
        let slice = job.step(self, view, &mut Budget::of_a_slice());
        if !slice.is_last {
            self.work = Some(job);
        }
        slice.actions
    }

    fn on_op(&mut self, id: Option<Id>, op: Op, view: View<'_>) -> Asked {
        match op {
            Op::Subscribe(subscribe) => Asked::Work(Subscribing::begin(id, subscribe)),
            Op::Unsubscribe(asked) => Asked::Work(Unsubscribing::begin(self, id, asked, view)),
            Op::Modify { topics, wish } => Asked::Work(Modifying::begin(id, topics, wish)),
            Op::Resync { topics } => Asked::Work(Resyncing::begin(id, topics)),
            Op::Subscriptions => Asked::Work(Listing::begin(id, self)),
            Op::Instruments { pattern } => {
                let instruments = view.visible().instruments();
                self.requests
                    .charge(instruments / INSTRUMENTS_A_TOKEN, view.now);
                Asked::Answered(vec![Action::Instruments(id, pattern)])
            }
            Op::Ledger => {
                self.requests.charge(view.held.count() / SLICE, view.now);
                Asked::Answered(vec![Action::Ledger(id)])
            }
            Op::Ping { t } => {
                let ts = view.now.0;
                let pong = Control::Pong(Pong { id, t, ts });
                Asked::Answered(vec![Action::Respond(pong)])
            }
            Op::Auth { .. } => {
                let answer = Control::Authenticated(Authenticated {
                    id,
                    expires: None,
                    limits: *self.limits,
                });
                Asked::Answered(vec![Action::Respond(answer)])
            }
        }
    }

    /// An `error` 400; too many of them close.
    fn refuse(&mut self, id: Option<Id>, message: String, now: UnixNanos) -> Vec<Action> {
        let mut actions = vec![Action::Respond(Control::Error(ProtocolError::new(
            id,
            Code::BadRequest,
            message,
        )))];
        if self.faults().bad.strike(now, STRIKES_SPAN) > STRIKES_MAX {
            let message = format!(
                "more than {STRIKES_MAX} bad requests in {} s",
                STRIKES_SPAN.as_secs()
            );
            actions.push(close(Code::BadRequest, message));
        }
        actions
    }

    fn refuse_rate(&mut self, id: Option<Id>, wait: Duration, now: UnixNanos) -> Vec<Action> {
        let message = format!(
            "more than {} requests per second",
            self.limits.requests_per_s
        );
        let mut error = ProtocolError::new(id, Code::RateLimit, message);
        error.retry_ms = Some(wait.as_millis().max(1) as u64);
        let mut actions = vec![Action::Respond(Control::Error(error))];
        if self.faults().over_rate.strike(now, STRIKES_SPAN) > STRIKES_MAX {
            let message = format!(
                "more than {STRIKES_MAX} requests over the rate in {} s",
                STRIKES_SPAN.as_secs()
            );
            actions.push(close(Code::RateLimit, message));
        }
        actions
    }

    /// Gives memory back that nothing needs now.
    pub fn shrink(&mut self) {
        self.names.rest();
    }

    /// Limits of the client.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// True if a topic that appears could match a pattern of this client.
    pub fn has_patterns(&self) -> bool {
        self.names.has_patterns()
    }
}

/// The entry of a topic that is held, with the settings in force.
fn topic_entry(topic: TopicId, settings: Settings, view: View<'_>) -> Entry {
    let mut entry = Entry::new(view.visible().topic(topic).text.to_string(), settings);
    entry.epoch = Some(view.replica.epoch(topic).to_string());
    entry.seq = Some(view.replica.head(topic));
    entry
}

/// A close by this code; the client may come back unless it would do the same again.
fn close(code: Code, message: String) -> Action {
    let is_final = matches!(
        code,
        Code::BadRequest | Code::AuthRequired | Code::AuthFailed | Code::AuthTimeout
    );
    Action::Close(
        Bye {
            code: code.number(),
            message,
            reconnect: !is_final,
            after_ms: 1000,
        },
        code,
    )
}
