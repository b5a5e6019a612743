//! Whom an https connection trusts.
//!
//! A server of this user names its certificate in its runtime file, and exactly that certificate is trusted, whatever
//! name or issuer it carries. Every other server is checked against the system's roots; `SSL_CERT_FILE` names others.

use std::path::Path;
use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// The certificates that a client accepts.
pub(crate) enum Trust {
    /// None: for plain http.
    Nobody,
    /// Those that the system vouches for.
    System,
    /// This one alone.
    Exactly(CertificateDer<'static>),
}

impl Trust {
    /// The first certificate of a PEM file.
    pub(crate) fn exactly(path: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(path).map_err(|error| {
            let message = format!("cannot read the server's certificate '{}': {error}", path.display());
            Error::new(ErrorKind::Unavailable, message)
        })?;
        Ok(Self::Exactly(certificate))
    }

    /// The settings of a connection.
    pub(crate) fn config(self) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?;
        let mut roots = RootCertStore::empty();
        match self {
            Self::Exactly(certificate) => {
                let verifier = Arc::new(Pinned { certificate, provider });
                return Ok(builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth());
            }
            Self::Nobody => {}
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                for error in &found.errors {
                    tracing::warn!(%error, "some of the system's certificates cannot be read");
                }
                roots.add_parsable_certificates(found.certs);
            }
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Accepts one certificate, whose key the server must own.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.certificate.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
