//! An answer and a fault become the writes on the socket. Pure: what is sent is known before the first byte is.

use std::time::Duration;

use crate::fault::Fault;
use crate::http::{Whole, answer_head};
use crate::protocol::{Frame, Reply};
use crate::websocket;

/// One act on the socket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Bytes, flushed at once.
    Write(Vec<u8>),
    /// So many letters.
    Fill(u64),
    /// Time passes.
    Pause(Duration),
    /// Nothing more is sent; the client decides how long that lasts.
    Silence,
    /// The connection is torn.
    Reset,
    /// The connection is closed.
    Close,
}

/// The bytes that say how long the oversized event is are not counted in it.
const PADDING: (&str, &str) = ("{\"padding\":\"", "\",");

/// The steps of an answer. `numbered` says whether a client can tell a repeated event.
pub(crate) fn steps(
    reply: Reply,
    fault: Option<Fault>,
    numbered: bool,
    pace: Duration,
    error: Frame,
) -> Vec<Step> {
    let mut steps = match fault {
        Some(Fault::StallBefore) => return vec![Step::Silence],
        Some(Fault::ResetBefore) => return vec![Step::Reset],
        Some(Fault::SlowFirstByte(time)) => vec![Step::Pause(time)],
        _ => Vec::new(),
    };
    match reply {
        Reply::Whole(whole) => steps.extend(of_whole(whole, fault)),
        Reply::Events(mut head, frames) => {
            let kind =
                if fault == Some(Fault::WrongContentType) { "text/plain" } else { "text/event-stream" };
            head.push(("content-type".to_owned(), kind.to_owned()));
            head.push(("cache-control".to_owned(), "no-cache".to_owned()));
            head.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
            let wire = Wire { chunked: true, head: answer_head(200, &head) };
            steps.extend(wire.frames(frames, fault, numbered, pace, error));
        }
        Reply::Messages(frames) => {
            let wire = Wire { chunked: false, head: Vec::new() };
            steps.extend(wire.frames(frames, fault, numbered, pace, error));
        }
    }
    steps
}

/// A whole body, with its length.
fn of_whole(mut whole: Whole, fault: Option<Fault>) -> Vec<Step> {
    let half = whole.body.len() / 2;
    match fault {
        Some(Fault::WrongContentType) => {
            for (name, value) in &mut whole.headers {
                if name == "content-type" {
                    "text/plain".clone_into(value);
                }
            }
        }
        Some(Fault::EarlyEnd) => whole.body.truncate(half),
        Some(Fault::InvalidUtf8) => spoil(&mut whole.body),
        _ => {}
    }
    let oversize = match fault {
        Some(Fault::Oversized(bytes)) => Some(bytes),
        _ => None,
    };
    let padding = oversize.map_or(0, |bytes| bytes + (PADDING.0.len() + PADDING.1.len()) as u64 - 1);
    let length = whole.body.len() as u64 + padding;
    whole.headers.push(("content-length".to_owned(), length.to_string()));
    let head = answer_head(whole.status, &whole.headers);
    let body = whole.body;
    match fault {
        Some(Fault::Stall) => vec![Step::Write(head), Step::Write(body[..half].to_vec()), Step::Silence],
        Some(Fault::Truncated) => vec![Step::Write(head), Step::Write(body[..half].to_vec()), Step::Close],
        Some(Fault::Reset) => vec![Step::Write(head), Step::Write(body[..half].to_vec()), Step::Reset],
        Some(Fault::Split) => {
            let bytes = body.iter().map(|byte| Step::Write(vec![*byte]));
            std::iter::once(Step::Write(head)).chain(bytes).collect()
        }
        Some(Fault::SplitCharacters) => {
            let parts = inside_characters(&body).into_iter().map(Step::Write);
            std::iter::once(Step::Write(head)).chain(parts).collect()
        }
        Some(Fault::Oversized(bytes)) => vec![
            Step::Write(head),
            Step::Write(PADDING.0.into()),
            Step::Fill(bytes),
            Step::Write(PADDING.1.into()),
            Step::Write(body.get(1..).unwrap_or_default().to_vec()),
        ],
        _ => vec![Step::Write([head, body].concat())],
    }
}

/// How events are put on the socket.
struct Wire {
    /// Chunks of HTTP, or messages of a WebSocket.
    chunked: bool,
    head: Vec<u8>,
}

impl Wire {
    fn frames(
        &self,
        mut frames: Vec<Frame>,
        fault: Option<Fault>,
        numbered: bool,
        pace: Duration,
        error: Frame,
    ) -> Vec<Step> {
        let middle = frames.len() / 2;
        let mut end = vec![Step::Write(self.end())];
        match fault {
            Some(Fault::Duplicated) => {
                frames =
                    frames
                        .into_iter()
                        .flat_map(|frame| {
                            if numbered || !frame.text { vec![frame.clone(), frame] } else { vec![frame] }
                        })
                        .collect();
            }
            Some(Fault::StreamError) => {
                frames.truncate(middle);
                frames.push(error);
            }
            Some(Fault::EarlyEnd) => frames.truncate(middle),
            _ => {}
        }
        let mut events: Vec<Vec<u8>> = frames.iter().map(|frame| self.event(frame)).collect();
        let mut steps = vec![Step::Write(self.head.clone())];
        match fault {
            Some(Fault::Merged) => return self.merged(&events),
            Some(Fault::Split) => {
                let bytes: Vec<u8> = events.concat();
                steps.extend(bytes.iter().map(|byte| Step::Write(self.chunk(&[*byte]))));
                steps.append(&mut end);
                return steps;
            }
            Some(Fault::SplitCharacters) => {
                let parts = inside_characters(&events.concat());
                steps.extend(parts.iter().map(|part| Step::Write(self.chunk(part))));
                steps.append(&mut end);
                return steps;
            }
            Some(Fault::InvalidUtf8) => {
                let spoiled =
                    frames.iter().position(|frame| frame.text && !frame.data.is_ascii()).unwrap_or(middle);
                events[spoiled] = self.spoiled(&frames[spoiled]);
            }
            Some(Fault::Truncated) => {
                let cut = self.chunk(&events[middle]);
                steps.extend(events[..middle].iter().map(|event| Step::Write(self.chunk(event))));
                steps.push(Step::Write(cut[..cut.len() / 2].to_vec()));
                steps.push(Step::Close);
                return steps;
            }
            Some(Fault::Stall) => {
                (end, events) = (vec![Step::Silence], events[..middle].to_vec());
            }
            Some(Fault::Reset) => {
                (end, events) = (vec![Step::Reset], events[..middle].to_vec());
            }
            _ => {}
        }
        for (index, event) in events.iter().enumerate() {
            match fault {
                Some(Fault::Oversized(bytes)) if index == middle => {
                    steps.extend(self.oversized(&frames[index], bytes));
                }
                _ => steps.push(Step::Write(self.chunk(event))),
            }
            if !pace.is_zero() {
                steps.push(Step::Pause(pace));
            }
        }
        steps.append(&mut end);
        steps
    }

    /// An event as a client sees it after HTTP's chunks are undone; a message with its own head.
    fn event(&self, frame: &Frame) -> Vec<u8> {
        if self.chunked {
            format!("{}data: {}\n\n", frame.head, frame.data).into_bytes()
        } else {
            websocket::text(frame.data.as_bytes())
        }
    }

    fn chunk(&self, bytes: &[u8]) -> Vec<u8> {
        if self.chunked {
            [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
        } else {
            bytes.to_vec()
        }
    }

    fn end(&self) -> Vec<u8> {
        if self.chunked { b"0\r\n\r\n".to_vec() } else { websocket::close() }
    }

    fn merged(&self, events: &[Vec<u8>]) -> Vec<Step> {
        vec![Step::Write([self.head.clone(), self.chunk(&events.concat()), self.end()].concat())]
    }

    fn spoiled(&self, frame: &Frame) -> Vec<u8> {
        let mut data = frame.data.clone().into_bytes();
        spoil(&mut data);
        if self.chunked {
            [frame.head.as_bytes(), b"data: ", &data, b"\n\n"].concat()
        } else {
            websocket::text(&data)
        }
    }

    /// The event with a field of so many letters before its own.
    fn oversized(&self, frame: &Frame, bytes: u64) -> Vec<Step> {
        let rest = frame.data.strip_prefix('{').unwrap_or("\"end\":0}");
        let (before, after) = if self.chunked {
            (format!("{}data: {}", frame.head, PADDING.0), format!("{}{rest}\n\n", PADDING.1))
        } else {
            (PADDING.0.to_owned(), format!("{}{rest}", PADDING.1))
        };
        let length = (before.len() + after.len()) as u64 + bytes;
        let head =
            if self.chunked { format!("{length:x}\r\n").into_bytes() } else { websocket::text_head(length) };
        let tail = if self.chunked { "\r\n" } else { "" };
        vec![
            Step::Write([head, before.into_bytes()].concat()),
            Step::Fill(bytes),
            Step::Write([after, tail.to_owned()].concat().into_bytes()),
        ]
    }
}

/// Cuts behind the first byte of every character that has several.
fn inside_characters(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    for byte in bytes {
        if let Some(part) = parts.last_mut() {
            part.push(*byte);
        }
        if *byte >= 0xc0 {
            parts.push(Vec::new());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Puts a byte that is no UTF-8 into the first character of several bytes, else before everything.
fn spoil(bytes: &mut Vec<u8>) {
    match bytes.iter().position(|byte| *byte >= 0xc0) {
        Some(position) => bytes[position] = 0xff,
        None => bytes.insert(0, 0xff),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply() -> Reply {
        let text = Frame::new(&json!({"t": "你好"}), true);
        let end = Frame { head: String::new(), data: "[DONE]".to_owned(), text: false };
        Reply::Events(Vec::new(), vec![text.clone(), text, end])
    }

    fn sent(fault: Fault, numbered: bool) -> Vec<u8> {
        let error = Frame::new(&json!({"error": 1}), false);
        let steps = steps(reply(), Some(fault), numbered, Duration::ZERO, error);
        let bytes = steps
            .into_iter()
            .filter_map(|step| if let Step::Write(bytes) = step { Some(bytes) } else { None });
        let all = bytes.collect::<Vec<_>>().concat();
        let head = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        all[head..].to_vec()
    }

    fn without_chunks(mut body: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let end = body.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
            if size == 0 {
                return whole;
            }
            whole.extend(&body[end + 2..end + 2 + size]);
            body = &body[end + 4 + size..];
        }
    }

    #[test]
    fn however_an_answer_is_cut_it_holds_the_same_bytes() {
        let plain = without_chunks(&sent(Fault::NoUsage, false));
        for fault in [Fault::Merged, Fault::Split, Fault::SplitCharacters] {
            assert_eq!(without_chunks(&sent(fault, false)), plain, "{fault}");
        }
    }

    #[test]
    fn text_is_repeated_only_where_events_are_numbered() {
        let count = |numbered| {
            let body = without_chunks(&sent(Fault::Duplicated, numbered));
            String::from_utf8(body).unwrap().matches("你好").count()
        };
        assert_eq!((count(false), count(true)), (2, 4));
    }

    #[test]
    fn a_spoiled_answer_is_no_utf8() {
        assert!(String::from_utf8(sent(Fault::InvalidUtf8, false)).is_err());
    }

    #[test]
    fn a_truncated_answer_ends_inside_a_chunk() {
        let body = sent(Fault::Truncated, false);
        assert!(!body.ends_with(b"\r\n") && !body.ends_with(b"0\r\n\r\n"));
    }
}
