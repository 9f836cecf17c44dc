//! Secrets that clients and operators present appear nowhere: not in logs at the most verbose
//! level, not in metrics, not in responses and not in errors.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tickcast::client::{Client, ClientTls, ConnectOptions, FeedUrl, Token, Trust};
use tickcast::protocol::Encoding;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::auth::sha256;
use crate::harness::{deadline, exchange, market};
use crate::terminal::TICKCAST;

/// Part of every secret of this test.
const CANARY: &str = "kAnArY7q";

/// Server process at the most verbose log level.
struct Server {
    child: Child,
    plain: SocketAddr,
    tls: String,
    admin: SocketAddr,
    folder: tempfile::TempDir,
    /// Everything that was received from it.
    received: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Address behind a scheme in the banner.
fn address(banner: &str, scheme: &str, path: &str) -> Option<String> {
    let found = banner.split(scheme).skip(1);
    let mut urls = found.filter_map(|rest| rest.split_whitespace().next());
    let url = urls.find(|url| url.contains(path))?;
    Some(url.split('/').next()?.to_owned())
}

fn config(more: &str) -> String {
    let hash = sha256(&format!("{CANARY}-right"));
    market(
        2,
        50,
        &format!(
            "roles: {{reader: {{topics: [\"*\"]}}}}\n\
             auth: {{scheme: keys, failures_per_minute: 1000, keys: [{{id: desk, sha256: {hash}, role: reader}}{more}]}}"
        ),
    )
}

impl Server {
    fn start(format: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("feeds.yaml"), config(""))?;
        let any = "127.0.0.1:0";
        let mut child = Command::new(TICKCAST)
            .args(["serve", "--config", &path("feeds.yaml"), "--listen", any])
            .args(["--admin", any, "--self-signed", "--tls-listen", any])
            .args(["--log-format", format])
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(path("log"))?)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let mut banner = String::new();
        while !banner.contains("files") {
            writeln!(banner, "{}", lines.next().context("the server ended")??)?;
        }
        let of = |scheme, path| address(&banner, scheme, path).with_context(|| banner.clone());
        Ok(Self {
            plain: of("ws://", "/v1/feed")?.parse()?,
            tls: of("wss://", "/v1/feed")?,
            admin: of("http://", "/metrics")?.parse()?,
            child,
            folder,
            received: String::new(),
        })
    }

    /// Sends a request to an address; returns the response, which is searched at the end.
    async fn http(&mut self, to: SocketAddr, head: &str, body: &str) -> Result<String> {
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let response = exchange(to, request.as_bytes()).await?;
        self.received.push_str(&response);
        Ok(response)
    }

    /// Opens the feed with a query, sends texts, and reads until the server closes or answers the
    /// last one.
    async fn session(&mut self, query: &str, texts: &[String]) -> Result<()> {
        let url = format!("ws://{}/v1/feed?encoding=json{query}", self.plain);
        let stream = TcpStream::connect(self.plain).await?;
        let request = url.into_client_request()?;
        let Ok((mut feed, _)) = deadline(client_async(request, stream)).await? else {
            return Ok(());
        };
        for text in texts {
            // The server may have closed the connection.
            let _closed = feed.send(Message::text(text.as_str())).await;
        }
        let _closed = feed.send(Message::text(r#"{"op":"ping","t":1}"#)).await;
        while let Some(Ok(message)) = deadline(feed.next()).await? {
            let text = message.to_text().unwrap_or_default().to_owned();
            self.received.push_str(&text);
            if text.contains("\"pong\"") || message.is_close() {
                break;
            }
        }
        Ok(())
    }

    async fn present_everywhere(&mut self) -> Result<()> {
        let (right, wrong) = (
            format!("desk.{CANARY}-right"),
            format!("desk.{CANARY}-wrong"),
        );
        let tls = ClientTls::new(&Trust::Any)?;
        for token in [&right, &wrong] {
            for url in [
                format!("ws://{}", self.plain),
                format!("wss://{}", self.tls),
            ] {
                let url: FeedUrl = url.parse()?;
                for encoding in Encoding::ALL {
                    let mut options = ConnectOptions::new(encoding);
                    options.tls = Some(tls.clone());
                    let mut first = deadline(Client::connect_by(&url, &options)).await??;
                    first.authenticate(&Token::new(token.as_str())).await?;
                    let mut text = String::new();
                    while !text.contains("uthenticated(") && !text.contains("Error(") {
                        text = format!("{:?}", deadline(first.next()).await??);
                        self.received.push_str(&text);
                    }
                    options.token = Some(Token::new(token.as_str()));
                    match deadline(Client::connect_by(&url, &options)).await? {
                        Ok(mut client) => _ = deadline(client.next()).await??,
                        Err(error) => write!(self.received, "{error} {error:?}")?,
                    }
                }
            }
            let bearer = format!("Authorization: Bearer {token}");
            let plain = self.plain;
            for head in [
                format!("GET /v1/instruments HTTP/1.1\r\n{bearer}"),
                format!("GET /v1/snapshot?topics=quote:S1 HTTP/1.1\r\n{bearer}"),
                format!("GET /v1/instruments HTTP/1.1\r\n{bearer}\r\n{bearer}"),
                format!("GET /v1/instruments HTTP/1.1\r\nAuthorization: Basic {token}"),
                format!("GET /v1/instruments HTTP/1.1\r\nAuthorization: {token}"),
                format!("GET /v1/instruments?token={token} HTTP/1.1"),
                format!("GET /v1/{token} HTTP/1.1"),
                format!(
                    "POST /v1/publish HTTP/1.1\r\n{bearer}\r\nContent-Type: application/x-ndjson"
                ),
                format!("GET /v1/feed?ticket={token} HTTP/1.1"),
                format!("GET /v1/instruments HTTP/1.1\r\nAuthorization Bearer {token}"),
            ] {
                let response = self.http(plain, &head, "").await?;
                ensure!(response.starts_with("HTTP/1.1"), "{head}: {response}");
            }
            self.session(&format!("&ticket={token}"), &[]).await?;
            let texts = [
                format!("{{\"op\":\"auth\",\"id\":1,\"token\":[\"{token}\"]}}"),
                format!("{{\"op\":\"auth\",\"id\":2,\"{token}\":1}}"),
                format!("{{\"op\":\"auth\",\"id\":3,\"token\":\"{token}"),
                format!("{{\"op\":\"subscribe\",\"id\":4,\"token\":\"{token}\",\"topics\":[]}}"),
            ];
            self.session("", &texts).await?;
        }
        Ok(())
    }

    /// Gets a ticket and uses it; returns it.
    async fn use_ticket(&mut self) -> Result<String> {
        let head = format!("POST /v1/ticket HTTP/1.1\r\nAuthorization: Bearer desk.{CANARY}-right");
        let (plain, before) = (self.plain, self.received.len());
        let response = self.http(plain, &head, "").await?;
        // This response alone contains it.
        self.received.truncate(before);
        let body = response.split("\r\n\r\n").nth(1).context("a body")?;
        let body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        let ticket = body["ticket"].as_str().context("a ticket")?.to_owned();
        for _ in 0..2 {
            self.session(&format!("&ticket={ticket}"), &[]).await?;
        }
        Ok(ticket)
    }

    /// Reloads configs with keys in the wrong place.
    async fn reload_mistakes(&mut self) -> Result<()> {
        let file = self.folder.path().join("feeds.yaml");
        let mistakes = [
            format!(
                ", {{id: desk.{CANARY}, sha256: {}, role: reader}}",
                "00".repeat(32)
            ),
            format!(", {{id: b, sha256: {CANARY}, role: reader}}"),
            format!(", {{id: b, argon2: \"$argon2id${CANARY}\", role: reader}}"),
        ];
        for (number, mistake) in mistakes.iter().enumerate() {
            std::fs::write(&file, config(mistake))?;
            let admin = self.admin;
            let wanted = format!("{{outcome=\"rejected\"}} {}", number + 1);
            let counted = async {
                let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
                loop {
                    looks.tick().await;
                    let metrics = self.http(admin, "GET /metrics HTTP/1.1", "").await?;
                    if metrics.contains(&format!("tickcast_config_reloads_total{wanted}")) {
                        return Ok::<(), anyhow::Error>(());
                    }
                }
            };
            deadline(counted).await??;
        }
        for path in ["connections", "sources", "faults"] {
            let (admin, head) = (self.admin, format!("GET /v1/admin/{path} HTTP/1.1"));
            self.http(admin, &head, "").await?;
        }
        Ok(())
    }

    /// Stops the server; returns its log.
    fn stop(&mut self) -> Result<String> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        self.child.wait()?;
        Ok(std::fs::read_to_string(self.folder.path().join("log"))?)
    }
}

/// Lines that contain a secret, as it is or encoded.
fn leaks(text: &str, secret: &str) -> Vec<String> {
    let hex = data_encoding::HEXLOWER.encode(secret.as_bytes());
    let spaced: Vec<String> = secret.bytes().map(|byte| format!("{byte}")).collect();
    let encoded = [
        secret.to_owned(),
        hex.to_uppercase(),
        hex,
        spaced.join(", "),
    ];
    let is_leak = |line: &&str| encoded.iter().any(|form| line.contains(form.as_str()));
    text.lines()
        .filter(is_leak)
        .map(|line| line.chars().take(400).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_appears_in_logs_metrics_responses_and_errors() -> Result<()> {
    for format in ["human", "json"] {
        let mut server = Server::start(format)?;
        server.present_everywhere().await?;
        let ticket = server.use_ticket().await?;
        server.reload_mistakes().await?;
        let log = server.stop()?;
        assert!(
            log.contains("config reload rejected"),
            "no reload was rejected"
        );
        for secret in [CANARY, &ticket] {
            assert_eq!(leaks(&log, secret), [""; 0], "the log");
            assert_eq!(leaks(&server.received, secret), [""; 0], "responses");
        }
    }
    Ok(())
}
