//! Client session: a sans-I/O state machine from requests to actions.
//!
//! A session owns the names that a client subscribed to and its budgets. It reads the replica and
//! returns an ordered list of [`Action`]s, which the shard executes.

mod appear;
mod authentication;
mod budget;
mod change;
mod response;
mod review;
mod slice;
mod subscribe;
mod subscription_set;
#[cfg(test)]
mod tests;
mod work;

pub use review::Review;

use std::sync::Arc;
use std::time::Duration;

pub use authentication::AuthState;

use crate::access::{Principal, Visible};
use crate::codec::decode_request;
use crate::log::{Replica, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{
    Bye, Code, Control, Encoding, Entry, Id, Limits, Op, Pong, ProtocolError, Request, Seq,
    Settings,
};
use authentication::Authentication;
use budget::{AbuseCounter, TokenBucket};
use change::{Listing, Modifying, Resyncing, Unsubscribing};
use slice::{Budget, SLICE};
use subscribe::Subscribing;
use subscription_set::SubscriptionSet;
use work::{Job, Work};

/// Bad requests, or requests over the rate, allowed in [`STRIKES_SPAN`]; one more closes the
/// connection.
const STRIKES_MAX: usize = 20;
const STRIKES_SPAN: Duration = Duration::from_secs(10);
/// Request bytes that cost as much of the rate limit as a request.
const BYTES_A_TOKEN: usize = 8 * 1024;
/// Size above which a request is decoded in its own slice.
const DECODED_ALONE_BYTES: usize = 4 * 1024;
/// Listed instruments that cost as much as a request; the list is sent in long parts as the socket
/// drains.
const INSTRUMENTS_A_TOKEN: usize = 512;

/// Start of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// With a snapshot of at most this many events.
    Snapshot(usize),
    /// With the next event.
    Live,
    /// With a snapshot of at most this many events that the client did not request: a new topic
    /// matches its pattern.
    Offered(usize),
    /// With a snapshot, because the resume position belongs to another epoch.
    Anew(usize),
    /// After this sequence number.
    Resume(Seq),
    /// Events after this number have expired: a gap, then a snapshot of at most this many events.
    Expired(Seq, usize),
}

/// Actions of the shard for a session, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a response, after earlier responses.
    Respond(Control),
    /// Send a notification, which the client did not request.
    Notify(Control),
    /// Subscribe to a topic.
    Subscribe(TopicId, Settings, Join),
    /// Change the settings of a subscribed topic.
    Modify(TopicId, Settings),
    /// Send a snapshot of a subscribed topic with at most this many events.
    Snapshot(TopicId, usize),
    /// Unsubscribe from a topic.
    Unsubscribe(TopicId),
    /// Send the ledger, after everything queued now.
    Ledger(Option<Id>),
    /// Send the instruments that match the pattern.
    Instruments(Option<Id>, String),
    /// Limit the size of further messages, in bytes.
    LimitMessages(u32),
    /// Check a token; the session waits for the outcome.
    Authenticate(String),
    /// Send `bye` and close.
    Close(Bye, Code),
}

/// Read access of a session to its connection and shard.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Current state of all topics.
    pub replica: &'a Replica,
    /// Identity of the client.
    pub principal: &'a Principal,
    /// Subscribed topics.
    pub held: &'a dyn Held,
    /// Time of this turn.
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
    /// Topics that are visible to the client.
    fn visible(&self) -> Visible<'a> {
        Visible::new(self.replica.catalog(), self.principal)
    }
}

/// Subscribed topics of a connection.
pub trait Held {
    /// True if the topic is subscribed.
    fn holds(&self, topic: TopicId) -> bool;
    /// Number of subscribed topics.
    fn count(&self) -> usize;
    /// All subscribed topics, in order.
    fn topics(&self) -> Vec<TopicId>;
}

/// Subscribed topics of a session without a shard.
#[cfg(any(test, feature = "internals"))]
impl Held for std::collections::BTreeSet<TopicId> {
    fn holds(&self, topic: TopicId) -> bool {
        self.contains(&topic)
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn topics(&self) -> Vec<TopicId> {
        self.iter().copied().collect()
    }
}

/// Result of reading a request.
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
enum Asked {
    /// Complete response.
    Answered(Vec<Action>),
    /// Response in slices.
    Work(Work),
}

impl From<Work> for Asked {
    fn from(work: Work) -> Self {
        Self::Work(work)
    }
}

/// State of one client. Kept small, because there are very many.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    names: SubscriptionSet,
    requests: TokenBucket,
    /// Remainder of a long request; the next request is handled after it.
    work: Option<Box<Job>>,
    /// Fault counters; `None` for a client without faults.
    faults: Option<Box<Faults>>,
    /// `None` for a client that need not authenticate and has not.
    auth: Option<Box<Authentication>>,
}

#[derive(Debug, Default)]
struct Faults {
    bad: AbuseCounter,
    over_rate: AbuseCounter,
}

impl Session {
    /// Starts a session.
    pub fn new(limits: Arc<Limits>, now: UnixNanos) -> Self {
        Self {
            requests: TokenBucket::full(limits.requests_per_s, now),
            limits,
            names: SubscriptionSet::default(),
            work: None,
            faults: None,
            auth: None,
        }
    }

    fn faults(&mut self) -> &mut Faults {
        self.faults.get_or_insert_default()
    }

    /// Handles one message of the client: while [`Self::is_busy`], [`Self::go_on`] continues it,
    /// and no other message is accepted.
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
            Ok(Request { id, op })
                if self.auth_state() == AuthState::Required
                    && !matches!(op, Op::Auth { .. } | Op::Ping { .. }) =>
            {
                Self::refuse_unauthenticated(id)
            }
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

    /// True if a request is only partly handled.
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Next part of the response to a long request. Each part after the first costs as much of the
    /// rate limit as a request.
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
            Op::Subscribe(subscribe) => Work::Subscribe(Subscribing::begin(id, subscribe)).into(),
            Op::Unsubscribe(asked) => {
                Work::Unsubscribe(Unsubscribing::begin(self, id, asked, view)).into()
            }
            Op::Modify { topics, wish } => Work::Modify(Modifying::begin(id, topics, wish)).into(),
            Op::Resync { topics } => Work::Resync(Resyncing::begin(id, topics)).into(),
            Op::Subscriptions => Work::List(Listing::begin(id, self)).into(),
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
            Op::Auth { token } => Asked::Answered(self.begin_check(id, token)),
        }
    }

    /// Responds with `error` 400; closes after too many.
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

    /// Releases unused memory.
    pub fn shrink(&mut self) {
        self.names.rest();
    }

    /// Limits of the client.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// True if a new topic could match a pattern of this client.
    pub fn has_patterns(&self) -> bool {
        self.names.has_patterns()
    }
}

/// Entry of a subscribed topic with its current settings.
fn topic_entry(topic: TopicId, settings: Settings, view: View<'_>) -> Entry {
    let mut entry = Entry::new(view.visible().topic(topic).text.to_string(), settings);
    entry.epoch = Some(view.replica.epoch(topic).to_string());
    entry.seq = Some(view.replica.head(topic));
    entry
}

/// Closes with this code; the client may reconnect unless the cause would recur.
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
