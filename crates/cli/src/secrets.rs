//! Secrets of vendors as they are typed: `env:NAME` and `file:PATH` go on as they are, `-` is read from standard input,
//! and a literal is told to be no good idea.

use std::io::{IsTerminal, Read};

use byzerllm_core::{Error, Result};
use byzerllm_providers::{Kind, Parameter};
use byzerllm_runtime::SecretText;

/// The most bytes of a secret on standard input.
const MAX_BYTES: u64 = 64 << 10;

/// The value of a parameter, read from standard input where `-` asks for that.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`] when there is nothing, or no text, on standard input.
pub(crate) fn given(parameter: &Parameter, text: impl Into<SecretText>) -> Result<SecretText> {
    let text = text.into();
    if parameter.kind != Kind::Secret || text.expose().trim() != "-" {
        return Ok(text);
    }
    let name = format!("saas.{}", parameter.name);
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let message =
            format!("{name} is '-', and standard input is a terminal; write `byzerllm deploy … < FILE`");
        return Err(Error::invalid(name, message));
    }
    read(&name, stdin.lock())
}

fn read(name: &str, source: impl Read) -> Result<SecretText> {
    let mut text = String::new();
    let wrong = |what: String| Error::invalid(name.to_owned(), format!("{name} is '-', and {what}"));
    let count = source
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("standard input cannot be read: {error}; pass the secret as text")))?;
    if count as u64 > MAX_BYTES {
        return Err(wrong("standard input holds more than 64 KiB; pass the secret alone".to_owned()));
    }
    if text.trim().is_empty() {
        return Err(wrong(
            "standard input is empty; pass the secret there, to one parameter only".to_owned(),
        ));
    }
    Ok(text.trim().into())
}

/// What is told about the secrets among a vendor's parameters that stand literally in a command line or a program.
pub(crate) fn warning<'a>(
    vendor: &str,
    given: impl IntoIterator<Item = (&'a str, &'a SecretText)>,
) -> Option<String> {
    let vendor = byzerllm_providers::find(vendor).ok()?;
    let literals: Vec<String> = given
        .into_iter()
        .filter(|(_, value)| value.is_literal() && !matches!(value.expose().trim(), "" | "-"))
        .filter_map(|(key, _)| byzerllm_providers::find_parameter(vendor, key).ok())
        .filter(|parameter| parameter.kind == Kind::Secret)
        .map(|parameter| format!("saas.{}", parameter.name))
        .collect();
    (!literals.is_empty()).then(|| {
        format!(
            "warning: {} holds the secret itself, which a list of processes, the history of a shell and the source of a \
             program show; give env:NAME or file:PATH, which the process that runs the model looks up, or - for \
             standard input",
            literals.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_standard_input() {
        assert_eq!(read("saas.api_key", &b" sk-1\n"[..]).unwrap().expose(), "sk-1");
        for (input, part) in
            [(&b"\n"[..], "is empty"), (&[0xFF][..], "as text"), (&[b'x'; 70_000][..], "64 KiB")]
        {
            let error = read("saas.api_key", input).unwrap_err();
            assert!(error.message().contains(part), "{error}");
            assert_eq!(error.param(), Some("saas.api_key"));
        }
    }

    #[test]
    fn only_a_secret_that_is_a_dash_is_read() {
        const KEY: Parameter = Parameter::new("api_key", Kind::Secret, "");
        const TEXT: Parameter = Parameter::new("model", Kind::Text, "");
        assert_eq!(given(&KEY, "env:KEY").unwrap().expose(), "env:KEY");
        assert_eq!(given(&TEXT, "-").unwrap().expose(), "-");
    }

    #[test]
    fn literals_are_told_and_references_are_not() {
        let told = |key: &str, value: &str| warning("saas/openai", [(key, &SecretText::from(value))]);
        for (key, value) in [
            ("saas.api_key", "env:KEY"),
            ("saas.api_key", "file:/key"),
            ("saas.api_key", "-"),
            ("saas.model", "m"),
            ("temperature", "1"),
        ] {
            assert_eq!(told(key, value), None);
        }
        let told = told("saas.api_key", "sk-canary").unwrap();
        assert!(told.contains("saas.api_key") && !told.contains("canary"), "{told}");
    }
}
