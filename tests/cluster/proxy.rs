//! A TCP proxy between a server and NATS, which holds, slows and loses what it forwards.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to the bytes of all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Open,
    /// Holds everything.
    Stalled,
    /// Holds what NATS sends.
    AnswersHeld,
    /// Forwards this number of bytes per second in each direction.
    Slow(u32),
}

/// State of the proxy.
#[derive(Debug, Clone, Copy)]
struct State {
    link: Link,
    /// Number of times that all connections were closed.
    cuts: u64,
}

/// Direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToNats,
    FromNats,
}

impl Link {
    fn forwards(self, direction: Direction) -> bool {
        match self {
            Self::Open | Self::Slow(_) => true,
            Self::Stalled => false,
            Self::AnswersHeld => direction == Direction::ToNats,
        }
    }
}

/// A running proxy, which ends with this value.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy in front of NATS.
    pub(crate) async fn start(nats: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let open = State {
            link: Link::Open,
            cuts: 0,
        };
        let (sender, state) = watch::channel(open);
        let accept = async move {
            while let Ok((server, _)) = listener.accept().await {
                let Ok(nats) = TcpStream::connect(nats).await else {
                    continue;
                };
                let ((from_server, to_server), (from_nats, to_nats)) =
                    (server.into_split(), nats.into_split());
                let forth = forward(from_server, to_nats, Direction::ToNats, state.clone());
                let back = forward(from_nats, to_server, Direction::FromNats, state.clone());
                // Both ends are closed as soon as one of them is.
                tokio::spawn(async move {
                    tokio::select! {
                        () = forth => {}
                        () = back => {}
                    }
                });
            }
        };
        Ok(Self {
            address,
            state: sender,
            task: tokio::spawn(accept),
        })
    }

    pub(crate) fn set(&self, link: Link) {
        self.state.send_modify(|state| state.link = link);
    }

    /// Closes all connections, without what the proxy holds; new ones are open.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| {
            state.link = Link::Open;
            state.cuts += 1;
        });
    }
}

/// Forwards bytes until an end closes or the connections are cut.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut state: watch::Receiver<State>,
) {
    let cuts = state.borrow().cuts;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            cut = state.wait_for(|state| state.cuts != cuts) => {
                drop(cut);
                return;
            }
        };
        let Ok(count @ 1..) = read else {
            return;
        };
        let is_due = |state: &State| state.cuts != cuts || state.link.forwards(direction);
        let Ok(State { link, cuts: now }) = state.wait_for(is_due).await.map(|state| *state) else {
            return;
        };
        if now != cuts || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if let Link::Slow(bytes_per_s) = link {
            let share = count as f64 / f64::from(bytes_per_s);
            tokio::time::sleep(Duration::from_secs_f64(share)).await;
        }
    }
}
