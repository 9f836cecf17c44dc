//! State directory: locked by one server; its files are private regular files, not links.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{ClockStep, Found, Refusal, Saved, State, by_time, clock_step, parse, sealed_bytes};
use crate::clock::Moment;
use crate::files::refuse_special;

/// Names of the files in the directory.
pub(super) const LOCK: &str = "lock";
pub(super) const STATE: &str = "state";
pub(super) const STATE_NEW: &str = "state.new";
pub(super) const LEASE: &str = "lease";
pub(super) const LEASE_NEW: &str = "lease.new";
/// Marker file of earlier versions.
pub(super) const RUNNING: &str = "running";
pub(super) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
pub(super) const PRIVATE_FOLDER: u32 = 0o700;

/// State directory of one server, locked for the lifetime of this value.
///
/// Files are opened without following links and must be regular files.
#[derive(Debug)]
pub struct StateDir {
    fd: OwnedFd,
    _lock: File,
    lease: Option<String>,
}

impl StateDir {
    /// Opens the directory and creates it if it does not exist; fails if another server has locked
    /// it.
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
                let why =
                    "in use by another server; stop that server, or give each its own directory";
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

    /// Takes over the saved state and writes the lease of this run. Also returns a step of the
    /// clock since the last run, if both runs were on the same boot of the machine.
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

    /// Saves the state for the next run.
    pub fn leave(&self, state: &State, now: &Moment) -> io::Result<()> {
        let lease = self
            .lease
            .clone()
            .ok_or_else(|| io::Error::other("no lease was taken for this run"))?;
        let saved = Saved {
            lease,
            boot: now.boot.clone(),
            state,
        };
        let payload = rmp_serde::to_vec_named(&saved).map_err(io::Error::other)?;
        self.replace(STATE_NEW, STATE, &sealed_bytes(&payload))
    }

    /// Replaces a file atomically: writes a new file and renames it.
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

    /// Reads a file; `None` if it does not exist.
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

    /// Removes a file; returns true if it existed.
    fn remove(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(named(name, &error.into())),
        }
    }
}

/// Opens a private regular file of the directory without following links.
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

/// Restricts the directory to its owner if it belongs to this user and contains only a state; any
/// other directory is left unchanged.
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
