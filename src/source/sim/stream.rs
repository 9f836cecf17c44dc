//! Reproducible random numbers: `ChaCha8` with one stream per instrument and factor, and the
//! functions of `libm`.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// One stream of a seed.
#[derive(Debug)]
pub(super) struct Stream {
    rng: ChaCha8Rng,
    /// Second value of the last pair: normal variates are generated in pairs.
    spare: Option<f64>,
}

/// Position of a random stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct StreamPlace {
    words: u64,
    spare: Option<f64>,
}

/// Role of a stream; the same name in a different role selects a different stream.
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

    /// Current position of the stream.
    pub(super) fn place(&self) -> StreamPlace {
        // The word position fits into 64 bits: no run consumes 2^64 words.
        StreamPlace {
            words: self.rng.get_word_pos() as u64,
            spare: self.spare,
        }
    }

    /// Resumes from a position.
    pub(super) fn go_on(&mut self, place: StreamPlace) {
        self.rng.set_word_pos(place.words.into());
        self.spare = place.spare;
    }

    /// Uniform variate in (0, 1].
    pub(super) fn unit(&mut self) -> f64 {
        ((self.rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal variate (Box–Muller).
    pub(super) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = libm::sqrt(-2.0 * libm::log(self.unit()));
        let angle = 2.0 * std::f64::consts::PI * self.unit();
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// Exponential variate with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -libm::log(self.unit())
    }
}

/// FNV-1a hash, 64 bits: maps a name to its stream.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
