//! `subscribe`: checks the names, then the resume positions, then subscribes topic by topic.

use std::collections::{HashMap, HashSet};

use compact_str::CompactString;

use super::response::{Refused, TOPIC_ENDED, events_by_default, subscribed};
use super::slice::{Budget, Distinct, Pieces, Slice, TOPICS_A_STEP, TextIndex};
use super::subscription_set::{PatternMap, SubscriptionSet};
use super::{Action, Join, Session, View};
use crate::access::Name;
use crate::log::{TopicId, is_snapshot_sized};
use crate::protocol::{
    Code, Control, DeliveryWish, Entry, Epoch, Id, MESSAGE_BYTES_MAX, Mode, Refusal, Seq, Settings,
    SnapshotWish, Subscribe,
};
use crate::topic::{Channel, TopicName, TopicPattern};

/// A validated name of the request.
#[derive(Debug)]
struct Asked {
    name: Name,
    settings: Settings,
}

/// Subscriptions that a request adds.
#[derive(Debug, Default)]
struct Added {
    topics: HashSet<TopicId>,
    patterns: usize,
}

/// Resume position of the client in each topic, and the search for names in `from.seqs` that
/// `topics` does not cover.
#[derive(Debug)]
struct Places {
    left: std::vec::IntoIter<(CompactString, Seq)>,
    epoch: String,
    /// Topics of another epoch, with that epoch; the first ones are in the index.
    epochs: Vec<(CompactString, CompactString)>,
    epochs_indexed: usize,
    epoch_index: TextIndex,
    /// Requested names that were not refused; built once all are known.
    covering: Option<SubscriptionSet>,
    refused: PatternMap<()>,
    seqs: HashMap<TopicId, (Seq, Option<Epoch>)>,
}

impl Places {
    fn are_checked(&self) -> bool {
        self.left.len() == 0 && self.epochs_indexed == self.epochs.len()
    }

    /// Epoch of the client in a topic.
    fn epoch(&self, topic: &str) -> &str {
        let found = self.epoch_index.find(topic, |at| &self.epochs[at].0);
        found.map_or(&self.epoch, |at| &self.epochs[at].1)
    }
}

/// Outcome of a slice for its topics.
#[derive(Debug, Default)]
struct Taken {
    ok: Vec<Entry>,
    joins: Vec<Action>,
    /// Number of topics that the slice added.
    holds: usize,
}

/// A `subscribe` in progress.
#[derive(Debug)]
pub(super) struct Subscribing {
    id: Option<Id>,
    texts: Distinct,
    wish: DeliveryWish,
    snapshot: Option<SnapshotWish>,
    atomic: bool,
    /// Max message size from the first part of the response on, in bytes.
    max_message: Option<u64>,
    asked: Vec<(CompactString, Asked)>,
    err: Refused,
    added: Added,
    places: Option<Places>,
    /// Topics to subscribe; set once the names have been added to the session.
    topics: Option<Pieces>,
    done: HashSet<TopicId>,
    recovered: HashMap<TopicId, bool>,
}

impl Subscribing {
    pub(super) fn begin(id: Option<Id>, request: Subscribe) -> Self {
        let places = request.from.map(|from| Places {
            left: from.seqs.into_iter(),
            epoch: from.epoch,
            epoch_index: TextIndex::with_capacity(from.epochs.len()),
            epochs_indexed: 0,
            epochs: from.epochs,
            covering: None,
            refused: PatternMap::default(),
            seqs: HashMap::new(),
        });
        Self {
            id,
            texts: Distinct::new(request.topics),
            wish: request.wish,
            snapshot: request.snapshot,
            atomic: request.atomic,
            max_message: request
                .max_message
                .map(|bytes| bytes.min(MESSAGE_BYTES_MAX as u64)),
            asked: Vec::new(),
            err: Refused::default(),
            added: Added::default(),
            places,
            topics: None,
            done: HashSet::new(),
            recovered: HashMap::new(),
        }
    }

    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        self.check_names(session, view, budget);
        if self.texts.is_empty() {
            self.check_places(view, budget);
        }
        let is_checked =
            self.texts.is_empty() && self.places.as_ref().is_none_or(Places::are_checked);
        if is_checked && self.topics.is_none() {
            self.commit(session, view);
        }
        let mut taken = Taken::default();
        if let Some(mut topics) = self.topics.take() {
            while let Some((name, piece)) = topics.next(budget, |name, _| {
                name.topics(view.visible()).iter().collect()
            }) {
                self.take_up(&name, piece, session, view, &mut taken);
            }
            self.topics = Some(topics);
        }
        // The outcome of an atomic request is known only at its end.
        let err = if self.atomic && self.topics.is_none() {
            Vec::new()
        } else {
            self.err.part()
        };
        let is_done = self.topics.as_ref().is_some_and(Pieces::is_empty);
        let is_last = is_done && self.err.is_empty();
        let count = view.held.count() + taken.holds;
        let mut answer = subscribed(self.id.as_ref(), taken.ok, err, count, is_last);
        if let Some(Action::Respond(Control::Subscribed(part))) = &mut answer {
            part.max_message = self.max_message;
        }
        // Sent before the first part of the response; repeating it does no harm.
        let limit = self.max_message.filter(|_| answer.is_some());
        let limit = limit.map(|bytes| Action::LimitMessages(bytes as u32));
        let actions = limit.into_iter().chain(answer).chain(taken.joins).collect();
        Slice { actions, is_last }
    }

    fn check_names(&mut self, session: &Session, view: View<'_>, budget: &mut Budget) {
        let mut refused = Vec::new();
        while let Some(text) = self.texts.next(budget) {
            let mut pattern = None;
            let checked = session
                .ask(&text, self, view, &mut pattern)
                .and_then(|one| session.within_limit(&text, one, &mut self.added, view, budget));
            match checked {
                Ok(one) => self.asked.push((text, one)),
                Err(refusal) => {
                    self.err.push(refusal);
                    refused.extend(pattern.map(|pattern| (pattern, ())));
                }
            }
        }
        if let Some(places) = &mut self.places {
            places.refused.extend(refused);
        }
    }

    fn check_places(&mut self, view: View<'_>, budget: &mut Budget) {
        let Some(places) = &mut self.places else {
            return;
        };
        while !budget.is_spent() && places.epochs_indexed < places.epochs.len() {
            budget.spend(1);
            let epochs = &places.epochs;
            places
                .epoch_index
                .add(places.epochs_indexed, |at| &epochs[at].0);
            places.epochs_indexed += 1;
        }
        let asked = &self.asked;
        places.covering.get_or_insert_with(|| {
            let mut covering = SubscriptionSet::default();
            let names: Vec<_> = asked
                .iter()
                .map(|(_, one)| (one.name.clone(), one.settings))
                .collect();
            covering.set_all(&names);
            covering
        });
        while !budget.is_spent()
            && let Some((text, seq)) = places.left.next()
        {
            budget.spend(1);
            let topic = match TopicName::parse(&text) {
                Ok(TopicName::Topic(topic)) => Some(topic),
                _ => None,
            };
            let covers = |topic: &TopicId| {
                let covering = places.covering.as_ref();
                covering.is_some_and(|names| names.in_force(*topic, view.visible()).is_some())
            };
            let known = topic.as_ref().and_then(|topic| view.visible().find(topic));
            if let Some(known) = known.filter(covers) {
                let epoch = Epoch::parse(places.epoch(&text));
                places.seqs.insert(known, (seq, epoch));
                continue;
            }
            let was_refused = self.texts.had(&text)
                || topic
                    .as_ref()
                    .is_some_and(|topic| places.refused.longest(topic).is_some());
            if was_refused {
                continue;
            }
            let denied = topic.and_then(|topic| view.visible().check(&topic).err());
            let message = "named in `from.seqs`, but not covered by `topics`";
            self.err.push(denied.map_or_else(
                || Refusal::new(&*text, Code::UnknownTopic, message),
                |refused| refused.refusal(&text),
            ));
        }
    }

    /// Adds all checked names to the session, unless an atomic request has a refused name.
    fn commit(&mut self, session: &mut Session, view: View<'_>) {
        let mut asked = std::mem::take(&mut self.asked);
        let visible = view.visible();
        // The rights of the client may have changed since the names were checked.
        asked.retain(|(text, one)| {
            let checked = match &one.name {
                Name::Topic(topic) => visible.check(&visible.topic(*topic).topic),
                Name::Pattern(_) => Ok(()),
            };
            let checked = checked.and_then(|()| visible.check_mode(one.settings.mode));
            let refusal = checked.map_err(|refused| refused.refusal(text));
            refusal.map_err(|refusal| self.err.push(refusal)).is_ok()
        });
        if self.atomic && !self.err.is_empty() {
            let others = asked
                .into_iter()
                .map(|(text, _)| Refusal::new(text, Code::Atomic, "another topic was refused"));
            self.err.extend(others);
            self.topics = Some(Pieces::new(Vec::new()));
            return;
        }
        let names: Vec<_> = asked
            .into_iter()
            .map(|(_, one)| (one.name, one.settings))
            .collect();
        session.names.set_all(&names);
        self.topics = Some(Pieces::new(
            names.into_iter().map(|(name, _)| name).collect(),
        ));
    }

    /// Subscribes or modifies the topics of a name, and lists it.
    fn take_up(
        &mut self,
        name: &Name,
        mut piece: Vec<TopicId>,
        session: &mut Session,
        view: View<'_>,
        taken: &mut Taken,
    ) {
        // A topic may have ended since the name was checked.
        piece.retain(|topic| view.visible().shows(*topic));
        if let (Name::Topic(topic), true) = (name, piece.is_empty()) {
            session.names.remove(name);
            let text = &*view.visible().topic(*topic).text;
            self.err
                .push(Refusal::new(text, Code::UnknownTopic, TOPIC_ENDED));
            return;
        }
        let mut room =
            (session.limits.topics as usize).saturating_sub(view.held.count() + taken.holds);
        // Already checked for most names; a pattern that was already subscribed may match more
        // topics than the limit allows.
        piece.retain(|topic| {
            let is_held = view.held.holds(*topic) || self.done.contains(topic);
            let fits = is_held || room > 0;
            room -= usize::from(fits && !is_held);
            fits
        });
        if let (Name::Topic(topic), true) = (name, piece.is_empty()) {
            // New topics of its patterns have used the remaining limit since the check.
            session.names.remove(name);
            let text = &*view.visible().topic(*topic).text;
            self.err.push(session.over_limit(text, view));
            return;
        }
        for topic in &piece {
            if self.done.insert(*topic) {
                self.join(*topic, session, view, taken);
            }
        }
        let Some(mut entry) = session.names.entry(name, &piece, view) else {
            return;
        };
        if !self.recovered.is_empty() {
            let recovered = |topic: &TopicId| self.recovered.get(topic).copied();
            match &mut entry.matched {
                None => entry.recovered = piece.first().and_then(recovered),
                // Each topic of an accepted name has its entry.
                Some(matched) => matched
                    .iter_mut()
                    .zip(&piece)
                    .for_each(|(entry, topic)| entry.recovered = recovered(topic)),
            }
        }
        taken.ok.push(entry);
    }

    /// Subscribes to one topic or changes its settings.
    fn join(&mut self, topic: TopicId, session: &Session, view: View<'_>, taken: &mut Taken) {
        let Some(settings) = session.names.in_force(topic, view.visible()) else {
            return;
        };
        let events = match self.snapshot {
            Some(SnapshotWish::Events(events)) => events as usize,
            _ => events_by_default(view.visible().topic(topic).topic.channel),
        };
        if view.held.holds(topic) {
            taken.joins.push(Action::Modify(topic, settings));
            if matches!(
                self.snapshot,
                Some(SnapshotWish::Yes | SnapshotWish::Events(_))
            ) {
                taken.joins.push(Action::Snapshot(topic, events));
            }
            return;
        }
        let place = self
            .places
            .as_ref()
            .and_then(|places| places.seqs.get(&topic));
        let join = match place {
            None if self.snapshot == Some(SnapshotWish::No) => Join::Live,
            None => Join::Snapshot(events),
            Some((seq, epoch)) => {
                let join = resume(topic, *seq, *epoch, settings.mode, events, view);
                let is_recovered = matches!(join, Join::Resume(_));
                self.recovered.insert(topic, is_recovered);
                join
            }
        };
        taken.holds += 1;
        taken.joins.push(Action::Subscribe(topic, settings, join));
    }
}

impl Session {
    /// Resolves a name and checks its options; `pattern` is set if the name is a pattern.
    fn ask(
        &self,
        text: &str,
        request: &Subscribing,
        view: View<'_>,
        pattern: &mut Option<TopicPattern>,
    ) -> Result<Asked, Refusal> {
        let parsed = TopicName::parse(text)
            .map_err(|error| Refusal::new(text, Code::UnknownTopic, error.to_string()))?;
        let channel = match &parsed {
            TopicName::Topic(topic) => topic.channel,
            TopicName::Pattern(one) => {
                *pattern = Some(one.clone());
                one.channel
            }
        };
        let visible = view.visible();
        let settings = visible
            .default_settings(channel)
            .with(request.wish, channel)
            .map_err(|refused| Refusal::new(text, Code::ModeRefused, refused.to_string()))?;
        self.check_snapshot(text, channel, request.snapshot)?;
        let name = visible
            .resolve(parsed)
            .map_err(|refused| refused.refusal(text))?;
        visible
            .check_mode(settings.mode)
            .map_err(|refused| refused.refusal(text))?;
        Ok(Asked { name, settings })
    }

    fn check_snapshot(
        &self,
        text: &str,
        channel: Channel,
        wish: Option<SnapshotWish>,
    ) -> Result<(), Refusal> {
        let Some(SnapshotWish::Events(events)) = wish else {
            return Ok(());
        };
        let refuse = |message: String| Err(Refusal::new(text, Code::BadRequest, message));
        if !is_snapshot_sized(channel.kind()) {
            return refuse(format!(
                "`snapshot` of {} must be true or false; a number of events is for trade and bar",
                channel.name()
            ));
        }
        if events > self.limits.snapshot_events {
            return refuse(format!(
                "`snapshot` must be from 1 to {} events",
                self.limits.snapshot_events
            ));
        }
        Ok(())
    }

    fn over_limit(&self, text: &str, view: View<'_>) -> Refusal {
        let message = format!(
            "exceeds the limit of {} topics; {} are subscribed",
            self.limits.topics,
            view.held.count()
        );
        Refusal::new(text, Code::TopicLimit, message)
    }

    fn within_limit(
        &self,
        text: &str,
        one: Asked,
        added: &mut Added,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Result<Asked, Refusal> {
        let is_held = self.names.settings(&one.name).is_some();
        let is_pattern = matches!(one.name, Name::Pattern(_));
        if is_held && is_pattern {
            // Existing subscriptions remain; the pattern may match more topics by now than the
            // limit allows.
            return Ok(one);
        }
        let room =
            (self.limits.topics as usize).saturating_sub(view.held.count() + added.topics.len());
        let mut new = Vec::new();
        for (at, topic) in one.name.topics(view.visible()).iter().enumerate() {
            if at % TOPICS_A_STEP == TOPICS_A_STEP - 1 {
                budget.spend(1);
            }
            if !added.topics.contains(&topic) && !view.held.holds(topic) {
                if new.len() == room {
                    return Err(self.over_limit(text, view));
                }
                new.push(topic);
            }
        }
        if is_pattern {
            // Patterns cost memory and time even if they match nothing.
            if self.names.patterns() + added.patterns >= self.limits.topics as usize {
                let message = format!("exceeds the limit of {} patterns", self.limits.topics);
                return Err(Refusal::new(text, Code::TopicLimit, message));
            }
            added.patterns += 1;
        }
        added.topics.extend(new);
        Ok(one)
    }
}

/// Resumes a topic after event `seq` of `epoch`.
fn resume(
    topic: TopicId,
    seq: Seq,
    epoch: Option<Epoch>,
    mode: Mode,
    events: usize,
    view: View<'_>,
) -> Join {
    let replica = view.replica;
    if epoch != Some(replica.epoch(topic)) || seq > replica.head(topic) {
        return Join::Anew(events);
    }
    if replica.can_resume(topic, seq, mode != Mode::Raw) {
        Join::Resume(seq)
    } else {
        Join::Expired(seq, events)
    }
}
