//! Certificate and key from PEM files, for rustls.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use byzerllm_core::{Error, Result};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::state::TlsFiles;

/// The largest PEM file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Whether a server could use these files.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`] naming the file, and what to give instead after a semicolon.
pub fn check_tls(files: &TlsFiles) -> Result<()> {
    acceptor(files).map(drop)
}

/// Reads the files. What they hold appears in no message.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor> {
    let certificates = read("ssl_certfile", &files.certificate)?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificates)
        .collect::<Result<_, _>>()
        .map_err(|error| bad("ssl_certfile", &files.certificate, &format!("is not valid PEM ({error})")))?;
    if certificates.is_empty() {
        return Err(bad("ssl_certfile", &files.certificate, "holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read("ssl_keyfile", &files.key)?).map_err(|_| {
        bad("ssl_keyfile", &files.key, "holds no private key that is not encrypted (PKCS#8, PKCS#1 or SEC1)")
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                bad("ssl_keyfile", &files.key, "is not the key of the certificate")
            }
            error => bad("ssl_certfile", &files.certificate, &format!("cannot be used ({error})")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(param: &'static str, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|error| bad(param, path, &format!("cannot be read: {error}")))?;
    Ok(bytes)
}

fn bad(param: &'static str, path: &Path, why: &str) -> Error {
    Error::invalid(
        param,
        format!("the file '{}' {why}; give PEM files of one certificate and its key", path.display()),
    )
}
