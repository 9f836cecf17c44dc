//! The requests that change what is held.

use std::collections::{HashMap, HashSet};

use super::names::Name;
use super::{Action, Join, Session, View, topic_entry};
use crate::bus::TopicId;
use crate::protocol::{
    Code, Control, DeliveryWish, Epoch, From, Id, Mode, Refusal, Settings, SnapshotWish, Subscribe,
    Subscribed, TopicsAsked, TopicsChange, Unsubscribed,
};
use crate::replica::SNAPSHOT_TRADES;
use crate::topic::{Channel, Kind, Topic, TopicName};

/// A name of a request that nothing speaks against.
struct Asked {
    name: Name,
    settings: Settings,
    events: usize,
}

/// What a request adds to what is held.
#[derive(Default)]
struct Fresh {
    topics: HashSet<TopicId>,
    patterns: usize,
}

/// The client's own place in each topic, by number.
struct Places {
    seqs: HashMap<TopicId, (u64, Option<Epoch>)>,
}

impl Places {
    fn read(from: &From, view: View<'_>) -> (Self, Vec<String>) {
        let epochs: HashMap<&str, &str> = from
            .epochs
            .iter()
            .map(|(topic, epoch)| (topic.as_str(), epoch.as_str()))
            .collect();
        let (mut seqs, mut unknown) = (HashMap::new(), Vec::new());
        for (text, seq) in &from.seqs {
            let topic = match TopicName::parse(text) {
                Ok(TopicName::Topic(topic)) => view.catalog().find(&topic),
                _ => None,
            };
            let epoch = Epoch::parse(epochs.get(text.as_str()).copied().unwrap_or(&from.epoch));
            match topic {
                Some(topic) => _ = seqs.insert(topic, (*seq, epoch)),
                None => unknown.push(text.clone()),
            }
        }
        (Self { seqs }, unknown)
    }
}

/// How many events a snapshot holds where the request doesn't say.
const fn events_by_default(channel: Channel) -> usize {
    match channel.kind() {
        Kind::Event => SNAPSHOT_TRADES,
        Kind::State | Kind::Bar => 1,
    }
}

/// Each name once, in order.
fn distinct(topics: &[String]) -> impl Iterator<Item = &String> {
    let mut seen = HashSet::new();
    topics.iter().filter(move |text| seen.insert(text.as_str()))
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: Option<Id>,
        request: &Subscribe,
        view: View<'_>,
    ) -> Vec<Action> {
        let (mut asked, mut err) = (Vec::new(), Vec::new());
        let mut fresh = Fresh::default();
        for text in distinct(&request.topics) {
            match self
                .ask(text, request, view)
                .and_then(|one| self.within_limit(text, one, &mut fresh, view))
            {
                Ok(one) => asked.push((text, one)),
                Err(refusal) => err.push(refusal),
            }
        }
        let places = request
            .from
            .as_ref()
            .map(|from| Self::places(from, &asked, &mut err, view));
        if request.atomic && !err.is_empty() {
            let others = asked.iter().map(|(text, _)| {
                Refusal::new(text.as_str(), Code::Atomic, "another topic was refused")
            });
            err.extend(others);
            asked.clear();
        }
        self.names.reserve(asked.len());
        for (_, one) in &asked {
            self.names.set(one.name.clone(), one.settings);
        }
        let mut actions = Vec::new();
        let mut recovered = HashMap::new();
        let mut done = HashSet::new();
        for (_, one) in &asked {
            for topic in one.name.topics(view.catalog()) {
                if done.insert(*topic) {
                    let joins = self.join(
                        *topic,
                        one.events,
                        request.snapshot,
                        places.as_ref(),
                        &mut recovered,
                        view,
                    );
                    actions.extend(joins);
                }
            }
        }
        let mut ok: Vec<_> = asked
            .iter()
            .filter_map(|(_, one)| self.names.entry(&one.name, view))
            .collect();
        if !recovered.is_empty() {
            let text = |topic: &TopicId| &*view.catalog().topic(*topic).text;
            let recovered: HashMap<&str, bool> = recovered
                .iter()
                .map(|(topic, yes)| (text(topic), *yes))
                .collect();
            for entry in &mut ok {
                entry.recovered = recovered.get(entry.topic.as_str()).copied();
                for entry in entry.matched.iter_mut().flatten() {
                    entry.recovered = recovered.get(entry.topic.as_str()).copied();
                }
            }
        }
        let held = actions
            .iter()
            .filter(|action| matches!(action, Action::Hold(..)))
            .count();
        let count = (view.held.count() + held) as u64;
        actions.insert(
            0,
            Action::Answer(Control::Subscribed(Subscribed {
                id,
                ok,
                err,
                count,
                more: false,
            })),
        );
        actions
    }

    /// Resolves a name and checks what is asked of it.
    fn ask(&self, text: &str, request: &Subscribe, view: View<'_>) -> Result<Asked, Refusal> {
        let parsed = TopicName::parse(text)
            .map_err(|error| Refusal::new(text, Code::UnknownTopic, error.to_string()))?;
        let channel = match &parsed {
            TopicName::Topic(topic) => topic.channel,
            TopicName::Pattern(pattern) => pattern.channel,
        };
        let settings = Settings::default_of(channel)
            .with(request.wish, channel)
            .map_err(|refused| Refusal::new(text, Code::ModeRefused, refused.to_string()))?;
        let events = self.snapshot_events(text, channel, request.snapshot)?;
        let name = Name::resolve(parsed.clone(), view.catalog())
            .ok_or_else(|| unknown_topic(text, &parsed, view))?;
        Ok(Asked {
            name,
            settings,
            events,
        })
    }

    fn snapshot_events(
        &self,
        text: &str,
        channel: Channel,
        wish: Option<SnapshotWish>,
    ) -> Result<usize, Refusal> {
        let Some(SnapshotWish::Events(events)) = wish else {
            return Ok(events_by_default(channel));
        };
        let refuse = |message: String| Err(Refusal::new(text, Code::BadRequest, message));
        if channel.kind() == Kind::State {
            return refuse(format!(
                "`snapshot` of {} takes true or false; how many events is for trade and bar",
                channel.name()
            ));
        }
        if events > self.limits.snapshot_events {
            return refuse(format!(
                "`snapshot` must be from 1 to {} events",
                self.limits.snapshot_events
            ));
        }
        Ok(events as usize)
    }

    fn within_limit(
        &self,
        text: &str,
        one: Asked,
        fresh: &mut Fresh,
        view: View<'_>,
    ) -> Result<Asked, Refusal> {
        let topics = one.name.topics(view.catalog());
        let room =
            (self.limits.topics as usize).saturating_sub(view.held.count() + fresh.topics.len());
        let new: Vec<_> = topics
            .iter()
            .filter(|topic| !fresh.topics.contains(topic) && !view.held.holds(**topic))
            .take(room + 1)
            .copied()
            .collect();
        if new.len() > room {
            let message = format!(
                "would pass the limit of {} topics; {} are held",
                self.limits.topics,
                view.held.count()
            );
            return Err(Refusal::new(text, Code::TopicLimit, message));
        }
        if matches!(one.name, Name::Pattern(_)) && self.names.settings(&one.name).is_none() {
            // Patterns cost memory and time even where they match nothing.
            if self.names.patterns() + fresh.patterns >= self.limits.topics as usize {
                let message = format!("would pass the limit of {} patterns", self.limits.topics);
                return Err(Refusal::new(text, Code::TopicLimit, message));
            }
            fresh.patterns += 1;
        }
        fresh.topics.extend(new);
        Ok(one)
    }

    fn places(
        from: &From,
        asked: &[(&String, Asked)],
        err: &mut Vec<Refusal>,
        view: View<'_>,
    ) -> Places {
        let (places, unknown) = Places::read(from, view);
        let covered: HashSet<TopicId> = asked
            .iter()
            .flat_map(|(_, one)| one.name.topics(view.catalog()))
            .copied()
            .collect();
        let refused: HashSet<&str> = err.iter().map(|refusal| refusal.topic.as_str()).collect();
        let stray = places.seqs.keys().filter(|topic| !covered.contains(topic));
        let stray = stray
            .map(|topic| view.catalog().topic(*topic).text.to_string())
            .chain(unknown);
        let by_pattern = |topic: &Topic| {
            let patterns = refused
                .iter()
                .filter_map(|text| TopicName::parse(text).ok());
            patterns
                .into_iter()
                .any(|name| matches!(name, TopicName::Pattern(pattern) if pattern.matches(topic)))
        };
        let was_refused = |text: &str| {
            refused.contains(text)
                || matches!(TopicName::parse(text), Ok(TopicName::Topic(topic)) if by_pattern(&topic))
        };
        let mut stray: Vec<_> = stray.filter(|text| !was_refused(text)).collect();
        stray.sort();
        let message = "named in `from.seqs`, but not covered by `topics`";
        err.extend(
            stray
                .into_iter()
                .map(|text| Refusal::new(text, Code::UnknownTopic, message)),
        );
        places
    }

    /// What is to be done for one topic of a `subscribe`.
    fn join(
        &self,
        topic: TopicId,
        events: usize,
        wish: Option<SnapshotWish>,
        places: Option<&Places>,
        recovered: &mut HashMap<TopicId, bool>,
        view: View<'_>,
    ) -> Vec<Action> {
        let Some(settings) = self.names.in_force(topic, view.catalog()) else {
            return Vec::new();
        };
        if view.held.holds(topic) {
            let mut actions = vec![Action::Set(topic, settings)];
            if matches!(wish, Some(SnapshotWish::Yes | SnapshotWish::Events(_))) {
                actions.push(Action::Snapshot(topic, events));
            }
            return actions;
        }
        let fresh = if wish == Some(SnapshotWish::No) {
            Join::Live
        } else {
            Join::Snapshot(events)
        };
        let join = match places.and_then(|places| places.seqs.get(&topic)) {
            None => fresh,
            Some((seq, epoch)) => {
                let join = resume(topic, *seq, *epoch, settings.mode, events, view);
                recovered.insert(topic, matches!(join, Join::Resume(_)));
                join
            }
        };
        vec![Action::Hold(topic, settings, join)]
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: Option<Id>,
        asked: TopicsAsked,
        view: View<'_>,
    ) -> Vec<Action> {
        let mut err = Vec::new();
        let mut touched: Vec<TopicId> = Vec::new();
        match asked {
            TopicsAsked::All => {
                touched = view.held.topics();
                self.names.clear();
            }
            TopicsAsked::These(topics) => {
                for text in distinct(&topics) {
                    match self.held_name(text, view) {
                        Ok(name) => {
                            self.names.remove(&name);
                            touched.extend_from_slice(name.topics(view.catalog()));
                        }
                        Err(refusal) => err.push(refusal),
                    }
                }
            }
        }
        let (mut gone, mut ok, mut actions) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for topic in touched {
            if !view.held.holds(topic) || !seen.insert(topic) {
                continue;
            }
            match self.names.in_force(topic, view.catalog()) {
                Some(settings) => {
                    ok.push(topic_entry(topic, settings, view));
                    actions.push(Action::Set(topic, settings));
                }
                None => {
                    gone.push(view.catalog().topic(topic).text.to_string());
                    actions.push(Action::Drop(topic));
                }
            }
        }
        let count = (view.held.count() - gone.len()) as u64;
        let answer = Unsubscribed {
            id,
            topics: gone,
            ok,
            err,
            count,
            more: false,
        };
        // The drops come first: no event of a topic follows the answer that names it.
        actions.push(Action::Answer(Control::Unsubscribed(answer)));
        actions
    }

    /// The subscription of that name, in the words it was made with.
    fn held_name(&self, text: &str, view: View<'_>) -> Result<Name, Refusal> {
        let parsed = TopicName::parse(text)
            .map_err(|error| Refusal::new(text, Code::UnknownTopic, error.to_string()))?;
        let resolved = Name::resolve(parsed.clone(), view.catalog())
            .ok_or_else(|| unknown_topic(text, &parsed, view))?;
        let name = Some(resolved).filter(|name| self.names.settings(name).is_some());
        name.ok_or_else(|| {
            Refusal::new(
                text,
                Code::UnknownTopic,
                "not held under this name; `subscriptions` lists what is",
            )
        })
    }

    pub(super) fn modify(
        &mut self,
        id: Option<Id>,
        topics: Vec<String>,
        wish: DeliveryWish,
        view: View<'_>,
    ) -> Vec<Action> {
        let (mut changed, mut err) = (Vec::new(), Vec::new());
        for text in distinct(&topics) {
            match self
                .held_name(text, view)
                .and_then(|name| self.modified(text, name, wish, view))
            {
                Ok((
                    _,
                    Settings {
                        mode: Mode::Interval(0),
                        ..
                    },
                )) => {
                    let message = "mode `interval` needs `interval_ms`: 10, 25, 50, 100, 250, 500, 1000 or 5000";
                    return self.refuse(id, message.into(), view.now);
                }
                Ok(change) => changed.push(change),
                Err(refusal) => err.push(refusal),
            }
        }
        let mut actions = Vec::new();
        for (name, settings) in &changed {
            self.names.set(name.clone(), *settings);
        }
        let mut seen = HashSet::new();
        for topic in changed
            .iter()
            .flat_map(|(name, _)| name.topics(view.catalog()))
        {
            let settings = self
                .names
                .in_force(*topic, view.catalog())
                .filter(|_| view.held.holds(*topic));
            if let (Some(settings), true) = (settings, seen.insert(*topic)) {
                actions.push(Action::Set(*topic, settings));
            }
        }
        actions.insert(
            0,
            self.subscribed(id, changed.iter().map(|(name, _)| name), err, view),
        );
        actions
    }

    fn modified(
        &self,
        text: &str,
        name: Name,
        wish: DeliveryWish,
        view: View<'_>,
    ) -> Result<(Name, Settings), Refusal> {
        let channel = match &name {
            Name::Topic(topic) => view.catalog().topic(*topic).topic.channel,
            Name::Pattern(pattern) => pattern.channel,
        };
        let held = self
            .names
            .settings(&name)
            .expect("only held names are modified");
        let settings = held
            .with(wish, channel)
            .map_err(|refused| Refusal::new(text, Code::ModeRefused, refused.to_string()))?;
        Ok((name, settings))
    }

    fn subscribed<'n>(
        &self,
        id: Option<Id>,
        names: impl Iterator<Item = &'n Name>,
        err: Vec<Refusal>,
        view: View<'_>,
    ) -> Action {
        let ok = names
            .filter_map(|name| self.names.entry_of_held(name, view))
            .collect();
        Action::Answer(Control::Subscribed(Subscribed {
            id,
            ok,
            err,
            count: view.held.count() as u64,
            more: false,
        }))
    }

    pub(super) fn resync(
        &mut self,
        id: Option<Id>,
        topics: Vec<String>,
        view: View<'_>,
    ) -> Vec<Action> {
        let (mut names, mut err) = (Vec::new(), Vec::new());
        for text in distinct(&topics) {
            match self
                .held_name(text, view)
                .or_else(|refusal| held_topic(text, view).ok_or(refusal))
            {
                Ok(name) => names.push(name),
                Err(refusal) => err.push(refusal),
            }
        }
        let mut actions = vec![self.subscribed(id, names.iter(), err, view)];
        let mut seen = HashSet::new();
        for topic in names.iter().flat_map(|name| name.topics(view.catalog())) {
            if view.held.holds(*topic) && seen.insert(*topic) {
                let channel = view.catalog().topic(*topic).topic.channel;
                actions.push(Action::Snapshot(*topic, events_by_default(channel)));
            }
        }
        actions
    }

    /// Topics have appeared: those that a pattern means are held from now on, within the limit.
    pub fn on_topics(&mut self, new: impl Iterator<Item = TopicId>, view: View<'_>) -> Vec<Action> {
        let mut change = TopicsChange {
            added: Vec::new(),
            removed: Vec::new(),
            err: Vec::new(),
            more: false,
        };
        let mut actions = Vec::new();
        for topic in new {
            let Some(settings) = self.names.in_force(topic, view.catalog()) else {
                continue;
            };
            let info = view.catalog().topic(topic);
            if view.held.count() + change.added.len() >= self.limits.topics as usize {
                let message = format!("would pass the limit of {} topics", self.limits.topics);
                change
                    .err
                    .push(Refusal::new(&*info.text, Code::TopicLimit, message));
            } else {
                change.added.push(topic_entry(topic, settings, view));
                actions.push(Action::Hold(
                    topic,
                    settings,
                    Join::Snapshot(events_by_default(info.topic.channel)),
                ));
            }
        }
        if !(change.added.is_empty() && change.err.is_empty()) {
            actions.insert(0, Action::Notice(Control::Topics(change)));
        }
        actions
    }
}

/// A topic that is held, by whatever name.
fn held_topic(text: &str, view: View<'_>) -> Option<Name> {
    let TopicName::Topic(topic) = TopicName::parse(text).ok()? else {
        return None;
    };
    view.catalog()
        .find(&topic)
        .filter(|topic| view.held.holds(*topic))
        .map(Name::Topic)
}

fn unknown_topic(text: &str, name: &TopicName, view: View<'_>) -> Refusal {
    let nearest = match name {
        TopicName::Topic(topic) => view.catalog().nearest(topic),
        TopicName::Pattern(_) => None,
    };
    let offer = nearest.map_or(String::new(), |info| {
        format!("; the nearest is {}", info.text)
    });
    Refusal::new(
        text,
        Code::UnknownTopic,
        format!("there is no such topic{offer}"),
    )
}

/// How a topic goes on after event `seq` of `epoch`.
fn resume(
    topic: TopicId,
    seq: u64,
    epoch: Option<Epoch>,
    mode: Mode,
    events: usize,
    view: View<'_>,
) -> Join {
    let (replica, channel) = (view.replica, view.catalog().topic(topic).topic.channel);
    if epoch != Some(replica.epoch(topic)) || seq > replica.head(topic) {
        return Join::Anew(events);
    }
    let is_there = match (mode, channel.kind()) {
        (Mode::Raw, _) | (_, Kind::Event) => replica.after(topic, seq).is_some(),
        (_, Kind::State) => true,
        (_, Kind::Bar) => replica.closed_evicted(topic) <= seq,
    };
    if is_there {
        Join::Resume(seq)
    } else {
        Join::Expired(seq, events)
    }
}
