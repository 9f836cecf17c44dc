//! The reverse proxies of docs/proxies.md with their documented configuration: TLS, WebSocket, path
//! prefix, and blocked routes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::harness::{DEADLINE, Feed, Stopwatch, market};

const GUIDE: &str = include_str!("../../docs/proxies.md");
const NAME: &str = "feed.example.com";

/// True if all of these programs are installed; `./check` installs them.
pub(crate) fn are_installed(programs: &[&str]) -> Result<bool> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .collect();
    let is_there = |program: &&&str| folders.iter().any(|folder| folder.join(program).exists());
    let Some(missing) = programs.iter().find(|program| !is_there(program)) else {
        return Ok(true);
    };
    ensure!(
        std::env::var_os("TICKCAST_CHECK").is_none(),
        "{missing} is missing, although ./check installs it"
    );
    eprintln!("skipped: {missing} is not there; ./check installs it");
    Ok(false)
}

/// Configuration of the guide in a language, for this feed and port, with a new certificate.
pub(crate) fn configuration(
    language: &str,
    feed: &Feed,
    port: u16,
    folder: &Path,
) -> Result<String> {
    let (key, certificate) = (folder.join("key"), folder.join("certificate"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", &format!("/CN={NAME}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl made no certificate");
    let both = std::fs::read_to_string(&certificate)? + &std::fs::read_to_string(&key)?;
    std::fs::write(folder.join("both"), both)?;
    let block = GUIDE
        .split(&format!("```{language}\n"))
        .nth(1)
        .context("missing code block")?;
    let block = block.split("```").next().unwrap_or_default();
    let at = |name: &str| folder.join(name).display().to_string();
    Ok(block
        .replace("127.0.0.1:8080", &feed.address.to_string())
        .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
        .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
        .replace(&format!("/etc/ssl/{NAME}.pem"), &at("certificate"))
        .replace(&format!("/etc/ssl/{NAME}.key"), &at("key"))
        .replace(&format!("/etc/haproxy/{NAME}.pem"), &at("both")))
}

/// Process that ends with its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// Port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn curl(port: u16, host: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--insecure",
        "--http1.1",
        "--include",
        "--no-buffer",
    ])
    .args([
        "--max-time",
        "10",
        "--resolve",
        &format!("{host}:{port}:127.0.0.1"),
    ]);
    curl
}

/// Status and body of a request through the proxy.
fn ask(port: u16, host: &str, path: &str, more: &[&str]) -> Result<(u16, String)> {
    let url = format!("https://{host}:{port}{path}");
    let done = curl(port, host).args(more).arg(url).output()?;
    let response = String::from_utf8_lossy(&done.stdout).into_owned();
    let status = response
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), response))
}

/// Handshake with the feed through the proxy.
fn handshake(port: u16, path: &str, origin: &str) -> Command {
    let headers = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        &format!("Origin: {origin}"),
    ];
    let mut command = curl(port, NAME);
    for header in headers {
        command.args(["--header", header]);
    }
    command.arg(format!("https://{NAME}:{port}{path}?encoding=json"));
    command.stdout(Stdio::piped());
    command
}

/// Start of a WebSocket response, up to an expected text or its end.
fn open_feed(port: u16, path: &str, origin: &str, wanted: &str) -> Result<String> {
    let mut running = Running(handshake(port, path, origin).spawn()?);
    let mut output = running.0.stdout.take().context("stdout is piped")?;
    let (mut response, mut buffer) = (String::new(), [0; 4096]);
    while !response.contains(wanted) {
        let read = output.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        response.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    Ok(response)
}

pub(crate) async fn feed() -> Result<Feed> {
    let config = market(
        1,
        10,
        &format!("allowed_hosts: [{NAME}]\ntrusted_proxies: [127.0.0.1]"),
    );
    let push = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: P}]}, ";
    Feed::start(&config.replace("sources: [", push)).await
}

/// The server knows the address of a client behind the proxy, and not the one that it claims.
fn check_address(port: u16, admin: SocketAddr) -> Result<()> {
    let mut client = handshake(port, "/v1/feed", &format!("https://{NAME}:{port}"));
    client.args(["--interface", "127.0.0.7"]);
    client.args(["--header", "X-Forwarded-For: 198.51.100.1"]);
    let _client = Running(client.spawn()?);
    let patience = Stopwatch::start();
    loop {
        ensure!(patience.elapsed() < DEADLINE, "the client did not connect");
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(
            b"GET /v1/admin/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )?;
        let mut connections = String::new();
        stream.read_to_string(&mut connections)?;
        ensure!(!connections.contains("198.51.100.1"), "{connections}");
        if connections.contains("127.0.0.7") {
            return Ok(());
        }
    }
}

/// Properties of both proxies.
fn check(port: u16, admin: Option<SocketAddr>) -> Result<()> {
    let patience = Stopwatch::start();
    while ask(port, NAME, "/healthz", &[])?.0 != 200 {
        ensure!(
            patience.elapsed() < DEADLINE,
            "the proxy did not start in time"
        );
    }
    let own = format!("https://{NAME}:{port}");
    for prefix in ["", "/market"] {
        let (status, page) = ask(port, NAME, &format!("{prefix}/"), &[])?;
        ensure!(
            status == 200 && page.contains("<title>"),
            "the page at {prefix}/: {page}"
        );
        let feed = format!("{prefix}/v1/feed");
        let opened = open_feed(port, &feed, &own, r#""op":"welcome""#)?;
        ensure!(
            opened.contains(" 101 ") && opened.contains(r#""op":"welcome""#),
            "the feed at {feed}: {opened}"
        );
        for evil in [
            "https://evil.example",
            &own.replace("https", "http"),
            "http://localhost:3000",
        ] {
            let refused = open_feed(port, &feed, evil, "\r\n\r\n")?;
            ensure!(refused.contains(" 403 "), "{evil}: {refused}");
        }
    }
    let line = r#"{"ch":"trade","sym":"P","px":"1","qty":"1"}"#;
    let post = [
        "--header",
        "Content-Type: application/x-ndjson",
        "--data-binary",
        line,
    ];
    let (status, response) = ask(port, NAME, "/v1/publish", &post)?;
    ensure!(status == 403, "published without a token: {response}");
    let local = [
        "--header",
        "X-Forwarded-Host: localhost",
        "--header",
        "X-Forwarded-Proto: http",
    ];
    let (status, response) = ask(port, NAME, "/v1/publish", &[&post[..], &local].concat())?;
    ensure!(
        status == 403,
        "published under another host name: {response}"
    );
    let (status, response) = ask(port, "evil.example", "/v1/instruments", &[])?;
    ensure!(status == 421, "another host: {response}");
    check_address(port, admin.context("no admin address")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_configured_by_the_guide_proxies_the_feed() -> Result<()> {
    if !are_installed(&["nginx", "openssl", "curl"])? {
        return Ok(());
    }
    let (feed, folder, port) = (feed().await?, tempfile::tempdir()?, free_port()?);
    let block = configuration("nginx", &feed, port, folder.path())?;
    let _nginx = start_nginx(folder.path(), &block)?;
    let admin = feed.app.admin_address();
    tokio::task::spawn_blocking(move || check(port, admin)).await?
}

/// Starts nginx with a server block.
pub(crate) fn start_nginx(folder: &Path, block: &str) -> Result<Running> {
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{block}}}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut nginx = Command::new("nginx");
    nginx.env("PATH", "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin");
    nginx.arg("-p").arg(folder).arg("-c").arg(&file);
    Ok(Running(nginx.stderr(Stdio::null()).spawn()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_configured_by_the_guide_proxies_the_feed() -> Result<()> {
    if !are_installed(&["haproxy", "openssl", "curl"])? {
        return Ok(());
    }
    let (feed, folder, port) = (feed().await?, tempfile::tempdir()?, free_port()?);
    let block = configuration("haproxy", &feed, port, folder.path())?;
    let _haproxy = start_haproxy(folder.path(), &block)?;
    let admin = feed.app.admin_address();
    tokio::task::spawn_blocking(move || check(port, admin)).await?
}

/// Starts haproxy with a frontend and a backend.
pub(crate) fn start_haproxy(folder: &Path, block: &str) -> Result<Running> {
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, format!("global\n    maxconn 100\n\n{block}"))?;
    let mut haproxy = Command::new("haproxy");
    haproxy.env("PATH", "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin");
    haproxy.args(["-db", "-f"]).arg(&file);
    haproxy.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Running(haproxy.spawn()?))
}
