//! Server-sent events from bytes, in whatever pieces they come.
//!
//! Only what servers of language models send: the fields `event`, `id` and `data`, lines ended by LF or CRLF, comments. An
//! event is complete at an empty line; what follows the last one is dropped, as the format demands, unless the caller
//! asks for it with [`Parser::finish`]. An event that lies whole in one piece is handed on without a copy.

use byzerllm_core::{Error, ErrorKind, Result};

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The `event` field; empty when there was none.
    pub event: &'a str,
    /// The `id` field of this event; empty when there was none.
    pub id: &'a str,
    /// The `data` fields, joined by line feeds.
    pub data: &'a str,
}

/// Takes bytes and gives events.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// Bytes of a line whose end has not come.
    line: Vec<u8>,
    event: String,
    id: String,
    data: String,
    has_data: bool,
    first_line: bool,
}

impl Parser {
    /// A parser that refuses events of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            event: String::new(),
            id: String::new(),
            data: String::new(),
            has_data: false,
            first_line: true,
        }
    }

    /// Adds bytes; complete events are handed to `each`.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`] when an event is larger than the limit or no UTF-8, and what `each` finds wrong. The
    /// stream is of no use then.
    pub fn push(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Frame<'_>) -> Result<()>) -> Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            self.check(line.len())?;
            if self.line.is_empty() {
                bytes = self.take_line(line, rest, each)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                bytes = self.take_line(&whole, rest, each)?;
                whole.clear();
                self.line = whole;
            }
        }
        self.check(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Hands on what an empty line would have completed: for servers that end their last event with the connection.
    ///
    /// # Errors
    /// As [`Parser::push`].
    pub fn finish(&mut self, each: &mut dyn FnMut(Frame<'_>) -> Result<()>) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line, b"", each)?;
        }
        self.take_line(b"", b"", each)?;
        Ok(())
    }

    fn check(&self, more: usize) -> Result<()> {
        let limit = self.limit;
        if self.line.len() + self.event.len() + self.id.len() + self.data.len() + more > limit {
            return Err(broken(format!("the server sent an event of more than {limit} bytes")));
        }
        Ok(())
    }

    /// Reads a line; gives what of `rest` is still to be read.
    fn take_line<'a>(
        &mut self,
        line: &[u8],
        rest: &'a [u8],
        each: &mut dyn FnMut(Frame<'_>) -> Result<()>,
    ) -> Result<&'a [u8]> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|error| broken("the server sent an event that is not UTF-8").with_source(error))?;
        let line = if std::mem::take(&mut self.first_line) {
            line.strip_prefix('\u{feff}').unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                each(Frame { event: &self.event, id: &self.id, data: &self.data })?;
            }
            self.event.clear();
            self.id.clear();
            self.data.clear();
            return Ok(rest);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "id" => value.clone_into(&mut self.id),
            "data" if self.has_data => {
                self.data.push('\n');
                self.data.push_str(value);
            }
            "data" => {
                // Nearly always the event ends here.
                let after = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n"));
                if let Some(after) = after {
                    each(Frame { event: &self.event, id: &self.id, data: value })?;
                    self.event.clear();
                    self.id.clear();
                    return Ok(after);
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        Ok(rest)
    }
}

fn broken(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Upstream, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (String, String);

    fn feed(parser: &mut Parser, bytes: &[u8], frames: &mut Vec<Owned>) -> Result<()> {
        parser.push(bytes, &mut |frame| {
            frames.push((frame.event.to_owned(), frame.data.to_owned()));
            Ok(())
        })
    }

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
        let mut parser = Parser::new(1 << 20);
        let mut frames = Vec::new();
        for piece in pieces {
            feed(&mut parser, piece, &mut frames).unwrap();
        }
        frames
    }

    fn frame(event: &str, data: &str) -> Owned {
        (event.to_owned(), data.to_owned())
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
    fn an_event_that_the_connection_ends_is_read_on_demand() {
        for text in [
            "data: a\n\nevent: e\ndata: b",
            "data: a\n\nevent: e\ndata: b\n",
            "data: a\r\n\r\nevent:e\r\ndata:b\r",
        ] {
            let mut parser = Parser::new(1000);
            let mut frames = Vec::new();
            feed(&mut parser, text.as_bytes(), &mut frames).unwrap();
            assert_eq!(frames, [frame("", "a")], "{text:?}");
            parser
                .finish(&mut |last| {
                    assert_eq!((last.event, last.data), ("e", "b"), "{text:?}");
                    frames.push(frame(last.event, last.data));
                    Ok(())
                })
                .unwrap();
            assert_eq!(frames.len(), 2, "{text:?}");
        }
    }

    #[test]
    fn an_endless_event_is_refused_with_little_memory() {
        for text in ["data: x\n", "data: xxxxxxxxxxxxxxx", "event: x\ndata: yyyyyyyy\n"] {
            let mut parser = Parser::new(1000);
            let mut frames = Vec::new();
            let error = (0..1000).find_map(|_| feed(&mut parser, text.as_bytes(), &mut frames).err());
            assert_eq!(error.unwrap().kind(), ErrorKind::Upstream);
            assert!(parser.line.capacity() + parser.event.capacity() + parser.data.capacity() < 4000);
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn other_encodings_are_refused() {
        let mut parser = Parser::new(1000);
        assert!(feed(&mut parser, b"data: \xff\n", &mut Vec::new()).is_err());
    }

    #[test]
    fn what_a_reader_finds_wrong_ends_the_stream() {
        let mut parser = Parser::new(1000);
        let error = parser.push(b"data: a\n\ndata: b\n\n", &mut |_| Err(broken("no"))).unwrap_err();
        assert_eq!(error.message(), "no");
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
            let _ = feed(&mut parser, &bytes, &mut Vec::new());
        }
    }
}
