//! Faults of one source, shared between the source and operators.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::FaultSpec;
use crate::market::{Symbol, UnixNanos};

/// Maximum number of faults of a source at once.
const FAULTS_MAX: usize = 100;

/// Reason for rejecting a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// The config does not allow faults on command for the source.
    #[error("faults on command are disabled for this source; enable them with `faults.admin`")]
    Disabled,
    /// No instrument matches.
    #[error("no instrument of the source matches \"{0}\"")]
    NoSymbol(String),
    /// Too many faults.
    #[error("too many faults: expected at most {FAULTS_MAX} at once; end some first")]
    Full,
}

/// State of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    #[default]
    Scheduled,
    Active,
}

/// One fault; written by the injector, read over HTTP.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: u32,
    pub(super) spec: FaultSpec,
    is_command: bool,
    is_active: AtomicBool,
    /// Time of the source at which it began last; 0 before.
    begun: AtomicU64,
    /// Number of affected events.
    events: AtomicU64,
}

impl Record {
    pub(super) fn begin(&self, now: UnixNanos) {
        self.begun.store(now.0, Ordering::Relaxed);
        self.is_active.store(true, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.is_active.store(false, Ordering::Relaxed);
    }

    pub(super) fn count_event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

/// Description of a fault for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultReport {
    /// Number of the fault within its source.
    pub id: u32,
    kind: &'static str,
    symbols: String,
    /// Number of instruments that match now.
    instruments: usize,
    /// `config` or `command`.
    origin: &'static str,
    state: State,
    /// Duration, in milliseconds of the source's time.
    for_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    share: String,
    /// Time of the source at which it began last.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<u64>,
    /// Number of events affected so far.
    events: u64,
    effect: &'static str,
}

/// Change that an operator requests.
#[derive(Debug)]
pub(super) enum FaultCommand {
    Begin(Arc<Record>),
    End(u32),
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u32,
    commands: Vec<FaultCommand>,
    records: Vec<Arc<Record>>,
    symbols: Vec<Symbol>,
}

/// All faults of a source.
#[derive(Debug, Default)]
pub struct FaultBoard {
    /// True if operators may inject faults.
    is_open: AtomicBool,
    /// True while commands wait for the source.
    has_commands: AtomicBool,
    inner: Mutex<Inner>,
}

impl FaultBoard {
    /// Creates the board of a source; `is_open` allows faults on command.
    pub fn new(is_open: bool) -> Self {
        let board = Self::default();
        board.set_open(is_open);
        board
    }

    /// Allows or forbids faults on command.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a fault; the source injects it with its next event.
    pub fn inject(&self, spec: FaultSpec) -> Result<FaultReport, BoardError> {
        if !self.is_open.load(Ordering::Relaxed) {
            return Err(BoardError::Disabled);
        }
        let mut inner = self.lock();
        if !inner
            .symbols
            .iter()
            .any(|symbol| spec.symbols.covers(symbol))
        {
            return Err(BoardError::NoSymbol(spec.symbols.as_str().to_owned()));
        }
        if inner.records.len() >= FAULTS_MAX {
            return Err(BoardError::Full);
        }
        let record = inner.add(spec, true);
        inner
            .commands
            .push(FaultCommand::Begin(Arc::clone(&record)));
        self.has_commands.store(true, Ordering::Release);
        Ok(inner.report(&record))
    }

    /// Requests the end of a fault; false if there is none with this number.
    pub fn end(&self, id: u32) -> bool {
        let mut inner = self.lock();
        if !inner.records.iter().any(|record| record.id == id) {
            return false;
        }
        let is_known =
            |command: &FaultCommand| matches!(command, FaultCommand::End(known) if *known == id);
        if !inner.commands.iter().any(is_known) {
            inner.commands.push(FaultCommand::End(id));
        }
        self.has_commands.store(true, Ordering::Release);
        true
    }

    /// All scheduled and active faults.
    pub fn reports(&self) -> Vec<FaultReport> {
        let inner = self.lock();
        let records = inner.records.iter();
        records.map(|record| inner.report(record)).collect()
    }

    pub(super) fn schedule(&self, spec: FaultSpec) -> Arc<Record> {
        self.lock().add(spec, false)
    }

    /// True while commands wait.
    pub(super) fn has_commands(&self) -> bool {
        self.has_commands.load(Ordering::Acquire)
    }

    pub(super) fn take_commands(&self) -> Vec<FaultCommand> {
        let mut inner = self.lock();
        self.has_commands.store(false, Ordering::Release);
        std::mem::take(&mut inner.commands)
    }

    pub(super) fn remove(&self, id: u32) {
        self.lock().records.retain(|record| record.id != id);
    }

    pub(super) fn add_symbol(&self, symbol: Symbol) {
        self.lock().symbols.push(symbol);
    }
}

impl Inner {
    fn add(&mut self, spec: FaultSpec, is_command: bool) -> Arc<Record> {
        self.last_id += 1;
        let record = Arc::new(Record {
            id: self.last_id,
            spec,
            is_command,
            is_active: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            events: AtomicU64::new(0),
        });
        self.records.push(Arc::clone(&record));
        record
    }

    fn report(&self, record: &Record) -> FaultReport {
        let spec = &record.spec;
        let covered = |symbol: &&Symbol| spec.symbols.covers(symbol);
        let state = if record.is_active.load(Ordering::Relaxed) {
            State::Active
        } else {
            State::Scheduled
        };
        let begun = record.begun.load(Ordering::Relaxed);
        FaultReport {
            id: record.id,
            kind: spec.kind.name(),
            symbols: spec.symbols.as_str().to_owned(),
            instruments: self.symbols.iter().filter(covered).count(),
            origin: if record.is_command {
                "command"
            } else {
                "config"
            },
            state,
            for_ms: spec.lasting.as_millis() as u64,
            every_ms: spec.repeat.map(|repeat| repeat.every.as_millis() as u64),
            count: spec.count,
            share: spec.share.normalize().to_string(),
            begun: (begun > 0).then_some(begun),
            events: record.events.load(Ordering::Relaxed),
            effect: spec.kind.effect(),
        }
    }
}
