//! Subscribes to trades and tickers, reconnects after a disconnect and resumes without loss.
//!
//! ```sh
//! cargo run --example subscribe -- 127.0.0.1:8080
//! ```

use std::time::Duration;

use tickcast::client::{Client, ClientError, Positions};
use tickcast::protocol::{Encoding, Op, ServerMessage, Subscribe};

/// Subscribes at the positions of the last connection and prints events until it ends.
#[expect(clippy::print_stdout, reason = "the events are the output")]
async fn receive(address: &str, positions: &mut Positions) -> Result<(), ClientError> {
    let mut client = Client::connect(address, Encoding::Msgpack).await?;
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
async fn main() {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut positions = Positions::default();
    loop {
        if let Err(error) = receive(&address, &mut positions).await {
            eprintln!("{error}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
