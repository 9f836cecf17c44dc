//! Echo of a server's messages, for test suites of the WebSocket protocol.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::{ClientError, config};

/// Connects to a WebSocket server and sends each message back until the connection ends; returns
/// the messages received.
pub async fn echo(host: &str, path: &str) -> Result<Vec<Message>, ClientError> {
    let stream = TcpStream::connect(host).await?;
    let url = format!("ws://{host}{path}");
    let (mut stream, _) =
        tokio_tungstenite::client_async_with_config(url, stream, Some(config())).await?;
    let mut received = Vec::new();
    while let Some(message) = stream.next().await {
        let Ok(message) = message else {
            // Violations by the server end the connection; the suite judges the close code.
            break;
        };
        if message.is_text() || message.is_binary() {
            received.push(message.clone());
            if stream.send(message).await.is_err() {
                break;
            }
        }
    }
    Ok(received)
}
