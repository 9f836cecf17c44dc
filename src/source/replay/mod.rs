//! Recorded files, played again: merged by time into one stream, paced by the recorded time.
//!
//! Invariant: the same files give the same events. The source's time is the newest event time so far; an event that is
//! older than one before it comes at once, in the file's order.

mod format;
mod read;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Output, Source, SourceError, SourceFuture};
use crate::bus::Emit;
use crate::market::{Instrument, PriceRules, SourceKind, Symbol, UnixNanos};
use format::{Row, What};
use read::Recording;

/// How often the source tells its time, in its own time.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// At full speed a long pause of the recording is passed in such steps.
const PAUSE_MARK_EVERY: Duration = Duration::from_secs(60);
/// Events emitted at once.
const EMIT_AT: usize = 1024;

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times the recorded time.
    Times(f64),
    /// As fast as the bus takes it.
    Max,
}

impl Speed {
    /// Reads `max`, or a number from 0.1 to 1000.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "max" {
            return Some(Self::Max);
        }
        text.parse()
            .ok()
            .filter(|times| (0.1..=1000.0).contains(times))
            .map(Self::Times)
    }
}

/// When a replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// When the server does.
    Now,
    /// After the first subscription to one of its topics.
    FirstSubscriber,
}

/// What the config says of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayConfig {
    /// The files, or patterns of files.
    pub files: Vec<PathBuf>,
    /// How fast.
    pub speed: Speed,
    /// Begin again at the end.
    pub repeat: bool,
    /// When to begin.
    pub begin: Begin,
    /// The symbol of files that tell none.
    pub symbol: Option<Symbol>,
    /// Bad lines after which the source stops.
    pub max_bad: u64,
    /// Negative, zero and crossed prices.
    pub prices: PriceRules,
    /// Which column is what, for CSV of an unknown form.
    pub columns: Option<Columns>,
}

/// Columns of a CSV file, by their names in its header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    /// The event's time.
    pub time: String,
    /// The symbol.
    pub symbol: Option<String>,
    /// The venue, put in front of the symbol.
    pub venue: Option<String>,
    /// What tells trades from quotes.
    pub row_type: Option<String>,
    /// What that column holds for a trade.
    pub trade: String,
    /// What that column holds for a quote.
    pub quote: String,
    /// A trade's price.
    pub price: Option<String>,
    /// A trade's quantity.
    pub qty: Option<String>,
    /// A trade's aggressor.
    pub side: Option<String>,
    /// A trade's id.
    pub id: Option<String>,
    /// The best bid's price.
    pub bid: Option<String>,
    /// The best bid's quantity.
    pub bid_qty: Option<String>,
    /// The best offer's price.
    pub ask: Option<String>,
    /// The best offer's quantity.
    pub ask_qty: Option<String>,
}

/// A recorded file that can't be played.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct ReplayError {
    path: PathBuf,
    error: String,
    /// The file itself is wrong, so trying again would fail the same way.
    is_final: bool,
}

impl ReplayConfig {
    /// Opens every file and detects its format; returns all that is wrong. It waits for the file system, so it must run on a
    /// plain thread.
    pub fn probe(&self) -> Vec<ReplayError> {
        let symbol = self.symbol.as_ref().map(ToString::to_string);
        let open = |path: PathBuf| {
            read::open(&path, self.columns.clone(), symbol.clone(), self.prices)?.opened_blocking()
        };
        let mut wrong = Vec::new();
        for pattern in &self.files {
            match read::expand(std::slice::from_ref(pattern)) {
                Ok(paths) => wrong.extend(paths.into_iter().filter_map(|path| open(path).err())),
                Err(error) => wrong.push(error),
            }
        }
        wrong
    }
}

/// The source.
#[derive(Debug)]
pub struct Replay {
    config: ReplayConfig,
    /// From where it goes on when it runs; where it has come to once it has stopped.
    place: Option<Place>,
    /// It was given a place that it can't read.
    starts_over: bool,
}

/// Where a replay has come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    /// How often it has begun again.
    round: u32,
    /// Rows that were played in this round.
    rows: u64,
    /// When the first row was due.
    begun: UnixNanos,
    /// The next time mark, in recorded time.
    next_mark: UnixNanos,
    /// All instruments that were told, so that they are there again at once, wherever in the files they come.
    told: Vec<Instrument>,
}

/// One file's place in the merge.
#[derive(Debug)]
struct Lane {
    recording: Recording,
    rows: VecDeque<Row>,
    /// The newest event time so far.
    newest: UnixNanos,
}

/// Names and numbers of what is played.
#[derive(Debug, Default)]
struct Names {
    /// Symbols that several venues have: theirs stand with the venue in front.
    shared: HashSet<Symbol>,
    numbers: HashMap<(Option<Symbol>, Symbol), u32>,
    told: BTreeMap<Symbol, Instrument>,
    has_trades: bool,
    has_quotes: bool,
    venue_always: bool,
}

impl Replay {
    /// A replay of recorded files, which goes on from its place where it has one.
    pub fn new(config: ReplayConfig, place: Option<Vec<u8>>) -> Self {
        let kept: Option<Place> = place
            .as_ref()
            .and_then(|bytes| rmp_serde::from_slice(bytes).ok());
        Self {
            config,
            starts_over: place.is_some() && kept.is_none(),
            place: kept,
        }
    }

    async fn play(&mut self, out: &mut Output) -> Result<(), SourceError> {
        if std::mem::take(&mut self.starts_over) {
            out.emit(&mut vec![Emit::StartOver]).await?;
        }
        let mut bad = 0;
        let mut kept = self.place.take();
        let mut round = kept.as_ref().map_or(0, |place| place.round);
        let mut told = kept
            .as_mut()
            .map_or_else(Vec::new, |place| std::mem::take(&mut place.told));
        loop {
            let mut lanes = self.open(&mut bad, out).await?;
            let mut names = Names::of(&lanes, self.config.columns.is_some());
            names.announce(told, &lanes, out).await?;
            if kept.is_some() {
                // It goes on in the epoch in which it was.
            } else if round == 0 {
                tokio::select! {
                    () = out.gate.passed() => {}
                    () = out.stopping() => return Err(SourceError::Stopped),
                }
            } else {
                out.emit(&mut vec![Emit::StartOver]).await?;
            }
            if lanes.iter().all(|lane| lane.rows.is_empty()) {
                return if round == 0 {
                    Err(SourceError::Final("the files hold no rows".to_owned()))
                } else {
                    Ok(())
                };
            }
            self.play_once(&mut lanes, &mut names, &mut bad, (round, kept.take()), out)
                .await?;
            if !self.config.repeat {
                return Ok(());
            }
            told = names.told();
            round += 1;
        }
    }

    async fn open(&self, bad: &mut u64, out: &Output) -> Result<Vec<Lane>, SourceError> {
        let failed = |error: ReplayError| {
            let message = error.to_string();
            if error.is_final {
                SourceError::Final(message)
            } else {
                SourceError::Failed(message)
            }
        };
        let mut lanes = Vec::new();
        let patterns = self.config.files.clone();
        // A folder may lie on a file system that hangs.
        let expanded = tokio::task::spawn_blocking(move || read::expand(&patterns));
        let Ok(paths) = expanded.await else {
            return Err(SourceError::Stopped);
        };
        for path in paths.map_err(failed)? {
            let symbol = self.config.symbol.as_ref().map(ToString::to_string);
            let opening = read::open(
                &path,
                self.config.columns.clone(),
                symbol,
                self.config.prices,
            )
            .map_err(failed)?;
            let recording = opening.opened().await.map_err(failed)?;
            let mut lane = Lane {
                recording,
                rows: VecDeque::new(),
                newest: UnixNanos::default(),
            };
            self.refill(&mut lane, bad, out).await?;
            lanes.push(lane);
        }
        Ok(lanes)
    }

    /// Takes the file's next rows, unless it has come to its end.
    async fn refill(
        &self,
        lane: &mut Lane,
        bad: &mut u64,
        out: &Output,
    ) -> Result<(), SourceError> {
        while lane.rows.is_empty() {
            let Some(chunk) = lane.recording.chunks.recv().await else {
                return Ok(());
            };
            let file = lane.recording.path.display();
            for (line, error) in chunk.bad {
                *bad += 1;
                out.metrics.bad_input.with_label_values(&["bad_line"]).inc();
                if *bad > self.config.max_bad {
                    let message = format!(
                        "more than {} bad lines (max_bad); the last is {file}:{line}: {error}",
                        self.config.max_bad
                    );
                    return Err(SourceError::Final(message));
                }
                tracing::warn!(
                    source = &*out.name,
                    "{file}:{line}: {error}; the line is skipped"
                );
            }
            if let Some(error) = chunk.broken {
                return Err(SourceError::Final(format!("{file}: {error}")));
            }
            lane.rows = chunk.rows.into();
        }
        Ok(())
    }

    async fn play_once(
        &mut self,
        lanes: &mut [Lane],
        names: &mut Names,
        bad: &mut u64,
        (round, kept): (u32, Option<Place>),
        out: &mut Output,
    ) -> Result<(), SourceError> {
        let mut heap: BinaryHeap<Reverse<(UnixNanos, usize)>> = lanes
            .iter()
            .enumerate()
            .filter_map(|(at, lane)| lane.next(at))
            .collect();
        let Some(Reverse((first, _))) = heap.peek().copied() else {
            return Ok(());
        };
        let begun = kept
            .as_ref()
            .map_or_else(|| out.clock.now(), |place| place.begun);
        let mut pace = Pace {
            speed: self.config.speed,
            begun,
            first,
        };
        let mut next_mark = kept
            .as_ref()
            .map_or(first.floor(MARK_EVERY), |place| place.next_mark);
        let played = kept.map_or(0, |place| place.rows);
        let mut rows = 0;
        let mut emitted = Vec::new();
        let mut last = first;
        while let Some(Reverse((due, at))) = heap.pop() {
            if out.is_stopping() {
                out.emit(&mut emitted).await?;
                self.place = Some(Place {
                    round,
                    rows: rows.max(played),
                    begun,
                    next_mark,
                    told: names.told(),
                });
                return Err(SourceError::Stopped);
            }
            while rows >= played && next_mark <= due {
                if pace.wait(next_mark, &mut emitted, out).await? == Waited::Stopped {
                    self.place = Some(Place {
                        round,
                        rows,
                        begun,
                        next_mark,
                        told: names.told(),
                    });
                    return Err(SourceError::Stopped);
                }
                emitted.push(Emit::Mark(next_mark));
                let is_pause =
                    self.config.speed == Speed::Max && due.since(next_mark) > PAUSE_MARK_EVERY;
                next_mark = next_mark.plus(if is_pause {
                    PAUSE_MARK_EVERY
                } else {
                    MARK_EVERY
                });
            }
            if rows >= played && pace.wait(due, &mut emitted, out).await? == Waited::Stopped {
                self.place = Some(Place {
                    round,
                    rows,
                    begun,
                    next_mark,
                    told: names.told(),
                });
                return Err(SourceError::Stopped);
            }
            let lane = &mut lanes[at];
            let Some(row) = lane.rows.pop_front() else {
                continue;
            };
            lane.newest = due;
            last = last.max(due);
            rows += 1;
            if rows > played {
                names.emit(row, &mut emitted, out).await?;
            } else {
                // It was played before the server stopped; only its instrument must be known.
                names.know(&row, out).await?;
            }
            if lane.rows.is_empty() {
                self.refill(lane, bad, out).await?;
            }
            heap.extend(lanes[at].next(at));
        }
        emitted.push(Emit::Mark(last));
        out.emit(&mut emitted).await?;
        // Should it be the end, a server that goes on from here has nothing to play.
        self.place = Some(Place {
            round,
            rows,
            begun,
            next_mark,
            told: names.told(),
        });
        Ok(())
    }
}

impl Lane {
    /// When the next row is due, by the file's own order.
    fn next(&self, at: usize) -> Option<Reverse<(UnixNanos, usize)>> {
        self.rows
            .front()
            .map(|row| Reverse((row.ts().max(self.newest), at)))
    }
}

impl Names {
    fn of(lanes: &[Lane], venue_always: bool) -> Self {
        let mut venues: HashMap<&Symbol, HashSet<&Symbol>> = HashMap::new();
        for row in lanes.iter().flat_map(|lane| &lane.rows) {
            venues.entry(&row.symbol).or_default().extend(&row.venue);
        }
        Self {
            shared: venues
                .into_iter()
                .filter(|(_, venues)| venues.len() > 1)
                .map(|(symbol, _)| symbol.clone())
                .collect(),
            numbers: HashMap::new(),
            told: BTreeMap::new(),
            has_trades: lanes.iter().any(|lane| lane.recording.has_trades),
            has_quotes: lanes.iter().any(|lane| lane.recording.has_quotes),
            venue_always,
        }
    }

    /// Tells the instruments of before and of the files' first rows, all at once.
    async fn announce(
        &mut self,
        before: Vec<Instrument>,
        lanes: &[Lane],
        out: &mut Output,
    ) -> Result<(), SourceError> {
        let mut seen = HashSet::new();
        let rows = lanes.iter().flat_map(|lane| &lane.rows);
        let fresh = rows.filter(|row| seen.insert((row.venue.as_ref(), &row.symbol)));
        let first: Vec<Instrument> = fresh
            .map(|row| self.instrument(row))
            .collect::<Result<_, _>>()?;
        let instruments: Vec<Instrument> = before.into_iter().chain(first).collect();
        self.told.extend(
            instruments
                .iter()
                .map(|instrument| (instrument.symbol.clone(), instrument.clone())),
        );
        // A file without rows has no instrument, but its source has begun all the same.
        out.announce(instruments).await
    }

    fn told(&self) -> Vec<Instrument> {
        self.told.values().cloned().collect()
    }

    /// The source's number of a row's instrument, told if it is new.
    async fn number(&mut self, row: &Row, out: &mut Output) -> Result<u32, SourceError> {
        let instrument = self.instrument(row)?;
        let symbol = instrument.symbol.clone();
        self.told.insert(symbol.clone(), instrument.clone());
        out.announce(vec![instrument]).await?;
        let number = out
            .number(&symbol)
            .expect("it was announced just now, or before");
        self.numbers
            .insert((row.venue.clone(), row.symbol.clone()), number);
        Ok(number)
    }

    fn instrument(&self, row: &Row) -> Result<Instrument, SourceError> {
        let symbol = match &row.venue {
            Some(venue) if self.venue_always || self.shared.contains(&row.symbol) => row
                .symbol
                .with_venue(venue)
                .map_err(|error| SourceError::Final(format!("with its venue in front, {error}")))?,
            _ => row.symbol.clone(),
        };
        let (price_scale, qty_scale) = match &row.what {
            What::Trade(trade) => (trade.px.0.scale(), trade.qty.0.scale()),
            What::Quote(quote) => quote
                .bid
                .or(quote.ask)
                .map_or((0, 0), |level| (level.px.0.scale(), level.qty.0.scale())),
        };
        let spelling = row.symbol.venue_spelling();
        let venue_symbol = (spelling != symbol.as_str()).then(|| Box::from(&*spelling));
        Ok(Instrument {
            symbol,
            description: String::new(),
            price_scale,
            qty_scale,
            src: SourceKind::Replay,
            has_trades: self.has_trades,
            has_quotes: self.has_quotes,
            stale_after: None,
            session_start: Duration::ZERO,
            venue_symbol,
        })
    }

    /// Tells a row's instrument, if that is new.
    async fn know(&mut self, row: &Row, out: &mut Output) -> Result<(), SourceError> {
        if !self
            .numbers
            .contains_key(&(row.venue.clone(), row.symbol.clone()))
        {
            self.number(row, out).await?;
        }
        Ok(())
    }

    async fn emit(
        &mut self,
        row: Row,
        emitted: &mut Vec<Emit>,
        out: &mut Output,
    ) -> Result<(), SourceError> {
        let known = self
            .numbers
            .get(&(row.venue.clone(), row.symbol.clone()))
            .copied();
        let number = match known {
            Some(number) => number,
            None => {
                // What was before goes out before the instrument is told.
                out.emit(emitted).await?;
                self.number(&row, out).await?
            }
        };
        emitted.push(match row.what {
            What::Trade(trade) => Emit::Trade(number, trade),
            What::Quote(quote) => {
                if quote.is_crossed() {
                    out.metrics.bad_input.with_label_values(&["crossed"]).inc();
                }
                Emit::Quote(number, quote)
            }
        });
        Ok(())
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Due,
    /// The source is to stop; nothing is left to be emitted.
    Stopped,
}

/// When what was recorded at a time is due now.
#[derive(Debug)]
struct Pace {
    speed: Speed,
    begun: UnixNanos,
    first: UnixNanos,
}

impl Pace {
    /// Emits what was due before, and waits until `time` is.
    async fn wait(
        &mut self,
        time: UnixNanos,
        emitted: &mut Vec<Emit>,
        out: &Output,
    ) -> Result<Waited, SourceError> {
        let due = match self.speed {
            Speed::Times(times) => self.begun.plus(time.since(self.first).div_f64(times)),
            Speed::Max => UnixNanos::default(),
        };
        if due > out.clock.now() {
            out.emit(emitted).await?;
            tokio::select! {
                () = out.clock.sleep_until(due) => {}
                () = out.stopping() => return Ok(Waited::Stopped),
            }
        } else if emitted.len() >= EMIT_AT {
            out.emit(emitted).await?;
        }
        Ok(Waited::Due)
    }
}

impl Source for Replay {
    fn run<'a>(&'a mut self, out: &'a mut Output) -> SourceFuture<'a> {
        Box::pin(self.play(out))
    }

    fn place(&mut self) -> Option<Vec<u8>> {
        self.place
            .take()
            .and_then(|place| rmp_serde::to_vec(&place).ok())
    }
}
