//! Whom an https connection trusts.
//!
//! A server of this user names its certificate in its runtime file, and exactly that certificate is trusted, whatever
//! name or issuer it carries. Every other server is checked against the system's roots; `SSL_CERT_FILE` names others,
//! and a caller may add some, or trust whoever answers.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use byzerllm_core::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// The certificates that a client accepts.
#[derive(Debug)]
pub enum Trust {
    /// None: for plain http.
    Nobody,
    /// Those that the system vouches for.
    System,
    /// Those that the system or one of these authorities vouches for.
    SystemAnd(Vec<CertificateDer<'static>>),
    /// This one alone.
    Exactly(CertificateDer<'static>),
    /// Every one, whoever shows it: whoever is on the way can read and change everything.
    Everybody,
}

/// The certificates that the system trusts, read once.
fn system() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's certificates cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

impl Trust {
    /// The first certificate of a PEM file.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the file holds none.
    pub fn exactly(path: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(path).map_err(|error| {
            let message = format!("cannot read the server's certificate '{}': {error}", path.display());
            Error::new(ErrorKind::Unavailable, message)
        })?;
        Ok(Self::Exactly(certificate))
    }

    /// The system's authorities and those of a PEM file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when the file cannot be read or holds no certificate.
    pub fn system_and(path: &Path) -> Result<Self> {
        let bad = |why: String| {
            let message = format!("cannot read certificate authorities from '{}': {why}", path.display());
            Error::new(ErrorKind::InvalidRequest, message)
        };
        let pem = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
        let found: Vec<_> = pem.collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
        if found.is_empty() {
            return Err(bad("it holds no certificate in PEM form".to_owned()));
        }
        Ok(Self::SystemAnd(found))
    }

    /// The settings of a connection.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the library refuses its own defaults.
    pub fn config(self) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?;
        let accepted = match self {
            Self::Exactly(certificate) => Some(certificate),
            Self::Everybody => None,
            Self::Nobody => {
                return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
            }
            Self::System => {
                return Ok(builder.with_root_certificates(system().clone()).with_no_client_auth());
            }
            Self::SystemAnd(further) => {
                let mut roots = system().clone();
                roots.add_parsable_certificates(further);
                return Ok(builder.with_root_certificates(roots).with_no_client_auth());
            }
        };
        let verifier = Arc::new(Pinned { accepted, provider });
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

/// Accepts one certificate, or any. The server must own its key.
#[derive(Debug)]
struct Pinned {
    accepted: Option<CertificateDer<'static>>,
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
        if self.accepted.as_ref().is_none_or(|accepted| accepted.as_ref() == end_entity.as_ref()) {
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
