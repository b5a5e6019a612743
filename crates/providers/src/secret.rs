//! Credentials, which are shown to nobody.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A credential. It is not shown by `Debug`, is wiped from memory when dropped, and can be taken out of a text.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The credential itself, for a header or a signature.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The text with every occurrence of the credential replaced. Credentials shorter than four bytes are left, as
    /// they would tear apart every text.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let secret = self.expose();
        if secret.len() < 4 { text.to_owned() } else { text.replace(secret, "***") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
