//! Preflight: reads the topics of the server and measures its clock offset before a test.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::TcpStream;

use super::LoadError;
use super::plan::{Plan, TopicChoice};
use crate::client::{Client, ClientError, ConnectOptions, FeedUrl, is_expiry_warning};
use crate::clock::Clock;
use crate::market::SourceKind;
use crate::protocol::{Control, Encoding, InstrumentEntry, Op, ServerMessage};
use crate::topic::TopicName;

/// Number of pings that compare the clocks; the shortest round trip is the most precise.
const PINGS: usize = 8;
/// State in `welcome` of a client that must authenticate.
const AUTH_REQUIRED: &str = "required";
/// Max time for any response of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Offset between the server's clock and the local one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClockCheck {
    /// The server is on this machine and shares its clock.
    pub same_machine: bool,
    /// Offset added to the local clock to get the server's time, in nanoseconds.
    pub offset_ns: i64,
    /// Maximum error of the offset in nanoseconds: half of the shortest round trip.
    pub error_ns: u64,
}

/// Result of the preflight.
#[derive(Debug, Clone)]
pub(super) struct Scouted {
    pub server: String,
    pub clock: ClockCheck,
    /// Topics that the plan's names match, in the order of the server.
    pub topics: Vec<String>,
    /// True if all of them are simulated, so that their times are due times.
    pub is_simulated: bool,
}

/// True if an address belongs to this machine.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || TcpListener::bind(SocketAddr::new(address, 0)).is_ok()
}

pub(super) fn preflight(plan: &Plan, clock: Clock) -> Result<Scouted, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let looked = async { tokio::time::timeout(PATIENCE, look(plan, clock)).await };
    runtime
        .block_on(looked)
        .map_err(|_elapsed| LoadError::Silent(plan.address))?
}

async fn control<T>(
    client: &mut Client,
    mut wanted: impl FnMut(Control) -> Option<T>,
) -> Result<T, LoadError> {
    loop {
        if let ServerMessage::Control(control) = client.next().await? {
            if is_expiry_warning(&control) {
                continue;
            }
            if let Control::Error(error) = control {
                return Err(LoadError::Refused(error.message));
            }
            if let Some(found) = wanted(control) {
                return Ok(found);
            }
        }
    }
}

async fn look(plan: &Plan, clock: Clock) -> Result<Scouted, LoadError> {
    let stream = TcpStream::connect(plan.address)
        .await
        .map_err(ClientError::from)?;
    let scheme = if plan.tls.is_some() { "wss" } else { "ws" };
    let url: FeedUrl = format!("{scheme}://{}{}", plan.host, plan.path).parse()?;
    let options = ConnectOptions {
        tls: plan.tls.clone(),
        token: plan.token.clone(),
        ..ConnectOptions::new(Encoding::Msgpack)
    };
    let mut client = Client::open(stream, &url, &options).await?;
    let welcome = control(&mut client, |control| match control {
        Control::Welcome(welcome) => Some(Ok(welcome)),
        Control::Bye(bye) => Some(Err(LoadError::Refused(bye.message))),
        _ => None,
    });
    let welcome = welcome.await??;
    if welcome.auth == AUTH_REQUIRED {
        return Err(LoadError::AuthRequired);
    }
    client
        .request(Op::Instruments {
            pattern: "*".to_owned(),
        })
        .await?;
    let mut instruments = Vec::new();
    control(&mut client, |control| match control {
        Control::Instruments(part) => {
            instruments.extend(part.instruments);
            (!part.more).then_some(())
        }
        _ => None,
    })
    .await?;
    let clock = compare_clocks(&mut client, clock, is_own(plan.address.ip())).await?;
    let meant = meant(plan.topics.names(), &instruments)?;
    let is_simulated = !meant.is_empty() && meant.iter().all(|(_, src)| *src == SourceKind::Sim);
    let topics: Vec<String> = meant.into_iter().map(|(topic, _)| topic).collect();
    if topics.is_empty() {
        return Err(LoadError::NoTopics(plan.topics.names().join(", ")));
    }
    if let TopicChoice::Draw { each, .. } = &plan.topics
        && *each > topics.len()
    {
        return Err(LoadError::TooFewTopics {
            asked: *each,
            there: topics.len(),
        });
    }
    Ok(Scouted {
        server: welcome.server,
        clock,
        topics,
        is_simulated,
    })
}

/// Topics that the names match, each with the kind of its source.
fn meant(
    names: &[String],
    instruments: &[InstrumentEntry],
) -> Result<Vec<(String, SourceKind)>, LoadError> {
    let names: Vec<TopicName> = names
        .iter()
        .map(|name| TopicName::parse(name))
        .collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for instrument in instruments {
        for channel in &instrument.channels {
            let (name, param) = channel
                .split_once(':')
                .map_or((&**channel, None), |(name, param)| (name, Some(param)));
            let text = match param {
                Some(param) => format!("{name}:{}:{param}", instrument.symbol),
                None => format!("{name}:{}", instrument.symbol),
            };
            // A channel of a later version is nobody's pattern.
            let Ok(TopicName::Topic(topic)) = TopicName::parse(&text) else {
                continue;
            };
            let is_meant = names.iter().any(|name| match name {
                TopicName::Topic(own) => *own == topic,
                TopicName::Pattern(pattern) => pattern.matches(&topic),
            });
            if is_meant {
                found.push((text, instrument.src));
            }
        }
    }
    Ok(found)
}

/// On one machine both clocks are read directly, unless the pings show that they differ.
async fn compare_clocks(
    client: &mut Client,
    clock: Clock,
    same_machine: bool,
) -> Result<ClockCheck, LoadError> {
    let mut best: Option<(u64, i64)> = None;
    for t in 0..PINGS {
        let sent = clock.now();
        client.request(Op::Ping { t: t as i64 }).await?;
        let totals = control(client, |control| match control {
            Control::Pong(pong) => Some(pong.ts),
            _ => None,
        });
        let totals = totals.await?;
        let round = clock.now().since(sent).as_nanos() as u64;
        let offset = totals as i64 - (sent.0 + round / 2) as i64;
        if best.is_none_or(|(shortest, _)| round < shortest) {
            best = Some((round, offset));
        }
    }
    let (round, offset_ns) = best.unwrap_or_default();
    let error_ns = round / 2;
    if same_machine && offset_ns.unsigned_abs() <= error_ns {
        return Ok(ClockCheck {
            same_machine,
            offset_ns: 0,
            error_ns: 0,
        });
    }
    Ok(ClockCheck {
        same_machine,
        offset_ns,
        error_ns,
    })
}
