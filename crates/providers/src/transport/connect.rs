//! From a URL to a connection: name lookup, TCP, proxy, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use byzerllm_client::tls::Trust;
use byzerllm_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use super::proxy::Proxy;
use crate::Parameters;

/// So long one of several addresses is tried.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of a URL with a host.
    pub(crate) fn of(url: &Url) -> Self {
        let (tls, host, port) = parts(url);
        Self { tls, host: host.to_owned(), port }
    }

    /// Whether a URL leads there.
    pub(crate) fn is_of(&self, url: &Url) -> bool {
        let (tls, host, port) = parts(url);
        self.tls == tls && self.port == port && self.host == host
    }
}

/// For people: `https://host:port`.
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tls, host, port } = self;
        let scheme = if *tls { "https" } else { "http" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

fn parts(url: &Url) -> (bool, &str, u16) {
    let tls = matches!(url.scheme(), "https" | "wss");
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (tls, host, url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 }))
}

/// Anything that bytes go through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection.
pub(crate) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    pub(crate) fn into_io(self) -> Box<dyn Io> {
        match self {
            Self::Plain(tcp) => Box::new(tcp),
            Self::Tls(tls) => tls,
        }
    }
}

/// Makes connections as the deployment's parameters say.
pub(crate) struct Connector {
    pub(crate) proxy: Option<Proxy>,
    local: Option<IpAddr>,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn new(vendor: &str, deployment: &str, parameters: &Parameters) -> Result<Self> {
        let trust = if !parameters.flag("https_verify") {
            tracing::warn!(
                vendor,
                deployment,
                "saas.https_verify is false: whoever is on the way can read the key"
            );
            Trust::Everybody
        } else if let Some(path) = parameters.optional_text("ca_file") {
            Trust::system_and(Path::new(path)).map_err(|error| error.with_param("saas.ca_file"))?
        } else {
            Trust::System
        };
        let mut config = trust.config()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            proxy: parameters.optional_text("proxies").map(Proxy::parse).transpose()?,
            local: parameters.address("local_address"),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Connects. A plain connection for `http` may end at a proxy that forwards ([`Proxy::forwards`]); one for a
    /// WebSocket must not, which `tunnel` says.
    pub(crate) async fn connect(&self, origin: &Origin, tunnel: bool) -> Result<Link> {
        let tcp = match &self.proxy {
            None => {
                self.tcp(&origin.host, origin.port).await.map_err(|error| unreachable(origin, "", &error))?
            }
            Some(proxy) => {
                let through = format!(" through the proxy {}:{}", proxy.host, proxy.port);
                let reach = async {
                    let mut tcp = self.tcp(&proxy.host, proxy.port).await?;
                    if tunnel || origin.tls || !proxy.forwards() {
                        proxy.tunnel(&mut tcp, &origin.host, origin.port).await?;
                    }
                    Ok(tcp)
                };
                reach.await.map_err(|error: io::Error| unreachable(origin, &through, &error))?
            }
        };
        if !origin.tls {
            return Ok(Link::Plain(tcp));
        }
        let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
            Error::invalid("saas.base_url", format!("'{origin}' names no host that TLS knows"))
        })?;
        match self.tls.connect(name, tcp).await {
            Ok(stream) => Ok(Link::Tls(Box::new(stream))),
            Err(error) => Err(untrusted(origin, &error)),
        }
    }

    /// The first address of a name that takes a connection.
    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.addresses(host, port).await?;
        let mut last = None;
        for (tried, address) in addresses.iter().enumerate() {
            // An address that does not answer leaves time for the others.
            let more = tried + 1 < addresses.len();
            let dialled = if more {
                timeout(PATIENCE, self.dial(*address)).await
            } else {
                Ok(self.dial(*address).await)
            };
            match dialled {
                Ok(Ok(tcp)) => {
                    tcp.set_nodelay(true)?;
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
        Err(last.unwrap_or_else(|| {
            io::Error::other("the name has no address of the family of saas.local_address")
        }))
    }

    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let fits = |address: &SocketAddr| self.local.is_none_or(|local| local.is_ipv4() == address.is_ipv4());
        // An address needs no thread that looks up names.
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => lookup_host((host, port)).await?.collect(),
        };
        Ok(found.into_iter().filter(fits).collect())
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(local) = self.local {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        socket.connect(address).await
    }
}

fn unreachable(origin: &Origin, through: &str, error: &io::Error) -> Error {
    let message = format!(
        "no connection to {origin}{through}: {error}; check saas.base_url, saas.proxies and the network"
    );
    Error::new(ErrorKind::Unavailable, message)
}

fn untrusted(origin: &Origin, error: &io::Error) -> Error {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
    let message = if certificate {
        format!("the certificate of {origin} is not trusted: {error}; name its authority with saas.ca_file")
    } else {
        format!("no encrypted connection to {origin}: {error}; check whether it speaks https")
    };
    Error::new(ErrorKind::Unavailable, message)
}
