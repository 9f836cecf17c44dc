//! Half-open connections: the packets of clients vanish without an end of their connections. The
//! test runs itself in a network namespace, where it may change addresses and routes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::arena::{CLOSED, Expected, Target, attack, frame, market, open};

/// Address that disappears.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const CLIENTS: usize = 10;
/// Variable that is set inside the namespace.
const INSIDE: &str = "TICKCAST_TEST_NAMESPACE";
const NAME: &str = "half_open::half_open_connections_end_by_their_deadline_with_bounded_queues";

/// Runs a command with the programs of the system; returns its output.
fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let done = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env(INSIDE, "1")
        .output()
        .with_context(|| program.to_owned())?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_end_by_their_deadline_with_bounded_queues() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let prepare = format!("ip link set lo up && ip addr add {ADDRESS}/32 dev lo");
    if let Err(error) = run("unshare", &["-Urn", "sh", "-c", &prepare]) {
        eprintln!("skipped: no network namespace can be made: {error:#}");
        return Ok(());
    }
    let own = std::env::current_exe()?.display().to_string();
    let script = format!("{prepare} && exec \"$0\" --exact {NAME} --nocapture");
    let output = run("unshare", &["-Urn", "sh", "-c", &script, &own])?;
    ensure!(output.contains("1 passed"), "{output}");
    Ok(())
}

/// The attack, inside the namespace.
async fn inside() -> Result<()> {
    let target = Target::start(&market(
        "session: {heartbeat: 200ms, ping_after: 1s, drop_after: 4s, close_timeout: 1s}\nfanout: {outbox: 64KiB, unsent: 4KiB}",
    ))?;
    let expected = Expected {
        name: "half-open connections",
        metric: (CLOSED, "timeout"),
    };
    let vanish = async || {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((IpAddr::from(ADDRESS), 0)))?;
            let (mut stream, status) = open(socket.connect(target.feed).await?, "").await?;
            ensure!(status == 101, "{status}");
            // Half of them are sent only heartbeats.
            if number % 2 == 0 {
                let request =
                    b"{\"op\":\"subscribe\",\"topics\":[\"quote:*\"],\"on_slow\":\"conflate\"}";
                stream.write_all(&frame(0x81, request)).await?;
            }
            clients.push(stream);
        }
        target
            .until("tickcast_connections", "", CLIENTS as f64 + 2.0)
            .await?;
        run(
            "ip",
            &["addr", "del", &format!("{ADDRESS}/32"), "dev", "lo"],
        )?;
        run(
            "ip",
            &["route", "add", "blackhole", &format!("{ADDRESS}/32")],
        )?;
        // To the server, nothing happens: the sockets are established, and their queues grow.
        target.until("tickcast_slow_consumers", "", 1.0).await?;
        let sockets = run(
            "ss",
            &["-tnH", "state", "established", "dst", &ADDRESS.to_string()],
        )?;
        ensure!(sockets.lines().count() == CLIENTS, "{sockets}");
        ensure!(sockets.lines().all(is_queued), "{sockets}");
        target.until(CLOSED, "timeout", CLIENTS as f64).await?;
        let queued = target.metric("tickcast_outbox_bytes", "").await?;
        ensure!(queued < 64.0 * 1024.0, "{queued} bytes are queued");
        drop(clients);
        Ok(())
    };
    attack(&target, expected, vanish).await
}

/// True if a socket in the output of `ss` has sent bytes that nobody has acknowledged.
fn is_queued(line: &str) -> bool {
    let mut fields = line.split_whitespace();
    fields.nth(1).is_some_and(|queue| queue != "0")
}
