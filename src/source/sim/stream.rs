//! Random numbers that are the same everywhere: `ChaCha8`, one stream an instrument and factor, and `libm`'s functions.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// One stream of a seed.
#[derive(Debug)]
pub(super) struct Stream {
    rng: ChaCha8Rng,
    /// Normals come in pairs.
    spare: Option<f64>,
}

/// Position of a random stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct StreamPlace {
    words: u64,
    spare: Option<f64>,
}

/// Role of a stream; the same name in another role gives another stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Events,
    History,
    Factor,
    FactorHistory,
}

impl Stream {
    pub(super) fn new(seed: u64, role: Role, name: &str) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = role as u8;
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(fnv1a(name.as_bytes()));
        Self { rng, spare: None }
    }

    /// Current position.
    pub(super) fn place(&self) -> StreamPlace {
        // 2^64 words are more than any run takes.
        StreamPlace {
            words: self.rng.get_word_pos() as u64,
            spare: self.spare,
        }
    }

    /// Goes on from a place.
    pub(super) fn go_on(&mut self, place: StreamPlace) {
        self.rng.set_word_pos(place.words.into());
        self.spare = place.spare;
    }

    /// Uniform in (0, 1].
    pub(super) fn unit(&mut self) -> f64 {
        ((self.rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = libm::sqrt(-2.0 * libm::log(self.unit()));
        let angle = 2.0 * std::f64::consts::PI * self.unit();
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// Exponential with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -libm::log(self.unit())
    }
}

/// FNV-1a, 64 bits: the stream of a name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
