//! User agents: equal ones are stored once, because most clients of a server have one of a few.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;

/// Number of distinct user agents from which on unused ones are removed.
const SWEPT_FROM: usize = 64;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Text(Box<str>);

/// User agent of a client, in a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Agent(Arc<Text>);

impl Agent {
    pub(super) fn text(&self) -> &str {
        &self.0.0
    }
}

impl Borrow<str> for Agent {
    fn borrow(&self) -> &str {
        self.text()
    }
}

/// User agents of the clients of a shard.
#[derive(Debug, Default)]
pub(super) struct Agents {
    known: HashSet<Agent>,
    /// Number of entries at which those without a client are removed.
    sweep_at: usize,
}

impl Agents {
    /// Shared text of a user agent.
    pub(super) fn of(&mut self, text: Box<str>) -> Agent {
        if let Some(agent) = self.known.get(&*text) {
            return agent.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|agent| Arc::strong_count(&agent.0) > 1);
            self.sweep_at = SWEPT_FROM.max(2 * self.known.len());
        }
        let agent = Agent(Arc::new(Text(text)));
        self.known.insert(agent.clone());
        agent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_agents_are_stored_once_and_unused_ones_are_removed() {
        let mut agents = Agents::default();
        let held: Vec<Agent> = (0..500).map(|_| agents.of("held".into())).collect();
        for n in 0..10_000 {
            assert_eq!(agents.of(n.to_string().into()).text(), n.to_string());
        }
        assert!(
            agents.known.len() <= 2 * SWEPT_FROM,
            "{}",
            agents.known.len()
        );
        assert!(held.iter().all(|agent| Arc::ptr_eq(&agent.0, &held[0].0)));
        assert!(Arc::ptr_eq(&agents.of("held".into()).0, &held[0].0));
    }
}
