//! What a stopping server leaves for the next one: epochs, numbers, last states, bars, history, and the place of each source.
//!
//! One file, replaced whole and checked by its sum. It is taken away when it is taken up, so that a server that crashes leaves
//! none, and the next one begins a new epoch instead of pretending.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bus::derive::SavedInstrument;
use crate::bus::{Remains, SavedTime};
use crate::market::UnixNanos;
use crate::replica::SavedTopic;

/// What the file begins with; the digit is the form's version.
const MAGIC: &[u8; 16] = b"tickcast state 1";
const SUM_BYTES: usize = 32;
/// Catching up on more than this would take longer than it is worth.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// A source at the moment of the stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedSource {
    /// Its name in the config.
    pub name: String,
    /// Sum of its config: with another one it starts over.
    pub config: Bytes,
    /// Its own time.
    pub time: SavedTime,
    /// From where it goes on; `None`: it can't.
    pub place: Option<Bytes>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// When the server stopped.
    pub stopped: UnixNanos,
    /// The newest publishing time.
    pub tx: UnixNanos,
    /// The origin of its epochs.
    pub origin: u64,
    /// All sources.
    pub sources: Vec<SavedSource>,
    /// What is derived of each instrument.
    pub instruments: Vec<SavedInstrument>,
    /// All topics that have an event.
    pub topics: Vec<SavedTopic>,
}

impl State {
    /// Puts together what the parts of a stopped server left; `sources`: name, config's sum, place.
    pub fn new(
        stopped: UnixNanos,
        origin: u64,
        remains: Remains,
        sources: Vec<(String, Bytes, Option<Bytes>)>,
        topics: Vec<SavedTopic>,
    ) -> Self {
        let times = remains
            .times
            .into_iter()
            .chain(std::iter::repeat(SavedTime::default()));
        let sources = sources
            .into_iter()
            .zip(times)
            .map(|((name, config, place), time)| SavedSource {
                name,
                config,
                time,
                place,
            });
        let topics = topics.into_iter().chain(remains.unclaimed).collect();
        Self {
            stopped,
            tx: remains.tx,
            origin,
            sources: sources.collect(),
            instruments: remains.instruments,
            topics,
        }
    }
}

/// The sum by which a source's config is known again.
pub fn config_sum(config: &impl std::fmt::Debug) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(format!("{config:?}")))
}

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    /// No server was here before.
    Nothing,
    /// The last one stopped in order.
    State(Box<State>),
    /// There was one, but it left nothing that could be used; why.
    Lost(String),
}

/// A folder for the state of one server, which has it for itself as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    folder: PathBuf,
    _lock: File,
}

impl StateDir {
    /// The folder, made if it isn't there; an error where another server has it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let why = "another server that runs has it; stop that one first, or give each a folder of its own";
                io::Error::new(io::ErrorKind::ResourceBusy, why)
            }
            TryLockError::Error(error) => error,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// There from the start to the orderly stop.
    fn marker(&self) -> PathBuf {
        self.folder.join("running")
    }

    /// Takes up what is there; from now on a crash is known by the marker.
    pub fn take_up(&self, now: UnixNanos) -> io::Result<Found> {
        let was_running = self.marker().exists();
        let read = fs::read(self.file());
        File::create(self.marker())?.sync_all()?;
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = "the last run ended without leaving its state, as after a crash";
                return Ok(if was_running {
                    Found::Lost(why.to_owned())
                } else {
                    Found::Nothing
                });
            }
            Err(error) => return Ok(Found::Lost(format!("the state can't be read: {error}"))),
        };
        fs::remove_file(self.file())?;
        File::open(&self.folder)?.sync_all()?;
        Ok(match parse(&bytes) {
            Err(why) => Found::Lost(why),
            Ok(state) if now.since(state.stopped) > AGE_MAX => Found::Lost(format!(
                "the state is of {} minutes ago",
                now.since(state.stopped).as_secs() / 60
            )),
            Ok(state) => Found::State(Box::new(state)),
        })
    }

    /// Leaves the state for the next one.
    pub fn leave(&self, state: &State) -> io::Result<()> {
        let payload = rmp_serde::to_vec_named(state).map_err(io::Error::other)?;
        let new = self.folder.join("state.new");
        let mut file = File::create(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(&payload))?;
        file.write_all(&payload)?;
        file.sync_all()?;
        fs::rename(&new, self.file())?;
        File::open(&self.folder)?.sync_all()?;
        fs::remove_file(self.marker())
    }
}

fn parse(bytes: &[u8]) -> Result<State, String> {
    let head = MAGIC.len() + SUM_BYTES;
    if bytes.len() < head || &bytes[..MAGIC.len()] != MAGIC {
        return Err("the state is damaged, or of another version".to_owned());
    }
    let payload = &bytes[head..];
    if Sha256::digest(payload)[..] != bytes[MAGIC.len()..head] {
        return Err("the state is damaged: its sum is another".to_owned());
    }
    rmp_serde::from_slice(payload)
        .map_err(|error| format!("the state is of another version: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let remains = Remains {
            tx: UnixNanos(9),
            ..Remains::default()
        };
        State::new(
            UnixNanos(10),
            7,
            remains,
            vec![(
                "sim".to_owned(),
                config_sum(&1),
                Some(Bytes::from_static(b"x")),
            )],
            Vec::new(),
        )
    }

    fn found(dir: &StateDir) -> Found {
        dir.take_up(UnixNanos(11)).expect("the folder is there")
    }

    #[test]
    fn what_was_left_is_taken_up_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(folder.path()).expect("a folder");
        assert!(matches!(found(&dir), Found::Nothing));
        dir.leave(&state()).expect("room");
        assert!(matches!(found(&dir), Found::State(taken) if *taken == state()));
        assert!(
            matches!(found(&dir), Found::Lost(why) if why.contains("crash")),
            "taken up, and not left again"
        );
        dir.leave(&state()).expect("room");
        let late = dir
            .take_up(UnixNanos(10).plus(AGE_MAX * 2))
            .expect("the folder is there");
        assert!(matches!(late, Found::Lost(why) if why.contains("120 minutes")));
    }

    #[test]
    fn one_server_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(folder.path()).expect("a folder");
        let refused = StateDir::open(folder.path()).expect_err("it is taken");
        assert!(
            refused.kind() == io::ErrorKind::ResourceBusy
                && refused.to_string().contains("stop that one first"),
            "{refused}"
        );
        drop(dir);
        StateDir::open(folder.path()).expect("it is free again");
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(folder.path()).expect("a folder");
        assert!(dir.leave(&state()).is_err(), "no server runs here");
        File::create(dir.marker()).expect("room");
        dir.leave(&state()).expect("room");
        let whole = fs::read(dir.file()).expect("it was left");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(parse(&changed).is_err(), "byte {at}");
            assert!(parse(&whole[..at]).is_err(), "cut at {at}");
        }
    }
}
