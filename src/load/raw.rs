//! Tests of servers with another protocol: messages are counted, and a timestamp in them is read if
//! its path is known.

use std::str::FromStr;

use super::plan_error::PlanError;

/// Settings for servers other than tickcast. They get no message beside `send`, so connections that
/// are cut ([`Plan::churn_per_s`](super::Plan::churn_per_s), [`Plan::storm`](super::Plan::storm))
/// reconnect without resuming, and there are no ledgers.
///
/// ```
/// use tickcast::load::{Dialect, Plan, PlanError, RawPlan, TimePath};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let raw = RawPlan {
///     path: "/ws".to_owned(),
///     send: vec![r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}"#.to_owned()],
///     timestamp: Some("data.E".parse::<TimePath>()?),
/// };
/// let plan = Plan {
///     dialect: Dialect::Raw(raw),
///     ..Plan::new("127.0.0.1:9000".parse()?, Vec::new())
/// };
/// # let _ = plan;
/// let wrong: Result<TimePath, PlanError> = "data..E".parse();
/// assert!(wrong.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RawPlan {
    /// The path of the WebSocket.
    pub path: String,
    /// Texts that are sent once a connection is open.
    pub send: Vec<String>,
    /// Path of the timestamp in each message.
    pub timestamp: Option<TimePath>,
}

/// Path of a timestamp in a JSON message: keys and indexes, as in `data.0.E`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimePath(Vec<String>);

impl FromStr for TimePath {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        if steps.iter().any(String::is_empty) {
            return Err(PlanError::new(
                text,
                "keys and indices separated by dots, e.g. data.0.E",
            ));
        }
        Ok(Self(steps))
    }
}

/// A number is in seconds, milliseconds, microseconds or nanoseconds since 1970, by its magnitude.
fn nanos(number: f64, whole: Option<u64>) -> Option<u64> {
    let scale: u64 = match number {
        ns if ns >= 1e17 => return whole,
        us if us >= 1e14 => 1_000,
        ms if ms >= 1e11 => 1_000_000,
        s if s >= 1e8 => 1_000_000_000,
        _ => return None,
    };
    match whole {
        Some(whole) => whole.checked_mul(scale),
        None => Some((number * scale as f64) as u64),
    }
}

impl TimePath {
    /// Timestamp of a message, in nanoseconds since 1970; `None` if the path does not exist.
    pub fn find(&self, message: &[u8]) -> Option<u64> {
        let mut value = &serde_json::from_slice::<serde_json::Value>(message).ok()?;
        for step in &self.0 {
            value = match value {
                serde_json::Value::Array(list) => list.get(step.parse::<usize>().ok()?)?,
                map => map.get(step)?,
            };
        }
        match value {
            serde_json::Value::Number(number) => nanos(number.as_f64()?, number.as_u64()),
            serde_json::Value::String(text) => match text.parse::<f64>() {
                Ok(number) => nanos(number, text.parse().ok()),
                Err(_) => crate::market::UnixNanos::parse_utc(text)
                    .ok()
                    .map(|time| time.0),
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_in_common_formats_are_found() {
        let find = |path: &str, text: &str| path.parse::<TimePath>().ok()?.find(text.as_bytes());
        let expected = Some(1_723_161_255_342_000_000);
        assert_eq!(find("E", r#"{"E":1723161255342}"#), expected);
        assert_eq!(
            find("data.0.t", r#"{"data":[{"t":"1723161255342000"}]}"#),
            expected
        );
        assert_eq!(find("0.1", "[[5,1723161255342000000]]"), expected);
        assert_eq!(find("t", r#"{"t":"2024-08-08T23:54:15.342Z"}"#), expected);
        assert_eq!(
            find("t", r#"{"t":1723161255.5}"#),
            Some(1_723_161_255_500_000_000)
        );
        assert_eq!(find("x", r#"{"t":1}"#), None);
        assert_eq!(find("t", "no JSON"), None);
        assert!("a..b".parse::<TimePath>().is_err());
    }
}
