//! Round trips of neighbours' pings on the same shard, calm and next to a client that sends the
//! most expensive requests at the highest rate of the default limits: interleaved, over real
//! sockets.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tickcast::app::App;
use tickcast::client::Client;
use tickcast::clock::Clock;
use tickcast::config::Config;
use tickcast::protocol::{Control, Encoding, Op, ServerMessage};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const ROUNDS: usize = 5;
const PINGS: usize = 2_000;
const PING_INTERVAL: Duration = Duration::from_millis(2);
/// Enough that each stays below its own rate limit.
const NEIGHBOURS: usize = 64;

/// Prints the p99 of each round: calm, during the flooder's burst, and at its sustained rate; and
/// the medians of the ratios.
pub(super) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio runtime");
    runtime.block_on(async {
        let instruments: Vec<_> = (0..super::INSTRUMENTS)
            .map(|n| format!("{{symbol: {}}}", super::symbol(n)))
            .collect();
        let config = format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: off}}\nshards: 1\n\
             sources: [{{name: in, kind: push, open: true, instruments: [{}]}}]",
            instruments.join(", ")
        );
        let config = Config::parse(&config, "bench").expect("valid config");
        let app = App::start(&config).await.expect("server on a free port");
        let mut neighbours = Vec::with_capacity(NEIGHBOURS);
        for _ in 0..NEIGHBOURS {
            let client = Client::connect(app.address(), Encoding::Msgpack).await;
            neighbours.push(client.expect("connected client"));
        }
        let clock = app.clock();
        println!(
            "\n| round | calm p99, us | burst p99, us | sustained p99, us | burst ratio | sustained ratio |\n\
             |---|---|---|---|---|---|"
        );
        let (mut bursts, mut sustained) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            let calm = p99(&mut neighbours, clock).await;
            let limited = Arc::new(Notify::new());
            let flooder = tokio::spawn(flood(app.address(), clock, Arc::clone(&limited)));
            let burst = p99(&mut neighbours, clock).await;
            limited.notified().await;
            let flooded = p99(&mut neighbours, clock).await;
            flooder.abort();
            let ratio = |time: Duration| time.as_secs_f64() / calm.as_secs_f64();
            println!(
                "| {round} | {} | {} | {} | {:.2} | {:.2} |",
                calm.as_micros(),
                burst.as_micros(),
                flooded.as_micros(),
                ratio(burst),
                ratio(flooded)
            );
            bursts.push(ratio(burst));
            sustained.push(ratio(flooded));
        }
        bursts.sort_by(f64::total_cmp);
        sustained.sort_by(f64::total_cmp);
        println!(
            "\nmedian ratio: burst {:.2}, sustained {:.2}; target 1.2",
            bursts[ROUNDS / 2],
            sustained[ROUNDS / 2]
        );
        app.stop().await;
    });
}

/// 99th percentile of the round trips of pings that the neighbours send in turn.
async fn p99(neighbours: &mut [Client], clock: Clock) -> Duration {
    let mut times = Vec::with_capacity(PINGS);
    for n in 0..PINGS {
        let at = n % neighbours.len();
        let client = &mut neighbours[at];
        let sent = clock.now();
        client.request(Op::Ping { t: 0 }).await.expect("ping sent");
        loop {
            let message = client.next().await.expect("pong received");
            let is_refused = matches!(&message, ServerMessage::Control(Control::Error(_)));
            assert!(!is_refused, "a neighbour exceeded its limits");
            if matches!(message, ServerMessage::Control(Control::Pong(_))) {
                break;
            }
        }
        let received = clock.now();
        times.push(received.since(sent));
        clock.sleep_until(received.plus(PING_INTERVAL)).await;
    }
    times.sort_unstable();
    times[PINGS * 99 / 100]
}

/// Sends each of the most expensive requests in turn, reads the whole response, and waits for
/// `retry_ms` if rejected; notifies `limited` at each rejection.
async fn flood(address: std::net::SocketAddr, clock: Clock, limited: Arc<Notify>) {
    let mut request = format!("ws://{address}/v1/feed")
        .into_client_request()
        .expect("valid URL");
    let subprotocol = Encoding::Json
        .subprotocol()
        .parse()
        .expect("valid header value");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", subprotocol);
    let (mut socket, _) = tokio_tungstenite::connect_async(request)
        .await
        .expect("connected client");
    let cases = super::subscribe_cases().into_iter();
    let payloads: Vec<_> = cases.chain(super::other_cases()).collect();
    for (_, _, payload) in payloads.iter().cycle() {
        let text = String::from_utf8(payload.clone()).expect("JSON is UTF-8");
        let text = text.replacen('{', "{\"id\":1,", 1);
        loop {
            let message = Message::text(text.clone());
            socket.send(message).await.expect("open connection");
            let Some(wait) = response(&mut socket).await else {
                break;
            };
            limited.notify_one();
            clock.sleep_until(clock.now().plus(wait)).await;
        }
    }
}

/// Reads the response to a request; returns the time to wait if it was over the rate limit.
async fn response<S>(socket: &mut S) -> Option<Duration>
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    loop {
        let message = socket.next().await.expect("open connection");
        let Ok(Message::Text(text)) = message else {
            continue;
        };
        let message: serde_json::Value = serde_json::from_str(&text).expect("JSON message");
        if message["op"] == "error" {
            return message["retry_ms"].as_u64().map(Duration::from_millis);
        }
        if message["id"].is_number() && message["more"] != true {
            return None;
        }
    }
}
