//! Credentials of vendors: the forms in which they are given, and how they are kept.
//!
//! A secret is `env:NAME` or `file:PATH`, which are kept as they are and looked up by the process that runs the model
//! each time that it loads, or the credential itself. The latter is written to disk only as `sealed:…`: encrypted under
//! the master key of the state directory.

mod lookup;
mod master_key;
mod seal;

use std::fmt;

use byzerllm_core::{Error, Result};
use byzerllm_providers::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};

pub(crate) use seal::{Sealer, Slot};

/// What is shown in place of a credential.
pub(crate) const HIDDEN: &str = "***";
/// How a sealed credential begins.
const SEALED: &str = "sealed:";

/// The value of a parameter that may be a credential. `Debug` shows a reference and nothing else.
#[derive(Clone)]
pub struct SecretText(Secret);

/// The forms that a secret is given or kept in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// A variable of the environment.
    Environment(&'a str),
    /// A file.
    File(&'a str),
    /// Encrypted under the master key, in base64.
    Sealed(&'a str),
    /// The credential itself.
    Literal(&'a str),
}

impl SecretText {
    /// Wraps a value.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text))
    }

    /// The value itself, for those who send or store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Whether it is the credential itself and no reference to one.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        matches!(self.form(), Form::Literal(_))
    }

    /// What may be shown where the value is a credential: a reference, or `***`.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self.form() {
            Form::Environment(_) | Form::File(_) => self.expose(),
            Form::Sealed(_) | Form::Literal(_) => HIDDEN,
        }
    }

    pub(crate) fn form(&self) -> Form<'_> {
        let text = self.expose().trim();
        if let Some(name) = text.strip_prefix("env:") {
            Form::Environment(name)
        } else if let Some(path) = text.strip_prefix("file:") {
            Form::File(path)
        } else if let Some(sealed) = text.strip_prefix(SEALED) {
            Form::Sealed(sealed)
        } else {
            Form::Literal(text)
        }
    }

    /// Refuses what nobody may give as a secret from outside.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] naming the parameter, never the value.
    pub(crate) fn check(&self, parameter: &str) -> Result<()> {
        let refused = |why: &str| Err(Error::invalid(parameter.to_owned(), format!("{parameter} {why}")));
        match self.form() {
            Form::Environment(name) => lookup::check_variable(parameter, name),
            Form::File(path) => lookup::check_path(parameter, path),
            Form::Sealed(_) => {
                refused("is sealed for another place; give env:NAME, file:PATH or the secret itself")
            }
            Form::Literal("") => refused("is empty; give env:NAME, file:PATH or the secret itself"),
            Form::Literal("-") => refused(
                "is '-', which only the command line reads from its standard input; give env:NAME or file:PATH",
            ),
            Form::Literal(text) if text.chars().all(|c| c == '*') => refused(
                "is what is shown in place of a secret; give env:NAME, file:PATH or the secret itself",
            ),
            Form::Literal(_) => Ok(()),
        }
    }

    /// The credential that it is or stands for.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] saying which process lacks it and what to do.
    pub(crate) fn resolve(&self, slot: Slot<'_>, sealer: Option<&Sealer>) -> Result<Secret> {
        match self.form() {
            Form::Environment(name) => lookup::variable(slot.parameter, name),
            Form::File(path) => lookup::file(slot.parameter, path),
            Form::Literal(text) => Ok(Secret::new(text)),
            Form::Sealed(text) => match sealer {
                Some(sealer) => Ok(sealer.open(slot, text)?),
                None => Err(Error::invalid(
                    slot.parameter.to_owned(),
                    format!("{} is sealed, and this runtime keeps no state; deploy it again", slot.parameter),
                )),
            },
        }
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.shown())
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SecretText {}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    /// Text, a number or a truth; an error never quotes it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = SecretText;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text, a number or true or false")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<SecretText, E> {
                Ok(text.into())
            }

            fn visit_string<E>(self, text: String) -> std::result::Result<SecretText, E> {
                Ok(text.into())
            }

            fn visit_u64<E>(self, number: u64) -> std::result::Result<SecretText, E> {
                Ok(number.to_string().into())
            }

            fn visit_i64<E>(self, number: i64) -> std::result::Result<SecretText, E> {
                Ok(number.to_string().into())
            }

            fn visit_f64<E>(self, number: f64) -> std::result::Result<SecretText, E> {
                Ok(number.to_string().into())
            }

            fn visit_bool<E>(self, truth: bool) -> std::result::Result<SecretText, E> {
                Ok(truth.to_string().into())
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ParameterValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_shown_and_credentials_are_not() {
        for (text, shown) in [
            ("env:OPENAI_API_KEY", "env:OPENAI_API_KEY"),
            (" file:/run/secrets/key ", " file:/run/secrets/key "),
            ("sk-canary", "***"),
            ("sealed:AAAA", "***"),
            ("", "***"),
        ] {
            let secret = SecretText::new(text);
            assert_eq!((secret.shown(), format!("{secret:?}").as_str()), (shown, shown));
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_without_quoting_it() {
        let refusal =
            |text: &str| SecretText::new(text).check("saas.api_key").unwrap_err().message().to_owned();
        for (text, part) in [
            ("", "is empty"),
            ("-", "standard input"),
            ("***", "in place of a secret"),
            ("sealed:QUFB", "sealed for another place"),
            ("env:", "env:NAME"),
            ("env:A B", "env:NAME"),
            ("file:relative/path", "absolute"),
        ] {
            let message = refusal(text);
            assert!(message.starts_with("saas.api_key") && message.contains(part), "{message}");
        }
        for text in ["env:A_1", "file:/a", "sk-1"] {
            SecretText::new(text).check("saas.api_key").unwrap();
        }
    }

    #[test]
    fn scalars_of_json_are_read_and_errors_quote_nothing() {
        let read = |text: &str| serde_json::from_str::<SecretText>(text);
        for (text, value) in [(r#""x""#, "x"), ("30", "30"), ("-1", "-1"), ("0.5", "0.5"), ("true", "true")] {
            assert_eq!(read(text).unwrap().expose(), value);
        }
        let error = read(r#"["sk-canary"]"#).unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }
}
