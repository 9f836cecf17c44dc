//! Refusals, each by the rule that refuses.

use crate::log::TopicInfo;
use crate::protocol::{Code, Refusal};

/// The rule that refuses a name.
#[derive(Debug, Clone, Copy)]
pub enum Refused<'a> {
    /// No such topic is listed.
    Unlisted {
        /// The visible topic with the most similar name.
        nearest: Option<&'a TopicInfo>,
    },
}

impl Refused<'_> {
    /// The entry of the response for the name as the client wrote it.
    pub fn refusal(self, name: &str) -> Refusal {
        match self {
            Self::Unlisted { nearest } => {
                let suggestion = nearest.map_or(String::new(), |info| {
                    format!("; the nearest is {}", info.text)
                });
                let message = format!("there is no such topic{suggestion}");
                Refusal::new(name, Code::UnknownTopic, message)
            }
        }
    }
}
