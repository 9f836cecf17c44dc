//! Review of a client's subscriptions after a change of its rights.

use std::collections::HashSet;
use std::sync::Arc;

use super::budget::TokenBucket;
use super::slice::{Budget, Pieces};
use super::{Action, Session, View};
use crate::access::{Name, Principal, Refused, Visible};
use crate::log::TopicId;
use crate::market::UnixNanos;
use crate::protocol::{Control, Limits, TopicsChange};

/// Review in progress: first ends the subscriptions that are no longer granted, then subscribes to
/// the newly granted topics of patterns.
#[derive(Debug)]
pub struct Review {
    /// Identity of the client before the change.
    before: Principal,
    held: std::vec::IntoIter<TopicId>,
    ended: HashSet<TopicId>,
    offered: HashSet<TopicId>,
    patterns: Option<Pieces>,
}

impl Session {
    /// Replaces the limits of the client; its topics are kept.
    pub fn set_limits(&mut self, limits: Arc<Limits>, now: UnixNanos) {
        if limits.requests_per_s != self.limits.requests_per_s {
            self.requests = TokenBucket::full(limits.requests_per_s, now);
        }
        self.limits = limits;
    }

    /// Begins a review of a client that was `before` until now; `None` if it has no subscriptions.
    pub fn begin_review(&self, before: Principal, view: View<'_>) -> Option<Review> {
        let held = view.held.topics();
        (self.has_patterns() || !held.is_empty()).then(|| Review {
            before,
            held: held.into_iter(),
            ended: HashSet::new(),
            offered: HashSet::new(),
            patterns: None,
        })
    }

    /// Executes a slice of a review; the second value is true after the last one.
    pub fn review(&mut self, review: &mut Review, view: View<'_>) -> (Vec<Action>, bool) {
        let mut budget = Budget::of_a_slice();
        if review.patterns.is_none() {
            return (self.end_refused(review, view, &mut budget), false);
        }
        self.offer_granted(review, view, &mut budget)
    }

    /// Ends the topics of one slice that are no longer granted; after the last slice the patterns
    /// whose mode is refused.
    fn end_refused(
        &mut self,
        review: &mut Review,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Vec<Action> {
        let visible = view.visible();
        let (mut actions, mut removed) = (Vec::new(), Vec::new());
        while !budget.is_spent()
            && let Some(topic) = review.held.next()
        {
            budget.spend(1);
            if !view.held.holds(topic) {
                continue;
            }
            if let Err(refused) = self.check_held(topic, visible) {
                self.names.remove(&Name::Topic(topic));
                review.ended.insert(topic);
                removed.push(refused.refusal(&visible.topic(topic).text));
                actions.push(Action::Unsubscribe(topic));
            }
        }
        if review.held.len() == 0 {
            let mut patterns = self.names.all();
            patterns.retain(|name| matches!(name, Name::Pattern(_)));
            patterns.retain(|name| {
                let settings = self.names.settings(name);
                let checked = settings.map_or(Ok(()), |held| visible.check_mode(held.mode));
                if let (Err(refused), Name::Pattern(pattern)) = (&checked, name) {
                    removed.push(refused.refusal(&pattern.to_string()));
                    self.names.remove(name);
                }
                checked.is_ok()
            });
            review.patterns = Some(Pieces::new(patterns));
        }
        if !removed.is_empty() {
            // Topics first: none of their events may follow the message that names them.
            actions.push(Action::Notify(Control::Topics(TopicsChange {
                added: Vec::new(),
                removed,
                err: Vec::new(),
                more: false,
            })));
        }
        actions
    }

    /// Checks whether the client may keep a topic with the settings in force.
    fn check_held<'a>(&self, topic: TopicId, visible: Visible<'a>) -> Result<(), Refused<'a>> {
        visible.check(&visible.topic(topic).topic)?;
        let in_force = self.names.in_force(topic, visible);
        in_force.map_or(Ok(()), |settings| visible.check_mode(settings.mode))
    }

    /// Subscribes to topics of patterns that the client may see only now.
    fn offer_granted(
        &mut self,
        review: &mut Review,
        view: View<'_>,
        budget: &mut Budget,
    ) -> (Vec<Action>, bool) {
        let Review {
            before,
            ended,
            offered,
            patterns,
            ..
        } = review;
        let Some(patterns) = patterns else {
            return (Vec::new(), false);
        };
        let was_visible = Visible::new(view.replica.catalog(), before);
        let is_new = |topic: &TopicId| {
            !view.held.holds(*topic) && (ended.contains(topic) || !was_visible.shows(*topic))
        };
        let mut new = Vec::new();
        while let Some((_, piece)) = patterns.next(budget, |name, budget| {
            let topics = name.topics(view.visible());
            budget.spend(topics.count() / super::slice::TOPICS_A_STEP);
            topics.iter().filter(is_new).collect()
        }) {
            new.extend(piece.into_iter().filter(|topic| offered.insert(*topic)));
        }
        let is_last = patterns.is_empty();
        (self.on_topics(new.into_iter(), view), is_last)
    }
}
