//! Subscribes to trades and tickers, reconnects after a disconnect and resumes without loss.
//!
//! ```sh
//! cargo run --example subscribe -- 127.0.0.1:8080 [FILE WITH A TOKEN]
//! ```

use std::time::Duration;

use tickcast::client::{Client, ClientError, ConnectOptions, FeedUrl, Positions, Token};
use tickcast::protocol::{Encoding, Op, ServerMessage, Subscribe};

/// Subscribes at the positions of the last connection and prints events until it ends.
#[expect(clippy::print_stdout, reason = "the events are the output")]
async fn receive(
    feed: &FeedUrl,
    options: &ConnectOptions,
    positions: &mut Positions,
) -> Result<(), ClientError> {
    let mut client = Client::connect_by(feed, options).await?;
    let request = Subscribe {
        topics: vec!["trade:BTC-USD".into(), "ticker:*".into()],
        from: positions.resume_from(),
        ..Subscribe::default()
    };
    client.request(Op::Subscribe(request)).await?;
    loop {
        let message = client.next().await?;
        positions.take(&message);
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    println!("{} {} {:?}", event.topic, event.seq, event.body);
                }
            }
            ServerMessage::Control(control) => println!("{control:?}"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next();
    let feed: FeedUrl = address.as_deref().unwrap_or("127.0.0.1:8080").parse()?;
    let options = ConnectOptions {
        // Presented in each handshake, and renewed from the file before it ends.
        token: arguments.next().map(Token::file),
        ..ConnectOptions::new(Encoding::Msgpack)
    };
    let mut positions = Positions::default();
    loop {
        if let Err(error) = receive(&feed, &options, &mut positions).await {
            eprintln!("{error}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
