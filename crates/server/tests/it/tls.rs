//! https: a real handshake, strangers, and files that are not what they should be.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::ErrorKind;
use byzerllm_server::{ServerOptions, Timeouts, TlsFiles, bind};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{App, options};

const PATIENCE: Duration = Duration::from_secs(20);

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

fn write(directory: &Path, made: &CertifiedKey<KeyPair>) -> TlsFiles {
    let files = TlsFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

/// Asks over https, trusting one certificate; the answer, or why there was none.
async fn ask(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let head =
        format!("GET /v1/models HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n", address.port());
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn https_is_served_with_the_given_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (made, stranger) = (certificate(), certificate());
    let tls = Some(write(directory.path(), &made));
    let app = App::answering("x").await;
    let short = Duration::from_millis(300);
    let server = bind(ServerOptions { address: ([127, 0, 0, 1], 0).into(), tls, ..options() }).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let timeouts = Timeouts { head: short, ..Timeouts::default() };
    let task = tokio::spawn(server.with_timeouts(timeouts).run(app.runtime.clone(), stopped));

    // One who never speaks and one who speaks plain http hold nobody up, and are let go.
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let answer = timeout(PATIENCE, ask(address, made.cert.der())).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"chat\""), "{answer}");
    let error = timeout(PATIENCE, ask(address, stranger.cert.der())).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let mut bytes = Vec::new();
    let _cut = timeout(PATIENCE, plain.read_to_end(&mut bytes)).await.unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("200"), "no answer without TLS");
    let _cut = timeout(PATIENCE, silent.read_to_end(&mut bytes)).await.unwrap();
    stop.send(()).unwrap();
    timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn files_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let files = write(directory.path(), &certificate());
    let other = directory.path().join("other.pem");
    std::fs::write(&other, certificate().signing_key.serialize_pem()).unwrap();
    let junk = directory.path().join("junk.pem");
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n").unwrap();
    let missing = directory.path().join("missing.pem");
    let (good, key) = (&files.certificate, &files.key);
    for (certificate, key, param, words) in [
        (&missing, key, "ssl_certfile", "missing.pem"),
        (good, &missing, "ssl_keyfile", "missing.pem"),
        (key, key, "ssl_certfile", "no certificate"),
        (good, good, "ssl_keyfile", "no private key"),
        (&junk, key, "ssl_certfile", "junk.pem"),
        (good, &other, "ssl_keyfile", "not the key of the certificate"),
    ] {
        let tls = Some(TlsFiles { certificate: certificate.clone(), key: key.clone() });
        let options = ServerOptions { address: ([127, 0, 0, 1], 0).into(), tls, ..options() };
        let error = bind(options).await.err().unwrap();
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some(param)), "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}
