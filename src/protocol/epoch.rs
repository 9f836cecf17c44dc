use std::fmt;

/// Identifier of one unbroken range of sequence numbers; opaque to clients, never reused.
///
/// The epoch of the server has generation 0; a topic whose source starts over gets the next
/// generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Random value drawn when the server starts.
    pub origin: u64,
    /// Number of restarts of the topic's source.
    pub generation: u32,
}

impl Epoch {
    /// First epoch of an origin.
    pub const fn first(origin: u64) -> Self {
        let generation = 0;
        Self { origin, generation }
    }

    /// Epoch after this one.
    pub const fn next(self) -> Self {
        Self {
            origin: self.origin,
            generation: self.generation + 1,
        }
    }

    /// Parses the output of [`fmt::Display`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (origin, generation) = match text.split_once('-') {
            Some((origin, generation)) => (
                origin,
                generation
                    .parse()
                    .ok()
                    .filter(|generation| *generation > 0)?,
            ),
            None => (text, 0),
        };
        let epoch = Self {
            origin: u64::from_str_radix(origin, 16).ok()?,
            generation,
        };
        (epoch.to_string() == text).then_some(epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{:016x}", self.origin),
            generation => write!(f, "{:016x}-{generation}", self.origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_round_trip_and_other_texts_are_rejected() {
        for epoch in [
            Epoch {
                origin: 0,
                generation: 0,
            },
            Epoch {
                origin: u64::MAX,
                generation: u32::MAX,
            },
        ] {
            assert_eq!(Epoch::parse(&epoch.to_string()), Some(epoch));
            assert!(epoch.to_string().len() <= 32);
        }
        for other in [
            "",
            "x",
            "00000000000000FF",
            "1",
            "0000000000000001-0",
            "0000000000000001-01",
        ] {
            assert_eq!(Epoch::parse(other), None, "{other}");
        }
    }
}
