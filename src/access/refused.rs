//! Rejection of names, by rule.

use super::Role;
use crate::log::TopicInfo;
use crate::protocol::{Code, Refusal};

/// Rule that rejects a name.
#[derive(Debug, Clone, Copy)]
pub enum Refused<'a> {
    /// No topic with this name is listed.
    Unlisted {
        /// Visible topic with the most similar name.
        nearest: Option<&'a TopicInfo>,
    },
    /// The role grants no topic of this name, or not in this mode.
    NotEntitled(&'a Role),
}

impl Refused<'_> {
    /// Response entry for the name as the client sent it.
    pub fn refusal(self, name: &str) -> Refusal {
        match self {
            Self::Unlisted { nearest } => {
                let suggestion = nearest.map_or(String::new(), |info| {
                    format!("; did you mean {}?", info.text)
                });
                let message = format!("unknown topic{suggestion}");
                Refusal::new(name, Code::UnknownTopic, message)
            }
            Self::NotEntitled(role) => {
                let message = format!("not entitled: {}", role.rule());
                Refusal::new(name, Code::NotEntitled, message)
            }
        }
    }
}
