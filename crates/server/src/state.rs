//! What every handler shares.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use byzerllm_runtime::Runtime;
use tokio::sync::Semaphore;

use crate::auth::Guard;
use crate::limits;
use crate::metrics::HttpMetrics;
use crate::router::routes;
use crate::server::Timeouts;
use crate::traces::AdoptSpan;

/// How a server listens and whom it lets in.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where to listen. Port 0 takes any free port. Away from loopback the state must have a key.
    pub address: SocketAddr,
    /// Further values of the `Host` header to accept, as `name` or `name:port`. Loopback names with the server's
    /// own port are accepted on loopback, elsewhere the server's own address is.
    pub allowed_hosts: Vec<String>,
    /// Values of the `Origin` header to accept, as `scheme://host[:port]`. Without entries no web page gets in.
    pub allowed_origins: Vec<String>,
    /// A credential that holds every scope; must not be empty.
    pub admin_token: String,
    /// Serve https with these files.
    pub tls: Option<TlsFiles>,
}

/// A certificate and its private key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its root.
    pub certificate: PathBuf,
    /// The private key, not encrypted.
    pub key: PathBuf,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("address", &self.address)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("allowed_origins", &self.allowed_origins)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// What every handler shares. Layers and extractors clone it several times per request: it is one pointer.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

/// What is behind an [`AppState`].
pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) guard: Guard,
    /// Permits for bytes of request bodies in memory.
    pub(crate) body_memory: Arc<Semaphore>,
    pub(crate) timeouts: Timeouts,
    pub(crate) http_metrics: HttpMetrics,
    /// How a caller's span becomes the parent of a request's.
    pub(crate) adopt_span: Option<AdoptSpan>,
}

impl AppState {
    pub(crate) fn new(
        runtime: Runtime,
        options: &ServerOptions,
        timeouts: Timeouts,
        adopt_span: Option<AdoptSpan>,
    ) -> Self {
        Self(Arc::new(Shared {
            runtime,
            guard: Guard::new(options),
            body_memory: Arc::new(Semaphore::new(limits::BODY_MEMORY)),
            timeouts,
            http_metrics: HttpMetrics::new(routes().iter().map(|route| route.path)),
            adopt_span,
        }))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
