//! Proxies: plain HTTP proxies (`CONNECT` for what is encrypted) and SOCKS 5.
//!
//! Sources: RFC 9110 section 9.3.6, RFC 1928, RFC 1929.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use byzerllm_core::{Error, Result};
use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::Secret;

/// The longest answer to `CONNECT`, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// A proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    socks: bool,
    user: Option<(String, Secret)>,
}

impl Proxy {
    /// Reads `http://[user:password@]host:port` or `socks5://…`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            let message = format!(
                "saas.proxies {why}; give the URL of one proxy, like http://host:3128 or socks5://host:1080"
            );
            Error::invalid("saas.proxies", message)
        };
        let url = Url::parse(text).map_err(|_| bad("is not a URL"))?;
        let (socks, port) = match url.scheme() {
            "http" => (false, 80),
            "socks5" | "socks5h" => (true, 1080),
            _ => return Err(bad("names a protocol that is not known")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let decode = |text: &str| {
            let decoded = super::super::redact::percent_decode(text);
            String::from_utf8(decoded).map_err(|_| bad("holds a user or a password that is not UTF-8"))
        };
        let user = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decode(user)?, Secret::new(decode(password.unwrap_or_default())?))),
        };
        Ok(Self { host, port: url.port().unwrap_or(port), socks, user })
    }

    /// The password, for redaction.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.user.as_ref().map(|(_, password)| password)
    }

    /// Whether a plain `http` request goes to the proxy as it is, with an absolute URL.
    pub(crate) fn forwards(&self) -> bool {
        !self.socks
    }

    /// The credential of a plain HTTP proxy.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.user.as_ref()?;
        let text = format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose())));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Makes of a connection to the proxy one to `host`.
    pub(crate) async fn tunnel(&self, tcp: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
        if self.socks { self.socks(tcp, host, port).await } else { self.connect(tcp, host, port).await }
    }

    async fn connect(&self, tcp: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(value) = self.authorization().as_ref().and_then(|value| value.to_str().ok()) {
            head.push_str("Proxy-Authorization: ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        tcp.write_all(head.as_bytes()).await?;
        // Byte by byte: what follows the head belongs to the tunnel.
        let mut answer = Vec::with_capacity(256);
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_HEAD {
                return Err(io::Error::other("the proxy's answer is too long"));
            }
            answer.push(tcp.read_u8().await?);
        }
        let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        match status {
            [b'2', _, _] => Ok(()),
            b"407" => Err(io::Error::other("the proxy wants a user and a password (status 407)")),
            other => {
                let status = String::from_utf8_lossy(other).chars().take(3).collect::<String>();
                Err(io::Error::other(format!("the proxy refused with status {}", status.escape_debug())))
            }
        }
    }

    async fn socks(&self, tcp: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
        let odd = |why: &str| io::Error::other(format!("the SOCKS proxy {why}"));
        let method = if self.user.is_some() { 2 } else { 0 };
        tcp.write_all(&[5, 1, method]).await?;
        let mut reply = [0; 2];
        tcp.read_exact(&mut reply).await?;
        if reply != [5, method] {
            return Err(odd("refused how we show who we are"));
        }
        if let Some((user, password)) = &self.user {
            let mut message = vec![1];
            for text in [user.as_str(), password.expose()] {
                message.push(
                    u8::try_from(text.len())
                        .map_err(|_| odd("takes at most 255 bytes of a user or password"))?,
                );
                message.extend_from_slice(text.as_bytes());
            }
            tcp.write_all(&message).await?;
            tcp.read_exact(&mut reply).await?;
            if reply[1] != 0 {
                return Err(odd("refused the user or the password"));
            }
        }
        let mut message = vec![5, 1, 0, 3];
        message.push(u8::try_from(host.len()).map_err(|_| odd("takes at most 255 bytes of a host's name"))?);
        message.extend_from_slice(host.as_bytes());
        message.extend_from_slice(&port.to_be_bytes());
        tcp.write_all(&message).await?;
        let mut head = [0; 4];
        tcp.read_exact(&mut head).await?;
        if head[0] != 5 || head[1] != 0 {
            return Err(odd(&format!("could not reach the host (code {})", head[1])));
        }
        let address = match head[3] {
            1 => 4,
            4 => 16,
            3 => usize::from(tcp.read_u8().await?),
            _ => return Err(odd("answered with an unknown kind of address")),
        };
        let mut rest = vec![0; address + 2];
        tcp.read_exact(&mut rest).await?;
        Ok(())
    }
}
