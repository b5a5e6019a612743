//! Encryption, proxies and addresses: who is trusted, and which way the bytes take.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use byzerllm_core::{ErrorKind, RequestContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types};

use crate::mini::{KEY, STOP, TEXT, USAGE, ask, open, refusal, request, text};
use crate::server::{Server, reply, stream};

/// A TLS server for `localhost` that passes everything on to a plain one; its certificate as PEM.
async fn secure(inner: &Server) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = inner.address();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut plain = TcpStream::connect(inner).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    (address, made.cert.pem())
}

/// A proxy of one of two kinds that notes its greetings and leads everything to `target`.
async fn proxy(target: SocketAddr, socks: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let notes: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&notes);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let note = if socks { greet_socks(&mut tcp).await } else { greet_http(&mut tcp).await };
            heard.lock().unwrap().push(note);
            let mut onward = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut tcp, &mut onward).await });
        }
    });
    (address, notes)
}

async fn greet_http(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await.unwrap();
    String::from_utf8(head).unwrap()
}

async fn greet_socks(tcp: &mut TcpStream) -> String {
    let mut greeting = [0; 3];
    tcp.read_exact(&mut greeting).await.unwrap();
    tcp.write_all(&[5, greeting[2]]).await.unwrap();
    let mut note = String::new();
    if greeting[2] == 2 {
        assert_eq!(tcp.read_u8().await.unwrap(), 1);
        for _ in 0..2 {
            note.push_str(&word(tcp).await);
            note.push(' ');
        }
        tcp.write_all(&[1, 0]).await.unwrap();
    }
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await.unwrap();
    assert_eq!(head, [5, 1, 0, 3]);
    let host = word(tcp).await;
    let port = tcp.read_u16().await.unwrap();
    tcp.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    format!("{note}{host}:{port}")
}

async fn word(tcp: &mut TcpStream) -> String {
    let length = tcp.read_u8().await.unwrap();
    let mut bytes = vec![0; usize::from(length)];
    tcp.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn only_a_trusted_certificate_is_shown_the_key() {
    let server = Server::start([stream([TEXT, STOP, USAGE]), stream([TEXT, STOP, USAGE])]).await;
    let (address, pem) = secure(&server).await;
    let url = format!("https://localhost:{}/v1", address.port());

    let items = ask(&open(&url, &[("max_retries", "0")]), request(), RequestContext::local()).await;
    let error = refusal(&items);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("not trusted") && error.message().contains("saas.ca_file"), "{error}");
    assert!(server.seen().is_empty());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    for trust in [("ca_file", file.to_str().unwrap()), ("https_verify", "false")] {
        let items = ask(&open(&url, &[trust]), request(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{trust:?}: {items:?}");
    }
    // Trusted, but for another name.
    let other = url.replace("localhost", "127.0.0.1");
    let model = open(&other, &[("ca_file", file.to_str().unwrap()), ("max_retries", "0")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert!(refusal(&items).message().contains("not trusted"), "{items:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn what_is_encrypted_goes_through_a_tunnel() {
    let server = Server::start([stream([TEXT, STOP, USAGE])]).await;
    let (address, _) = secure(&server).await;
    let (proxy, notes) = proxy(address, false).await;
    let through = format!("http://user:word@{proxy}");
    let model = open("https://vendor.test/v1", &[("proxies", &through), ("https_verify", "false")]);
    let items = ask(&model, request(), RequestContext::local()).await;
    assert!(text(&items).1.is_none(), "{items:?}");
    let notes = notes.lock().unwrap().clone();
    assert!(notes[0].starts_with("CONNECT vendor.test:443 HTTP/1.1\r\n"), "{notes:?}");
    assert!(notes[0].contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"), "{notes:?}");
    assert!(!notes[0].contains(KEY));
    assert_eq!(server.seen()[0].line(), "POST /v1/chat HTTP/1.1");
    assert_eq!(server.seen()[0].field("proxy-authorization"), None);
}

#[tokio::test]
async fn socks_looks_up_names_itself() {
    for (user, note) in [("", "vendor.test:8080"), ("me:word@", "me word vendor.test:8080")] {
        let server = Server::start([stream([TEXT, STOP, USAGE])]).await;
        let (proxy, notes) = proxy(server.address(), true).await;
        let through = format!("socks5h://{user}{proxy}");
        let model = open("http://vendor.test:8080/v1", &[("proxies", &through)]);
        let items = ask(&model, request(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{items:?}");
        assert_eq!(*notes.lock().unwrap(), [note]);
        assert_eq!(server.seen()[0].field("host"), Some("vendor.test:8080"));
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    let proxy = Server::start([reply(407, &[], "")]).await;
    let through = proxy.url().replace("http://", "http://user:proxy-word-1234@").replace("/v1", "");
    let model = open(
        "https://vendor.test/v1",
        &[("proxies", &through), ("max_retries", "0"), ("https_verify", "false")],
    );
    let items = ask(&model, request(), RequestContext::local()).await;
    let error = refusal(&items);
    assert!(
        error.message().contains("through the proxy 127.0.0.1:") && error.message().contains("407"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("proxy-word"), "{error:?}");
}

#[tokio::test]
async fn connections_come_from_the_local_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let model = open(&url, &[("local_address", "127.0.0.2"), ("max_retries", "0")]);
    let asking = tokio::spawn(async move { ask(&model, request(), RequestContext::local()).await });
    let (_tcp, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.2");
    asking.abort();
}
