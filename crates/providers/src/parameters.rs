//! `saas.*` parameters: typed, complete, and refused by name where they are unknown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use byzerllm_core::{Error, Result, nearest};
use url::Url;

use crate::{Secret, Vendor};

/// What a parameter may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A credential: never shown, and given as `env:NAME`, `file:PATH` or a literal.
    Secret,
    /// An absolute URL (`http`, `https`, `ws` or `wss`).
    Url,
    /// Seconds, with fractions, above 0.
    Seconds,
    /// A whole number from 0 on.
    Count,
    /// `true` or `false`.
    Flag,
    /// An IP address.
    Address,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One `saas.*` parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name without `saas.`.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What it may hold.
    pub kind: Kind,
    /// Its value when it is not given.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// One line for people.
    pub help: &'static str,
}

impl Parameter {
    /// A parameter that may be left out.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, aliases: &[], kind, default: None, required: false, help }
    }

    /// The same, with a value for when it is left out.
    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The same, but it must be given.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, with other names.
    #[must_use]
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

/// What every vendor has.
pub(crate) static COMMON: &[Parameter] = &[
    Parameter::new("model", Kind::Text, "The model's name at the vendor"),
    Parameter::new("base_url", Kind::Url, "Where the API is, when not at the vendor's own address"),
    Parameter::new("max_output_tokens", Kind::Count, "New tokens of a request that names no number itself"),
    Parameter::new("context_length", Kind::Count, "Tokens that the model takes, for `get_max_model_length`"),
    Parameter::new("timeout", Kind::Seconds, "From the request to the last piece of its answer").or("600"),
    Parameter::new("connect_timeout", Kind::Seconds, "Until the connection stands").or("10"),
    Parameter::new("first_byte_timeout", Kind::Seconds, "From the request to the first piece of its answer")
        .or("120"),
    Parameter::new("idle_timeout", Kind::Seconds, "Between two pieces of an answer").or("60"),
    Parameter::new("max_retries", Kind::Count, "Further attempts before the first piece of an answer")
        .or("2"),
    Parameter::new("proxies", Kind::Text, "URL of a proxy; empty for none").also(&["proxy"]),
    Parameter::new("local_address", Kind::Address, "Address of this machine that connections come from"),
    Parameter::new("https_verify", Kind::Flag, "Whether the vendor's certificate is checked")
        .or("true")
        .also(&["verify"]),
    Parameter::new("ca_file", Kind::Text, "PEM file of further certificate authorities to trust"),
];

/// A vendor's parameters, checked and complete with defaults.
#[derive(Debug, Clone)]
pub struct Parameters {
    values: BTreeMap<&'static str, Value>,
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Secret(Secret),
    Url(Url),
    Number(f64),
    Flag(bool),
    Address(IpAddr),
}

impl Parameters {
    /// Checks parameters and fills in defaults. Names may carry `saas.`; values of secrets are the credentials
    /// themselves, references are resolved before.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] naming the parameter: unknown (with the nearest name), missing, given
    /// twice under two names, or of the wrong kind. Values of secrets are never quoted.
    pub fn new<'a>(vendor: &Vendor, given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (key, text) in given {
            let parameter = lookup(vendor, key)?;
            let value = parse(parameter, text)?;
            if values.insert(parameter.name, value).is_some() {
                let name = parameter.name;
                return Err(invalid(name, format!("saas.{name} is given twice, under two of its names")));
            }
        }
        for parameter in all(vendor) {
            if values.contains_key(parameter.name) {
                continue;
            }
            match parameter.default {
                Some(default) => {
                    values.insert(parameter.name, parse(parameter, default)?);
                }
                None if parameter.required => {
                    let (name, kind) = (parameter.name, vendor.name);
                    let form = if parameter.kind == Kind::Secret { "env:NAME or file:PATH" } else { "VALUE" };
                    let message =
                        format!("saas/{kind} needs saas.{name}: {}; give saas.{name}={form}", parameter.help);
                    return Err(invalid(name, message));
                }
                None => {}
            }
        }
        Ok(Self { values })
    }

    /// A text that has a default or is required; empty when it is neither and absent.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.optional_text(name).unwrap_or_default()
    }

    /// A text; `None` when absent or empty.
    #[must_use]
    pub fn optional_text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A credential; `None` when absent.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.values.get(name) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// All credentials, for redaction.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.values.values().filter_map(|value| match value {
            Value::Secret(secret) => Some(secret),
            _ => None,
        })
    }

    /// A URL; `None` when absent.
    #[must_use]
    pub fn url(&self, name: &str) -> Option<&Url> {
        match self.values.get(name) {
            Some(Value::Url(url)) => Some(url),
            _ => None,
        }
    }

    /// A time; `None` when absent.
    #[must_use]
    pub fn seconds(&self, name: &str) -> Option<Duration> {
        self.number(name).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// A number; `None` when absent.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        // Whole and below 2^53, as parsed.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked by `parse`")]
        self.number(name).map(|number| number as u64)
    }

    fn number(&self, name: &str) -> Option<f64> {
        match self.values.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A flag; `false` when absent.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some(Value::Flag(true)))
    }

    /// An address; `None` when absent.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<IpAddr> {
        match self.values.get(name) {
            Some(Value::Address(address)) => Some(*address),
            _ => None,
        }
    }
}

/// The parameters of a vendor: its own first, which hide common ones of the same name.
pub fn all(vendor: &Vendor) -> impl Iterator<Item = &'static Parameter> {
    let own = vendor.parameters;
    let hidden = move |common: &&Parameter| !own.iter().any(|own| own.name == common.name);
    own.iter().chain(COMMON.iter().filter(hidden))
}

/// The parameter that a key names.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`], naming the nearest.
pub fn lookup(vendor: &Vendor, key: &str) -> Result<&'static Parameter> {
    let word = key.strip_prefix("saas.").unwrap_or(key);
    let known = all(vendor).find(|parameter| parameter.name == word || parameter.aliases.contains(&word));
    known.ok_or_else(|| {
        let near = nearest(word, all(vendor).map(|parameter| parameter.name)).unwrap_or("model");
        let names: Vec<String> = all(vendor).map(|parameter| format!("saas.{}", parameter.name)).collect();
        let shown: String = word.chars().take(64).collect();
        let shown = shown.escape_debug();
        let message = format!(
            "saas/{} knows no parameter 'saas.{shown}'; did you mean 'saas.{near}'? It knows: {}",
            vendor.name,
            names.join(", ")
        );
        Error::invalid(format!("saas.{shown}"), message)
    })
}

fn parse(parameter: &Parameter, text: &str) -> Result<Value> {
    let name = parameter.name;
    let trimmed = text.trim();
    let wrong = |what: &str| {
        let shown: String = trimmed.chars().take(64).collect();
        invalid(name, format!("saas.{name} must be {what}, got '{}'", shown.escape_debug()))
    };
    let value = match parameter.kind {
        Kind::Text => Value::Text(trimmed.to_owned()),
        Kind::Secret if trimmed.is_empty() => {
            return Err(invalid(name, format!("saas.{name} is empty: {}", parameter.help)));
        }
        Kind::Secret if trimmed.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            return Err(invalid(
                name,
                format!("saas.{name} holds a space or a line end; it must be one word"),
            ));
        }
        Kind::Secret => Value::Secret(Secret::new(trimmed)),
        Kind::Url => {
            let url = Url::parse(trimmed)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https" | "ws" | "wss") && url.has_host());
            let url = url.ok_or_else(|| {
                invalid(name, format!("saas.{name} must be an absolute URL, like https://host/v1"))
            })?;
            if !url.username().is_empty() || url.password().is_some() {
                let message =
                    format!("saas.{name} holds a user or a password; give credentials as saas.api_key");
                return Err(invalid(name, message));
            }
            Value::Url(url)
        }
        Kind::Seconds => {
            let seconds =
                trimmed.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
            Value::Number(seconds.ok_or_else(|| wrong("seconds, above 0 and at most 86400"))?)
        }
        Kind::Count => {
            let count = trimmed.parse::<u32>().map_err(|_| wrong("a whole number from 0 on"))?;
            Value::Number(f64::from(count))
        }
        Kind::Flag => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Flag(true),
            "false" | "0" | "no" | "off" => Value::Flag(false),
            _ => return Err(wrong("true or false")),
        },
        Kind::Address => Value::Address(trimmed.parse().map_err(|_| wrong("an IP address"))?),
        Kind::Choice(words) if words.contains(&trimmed) => Value::Text(trimmed.to_owned()),
        Kind::Choice(words) => return Err(wrong(&format!("one of {}", words.join(", ")))),
    };
    Ok(value)
}

fn invalid(name: &str, message: String) -> Error {
    Error::invalid(format!("saas.{name}"), message)
}
