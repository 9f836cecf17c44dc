//! Requests that concern existing subscriptions.

use std::collections::HashSet;

use compact_str::CompactString;

use super::response::{Refused, TOPIC_ENDED, events_by_default, subscribed};
use super::slice::{Budget, Distinct, Pieces, Slice};
use super::subscription_set::subscribed_of;
use super::{Action, Session, View, topic_entry};
use crate::access::Name;
use crate::log::TopicId;
use crate::protocol::{
    Code, Control, DeliveryWish, Id, Mode, Refusal, Settings, Subscriptions, TopicsAsked,
    Unsubscribed,
};
use crate::topic::TopicName;

/// An `unsubscribe` in progress: first removes the names, then the topics that no other name
/// covers.
#[derive(Debug)]
pub(super) struct Unsubscribing {
    id: Option<Id>,
    texts: Distinct,
    removed: Vec<Name>,
    topics: Option<Pieces>,
    seen: HashSet<TopicId>,
}

impl Unsubscribing {
    pub(super) fn begin(
        session: &mut Session,
        id: Option<Id>,
        asked: TopicsAsked,
        view: View<'_>,
    ) -> Self {
        let (texts, topics) = match asked {
            TopicsAsked::All => {
                session.names.clear();
                let held = view.held.topics().into_iter().map(Name::Topic);
                (Vec::new(), Some(Pieces::new(held.collect())))
            }
            TopicsAsked::These(texts) => (texts, None),
        };
        Self {
            id,
            texts: Distinct::new(texts),
            removed: Vec::new(),
            topics,
            seen: HashSet::new(),
        }
    }

    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        let (mut err, mut ok, mut gone, mut actions) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while let Some(text) = self.texts.next(budget) {
            match session.held_name(&text, view) {
                Ok(name) => {
                    session.names.remove(&name);
                    self.removed.push(name);
                }
                Err(refusal) => err.push(refusal),
            }
        }
        if self.texts.is_empty() {
            let removed = &mut self.removed;
            let topics = self
                .topics
                .get_or_insert_with(|| Pieces::new(std::mem::take(removed)));
            while let Some((_, piece)) =
                topics.next(budget, |name, budget| subscribed_of(name, view, budget))
            {
                for topic in piece {
                    if !view.held.holds(topic) || !self.seen.insert(topic) {
                        continue;
                    }
                    match session.names.in_force(topic, view.visible()) {
                        Some(settings) => {
                            ok.push(topic_entry(topic, settings, view));
                            actions.push(Action::Modify(topic, settings));
                        }
                        None => {
                            gone.push(view.visible().topic(topic).text.to_string());
                            actions.push(Action::Unsubscribe(topic));
                        }
                    }
                }
            }
        }
        let is_last = self.topics.as_ref().is_some_and(Pieces::is_empty);
        if is_last || !(gone.is_empty() && ok.is_empty() && err.is_empty()) {
            let count = (view.held.count() - gone.len()) as u64;
            // Unsubscribes come first: no event of a topic follows the response that names it.
            actions.push(Action::Respond(Control::Unsubscribed(Unsubscribed {
                id: self.id.clone(),
                topics: gone,
                ok,
                err,
                count,
                more: !is_last,
            })));
        }
        Slice { actions, is_last }
    }
}

/// A `modify` in progress: all names are checked before the first changes.
#[derive(Debug)]
pub(super) struct Modifying {
    id: Option<Id>,
    texts: Distinct,
    wish: DeliveryWish,
    changed: Vec<(Name, Settings)>,
    err: Refused,
    topics: Option<Pieces>,
    seen: HashSet<TopicId>,
}

impl Modifying {
    pub(super) fn begin(id: Option<Id>, topics: Vec<CompactString>, wish: DeliveryWish) -> Self {
        Self {
            id,
            texts: Distinct::new(topics),
            wish,
            changed: Vec::new(),
            err: Refused::default(),
            topics: None,
            seen: HashSet::new(),
        }
    }

    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        while let Some(text) = self.texts.next(budget) {
            match session
                .held_name(&text, view)
                .and_then(|name| session.modified(&text, name, self.wish, view))
            {
                Ok((_, settings)) if settings.mode == Mode::Interval(0) => {
                    let message = "mode `interval` requires `interval_ms`: 10, 25, 50, 100, 250, 500, 1000 or 5000";
                    let actions = session.refuse(self.id.take(), message.into(), view.now);
                    return Slice {
                        actions,
                        is_last: true,
                    };
                }
                Ok(change) => self.changed.push(change),
                Err(refusal) => self.err.push(refusal),
            }
        }
        if !self.texts.is_empty() {
            return Slice {
                actions: Vec::new(),
                is_last: false,
            };
        }
        if self.topics.is_none() {
            // Topics may have ended since their names were checked.
            let visible = view.visible();
            let ended = self.changed.extract_if(.., |(name, settings)| {
                session.names.settings(name).is_none() || visible.check_mode(settings.mode).is_err()
            });
            for (name, _) in ended {
                if let Name::Topic(topic) = name {
                    let text = &*visible.topic(topic).text;
                    self.err
                        .push(Refusal::new(text, Code::UnknownTopic, TOPIC_ENDED));
                }
            }
        }
        let changed = &mut self.changed;
        let topics = self.topics.get_or_insert_with(|| {
            session.names.set_all(changed);
            Pieces::new(changed.drain(..).map(|(name, _)| name).collect())
        });
        let (mut ok, mut actions) = (Vec::new(), Vec::new());
        while let Some((name, piece)) =
            topics.next(budget, |name, budget| subscribed_of(name, view, budget))
        {
            ok.extend(session.names.entry(&name, &piece, view));
            for topic in piece {
                let in_force = session.names.in_force(topic, view.visible());
                if let (Some(settings), true) = (in_force, self.seen.insert(topic)) {
                    actions.push(Action::Modify(topic, settings));
                }
            }
        }
        let err = self.err.part();
        let is_last = topics.is_empty() && self.err.is_empty();
        let answer = subscribed(self.id.as_ref(), ok, err, view.held.count(), is_last);
        actions.splice(0..0, answer);
        Slice { actions, is_last }
    }
}

/// A `resync` in progress.
#[derive(Debug)]
pub(super) struct Resyncing {
    id: Option<Id>,
    texts: Distinct,
    names: Vec<Name>,
    topics: Option<Pieces>,
    seen: HashSet<TopicId>,
}

impl Resyncing {
    pub(super) fn begin(id: Option<Id>, topics: Vec<CompactString>) -> Self {
        Self {
            id,
            texts: Distinct::new(topics),
            names: Vec::new(),
            topics: None,
            seen: HashSet::new(),
        }
    }

    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        let (mut ok, mut err, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(text) = self.texts.next(budget) {
            match session
                .held_name(&text, view)
                .or_else(|refusal| held_topic(&text, view).ok_or(refusal))
            {
                Ok(name) => self.names.push(name),
                Err(refusal) => err.push(refusal),
            }
        }
        if self.texts.is_empty() {
            let names = &mut self.names;
            let topics = self
                .topics
                .get_or_insert_with(|| Pieces::new(std::mem::take(names)));
            while let Some((name, piece)) =
                topics.next(budget, |name, budget| subscribed_of(name, view, budget))
            {
                ok.extend(session.names.entry(&name, &piece, view));
                for topic in piece {
                    if self.seen.insert(topic) {
                        let channel = view.visible().topic(topic).topic.channel;
                        snapshots.push(Action::Snapshot(topic, events_by_default(channel)));
                    }
                }
            }
        }
        let is_last = self.topics.as_ref().is_some_and(Pieces::is_empty);
        let answer = subscribed(self.id.as_ref(), ok, err, view.held.count(), is_last);
        let actions = answer.into_iter().chain(snapshots).collect();
        Slice { actions, is_last }
    }
}

/// A `subscriptions` response in progress.
#[derive(Debug)]
pub(super) struct Listing {
    id: Option<Id>,
    names: Pieces,
}

impl Listing {
    pub(super) fn begin(id: Option<Id>, session: &Session) -> Self {
        Self {
            id,
            names: Pieces::new(session.names.all()),
        }
    }

    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        let mut ok = Vec::new();
        while let Some((name, piece)) = self
            .names
            .next(budget, |name, budget| subscribed_of(name, view, budget))
        {
            ok.extend(session.names.entry(&name, &piece, view));
        }
        let is_last = self.names.is_empty();
        let answer = Control::Subscriptions(Subscriptions {
            id: self.id.clone(),
            ok,
            count: view.held.count() as u64,
            more: !is_last,
        });
        Slice {
            actions: vec![Action::Respond(answer)],
            is_last,
        }
    }
}

impl Session {
    /// Subscription with this name, exactly as requested.
    fn held_name(&self, text: &str, view: View<'_>) -> Result<Name, Refusal> {
        let parsed = TopicName::parse(text)
            .map_err(|error| Refusal::new(text, Code::UnknownTopic, error.to_string()))?;
        let resolved = match parsed {
            // A pattern remains held when the right to its topics ends.
            TopicName::Pattern(pattern) => Name::Pattern(pattern),
            topic @ TopicName::Topic(_) => view
                .visible()
                .resolve(topic)
                .map_err(|refused| refused.refusal(text))?,
        };
        let name = Some(resolved).filter(|name| self.names.settings(name).is_some());
        name.ok_or_else(|| {
            Refusal::new(
                text,
                Code::UnknownTopic,
                "no subscription with this name; `subscriptions` lists all",
            )
        })
    }

    fn modified(
        &self,
        text: &str,
        name: Name,
        wish: DeliveryWish,
        view: View<'_>,
    ) -> Result<(Name, Settings), Refusal> {
        let held = self
            .names
            .settings(&name)
            .expect("only held names are modified");
        let settings = held
            .with(wish, name.channel(view.visible()))
            .map_err(|refused| Refusal::new(text, Code::ModeRefused, refused.to_string()))?;
        // An interval without its length is an error of the whole request.
        if settings.mode != Mode::Interval(0) {
            let checked = view.visible().check_mode(settings.mode);
            checked.map_err(|refused| refused.refusal(text))?;
        }
        Ok((name, settings))
    }
}

/// Subscribed topic, by any name.
fn held_topic(text: &str, view: View<'_>) -> Option<Name> {
    let TopicName::Topic(topic) = TopicName::parse(text).ok()? else {
        return None;
    };
    view.visible()
        .find(&topic)
        .filter(|topic| view.held.holds(*topic))
        .map(Name::Topic)
}
