//! The socket, with TLS or without: bounded in connections, time and memory, drained at the end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_runtime::Runtime;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connections::{self, Crowd, Seat};
use crate::patience::Patient;
use crate::router::build;
use crate::state::{AppState, ServerOptions};
use crate::traces::AdoptSpan;
use crate::turns::Together;
use crate::{limits, tls};

/// How long the server waits for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a request's head; also for the next request of an idle connection.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For a client to take some of what is written to it.
    pub write: Duration,
    /// For running requests when the server stops.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(30), body: seconds(60), write: seconds(60), drain: seconds(30) }
    }
}

/// A server that holds its port but does not answer yet.
pub struct Server {
    listener: TcpListener,
    options: ServerOptions,
    timeouts: Timeouts,
    connections: usize,
    tls: Option<TlsAcceptor>,
    adopt_span: Option<AdoptSpan>,
}

/// Takes the port. What arrives on it waits for [`Server::run`], which also checks who may be let in from afar.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for an empty token or bad TLS files, [`ErrorKind::Conflict`] when the port is taken, [`ErrorKind::Unavailable`] for what else the operating system says.
pub async fn bind(options: ServerOptions) -> Result<Server> {
    let address = options.address;
    if options.admin_token.is_empty() {
        return Err(Error::invalid("admin_token", "the admin token must not be empty"));
    }
    let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
    let listener = listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let port = address.port();
            let message = format!("port {port} is in use; stop what holds it or choose another port");
            Error::new(ErrorKind::Conflict, message).with_source(error)
        }
        _ => {
            let message = format!("cannot listen on {address}: {error}");
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        }
    })?;
    let address = listener
        .local_addr()
        .map_err(|error| Error::internal("the socket has no address").with_source(error))?;
    let options = ServerOptions { address, ..options };
    let (timeouts, connections) = (Timeouts::default(), limits::CONNECTIONS);
    Ok(Server { listener, options, timeouts, connections, tls, adopt_span: None })
}

/// Takes a port as tokio does, with buffers of a fixed size: a client that does not read must not make the system
/// keep megabytes for it.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(limits::SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(1024)
}

impl Server {
    /// Where the server listens, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.options.address
    }

    /// Replaces the default time-outs.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Holds at most so many connections at once, and no more than the limit of open files allows.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Lets requests take part in the traces of their callers.
    #[must_use]
    pub fn with_callers_spans(mut self, adopt: AdoptSpan) -> Self {
        self.adopt_span = Some(adopt);
        self
    }

    /// Serves until `shutdown` completes; then takes no more connections, lets running requests finish within
    /// [`Timeouts::drain`] and cuts the rest. The runtime stays open. Dropping this future cuts everything at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the address is not loopback and the runtime has never had a key. What goes
    /// wrong with one connection is that connection's matter.
    pub async fn run(self, runtime: Runtime, shutdown: impl Future) -> Result<()> {
        let Self { listener, options, timeouts, connections: room, tls, adopt_span } = self;
        let address = options.address;
        if !address.ip().is_loopback() && !runtime.keys().exist() {
            let message = format!(
                "refusing to serve {address} without a key: everyone who reaches it could ask; make one first: \
                 byzerllm keys create --name NAME"
            );
            return Err(Error::invalid("address", message));
        }
        let router = build(AppState::new(runtime, &options, timeouts, adopt_span));
        let closing = CancellationToken::new();
        let mut connections = JoinSet::new();
        let crowd = Crowd::new(connections::affordable(room), closing.clone());
        let mut shutdown = pin!(shutdown);
        {
            let mut accepting = pin!(accept(&listener, &crowd));
            loop {
                let stream = tokio::select! {
                    biased;
                    _ = &mut shutdown => break,
                    Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                    accepted = accepting.as_mut() => accepted,
                };
                accepting.set(accept(&listener, &crowd));
                let Some((stream, seat)) = stream else { break };
                connections.spawn(welcome(stream, tls.clone(), seat, router.clone(), timeouts));
            }
        }
        drop(listener);
        closing.cancel();
        let deadline = Instant::now() + timeouts.drain;
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout_at(deadline, drained).await.is_err() {
            let left = connections.len();
            tracing::warn!(
                left,
                "requests were still running when the time to finish was over; they are cut"
            );
        }
        connections.shutdown().await;
        Ok(())
    }
}

/// The next connection, as soon as there is room for one.
async fn accept(listener: &TcpListener, crowd: &Arc<Crowd>) -> Option<(TcpStream, Seat)> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, crowd.seat().await?)),
            Err(error) => {
                // A client that left early is nobody's fault; out of descriptors must not spin.
                tracing::debug!(%error, "a connection could not be accepted");
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset
                ) {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One connection from its start; the handshake counts as part of the first request's head.
async fn welcome(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    seat: Seat,
    router: Router,
    timeouts: Timeouts,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its write delay");
    }
    let stream = Together::new(Patient::new(stream, timeouts.write), seat.pieces());
    match tls {
        None => serve(stream, &seat, router, timeouts).await,
        // Several times larger: beside it, each plain connection would take as much.
        Some(tls) => Box::pin(encrypted(stream, tls, &seat, router, timeouts)).await,
    }
}

/// One connection with TLS from its handshake.
async fn encrypted(
    stream: Together<Patient<TcpStream>>,
    tls: TlsAcceptor,
    seat: &Seat,
    router: Router,
    timeouts: Timeouts,
) {
    let shaken = tokio::select! {
        () = seat.left() => return,
        shaken = timeout(timeouts.head, tls.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => serve(stream, seat, router, timeouts).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// One connection, until it ends or has to leave; a running request ends before.
async fn serve<S>(stream: S, seat: &Seat, router: Router, timeouts: Timeouts)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(limits::HEAD_BYTES)
        .max_headers(limits::HEADERS)
        .serve_connection(TokioIo::new(stream), seat.service(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = seat.left() => {
            if seat.is_in_the_way() {
                return tracing::debug!("a quiet connection makes place for another one");
            }
            connection.as_mut().graceful_shutdown();
            // The caller bounds this wait for all connections together.
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
