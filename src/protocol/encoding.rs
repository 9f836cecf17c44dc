//! Wire formats: a closed set, and arrays with one element per format.

use std::ops::{Index, IndexMut};

/// Wire encoding of a connection's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// MessagePack in binary frames.
    Msgpack,
    /// JSON in text frames.
    Json,
}

impl Encoding {
    /// Number of encodings.
    pub const COUNT: usize = 2;
    /// All encodings.
    pub const ALL: [Self; Self::COUNT] = [Self::Msgpack, Self::Json];

    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Msgpack => "msgpack",
            Self::Json => "json",
        }
    }

    /// WebSocket subprotocol that selects the encoding.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Msgpack => "tickcast.v1.msgpack",
            Self::Json => "tickcast.v1.json",
        }
    }

    /// True if messages are sent in text frames, false for binary frames.
    pub const fn is_text(self) -> bool {
        match self {
            Self::Msgpack => false,
            Self::Json => true,
        }
    }

    /// Separator byte between two events of an array, if any.
    pub const fn separator(self) -> Option<u8> {
        match self {
            Self::Msgpack => None,
            Self::Json => Some(b','),
        }
    }

    /// Parses the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.name() == text)
    }
}

/// One value for each encoding, indexed by [`Encoding`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerEncoding<T>([T; Encoding::COUNT]);

impl<T> PerEncoding<T> {
    /// Creates one value per encoding with `make`.
    pub fn from_fn(make: impl FnMut(Encoding) -> T) -> Self {
        Self(Encoding::ALL.map(make))
    }

    /// All values, with their encodings.
    pub fn iter(&self) -> impl Iterator<Item = (Encoding, &T)> {
        Encoding::ALL.into_iter().zip(&self.0)
    }

    /// Mutable references to all values.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

impl<T> Index<Encoding> for PerEncoding<T> {
    type Output = T;

    fn index(&self, encoding: Encoding) -> &T {
        &self.0[encoding as usize]
    }
}

impl<T> IndexMut<Encoding> for PerEncoding<T> {
    fn index_mut(&mut self, encoding: Encoding) -> &mut T {
        &mut self.0[encoding as usize]
    }
}

// The discriminant of each encoding is its position in `ALL`.
const _: () = {
    let mut at = 0;
    while at < Encoding::COUNT {
        assert!(Encoding::ALL[at] as usize == at, "ALL is in order");
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_has_its_own_element() {
        let mut names = PerEncoding::from_fn(Encoding::name);
        for (encoding, name) in names.iter() {
            assert_eq!(encoding.name(), *name);
        }
        names[Encoding::Json] = "changed";
        assert_eq!(names[Encoding::Msgpack], "msgpack");
        assert_eq!(names[Encoding::Json], "changed");
    }
}
