//! Figures to reach: ratios and values over the rounds of all cases.

use std::collections::BTreeMap;

use crate::case::Round;
use crate::process::Kind;

pub(crate) type Rounds = BTreeMap<Kind, Vec<Round>>;
pub(crate) type Found<'a> = BTreeMap<&'a str, Rounds>;

const MIB: f64 = (1 << 20) as f64;
/// Least user time from which a ratio means anything: 30 samples.
const USER_S_MIN: f64 = 0.3;

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The middle of the rounds that aren't void; of all, where every one is.
pub(crate) fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    Series::of(rounds.iter().map(|round| (of(round), round.void))).median()
}

/// A value per round.
#[derive(Debug, Clone, Default)]
struct Series {
    values: Vec<f64>,
    /// Every round is void.
    is_void: bool,
}

impl Series {
    /// The values of the rounds that aren't void; of all, where every one is.
    fn of(rounds: impl Iterator<Item = (f64, bool)>) -> Self {
        let all: Vec<(f64, bool)> = rounds.collect();
        let sound: Vec<f64> = all
            .iter()
            .filter(|(_, is_void)| !is_void)
            .map(|(value, _)| *value)
            .collect();
        if sound.is_empty() {
            Self {
                values: all.iter().map(|(value, _)| *value).collect(),
                is_void: true,
            }
        } else {
            Self {
                values: sound,
                is_void: false,
            }
        }
    }

    fn ratios(a: &[Round], b: &[Round], of: &dyn Fn(&Round) -> f64) -> Self {
        Self::of(
            a.iter()
                .zip(b)
                .map(|(a, b)| (of(a) / of(b), a.void || b.void)),
        )
    }

    fn median(&self) -> f64 {
        middle(self.values.clone())
    }
}

/// Reason why a figure says nothing about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// In every round the tester was the bottleneck.
    Void,
    /// The bare writer misses the bound as well: the machine is too busy.
    BareMissesIt,
}

impl Doubt {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Void => "void: the tester was too busy",
            Self::BareMissesIt => "not judged: bare misses it too",
        }
    }
}

/// A figure, with one value per round.
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    series: Series,
    /// The value over all rounds together, where it is not the median.
    pooled: Option<f64>,
    /// `None`: for comparison only.
    pub(crate) bound: Option<f64>,
    /// Whether more is better.
    pub(crate) at_least: bool,
    pub(crate) doubt: Option<Doubt>,
}

impl Figure {
    pub(crate) fn measured(&self) -> f64 {
        self.pooled.unwrap_or_else(|| self.series.median())
    }

    /// The least and the greatest value.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let values = || self.series.values.iter().copied();
        (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        )
    }

    /// How far from the bound: from 1 on it is reached. A value that is not a number is not.
    pub(crate) fn reached(&self) -> f64 {
        let Some(bound) = self.bound else { return 1.0 };
        let reached = if self.at_least {
            self.measured() / bound
        } else {
            // Nothing to reach is left below zero.
            bound / self.measured().max(f64::MIN_POSITIVE)
        };
        if reached.is_nan() { 0.0 } else { reached }
    }

    /// Missed by a factor of two.
    pub(crate) fn is_far_off(&self) -> bool {
        self.reached() < 0.5
    }
}

/// The cases measured, and the figures made of them so far.
struct Figures<'a> {
    found: &'a Found<'a>,
    list: Vec<Figure>,
}

impl Figures<'_> {
    fn rounds(&self, case: &str, kind: Kind) -> Option<&[Round]> {
        Some(self.found.get(case)?.get(&kind)?)
    }

    fn of(&self, case: &str, kind: Kind, of: &dyn Fn(&Round) -> f64) -> Option<Series> {
        let rounds = self.rounds(case, kind)?;
        Some(Series::of(
            rounds.iter().map(|round| (of(round), round.void)),
        ))
    }

    fn own(&self, case: &str, of: &dyn Fn(&Round) -> f64) -> Option<Series> {
        self.of(case, Kind::Tickcast, of)
    }

    /// The ratios to another server in rounds that ran one after the other, because the machine's
    /// speed drifts.
    fn to(&self, case: &str, other: Kind, of: &dyn Fn(&Round) -> f64) -> Option<Series> {
        let (own, other) = (
            self.rounds(case, Kind::Tickcast)?,
            self.rounds(case, other)?,
        );
        Some(Series::ratios(own, other, of))
    }

    /// The ratios of the same clients with TLS to those without.
    fn tls(&self, case: &str, of: &dyn Fn(&Round) -> f64) -> Option<Series> {
        let (with, without) = (
            self.rounds(case, Kind::Tls)?,
            self.rounds(case, Kind::Tickcast)?,
        );
        Some(Series::ratios(with, without, of))
    }

    /// The ratios between the rounds of two cases.
    fn between(
        &self,
        (a, b): (&str, &str),
        kind: Kind,
        of: &dyn Fn(&Round) -> f64,
    ) -> Option<Series> {
        Some(Series::ratios(
            self.rounds(a, kind)?,
            self.rounds(b, kind)?,
            of,
        ))
    }

    /// A time that no server can reach while other programs take the machine: not judged where the
    /// bare writer misses it as well.
    fn calm_at_most(&mut self, what: &'static str, bound: f64, case: &str, of: Value<'_>) {
        let bare = self.of(case, Kind::Bare, of);
        self.at_most(what, bound, self.own(case, of));
        if let (Some(bare), Some(figure)) = (bare, self.list.last_mut())
            && figure.what == what
            && bare.median() > bound
        {
            figure.doubt = Some(Doubt::BareMissesIt);
        }
    }

    /// Ratio of the user time per delivery of two cases, over all their rounds together; none where
    /// the time is too short for the kernel's samples.
    fn growth(&mut self, what: &'static str, bound: Option<f64>, cases: (&str, &str), kind: Kind) {
        let sum = |case| {
            let rounds = self.rounds(case, kind)?;
            let user: f64 = rounds.iter().map(|round| round.user_s).sum();
            let delivered: u64 = rounds.iter().map(|round| round.delivered).sum();
            (user >= USER_S_MIN).then_some(user / delivered as f64)
        };
        let (Some(a), Some(b)) = (sum(cases.0), sum(cases.1)) else {
            return;
        };
        let series = self.between(cases, kind, USER);
        self.add(what, bound, false, series);
        if let Some(figure) = self.list.last_mut() {
            figure.pooled = Some(a / b);
        }
    }

    fn at_most(&mut self, what: &'static str, bound: f64, series: Option<Series>) {
        self.add(what, Some(bound), false, series);
    }

    fn at_least(&mut self, what: &'static str, bound: f64, series: Option<Series>) {
        self.add(what, Some(bound), true, series);
    }

    fn add(
        &mut self,
        what: &'static str,
        bound: Option<f64>,
        at_least: bool,
        series: Option<Series>,
    ) {
        self.list.extend(series.map(|series| Figure {
            what,
            doubt: series.is_void.then_some(Doubt::Void),
            series,
            pooled: None,
            bound,
            at_least,
        }));
    }
}

type Value<'a> = &'a dyn Fn(&Round) -> f64;

const RATE: Value<'_> = &|round| round.delivered_per_s;
const USER: Value<'_> = &|round| round.user_per_million;
const CPU: Value<'_> = &Round::cpu_per_million;
const P50: Value<'_> = &|round| round.published.p50;
const P99: Value<'_> = &|round| round.published.p99;
const P99_MS: Value<'_> = &|round| round.published.p99 / 1e3;
const DUE_P99: Value<'_> = &|round| round.due.p99;

pub(crate) fn figures(found: &Found<'_>) -> Vec<Figure> {
    let mut figures = Figures {
        found,
        list: Vec::new(),
    };
    latency(&mut figures);
    encryption(&mut figures);
    throughput(&mut figures);
    growth(&mut figures);
    memory(&mut figures);
    figures.list
}

fn latency(all: &mut Figures<'_>) {
    let calls: Value<'_> = &|round| {
        round
            .calls
            .map_or(f64::NAN, |calls| calls.serving + calls.other)
    };
    all.calm_at_most("lone: p50 µs", 15.0, "lone", P50);
    all.calm_at_most("lone: p99 µs", 45.0, "lone", P99);
    let counted = all
        .own("lone", calls)
        .filter(|series| !series.median().is_nan());
    all.at_most("lone: system calls per event", 7.0, counted);
    all.at_most("busy: p50 to bare", 1.10, all.to("busy", Kind::Bare, P50));
    all.at_most("busy: p99 to bare", 1.15, all.to("busy", Kind::Bare, P99));
    all.at_most(
        "busy: p99 from due to bare",
        1.15,
        all.to("busy", Kind::Bare, DUE_P99),
    );
    all.at_most("dense: p99 to bare", 1.15, all.to("dense", Kind::Bare, P99));
    all.at_most("fast: p99 ms", 50.0, all.own("fast", P99_MS));
    all.at_most(
        "broadcast: p99 to bare",
        1.20,
        all.to("broadcast", Kind::Bare, P99),
    );
    all.at_most(
        "many (9,500 connections): p99 to bare",
        1.3,
        all.to("many", Kind::Bare, P99),
    );
    all.at_most(
        "many (9,500 connections): p99 from due to bare",
        1.3,
        all.to("many", Kind::Bare, DUE_P99),
    );
    all.at_most("window of 20 ms: p99 ms", 25.0, all.own("window", P99_MS));
    all.at_most(
        "10 % stalled, 10 % slow: p99 to none",
        1.1,
        all.between(("stalled", "calm"), Kind::Tickcast, P99),
    );
    let p50_ms: Value<'_> = &|round| round.published.p50 / 1e3;
    all.at_most("conflate: p50 ms", 5.0, all.own("conflate", p50_ms));
}

fn encryption(all: &mut Figures<'_>) {
    all.at_most(
        "encrypted: user CPU per delivery, TLS to plain",
        1.35,
        all.tls("encrypted", USER),
    );
    for (what, case, of) in [
        (
            "encrypted: CPU per delivery, TLS to plain",
            "encrypted",
            CPU,
        ),
        ("encrypted: p99, TLS to plain", "encrypted", P99),
        ("busy: user CPU per delivery, TLS to plain", "busy", USER),
        ("busy: p99, TLS to plain", "busy", P99),
    ] {
        all.add(what, None, false, all.tls(case, of));
    }
}

fn throughput(all: &mut Figures<'_>) {
    all.at_least(
        "fast: deliveries/s to bare",
        0.90,
        all.to("fast", Kind::Bare, RATE),
    );
    all.at_least(
        "fast: deliveries/s to naive",
        50.0,
        all.to("fast", Kind::Naive, RATE),
    );
    all.at_least(
        "flat out: deliveries/s to bare",
        0.80,
        all.to("flat_out", Kind::Bare, RATE),
    );
    let core: Value<'_> = &|round| round.serving;
    all.at_most(
        "conflate: share of the shard's core",
        0.4,
        all.own("conflate", core),
    );
    all.at_most(
        "calm: CPU per delivery to bare",
        1.10,
        all.to("calm", Kind::Bare, CPU),
    );
    all.at_most("calm: user CPU s per million", 0.9, all.own("calm", USER));
    all.at_most(
        "dense: user CPU s per million",
        0.15,
        all.own("dense", USER),
    );
    all.at_most(
        "broadcast: CPU to bare",
        1.15,
        all.to("broadcast", Kind::Bare, CPU),
    );
    all.at_most(
        "wide: CPU per delivery to bare",
        1.15,
        all.to("wide", Kind::Bare, CPU),
    );
    all.at_most(
        "window of 20 ms: CPU to none",
        0.5,
        all.between(("window", "busy"), Kind::Tickcast, CPU),
    );
}

fn growth(all: &mut Figures<'_>) {
    let connections = ("many", "few");
    let what = "growth: user CPU, 9,500 to 100 connections";
    all.growth(what, Some(2.3), connections, Kind::Tickcast);
    let what = "growth: user CPU of bare, 9,500 to 100 connections";
    all.growth(what, None, connections, Kind::Bare);
    let what = "growth: user CPU, 10,000 to 10 topics";
    all.growth(
        what,
        Some(1.15),
        ("10000_topics", "10_topics"),
        Kind::Tickcast,
    );
}

fn memory(all: &mut Figures<'_>) {
    let each: Value<'_> = &|round| round.memory_each;
    all.at_most("idle: bytes per connection", 1400.0, all.own("idle", each));
    all.at_most(
        "9,500 handshakes at once: bytes per connection",
        1600.0,
        all.own("handshakes", each),
    );
    let peak: Value<'_> = &|round| round.memory_peak_bytes as f64 / MIB;
    all.at_most(
        "9,500 handshakes at once: MiB at peak",
        64.0,
        all.own("handshakes", peak),
    );
    let drained: Value<'_> = &|round| {
        round
            .memory
            .map_or(f64::NAN, |memory| memory.drained as f64)
    };
    all.at_most(
        "burst: RSS after draining to that of prompt readers",
        1.15,
        all.between(("burst", "prompt"), Kind::Tickcast, drained),
    );
    let left: Value<'_> = &|round| {
        round.memory.map_or(f64::NAN, |memory| {
            (memory.left as f64 - memory.start as f64) / MIB
        })
    };
    all.at_most(
        "burst: MiB left after all clients left",
        64.0,
        all.own("burst", left),
    );
    let storm: Value<'_> = &|round| round.storm_s.unwrap_or(f64::NAN);
    all.at_most(
        "storm: s until 9,500 are back",
        5.0,
        all.own("storm", storm),
    );
}
