//! HTTP/1.1 as a client reads it: the head of an answer from bytes, and where its body ends.
//!
//! Sources: RFC 9112 sections 4 to 7 and 9.3, RFC 9110 sections 6.4.1 and 15.2.

use std::mem::MaybeUninit;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest head of an answer, in bytes.
pub(crate) const MAX_HEAD: usize = 64 << 10;
/// The most header lines of an answer.
const MAX_LINES: usize = 100;
/// The most bytes of chunk extensions and trailers in one answer.
const MAX_ASIDE: u32 = 16 << 10;

/// What no HTTP server sends, in words that quote nothing of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Odd(pub(crate) String);

fn odd(what: &str) -> Odd {
    Odd(what.to_owned())
}

/// The head of an answer, and what it says of the body.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) rest: Rest,
    /// Whether the connection serves another message once the body is read.
    pub(crate) keep: bool,
    /// The bytes that the head took.
    pub(crate) length: usize,
}

/// Reads a head; `None` when its end has not come yet.
pub(crate) fn beginning(bytes: &[u8]) -> Result<Option<Beginning>, Odd> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    let length = match parsed.map_err(|error| Odd(error.to_string()))? {
        httparse::Status::Complete(length) if length <= MAX_HEAD => length,
        httparse::Status::Partial if bytes.len() < MAX_HEAD => return Ok(None),
        _ => return Err(odd("a head that is too long")),
    };
    let status = response.code.ok_or_else(|| odd("no status"))?;
    let old = response.version != Some(1);
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| odd("an odd header field"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| odd("an odd header field"))?;
        headers.append(name, value);
    }
    let length_told = content_length(&headers)?;
    let coded = headers.contains_key(TRANSFER_ENCODING);
    let rest = if status < 200 || matches!(status, 204 | 304) {
        Rest::Nothing
    } else if coded {
        if last_is_chunked(&headers) { Rest::Chunked(Chunks::default()) } else { Rest::UntilClose }
    } else {
        length_told
            .map_or(Rest::UntilClose, |length| if length == 0 { Rest::Nothing } else { Rest::Sized(length) })
    };
    let asked = if old { says(&headers, "keep-alive") } else { !says(&headers, "close") };
    // A length beside a coding, or a coding in the old version, is how answers are smuggled.
    let clear = !coded || (length_told.is_none() && !old);
    let keep = asked && clear && !matches!(rest, Rest::UntilClose);
    Ok(Some(Beginning { status, headers, rest, keep, length }))
}

/// The one length that is told.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Odd> {
    let mut found: Option<u64> = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for part in value.as_bytes().split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(part).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            let length: u64 = length.ok_or_else(|| odd("a length that is no number"))?;
            if found.is_some_and(|found| found != length) {
                return Err(odd("two lengths that differ"));
            }
            found = Some(length);
        }
    }
    Ok(found)
}

fn last_is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let word = last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
    word.is_some_and(|word| word.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Whether a word stands in the field `Connection`.
fn says(headers: &HeaderMap, word: &str) -> bool {
    let mut words =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|found| found.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// What is still to come of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    /// So many bytes.
    Sized(u64),
    Chunked(Chunks),
    /// Whatever comes until the server closes.
    UntilClose,
}

impl Rest {
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Takes bytes off the wire and appends those of the body. Gives how many were taken; what is left is no part of the
    /// answer.
    pub(crate) fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Odd> {
        let taken = match self {
            Self::Nothing => return Ok(0),
            Self::UntilClose => {
                body.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            Self::Sized(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                body.extend_from_slice(&bytes[..most]);
                *left -= most as u64;
                if *left > 0 {
                    return Ok(most);
                }
                most
            }
            Self::Chunked(chunks) => {
                let taken = chunks.take(bytes, body)?;
                if chunks.at != At::End {
                    return Ok(taken);
                }
                taken
            }
        };
        *self = Self::Nothing;
        Ok(taken)
    }
}

/// A body in chunks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    at: At,
    /// The size of the chunk as far as it is read, then what is left of it.
    left: u64,
    /// Bytes of extensions and trailers so far.
    aside: u32,
}

/// Where in the framing the next byte is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    MoreSize,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    Line,
    Trailer,
    LastEnd,
    End,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Odd> {
        let mut place = 0;
        while let Some(&byte) = bytes.get(place) {
            if self.at == At::Data {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - place);
                body.extend_from_slice(&bytes[place..place + most]);
                place += most;
                self.left -= most as u64;
                if self.left == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            place += 1;
            self.at = match (self.at, byte) {
                (At::Size | At::MoreSize, digit) if digit.is_ascii_hexdigit() => {
                    let digit = char::from(digit).to_digit(16).unwrap_or_default();
                    let size = self.left.checked_mul(16).filter(|size| *size < 1 << 60);
                    self.left = size.ok_or_else(|| odd("a chunk without bounds"))? + u64::from(digit);
                    At::MoreSize
                }
                (At::MoreSize, b'\r') | (At::Extension, b'\r') => At::SizeEnd,
                (At::MoreSize, b';' | b' ' | b'\t') => At::Extension,
                (At::Extension, byte) if byte != b'\n' => self.beside(At::Extension)?,
                (At::SizeEnd, b'\n') if self.left == 0 => At::Line,
                (At::SizeEnd, b'\n') => At::Data,
                (At::DataReturn, b'\r') => At::DataEnd,
                (At::DataEnd, b'\n') => At::Size,
                (At::Line, b'\r') => At::LastEnd,
                (At::Line | At::Trailer, b'\n') if self.at == At::Trailer => At::Line,
                (At::Line | At::Trailer, byte) if byte != b'\n' => self.beside(At::Trailer)?,
                (At::LastEnd, b'\n') => {
                    self.at = At::End;
                    return Ok(place);
                }
                _ => return Err(odd("chunks that are none")),
            };
        }
        Ok(place)
    }

    fn beside(&mut self, at: At) -> Result<At, Odd> {
        self.aside += 1;
        if self.aside > MAX_ASIDE { Err(odd("chunks with endless remarks")) } else { Ok(at) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Beginning {
        beginning(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_the_connection_stays() {
        let chunked = || Rest::Chunked(Chunks::default());
        for (head_text, rest, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Rest::Sized(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n", Rest::Sized(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", Rest::Nothing, true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n", Rest::Sized(5), false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close\r\n", Rest::Sized(5), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", Rest::Sized(5), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n", Rest::Sized(5), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n", chunked(), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: x, chunked\r\n", chunked(), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunked(), false),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n", chunked(), false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n", Rest::UntilClose, false),
            ("HTTP/1.1 200 OK\r\n", Rest::UntilClose, false),
            ("HTTP/1.1 204 No Content\r\n", Rest::Nothing, true),
            ("HTTP/1.1 100 Continue\r\n", Rest::Nothing, true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", Rest::Nothing, true),
        ] {
            let found = head(&format!("{head_text}\r\nbody"));
            assert_eq!((found.rest, found.keep), (rest, keep), "{head_text}");
            assert_eq!(found.length, head_text.len() + 2);
        }
    }

    #[test]
    fn what_is_no_head_is_told_from_what_is_not_whole() {
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        ] {
            assert!(beginning(text.as_bytes()).is_err(), "{text}");
        }
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for end in 0..whole.len() {
            assert!(beginning(&whole.as_bytes()[..end]).unwrap().is_none(), "{end}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(MAX_HEAD));
        assert!(beginning(endless.as_bytes()).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: 1\r\n".repeat(MAX_LINES + 1));
        assert!(beginning(many.as_bytes()).is_err());
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            "5\n",
            "5\r\r",
            "5\r\nhello!",
            "5\r\nhello\r\r",
            "0\r\n\n",
            "0\r\nA: 1\r\n\n",
            ";x\r\n",
            "-1\r\n",
            "10000000000000000\r\n",
            " 5\r\n",
            "5;a\nb\r\n",
        ] {
            let mut rest = Rest::Chunked(Chunks::default());
            assert!(rest.take(text.as_bytes(), &mut Vec::new()).is_err(), "{text:?}");
        }
        let remarks = format!("5;{}\r\n", "x".repeat(MAX_ASIDE as usize + 1));
        assert!(Rest::Chunked(Chunks::default()).take(remarks.as_bytes(), &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn chunks_give_the_same_however_they_are_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(1_usize..20, 0..40),
            trailer in any::<bool>(),
        ) {
            let mut wire = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                let extension = if index % 2 == 0 { ";a=b" } else { "" };
                wire.extend_from_slice(format!("{:X}{extension}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(if trailer { b"00\r\nA: 1\r\n\r\n" } else { b"0\r\n\r\n" });
            let end = wire.len();
            wire.extend_from_slice(b"HTTP/1.1");
            let (mut rest, mut body, mut place) = (Rest::Chunked(Chunks::default()), Vec::new(), 0);
            let mut cuts = cuts.into_iter();
            while !rest.is_over() {
                let until = cuts.next().map_or(wire.len(), |cut| (place + cut).min(wire.len()));
                place += rest.take(&wire[place..until], &mut body).unwrap();
            }
            prop_assert_eq!(place, end);
            prop_assert_eq!(body, pieces.concat());
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = beginning(&bytes);
            let _ = Rest::Chunked(Chunks::default()).take(&bytes, &mut Vec::new());
        }
    }
}
