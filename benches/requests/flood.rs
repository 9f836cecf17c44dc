//! A neighbour's ping on the same shard, calm and beside a client that sends the dearest requests as often as the limits
//! allow: interleaved pairs over real sockets.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tickcast::app::App;
use tickcast::client::Client;
use tickcast::clock::Clock;
use tickcast::config::Config;
use tickcast::protocol::{Control, Encoding, Op, ServerMessage};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const PAIRS: usize = 5;
const PINGS: usize = 1_000;
/// One request every 50 ms, the default of `limits.requests_per_s`; the limit of this server is that of the pings.
const INTERVAL: Duration = Duration::from_millis(50);

/// Prints the p99 of each half of each pair, and the median of their ratios.
pub(super) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = "listen: 127.0.0.1:0\nadmin: {listen: off}\nshards: 1\n\
                      limits: {requests_per_s: 1000}\n\
                      sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]";
        let config = Config::parse(config, "bench").expect("a valid config");
        let app = App::start(&config).await.expect("a free port");
        let mut neighbour = Client::connect(app.address(), Encoding::Msgpack)
            .await
            .expect("a connection");
        let clock = app.clock();
        println!("\n| pair | calm p99, us | flooded p99, us | ratio |\n|---|---|---|---|");
        let mut ratios = Vec::new();
        for pair in 1..=PAIRS {
            let calm = p99(&mut neighbour, clock).await;
            let flooder = tokio::spawn(flood(app.address(), clock));
            let flooded = p99(&mut neighbour, clock).await;
            flooder.abort();
            let ratio = flooded.as_secs_f64() / calm.as_secs_f64();
            println!(
                "| {pair} | {} | {} | {ratio:.2} |",
                calm.as_micros(),
                flooded.as_micros()
            );
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        println!("\nmedian ratio {:.2}, to reach 1.2", ratios[PAIRS / 2]);
        app.stop().await;
    });
}

/// The 99th percentile of the round trip of pings, two milliseconds apart.
async fn p99(client: &mut Client, clock: Clock) -> Duration {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let sent = clock.now();
        let op = Op::Ping { t: 0 };
        client.request(op).await.expect("a ping");
        while !matches!(
            client.next().await.expect("a pong"),
            ServerMessage::Control(Control::Pong(_))
        ) {}
        times.push(clock.now().since(sent));
        clock
            .sleep_until(clock.now().plus(Duration::from_millis(2)))
            .await;
    }
    times.sort_unstable();
    times[PINGS * 99 / 100]
}

/// Sends each of the dearest requests in turn and reads the answers.
async fn flood(address: std::net::SocketAddr, clock: Clock) {
    let mut request = format!("ws://{address}/v1/feed")
        .into_client_request()
        .expect("a URL");
    let subprotocol = Encoding::Json.subprotocol().parse().expect("a token");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", subprotocol);
    let (socket, _) = tokio_tungstenite::connect_async(request)
        .await
        .expect("a connection");
    let (mut sink, mut stream) = socket.split();
    let reading = async { while stream.next().await.is_some() {} };
    let sending = async {
        let cases = super::subscribe_cases().into_iter();
        let payloads: Vec<_> = cases.chain(super::other_cases()).collect();
        for (_, _, payload) in payloads.iter().cycle() {
            let text = String::from_utf8(payload.clone()).expect("JSON");
            sink.send(Message::text(text)).await.expect("an open feed");
            clock.sleep_until(clock.now().plus(INTERVAL)).await;
        }
    };
    tokio::join!(reading, sending);
}
