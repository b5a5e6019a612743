//! Credentials taken out of what a vendor says.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use byzerllm_core::Error;

use crate::Secret;

/// The longest message that is shown, in characters.
const LONGEST: usize = 500;
/// The longest id of a request that is shown, in characters.
const LONGEST_ID: usize = 128;
/// A part of a credential (`id.secret`) from this length on is a credential itself.
const PART: usize = 12;
/// Shorter credentials tear apart every text.
const SHORTEST: usize = 4;

/// Takes the credentials of a deployment out of texts, in every form in which a message may hold them.
pub(crate) struct Redactor {
    forms: Vec<Secret>,
    /// The bytes that a form begins with: a look at them is all that most texts need.
    first: [bool; 256],
}

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            let whole = secret.expose();
            if whole.len() < SHORTEST {
                continue;
            }
            let parts =
                whole.split(['.', ':', '|']).filter(|part| part.len() >= PART && part.len() < whole.len());
            for text in std::iter::once(whole).chain(parts) {
                forms.push(text.to_owned());
                forms.push(percent_encode(text));
                forms.extend(in_base64(text));
            }
        }
        // Longer ones first: a short one must not break a long one apart.
        forms.sort_by(|left, right| right.len().cmp(&left.len()).then_with(|| left.cmp(right)));
        forms.dedup();
        let mut first = [false; 256];
        for byte in forms.iter().filter_map(|form| form.bytes().next()) {
            first[usize::from(byte)] = true;
        }
        Self { forms: forms.into_iter().map(Secret::new).collect(), first }
    }

    /// Whether a text holds a credential.
    fn finds(&self, text: &[u8]) -> bool {
        let starts =
            |at: usize| self.forms.iter().any(|form| text[at..].starts_with(form.expose().as_bytes()));
        text.iter().enumerate().any(|(at, byte)| self.first[usize::from(*byte)] && starts(at))
    }

    /// The text without credentials.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if self.finds(text.as_bytes()) {
            for form in &self.forms {
                text = form.redact(&text);
            }
        }
        text
    }

    /// The error without credentials, on one line, of bounded length and without its source.
    pub(crate) fn error(&self, error: &Error) -> Error {
        let mut clean = Error::new(error.kind(), self.message(error.message()));
        if let Some(param) = error.param() {
            clean = clean.with_param(line(&self.text(param), LONGEST_ID));
        }
        if let Some(after) = error.retry_after() {
            clean = clean.with_retry_after(after);
        }
        if let Some(usage) = error.usage() {
            clean = clean.with_usage(usage.clone());
        }
        if let Some(id) = error.vendor_request_id() {
            clean = clean.with_vendor_request_id(self.id(id));
        }
        clean
    }

    /// A vendor's message, without credentials, on one line and of bounded length.
    pub(crate) fn message(&self, text: &str) -> String {
        line(&self.text(text), LONGEST)
    }

    /// A vendor's id of a request, without credentials and of bounded length.
    pub(crate) fn id(&self, id: &str) -> String {
        line(&self.text(id), LONGEST_ID)
    }
}

/// One line of so many characters at most.
fn line(text: &str, most: usize) -> String {
    // As most ids are.
    if text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(4 * most));
    let mut space = true;
    let mut length = 0;
    for character in text.chars() {
        let blank = character.is_whitespace() || character.is_control();
        if blank && space {
            continue;
        }
        if length == most {
            out.push('…');
            break;
        }
        out.push(if blank { ' ' } else { character });
        length += 1;
        space = blank;
    }
    out.truncate(out.trim_end().len());
    out
}

/// What of a text's base64 form is the same wherever in a longer text it stands, in both alphabets.
fn in_base64(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for shift in 0..3 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(text.as_bytes());
        // The first characters hold bits of what stands before, the last ones of what follows.
        let from = [0, 2, 3][shift];
        let whole = bytes.len() / 3 * 4;
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            if let Some(form) = encoded.get(from..whole).filter(|form| form.len() >= 8) {
                forms.push(form.to_owned());
            }
        }
    }
    forms
}

fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The bytes that a percent-encoded text stands for.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2))
        {
            out.push((high * 16 + low) as u8);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use byzerllm_core::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_are_short_and_of_one_line() {
        let redactor = Redactor::new([&Secret::new("canary-1234")]);
        let text = format!("bad\r\nkey  canary-1234\u{0}{}", "é".repeat(1000));
        let error = Error::new(ErrorKind::Unauthenticated, text).with_vendor_request_id("a\ncanary-1234");
        let error = redactor.error(&error);
        assert!(error.message().starts_with("bad key *** éé"), "{error}");
        assert_eq!(error.message().chars().count(), LONGEST + 1);
        assert_eq!(error.vendor_request_id(), Some("a ***"));
    }

    #[test]
    fn a_long_secret_at_the_cut_does_not_show() {
        let secret = "s".repeat(3000);
        let redactor = Redactor::new([&Secret::new(secret.as_str())]);
        let error = redactor.error(&Error::internal(format!("{}{secret}", "a ".repeat(240))));
        assert!(!error.message().contains("ss"), "{error}");
    }

    #[test]
    fn short_words_stay() {
        let redactor = Redactor::new([&Secret::new("key")]);
        assert_eq!(redactor.text("bad key"), "bad key");
    }

    proptest! {
        #[test]
        fn every_form_is_found(secret in "[ -~]{12,40}", before in "[ -~]{0,9}", after in "[ -~]{0,9}") {
            let redactor = Redactor::new([&Secret::new(secret.as_str())]);
            let shown = redactor.text(&format!("{before}{secret}{after}"));
            prop_assert!(!shown.contains(&secret));
            let encoded = percent_encode(&secret);
            let shown = redactor.text(&format!("x{encoded}y"));
            prop_assert!(!shown.contains(&encoded));
            prop_assert_eq!(percent_decode(&encoded), secret.as_bytes());
            // In base64 the middle of the secret is gone, wherever it stood.
            let whole = STANDARD.encode(format!("{before}{secret}{after}"));
            let shown = redactor.text(&whole);
            prop_assert!(shown.contains("***"), "{}", shown);
            prop_assert!(shown.len() < whole.len());
        }
    }
}
