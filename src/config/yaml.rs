//! YAML as a tree whose nodes know their positions.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::Problem;

/// Maximum nesting depth of lists and sections, in either style; a valid config needs eight.
const DEPTH_MAX: usize = 64;

/// Position in the file; line and column start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub line: usize,
    pub column: usize,
}

impl Mark {
    fn of(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub mark: Mark,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Scalar; plain `null`, `~` and empty values are `Null`.
    Text(String),
    Null,
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Value {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a value",
            Self::Null => "nothing",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

/// Parses one document. Duplicate keys are reported as problems, and the first one is used.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
        problems,
    };
    loop {
        match events.next()? {
            (Event::DocumentStart(_) | Event::StreamStart, _) => {}
            (Event::StreamEnd, _) => {
                return Some(Node {
                    mark: Mark { line: 1, column: 1 },
                    value: Value::Map(Vec::new()),
                });
            }
            (event, span) => {
                let node = events.node(event, span, "", 0)?;
                events.end();
                return Some(node);
            }
        }
    }
}

struct Events<'t, 'p> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    problems: &'p mut Vec<Problem>,
}

impl<'t> Events<'t, '_> {
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        match self.parser.next_event()? {
            Ok(found) => Some(found),
            Err(error) => {
                let mark = Mark {
                    line: error.marker().line(),
                    column: error.marker().col() + 1,
                };
                self.problems.push(Problem::new(
                    mark,
                    "",
                    format!("invalid YAML: {}", error.info()),
                ));
                None
            }
        }
    }

    /// Checks that the file ends after the first document.
    fn end(&mut self) {
        while let Some((event, span)) = self.next() {
            match event {
                Event::DocumentEnd => {}
                Event::StreamEnd => return,
                _ => {
                    return self.problems.push(Problem::new(
                        Mark::of(span),
                        "",
                        "unexpected second YAML document; a config file contains one".into(),
                    ));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, path: &str, depth: usize) -> Option<Node> {
        let mark = Mark::of(span);
        if depth > DEPTH_MAX {
            let message = format!("nested too deeply; expected at most {DEPTH_MAX} levels");
            self.problems.push(Problem::new(mark, "", message));
            return None;
        }
        let value = match event {
            Event::Scalar(text, style, _, _) => match (style, text.as_ref()) {
                (ScalarStyle::Plain, "" | "~" | "null") => Value::Null,
                (_, text) => Value::Text(text.to_owned()),
            },
            Event::SequenceStart(..) => Value::List(self.list(path, depth + 1)?),
            Event::MappingStart(..) => Value::Map(self.map(path, depth + 1)?),
            _ => {
                self.problems.push(Problem::new(
                    mark,
                    path,
                    "YAML aliases are not supported; repeat the value".into(),
                ));
                return None;
            }
        };
        Some(Node { mark, value })
    }

    fn list(&mut self, path: &str, depth: usize) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Some(items),
                (event, span) => {
                    let path = format!("{path}[{}]", items.len());
                    items.push(self.node(event, span, &path, depth)?);
                }
            }
        }
    }

    fn map(&mut self, path: &str, depth: usize) -> Option<Vec<(String, Node)>> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Some(entries);
            }
            let mark = Mark::of(span);
            let Event::Scalar(key, ..) = event else {
                self.problems.push(Problem::new(
                    mark,
                    path,
                    "invalid key: expected a plain word".into(),
                ));
                return None;
            };
            let path = if path.is_empty() {
                key.to_string()
            } else {
                format!("{path}.{key}")
            };
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, &path, depth)?;
            if let Some(first) = lines.get(key.as_ref()) {
                let message = format!("duplicate key; first defined on line {first}");
                self.problems.push(Problem::new(mark, &path, message));
                continue;
            }
            // If the value is a section, the position of the key is more useful than that of the
            // value.
            if matches!(node.value, Value::Map(_) | Value::List(_) | Value::Null) {
                node.mark = mark;
            }
            let key = key.into_owned();
            lines.insert(key.clone(), node.mark.line);
            entries.push((key, node));
        }
    }
}
