//! Reads sections and values from the tree according to the table of keys, and collects all
//! problems.

mod values;

use std::cell::RefCell;
use std::fmt::Debug;

use super::findings::Findings;
use super::table::{self, Kind};
use super::yaml::{Mark, Node, Value};
use super::{PROBLEMS_MAX, Problem};

/// One section of the file. Each key that is read becomes known; [`Section::finish`] reports the
/// others.
pub(super) struct Section<'c> {
    entries: &'c [(String, Node)],
    /// Position of the section's start.
    pub mark: Mark,
    /// Path shown to users, e.g. `sources[0]`.
    shown: String,
    /// Path in the table, e.g. `sources.sim`.
    path: String,
    taken: RefCell<Vec<String>>,
    findings: &'c Findings,
}

/// Value from the file, or the default of the table.
struct Given<'c> {
    text: &'c str,
    mark: Mark,
}

impl<'c> Section<'c> {
    pub(super) fn root(node: &'c Node, findings: &'c Findings) -> Self {
        let section = Self::of(node, String::new(), String::new(), findings);
        section.unwrap_or(Self {
            entries: &[],
            mark: node.mark,
            shown: String::new(),
            path: String::new(),
            taken: RefCell::default(),
            findings,
        })
    }

    fn of(node: &'c Node, shown: String, path: String, findings: &'c Findings) -> Option<Self> {
        let entries: &[(String, Node)] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let message = format!("expected a section of keys, got {}", other.kind());
                findings.problem(Problem::new(node.mark, &shown, message));
                return None;
            }
        };
        Some(Self {
            entries,
            mark: node.mark,
            shown,
            path,
            taken: RefCell::default(),
            findings,
        })
    }

    fn shown_path(&self, key: &str) -> String {
        if self.shown.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.shown)
        }
    }

    fn table_path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports a problem with a key of this section.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        let mark = self.node(key).map_or(self.mark, |node| node.mark);
        self.findings
            .problem(Problem::new(mark, &self.shown_path(key), message.into()));
    }

    fn node(&self, key: &str) -> Option<&'c Node> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }

    fn take(&self, key: &str) -> Option<&'c Node> {
        self.taken.borrow_mut().push(key.to_owned());
        self.node(key)
    }

    /// True if the key is given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key)
            .is_some_and(|node| !matches!(node.value, Value::Null))
    }

    fn given(&self, key: &str) -> Option<Given<'c>> {
        let default = || {
            let entry = table::find(&self.table_path(key));
            entry.and_then(|entry| entry.default).map(|text| Given {
                text,
                mark: self.mark,
            })
        };
        match self.take(key) {
            None => default(),
            Some(Node {
                value: Value::Null, ..
            }) => default(),
            Some(Node {
                value: Value::Text(text),
                mark,
            }) => Some(Given { text, mark: *mark }),
            Some(Node { value, mark }) => {
                let message = format!("expected a single value, got {}", value.kind());
                self.findings
                    .problem(Problem::new(*mark, &self.shown_path(key), message));
                default()
            }
        }
    }

    /// Reads a value and records it. An invalid value is reported as a problem and replaced by the
    /// default.
    fn read<T: Debug>(
        &self,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.given(key)?;
        let path = self.table_path(key);
        if let Some(value) = parse(given.text) {
            self.record(path, &value);
            return Some(value);
        }
        let message = format!(
            "invalid value \"{}\": expected {wanted}",
            given.text.escape_debug()
        );
        self.findings
            .problem(Problem::new(given.mark, &self.shown_path(key), message));
        table::find(&path)
            .and_then(|entry| entry.default)
            .and_then(parse)
    }

    /// Records a value for comparison with another config.
    fn record(&self, path: String, value: &impl Debug) {
        let mut values = self.findings.values.borrow_mut();
        values.insert(path, format!("{value:?}"));
    }

    fn kind(&self, key: &str) -> Kind {
        table::find(&self.table_path(key)).map_or(Kind::Text, |entry| entry.kind)
    }

    /// Section at `key`; empty if absent.
    pub(super) fn section(&self, key: &str) -> Section<'c> {
        let (shown, path) = (self.shown_path(key), self.table_path(key));
        let found = self
            .take(key)
            .and_then(|node| Self::of(node, shown.clone(), path.clone(), self.findings));
        found.unwrap_or(Section {
            entries: &[],
            mark: self.mark,
            shown,
            path,
            taken: RefCell::default(),
            findings: self.findings,
        })
    }

    /// Sections of the list at `key`; `path` is their path in the table.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'c>> {
        match self.take(key).map(|node| (&node.value, node.mark)) {
            None | Some((Value::Null, _)) => Vec::new(),
            Some((Value::List(items), _)) => {
                let one = |(at, item): (usize, &'c Node)| {
                    let shown = format!("{}[{at}]", self.shown_path(key));
                    Self::of(item, shown, self.table_path(key), self.findings)
                };
                items.iter().enumerate().filter_map(one).collect()
            }
            Some((other, _)) => {
                self.problem(key, format!("expected a list, got {}", other.kind()));
                Vec::new()
            }
        }
    }

    /// Sections with arbitrary names below `key`, with their names.
    pub(super) fn named_sections(&self, key: &str) -> Vec<(&'c str, Section<'c>)> {
        let below = self.section(key);
        let one = |(name, node): &'c (String, Node)| {
            let shown = below.shown_path(name);
            let section = Self::of(node, shown, below.path.clone(), self.findings)?;
            Some((name.as_str(), section))
        };
        below.entries.iter().filter_map(one).collect()
    }

    /// Lists of strings with arbitrary names below `key`, with their names.
    pub(super) fn named_lists(&self, key: &str) -> Vec<(String, Vec<String>)> {
        let below = self.section(key);
        let one = |(name, _): &(String, Node)| (name.clone(), below.given_texts(name));
        below.entries.iter().map(one).collect()
    }

    /// Reports a problem with this section as a whole.
    pub(super) fn problem_here(&self, message: String) {
        self.findings
            .problem(Problem::new(self.mark, &self.shown, message));
    }

    /// Variant section with one key that selects the kind: `{gbm: {volatility: 0.6}}`, or just the
    /// word `gbm`.
    pub(super) fn variant(
        &self,
        key: &str,
        known: &[&'static str],
    ) -> Option<(&'static str, Section<'c>)> {
        let node = self.take(key)?;
        let (shown, path) = (self.shown_path(key), self.table_path(key));
        let (word, inner) = match &node.value {
            Value::Null => return None,
            Value::Text(word) => (word, None),
            Value::Map(entries) if entries.len() == 1 => (&entries[0].0, Some(&entries[0].1)),
            other => {
                self.problem(
                    key,
                    format!(
                        "expected one of {}, with its parameters; got {}",
                        known.join(", "),
                        other.kind()
                    ),
                );
                return None;
            }
        };
        let Some(word) = known.iter().copied().find(|name| name == word) else {
            self.problem(
                key,
                format!(
                    "unknown value \"{}\": expected one of {}",
                    word.escape_debug(),
                    known.join(", ")
                ),
            );
            return None;
        };
        let shown = format!("{shown}.{word}");
        let empty = Section {
            entries: &[],
            mark: node.mark,
            shown: shown.clone(),
            path: path.clone(),
            taken: RefCell::default(),
            findings: self.findings,
        };
        Some((
            word,
            inner
                .and_then(|inner| Self::of(inner, shown, path, self.findings))
                .unwrap_or(empty),
        ))
    }

    /// Names and texts of a section with arbitrary keys.
    pub(super) fn pairs(&self, key: &str) -> Vec<(String, String)> {
        let section = self.section(key);
        let text = |(name, node): &(String, Node)| match &node.value {
            Value::Text(text) => Some((name.clone(), text.clone())),
            _ => None,
        };
        section.entries.iter().filter_map(text).collect()
    }

    /// Same section, with keys also looked up under another path of the table.
    pub(super) fn for_kind(self, suffix: &str) -> Self {
        Self {
            path: format!("{}.{suffix}", self.path),
            ..self
        }
    }

    /// Same entries, with keys looked up below another path of the table.
    pub(super) fn at(&self, path: &str) -> Self {
        Self {
            entries: self.entries,
            mark: self.mark,
            shown: self.shown.clone(),
            path: path.to_owned(),
            taken: RefCell::default(),
            findings: self.findings,
        }
    }

    /// Marks keys as known that are read elsewhere.
    pub(super) fn mark_known(&self, keys: &[&str]) {
        self.taken
            .borrow_mut()
            .extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Reports unknown keys.
    pub(super) fn finish(&self) {
        let taken = self.taken.borrow();
        let unknown = self
            .entries
            .iter()
            .filter(|(name, _)| !taken.contains(name));
        for (at, (name, node)) in unknown.enumerate() {
            if at > PROBLEMS_MAX {
                // Counted only: no report shows it.
                self.findings
                    .problem(Problem::new(node.mark, name, "unknown key".to_owned()));
                continue;
            }
            let known: Vec<&str> = taken.iter().map(String::as_str).collect();
            let offer = nearest(name, &known).map_or_else(
                || format!("expected one of {}", known.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            let message = format!("unknown key; {offer}");
            self.findings
                .problem(Problem::new(node.mark, &self.shown_path(name), message));
        }
    }
}

/// Most similar known key, if any is similar enough.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .copied()
        .map(|other| (strsim::levenshtein(name, other), other))
        .filter(|(far, other)| *far <= other.len().max(3) / 3 + 1)
        .min()
        .map(|(_, other)| other)
}
