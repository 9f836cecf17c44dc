//! Topics that appear and end while a client is subscribed.

use super::response::{TOPIC_ENDED, events_by_default};
use super::{Action, Join, Session, View, topic_entry};
use crate::access::Name;
use crate::log::TopicId;
use crate::protocol::{Code, Control, Refusal, TopicsChange};

impl Session {
    /// Handles new topics: subscribes those that match a pattern of the client, within the limit.
    pub fn on_topics(&mut self, new: impl Iterator<Item = TopicId>, view: View<'_>) -> Vec<Action> {
        let mut change = TopicsChange {
            added: Vec::new(),
            removed: Vec::new(),
            err: Vec::new(),
            more: false,
        };
        let mut actions = Vec::new();
        for topic in new.filter(|topic| view.visible().shows(*topic)) {
            let Some(settings) = self.names.in_force(topic, view.visible()) else {
                continue;
            };
            if view.visible().check_mode(settings.mode).is_err() {
                // The rights of the client have changed; the pattern is about to be removed.
                continue;
            }
            let info = view.visible().topic(topic);
            if view.held.count() + change.added.len() >= self.limits.topics as usize {
                let message = format!("exceeds the limit of {} topics", self.limits.topics);
                change
                    .err
                    .push(Refusal::new(&*info.text, Code::TopicLimit, message));
            } else {
                change.added.push(topic_entry(topic, settings, view));
                actions.push(Action::Subscribe(
                    topic,
                    settings,
                    Join::Offered(events_by_default(info.topic.channel)),
                ));
            }
        }
        if !(change.added.is_empty() && change.err.is_empty()) {
            actions.insert(0, Action::Notify(Control::Topics(change)));
        }
        actions
    }

    /// Handles removed instruments: ends their subscribed topics and the subscriptions by name.
    /// Patterns remain.
    pub fn on_removed(&mut self, topics: &[TopicId], view: View<'_>) -> Vec<Action> {
        let mut change = TopicsChange {
            added: Vec::new(),
            removed: Vec::new(),
            err: Vec::new(),
            more: false,
        };
        // Topics first: none of their events may follow the message that names them.
        let mut actions = Vec::new();
        for topic in topics {
            self.names.remove(&Name::Topic(*topic));
            let text = &*view.visible().topic(*topic).text;
            let gone = Refusal::new(text, Code::UnknownTopic, TOPIC_ENDED);
            change.removed.push(gone);
            actions.push(Action::Unsubscribe(*topic));
        }
        actions.push(Action::Notify(Control::Topics(change)));
        actions
    }
}
