//! The state that a stopping server saves for the next one: epochs, numbers, last states, bars, history, and source positions.
//!
//! One file, replaced whole and checked by its sum. It is taken away when it is taken up, so that a server that crashes leaves
//! none, and the next one begins a new epoch instead of pretending.
//!
//! Every run writes a lease of its own at its start, and its state names that lease. A state of any other run than the last
//! one, such as a backup that was put back, is refused.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bus::derive::SavedInstrument;
use crate::bus::{SavedState, SavedTime};
use crate::clock::{BootTime, Moment};
use crate::files::refuse_special;
use crate::log::SavedTopic;
use crate::market::UnixNanos;

/// Header of the file; the digit is the version of the format.
const MAGIC: &[u8; 16] = b"tickcast state 2";
const SUM_BYTES: usize = 32;
/// Catching up on more than this would take longer than it is worth.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// A state this far ahead of the clock is still taken up: publishing times wait for the clock meanwhile.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// Difference of wall clock and monotonic clock that counts as a step.
const STEP_MIN: Duration = Duration::from_secs(1);
/// Names of the files in the folder.
const LOCK: &str = "lock";
const STATE: &str = "state";
const STATE_NEW: &str = "state.new";
const LEASE: &str = "lease";
const LEASE_NEW: &str = "lease.new";
/// Marker of earlier versions.
const RUNNING: &str = "running";
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_FOLDER: u32 = 0o700;

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
    /// Time of the shutdown.
    pub stopped: UnixNanos,
    /// The newest publishing time.
    pub tx: UnixNanos,
    /// The origin of its epochs.
    pub origin: u64,
    /// All sources.
    pub sources: Vec<SavedSource>,
    /// Derived state of each instrument.
    pub instruments: Vec<SavedInstrument>,
    /// All topics that have an event.
    pub topics: Vec<SavedTopic>,
}

/// A source's name, the digest of its config, and its checkpoint.
pub type StoppedSource = (String, Bytes, Option<Bytes>);

impl State {
    /// Puts together what the parts of a stopped server left; `sources`: name, config's sum, place.
    pub fn new(
        stopped: UnixNanos,
        origin: u64,
        bus: SavedState,
        sources: Vec<StoppedSource>,
        topics: Vec<SavedTopic>,
    ) -> Self {
        let times = bus
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
        let topics = topics.into_iter().chain(bus.carried_over).collect();
        Self {
            stopped,
            tx: bus.tx,
            origin,
            sources: sources.collect(),
            instruments: bus.instruments,
            topics,
        }
    }
}

/// The sum by which a source's config is known again.
pub fn config_sum(config: &impl std::fmt::Debug) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(format!("{config:?}")))
}

/// Why a state is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The last run did not write one.
    #[error("the last run ended without saving its state, for example in a crash")]
    Missing,
    /// The file can't be read.
    #[error("cannot read the state: {0}")]
    Unreadable(io::Error),
    /// The file is not what was written.
    #[error("the state is damaged or has another version: {0}")]
    Damaged(String),
    /// It is of another run than the last one.
    #[error(
        "the state is not that of the last run; an older one was restored, or the lease file was removed"
    )]
    NotTheLast,
    /// It was saved too long ago.
    #[error("the state is {} minutes old, expected at most {}", .0.as_secs() / 60, AGE_MAX.as_secs() / 60)]
    Old(Duration),
    /// It was saved at a time that has not come yet.
    #[error(
        "the state was saved in the future, {0:?} ahead of the clock: the clock was ahead then, or has been set back"
    )]
    Ahead(Duration),
}

impl Refusal {
    /// The label value of this one.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable(_) => "unreadable",
            Self::Damaged(_) => "damaged",
            Self::NotTheLast => "not_the_last",
            Self::Old(_) => "old",
            Self::Ahead(_) => "ahead",
        }
    }
}

/// A step of the wall clock between two runs on one boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// The clock was set forward by this.
    Forward(Duration),
    /// The clock was set back by this.
    Back(Duration),
}

/// State found at start.
#[derive(Debug)]
pub enum Found {
    /// No server was here before.
    Nothing,
    /// The last one stopped in order.
    State(Box<State>),
    /// There was one, but it left nothing that could be used.
    Refused(Refusal),
}

/// The file's contents behind its sum.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<S> {
    lease: String,
    boot: Option<BootTime>,
    state: S,
}

/// A folder for the state of one server, which has it for itself as long as this lives.
///
/// Its files are opened without following links, and must be regular files.
#[derive(Debug)]
pub struct StateDir {
    fd: OwnedFd,
    _lock: File,
    lease: Option<String>,
}

impl StateDir {
    /// The folder, made if it isn't there; an error where another server has it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE_FOLDER)
            .create(folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        keep_private(folder, &fd)?;
        let lock = open_own(&fd, LOCK, OFlags::RDWR | OFlags::CREATE)
            .map_err(|error| named(LOCK, &error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let why = "another running server uses it; stop that server, or give each its own directory";
                io::Error::new(io::ErrorKind::ResourceBusy, why)
            }
            TryLockError::Error(error) => error,
        })?;
        Ok(Self {
            fd,
            _lock: lock,
            lease: None,
        })
    }

    /// Takes up what is there, and writes the lease of this run. A step of the clock since the last run is told where both
    /// ran on the same boot of the machine.
    pub fn take_up(&mut self, now: &Moment) -> io::Result<(Found, Option<ClockStep>)> {
        let lease = self.read(LEASE)?;
        let read = self.read(STATE);
        let next = format!("{:032x}", rand::random::<u128>());
        self.replace(LEASE_NEW, LEASE, next.as_bytes())?;
        self.lease = Some(next);
        let was_running = self.remove(RUNNING)?;
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            Ok(None) if lease.is_some() || was_running => {
                return Ok((Found::Refused(Refusal::Missing), None));
            }
            Ok(None) => return Ok((Found::Nothing, None)),
            Err(error) => {
                self.remove(STATE)?;
                return Ok((Found::Refused(Refusal::Unreadable(error)), None));
            }
        };
        self.remove(STATE)?;
        File::from(self.fd.try_clone()?).sync_all()?;
        let saved = match parse(&bytes) {
            Ok(saved) => saved,
            Err(refusal) => return Ok((Found::Refused(refusal), None)),
        };
        let step = clock_step(&saved, now);
        let refusal = if lease.as_deref() == Some(saved.lease.as_bytes()) {
            by_time(&saved.state, now.wall)
        } else {
            Some(Refusal::NotTheLast)
        };
        let found = match refusal {
            Some(refusal) => Found::Refused(refusal),
            None => Found::State(Box::new(saved.state)),
        };
        Ok((found, step))
    }

    /// Leaves the state for the next one.
    pub fn leave(&self, state: &State, now: &Moment) -> io::Result<()> {
        let lease = self
            .lease
            .clone()
            .ok_or_else(|| io::Error::other("no state was taken up before"))?;
        let saved = Saved {
            lease,
            boot: now.boot.clone(),
            state,
        };
        let payload = rmp_serde::to_vec_named(&saved).map_err(io::Error::other)?;
        let bytes = [&MAGIC[..], &Sha256::digest(&payload), &payload].concat();
        self.replace(STATE_NEW, STATE, &bytes)
    }

    /// Writes a file beside another and puts it in its place.
    fn replace(&self, new: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let write = || {
            self.remove(new)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mut file = open_own(&self.fd, new, flags)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            rustix::fs::renameat(&self.fd, new, &self.fd, name)?;
            File::from(self.fd.try_clone()?).sync_all()
        };
        write().map_err(|error| named(new, &error))
    }

    /// The contents of a file; `None` where there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match open_own(&self.fd, name, OFlags::RDONLY) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)
                    .map_err(|error| named(name, &error))?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(name, &error)),
        }
    }

    /// Removes a file; whether it was there.
    fn remove(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(named(name, &error.into())),
        }
    }
}

/// Opens a file of the folder: no link, nothing but a regular file, and nobody else's to read.
fn open_own(folder: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = rustix::fs::openat(folder, name, flags, PRIVATE_FILE);
    let file = File::from(opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => io::Error::new(
            io::ErrorKind::InvalidInput,
            "symbolic link where a regular file is expected",
        ),
        other => other.into(),
    })?);
    let found = file.metadata()?;
    refuse_special(&found)?;
    if found.mode() & 0o077 != 0 {
        rustix::fs::fchmod(&file, PRIVATE_FILE)?;
    }
    Ok(file)
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// A folder that holds nothing but a state, and is this user's, is closed to others; any other is left as it is.
fn keep_private(folder: &Path, fd: &OwnedFd) -> io::Result<()> {
    let found = fs::metadata(folder)?;
    let is_open = found.mode() & 0o077 != 0;
    let own = [LOCK, STATE, STATE_NEW, LEASE, LEASE_NEW, RUNNING];
    let is_own = fs::read_dir(folder)?
        .all(|entry| entry.is_ok_and(|entry| own.iter().any(|name| entry.file_name() == *name)));
    let closed =
        is_open && is_own && rustix::fs::fchmod(fd, Mode::from_raw_mode(PRIVATE_FOLDER)).is_ok();
    if !closed && found.mode() & 0o022 != 0 {
        tracing::warn!(
            folder = %folder.display(),
            mode = format!("{:o}", found.mode() & 0o7777),
            "state_dir is writable by other users, who can replace the state; chmod it to 0700"
        );
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Saved<State>, Refusal> {
    let damaged = |why: &str| Refusal::Damaged(why.to_owned());
    let head = MAGIC.len() + SUM_BYTES;
    if bytes.len() < head || &bytes[..MAGIC.len()] != MAGIC {
        return Err(damaged("no state header"));
    }
    let payload = &bytes[head..];
    if Sha256::digest(payload)[..] != bytes[MAGIC.len()..head] {
        return Err(damaged("checksum mismatch"));
    }
    rmp_serde::from_slice(payload).map_err(|error| Refusal::Damaged(error.to_string()))
}

/// Compares the time of a state with the clock, both ways.
fn by_time(state: &State, now: UnixNanos) -> Option<Refusal> {
    let ahead = state.stopped.max(state.tx).since(now);
    if ahead > AHEAD_MAX {
        return Some(Refusal::Ahead(ahead));
    }
    let age = now.since(state.stopped);
    (age > AGE_MAX).then_some(Refusal::Old(age))
}

/// The monotonic clock of the machine tells how much time has really passed.
fn clock_step<S: std::borrow::Borrow<State>>(saved: &Saved<S>, now: &Moment) -> Option<ClockStep> {
    let passed = now.boot.as_ref()?.since(saved.boot.as_ref()?)?;
    let expected = saved.state.borrow().stopped.plus(passed);
    let (forward, back) = (now.wall.since(expected), expected.since(now.wall));
    if forward >= STEP_MIN {
        Some(ClockStep::Forward(forward))
    } else if back >= STEP_MIN {
        Some(ClockStep::Back(back))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let bus = SavedState {
            tx: UnixNanos(9),
            ..SavedState::default()
        };
        State::new(
            UnixNanos(10),
            7,
            bus,
            vec![(
                "sim".to_owned(),
                config_sum(&1),
                Some(Bytes::from_static(b"x")),
            )],
            Vec::new(),
        )
    }

    fn at(wall: UnixNanos) -> Moment {
        Moment { wall, boot: None }
    }

    fn found(dir: &mut StateDir) -> Found {
        dir.take_up(&at(UnixNanos(11)))
            .expect("the folder is there")
            .0
    }

    fn opened() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(&folder.path().join("state_dir")).expect("a folder");
        (folder, dir)
    }

    #[test]
    fn what_was_left_is_taken_up_once() {
        let (_folder, mut dir) = opened();
        assert!(dir.leave(&state(), &at(UnixNanos(10))).is_err(), "no lease");
        assert!(matches!(found(&mut dir), Found::Nothing));
        dir.leave(&state(), &at(UnixNanos(10))).expect("room");
        assert!(matches!(found(&mut dir), Found::State(taken) if *taken == state()));
        assert!(
            matches!(found(&mut dir), Found::Refused(why) if why.to_string().contains("crash")),
            "taken up, and not left again"
        );
        dir.leave(&state(), &at(UnixNanos(10))).expect("room");
        let (late, _) = dir
            .take_up(&at(UnixNanos(10).plus(AGE_MAX * 2)))
            .expect("the folder is there");
        assert!(matches!(late, Found::Refused(why) if why.to_string().contains("120 minutes")));
    }

    #[test]
    fn a_state_from_the_future_is_refused_and_one_just_ahead_is_not() {
        let now = UnixNanos(1_000_000_000_000);
        for (stopped, tx, refused) in [
            (now.plus(AHEAD_MAX), now, false),
            (now.plus(AHEAD_MAX * 2), now, true),
            (now, now.plus(Duration::from_secs(1800)), true),
        ] {
            let (_folder, mut dir) = opened();
            found(&mut dir);
            let state = State {
                stopped,
                tx,
                ..state()
            };
            dir.leave(&state, &at(stopped)).expect("room");
            let (found, _) = dir.take_up(&at(now)).expect("the folder is there");
            match found {
                Found::State(_) => assert!(!refused),
                Found::Refused(why) => {
                    assert!(refused && why.to_string().contains("future"), "{why}");
                }
                Found::Nothing => unreachable!("it was left"),
            }
        }
    }

    #[test]
    fn a_step_of_the_clock_between_two_runs_is_told_both_ways() {
        let stopped = UnixNanos(1_000_000_000_000);
        let hour = Duration::from_secs(3600);
        let boot = |name: &str, elapsed| {
            Some(BootTime {
                boot: name.to_owned(),
                elapsed,
            })
        };
        let saved = Saved {
            lease: String::new(),
            boot: boot("a", hour),
            state: State { stopped, ..state() },
        };
        let passed = Duration::from_secs(5);
        let step = |name, wall| {
            let boot = boot(name, hour + passed);
            clock_step(&saved, &Moment { wall, boot })
        };
        let right = stopped.plus(passed);
        assert_eq!(step("a", right), None);
        assert_eq!(step("a", right.plus(hour)), Some(ClockStep::Forward(hour)));
        assert_eq!(
            step("a", right.minus(Duration::from_secs(4))),
            Some(ClockStep::Back(Duration::from_secs(4)))
        );
        assert_eq!(step("b", right.plus(hour)), None, "another boot");
    }

    #[test]
    fn an_older_state_that_is_put_back_is_refused() {
        let (folder, mut dir) = opened();
        let file = folder.path().join("state_dir/state");
        found(&mut dir);
        dir.leave(&state(), &at(UnixNanos(10))).expect("room");
        let old = fs::read(&file).expect("it was left");
        assert!(matches!(found(&mut dir), Found::State(_)));
        for _ in 0..2 {
            fs::write(&file, &old).expect("room");
            assert!(
                matches!(found(&mut dir), Found::Refused(Refusal::NotTheLast)),
                "put back while it ran, or after"
            );
        }
        dir.leave(&state(), &at(UnixNanos(10))).expect("room");
        fs::remove_file(folder.path().join("state_dir/lease")).expect("it is there");
        assert!(matches!(
            found(&mut dir),
            Found::Refused(Refusal::NotTheLast)
        ));
    }

    #[test]
    fn files_are_private_regular_and_no_links() {
        use std::os::unix::fs::symlink;

        let (folder, mut dir) = opened();
        let (inner, victim) = (
            folder.path().join("state_dir"),
            folder.path().join("victim"),
        );
        fs::write(&victim, "precious").expect("room");
        symlink(&victim, inner.join(STATE_NEW)).expect("a link");
        symlink(&victim, inner.join(LEASE_NEW)).expect("a link");
        found(&mut dir);
        dir.leave(&state(), &at(UnixNanos(10))).expect("room");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        for name in [LOCK, STATE, LEASE] {
            assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
        }
        // Instead of the state: a link, a FIFO, a folder.
        fs::remove_file(inner.join(STATE)).expect("it is there");
        symlink(&victim, inner.join(STATE)).expect("a link");
        assert!(
            matches!(found(&mut dir), Found::Refused(why) if why.to_string().contains("symbolic link"))
        );
        rustix::fs::mkfifoat(CWD, inner.join(STATE), PRIVATE_FILE).expect("a FIFO");
        assert!(matches!(found(&mut dir), Found::Refused(why) if why.to_string().contains("FIFO")));
        drop(dir);
        for name in [LOCK, LEASE] {
            fs::remove_file(inner.join(name)).expect("it is there");
            symlink(&victim, inner.join(name)).expect("a link");
            let refused = StateDir::open(&inner).and_then(|mut dir| {
                let (found, _) = dir.take_up(&at(UnixNanos(11)))?;
                Ok(found)
            });
            let error = refused.expect_err("a link").to_string();
            assert!(
                error.contains("symbolic link") && error.contains(name),
                "{error}"
            );
            fs::remove_file(inner.join(name)).expect("it is there");
        }
        assert_eq!(
            fs::read_to_string(&victim).expect("it is there"),
            "precious"
        );
    }

    #[test]
    fn every_refusal_has_a_label_of_the_metric() {
        let refusals = [
            Refusal::Missing,
            Refusal::Unreadable(io::Error::other("x")),
            Refusal::Damaged(String::new()),
            Refusal::NotTheLast,
            Refusal::Old(AGE_MAX),
            Refusal::Ahead(AGE_MAX),
        ];
        assert_eq!(
            refusals.map(|refusal| refusal.reason()),
            crate::metrics::STATE_REFUSED
        );
    }

    #[test]
    fn one_server_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = StateDir::open(folder.path()).expect("a folder");
        let refused = StateDir::open(folder.path()).expect_err("it is taken");
        assert!(
            refused.kind() == io::ErrorKind::ResourceBusy
                && refused.to_string().contains("stop that server"),
            "{refused}"
        );
        drop(dir);
        StateDir::open(folder.path()).expect("it is free again");
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (folder, mut dir) = opened();
        found(&mut dir);
        dir.leave(&state(), &at(UnixNanos(10))).expect("room");
        let whole = fs::read(folder.path().join("state_dir/state")).expect("it was left");
        assert!(parse(&whole).is_ok());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(parse(&changed).is_err(), "byte {at}");
            assert!(parse(&whole[..at]).is_err(), "cut at {at}");
        }
    }
}
