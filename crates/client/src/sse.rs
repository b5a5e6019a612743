//! Server-sent events from bytes, in whatever pieces they come.
//!
//! Only what our server and OpenAI's send: the fields `event` and `data`, lines ended by LF or CRLF, comments. An
//! event is complete at an empty line; what follows the last one is dropped, as the format demands.

use byzerllm_core::{Error, ErrorKind, Result};

/// The largest event, in bytes. A prompt's log probabilities are the largest thing that is sent.
pub(crate) const MAX_EVENT: usize = 64 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    /// The `event` field; empty when there was none.
    pub(crate) event: String,
    /// The `data` fields, joined by line feeds.
    pub(crate) data: String,
}

/// Takes bytes and gives events.
#[derive(Debug)]
pub(crate) struct Parser {
    limit: usize,
    /// Bytes of a line whose end has not come.
    line: Vec<u8>,
    event: String,
    data: Option<String>,
    first_line: bool,
}

impl Parser {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), event: String::new(), data: None, first_line: true }
    }

    /// Adds bytes; complete events are pushed to `frames`.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`] when an event is larger than the limit or no UTF-8. The stream is of no use then.
    pub(crate) fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() + self.size() > self.limit {
                let limit = self.limit;
                return Err(broken(format!("the server sent an event of more than {limit} bytes")));
            }
            let Some(rest) = piece.strip_suffix(b"\n") else {
                self.line.extend_from_slice(piece);
                return Ok(());
            };
            if self.line.is_empty() {
                self.take_line(rest, frames)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(rest);
                self.take_line(&line, frames)?;
                line.clear();
                self.line = line;
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.event.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn take_line(&mut self, line: &[u8], frames: &mut Vec<Frame>) -> Result<()> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|error| broken("the server sent an event that is not UTF-8").with_source(error))?;
        let line = if std::mem::take(&mut self.first_line) {
            line.strip_prefix('\u{feff}').unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if let Some(data) = self.data.take() {
                frames.push(Frame { event, data });
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        Ok(())
    }
}

fn broken(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Upstream, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
        let mut parser = Parser::new(1 << 20);
        let mut frames = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut frames).unwrap();
        }
        frames
    }

    fn frame(event: &str, data: &str) -> Frame {
        Frame { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn fields_comments_and_line_ends_are_read() {
        let text = "\u{feff}: hello\r\nevent: error\r\ndata: {\"a\":1}\r\n\r\nid: 7\ndata:x\ndata:  y\n\nevent: lost\n\ndata\n\ndata: cut";
        assert_eq!(
            parse([text.as_bytes()]),
            [frame("error", "{\"a\":1}"), frame("", "x\n y"), frame("", "")]
        );
    }

    #[test]
    fn an_endless_event_is_refused_with_little_memory() {
        for text in ["data: x\n", "data: xxxxxxxxxxxxxxx", "event: x\ndata: yyyyyyyy\n"] {
            let mut parser = Parser::new(1000);
            let mut frames = Vec::new();
            let error = (0..1000).find_map(|_| parser.push(text.as_bytes(), &mut frames).err());
            assert_eq!(error.unwrap().kind(), ErrorKind::Upstream);
            assert!(parser.line.capacity() + parser.size() < 4000);
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        let mut parser = Parser::new(1000);
        assert!(parser.push(b"data: \xff\n", &mut Vec::new()).is_err());
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            "data: ?[a-zé😀\r:{} ]{0,12}",
            "event: ?[a-z]{0,6}",
            ":[a-z ]{0,5}",
            "[a-z]{1,5}(: ?[a-z]{0,5})?"
        ]
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            lines in prop::collection::vec((line(), prop::bool::ANY), 0..30),
            cuts in prop::collection::vec(0_usize..400, 0..20),
        ) {
            let mut text = String::new();
            for (line, carriage) in &lines {
                text.push_str(line);
                text.push_str(if *carriage { "\r\n" } else { "\n" });
            }
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&bytes[start..cut]);
                start = cut;
            }
            pieces.push(&bytes[start..]);
            prop_assert_eq!(parse(pieces), parse([bytes]));
            prop_assert_eq!(parse(bytes.chunks(1)), parse([bytes]));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut parser = Parser::new(100);
            let _ = parser.push(&bytes, &mut Vec::new());
        }
    }
}
