//! What the user sees: standard output and error, colour, and failures with their remedy.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use byzerllm_core::{Error, ErrorKind};
use serde::Serialize;

use crate::arguments::Colour;

/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// The command line was wrong.
pub(crate) const MISUSED: u8 = 2;

/// Why a command ended early: what failed, what to do about it, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    remedy: Option<String>,
    code: u8,
    quiet: bool,
}

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The work failed.
    pub(crate) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: Some(remedy.into()), code: FAILED, quiet: false }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn misuse(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: MISUSED, ..Self::new(message, remedy) }
    }

    /// Everything has been said already.
    pub(crate) fn silent() -> Self {
        Self { message: String::new(), remedy: None, code: FAILED, quiet: true }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What failed.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let remedy = match error.kind() {
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => Some(
                "Run the command as the user who started the server, or put a key into BYZERLLM_API_KEY.",
            ),
            ErrorKind::NotFound => Some("`byzerllm list` shows what is deployed."),
            ErrorKind::RateLimited | ErrorKind::Overloaded => Some("Try again in a moment."),
            ErrorKind::Internal => Some("This is a bug: run again with -vv and report what it prints."),
            _ => None,
        };
        let message = one_line(error.message());
        // By convention a message says what failed and, after a semicolon, what to do.
        let (message, remedy) = match (remedy, message.rsplit_once("; ")) {
            (Some(remedy), _) => (message, Some(remedy.to_owned())),
            (None, Some((what, remedy))) => (what.to_owned(), Some(sentence(remedy))),
            (None, None) => (message, None),
        };
        Self { message, remedy, code: FAILED, quiet: false }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent();
        }
        Self { message: format!("input or output failed: {error}"), remedy: None, code: FAILED, quiet: false }
    }
}

/// Folds a message into one line, so that a failure stays two lines long.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

/// Where a command writes to, and whether in colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    silent: bool,
    out: bool,
    error: bool,
}

impl Output {
    /// Decides about colour once.
    pub(crate) fn new(colour: Colour) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let decide = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !plain,
        };
        Self {
            silent: false,
            out: decide(io::stdout().is_terminal()),
            error: decide(io::stderr().is_terminal()),
        }
    }

    /// Streams no text.
    pub(crate) fn silent() -> Self {
        Self { silent: true, out: false, error: false }
    }

    /// Writes one line to standard output.
    pub(crate) fn line(self, text: impl Display) -> Outcome {
        writeln!(io::stdout().lock(), "{text}")?;
        Ok(())
    }

    /// Writes a piece of streamed text to standard output at once.
    pub(crate) fn piece(self, text: &str) -> Outcome {
        if self.silent {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes indented JSON to standard output.
    pub(crate) fn json(self, value: &impl Serialize) -> Outcome {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(format!("could not write JSON: {error}"), "Please report this."))?;
        self.line(text)
    }

    /// Writes one line to standard error. Nobody is left to tell when that fails.
    pub(crate) fn note(self, text: impl Display) {
        let _unreadable = writeln!(io::stderr().lock(), "{text}");
    }

    /// Reports a failure: one line what failed, one line what to do.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.quiet {
            return;
        }
        let paint = Paint(self.error);
        self.note(format_args!("{} {}", paint.red("error:"), failure.message));
        if let Some(remedy) = &failure.remedy {
            self.note(format_args!("{} {remedy}", paint.bold(" help:")));
        }
    }

    /// Whether standard error is in colour.
    pub(crate) fn colours_errors(self) -> bool {
        self.error
    }

    /// Colours for standard output.
    pub(crate) fn paint(self) -> Paint {
        Paint(self.out)
    }
}

/// Adds terminal colours, or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31;1", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }
}

/// Rows with aligned columns, two spaces apart; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// A size that people read: `93.8 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_never_shows_its_source() {
        let error = Error::new(ErrorKind::Unavailable, "first\n   second").with_source("secret");
        let failure = Failure::from(error);
        assert_eq!((failure.message(), failure.code()), ("first second", FAILED));
    }

    #[test]
    fn what_to_do_stands_after_the_last_semicolon() {
        let failure = Failure::from(Error::invalid("n", "n is 9; it holds; lower n"));
        assert_eq!((failure.message(), failure.remedy.as_deref()), ("n is 9; it holds", Some("Lower n.")));
    }

    #[test]
    fn a_reader_that_went_away_is_not_worth_a_message() {
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).quiet);
        assert!(!Failure::from(io::Error::from(io::ErrorKind::NotFound)).quiet);
    }

    #[test]
    fn columns_line_up_for_any_width() {
        let rows = vec![vec!["NAME".into(), "STATE".into()], vec!["聊天室".into(), "ready".into()]];
        assert_eq!(table(&rows), ["NAME  STATE", "聊天室   ready"]);
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn sizes_use_binary_units() {
        assert_eq!(
            (bytes(1023), bytes(1024), bytes(98_362_432)),
            ("1023 B".into(), "1.0 KiB".into(), "93.8 MiB".into())
        );
    }
}
