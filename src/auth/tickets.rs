//! One-use tickets for browsers, which cannot set a header on a WebSocket handshake.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use super::grant::Grant;
use super::refused::Refused;
use crate::market::UnixNanos;

/// Random bytes of a ticket.
const TICKET_BYTES: usize = 32;
/// Unused tickets of one subject.
const OF_A_SUBJECT_MAX: usize = 256;

type Digested = [u8; 32];

/// Unused tickets, by the hash of their text: a lookup reveals nothing about others.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    issued: HashMap<Digested, Ticket>,
    /// Order of issue, with the end of each; used ones are skipped.
    order: VecDeque<(UnixNanos, Digested)>,
    of_subject: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Ticket {
    grant: Grant,
    origin: Option<Box<str>>,
    ends: UnixNanos,
}

fn digest(text: &str) -> Digested {
    Sha256::digest(text.as_bytes()).into()
}

impl Tickets {
    /// Issues a ticket for an origin; `None`: for a program, which sends no origin. `max` bounds
    /// the unused tickets of all subjects.
    pub(super) fn issue(
        &mut self,
        grant: Grant,
        origin: Option<&str>,
        lifetime: Duration,
        max: usize,
        now: UnixNanos,
    ) -> Result<(String, UnixNanos), Refused> {
        self.drop_ended(now);
        if self.order.len() >= 2 * max {
            self.order.retain(|(_, key)| self.issued.contains_key(key));
        }
        let of_subject = self.of_subject.get(&grant.subject).copied();
        let held = of_subject.unwrap_or(0);
        if self.issued.len() >= max || held >= OF_A_SUBJECT_MAX {
            return Err(Refused::Busy);
        }
        let text = BASE64URL_NOPAD.encode(&rand::random::<[u8; TICKET_BYTES]>());
        let ends = now.plus(lifetime);
        let key = digest(&text);
        self.of_subject.insert(Arc::clone(&grant.subject), held + 1);
        self.order.push_back((ends, key));
        self.issued.insert(
            key,
            Ticket {
                grant,
                origin: origin.map(Into::into),
                ends,
            },
        );
        Ok((text, ends))
    }

    /// Redeems a ticket; it is used up, also by a request of another origin.
    pub(super) fn redeem(
        &mut self,
        text: &str,
        origin: Option<&str>,
        now: UnixNanos,
    ) -> Result<Grant, Refused> {
        let ticket = self.take(&digest(text)).ok_or(Refused::Ticket)?;
        let is_valid = ticket.ends > now
            && ticket.origin.as_deref() == origin
            && ticket.grant.expires.is_none_or(|expires| expires > now);
        is_valid.then_some(ticket.grant).ok_or(Refused::Ticket)
    }

    fn take(&mut self, key: &Digested) -> Option<Ticket> {
        let ticket = self.issued.remove(key)?;
        if let Some(held) = self.of_subject.get_mut(&ticket.grant.subject) {
            *held -= 1;
            if *held == 0 {
                self.of_subject.remove(&ticket.grant.subject);
            }
        }
        Some(ticket)
    }

    fn drop_ended(&mut self, now: UnixNanos) {
        // A reload may shorten the lifetime: a used ticket leaves the order with its successors.
        while let Some((ends, key)) = self.order.front().copied()
            && (ends <= now || !self.issued.contains_key(&key))
        {
            self.order.pop_front();
            self.take(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize, usize) {
        (self.issued.len(), self.order.len(), self.of_subject.len())
    }
}
