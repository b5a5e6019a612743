//! What can go wrong on the way, as typed as the answers themselves.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use byzerllm_core::{Error, nearest};

/// One fault of one request. Written as in [`Fault::NAMES`], some with a number: `slow-first-byte:0.5`, `429:2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The head of the answer comes after this time.
    SlowFirstByte(Duration),
    /// Nothing comes at all until the client leaves.
    StallBefore,
    /// The answer stops in its middle until the client leaves.
    Stall,
    /// The connection is closed inside an event.
    Truncated,
    /// The connection is closed after a whole event, before the end of the answer.
    EarlyEnd,
    /// All events come in one write.
    Merged,
    /// Every byte comes alone.
    Split,
    /// Chunks end inside characters.
    SplitCharacters,
    /// Events come twice, as a flaky proxy sends them: every event where the vendor numbers its events, so that a client
    /// can tell; elsewhere only those that are no text (first, finish, usage, end), as two equal pieces of text are
    /// nothing unusual.
    Duplicated,
    /// The answer does not say what it cost.
    NoUsage,
    /// The answer says that it cost nothing.
    ZeroUsage,
    /// An error status, with a `Retry-After` field or without one.
    Status(u16, RetryAfter),
    /// An error in the vendor's own form inside the answer.
    StreamError,
    /// A byte that is no UTF-8, inside a text.
    InvalidUtf8,
    /// An event of this many bytes.
    Oversized(u64),
    /// The connection is reset before the head of the answer.
    ResetBefore,
    /// The connection is reset in the middle of the answer.
    Reset,
    /// An error in the vendor's own form, with status 200.
    ErrorWithStatus200,
    /// The right answer with the content type `text/plain`.
    WrongContentType,
    /// A web page instead of an answer, with status 200.
    WebPage,
    /// The vendor sends the client to another origin, [`crate::Simulator::elsewhere`].
    Redirect,
}

/// When to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// It is not said.
    Unsaid,
    /// In so many seconds.
    Seconds(u32),
    /// At a point of time, so many seconds from now, written as an HTTP date.
    Date(u32),
}

/// The size of [`Fault::Oversized`] when none is given.
const OVERSIZED: u64 = 64 << 20;

impl Fault {
    /// Every name, with what it takes.
    pub const NAMES: [&str; 25] = [
        "slow-first-byte[:SECONDS]",
        "stall-before",
        "stall",
        "truncated",
        "early-end",
        "merged",
        "split",
        "split-characters",
        "duplicated",
        "no-usage",
        "zero-usage",
        "429[:SECONDS|:date]",
        "500",
        "502",
        "503[:SECONDS|:date]",
        "529",
        "stream-error",
        "invalid-utf8",
        "oversized[:BYTES]",
        "reset-before",
        "reset",
        "error-with-status-200",
        "wrong-content-type",
        "web-page",
        "redirect",
    ];

    /// One of every kind, with short times, for tests that go through all.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self::SlowFirstByte(Duration::from_millis(20)),
            Self::StallBefore,
            Self::Stall,
            Self::Truncated,
            Self::EarlyEnd,
            Self::Merged,
            Self::Split,
            Self::SplitCharacters,
            Self::Duplicated,
            Self::NoUsage,
            Self::ZeroUsage,
            Self::Status(429, RetryAfter::Unsaid),
            Self::Status(429, RetryAfter::Seconds(1)),
            Self::Status(429, RetryAfter::Date(2)),
            Self::Status(500, RetryAfter::Unsaid),
            Self::Status(502, RetryAfter::Unsaid),
            Self::Status(503, RetryAfter::Seconds(1)),
            Self::Status(529, RetryAfter::Unsaid),
            Self::StreamError,
            Self::InvalidUtf8,
            Self::Oversized(OVERSIZED),
            Self::ResetBefore,
            Self::Reset,
            Self::ErrorWithStatus200,
            Self::WrongContentType,
            Self::WebPage,
            Self::Redirect,
        ]
    }

    /// Whether the request is refused before the vendor works on it, so that it is not billed.
    #[must_use]
    pub const fn refuses(&self) -> bool {
        matches!(self, Self::Status(..) | Self::ErrorWithStatus200 | Self::WebPage | Self::Redirect)
    }

    /// Whether the answer arrives whole in spite of it.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(
            self,
            Self::SlowFirstByte(_)
                | Self::Merged
                | Self::Split
                | Self::SplitCharacters
                | Self::Duplicated
                | Self::NoUsage
                | Self::ZeroUsage
                | Self::WrongContentType
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::SlowFirstByte(time) => return write!(f, "slow-first-byte:{}", time.as_secs_f64()),
            Self::Status(status, RetryAfter::Unsaid) => return write!(f, "{status}"),
            Self::Status(status, RetryAfter::Seconds(seconds)) => return write!(f, "{status}:{seconds}"),
            Self::Status(status, RetryAfter::Date(_)) => return write!(f, "{status}:date"),
            Self::Oversized(bytes) => return write!(f, "oversized:{bytes}"),
            Self::StallBefore => "stall-before",
            Self::Stall => "stall",
            Self::Truncated => "truncated",
            Self::EarlyEnd => "early-end",
            Self::Merged => "merged",
            Self::Split => "split",
            Self::SplitCharacters => "split-characters",
            Self::Duplicated => "duplicated",
            Self::NoUsage => "no-usage",
            Self::ZeroUsage => "zero-usage",
            Self::StreamError => "stream-error",
            Self::InvalidUtf8 => "invalid-utf8",
            Self::ResetBefore => "reset-before",
            Self::Reset => "reset",
            Self::ErrorWithStatus200 => "error-with-status-200",
            Self::WrongContentType => "wrong-content-type",
            Self::WebPage => "web-page",
            Self::Redirect => "redirect",
        };
        f.write_str(word)
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (word, value) = text.split_once(':').map_or((text, None), |(word, value)| (word, Some(value)));
        let wrong = || {
            let near = nearest(word, Self::NAMES.iter().map(|name| name.split('[').next().unwrap_or(name)));
            let shown: String = text.chars().take(64).collect();
            let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            let names = Self::NAMES.join(", ");
            Error::invalid(
                "fault",
                format!("there is no fault '{}'{hint} There are: {names}", shown.escape_debug()),
            )
        };
        let number = |default: f64| match value {
            None => Ok(default),
            Some(value) => value.parse::<f64>().ok().filter(|n| (0.0..=1e12).contains(n)).ok_or_else(wrong),
        };
        let retry = match value {
            None => RetryAfter::Unsaid,
            Some("date") => RetryAfter::Date(2),
            Some(seconds) => seconds.parse().map(RetryAfter::Seconds).unwrap_or(RetryAfter::Unsaid),
        };
        let takes_value = matches!(word, "slow-first-byte" | "oversized" | "429" | "503");
        if value.is_some() && !takes_value
            || matches!(word, "429" | "503") && value.is_some() && retry == RetryAfter::Unsaid
        {
            return Err(wrong());
        }
        Ok(match word {
            "slow-first-byte" => Self::SlowFirstByte(Duration::from_secs_f64(number(2.0)?.min(86_400.0))),
            "stall-before" => Self::StallBefore,
            "stall" => Self::Stall,
            "truncated" => Self::Truncated,
            "early-end" => Self::EarlyEnd,
            "merged" => Self::Merged,
            "split" => Self::Split,
            "split-characters" => Self::SplitCharacters,
            "duplicated" => Self::Duplicated,
            "no-usage" => Self::NoUsage,
            "zero-usage" => Self::ZeroUsage,
            "429" => Self::Status(429, retry),
            "500" => Self::Status(500, retry),
            "502" => Self::Status(502, retry),
            "503" => Self::Status(503, retry),
            "529" => Self::Status(529, retry),
            "stream-error" => Self::StreamError,
            "invalid-utf8" => Self::InvalidUtf8,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked by `number`"
            )]
            "oversized" => Self::Oversized(number(OVERSIZED as f64)? as u64),
            "reset-before" => Self::ResetBefore,
            "reset" => Self::Reset,
            "error-with-status-200" => Self::ErrorWithStatus200,
            "wrong-content-type" => Self::WrongContentType,
            "web-page" => Self::WebPage,
            "redirect" => Self::Redirect,
            _ => return Err(wrong()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_as_it_is_written() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
    }

    #[test]
    fn an_unknown_fault_names_the_nearest() {
        let error = "trunkated".parse::<Fault>().unwrap_err();
        assert!(error.message().contains("did you mean 'truncated'"), "{error}");
        assert!("429:soon".parse::<Fault>().is_err());
        assert!("split:3".parse::<Fault>().is_err());
    }
}
