//! Accept loops and the time limits of sockets before the handshake.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::forwarded::is_trusted;
use super::guarded::Guarded;
use super::memory::MemoryLevel;
use super::proxy_header::{self, HeaderError};
use super::reserve::{BUSY, Reserve, is_exhausted};
use super::secure::{self, ClientStream};
use super::upgrade::{self, Granted};
use super::{Listener, Server, TlsEndpoint, admit, http};
use crate::admission::Admitted;
use crate::config::{ADMIN_HEAD_BYTES_MAX, SPARE_SOCKETS, Scheme};
use crate::metrics::{PanicIn, Refused};
use crate::shard::{Command, ShardHandle};
use crate::tls::MaybeTls;

/// Listen backlog: max connections waiting to be accepted.
const BACKLOG: i32 = 4096;
/// Max duration of an HTTP connection.
const HTTP_TIME: Duration = Duration::from_secs(60);
/// Time limit for a write that makes no progress.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Time limit for a request head on the admin address.
const ADMIN_HEADER_TIME: Duration = Duration::from_secs(5);
/// Pause after a failed accept, for example when the system is out of sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Guard that counts a socket as in a handshake while it exists.
struct SocketGuard(Arc<AtomicUsize>);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Binds a listener; an address in use is an error that names it.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections and assigns each to the shard with the fewest. With an `endpoint`, the
/// clients begin with a TLS handshake.
pub async fn accept_loop(
    listener: TcpListener,
    server: Arc<Server>,
    endpoint: Option<Arc<TlsEndpoint>>,
) {
    let mut reserve = Reserve::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if reserve.note_accepted(server.clock.now()) {
                    server.metrics.count_refused(Refused::Sockets);
                    reserve.refuse(stream, endpoint.is_some()).await;
                } else {
                    assign(stream, peer, &server, endpoint.clone());
                }
            }
            Err(error) if is_exhausted(&error) => {
                if let Some((stream, _)) = reserve.accept(&listener, server.clock.now()).await {
                    server.metrics.count_refused(Refused::Sockets);
                    reserve.refuse(stream, endpoint.is_some()).await;
                }
                reserve.hold();
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Accepts connections on the admin address.
pub async fn admin_loop(listener: TcpListener, server: Arc<Server>) {
    let address = listener.local_addr().unwrap_or(server.listener.address);
    let own = Arc::new(Listener::new(address, Scheme::Http));
    let mut reserve = Reserve::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Admin connections are never rejected for a lack of descriptors.
                let _short_of_files = reserve.note_accepted(server.clock.now());
                let served = serve_admin(stream, peer, Arc::clone(&server), Arc::clone(&own));
                tokio::spawn(served);
            }
            Err(error) if is_exhausted(&error) => {
                if let Some((stream, peer)) = reserve.accept(&listener, server.clock.now()).await {
                    // One at a time, because there is only one reserved descriptor.
                    let served = serve_admin(stream, peer, Arc::clone(&server), Arc::clone(&own));
                    let _cut_off = tokio::time::timeout(ADMIN_HEADER_TIME, served).await;
                }
                reserve.hold();
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn serve_admin(stream: TcpStream, peer: SocketAddr, server: Arc<Server>, own: Arc<Listener>) {
    let for_service = Arc::clone(&server);
    let service = service_fn(move |request| {
        http::admin(Arc::clone(&for_service), Arc::clone(&own), peer, request)
    });
    let Ok(_permit) = server.admin_permits.try_acquire() else {
        server.metrics.count_refused(Refused::Busy);
        return;
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEADER_TIME)
        .max_buf_size(ADMIN_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Guarded::new(stream, WRITE_TIME)), service);
    match tokio::time::timeout(HTTP_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "admin connection closed"),
        Err(_) => tracing::debug!(%peer, "admin connection timed out"),
    }
}

/// Ignores a client that left before it was accepted; pauses on other errors, such as a lack of
/// descriptors.
async fn pause_after(error: &std::io::Error) {
    let is_the_clients = matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::Interrupted
    );
    if !is_the_clients {
        tracing::warn!(%error, "accept failed; retrying in {} ms", ACCEPT_PAUSE.as_millis());
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn assign(
    stream: TcpStream,
    peer: SocketAddr,
    server: &Arc<Server>,
    endpoint: Option<Arc<TlsEndpoint>>,
) {
    let is_tls = endpoint.is_some();
    if server.memory.level() == MemoryLevel::Exhausted {
        server.metrics.count_refused(Refused::Memory);
        return admit::refuse_with(server, stream, BUSY.to_vec(), is_tls);
    }
    let admitted = match server.admit_peer(peer.ip()) {
        Ok(admitted) => admitted,
        Err(refused) => return admit::refuse(server, stream, &refused, is_tls),
    };
    // Connections count too: each uses a descriptor, and their sum is compared with the open-file
    // limit at startup.
    let sockets = server.sockets.fetch_add(1, Ordering::Relaxed);
    let all = sockets + server.connections.load(Ordering::Relaxed);
    if all >= SPARE_SOCKETS + server.settings.load().connections_max {
        server.sockets.fetch_sub(1, Ordering::Relaxed);
        server.metrics.count_refused(Refused::Sockets);
        return admit::refuse_with(server, stream, BUSY.to_vec(), is_tls);
    }
    let guard = SocketGuard(Arc::clone(&server.sockets));
    // The starting shard rotates, because a storm arrives faster than its connections are counted.
    let first =
        server.assigned.fetch_add(1, Ordering::Relaxed) % server.shards_without_delay().len();
    let (before, from) = server.shards_without_delay().split_at(first);
    let Some(shard) = from
        .iter()
        .chain(before)
        .min_by_key(|shard| shard.connections())
    else {
        return;
    };
    let Ok(stream) = stream.into_std() else {
        return;
    };
    let (server, handle) = (Arc::clone(server), shard.clone());
    let runtime = endpoint.as_ref().map_or(&shard.runtime, |tls| &tls.runtime);
    // Spawned by the thread that ends it: the allocator keeps memory that one thread allocates and
    // another one frees.
    runtime.clone().spawn(async move {
        tokio::spawn(async move {
            let metrics = Arc::clone(&server.metrics);
            let served = AssertUnwindSafe(serve(stream, peer, admitted, server, handle, endpoint));
            if served.catch_unwind().await.is_err() {
                metrics.count_panic(PanicIn::Http);
                tracing::error!(%peer, "panic while serving HTTP; this is a bug, the connection is closed");
            }
            drop(guard);
        });
    });
}

async fn serve(
    stream: std::net::TcpStream,
    mut peer: SocketAddr,
    mut admitted: Option<Admitted>,
    server: Arc<Server>,
    shard: ShardHandle,
    endpoint: Option<Arc<TlsEndpoint>>,
) {
    let Ok(mut stream) = TcpStream::from_std(stream) else {
        return;
    };
    // Missing socket options reduce performance, not correctness.
    let settings = server.settings.load_full();
    let socket = SockRef::from(&stream);
    let options = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_notsent_lowat(settings.notsent_bytes),
    ];
    for error in options.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "cannot set a socket option");
    }
    if server.listener.proxy_protocol {
        match client_of_header(&mut stream, peer, &server).await {
            Ok(None) => {}
            Ok(Some(client)) => match server.admit(client.ip()) {
                Ok(counted) => (peer, admitted) = (client, counted),
                Err(refused) => {
                    return admit::refuse(&server, stream, &refused, endpoint.is_some());
                }
            },
            Err(error) => {
                server.metrics.count_refused(Refused::ProxyHeader);
                tracing::debug!(%peer, %error, "PROXY header rejected");
                return;
            }
        }
    }
    // hyper allocates its buffers with the first byte, so that a silent socket costs nothing.
    let mut byte = [0];
    let first = tokio::time::timeout(settings.handshake_timeout, stream.peek(&mut byte));
    if !matches!(first.await, Ok(Ok(1))) {
        server.metrics.count_refused(Refused::Silent);
        return;
    }
    let stream = match &endpoint {
        None => MaybeTls::Plain(stream),
        Some(endpoint) => {
            let secured = secure::handshake(stream, byte[0], peer, &server, endpoint);
            let Some(stream) = Box::pin(secured).await else {
                return;
            };
            stream
        }
    };
    Box::pin(serve_http(stream, peer, admitted, server, shard, endpoint)).await;
}

/// Client named by the PROXY header of a connection, which must come from a trusted proxy.
async fn client_of_header(
    stream: &mut TcpStream,
    peer: SocketAddr,
    server: &Server,
) -> Result<Option<SocketAddr>, HeaderError> {
    let settings = server.settings.load_full();
    if !is_trusted(&settings.trusted_proxies, peer.ip()) {
        return Err(HeaderError::Untrusted);
    }
    let read = tokio::time::timeout(settings.handshake_timeout, proxy_header::read(stream));
    read.await.unwrap_or(Err(HeaderError::Late))
}

async fn serve_http(
    stream: ClientStream,
    peer: SocketAddr,
    admitted: Option<Admitted>,
    server: Arc<Server>,
    shard: ShardHandle,
    endpoint: Option<Arc<TlsEndpoint>>,
) {
    let (timeout, head_bytes_max) = {
        let settings = server.settings.load();
        (settings.handshake_timeout, settings.head_bytes_max)
    };
    let (granted, served) = (Granted::default(), Arc::new(AtomicBool::new(false)));
    let (requested, handle) = (Arc::clone(&granted), shard.clone());
    let (for_service, any) = (Arc::clone(&server), Arc::clone(&served));
    let service = service_fn(move |request| {
        any.store(true, Ordering::Relaxed);
        #[cfg(feature = "internals")]
        failpoint(&request);
        http::feed(
            Arc::clone(&for_service),
            handle.clone(),
            peer,
            endpoint.clone(),
            request,
            Arc::clone(&requested),
        )
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_headers(100)
        .max_buf_size(head_bytes_max)
        .serve_connection(TokioIo::new(Guarded::new(stream, WRITE_TIME)), service)
        .with_upgrades();
    // An upgraded connection has left hyper by then; a client that does not read its response must
    // not keep it open forever.
    match tokio::time::timeout(HTTP_TIME, connection).await {
        Ok(Ok(())) => {
            if let Some(adopted) = upgrade::adopted(&granted, peer, admitted).await {
                // A shard without the client's delay refuses it.
                let shard = server
                    .shard_of(&adopted.principal, &shard)
                    .unwrap_or(&shard);
                shard.send(Command::Adopt(Box::new(adopted))).await;
            }
        }
        Ok(Err(error)) => {
            if let Some(reason) = refused(&error, served.load(Ordering::Relaxed)) {
                server.metrics.count_refused(reason);
            }
            tracing::debug!(%peer, %error, "HTTP connection closed");
        }
        Err(_) => tracing::debug!(%peer, "HTTP connection timed out"),
    }
}

/// Panics by request of a test of its isolation.
#[cfg(feature = "internals")]
fn failpoint(request: &hyper::Request<hyper::body::Incoming>) {
    let is_requested = request.headers().contains_key("x-tickcast-failpoint");
    assert!(!is_requested, "requested by a test");
}

/// Reason why hyper rejected a request head; `None` for other errors, and for a keep-alive
/// connection that ended.
fn refused(error: &hyper::Error, was_served: bool) -> Option<Refused> {
    if is_unread(error) {
        Some(Refused::Unread)
    } else if error.is_parse_too_large() {
        Some(Refused::TooLarge)
    } else if error.is_parse() {
        Some(Refused::Malformed)
    } else if was_served {
        None
    } else if error.is_timeout() {
        Some(Refused::Slow)
    } else if error.is_incomplete_message() {
        Some(Refused::Incomplete)
    } else {
        None
    }
}

/// True if a write exceeded its time limit.
fn is_unread(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &std::io::Error| cause.kind() == std::io::ErrorKind::TimedOut)
}
