//! Splitting of subscriptions into requests of an accepted size.

use crate::protocol::ResumeFrom;
use crate::topic::TopicName;

/// Bytes of topics in one request, of which `from` repeats each.
const REQUEST_TOPIC_BYTES_MAX: usize = 16 * 1024;

/// Topics in lists that fit into one request each. Patterns stay together: what `from` names must
/// be covered by one.
pub(super) fn chunks(topics: Vec<String>) -> Vec<Vec<String>> {
    let is_pattern = |text: &String| matches!(TopicName::parse(text), Ok(TopicName::Pattern(_)));
    if topics.is_empty() {
        return Vec::new();
    }
    if topics.iter().any(is_pattern) {
        return vec![topics];
    }
    let mut lists = vec![Vec::new()];
    let mut bytes = 0;
    for topic in topics {
        bytes += topic.len();
        if bytes > REQUEST_TOPIC_BYTES_MAX {
            lists.push(Vec::new());
            bytes = topic.len();
        }
        lists
            .last_mut()
            .expect("the list of chunks is never empty")
            .push(topic);
    }
    lists
}

/// Part of the resume positions that these names cover.
pub(super) fn part_of(from: &ResumeFrom, names: &[String]) -> ResumeFrom {
    let names: Vec<TopicName> = names
        .iter()
        .filter_map(|name| TopicName::parse(name).ok())
        .collect();
    let covered = |topic: &str| match TopicName::parse(topic) {
        Ok(TopicName::Topic(topic)) => names.iter().any(|name| match name {
            TopicName::Topic(own) => *own == topic,
            TopicName::Pattern(pattern) => pattern.matches(&topic),
        }),
        _ => false,
    };
    ResumeFrom {
        epoch: from.epoch.clone(),
        seqs: from
            .seqs
            .iter()
            .filter(|(topic, _)| covered(topic))
            .cloned()
            .collect(),
        epochs: from
            .epochs
            .iter()
            .filter(|(topic, _)| covered(topic))
            .cloned()
            .collect(),
    }
}
