//! How a message says who pays for it.

use std::time::SystemTime;

use byzerllm_core::{Error, Result};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Secret, Signing};

/// A credential that is computed.
pub trait Sign: Send + Sync {
    /// The token that stands in the header at that time.
    ///
    /// # Errors
    /// What is wrong with the key.
    fn token(&self, now: SystemTime) -> Result<Secret>;
}

/// The credential of a deployment.
pub enum Credential {
    /// None: for servers that ask for none.
    None,
    /// A header field, ready to send.
    Header(HeaderName, HeaderValue),
    /// `Authorization: Bearer` with a token that is computed.
    Signed(Box<dyn Sign>),
}

impl Credential {
    /// `Authorization: Bearer KEY`; none without a key.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] for a key that cannot stand in a header.
    pub fn bearer(key: Option<&Secret>) -> Result<Self> {
        match key {
            Some(key) => Ok(Self::Header(AUTHORIZATION, value(&format!("Bearer {}", key.expose()))?)),
            None => Ok(Self::None),
        }
    }

    /// The key alone in a header field of that name; none without a key.
    ///
    /// # Errors
    /// As [`Credential::bearer`].
    pub fn header(name: &'static str, key: Option<&Secret>) -> Result<Self> {
        match key {
            Some(key) => Ok(Self::Header(HeaderName::from_static(name), value(key.expose())?)),
            None => Ok(Self::None),
        }
    }

    pub(super) fn write(&self, headers: &mut HeaderMap, signing: &Signing<'_>) -> Result<()> {
        match self {
            Self::None => {}
            Self::Header(name, field) => {
                headers.insert(name, field.clone());
            }
            Self::Signed(sign) => {
                let token = sign.token(signing.now)?;
                headers.insert(AUTHORIZATION, value(&format!("Bearer {}", token.expose()))?);
            }
        }
        Ok(())
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    let field = HeaderValue::from_str(text).ok().filter(|_| text.is_ascii());
    let mut value = field.ok_or_else(|| {
        Error::invalid(
            "saas.api_key",
            "saas.api_key holds characters that cannot stand in a header; copy it again",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}
