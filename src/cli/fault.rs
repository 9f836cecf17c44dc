//! `tickcast fault`: injects faults into a source of a running server, to test clients.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::http_get::{HttpAddress, HttpClient, http_address};
use super::token::TokenArguments;
use super::trust::TrustArguments;
use super::{Exit, print};
use crate::printable::printable;
use crate::source::faults::FaultKind;

const ROUTE: &str = "/v1/admin/faults";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Kind of fault (drop, duplicate, reorder, freeze, cross, spike, clock, restart), or list, or
    /// end
    #[arg(value_name = "KIND")]
    action: String,
    /// Symbol, or its beginning followed by *
    #[arg(value_name = "SYMBOL", default_value = "*")]
    symbols: String,
    /// Name of the source
    #[arg(long, value_name = "NAME", default_value = "sim")]
    source: String,
    /// Duration, in the time of the source [default: 10s]
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<String>,
    /// Delay of the beginning
    #[arg(long = "at", value_name = "TIME")]
    after: Option<String>,
    /// Repeat with this time from one beginning to the next
    #[arg(long, value_name = "TIME")]
    every: Option<String>,
    /// Max random deviation of each beginning
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// Max number of affected events
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Share of affected events, above 0 and up to 1
    #[arg(long, value_name = "SHARE")]
    share: Option<String>,
    /// Relative price change of a spike: 0.1 is +10 %
    #[arg(long, value_name = "CHANGE", allow_hyphen_values = true)]
    size: Option<String>,
    /// Shift of event times by a clock fault: 1h or -90s
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    step: Option<String>,
    /// Number of the fault to end; all of the source if absent
    #[arg(long, value_name = "NUMBER")]
    id: Option<u32>,
    /// Admin address of the server
    #[arg(long, value_name = "HOST:PORT|URL", default_value = "127.0.0.1:8081", value_parser = http_address)]
    admin: HttpAddress,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let client = HttpClient::new(&arguments.admin, &arguments.trust, &arguments.token)?;
    let (status, body) = match arguments.action.as_str() {
        "list" => client.get(ROUTE)?,
        "end" => {
            let id = arguments
                .id
                .map_or_else(String::new, |id| format!("&id={id}"));
            let source = percent_encoding::utf8_percent_encode(
                &arguments.source,
                percent_encoding::NON_ALPHANUMERIC,
            );
            let target = format!("{ROUTE}?source={source}{id}");
            client.send("DELETE", &target, "")?
        }
        kind if FaultKind::parse(kind).is_some() => {
            let body = Value::Object(arguments.request()).to_string();
            client.send("POST", ROUTE, &body)?
        }
        other => bail!(
            "unknown kind {other:?}: expected {}, list or end",
            FaultKind::NAMES.join(", ")
        ),
    };
    if status != 200 {
        bail!("{}", printable(body.trim()));
    }
    let response: Value = serde_json::from_str(&body).context("the response is no JSON")?;
    let one = std::slice::from_ref(&response);
    let faults = response["faults"].as_array().map_or(one, Vec::as_slice);
    let lines: String = faults.iter().map(line).collect();
    print(lines.as_bytes())
}

impl Arguments {
    /// Body of the request.
    fn request(&self) -> Map<String, Value> {
        let texts = [
            ("source", Some(&self.source)),
            ("kind", Some(&self.action)),
            ("symbols", Some(&self.symbols)),
            ("for", self.lasting.as_ref()),
            ("at", self.after.as_ref()),
            ("every", self.every.as_ref()),
            ("jitter", self.jitter.as_ref()),
            ("share", self.share.as_ref()),
            ("size", self.size.as_ref()),
            ("step", self.step.as_ref()),
        ];
        let given = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key.to_owned(), Value::from(text?.as_str()))));
        let count = self.count.map(|count| ("count".to_owned(), count.into()));
        given.chain(count).collect()
    }
}

/// One line about a fault.
fn line(fault: &Value) -> String {
    let text = |key: &str| fault[key].as_str().unwrap_or_default();
    let number = |key: &str| fault[key].as_u64().unwrap_or_default();
    let line = format!(
        "{}#{} {} {} ({} instruments), {}, {} ms, {} events: {}",
        text("source"),
        number("id"),
        text("kind"),
        text("symbols"),
        number("instruments"),
        text("state"),
        number("for_ms"),
        number("events"),
        text("effect"),
    );
    format!("{}\n", printable(&line))
}
