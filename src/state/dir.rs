//! The folder of the state: one server has it, and its files are private, regular and no links.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use sha2::{Digest, Sha256};

use super::{ClockStep, Found, MAGIC, Refusal, Saved, State, by_time, clock_step, parse};
use crate::clock::Moment;
use crate::files::refuse_special;

/// Names of the files in the folder.
pub(super) const LOCK: &str = "lock";
pub(super) const STATE: &str = "state";
pub(super) const STATE_NEW: &str = "state.new";
pub(super) const LEASE: &str = "lease";
pub(super) const LEASE_NEW: &str = "lease.new";
/// Marker of earlier versions.
pub(super) const RUNNING: &str = "running";
pub(super) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
pub(super) const PRIVATE_FOLDER: u32 = 0o700;

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
