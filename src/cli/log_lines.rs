//! Log lines: an event with its fields, as text or as JSON. Control characters of every value are
//! escaped and its length is bounded, so that text of files, clients and peers can neither forge a
//! line nor control the terminal.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::printable::{printable, printable_json, shortened};

/// Maximum number of characters of a value.
const VALUE_CHARS_MAX: usize = 1000;

/// Format of log lines.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum LogFormat {
    Human,
    Json,
}

/// Field: name, and value as text and as JSON.
struct Value {
    name: &'static str,
    text: String,
    json: String,
}

#[derive(Default)]
struct Values {
    message: String,
    fields: Vec<Value>,
}

impl Values {
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        let (text, json) = (value.to_string(), value.to_string());
        self.push(field, text, json);
    }

    fn push(&mut self, field: &Field, text: String, json: String) {
        let name = field.name();
        self.fields.push(Value { name, text, json });
    }
}

fn as_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    printable_json(&quoted).into_owned()
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = shortened(&format!("{value:?}"), VALUE_CHARS_MAX);
        if field.name() == "message" {
            self.message = value;
        } else {
            self.push(field, printable(&value).into_owned(), as_json(&value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = shortened(value, VALUE_CHARS_MAX);
        if field.name() == "message" {
            self.message = value;
        } else {
            let text = printable(&format!("{value:?}")).into_owned();
            self.push(field, text, as_json(&value));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.record_debug(field, &value);
        }
    }
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _spans: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut values = Values::default();
        event.record(&mut values);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self {
            Self::Human => write_text(writer, &time, level, target, &values),
            Self::Json => write_json(writer, &time, level, target, &values),
        }
    }
}

fn write_text(
    mut writer: Writer<'_>,
    time: &str,
    level: Level,
    target: &str,
    values: &Values,
) -> fmt::Result {
    let (dim, italic, reset) = if writer.has_ansi_escapes() {
        ("\u{1b}[2m", "\u{1b}[3m", "\u{1b}[0m")
    } else {
        ("", "", "")
    };
    let color = match level {
        _ if !writer.has_ansi_escapes() => "",
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        _ => "\u{1b}[34m",
    };
    let message = printable(&values.message);
    write!(
        writer,
        "{dim}{time}{reset} {color}{level:>5}{reset} {dim}{target}:{reset} {message}"
    )?;
    for Value { name, text, .. } in &values.fields {
        write!(writer, " {italic}{name}{reset}{dim}={reset}{text}")?;
    }
    writeln!(writer)
}

fn write_json(
    mut writer: Writer<'_>,
    time: &str,
    level: Level,
    target: &str,
    values: &Values,
) -> fmt::Result {
    let message = as_json(&values.message);
    write!(
        writer,
        "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":{message}"
    )?;
    for Value { name, json, .. } in &values.fields {
        write!(writer, ",\"{name}\":{json}")?;
    }
    writeln!(writer, ",\"target\":\"{target}\"}}")
}
